// Endpoints as their hosts publish them. A host writes its own only, never an older state over a newer one, and never an
// address that somebody else has: the address index is the last line of defence against giving one out twice.
import { isDeepStrictEqual } from 'node:util';
import { Fault } from '#model/fault.ts';
import { contains, type Ip } from '#model/ip.ts';
import type { Endpoint, Network } from '#model/resources.ts';
import * as v from 'valibot';
import type { Operation } from '#store/store.ts';
import type { BatchResult } from '#api/answers.ts';
import { problemOf, Refusal } from '#api/faults.ts';
import { parse } from '#api/parse.ts';
import { endpointRequest, type EndpointRequest } from '#api/schemas.ts';
import { asHost, type HostPrincipal, type Principal } from './access.ts';
import { holdsAddress, incarnationCheck } from './blocks.ts';
import { type Control, type Decision, operationLimit, transact } from './control.ts';
import { keys, notFound, putResource, readResource } from './records.ts';
import { checkMatch } from './replace.ts';

const addressHolder = v.object({ endpoint: v.string(), host: v.string() });

/** From the mirror when it knows it; a network made a moment ago by another controller is waited for. */
async function networkFor(control: Control, id: string): Promise<Network> {
  const known = control.mirror.get('networks', id);
  const network = known ?? (await readResource(control.store, 'networks', id));
  if (network === undefined) throw notFound('networks', id);
  if (known === undefined) await control.mirror.reached(network.revision);
  if (network.deletedAt !== undefined) throw new Fault('not-found', `Network ${network.name} is being deleted`, { field: 'network' });
  return network;
}

async function checkAddress(control: Control, { host }: HostPrincipal, network: Network, ip: Ip): Promise<void> {
  const pools = [...control.contents.of(network.id, 'pools').values()];
  const pool = pools.find(({ cidr }) => contains(cidr, ip));
  if (pool === undefined) throw new Fault('invalid', `${ip} is in no pool of network ${network.name}`, { field: 'addresses' });
  if (network.addressing === 'blocks' && !(await holdsAddress(control, host, pool, ip))) {
    throw new Fault('forbidden', `${ip} is neither in a block of host ${host} nor lent to it`, {
      field: 'addresses',
      hint: 'Claim the block or ask its host for a loan first',
    });
  }
}

/** Index operations for the addresses that come and go. Fault `exists` naming who has one. */
async function addressOperations(control: Control, next: Endpoint, before: Endpoint | undefined): Promise<Operation[]> {
  const operations: Operation[] = [];
  const had = new Set(before?.addresses);
  for (const ip of next.addresses) {
    if (had.delete(ip)) continue;
    const key = keys.address(next.network, ip);
    const taken = await control.store.get(key);
    const holder = v.safeParse(addressHolder, taken?.value);
    if (taken !== undefined && !(holder.success && holder.output.endpoint === next.id)) {
      const who = holder.success ? `endpoint ${holder.output.endpoint} on host ${holder.output.host}` : 'another endpoint';
      throw new Fault('exists', `${ip} belongs to ${who}`, { field: 'addresses' });
    }
    operations.push({ type: 'put', key, value: { endpoint: next.id, host: next.host }, expect: taken?.revision ?? 0 });
  }
  for (const ip of had) operations.push({ type: 'delete', key: keys.address(next.network, ip) });
  return operations;
}

/** Faults: `forbidden`, `invalid`, `stale`. */
function mayReplace(before: Endpoint, self: HostPrincipal, request: EndpointRequest): void {
  if (before.host !== self.host) throw new Fault('forbidden', `Endpoint ${request.id} is of host ${before.host}`);
  if (before.network !== request.network) throw new Fault('invalid', 'An endpoint does not change its network', { field: 'network' });
  if (before.sequence > request.sequence) {
    throw new Fault('stale', `Endpoint ${request.id} is at sequence ${before.sequence} already, ${request.sequence} is older`, {
      field: 'sequence',
    });
  }
}

async function decidePut(control: Control, self: HostPrincipal, request: EndpointRequest, match?: number): Promise<Decision<Endpoint>> {
  const before = await readResource(control.store, 'endpoints', request.id);
  if (before !== undefined) mayReplace(before, self, request);
  checkMatch(before, match);
  const { labels = {}, ...fields } = request;
  const { revision, createdAt } = before ?? { revision: 0, createdAt: control.now().toISOString() };
  const next: Endpoint = { ...fields, labels, revision, createdAt };
  if (before !== undefined && isDeepStrictEqual(before, next)) return { operations: [], answer: () => before };
  const network = await networkFor(control, request.network);
  const known = new Set(before?.addresses);
  for (const ip of next.addresses) if (!known.has(ip)) await checkAddress(control, self, network, ip);
  return {
    operations: [
      { type: 'check', key: keys.resource('networks', network.id), expect: network.revision },
      incarnationCheck(self),
      putResource('endpoints', next, revision),
      ...(await addressOperations(control, next, before)),
    ],
    answer: (at) => ({ ...next, revision: at }),
  };
}

/** Faults: `forbidden` (another host's), `stale`, `exists` (address taken), `invalid`, `not-found` (network), `conflict` (If-Match). */
export async function putEndpoint(
  control: Control,
  principal: Principal,
  { id, request, match }: { id: string; request: EndpointRequest; match?: number | undefined },
): Promise<Endpoint> {
  if (request.id !== id) throw new Fault('invalid', `id is ${request.id} but the path says ${id}`, { field: 'id' });
  const self = asHost(principal, request.host, 'Endpoints');
  return transact(control, () => decidePut(control, self, request, match));
}

interface Removal {
  readonly id: string;
  readonly sequence?: number;
}

const nothing = (): undefined => undefined;

async function decideDelete(control: Control, principal: Principal, { id, sequence }: Removal): Promise<Decision<undefined>> {
  const found = await readResource(control.store, 'endpoints', id);
  if (found === undefined) return { operations: [], answer: nothing };
  if (principal.type === 'host') asHost(principal, found.host, 'Endpoints');
  if (sequence !== undefined && sequence < found.sequence) {
    throw new Fault('stale', `Endpoint ${id} is at sequence ${found.sequence} already, ${sequence} is older`, { field: 'sequence' });
  }
  return {
    operations: [
      { type: 'delete', key: keys.resource('endpoints', id), expect: found.revision },
      ...found.addresses.map((ip): Operation => ({ type: 'delete', key: keys.address(found.network, ip) })),
      ...(principal.type === 'host' ? [incarnationCheck(principal)] : []),
    ],
    answer: nothing,
  };
}

/** Absent already is success. Faults: `forbidden`, `stale`. */
export const deleteEndpoint = (control: Control, principal: Principal, removal: Removal): Promise<undefined> =>
  transact(control, () => decideDelete(control, principal, removal));

interface Item {
  readonly id: string;
  readonly decide: () => Promise<Decision<Endpoint | undefined>>;
}

/** Results come in the order deletes, then puts. Items that do not touch each other are committed together. */
export async function batchEndpoints(
  control: Control,
  principal: Principal,
  { puts, deletes }: { puts: readonly unknown[]; deletes: readonly Removal[] },
): Promise<BatchResult[]> {
  if (principal.type !== 'host') throw new Fault('forbidden', 'Batches are for hosts');
  const items: Item[] = [
    ...deletes.map((removal) => ({ id: removal.id, decide: () => decideDelete(control, principal, removal) })),
    ...puts.map((input, index) => putItem(control, principal, input, index)),
  ];
  const results: BatchResult[] = [];
  for (let from = 0; from < items.length;) {
    const group = await gather(items, from);
    results.push(...(await commitGroup(control, group)));
    from += group.length;
  }
  return results;
}

function putItem(control: Control, principal: HostPrincipal, input: unknown, index: number): Item {
  const given = v.safeParse(v.object({ id: v.string() }), input);
  const id = given.success ? given.output.id.slice(0, 64) : '';
  return {
    id,
    decide: async () => {
      const request = parse(endpointRequest, input, `puts[${index}]`);
      return decidePut(control, asHost(principal, request.host, 'Endpoints'), request);
    },
  };
}

type Gathered = Item & ({ readonly decision: Decision<Endpoint | undefined> } | { readonly error: unknown });

const isWrite = ({ type }: Operation): boolean => type !== 'check';

/** Items from `from` on that can be decided side by side: none writes a key that another touches, all fit in one commit. */
async function gather(items: readonly Item[], from: number): Promise<Gathered[]> {
  const group: Gathered[] = [];
  const written = new Set<string>();
  let size = 0;
  for (const item of items.slice(from)) {
    if (group.some(({ id }) => id === item.id)) break;
    let next: Gathered;
    try {
      const decision = await item.decide();
      const keysWritten = decision.operations.filter(isWrite).map(({ key }) => key);
      size += decision.operations.length;
      if (group.length > 0 && (size > operationLimit || keysWritten.some((key) => written.has(key)))) break;
      for (const key of keysWritten) written.add(key);
      next = { ...item, decision };
    } catch (error) {
      // It may fail only because an earlier item of the group is not written yet: then it begins the next group.
      if (written.size > 0) break;
      next = { ...item, error };
    }
    group.push(next);
  }
  return group;
}

const failure = (id: string, error: unknown): BatchResult => ({ id, problem: problemOf(error) });

async function commitGroup(control: Control, group: readonly Gathered[]): Promise<BatchResult[]> {
  const operations = new Map<string, Operation>();
  for (const item of group) {
    if (!('decision' in item)) continue;
    for (const operation of item.decision.operations) operations.set(operation.key, operation);
  }
  let revision = 0;
  try {
    if (operations.size > 0) ({ revision } = await control.store.commit([...operations.values()]));
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== 'conflict' || error instanceof Refusal) throw error;
    return oneByOne(control, group);
  }
  return group.map((item) => {
    if (!('decision' in item)) return failure(item.id, item.error);
    const result = item.decision.answer(revision);
    return result === undefined ? { id: item.id } : { id: item.id, item: result };
  });
}

async function oneByOne(control: Control, group: readonly Gathered[]): Promise<BatchResult[]> {
  const results: BatchResult[] = [];
  for (const item of group) {
    try {
      const result = await transact(control, item.decide);
      results.push(result === undefined ? { id: item.id } : { id: item.id, item: result });
    } catch (error) {
      results.push(failure(item.id, error));
    }
  }
  return results;
}
