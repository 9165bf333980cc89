// Two hosts that follow flannel's documented data path, made by hand with ip(8), bridge(8) and wg(8), become ours one after the other,
// while between their pods a packet goes each millisecond, both ways. What ours knows it has from the Nodes' annotations.
import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { describe, type TestContext, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { addPeer, type Backend, makeBridge, makeTunnel, type Numbers, tells, type Told, wireAddresses } from '#agent/flannel.fixture.ts';
import { eventually, type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { streamFrom } from '#agent/stream.fixture.ts';
import { snapshotOf } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { probeWireguard } from '#kernel/wireguard.ts';
import { generateKeyPair, type KeyPair } from '#kernel/wireguard-keys.ts';
import { type Family, parseCidr, parseIp } from '#model/ip.ts';
import type { Host } from '#model/resources.ts';
import { wishFor } from './carrying.ts';
import { clusterNetwork, readNode } from './nodes.ts';

mustBeIsolated();

const flannel = 'flannel.alpha.coreos.com/';
const ranges = { 4: parseCidr('10.244.0.0/16'), 6: parseCidr('fd00:244::/48') };
const underlays = { 4: parseCidr('10.213.0.0/16'), 6: parseCidr('fd00:213::/64') };
const numbersOf = (index: number, family: Family): Numbers =>
  family === 4
    ? {
        ip: `10.213.0.${index}`,
        subnet: `10.244.${index}.0/24`,
        base: `10.244.${index}.0`,
        bridge: `10.244.${index}.1`,
        pod: `10.244.${index}.7`,
        mac: `6a:01:02:03:04:0${index}`,
      }
    : {
        ip: `fd00:213::${index}`,
        subnet: `fd00:244:0:${index}::/64`,
        base: `fd00:244:0:${index}::`,
        bridge: `fd00:244:0:${index}::1`,
        pod: `fd00:244:0:${index}::7`,
        mac: `6a:01:02:03:06:0${index}`,
      };

class Node {
  readonly index: number;
  readonly keys: KeyPair = generateKeyPair();
  readonly host: NetnsHost;
  readonly pod: Place;
  readonly wireguard: string;
  readonly #backend: Backend;
  readonly #families: readonly Family[];
  annotations: Record<string, string> = {};
  /** To the other node's pod, when flannel's WireGuard device goes. */
  wayThen: string | undefined;

  constructor(wire: Wire, index: number, { backend, families }: { readonly backend: Backend; readonly families: readonly Family[] }) {
    this.index = index;
    this.#backend = backend;
    this.#families = families;
    this.wireguard = `flannel-wg${index}`;
    let isThere = true;
    const predecessor = {
      isThere: () => isThere,
      remove: () => {
        isThere = false;
        this.wayThen = this.host.run('ip', 'route', 'get', numbersOf(3 - index, 4).pod);
        this.host.ip('link', 'del', this.wireguard);
      },
    };
    this.host = wire.host(`node${index}`, wireAddresses(this.all), backend === 'wireguard' ? { ...this.keys, predecessor } : undefined);
    this.pod = makeBridge(wire, `node${index}`, this);
    const [six] = families.includes(6) ? [numbersOf(index, 6)] : [];
    const { type, data } = tells(backend, { ...numbersOf(index, 4), keys: this.keys });
    this.annotations = {
      [`${flannel}kube-subnet-manager`]: 'true',
      [`${flannel}backend-type`]: type,
      [`${flannel}backend-data`]: JSON.stringify(data),
      [`${flannel}public-ip`]: numbersOf(index, 4).ip,
      ...(six === undefined
        ? {}
        : { [`${flannel}backend-v6-data`]: JSON.stringify(tells(backend, six).data), [`${flannel}public-ipv6`]: six.ip }),
    };
  }

  get all(): Numbers[] {
    return this.#families.map((family) => numbersOf(this.index, family));
  }

  async start(t: TestContext, wire: Wire): Promise<void> {
    const { host, keys, wireguard } = this;
    for (const numbers of this.all) await makeTunnel(t, wire, { ...numbers, host, backend: this.#backend, keys, wireguard });
  }

  /** As flannel does it whenever the other one's Node changes. */
  hear(other: Node): void {
    for (const family of this.#families) {
      const data = other.annotations[`${flannel}backend-${family === 6 ? 'v6-' : ''}data`] ?? 'null';
      const { subnet, ip } = numbersOf(other.index, family);
      addPeer(this.host, this.#backend, { subnet, publicIp: ip, data: JSON.parse(data) as Told['data'] }, this.wireguard);
    }
  }

  get item(): object {
    return {
      metadata: {
        name: `node${this.index}`,
        resourceVersion: '1',
        creationTimestamp: '2026-01-01T00:00:00Z',
        annotations: this.annotations,
      },
      spec: { podCIDRs: this.all.map(({ subnet }) => subnet) },
      status: { addresses: this.all.map(({ ip }) => ({ type: 'InternalIP', address: ip })) },
    };
  }

  /** What an agent here does when it starts, or hears of the other. */
  apply(other: Node): void {
    const options = { podCidrs: this.#families.map((family) => ranges[family]) };
    const [own, theirs] = [readNode(this.item, options), readNode(other.item, options)];
    assert.ok(own.host !== undefined && theirs.host !== undefined);
    const { sends = [], vtepMac, vtepMac6 } = own.host.carrying ?? {};
    const macs = { ...(vtepMac === undefined ? {} : { vtepMac }), ...(vtepMac6 === undefined ? {} : { vtepMac6 }) };
    const self: Host = {
      ...own.host,
      carrying: { wants: this.#backend, sends, ...macs },
      underlay: this.#families.map((family) => ({
        interface: 'eth0',
        ip: parseIp(numbersOf(this.index, family).ip),
        subnet: underlays[family],
        mtu: 1450,
      })),
    };
    const blocks = [...own.blocks, ...theirs.blocks];
    const { network, pools } = clusterNetwork({ ...options, carry: this.#backend }, blocks);
    const facts = snapshotOf({ hosts: [self, theirs.host], networks: [network], pools, blocks });
    this.host.apply(plan(facts, [], self, { bridges: ['cni0'] }));
    const wish = wishFor(self.id, this.keys.publicKey, { facts, underlay: self.underlay, isInPlace: true, isExhausted: () => false });
    const written = Object.entries(wish?.annotations ?? {}).filter((pair): pair is [string, string] => pair[1] !== null);
    this.annotations = Object.fromEntries(written);
  }
}

/**
 * Packets in a row. While hosts agree on keys those of some milliseconds may be lost, and of some hundred where a message of theirs is;
 * WireGuard by itself would begin again only after five seconds.
 */
const most: Readonly<Record<Backend, number>> = { vxlan: 0, 'host-gateway': 0, wireguard: 4000 };
const restMs: Readonly<Record<Backend, number>> = { vxlan: 300, 'host-gateway': 300, wireguard: 1500 };

describe('hosts of flannel become ours one by one', { concurrency: false }, () => {
  for (const [backend, families] of [
    ['vxlan', [4, 6]],
    ['host-gateway', [4, 6]],
    ['wireguard', [4]],
  ] as const) {
    const skip = backend === 'wireguard' && probeWireguard() === 'none' ? 'neither WireGuard in this kernel nor wireguard-go' : false;
    test(`which carry by ${backend}, and pods lose nothing of their streams`, { skip }, async (t) => {
      using wire = new Wire();
      const [one, two] = [1, 2].map((index) => new Node(wire, index, { backend, families }));
      assert.ok(one !== undefined && two !== undefined);
      for (const node of [one, two]) await node.start(t, wire);
      one.hear(two);
      two.hear(one);
      const ways = families.flatMap((family) => [
        [one.pod, numbersOf(2, family).pod] as const,
        [two.pod, numbersOf(1, family).pod] as const,
      ]);
      for (const [from, to] of ways) await eventually(() => from.ping(to), `${to} to answer`);
      const streams = ways.map(([from, to]) => streamFrom(from, to));
      for (const { stop } of streams) t.after(stop);
      await setTimeout(restMs[backend]);
      one.apply(two);
      if (backend === 'wireguard') two.hear(one);
      await setTimeout(restMs[backend]);
      two.apply(one);
      one.apply(two);
      await setTimeout(restMs[backend]);
      const counted = await Promise.all(streams.map(({ stop }) => stop()));
      t.diagnostic(JSON.stringify(counted));
      for (const { sent, inRow } of counted) assert.ok(sent > 20 && inRow <= most[backend], JSON.stringify(counted));
      for (const [from, to] of ways) assert.ok(from.ping(to));
      if (backend === 'wireguard') for (const { wayThen } of [one, two]) assert.match(wayThen ?? '', / dev cww1 /, 'however long it takes');
      const links = [one, two].map(({ host }) => host.run('ip', '-br', 'link'));
      for (const text of links) assert.doesNotMatch(text, /^flannel/m);
      assert.ok(links.every((text) => backend === 'host-gateway' || /^cw[xw]1\W/m.test(text)));
    });
  }
});
