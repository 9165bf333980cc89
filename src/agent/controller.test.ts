import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Client } from '#api/client.ts';
import { makeBlock, makeEndpoint, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { Fault, type FaultCode, isFault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { ipamHostLabel } from '#model/numbers.ts';
import type { Block, Network } from '#model/resources.ts';
import { controllerOf } from './controller.ts';

const network = makeNetwork('aaaaaaaaaa');
const pool = makePool(network.id, parseCidr('10.0.0.0/24'), 27);
const block = makeBlock(pool, 1, 'host-2');
const refuse = (code: FaultCode): Promise<never> => Promise.reject(new Fault(code, 'No'));

/** A client of which only some calls are possible; what was asked, in order. */
function controller(calls: Partial<Record<keyof Client, (...words: never[]) => unknown>>, known: Network | undefined = network) {
  const asked: string[] = [];
  const client = new Proxy(calls, {
    get: (target, name: keyof Client) =>
      target[name] === undefined
        ? undefined
        : (...words: never[]): unknown => {
            asked.push(String(name));
            return target[name]?.(...words);
          },
  });
  return { ...controllerOf(client as unknown as Client, 'host-1', () => known), asked };
}

test('what is refused of a batch is told by id, and how far the watch must come to have shown the rest', async () => {
  const [one, two, three] = [1, 2, 3].map((number) => makeEndpoint(network.id, 'host-1', number, [parseIp(`10.0.0.${number}`)]));
  assert.ok(one !== undefined && two !== undefined && three !== undefined);
  const subject = controller({
    batchEndpoints: () =>
      Promise.resolve([
        { id: three.id },
        { id: one.id, item: { ...one, revision: 12 } },
        { id: two.id, problem: { type: 'about:blank', title: 'Stale', status: 409, code: 'stale', detail: 'Older than what is there' } },
      ]),
  });
  const { refused, revision } = await subject.publish({ puts: [one, two], deletes: [{ id: three.id, sequence: 1 }] });
  assert.deepEqual([[...refused].map(([id, { code }]) => [id, code]), revision], [[[two.id, 'stale']], 12]);
});

test('a network is renamed from its newest record, again when somebody else was faster, and not for ever', async () => {
  let conflicts = 2;
  const calls = {
    get: () => Promise.resolve({ ...network, labels: { a: '1', b: '2' } }),
    replace: (_: string, item: Network) => (conflicts-- > 0 ? refuse('conflict') : Promise.resolve(item)),
  };
  const { networks, asked } = controller(calls);
  const renamed = await networks.rename(network.id, 'shop', { b: '3' });
  assert.deepEqual([renamed.name, renamed.labels, asked.length], ['shop', { a: '1', b: '3' }, 6]);
  conflicts = Infinity;
  await assert.rejects(networks.rename(network.id, 'shop', {}), { code: 'conflict' });
});

test('a network that has gone is removed; one that is in use is not', async () => {
  await controller({ remove: () => refuse('not-found') }).networks.remove(network.id);
  await assert.rejects(controller({ remove: () => refuse('in-use') }).networks.remove(network.id), { code: 'in-use' });
});

test('a block around an address that another host has is looked up', async () => {
  const { addresses, asked } = controller({
    claimBlock: () => refuse('exists'),
    all: () => Promise.resolve([makeBlock(pool, 0, 'host-3'), block]),
  });
  assert.equal(await addresses.claimBlock({ network: network.id, pool: pool.id, ip: parseIp('10.0.0.40') }), block);
  assert.deepEqual(asked, ['claimBlock', 'all']);
  await assert.rejects(addresses.claimBlock({ network: network.id, pool: pool.id, ip: parseIp('10.0.0.200') }), { code: 'exists' });
  await assert.rejects(addresses.claimBlock({ network: network.id, pool: pool.id }), { code: 'exists' });
});

/** From which end a network with these labels is claimed. */
async function prefers(labels: Record<string, string>): Promise<unknown> {
  let preference: unknown;
  const calls = {
    claimBlock(request: { prefer: unknown }) {
      preference = request.prefer;
      return Promise.resolve(block);
    },
  };
  await controller(calls, { ...network, labels }).addresses.claimBlock({ network: network.id, pool: pool.id });
  return preference;
}

test('where one engine counts addresses up from the start, the others claim from the far end', async () => {
  assert.deepEqual(
    [await prefers({}), await prefers({ [ipamHostLabel]: 'host-1' }), await prefers({ [ipamHostLabel]: 'host-2' })],
    ['low', 'low', 'high'],
  );
});

test('of a network whose containers are ports of a cloud a claim takes its time, but not so long that an engine gives up without a word', async () => {
  const slow: unknown[] = [];
  const calls = {
    claimBlock(_request: unknown, options?: { readonly isSlow?: true }) {
      slow.push(options?.isSlow);
      return options?.isSlow === true ? refuse('timeout') : Promise.resolve(block);
    },
  };
  const ask = (of: Network): Promise<Block> => controller(calls, of).addresses.claimBlock({ network: network.id, pool: pool.id });
  assert.equal(await ask(network), block);
  await assert.rejects(ask({ ...network, neutron: { network: 'n', subnet: 's' } }), (error) => {
    assert.ok(isFault(error, 'timeout'));
    assert.match(error.message, /still making this host's ports of network net-/);
    return true;
  });
  assert.deepEqual(slow, [undefined, true]);
});

test('a loan is read out of its block', async () => {
  const lending: Block = { ...block, loans: [{ id: 'loan000001', host: 'host-1', endpoint: 'e', state: 'asked' }] };
  const { addresses } = controller({ askLoan: () => Promise.resolve(lending) });
  assert.equal((await addresses.askLoan(block, { id: 'loan000001', endpoint: 'e' })).state, 'asked');
  await assert.rejects(addresses.askLoan(block, { id: 'loan000002', endpoint: 'e' }), { code: 'not-found' });
});

const returns: readonly (readonly [string, FaultCode | undefined, FaultCode | undefined, readonly string[]])[] = [
  ['granted', undefined, undefined, ['settleLoan']],
  ['gone', 'not-found', undefined, ['settleLoan']],
  ['never granted', 'conflict', undefined, ['settleLoan', 'forgetLoan']],
  ['never granted, and gone by now', 'invalid', 'not-found', ['settleLoan', 'forgetLoan']],
];
for (const [what, settle, forget, asked] of returns) {
  test(`a loan that was ${what} is returned`, async () => {
    const answer = (code: FaultCode | undefined) => (): Promise<unknown> => (code === undefined ? Promise.resolve(block) : refuse(code));
    const subject = controller({ settleLoan: answer(settle), forgetLoan: answer(forget) });
    await subject.addresses.returnLoan(block.id, 'loan000001');
    assert.deepEqual(subject.asked, asked);
  });
}

test('what is gone is settled, forgotten and released with success; nobody there is told', async () => {
  const { addresses } = controller({
    forgetLoan: () => refuse('not-found'),
    releaseBlock: () => refuse('not-found'),
    settleLoan: () => refuse('unavailable'),
  });
  await addresses.settleLoan(block.id, 'loan000001', { state: 'closed' });
  await addresses.releaseBlock(block);
  await assert.rejects(addresses.settleLoan(block.id, 'loan000001', { state: 'refused', reason: 'taken' }), { code: 'unavailable' });
  await assert.rejects(addresses.returnLoan(block.id, 'loan000001'), { code: 'unavailable' });
});
