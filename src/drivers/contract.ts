// What every driver promises, as one suite: run on the kernel in memory (drivers.test.ts) and on the real one
// (drivers.netns.test.ts). Deterministic: the same facts, the same plan. Idempotent: what is in the kernel is not written
// again, not even by a process with no memory. Order-free: facts may come in any order, twice, and with a restart between
// them; the kernel ends up the same.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reconciler } from '#agent/reconcile.ts';
import type { Kind, Kinds } from '#kernel/kind.ts';
import { type Desired, emptyDesired, type KindName, type Netns } from '#model/desired.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { CarryName, Endpoint, Exposure, Host, LocalEndpoint, ModelName, Network, Pool, Snapshot } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeDualHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

export interface DriverCase {
  readonly model: ModelName;
  readonly carry: CarryName;
}

export const driverCases: readonly DriverCase[] = [
  { model: 'overlay', carry: 'vxlan' },
  { model: 'overlay', carry: 'wireguard' },
  { model: 'flannel', carry: 'vxlan' },
  { model: 'flannel', carry: 'direct-routing' },
  { model: 'flannel', carry: 'host-gateway' },
  { model: 'routes', carry: 'routes' },
  { model: 'flannel', carry: 'wireguard' },
  { model: 'calico', carry: 'bgp-cross-subnet' },
];

/** Kinds that count what they write. */
export type CountingKinds = Kinds & { readonly writes: number };

export interface Subject {
  /** A host with the underlay `eth0` of the scenario (10.213.0.1/16, fd00:213::1/64) and nothing of ours. */
  open(): CountingKinds;
  /** Another process on the same host, after the one before has ended. */
  reopen(): CountingKinds;
  /** Why the case cannot be run here. */
  skip(driver: DriverCase): string | false;
  /** How many random orders to try. */
  readonly shuffles: number;
  /** A run after every so many facts. */
  readonly every: number;
}

/** One thing that becomes known. Of two facts with one key that with the higher revision holds, whichever comes first. */
type Fact = { readonly key: string; readonly revision: number } & (
  | { readonly what: 'gone' }
  | { readonly what: 'host'; readonly item: Host }
  | { readonly what: 'network'; readonly item: Network }
  | { readonly what: 'pool'; readonly item: Pool }
  | { readonly what: 'block'; readonly item: ReturnType<typeof makeBlock> }
  | { readonly what: 'endpoint'; readonly item: Endpoint }
  | { readonly what: 'exposure'; readonly item: Exposure }
  | { readonly what: 'local'; readonly item: LocalEndpoint }
);

const publicKey = (index: number): string => Buffer.alloc(32, index).toString('base64');
const host = (index: number, more: Partial<Host> = {}): Host => ({
  ...makeDualHost(index),
  wireguard: { publicKey: publicKey(index) },
  ...more,
});

const self = host(1);
const sandboxOf = (number: number): string => `/run/contract/${number}`;

const block = (pool: Pool, index: number, where: string): Fact => {
  const item = makeBlock(pool, index, where);
  return { what: 'block', key: `block ${item.id}`, revision: 1, item };
};
const remote = (item: Endpoint, revision = 1): Fact => ({ what: 'endpoint', key: `endpoint ${item.id}`, revision, item });
const local = (item: Endpoint, slot: number, revision: number, sandbox?: string): Fact => ({
  what: 'local',
  key: `local ${item.id}`,
  revision,
  item: { endpoint: item, slot, ...(sandbox === undefined ? {} : { sandbox, order: 1 }) },
});

/** Two networks, one with the driver in question and one beside it, on four hosts; things come, change and go. */
function scenario({ model, carry }: DriverCase): Fact[] {
  const network = makeNetwork('aaaaaaaaaa', { model, carry });
  const beside = makeNetwork('bbbbbbbbbb', { vni: 4097 });
  // Networks in domains of their own may overlap; one that the host routes may overlap none that it routes.
  const pools = [
    makePool(network.id, parseCidr('10.44.0.0/16'), 24),
    makePool(network.id, parseCidr('fd44::/64'), 112),
    makePool(beside.id, parseCidr('10.44.0.0/16'), 24),
  ] as const;
  const [pool4, pool6, poolBeside] = pools;
  const endpoint = (number: number, where: string, addresses: readonly string[], more: Partial<Endpoint> = {}): Endpoint => ({
    ...makeEndpoint(
      network.id,
      where,
      number,
      addresses.map((ip) => parseIp(ip)),
    ),
    ...more,
  });
  const mine = endpoint(1, self.id, ['10.44.0.2', 'fd44::2'], { ports: [{ protocol: 'tcp', hostPort: 8080, port: 80 }] });
  const second = endpoint(2, self.id, ['10.44.0.3', 'fd44::3']);
  const leaving = endpoint(3, self.id, ['10.44.0.4']);
  const neighbour: Endpoint = { ...makeEndpoint(beside.id, self.id, 9, [parseIp('10.44.0.2')]) };
  const exposure: Exposure = {
    id: 'exposure01',
    name: 'exposure01',
    revision: 1,
    createdAt: '2026-01-01T00:00:00.000Z',
    labels: {},
    network: network.id,
    endpoint: 'box-2',
    protocol: 'tcp',
    port: 443,
    hostPort: 8443,
    sources: [parseCidr('192.0.2.0/24'), parseCidr('2001:db8::/32')],
  };
  return [
    { what: 'network', key: `network ${network.id}`, revision: 1, item: network },
    { what: 'network', key: `network ${beside.id}`, revision: 1, item: beside },
    ...pools.map((item): Fact => ({ what: 'pool', key: `pool ${item.id}`, revision: 1, item })),
    ...[host(2), host(3, elsewhere(3)), host(4, { underlay: [] })].map((item): Fact => ({
      what: 'host',
      key: `host ${item.id}`,
      revision: 1,
      item,
    })),
    ...[1, 2, 3, 4].flatMap((index) => [block(pool4, index - 1, `host-${index}`), block(pool6, index - 1, `host-${index}`)]),
    block(poolBeside, 1, 'host-2'),
    local(mine, 1, 1),
    local(mine, 1, 2, sandboxOf(1)),
    remote(mine),
    local(leaving, 3, 1, sandboxOf(3)),
    local(neighbour, 4, 1, sandboxOf(4)),
    remote(endpoint(20, 'host-2', ['10.44.1.2', 'fd44::1:2'])),
    remote(endpoint(21, 'host-2', ['10.44.0.77'])),
    remote(endpoint(22, 'host-3', ['10.44.0.78', 'fd44::78'])),
    { what: 'exposure', key: 'exposure', revision: 1, item: exposure },
    local(second, 2, 2, sandboxOf(2)),
    { what: 'gone', key: `local ${leaving.id}`, revision: 2 },
    // The borrowed address goes back, a block is given up, a host that was unknown reports, another one moves.
    { what: 'gone', key: `endpoint ${endpoint(21, 'host-2', ['10.44.0.77']).id}`, revision: 2 },
    { what: 'gone', key: `block ${makeBlock(pool4, 2, 'host-3').id}`, revision: 2 },
    { what: 'host', key: 'host host-4', revision: 2, item: host(4) },
    {
      what: 'host',
      key: 'host host-2',
      revision: 2,
      item: host(2, { underlay: host(12).underlay, wireguard: { publicKey: publicKey(12) } }),
    },
    { what: 'network', key: `network ${network.id}`, revision: 2, item: { ...network, name: 'renamed', mtu: 1340 } },
  ];
}

/** Behind a router, as seen from the scenario's own host. */
const elsewhere = (index: number): Partial<Host> => ({
  underlay: [
    { interface: 'ens3', ip: parseIp(`10.214.0.${index}`), subnet: parseCidr('10.214.0.0/16'), mtu: 1400 },
    { interface: 'ens3', ip: parseIp(`fd00:214::${index}`), subnet: parseCidr('fd00:214::/64'), mtu: 1400 },
  ],
});

/** What is known, piece by piece. */
class Facts {
  readonly #facts = new Map<string, Fact>();

  take(fact: Fact): void {
    if ((this.#facts.get(fact.key)?.revision ?? 0) < fact.revision) this.#facts.set(fact.key, fact);
  }

  plan(): Desired {
    const all = [...this.#facts.values()];
    const of = <W extends Fact['what']>(what: W) =>
      all.filter((fact): fact is Extract<Fact, { what: W }> => fact.what === what).map((fact) => fact);
    const snapshot: Snapshot = {
      ...snapshotOf({
        hosts: [self, ...of('host').map(({ item }) => item)],
        networks: of('network').map(({ item }) => item),
        pools: of('pool').map(({ item }) => item),
        blocks: of('block').map(({ item }) => item),
        endpoints: of('endpoint').map(({ item }) => item),
      }),
      exposures: new Map(of('exposure').map(({ item }) => [item.id, item])),
    };
    return plan(
      snapshot,
      of('local').map(({ item }) => item),
      self,
    );
  }
}

/** Numbers that look random and are the same every time (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffled<T>(list: readonly T[], seed: number): T[] {
  const next = random(seed);
  return list
    .map((item) => ({ item, at: next() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

const kindNames = Object.keys(emptyDesired) as KindName[];

/** Everything of ours in the kernel but settings, which have no owner. */
export function dumpOurs(kinds: Kinds): Readonly<Record<string, readonly string[]>> {
  const places: Netns[] = ['', ...kinds.netns.list('').map(({ name }) => name)];
  return Object.fromEntries(
    kindNames
      .filter((name) => name !== 'sysctl')
      .map((name) => {
        const kind = kinds[name] as Kind<Desired[KindName][number]>;
        return [name, places.flatMap((netns) => kind.list(netns).map(textOf)).toSorted()];
      }),
  );
}

/** Peers have no order. */
const textOf = (item: Desired[KindName][number]): string =>
  JSON.stringify('peers' in item ? { ...item, peers: item.peers.toSorted((a, b) => (a.publicKey < b.publicKey ? -1 : 1)) } : item);

interface Course {
  readonly facts: readonly Fact[];
  /** A new process takes over after so many facts. */
  readonly restartAfter?: number;
}

export function driverContract(name: string, subject: Subject): void {
  /** Lets the facts come one by one, each followed by a run, and gives what the kernel then holds. */
  function follow({ facts, restartAfter }: Course): {
    readonly kinds: CountingKinds;
    readonly state: ReturnType<typeof dumpOurs>;
    readonly desired: Desired;
  } {
    const known = new Facts();
    let kinds = subject.open();
    let reconciler = new Reconciler(kinds);
    for (const [index, fact] of facts.entries()) {
      if (index === restartAfter) {
        kinds = subject.reopen();
        reconciler = new Reconciler(kinds);
      }
      known.take(fact);
      // A source is in sync some time after a start, not from the first fact on.
      if (index % subject.every === 0 || index === restartAfter) reconciler.apply(known.plan(), index % 2 === 0 && index !== restartAfter);
    }
    const desired = known.plan();
    assert.deepEqual(describe(reconciler.apply(desired, true).failing), []);
    return { kinds, state: dumpOurs(kinds), desired };
  }

  for (const driver of driverCases) {
    const title = `${name}: ${driver.model} carried by ${driver.carry}`;
    const skip = subject.skip(driver);
    const facts = scenario(driver);

    test(`${title}: the same facts give the same plan, item by item, in whatever order they came`, { skip }, () => {
      const [one, other] = [new Facts(), new Facts()];
      for (const fact of facts) one.take(fact);
      for (const fact of facts.toReversed()) other.take(fact);
      const first = one.plan();
      assert.deepEqual(one.plan(), first);
      assert.deepEqual(other.plan(), first);
    });

    test(`${title}: a second run writes nothing, and neither does another process`, { skip }, () => {
      const { kinds, desired } = follow({ facts });
      const before = kinds.writes;
      const reconciler = new Reconciler(kinds);
      reconciler.apply(desired, true);
      assert.equal(reconciler.apply(desired, true).changed, 0);
      assert.equal(kinds.writes, before);
      const other = subject.reopen();
      const start = other.writes;
      assert.deepEqual(describe(new Reconciler(other).apply(desired, true).failing), []);
      assert.equal(other.writes - start, 0);
    });

    test(`${title}: in whatever order facts come, and whenever the process restarts, the kernel ends up the same`, { skip }, () => {
      const { state } = follow({ facts });
      assert.ok(Object.values(state).flat().length > 30);
      const courses: readonly Course[] = [
        { facts: facts.toReversed() },
        { facts: facts.flatMap((fact) => [fact, fact]), restartAfter: facts.length },
        ...Array.from({ length: subject.shuffles }, (_, seed) => ({
          facts: shuffled([...facts, ...facts.slice(seed, seed + 4)], seed + 1),
          restartAfter: Math.floor(facts.length * random(seed)()),
        })),
      ];
      for (const [index, course] of courses.entries()) assert.deepEqual(follow(course).state, state, `course ${index}`);
    });

    test(`${title}: leaving the last network leaves nothing`, { skip }, () => {
      const { kinds } = follow({ facts });
      assert.deepEqual(describe(new Reconciler(kinds).apply(emptyDesired, true).failing), []);
      assert.deepEqual(Object.values(dumpOurs(kinds)).flat(), []);
    });
  }
}

const describe = (failing: readonly { readonly what: string; readonly fault: Error }[]): string[] =>
  failing.map(({ fault }) => fault.message);
