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
import { parseCidr, parseIp } from '#model/ip.ts';
import type { CarryName, Host, LocalEndpoint, Snapshot } from '#model/resources.ts';
import { readAnnotations, writeAnnotations } from './annotations.ts';
import { clusterNetwork, podNetwork, readNode } from './nodes.ts';

mustBeIsolated();

const ours = { ip: '10.213.0.1', subnet: '10.244.1.0/24', pod: '10.244.1.9' };
const theirs: Numbers = {
  ip: '10.213.0.2',
  subnet: '10.244.2.0/24',
  base: '10.244.2.0',
  bridge: '10.244.2.1',
  pod: '10.244.2.7',
  mac: '6a:01:02:03:04:05',
};
const keys = generateKeyPair();
const options = { podCidrs: [parseCidr('10.244.0.0/16')] };

const node = (name: string, of: { readonly ip: string; readonly subnet: string }, annotations: object): object => ({
  metadata: { name, resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z', annotations },
  spec: { podCIDRs: [of.subnet] },
  status: { addresses: [{ type: 'InternalIP', address: of.ip }] },
});

/** As flannel writes them. */
const annotationsOf = (backend: Backend): Record<string, string> => ({
  'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
  'flannel.alpha.coreos.com/backend-type': tells(backend, theirs).type,
  'flannel.alpha.coreos.com/backend-data': JSON.stringify(tells(backend, theirs).data),
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

/** What a host of flannel reads of our Node. */
const toldBy = (written: Record<string, string | null>): Told => ({
  subnet: ours.subnet,
  publicIp: written['flannel.alpha.coreos.com/public-ip'] ?? '',
  data: JSON.parse(written['flannel.alpha.coreos.com/backend-data'] ?? '') as Told['data'],
});

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
      const our: NetnsHost = wire.host('ours', [`${ours.ip}/16`], needsWireguard ? keys.privateKey : undefined);
      const their = makeHost(wire, 'theirs', theirs);
      const { snapshot, self, local } = facts(backend, wants);
      our.apply(plan(snapshot, [local], self));
      const pod = wire.container(our, local);
      await makeTunnel(t, wire, { ...theirs, host: their.host, backend });
      const { index } = self;
      // A node of ours tells others what it wants; flannel sends everybody by its own backend.
      const telling = { carrying: { wants: backend }, publicKey: keys.publicKey, index, vni: 1, underlay: [parseIp(ours.ip)] };
      addPeer(their.host, backend, toldBy(writeAnnotations(telling)));
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
  const telling = { carrying, publicKey: keys.publicKey, index: 7, vni: 1, underlay: [parseIp('fd00::1'), parseIp(ours.ip)] };
  const written = Object.entries(writeAnnotations(telling)).flatMap(([key, value]) => (value === null ? [] : [[key, value]]));
  const { wireguard, ...told } = readAnnotations(Object.fromEntries(written) as Record<string, string>);
  assert.deepEqual(told, { carrying, publicIp: ours.ip });
  assert.deepEqual(wireguard, { publicKey: keys.publicKey, port: 51_821 });
});
