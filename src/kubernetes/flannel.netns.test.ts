// A host that follows flannel's documented data path, made by hand with ip(8), bridge(8) and wg(8), beside one of ours that knows
// of it by its Node's annotations alone, and it of ours by those that ours writes. Pods and hosts reach each other both ways.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { makeEndpoint } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { inNetns } from '#kernel/netns.ts';
import { probeWireguard } from '#kernel/wireguard.ts';
import { generateKeyPair } from '#kernel/wireguard-keys.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { CarryName, Host, LocalEndpoint, Snapshot } from '#model/resources.ts';
import { readAnnotations, writeAnnotations } from './annotations.ts';
import { clusterNetwork, podNetwork, readNode } from './nodes.ts';

mustBeIsolated();

const ours = { ip: '10.213.0.1', podCidr: '10.244.1.0/24', pod: '10.244.1.9' };
const theirs = { ip: '10.213.0.2', podCidr: '10.244.2.0/24', base: '10.244.2.0', bridge: '10.244.2.1', pod: '10.244.2.7' };
const theirMac = '6a:01:02:03:04:05';
const keys = { ours: generateKeyPair(), theirs: generateKeyPair() };
const options = { podCidrs: [parseCidr('10.244.0.0/16')] };

const node = (name: string, of: { readonly ip: string; readonly podCidr: string }, annotations: object): object => ({
  metadata: { name, resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z', annotations },
  spec: { podCIDRs: [of.podCidr] },
  status: { addresses: [{ type: 'InternalIP', address: of.ip }] },
});

const flannelData = {
  vxlan: { type: 'vxlan', data: { VNI: 1, VtepMAC: theirMac } },
  'host-gateway': { type: 'host-gw', data: null },
  wireguard: { type: 'wireguard', data: { PublicKey: keys.theirs.publicKey, Port: 51_820 } },
} as const;
type Backend = keyof typeof flannelData;

/** As flannel writes them. */
const annotationsOf = (backend: Backend): Record<string, string> => ({
  'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
  'flannel.alpha.coreos.com/backend-type': flannelData[backend].type,
  'flannel.alpha.coreos.com/backend-data': JSON.stringify(flannelData[backend].data),
  'flannel.alpha.coreos.com/public-ip': theirs.ip,
});

const byId = <T extends { readonly id: string }>(list: readonly T[]) => new Map(list.map((item) => [item.id, item]));

interface Facts {
  readonly snapshot: Snapshot;
  readonly self: Host;
  readonly local: LocalEndpoint;
}

/** What a node of ours knows, whatever it wants itself. */
function facts(backend: Backend, wants: CarryName): Facts {
  const own = readNode(node('ours', ours, {}), options);
  const other = readNode(node('theirs', theirs, annotationsOf(backend)), options);
  const blocks = [...own.blocks, ...other.blocks];
  const { network, pools } = clusterNetwork({ ...options, carry: wants }, blocks);
  assert.ok(own.host !== undefined && other.host !== undefined);
  const subnet = parseCidr('10.213.0.0/16');
  const self: Host = {
    ...own.host,
    carrying: { wants },
    underlay: [{ interface: 'eth0', ip: parseIp(ours.ip), subnet, mtu: 1450 }],
  };
  const endpoint = makeEndpoint(podNetwork.id, 'ours', 1, [parseIp(ours.pod)]);
  return {
    self,
    local: { endpoint, slot: 1, sandbox: '/run/pod', order: 1 },
    snapshot: {
      hosts: byId([self, other.host]),
      networks: byId([network]),
      pools: byId(pools),
      blocks: byId(blocks),
      endpoints: byId([endpoint]),
      exposures: new Map(),
    },
  };
}

/** Their device and their way to us, from what our Node says; as flannel's documentation has it, step by step. */
function followContract(place: Place, backend: Backend, told: Record<string, string | null>): void {
  const data = JSON.parse(told['flannel.alpha.coreos.com/backend-data'] ?? '') as { VtepMAC?: string; PublicKey?: string; Port?: number };
  const publicIp = told['flannel.alpha.coreos.com/public-ip'] ?? '';
  const base = '10.244.1.0';
  if (backend === 'host-gateway') place.ip('route', 'add', ours.podCidr, 'via', publicIp);
  if (backend === 'vxlan') {
    const tunnel = ['type', 'vxlan', 'id', '1', 'dev', 'eth0', 'local', theirs.ip, 'dstport', '8472', 'nolearning'];
    place.ip('link', 'add', 'flannel.1', 'address', theirMac, 'mtu', '1400', ...tunnel);
    place.ip('addr', 'add', `${theirs.base}/32`, 'dev', 'flannel.1');
    place.ip('link', 'set', 'flannel.1', 'up');
    place.ip('neigh', 'add', base, 'lladdr', data.VtepMAC ?? '', 'dev', 'flannel.1', 'nud', 'permanent');
    place.run('bridge', 'fdb', 'append', data.VtepMAC ?? '', 'dev', 'flannel.1', 'dst', publicIp);
    place.ip('route', 'add', ours.podCidr, 'via', base, 'dev', 'flannel.1', 'onlink');
  }
  if (backend === 'wireguard') {
    place.ip('addr', 'add', `${theirs.base}/32`, 'dev', 'flannel-wg');
    place.ip('link', 'set', 'flannel-wg', 'up', 'mtu', '1370');
    const peer = ['peer', data.PublicKey ?? '', 'endpoint', `${publicIp}:${data.Port ?? 0}`, 'allowed-ips', ours.podCidr];
    place.run('wg', 'set', 'flannel-wg', 'listen-port', '51820', ...peer);
    place.ip('route', 'add', ours.podCidr, 'dev', 'flannel-wg');
  }
}

/** Their host with a pod on its bridge, as the `bridge` and `host-local` plugins leave it. */
function theirHost(wire: Wire): { readonly host: Place; readonly pod: Place } {
  const host = wire.place('theirs', [`${theirs.ip}/16`]);
  const pod = wire.place('their-pod', []);
  host.run('sysctl', '-qw', 'net.ipv4.ip_forward=1');
  host.ip('link', 'add', 'cni0', 'type', 'bridge');
  host.ip('addr', 'add', `${theirs.bridge}/24`, 'dev', 'cni0');
  host.ip('link', 'set', 'cni0', 'up');
  host.ip('link', 'add', 'veth0', 'type', 'veth', 'peer', 'eth1', 'netns', pod.path);
  host.ip('link', 'set', 'veth0', 'master', 'cni0', 'up');
  pod.ip('link', 'del', 'eth0');
  pod.ip('addr', 'add', `${theirs.pod}/24`, 'dev', 'eth1');
  pod.ip('link', 'set', 'eth1', 'up');
  pod.ip('route', 'add', 'default', 'via', theirs.bridge);
  return { host, pod };
}

/** Their kernel has no WireGuard: a process makes the device. */
async function theirWireguard(t: TestContext, wire: Wire, host: Place): Promise<void> {
  const file = join(wire.folder, 'their-key');
  writeFileSync(file, `${keys.theirs.privateKey}\n`, { mode: 0o600 });
  const child: ChildProcess = inNetns(host.path, () => spawn('wireguard-go', ['-f', 'flannel-wg'], { stdio: 'ignore' }));
  t.after(async () => {
    const gone = once(child, 'close');
    child.kill();
    await gone;
  });
  await eventually(() => host.try('wg', 'set', 'flannel-wg', 'private-key', file).status === 0, 'their WireGuard device');
}

describe('beside a host of flannel', { concurrency: false }, () => {
  for (const [backend, wants] of [
    ['vxlan', 'vxlan'],
    ['vxlan', 'host-gateway'],
    ['host-gateway', 'host-gateway'],
    ['host-gateway', 'vxlan'],
    ['wireguard', 'wireguard'],
    ['vxlan', 'wireguard'],
  ] as const) {
    const needsWireguard = backend === 'wireguard' || wants === 'wireguard';
    const skip = needsWireguard && probeWireguard() === 'none' ? 'neither WireGuard in this kernel nor wireguard-go' : false;
    test(`that carries by ${backend} one of ours that wants ${wants} exchanges traffic`, { skip }, async (t) => {
      using wire = new Wire();
      const our: NetnsHost = wire.host('ours', [`${ours.ip}/16`], needsWireguard ? keys.ours.privateKey : undefined);
      const their = theirHost(wire);
      const { snapshot, self, local } = facts(backend, wants);
      our.apply(plan(snapshot, [local], self));
      const pod = wire.container(our, local);
      if (backend === 'wireguard') await theirWireguard(t, wire, their.host);
      const { index } = self;
      // A node of ours tells others what it wants; flannel sends everybody by its own backend.
      const telling = { carrying: { wants: backend }, publicKey: keys.ours.publicKey, index, vni: 1, underlay: [parseIp(ours.ip)] };
      followContract(their.host, backend, writeAnnotations(telling));
      await eventually(() => pod.ping(theirs.pod), 'their pod from ours', 10_000);
      assert.deepEqual(
        {
          'our pod from theirs': their.pod.ping(ours.pod),
          'their pod from our host': our.ping(theirs.pod),
          'our pod from their host': their.host.ping(ours.pod),
          'full packets': pod.ping(theirs.pod, { size: 1360 }),
        },
        { 'our pod from theirs': true, 'their pod from our host': true, 'our pod from their host': true, 'full packets': true },
      );
      our.apply(plan({ ...snapshot, blocks: new Map() }, [], self));
    });
  }
});

test('annotations are read as they are written', () => {
  const carrying = { wants: 'wireguard', sends: ['vxlan', 'wireguard'], receives: ['vxlan', 'wireguard'] } as const;
  const telling = { carrying, publicKey: keys.ours.publicKey, index: 7, vni: 1, underlay: [parseIp('fd00::1'), parseIp(ours.ip)] };
  const written = Object.entries(writeAnnotations(telling)).flatMap(([key, value]) => (value === null ? [] : [[key, value]]));
  const { wireguard, ...told } = readAnnotations(Object.fromEntries(written) as Record<string, string>);
  assert.deepEqual(told, { carrying, publicIp: ours.ip });
  assert.deepEqual(wireguard, { publicKey: keys.ours.publicKey, port: 51_821 });
});
