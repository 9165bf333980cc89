// What people see of `causeway cloud`, against a small server in a cloud's place. That the steps are right, and what they do in a
// real cloud, is shown elsewhere (cloud/plan.test.ts, test/openstack-*.e2e.ts).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { FakeNeutron, servingNeutron } from '#cloud/neutron.fixture.ts';
import { json, keystone, serving } from '#cloud/server.fixture.ts';
import { makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr } from '#model/ip.ts';
import type { Host } from '#model/resources.ts';
import { fakeClient, noRecords } from './fake.ts';
import { run, type Run, type Stage } from './run.fixture.ts';
import type { ClusterChoice } from './session.ts';

const port = (index: number) => ({
  id: `port-${index}`,
  network_id: 'net',
  mac_address: 'fa:16:3e:00:00:01',
  fixed_ips: [{ subnet_id: 'subnet', ip_address: makeHost(index).underlay[0]?.ip }],
});
const lists: Readonly<Record<string, unknown>> = {
  '/network/v2.0/ports': { ports: [port(1), port(2)] },
  '/network/v2.0/security-groups': { security_groups: [] },
  '/network/v2.0/routers': { routers: [] },
  '/network/v2.0/networks': { networks: [] },
  '/network/v2.0/extensions': {
    extensions: ['security-group', 'standard-attr-tag', 'allowed-address-pairs', 'quota_details'].map((alias) => ({ alias })),
  },
  '/network/v2.0/quotas/p/details': { quota: { security_group: { limit: 10, used: 1 }, security_group_rule: { limit: -1, used: 4 } } },
};
const asked: string[] = [];
let server: Awaited<ReturnType<typeof serving>>;
before(async () => {
  let url = '';
  const identity = keystone(() => url);
  server = await serving((request, response, body) => {
    const { pathname } = new URL(request.url ?? '', 'http://cloud');
    if (pathname === '/v3/auth/tokens') return identity.answer(request, response, body);
    asked.push(`${request.method} ${pathname}`);
    // Whether the login may write pairs is tried with a revision that nothing has.
    if (request.method === 'PUT') return json(response, 412, { message: 'revision' });
    const found = lists[pathname];
    return found === undefined || request.method !== 'GET' ? json(response, 403, { message: 'no' }) : json(response, 200, found);
  });
  ({ url } = server);
});
after(() => server[Symbol.asyncDispose]());

function ask(line: string, hosts = 2, url = server.url, stage: Stage = {}): Promise<Run> {
  const records = noRecords();
  records.hosts.push(...Array.from({ length: hosts }, (_, index) => makeHost(index + 1)));
  records.networks.push(makeNetwork('aaaaaaaaaa01'), makeNetwork('aaaaaaaaaa02', { model: 'flannel', carry: 'host-gateway' }));
  records.pools.push(makePool('aaaaaaaaaa02', parseCidr('10.0.0.0/16'), 24));
  const environment = { OS_AUTH_URL: url, OS_USERNAME: 'demo', OS_PASSWORD: 'secret', OS_PROJECT_NAME: 'demo' };
  return run(line, { client: fakeClient(records), cloud: { environment, configFiles: [], secureFiles: [] }, ...stage });
}

test('a plan shows steps, needs and quotas, and asks the cloud to change nothing', async () => {
  const { status, out, err } = await ask('cloud plan');
  assert.equal(err, '');
  assert.equal(status, 0);
  assert.equal(
    out.replaceAll(server.url, 'http://cloud'),
    `Cloud:  project demo of http://cloud/v3

Steps
ACTION  OBJECT                   WHAT
add     security group causeway  Between the hosts of causeway
add     rules of causeway        IPv4 every protocol from 10.0.0.0/16
                                 IPv4 every protocol from hosts
                                 IPv4 every protocol to 10.0.0.0/16
                                 IPv4 every protocol to hosts
change  port of host-1 (port-1)  joins causeway
                                 pairs 10.0.0.0/16
change  port of host-2 (port-2)  joins causeway
                                 pairs 10.0.0.0/16

What the networks need
NETWORK           ALLOWED  NEEDS                                                                                              WITHOUT IT
net-aaaaaaaaaa01  no       UDP 8472 between hosts (VXLAN between hosts)                                                       security groups drop it between hosts
net-aaaaaaaaaa02  no       packets with addresses of 10.0.0.0/16 between hosts, by every protocol and to every port of hosts  port security drops packets whose address is not the port's own, and security groups admit none of them

Quotas
OF                   BEFORE  AFTER  LIMIT
security group       1       2      10
security group rule  4       8      none
`,
  );
});

test('what is in the way is told with exit status 10', async () => {
  const { status, out } = await ask('cloud plan', 3);
  assert.equal(status, 10);
  assert.match(out, /Problems\n {2}Host host-3 is left out: no port of the project has the address 10\.213\.0\.3/);
});

test('names that others have given do not steer the terminal, neither in problems nor in the question', async () => {
  const fake = new FakeNeutron(2);
  await using cloud = await servingNeutron(fake);
  const theirs = { id: 'r', security_group_id: 'g', direction: 'ingress', ethertype: 'IPv4', description: '' };
  fake.groups.push({ id: 'g', fields: { name: 'a\u001b[2J\nb', description: '' }, tags: ['causeway.causeway'], rules: [theirs] });
  const stage = { terminal: true, input: 'n\n' };
  for (const line of ['cloud plan', 'cloud apply']) {
    const { out, err } = await ask(line, 2, cloud.url, stage);
    assert.match(out + err, line === 'cloud plan' ? /Security group a\?\[2J\?b stays/ : /Do this in project demo/);
    // oxlint-disable-next-line no-control-regex -- that there is none is the point
    assert.doesNotMatch(out + err, /\u001b/);
  }
});

test('networks that the login does not let be are named, and all else is done', async () => {
  const fake = new FakeNeutron(2);
  fake.mayPair = false;
  await using cloud = await servingNeutron(fake);
  const cannot = /net-aaaaaaaaaa02 cannot be carried as wanted: the login to the cloud may not write allowed address pairs/;
  const planned = await ask('cloud plan', 2, cloud.url);
  assert.deepEqual([planned.status, fake.groups], [10, []]);
  assert.match(planned.out, cannot);
  for (const steps of [/change +port of host-2 \(port-2\) +joins causeway\n/, /Nothing had to be changed/]) {
    const { status, out } = await ask('cloud apply --yes', 2, cloud.url);
    assert.equal(status, 10);
    for (const words of [
      steps,
      cannot,
      /net-aaaaaaaaaa01 +yes /,
      /net-aaaaaaaaaa02 +no /,
      /port port-1 of host-1 lacks 10\.0\.0\.0\/16: .*policy\. Your login may not write allowed address pairs/,
    ])
      assert.match(out, words);
    assert.doesNotMatch(out, /pairs 10\.0/);
    assert.deepEqual(
      fake.ports.map(({ groups, pairs, tags }) => [groups.length, pairs, tags]),
      [1, 2].map(() => [2, [], ['causeway.causeway']]),
    );
  }
  // The operator of the cloud writes them.
  for (const one of fake.ports) one.pairs = [{ ip_address: '10.0.0.0/16' }];
  const { status, out } = await ask('cloud apply --yes', 2, cloud.url);
  assert.equal(status, 0, out);
});

test('a refusal of the cloud is told with its words; bad names before anything is asked', async () => {
  const refused = await ask('cloud apply');
  assert.equal(refused.status, 5);
  assert.match(refused.err, /Error \(forbidden\): Neutron refuses POST \/network\/v2\.0\/security-groups: no/);
  asked.length = 0;
  const bad = await ask('cloud plan --name A_b');
  assert.match(bad.err, /Not a name for an installation/);
  assert.deepEqual(asked, []);
  const early = await ask('cloud apply --yes', 0);
  assert.match(early.err, /Error \(unavailable\): No host has told its address yet/);
  const nothing = await run('cloud plan');
  assert.match(nothing.err, /Nothing says which cloud/);
});

test('what a Kubernetes cluster needs comes from its API, and what of it cannot be is a problem', async () => {
  const network = makeNetwork('aaaaaaaaaa02', { model: 'flannel', carry: 'host-gateway' });
  const choices: ClusterChoice[] = [];
  const environment = { OS_AUTH_URL: server.url, OS_USERNAME: 'demo', OS_PASSWORD: 'secret', OS_PROJECT_NAME: 'demo' };
  const asCluster = (line: string, hosts: readonly Host[], problems: readonly string[] = []): Promise<Run> =>
    run(line, {
      cloud: { environment, configFiles: [], secureFiles: [] },
      cluster: async (choice) => {
        choices.push(choice);
        const pools = [makePool('aaaaaaaaaa02', parseCidr('10.0.0.0/16'), 24)];
        const nodePorts = [{ service: 'shop/web', protocol: 'tcp' as const, port: 30080, sources: [parseCidr('192.0.2.0/24')] }];
        return { facts: { hosts, networks: [network], pools, blocks: [], endpoints: [], exposures: [], nodePorts }, problems };
      },
    });
  const { status, out } = await asCluster('cloud plan --kubernetes', [makeHost(1), makeHost(2)]);
  assert.equal(status, 0);
  assert.match(out, /add +rules of causeway-node-ports +IPv4 protocol 6 port 30080 from 192\.0\.2\.0\/24\n/);
  assert.match(out, /change +port of host-1 \(port-1\) +joins causeway, causeway-node-ports\n +pairs 10\.0\.0\.0\/16/);
  const told = await asCluster(
    'cloud plan --kubernetes my.config --kube-context b --all-balancers --classes {}',
    [makeHost(1)],
    ['Service x has none'],
  );
  assert.equal(told.status, 10);
  assert.match(told.out, /Problems\n {2}Service x has none/);
  assert.deepEqual(choices, [
    { kubeconfig: undefined, context: undefined, allBalancers: false, classes: undefined },
    { kubeconfig: 'my.config', context: 'b', allBalancers: true, classes: '{}' },
  ]);
  const early = await asCluster('cloud apply --kubernetes --yes', []);
  assert.match(early.err, /Error \(unavailable\): No node of the cluster has told its network yet/);
});
