// Addresses without a port of the cloud: only where the network lets them, only when the cloud gives no port, and told why.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint, makeNetwork, makePool, snapshotOf } from '#drivers/cluster.fixture.ts';
import { Fault, type FaultCode } from '#model/fault.ts';
import { type Ip, parseCidr, parseIp } from '#model/ip.ts';
import { Companions } from './address-companion.ts';

const ported = makePool('ports', parseCidr('10.213.0.0/16'), 29);
const besides = { ...makePool('ports', parseCidr('10.64.0.0/16'), 29), id: 'besides', fallback: true as const };
const [withPort, without] = [parseIp('10.213.128.1'), parseIp('10.64.0.1')];

function bed({ isAllowed = true, patienceMs = 10_000 } = {}) {
  const neutron = { network: 'net', subnet: 'subnet', ...(isAllowed ? { fallback: true as const } : {}) };
  const snapshot = snapshotOf({ networks: [{ ...makeNetwork('ports', { model: 'neutron' }), neutron }], pools: [ported, besides] });
  const state: { now: number; refuses: FaultCode | undefined; free: number } = { now: 1_000_000, refuses: 'exhausted', free: 0 };
  const [asked, told, released]: [string[], string[], Ip[]] = [[], [], []];
  const companions = new Companions({
    addresses: {
      room: () => ({ free: state.free, capacity: 8 }),
      release: (_, ip) => void released.push(ip),
      background: (doing) => void told.push(doing),
    },
    snapshot: () => snapshot,
    endpoints: () => [{ endpoint: makeEndpoint('ports', 'host-1', 1, [without]), slot: 1 }],
    now: () => state.now,
    patienceMs,
  });
  const ask = async (pool: string): Promise<Ip> => {
    asked.push(pool);
    if (pool === besides.id) return without;
    if (state.refuses !== undefined) throw new Fault(state.refuses, 'The quota of ports would not do');
    return withPort;
  };
  return { companions, state, asked, told, released, ask };
}

test('while the cloud refuses ports addresses are those without, and ports are asked for again after a while', async () => {
  const { companions, state, asked, told, ask } = bed();
  assert.equal(await companions.request(ported.id, ask), without);
  assert.match(
    companions.problems().join(),
    /^1 container of network net-ports without .* 10\.64\.0\.0\/16: The quota of ports would not do$/,
  );
  state.refuses = undefined;
  assert.equal(await companions.request(ported.id, ask), without);
  assert.deepEqual([asked, told.length], [[ported.id, besides.id, besides.id], 1]);
  state.now += 31_000;
  assert.equal(await companions.request(ported.id, ask), withPort);
});

test('why an address is one without a port is known', async () => {
  const { companions, ask } = bed();
  assert.deepEqual([companions.reasonFor(withPort), companions.reasonFor(without)], [undefined, 'The cloud gave no port']);
  await companions.request(ported.id, ask);
  assert.equal(companions.reasonFor(without), 'The quota of ports would not do');
});

test('a port that has become free meanwhile is taken', async () => {
  const { companions, state, ask } = bed();
  await companions.request(ported.id, ask);
  Object.assign(state, { free: 1, refuses: undefined });
  assert.equal(await companions.request(ported.id, ask), withPort);
});

test('a cloud that does not answer is waited for only so long, and what comes then is let go', async () => {
  const { companions, released } = bed({ patienceMs: 5 });
  const late = Promise.withResolvers<Ip>();
  assert.equal(await companions.request(ported.id, (pool) => (pool === besides.id ? Promise.resolve(without) : late.promise)), without);
  late.resolve(withPort);
  await late.promise;
  assert.deepEqual(released, [withPort]);
});

test('not where nobody has let them, nor for what a port would not help against', async () => {
  const apart = bed({ isAllowed: false });
  await assert.rejects(apart.companions.request(ported.id, apart.ask), { code: 'exhausted' });
  const { companions, state, ask } = bed();
  state.refuses = 'unsupported';
  await assert.rejects(companions.request(ported.id, ask), { code: 'unsupported' });
});
