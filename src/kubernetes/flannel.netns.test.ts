// A host that follows flannel's documented data path, made by hand with ip(8), bridge(8) and wg(8), beside one of ours that knows
// of it by its Node's annotations alone, and it of ours by those that ours writes. Pods and hosts reach each other both ways.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, Wire } from '#agent/namespaces.fixture.ts';
import { makeEndpoint } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { addPeer, type Backend, makeHost, makeTunnel, type Numbers, tells, type Told } from '#agent/flannel.fixture.ts';
import { probeWireguard } from '#kernel/wireguard.ts';
import { generateKeyPair } from '#kernel/wireguard-keys.ts';
import { type Cidr, type Family, parseCidr, parseIp } from '#model/ip.ts';
import type { CarryName, Host, LocalEndpoint, Snapshot } from '#model/resources.ts';
import { readAnnotations, writeAnnotations } from './annotations.ts';
import { wishFor } from './carrying.ts';
import { clusterNetwork, podNetwork, readNode } from './nodes.ts';

mustBeIsolated();

type Families = readonly Family[];
const ours: Readonly<Record<Family, { readonly ip: string; readonly subnet: string; readonly pod: string }>> = {
  4: { ip: '10.213.0.1', subnet: '10.244.1.0/24', pod: '10.244.1.9' },
  6: { ip: 'fd00:213::1', subnet: 'fd00:244:0:1::/64', pod: 'fd00:244:0:1::9' },
};
const theirs: Readonly<Record<Family, Numbers>> = {
  4: {
    ip: '10.213.0.2',
    subnet: '10.244.2.0/24',
    base: '10.244.2.0',
    bridge: '10.244.2.1',
    pod: '10.244.2.7',
    mac: '6a:01:02:03:04:05',
  },
  6: {
    ip: 'fd00:213::2',
    subnet: 'fd00:244:0:2::/64',
    base: 'fd00:244:0:2::',
    bridge: 'fd00:244:0:2::1',
    pod: 'fd00:244:0:2::7',
    mac: '6a:01:02:03:04:06',
  },
};
const underlays: Readonly<Record<Family, Cidr>> = { 4: parseCidr('10.213.0.0/16'), 6: parseCidr('fd00:213::/64') };
const ranges: Readonly<Record<Family, Cidr>> = { 4: parseCidr('10.244.0.0/16'), 6: parseCidr('fd00:244::/48') };
const keys = generateKeyPair();

const node = (name: string, of: readonly { readonly ip: string; readonly subnet: string }[], annotations: object): object => ({
  metadata: { name, resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z', annotations },
  spec: { podCIDRs: of.map(({ subnet }) => subnet) },
  status: { addresses: of.map(({ ip }) => ({ type: 'InternalIP', address: ip })) },
});

const flannel = 'flannel.alpha.coreos.com/';
const keysOf = {
  4: { data: `${flannel}backend-data`, ip: `${flannel}public-ip` },
  6: { data: `${flannel}backend-v6-data`, ip: `${flannel}public-ipv6` },
} as const;

/** As flannel writes them; a family that it has not it leaves empty. */
const annotationsOf = (backend: Backend, families: Families): Record<string, string> => ({
  [`${flannel}kube-subnet-manager`]: 'true',
  [`${flannel}backend-type`]: tells(backend, theirs[4]).type,
  [keysOf[4].data]: 'null',
  ...Object.fromEntries(
    families.flatMap((family) => [
      [keysOf[family].data, JSON.stringify(tells(backend, theirs[family]).data)],
      [keysOf[family].ip, theirs[family].ip],
    ]),
  ),
});

const byId = <T extends { readonly id: string }>(list: readonly T[]) => new Map(list.map((item) => [item.id, item]));

interface Facts {
  readonly snapshot: Snapshot;
  readonly self: Host;
  readonly local: LocalEndpoint;
}

/** What a node of ours knows, whatever it wants itself. */
function facts(backend: Backend, wants: CarryName, families: Families): Facts {
  const of = <T>(all: Readonly<Record<Family, T>>): T[] => families.map((family) => all[family]);
  const options = { podCidrs: of(ranges) };
  const own = readNode(node('ours', of(ours), {}), options);
  const other = readNode(node('theirs', of(theirs), annotationsOf(backend, families)), options);
  const blocks = [...own.blocks, ...other.blocks];
  const { network, pools } = clusterNetwork({ ...options, carry: wants }, blocks);
  assert.ok(own.host !== undefined && other.host !== undefined);
  const underlay = families.map((family) => ({ interface: 'eth0', ip: parseIp(ours[family].ip), subnet: underlays[family], mtu: 1450 }));
  const self: Host = { ...own.host, carrying: { wants }, underlay };
  const addresses = families.map((family) => parseIp(ours[family].pod));
  const endpoint = makeEndpoint(podNetwork.id, 'ours', 1, addresses);
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

/** What a host of flannel reads of our Node. A node tells others what it wants; flannel sends everybody by its own backend. */
function toldTo(backend: Backend, families: Families): Told[] {
  const { snapshot } = facts(backend, backend, families);
  const { underlay = [] } = snapshot.hosts.get('ours') ?? {};
  const wish = wishFor('ours', keys.publicKey, { facts: snapshot, underlay, isInPlace: true, isExhausted: () => false });
  const written = wish?.annotations ?? {};
  return families.map((family) => ({
    subnet: ours[family].subnet,
    publicIp: written[keysOf[family].ip] ?? '',
    data: JSON.parse(written[keysOf[family].data] ?? 'null') as Told['data'],
  }));
}

describe('beside a host of flannel', { concurrency: false }, () => {
  for (const [backend, wants, families] of [
    ['vxlan', 'vxlan', [4]],
    ['vxlan', 'vxlan', [4, 6]],
    ['vxlan', 'vxlan', [6]],
    ['vxlan', 'host-gateway', [4]],
    ['vxlan', 'direct-routing', [4, 6]],
    ['host-gateway', 'host-gateway', [4, 6]],
    ['host-gateway', 'vxlan', [4]],
    ['wireguard', 'wireguard', [4]],
    ['vxlan', 'wireguard', [4]],
  ] as const) {
    const needsWireguard = backend === 'wireguard' || wants === 'wireguard';
    const skip = needsWireguard && probeWireguard() === 'none' ? 'neither WireGuard in this kernel nor wireguard-go' : false;
    const what = families.map((family) => `IPv${family}`).join(' and ');
    test(`that carries ${what} by ${backend} one of ours that wants ${wants} exchanges traffic`, { skip }, async (t) => {
      using wire = new Wire();
      const lengths = { 4: 16, 6: 64 };
      const addresses = families.map((family) => `${ours[family].ip}/${lengths[family]}`);
      const our: NetnsHost = wire.host('ours', addresses, needsWireguard ? keys : undefined);
      const all = families.map((family) => theirs[family]);
      const their = makeHost(wire, 'theirs', all);
      const { snapshot, self, local } = facts(backend, wants, families);
      our.apply(plan(snapshot, [local], self));
      our.forget();
      assert.equal(our.apply(plan(snapshot, [local], self)).changed, 0, 'what is there is what is wanted');
      const pod = wire.container(our, local);
      for (const numbers of all) await makeTunnel(t, wire, { ...numbers, host: their.host, backend });
      for (const told of toldTo(backend, families)) addPeer(their.host, backend, told);
      for (const family of families) {
        const [here, there] = [ours[family].pod, theirs[family].pod];
        await eventually(() => pod.ping(there), `${there} from ours`);
        assert.deepEqual(
          {
            'our pod from theirs': their.pod.ping(here),
            'their pod from our host': our.ping(there),
            'our pod from their host': their.host.ping(here),
            'full packets': pod.ping(there, { size: 1360 }),
          },
          { 'our pod from theirs': true, 'their pod from our host': true, 'our pod from their host': true, 'full packets': true },
        );
      }
      our.apply(plan({ ...snapshot, blocks: new Map() }, [], self));
    });
  }
});

test('annotations are read as they are written', () => {
  const carrying = { wants: 'wireguard', sends: ['vxlan', 'wireguard'], receives: ['vxlan', 'wireguard'] } as const;
  const telling = { carrying, publicKey: keys.publicKey, index: 7, vni: 1, underlay: [parseIp('fd00::1'), parseIp(ours[4].ip)] };
  const written = Object.entries(writeAnnotations(telling)).flatMap(([key, value]) => (value === null ? [] : [[key, value]]));
  const { wireguard, ...told } = readAnnotations(Object.fromEntries(written) as Record<string, string>);
  assert.deepEqual(told, { carrying, publicIps: [ours[4].ip], answersProbes: true });
  assert.deepEqual(wireguard, { publicKey: keys.publicKey, port: 51_821 });
});
