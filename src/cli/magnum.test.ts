// What is shown of templates and clusters whose network is somebody else's, and how an upgrade is followed: against a small server in
// Magnum's place, and a kubectl that says what a test wants. A real Magnum is in test/openstack-magnum-calls.e2e.ts.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { networkOf } from '#cloud/magnum-network.ts';
import type { MagnumCluster } from '#cloud/magnum-schemas.ts';
import { json, keystone, serving } from '#cloud/server.fixture.ts';
import { checkSecret, checkSuccessor, followUpgrade } from './magnum-install.ts';
import { run, surroundings } from './run.fixture.ts';
import type { Session } from './session.ts';

const template = (network_driver: string, labels: object) => ({
  uuid: 't',
  name: 't',
  coe: 'kubernetes',
  image_id: 'i',
  network_driver,
  labels,
});
const foreign = {
  cilium: { ...template('cilium', {}), said: 'Causeway is no network of the driver cilium' },
  docker: { ...template('docker', {}), said: 'Causeway is no network of the driver docker' },
  udp: { ...template('flannel', { flannel_backend: 'udp' }), said: "Causeway does not carry as flannel's backend udp" },
};
const known = { ...foreign, tagged: template('calico', { calico_tag: 'v3.26.4', calico_ipv4pool: '10.83.0.0/16' }) };
let server: Awaited<ReturnType<typeof serving>>;
before(async () => {
  let url = '';
  server = await serving((request, response, body) => {
    const [, , kind = '', name = ''] = new URL(request.url ?? '', 'http://cloud').pathname.split('/').slice(1);
    const catalog = [{ type: 'container-infra', endpoints: [{ interface: 'public', region_id: 'one', url: `${url}/magnum` }] }];
    if (kind === 'tokens') return keystone(() => url, { catalog }).answer(request, response, body);
    const found = Object.entries(known).find(([key]) => key === name)?.[1];
    if (found === undefined) return json(response, 404, {});
    const cluster = { uuid: 'c', name, cluster_template_id: name, labels: found.labels };
    return json(response, 200, kind === 'clusters' ? cluster : found);
  });
  ({ url } = server);
});
after(() => server[Symbol.asyncDispose]());

function ask(words: string) {
  const environment = { OS_AUTH_URL: server.url, OS_USERNAME: 'demo', OS_PASSWORD: 'secret', OS_PROJECT_NAME: 'demo' };
  return run(`magnum ${words}`, { cloud: { environment, configFiles: [], secureFiles: [] } });
}

for (const [name, { said }] of Object.entries(foreign))
  for (const kind of ['template', 'cluster'])
    test(`a ${kind} with another network (${name}) is shown, and why Causeway is none`, async () => {
      const { status, out, err } = await ask(`${kind} show ${name}`);
      assert.deepEqual([status, err], [0, '']);
      assert.match(out, /^Name: +\S+\n/);
      assert.ok(out.includes(`none (${said})\n`), out);
      const data = JSON.parse((await ask(`${kind} show ${name} -o json`)).out);
      assert.deepEqual([data.causeway, data.causewayNot], [null, said]);
    });

test('labels that nothing is made of are told wherever the network of a template or cluster is shown', async () => {
  const note = "calico_tag=v3.26.4: no image of calico's is used";
  for (const kind of ['template', 'cluster'])
    assert.match((await ask(`${kind} show tagged`)).out, /^Note: +calico_tag=v3\.26\.4: no image of calico's is used/m);
  const { status, out, err } = await ask('network values tagged');
  assert.deepEqual([status, out], [0, 'model: calico\npodCidrs:\n  - 10.83.0.0/16\ncarry: bgp\n']);
  assert.ok(err.startsWith(`note: ${note}`), err);
});

const clusterOf = (health: string | undefined): MagnumCluster =>
  ({ id: 'c', name: 'web', health, healthReason: {} }) as unknown as MagnumCluster;
const wellNode = { metadata: { name: 'node' }, status: { conditions: [{ type: 'Ready', status: 'True' }] } };

/** What the user is told, and what kubectl is asked to undo, when Magnum answers so one time after the other, the last for ever. */
async function followed(before_: string | undefined, ...answers: readonly (string | Error)[]): Promise<{ told: string; undone: number }> {
  let undone = 0;
  const said = async (words: readonly string[]) => {
    if (words[1] === 'undo') undone++;
    return { status: 0, stdout: words[1] === 'nodes' ? JSON.stringify({ items: [wellNode] }) : '', stderr: '' };
  };
  const rest = [...answers];
  const session = { surroundings: surroundings() } as unknown as Session;
  const cluster = async (): Promise<MagnumCluster> => {
    const answer = rest.length > 1 ? rest.shift() : rest[0];
    if (answer instanceof Error) throw answer;
    return clusterOf(answer);
  };
  const network = networkOf({ networkDriver: 'flannel', labels: {} });
  const told = await followUpgrade(session, {
    kubectl: { try: said, run: async (words) => (await said(words)).stdout },
    magnum: { cluster },
    revisions: new Map([['daemonset/causeway-agent', 1]]),
    done: { cluster: clusterOf(before_), network, timeout: '1s', leastHealthTime: '1s', intervalMs: 1, verb: 'is upgraded in' },
  }).then(
    ({ text }) => text({ color: false, width: 200 } as unknown as Parameters<typeof text>[0]),
    (error: unknown) => String(error),
  );
  return { told, undone };
}

test('an upgrade after which Magnum goes on to call the cluster unhealthy is taken back', async () => {
  const { told, undone } = await followed('HEALTHY', 'UNHEALTHY');
  assert.match(told, /taken back, as the cluster did not become well: Not done within 1s: Magnum says UNHEALTHY/);
  assert.equal(undone, 1);
});

test('one after which Magnum calls it healthy again is not; nor because Magnum does not answer', async () => {
  const well = await followed('HEALTHY', 'UNHEALTHY', 'UNHEALTHY', 'HEALTHY');
  assert.equal(well.undone, 0);
  assert.match(well.told, /is upgraded in cluster web; Magnum says HEALTHY\./);
  assert.match((await followed('HEALTHY', 'HEALTHY')).told, /Magnum says HEALTHY, as before: it looks once a minute\./);
  assert.match((await followed('UNHEALTHY', 'HEALTHY')).told, /Magnum says HEALTHY\./);
  const away = await followed('HEALTHY', new Error('away'));
  assert.deepEqual([away.told, away.undone], ['Error: away', 0]);
});

const of = (labels: Record<string, string>, networkDriver = 'flannel') => networkOf({ networkDriver, labels });

test('an upgrade to a template of another model or range is refused, as pods that run keep their addresses', () => {
  const range = { flannel_network_cidr: '10.82.0.0/16' };
  const check = (next: ReturnType<typeof of>) => () => checkSuccessor(of(range), { name: 'next', network: next });
  check(of({ ...range, flannel_backend: 'host-gw', causeway_image: 'a/b:2' }))();
  assert.throws(check(of({})), /Template next is of model flannel with pods in 10\.100\.0\.0\/16, and the cluster of .* 10\.82/);
  assert.throws(check(of({ calico_ipv4pool: '10.82.0.0/16' }, 'calico')), /of model calico/);
});

/** That says this of whatever it is asked. */
const saying = (status: number, stderr = '') => ({ try: async () => ({ status, stdout: '', stderr }), run: async () => '' });

test('a login to the cloud that labels name and nobody has made is told before controllers would wait for it', async () => {
  const network = networkOf({ networkDriver: 'calico', labels: { causeway_cloud_secret: 'login' } });
  await checkSecret(saying(0), network);
  await checkSecret(saying(1, 'nobody is to ask'), networkOf({ networkDriver: 'calico', labels: {} }));
  await assert.rejects(checkSecret(saying(1, 'Error from server (NotFound): secrets "login" not found'), network), /no Secret login/);
  await assert.rejects(checkSecret(saying(1, 'connection refused'), network), /kubectl get secret: connection refused/);
});
