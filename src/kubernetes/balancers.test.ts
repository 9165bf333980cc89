// What the controller writes, on a server of two listings that takes statuses.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Fault } from '#model/fault.ts';
import { addressPools, serviceRanges } from './address-pools.ts';
import { Balancers } from './balancers.ts';
import type { KubernetesClient } from './client.ts';
import { listings, Server } from './stored.fixture.ts';

interface Item {
  readonly metadata: { readonly namespace?: string; readonly name: string };
  readonly status?: object;
}

const serviceCidr = (cidr: string): object => ({ metadata: { name: cidr.replaceAll(/[.:/]/g, '-') }, spec: { cidrs: [cidr] } });

/** Lists what is given and stays with that; keeps statuses that are written, under their paths. */
function server(
  services: readonly Item[],
  pools: readonly Item[] | undefined,
  {
    refuse,
    ranges,
    nodes = [],
    ipPools,
  }: { refuse?: Fault; ranges?: readonly string[]; nodes?: readonly Item[]; ipPools?: readonly Item[] } = {},
) {
  const written = new Map<string, Item>();
  const client = {
    ...listings((path) => {
      const known = {
        [addressPools]: pools,
        [serviceRanges[0] ?? '']: ranges?.map(serviceCidr),
        '/api/v1/services': services,
        '/api/v1/nodes': nodes,
        '/apis/projectcalico.org/v3/ippools': ipPools,
      }[path];
      if (known === undefined) return Promise.reject(new Fault('not-found', 'no such resource'));
      return Promise.resolve({ items: known, revision: 1 });
    }),
    // oxlint-disable-next-line require-yield -- a stream of changes in which nothing changes
    watch: async function* (_: string, __: number, signal: AbortSignal) {
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    },
    replace: (path: string, object: Item) => {
      if (refuse !== undefined) return Promise.reject(refuse);
      written.set(path, object);
      return Promise.resolve(object);
    },
  };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what is asked of it here
  return { written, client: client as unknown as KubernetesClient };
}

const service = (name: string, spec: object = {}, more: object = {}): Item =>
  ({
    metadata: { namespace: 'shop', name, ...more },
    spec: { type: 'LoadBalancer', clusterIP: '10.96.0.5', ...spec },
    status: { loadBalancer: {} },
  }) as Item;
const pool = (name: string, ...addresses: readonly string[]): Item => ({ metadata: { name }, spec: { addresses } }) as Item;

async function settled(of: ReturnType<typeof server>, { isLeading = true } = {}): Promise<Record<string, unknown>> {
  const stop = new AbortController();
  const balancers = new Balancers({
    client: of.client,
    log: { info: () => undefined, warn: () => undefined },
    isLeading: () => isLeading,
    date: () => new Date('2026-01-01T00:00:00.500Z'),
  });
  const running = balancers.run(stop.signal);
  // Two rounds of what is pending: listings, and what follows from them.
  await setTimeout(50);
  stop.abort();
  await running;
  return Object.fromEntries([...of.written].map(([path, { status }]) => [path.split('/').slice(-2)[0], status]));
}
const since = '2026-01-01T00:00:00Z';
const ready = {
  conditions: [{ type: 'Ready', status: 'True', reason: 'Usable', message: 'Services get its addresses', lastTransitionTime: since }],
};
const given = (...ips: readonly string[]): object => ({
  loadBalancer: { ingress: ips.map((ip) => ({ ip })) },
  conditions: [
    {
      type: 'causeway.dev/Address',
      status: 'True',
      reason: 'Given',
      message: 'It has an address of each family',
      lastTransitionTime: since,
    },
  ],
});

test('load balancers get addresses, others and those of other classes do not', async () => {
  const of = server(
    [
      service('web'),
      service('plain', { type: 'ClusterIP' }),
      service('other', { loadBalancerClass: 'example.org/x' }),
      service('named', { loadBalancerClass: 'causeway.dev/address-pool' }),
    ],
    [pool('p', '203.0.113.0/28')],
  );
  assert.deepEqual(await settled(of), { p: ready, named: given('203.0.113.0'), web: given('203.0.113.1') });
});

const asks = (name: string, annotations: object): Item => service(name, {}, { annotations });
const told = (status: unknown): unknown =>
  (status as { conditions: { reason: string; message: string }[] }).conditions.map(({ reason, message }) => `${reason}: ${message}`);

test('what is asked for by annotations, and what is wrong is told in conditions', async () => {
  const of = server(
    [
      asks('a', { 'causeway.dev/addresses': '203.0.113.7' }),
      asks('b', { 'causeway.dev/address-pool': 'q' }),
      asks('c', { 'causeway.dev/address-pool': 'none' }),
    ],
    [pool('p', '203.0.113.0/28'), pool('q', '192.0.2.1'), pool('r', '192.0.2.0/24'), pool('s', 'nonsense')],
  );
  const { r, s, c, ...others } = await settled(of);
  assert.deepEqual(others, { p: ready, q: ready, a: given('203.0.113.7'), b: given('192.0.2.1') });
  assert.deepEqual(told(r), ['Overlaps: It overlaps the pool q']);
  assert.deepEqual(told(s), ['Invalid: spec.addresses: "nonsense" is no prefix, address or range']);
  assert.deepEqual(told(c), ['NoAddress: No pool has a free IPv4 address (asked for: none)']);
});

test('who does not lead, or knows no pool, writes nothing', async () => {
  assert.deepEqual(await settled(server([service('web')], [pool('p', '203.0.113.0/28')]), { isLeading: false }), {});
  assert.deepEqual(await settled(server([service('web')], undefined)), {});
});

test('what is as it should be is not written again', async () => {
  const done = { ...service('web'), status: given('203.0.113.0') };
  assert.deepEqual(await settled(server([done], [{ ...pool('p', '203.0.113.0/28'), status: ready }])), {});
});

test('a server that refuses stops nothing', async () => {
  assert.deepEqual(
    await settled(server([service('web')], [pool('p', '203.0.113.0/28')], { refuse: new Fault('conflict', 'changed') })),
    {},
  );
  assert.deepEqual(await settled(server([service('web')], [pool('p', '203.0.113.0/28')], { refuse: new Fault('forbidden', 'no') })), {});
});

test('a pool with addresses that the cluster may give services by itself is told of and not used', async () => {
  const pools = [pool('a', '10.96.255.0/28'), pool('b', '10.97.0.0/28'), pool('c', 'fd00:10:96::5')];
  const of = server([service('web')], pools, { ranges: ['10.96.0.0/16', 'fd00:10:96::/112', 'nonsense'] });
  const { web, b, ...others } = await settled(of);
  assert.deepEqual([web, b], [given('10.97.0.0'), ready]);
  assert.match(JSON.stringify(others['a']), /"False","reason":"Overlaps","message":"It overlaps 10\.96\.0\.0\/16, of which services have/);
  assert.match(JSON.stringify(others['c']), /It overlaps fd00:10:96::\/112, /);
});

const ipPool = (name: string, spec: object): Item => ({ metadata: { name, creationTimestamp: since }, spec }) as Item;
test('a pool with addresses of pods is told of and not used, whichever model they have them of', async () => {
  const pools = [pool('a', '10.244.9.0/28'), pool('b', '10.97.0.0/28'), pool('c', '10.83.7.1-10.83.7.9')];
  const one = { ...node('192.168.0.1'), metadata: { name: 'one', annotations: { 'causeway.dev/pod-cidrs': '10.244.0.0/16,fd00::/56' } } };
  const ipPools = [
    ipPool('pods', { cidr: '10.83.0.0/16', nodeSelector: 'has(' }),
    ipPool('nobody', { cidr: '10.97.0.0/24', allowedUses: ['Tunnel'] }),
    ipPool('wrong', { cidr: 7 }),
  ];
  const flannel = await settled(server([service('web')], pools, { nodes: [one, node('192.168.0.2')], ipPools }));
  assert.deepEqual([flannel['web'], flannel['b'], flannel['c']], [given('10.97.0.0'), ready, ready]);
  assert.match(JSON.stringify(flannel['a']), /"False","reason":"Overlaps","message":"It overlaps 10\.244\.0\.0\/16, of which pods have/);

  const calico = await settled(server([service('web')], pools, { nodes: [node('192.168.0.1')], ipPools }));
  assert.deepEqual([calico['web'], calico['a']], [given('10.244.9.0'), ready]);
  assert.match(JSON.stringify(calico['c']), /It overlaps 10\.83\.0\.0\/16, of which pods have/);
});

const node = (...addresses: readonly [string, ...string[]]) => ({
  metadata: { name: addresses[0] },
  status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
});
test('no service is given an address of a node, which the pool tells', async () => {
  const of = server(
    [service('web'), asks('asking', { 'causeway.dev/addresses': '203.0.113.2' })],
    [pool('p', '203.0.113.0/28'), pool('q', '192.0.2.0/28')],
    { nodes: [node('one', '203.0.113.0', 'fd00::1'), node('two', '203.0.113.2')] },
  );
  const { web, asking, p, q } = await settled(of);
  assert.deepEqual([web, q], [given('203.0.113.1'), ready]);
  assert.deepEqual(told(asking), ["NoAddress: 203.0.113.2 is a node's own"]);
  assert.deepEqual(told(p), ['Usable: Services get its addresses, but for those that nodes have: 203.0.113.0, 203.0.113.2']);
});

test('of a pool that is edited to what cannot be read services keep what they have, and new ones are given more', async () => {
  const servicesPath = '/api/v1/services';
  const kept = new Server([
    [addressPools, [{ ...pool('p', '203.0.113.0/28'), metadata: { name: 'p', resourceVersion: '1' } }]],
    [servicesPath, [{ ...service('web'), metadata: { namespace: 'shop', name: 'web', resourceVersion: '2' } }]],
    ['/api/v1/nodes', []],
  ]);
  const stop = new AbortController();
  const balancers = new Balancers({
    client: kept.client,
    log: { info: () => undefined, warn: () => undefined },
    isLeading: () => true,
    date: () => new Date('2026-01-01T00:00:00.500Z'),
  });
  const running = balancers.run(stop.signal);
  const statuses = (): string => JSON.stringify([...kept.of(servicesPath), ...kept.of(addressPools)].map(({ status }) => status));
  const becomes = async (pattern: RegExp): Promise<void> => {
    for (const end = performance.now() + 10_000; !pattern.test(statuses()); await setTimeout(5))
      assert.ok(performance.now() < end, statuses());
  };
  await becomes(/203\.0\.113\.0"/);
  kept.put(addressPools, pool('p', '203.0.113.0/33'));
  await becomes(/Invalid.*is no prefix, address or range; until then what it said before counts/);
  kept.put(servicesPath, service('new'));
  await becomes(/203\.0\.113\.0".*203\.0\.113\.1"/);
  stop.abort();
  await running;
});
