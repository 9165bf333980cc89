// The model `calico` on Docker hosts: three real engines, each host with its own BIRD, set by Calico's own files; the router of the
// fabric is FRR on the outside host, which is the underlay's gateway.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { frrCommands, hasFrr } from '#agent/frr.fixture.ts';
import { outsideAddress } from '#lab/underlay.ts';
import { inspectContainer } from '#lab/engine-api.ts';
import { until } from '#lab/until.ts';
import { pingingFrom } from './carriage-streams.ts';
import { type DockerBed, makeDockerBed } from './docker-bed.ts';

const hasMd5 = spawnSync('sh', ['-c', 'zcat /proc/config.gz | grep -q CONFIG_TCP_MD5SIG=y']).status === 0;
const skip = !hasFrr() ? 'missing: frr' : hasMd5 ? false : 'missing: TCP MD5 signatures in this kernel';
/** Speakers wait for seconds before they try again. */
const patience = { timeoutMs: 120_000, intervalMs: 250 };
const fabric = '/run/fabric';
const router = '10.213.0.1';
const password = 'hush-hush';
const serve = [
  'sh',
  '-c',
  `mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' >/www/cgi-bin/who; chmod +x /www/cgi-bin/who; exec httpd -f -p 0.0.0.0:80 -h /www`,
];
let bed: DockerBed;

before(async () => {
  if (skip !== false) return;
  bed = await makeDockerBed('e2e-calico');
  await bed.createNetwork('routed', '--model', 'calico', '--subnet', '10.94.0.0/16');
  for (const on of [1, 2, 3]) await bed.run(on, `box${on}`, 'routed', [], serve);
});
after(() => (skip === false ? bed[Symbol.asyncDispose]() : undefined));

const birdc = (on: number, ...words: readonly string[]): Promise<string> =>
  bed.host(on).ask(['birdc', '-s', '/run/causeway/bird/bird.ctl', ...words]);
/** Names of sessions that are up, but those over IPv6. */
const sessions = async (on: number): Promise<string[]> =>
  [...(await birdc(on, 'show', 'protocols')).matchAll(/^(\w+) +BGP.* Established/gm)]
    .map(([, name = '']) => name)
    .filter((name) => !/6_|_6$/.test(name))
    .toSorted();
const learned = (on: number): Promise<string> => bed.host(on).ask(['ip', 'route', 'show', 'proto', 'bird']);
const ipOf = async (on: number): Promise<string> => (await bed.addresses(on, `box${on}`, 'routed')).ip;
const onRouter = (command: string): Promise<string> => bed.lab.outside.ask(['vtysh', '--vty_socket', fabric, '-c', command]);
const known = async (): Promise<string> => await bed.lab.outside.ask(['ip', 'route', 'show', 'proto', 'bgp']);
const blockOf = (ip: string): string => ip.replace(/\d+$/, (last) => `${Number(last) & ~63}/26`);

/** `causeway apply` of these documents. */
async function apply(...documents: readonly object[]): Promise<string> {
  const path = '/root/applied.yaml';
  await bed.lab.controller.exec(['sh', '-c', `cat >${path}`], { input: JSON.stringify(documents) });
  return bed.causeway('apply', '-f', path);
}
const calico = (kind: string, name: string, spec: object): object => ({
  apiVersion: 'projectcalico.org/v3',
  kind,
  metadata: { name },
  spec,
});
const secret = (text: string): object => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'fabric', namespace: 'kube-system' },
  stringData: { password: text },
});
const peer = calico('BGPPeer', 'fabric', {
  peerIP: router,
  asNumber: 64_600,
  filters: ['no-third'],
  password: { secretKeyRef: { name: 'fabric', key: 'password' } },
});

const withReflector = (list: readonly string[]): boolean => list.length === 2 && list.some((name) => name.startsWith('peer_reflectors4'));

const everybodyReaches = async (): Promise<void> => {
  const ips = await Promise.all([1, 2, 3].map((on) => ipOf(on)));
  for (const on of [1, 2, 3]) for (const ip of ips) await bed.ping(on, `box${on}`, ip);
};
const asked = async (ip: string): Promise<string> => {
  const { stdout } = await bed.lab.outside.exec(['busybox', 'wget', '-T', '2', '-qO-', `http://${ip}/cgi-bin/who`], { anyStatus: true });
  return stdout
    .trim()
    .replace(/^\[?::ffff:/, '')
    .replace(/\]$/, '');
};

test('hosts tell each other their blocks; packets go as they are', { skip }, async () => {
  await everybodyReaches();
  for (const on of [1, 2, 3]) {
    const others = [1, 2, 3].filter((other) => other !== on);
    await until(`two sessions on host${on}`, async () => (await sessions(on)).length === 2, patience);
    for (const other of others) {
      const block = blockOf(await ipOf(other));
      await until(
        `host${on} to learn ${block}`,
        async () => (await learned(on)).includes(`${block} via ${bed.host(other).address}`),
        patience,
      );
    }
    assert.doesNotMatch(await bed.host(on).ask(['ip', '-brief', 'link']), /^cwx/m);
  }
});

test(
  'a router of the fabric with a password learns blocks, but what a filter keeps back, and clients behind it reach containers',
  { skip },
  async () => {
    const { outside } = bed.lab;
    const neighbours = bed.hosts.flatMap(({ address }) => [
      `neighbor ${address} remote-as external`,
      `neighbor ${address} password ${password}`,
      `neighbor ${address} update-source ${router}`,
    ]);
    const config = ['router bgp 64600', `bgp router-id ${router}`, 'no bgp ebgp-requires-policy', ...neighbours, ''].join('\n');
    const [zebra = [], bgpd = []] = frrCommands(fabric, config, outside.file(fabric));
    await outside.startService({ name: 'zebra', argv: [...zebra], env: {} });
    await outside.startService({ name: 'bgpd', argv: [...bgpd], env: {} });
    const third = blockOf(await ipOf(3));
    const said = await apply(
      peer,
      calico('BGPFilter', 'no-third', { exportV4: [{ action: 'Reject', matchOperator: 'In', cidr: third }] }),
      calico('BGPConfiguration', 'default', { prefixAdvertisements: [{ cidr: '10.94.0.0/16', communities: ['64512:94'] }] }),
      secret(password),
    );
    assert.match(said, /^secret fabric: created\nBGPPeer fabric: created\nBGPFilter no-third: created\nBGPConfiguration default: created$/);
    for (const on of [1, 2]) {
      const [ip, block] = [await ipOf(on), blockOf(await ipOf(on))];
      await until(`the router to learn ${block}`, async () => (await known()).includes(block), patience);
      await until(`the router to reach box${on}`, async () => (await asked(ip)) === router, patience);
      await until('an answer', () => bed.lab.outside.exec(['ping', '-c1', '-W2', '-I', outsideAddress, ip]), patience);
      const isMarked = async (): Promise<boolean> => /Community: 64512:94/.test(await onRouter(`show bgp ipv4 unicast ${block}`));
      await until('the community', isMarked, patience);
    }
    await until('the router not to know what is kept back', async () => !(await known()).includes(third), patience);
    assert.equal(await apply(peer), 'BGPPeer fabric: unchanged');
  },
);

test('a password is on the hosts alone, for root; another one ends the session, the right one brings it back', { skip }, async () => {
  const shown = [
    await bed.causeway('get'),
    ...(await Promise.all(['bgp', 'secret'].map((word) => bed.causeway(word, 'ls', '--output', 'json')))),
    bed.lab.controller.log('controller'),
    ...[1, 2, 3].map((on) => bed.host(on).log('agent')),
    await bed.host(1).ask(['cat', '/run/causeway/bird/bird.conf', '/run/causeway/bird/bird.log']),
  ];
  assert.ok(!shown.join('\n').includes(password));
  assert.equal(await bed.host(1).ask(['stat', '-c', '%a %U', '/run/causeway/bird/secrets.conf']), '600 root');
  const name = 'peer_fabric_4';
  await apply(secret('another'));
  await until('the session to end', async () => !(await sessions(1)).includes(name), patience);
  assert.deepEqual((await sessions(1)).length, 2, 'the mesh goes on');
  await apply(secret(password));
  await until('the session to come back', async () => (await sessions(1)).includes(name), patience);
  const refused = await bed.tryCauseway('secret', 'rm', 'fabric', '--yes');
  assert.match(refused.stderr, /BGPPeer fabric names secret fabric/);
});

test('hosts of a system of their own, and a host that reflects, take the place of the mesh', { skip }, async () => {
  const own = 'projectcalico.org/ASNumber';
  await bed.causeway('host', 'label', 'host2', `${own}=64700`);
  await until(
    'host2 to speak as 64700',
    async () => /BGP local AS|Local AS: +64700/.test(await birdc(2, 'show', 'protocols', 'all')),
    patience,
  );
  await until('its sessions', async () => (await sessions(2)).length === 3, patience);
  await everybodyReaches();
  await until('the router to see it', async () => /64700/.test(await onRouter('show bgp ipv4 unicast summary')), patience);
  await bed.causeway('host', 'label', 'host2', `${own}-`);

  await bed.causeway('host', 'label', 'host3', 'projectcalico.org/RouteReflectorClusterID=10.0.0.3', 'role=reflector');
  await apply(
    calico('BGPPeer', 'reflectors', { nodeSelector: "role != 'reflector'", peerSelector: "role == 'reflector'" }),
    calico('BGPConfiguration', 'default', { nodeToNodeMeshEnabled: false }),
  );
  for (const on of [1, 2])
    await until(`host${on} to speak with the reflector and the fabric`, async () => withReflector(await sessions(on)), patience);
  await everybodyReaches();
  assert.match(await birdc(1, 'show', 'route', 'all', blockOf(await ipOf(2))), /cluster_list|originator_id/i);
  await bed.causeway('bgp', 'rm', 'reflectors', 'default', '--yes');
  await bed.causeway('host', 'label', 'host3', 'projectcalico.org/RouteReflectorClusterID-', 'role-');
  for (const on of [1, 2, 3]) await until(`the mesh on host${on}`, async () => (await sessions(on)).length === 3, patience);
  await everybodyReaches();
});

test('BIRD is killed on both ends of a stream of one packet a millisecond: none is lost, and it is there again', { skip }, async () => {
  const [host, far] = [bed.host(1), await ipOf(2)];
  const pidOf = async (on: number): Promise<string> => await bed.host(on).ask(['cat', '/run/causeway/bird/bird.pid']);
  const killed = await Promise.all([1, 2].map((on) => pidOf(on)));
  const { pid } = await inspectContainer(host, 'box1');
  const stop = pingingFrom(host, (line) => ['nsenter', `--target=${pid}`, '--net', '--', 'sh', '-c', line], far);
  for (const on of [1, 2]) await bed.host(on).exec(['kill', '-9', await pidOf(on)]);
  for (const [index, on] of [1, 2].entries()) {
    await until(`BIRD on host${on}`, async () => (await pidOf(on).catch(() => killed[index])) !== killed[index], patience);
    await until(`its sessions`, async () => (await sessions(on)).length === 3, patience);
  }
  // The stream goes on while what was learned before is compared with what is learned now.
  await setTimeout(1000);
  const { sent, lost } = await stop();
  assert.ok(sent > 1000, `only ${sent} packets were sent`);
  assert.equal(lost, 0);
  assert.match(await host.ask(['ip', 'route', 'show', 'proto', 'bird']), /via/);
});
