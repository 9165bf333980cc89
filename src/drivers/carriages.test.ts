// Hosts change their carriage one by one, hear of each other late and in any order: what one sends by, the other always takes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type Cidr, parseCidr } from '#model/ip.ts';
import type { Block, CarryName, Host } from '#model/resources.ts';
import { asFits, carriesOn, carryTo, mtuOf } from './carriages.ts';
import { makeBlock, makeHost, makeNetwork, makePool } from './cluster.fixture.ts';
import type { Remote } from './driver.ts';
import { isSpoken } from './speaker.ts';

const network = makeNetwork('pods', { model: 'flannel' });
const pool = makePool(network.id, parseCidr('10.244.0.0/16'), 24);
const blockOf = (host: Host): Block => makeBlock(pool, host.index, host.id);
const remote = (host: Host): Remote => ({ host, blocks: [blockOf(host)], exceptions: [] });
const carries = ['vxlan', 'direct-routing', 'host-gateway', 'bgp', 'bgp-cross-subnet', 'wireguard', 'routes'] as const;

test('where nobody says anything all send as the network says', () => {
  const [one, two] = [makeHost(1), makeHost(2)];
  assert.deepEqual([carryTo({ network, self: one }, remote(two)), carriesOn({ network, self: one }, [remote(two)])], ['vxlan', ['vxlan']]);
});

test('a host that says only what it wants is sent to by that', () => {
  const one = makeHost(1, { carrying: { wants: 'wireguard' } });
  const two = makeHost(2, { carrying: { wants: 'vxlan' } });
  assert.deepEqual(
    [carryTo({ network, self: one }, remote(two)), carriesOn({ network, self: one }, [remote(two)])],
    ['vxlan', ['wireguard', 'vxlan']],
  );
});

test('while a change lasts links take no more than the narrowest carriage', () => {
  const one = makeHost(1, { carrying: { wants: 'host-gateway' } });
  const [done, behind] = [makeHost(2, { carrying: { wants: 'host-gateway' } }), makeHost(3, { carrying: { wants: 'vxlan' } })];
  assert.deepEqual(
    [mtuOf({ network, self: one }, [remote(done)]), mtuOf({ network, self: one }, [remote(done), remote(behind)])],
    [1450, 1400],
  );
});

test('a network that the cloud carries is no matter of what hosts say', () => {
  const ports = makeNetwork('ports', { model: 'neutron' });
  const [one, two] = [1, 2].map((index) => makeHost(index, { carrying: { wants: 'vxlan', receives: ['vxlan'], sends: ['vxlan'] } }));
  assert.ok(one !== undefined && two !== undefined);
  const ways = { network: ports, self: one };
  assert.deepEqual(
    [carryTo(ways, remote(two)), carriesOn(ways, [remote(two)]), mtuOf(ways, [remote(two)])],
    ['address-pairs', ['address-pairs'], 1450],
  );
});

test('beside a network that BGP carries an overlay goes by VXLAN, and encrypted to and from hosts that want it', () => {
  const overlay = makeNetwork('blue', { model: 'overlay' });
  const [plain, sealed, before] = [
    makeHost(1, { carrying: { wants: 'bgp', receives: ['bgp', 'wireguard'], sends: ['bgp', 'wireguard'] } }),
    makeHost(2, { carrying: { wants: 'wireguard', receives: ['wireguard'], sends: ['wireguard'] } }),
    makeHost(3, { carrying: { wants: 'bgp-cross-subnet', receives: ['bgp-cross-subnet'], sends: ['bgp-cross-subnet'] } }),
  ].map((host) => asFits(overlay, host));
  assert.ok(plain !== undefined && sealed !== undefined && before !== undefined);
  const sent = (self: Host, other: Host): CarryName => carryTo({ network: overlay, self, learned: new Set() }, remote(other));
  assert.deepEqual(
    [sent(plain, before), sent(before, plain), sent(plain, sealed), sent(sealed, plain)],
    ['vxlan', 'vxlan', 'wireguard', 'wireguard'],
  );
  assert.deepEqual(carriesOn({ network: overlay, self: plain }, [remote(sealed), remote(before)]).toSorted(), ['vxlan', 'wireguard']);
  const routed = makeHost(4, { carrying: { wants: 'bgp', receives: ['bgp'] } });
  assert.equal(asFits(makeNetwork('pods', { model: 'calico' }), routed).carrying?.wants, 'bgp');
  assert.equal(asFits(overlay, makeHost(5)).carrying, undefined);
});

const hasTunnel = (carry: CarryName): boolean => ['vxlan', 'direct-routing', 'bgp-cross-subnet'].includes(carry);

/** A cluster in which every host knows of the others what it last heard, and has in the kernel what it last applied. */
class Cluster {
  readonly #wants: CarryName[];
  readonly #told: Host[];
  readonly #heard: Host[][];
  readonly #slow = new Set<number>();
  /** Hosts that the router knows the ways to. */
  readonly #routed = new Set<number>();
  readonly #inPlace: { readonly takes: readonly CarryName[]; readonly sends: readonly CarryName[] }[];

  constructor(size: number, carry: CarryName) {
    this.#wants = Array.from({ length: size }, () => carry);
    this.#told = this.#wants.map((wants, index) => makeHost(index + 1, { carrying: { wants, sends: [wants], receives: [wants] } }));
    this.#heard = this.#told.map(() => [...this.#told]);
    this.#inPlace = this.#told.map(() => ({ takes: [carry], sends: this.#told.map(() => carry) }));
    this.route();
  }

  /** Whoever keeps the cloud looks at what hosts have told. */
  route(): void {
    const isWanted = this.#told.some(({ carrying }) => carrying?.wants === 'routes' || carrying?.sends?.includes('routes') === true);
    if (!isWanted) this.#routed.clear();
    else for (const host of this.#told.keys()) this.#routed.add(host);
  }

  /** An agent starts with another carriage. */
  want(host: number, carry: CarryName): void {
    this.#wants[host] = carry;
    this.apply(host);
  }

  /** One host applies what it knows and then tells it. */
  apply(host: number): void {
    const wants = this.#wants[host] ?? 'vxlan';
    const others = (this.#heard[host] ?? []).filter((_, index) => index !== host).map(remote);
    const self = makeHost(host + 1, { carrying: { wants, sends: this.#told[host]?.carrying?.sends ?? [] } });
    const ways = { network, self, learned: this.#learned(host) };
    const takes = carriesOn(ways, others);
    const sent = (this.#inPlace[host]?.sends ?? []).filter((_, index) => index !== host);
    for (const carry of sent) assert.ok(takes.includes(carry), 'routes move before what they lead over goes');
    const sends = this.#told.map((_, index) => carryTo(ways, remote(this.#heard[host]?.[index] ?? self)));
    this.#inPlace[host] = { takes, sends };
    const used = sends.filter((_, index) => index !== host);
    const receives = takes.filter((carry) => carry !== 'routes' || this.#routed.has(host));
    this.#told[host] = makeHost(host + 1, { carrying: { wants, sends: [...new Set(used)], receives } });
  }

  /** Speakers that both run have told each other, unless sessions of this one take their time. */
  #learned(host: number): ReadonlySet<Cidr> {
    const speaks = (index: number): boolean => this.#inPlace[index]?.takes.some(isSpoken) === true;
    const peers = speaks(host) && !this.#slow.has(host) ? this.#told.filter((_, index) => index !== host && speaks(index)) : [];
    return new Set(peers.map((peer) => blockOf(peer).cidr));
  }

  /** Sessions of the host take their time, or no longer. Those that are used are there. */
  toggle(host: number): void {
    if (this.#slow.delete(host) || this.#inPlace[host]?.sends.some((carry, to) => to !== host && isSpoken(carry)) === true) return;
    this.#slow.add(host);
  }

  hear(host: number, other: number): void {
    const told = this.#told[other];
    if (told !== undefined) (this.#heard[host] ??= [])[other] = told;
  }

  /** What one host sends by and the other does not take. */
  lost(): string[] {
    return this.#inPlace.flatMap(({ sends }, from) =>
      sends.flatMap((carry, to) => {
        const takes = this.#inPlace[to]?.takes ?? [];
        const isTaken =
          from === to ||
          carry === 'host-gateway' ||
          (carry === 'routes' && this.#routed.has(to)) ||
          // What was learned from a speaker goes with it, here or there.
          (isSpoken(carry)
            ? takes.some(isSpoken) && this.#inPlace[from]?.takes.some(isSpoken) === true
            : carry !== 'routes' && takes.includes(carry)) ||
          // Direct routing is a plain route or a vxlan.
          (carry === 'direct-routing' && takes.some(hasTunnel)) ||
          (carry === 'vxlan' && takes.some(hasTunnel));
        return isTaken ? [] : [`${from} to ${to} by ${carry}, which takes ${takes.join()}`];
      }),
    );
  }

  /** Everybody hears everything until nothing is new. */
  settle(): void {
    this.#slow.clear();
    const hosts = [...this.#told.keys()];
    for (let round = 0; round < 6; round++) {
      this.route();
      for (const host of hosts) for (const other of hosts) this.hear(host, other);
      for (const host of hosts) this.apply(host);
    }
  }

  carries(): string[] {
    return [...new Set(this.#inPlace.flatMap(({ takes, sends }, host) => [...takes, ...sends.filter((_, to) => to !== host)]))];
  }
}

test('no packet is sent in a way that its receiver has not in place, whenever whoever changes and hears of it', () => {
  const size = 4;
  const host = fc.nat(size - 1);
  const step = fc.oneof(
    fc.record({ do: fc.constant('apply' as const), host }),
    fc.record({ do: fc.constant('hear' as const), host, other: host }),
    fc.record({ do: fc.constant('want' as const), host }),
    fc.record({ do: fc.constant('toggle' as const), host }),
    fc.record({ do: fc.constant('route' as const) }),
  );
  fc.assert(
    fc.property(fc.constantFrom(...carries), fc.constantFrom(...carries), fc.array(step, { maxLength: 80 }), (from, to, steps) => {
      const cluster = new Cluster(size, from);
      for (const one of steps) {
        if (one.do === 'apply') cluster.apply(one.host);
        else if (one.do === 'hear') cluster.hear(one.host, one.other);
        else if (one.do === 'toggle') cluster.toggle(one.host);
        else if (one.do === 'route') cluster.route();
        else cluster.want(one.host, to);
        assert.deepEqual(cluster.lost(), []);
      }
      for (let index = 0; index < size; index++) cluster.want(index, to);
      cluster.settle();
      assert.deepEqual([cluster.lost(), cluster.carries()], [[], [to]]);
    }),
    { numRuns: 2000 },
  );
});
