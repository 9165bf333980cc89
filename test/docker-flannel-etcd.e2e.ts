// Docker hosts of ours and one that follows flannel's documented path, in the network that flannel's configuration in a real etcd
// says: the leases are all that they know of each other. The host of flannel has its containers on Docker's own bridge, as
// flannel's documentation for Docker has it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { addPeer, type Numbers, tells } from '#agent/flannel.fixture.ts';
import { Place } from '#agent/namespaces.fixture.ts';
import { startAgent } from '#lab/causeway.ts';
import { docker, startDockerd } from '#lab/engine.ts';
import { etcdUrl, etcdUrlOf, startEtcd } from '#lab/etcd.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, importImages } from '#lab/images.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { contains, parseCidr, parseIp } from '#model/ip.ts';
import { agentStatus } from './bed.ts';

const name = 'e2e-flannel-etcd';
const patience = { timeoutMs: 90_000, intervalMs: 100 };
const prefix = '/coreos.com/network';
let lab: Lab;
let theirs: Numbers;

const etcdctl = (...words: readonly string[]): Promise<string> =>
  lab.controller.ask(['etcdctl', `--endpoints=${etcdUrl}`, ...words], { env: { ETCDCTL_API: '3' } });
const startOurs = (host: Host): Promise<void> => startAgent(host, { arguments: ['--flannel', `etcd:${etcdUrlOf(lab.controller)}`] });

const start = (host: Host, box: string, network: string): Promise<string> =>
  docker(host, ['run', '--detach', `--name=${box}`, `--network=${network}`, boxImage.name, 'sleep', '86400']);
const ipOf = (host: Host, box: string): Promise<string> =>
  docker(host, ['inspect', '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', box]);
const ping = (host: Host, box: string, target: string): Promise<unknown> =>
  until(`${box} to reach ${target}`, () => docker(host, ['exec', box, 'ping', '-c1', '-W1', target]).catch(() => undefined), patience);

/** Subnets by the addresses of their hosts, as etcd has them. */
async function leases(): Promise<Map<string, { readonly subnet: string; readonly data: { readonly VtepMAC: string } }>> {
  const lines = (await etcdctl('get', '--prefix', `${prefix}/subnets/`)).split('\n');
  const found = new Map();
  for (let index = 0; index + 1 < lines.length; index += 2) {
    const { PublicIP: ip, BackendData: data } = JSON.parse(lines[index + 1] ?? '') as { PublicIP: string; BackendData: unknown };
    found.set(ip, { subnet: (lines[index] ?? '').replace(`${prefix}/subnets/`, '').replace('-', '/'), data });
  }
  return found as Awaited<ReturnType<typeof leases>>;
}

/** A lease as flannel writes it, its device, and Docker's bridge on its subnet. */
async function startTheirs(host: Host): Promise<void> {
  const granted = /lease ([0-9a-f]+) granted/.exec(await etcdctl('lease', 'grant', '86400'))?.[1] ?? '';
  const { type, data } = tells('vxlan', theirs);
  const value = { PublicIP: theirs.ip, PublicIPv6: null, BackendType: type, BackendData: data };
  await etcdctl('put', `--lease=${granted}`, `${prefix}/subnets/${theirs.subnet.replace('/', '-')}`, JSON.stringify(value));
  const place = new Place(host.netns);
  place.ip(
    'link',
    'add',
    'flannel.1',
    'address',
    theirs.mac,
    'type',
    'vxlan',
    'id',
    '1',
    'local',
    theirs.ip,
    'dstport',
    '8472',
    'nolearning',
  );
  place.ip('addr', 'add', `${theirs.base}/32`, 'dev', 'flannel.1');
  place.ip('link', 'set', 'flannel.1', 'up');
  await startDockerd(host, { arguments: [`--bip=${theirs.bridge}/24`, '--mtu=1400', '--ip-masq=false'] });
  place.run('iptables', '-P', 'FORWARD', 'ACCEPT');
  await importImages(host, [boxImage]);
}

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 3 });
  theirs = {
    ip: lab.host('host3').address,
    subnet: '10.5.3.0/24',
    base: '10.5.3.0',
    bridge: '10.5.3.1',
    pod: '',
    mac: '6a:01:02:03:04:05',
  };
  await startEtcd(lab.controller);
  await until('etcd to answer', () => etcdctl('endpoint', 'health').catch(() => undefined), patience);
  await etcdctl('put', `${prefix}/config`, JSON.stringify({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } }));
  await startTheirs(lab.host('host3'));
  await Promise.all(
    ['host1', 'host2'].map(async (one) => {
      const host = lab.host(one);
      await startOurs(host);
      await startDockerd(host);
      await importImages(host, [boxImage]);
      await until(
        `${one} to show the network`,
        async () => (await docker(host, ['network', 'ls', '--format={{.Name}}'])).split('\n').includes('flannel'),
        patience,
      );
    }),
  );
});
after(() => destroyLab(name));

test('containers of all hosts reach each other, each out of the lease of its host', async () => {
  const [host1, host2, host3] = [lab.host('host1'), lab.host('host2'), lab.host('host3')];
  await start(host1, 'one', 'flannel');
  await start(host2, 'two', 'flannel');
  await start(host3, 'three', 'bridge');
  const [one, two, three] = [await ipOf(host1, 'one'), await ipOf(host2, 'two'), await ipOf(host3, 'three')];
  const known = await leases();
  for (const [host, ip] of [
    [host1, one],
    [host2, two],
    [host3, three],
  ] as const) {
    assert.ok(contains(parseCidr(known.get(host.address)?.subnet ?? ''), parseIp(ip)), `${ip} of ${host.name}`);
  }
  for (const { address } of [host1, host2]) {
    const { subnet = '', data = null } = known.get(address) ?? {};
    addPeer(new Place(host3.netns), 'vxlan', { subnet, publicIp: address, data });
  }
  for (const [host, box, targets] of [
    [host1, 'one', [two, three]],
    [host2, 'two', [one, three]],
    [host3, 'three', [one, two]],
  ] as const) {
    for (const target of targets) await ping(host, box, target);
  }
  for (const host of lab.hosts)
    for (const target of [one, two, three])
      await until(`${host.name} to reach ${target}`, () => host.exec(['ping', '-c1', '-W2', target]), patience);
});

test('an agent that is restarted keeps its lease and writes nothing to the kernel', async () => {
  const host = lab.host('host1');
  const had = (await leases()).get(host.address)?.subnet;
  await host.stopService('agent', 'SIGKILL');
  await startOurs(host);
  await until('the agent to follow etcd', async () => (await agentStatus(host)).connected, patience);
  await until('it to be in step', async () => (await agentStatus(host)).desired > 0, patience);
  assert.equal((await agentStatus(host)).kernelWrites, 0);
  assert.equal((await leases()).get(host.address)?.subnet, had);
});

test('while etcd is away containers talk and new ones get addresses, and what changes afterwards is learned', async () => {
  const [host1, host2] = [lab.host('host1'), lab.host('host2')];
  await lab.controller.stopService('etcd', 'SIGKILL');
  await start(host1, 'late', 'flannel');
  await ping(host2, 'two', await ipOf(host1, 'late'));
  await startEtcd(lab.controller);
  await until('etcd to answer', () => etcdctl('endpoint', 'health').catch(() => undefined), patience);
  const route = (): Promise<string> => host1.ask(['ip', 'route', 'show', theirs.subnet]);
  assert.notEqual(await route(), '');
  await etcdctl('del', `${prefix}/subnets/${theirs.subnet.replace('/', '-')}`);
  await until('the way to the host whose lease has gone to be removed', async () => (await route()) === '', patience);
  await ping(host2, 'two', await ipOf(host1, 'late'));
});
