// Blocks: which host is the authority for which piece of a pool, and loans of single addresses between hosts. A claim is
// unique by its key, so two hosts can never hold one piece, whichever controllers they ask.
import { Fault } from '#model/fault.ts';
import { type Cidr, cidrBase, cidrLength, cidrOf, contains, type Ip } from '#model/ip.ts';
import { blockAround, chooseBlock, isOpen, loansWith, mayHaveMore, settled } from '#model/claims.ts';
import type { Block, Loan, Network, Pool } from '#model/resources.ts';
import type { ClaimRequest, LoanRequest, LoanSettlement, PortGroupsRequest } from '#api/requests.ts';
import { asHost, type HostPrincipal, type Principal } from './access.ts';
import { type Control, type Decision, transact } from './control.ts';
import { find } from './find.ts';
import { checkMatch } from './replace.ts';
import { holdOne, occupiedBlocks, portPools } from './neutron.ts';
import { idOf, keys, listAll, putResource, readResource } from './records.ts';
import type { Operation } from '#store/store.ts';

/** What every write of a host checks: that it has neither been removed nor superseded meanwhile. */
export const incarnationCheck = ({ host, incarnation }: HostPrincipal): Operation => ({
  type: 'check',
  key: keys.incarnation(host),
  expect: incarnation,
});

/** Blocks that still hold addresses of other hosts (of a removed host's loans): not given out until they are empty. */
function haunted(control: Control, pool: Pool, host: string): Set<Cidr> {
  const cidrs = new Set<Cidr>();
  for (const endpoint of control.contents.of(pool.network, 'endpoints').values()) {
    if (endpoint.host === host) continue;
    for (const ip of endpoint.addresses) if (contains(pool.cidr, ip)) cidrs.add(cidrOf(ip, pool.blockLength));
  }
  return cidrs;
}

function mustTakeBlocks(network: Network): void {
  if (network.deletedAt !== undefined) throw new Fault('not-found', `Network ${network.name} is being deleted`, { field: 'network' });
  if (network.addressing === 'blocks') return;
  throw new Fault('invalid', `Addresses of network ${network.name} are not given out by Causeway`, { field: 'network' });
}

async function holderOf(control: Control, pool: Pool, cidr: Cidr): Promise<Block | undefined> {
  const id = idOf(await control.store.get(keys.claim(pool.id, cidr)));
  return id === undefined ? undefined : readResource(control.store, 'blocks', id);
}

/**
 * Claims a block for the host that asks; with `ip` exactly the one around it, and when the host has that already, it is the
 * answer. Faults: `exhausted`; `exists` when another host holds the asked one; `invalid` when `ip` is outside the pool.
 */
export function claimBlock(control: Control, principal: Principal, request: ClaimRequest): Promise<Block> {
  const self = asHost(principal, request.host, 'Blocks');
  return control.serially(`claims ${request.pool}`, async () => {
    const network = await find(control, principal, 'networks', request.network);
    const asked = { principal, self, request, id: control.newId() };
    const pool = await find(control, principal, 'pools', request.pool);
    if (network.neutron !== undefined && pool.fallback !== true) return claimInCloud(control, asked, { network, pool });
    return transact(control, () => decideClaim(control, { ...asked, avoid: new Set() }));
  });
}

interface Claim {
  readonly principal: Principal;
  readonly self: HostPrincipal;
  readonly request: ClaimRequest;
  /** Blocks that cannot be had, beside those that the store tells of. */
  readonly avoid: ReadonlySet<Cidr>;
  /** Of the block, when it is a new one. */
  readonly id: string;
  readonly vlan?: number | undefined;
}

/** With ports of its own in the cloud by the time that the host hears of it. */
async function claimInCloud(
  control: Control,
  asked: Omit<Claim, 'avoid'>,
  { network, pool }: { readonly network: Network; readonly pool: Pool },
): Promise<Block> {
  // Whoever knows of fewer has not had the answer: it takes a cloud a while.
  const held = [...control.contents.of(network.id, 'blocks').values()]
    .filter((block) => block.host === asked.self.host && block.pool === pool.id)
    .toSorted((a, b) => b.revision - a.revision);
  const [last] = held;
  if (last !== undefined && asked.request.ip === undefined && held.length > (asked.request.has ?? 0)) return last;
  const occupied = await occupiedBlocks(control, network, pool);
  return holdOne(control, {
    choose: (refused) => decideClaim(control, { ...asked, avoid: new Set([...occupied, ...refused]) }),
    commit: async ({ cidr, vlan }) => {
      const exactly = { ...asked.request, ip: cidrBase(cidr) };
      const block = await transact(control, () => decideClaim(control, { ...asked, request: exactly, avoid: new Set(), vlan }));
      await control.mirror.reached(block.revision);
      return block;
    },
  });
}

function mustBeClean(cidr: Cidr, sets: { readonly haunted: ReadonlySet<Cidr>; readonly avoid: ReadonlySet<Cidr> }): void {
  if (sets.haunted.has(cidr)) {
    throw new Fault('exists', `Block ${cidr} still has addresses that another host uses`, {
      field: 'ip',
      hint: 'Choose an address elsewhere in the pool, or remove those endpoints',
    });
  }
  if (sets.avoid.has(cidr)) {
    throw new Fault('exists', `Block ${cidr} has addresses that others have in the cloud`, {
      field: 'ip',
      hint: 'Choose an address elsewhere in the pool',
    });
  }
}

async function decideClaim(control: Control, { principal, self, request, avoid, id, vlan }: Claim): Promise<Decision<Block>> {
  const network = await find(control, principal, 'networks', request.network);
  const pool = await find(control, principal, 'pools', request.pool);
  if (pool.network !== network.id) throw new Fault('invalid', `Pool ${pool.id} is not of network ${network.name}`, { field: 'pool' });
  mustTakeBlocks(network);
  const claims = await listAll(control.store, keys.claims(pool.id));
  const taken = new Set(claims.map(({ key }) => key.slice(keys.claims(pool.id).length)));
  const cidr = request.ip === undefined ? undefined : blockAround(pool, request.ip);
  if (cidr !== undefined && taken.has(cidr)) {
    const holder = await holderOf(control, pool, cidr);
    if (holder?.host === self.host) return { operations: [], answer: () => holder };
    throw new Fault('exists', `Block ${cidr} is held by host ${holder?.host ?? 'unknown'}`, {
      field: 'ip',
      hint: 'Ask that host for a loan',
    });
  }
  if (cidr !== undefined) mustBeClean(cidr, { haunted: haunted(control, pool, self.host), avoid });
  checkQuota(control, network, pool, self.host);
  const prefer = control.now().getTime() < control.unsureUntil ? 'middle' : (request.prefer ?? 'low');
  const chosen = cidr ?? free(control, { pool, network, host: self.host, taken: taken.union(avoid), prefer });
  const block: Block = {
    id,
    name: `${self.host}-${chosen.replaceAll(/[^0-9a-f]/g, '-')}`.slice(0, 63),
    revision: 0,
    createdAt: control.now().toISOString(),
    labels: {},
    network: network.id,
    pool: pool.id,
    cidr: chosen,
    host: self.host,
    loans: [],
    ...(vlan === undefined ? {} : { vlan }),
  };
  return {
    operations: [
      { type: 'put', key: keys.claim(pool.id, chosen), value: block.id, expect: 0 },
      putResource('blocks', block, 0),
      { type: 'check', key: keys.resource('networks', network.id), expect: network.revision },
      { type: 'check', key: keys.resource('pools', pool.id), expect: pool.revision },
      { type: 'put', key: keys.guard(pool.id), value: null },
      incarnationCheck(self),
    ],
    answer: (revision) => ({ ...block, revision }),
  };
}

interface Wish {
  readonly pool: Pool;
  readonly network: Network;
  readonly host: string;
  readonly taken: ReadonlySet<string>;
  /** Blocks that a restored store lacks were beside those that it has, at either end. */
  readonly prefer: 'low' | 'high' | 'middle';
}

function free(control: Control, { pool, network, host, taken, prefer }: Wish): Cidr {
  const leftovers = haunted(control, pool, host);
  const cidr = chooseBlock(pool, (one) => taken.has(one) || leftovers.has(one), prefer);
  if (cidr !== undefined) return cidr;
  throw new Fault('exhausted', `No block /${pool.blockLength} is left in ${pool.range ?? pool.cidr} of network ${network.name}`, {
    hint: 'Add a pool to the network, or borrow from a host that has room',
  });
}

function checkQuota(control: Control, network: Network, pool: Pool, host: string): void {
  const { blocksPerHost } = network.choices.address;
  const held = [...control.contents.of(network.id, 'blocks').values()].filter((one) => one.host === host && one.pool === pool.id);
  if (mayHaveMore(network, pool, held)) return;
  throw new Fault(
    'exhausted',
    `Host ${host} holds ${held.length} of at most ${blocksPerHost} blocks of ${pool.cidr} in network ${network.name}`,
  );
}

/** Only by its host, without endpoints and open loans. Absent already is success. Fault `in-use`. */
export function releaseBlock(control: Control, principal: Principal, id: string, match?: number): Promise<void> {
  return transact(control, async () => {
    const block = await readResource(control.store, 'blocks', id);
    if (block === undefined) return { operations: [], answer: () => undefined };
    const self = asHost(principal, block.host, 'Blocks');
    checkMatch(block, match);
    const endpoints = [...control.contents.of(block.network, 'endpoints').values()];
    const user = endpoints.find(({ addresses }) => addresses.some((ip) => contains(block.cidr, ip)));
    if (block.loans.some(isOpen) || user !== undefined) {
      throw new Fault(
        'in-use',
        `Block ${block.cidr} is in use${user === undefined ? ' by loans' : ` by endpoint ${user.name || user.id}`}`,
      );
    }
    return {
      operations: [
        { type: 'delete', key: keys.resource('blocks', block.id), expect: block.revision },
        { type: 'delete', key: keys.claim(block.pool, block.cidr) },
        incarnationCheck(self),
      ],
      answer: () => undefined,
    };
  });
}

/** Only by its host. The port is in its new groups when the answer comes. Faults: `invalid`, and as PortPools.regroup. */
export function setPortGroups(control: Control, principal: Principal, id: string, request: PortGroupsRequest): Promise<Block> {
  const { ip } = request;
  return control.serially(`groups ${id}`, async () => {
    const found = await find(control, principal, 'blocks', id);
    asHost(principal, found.host, 'Ports');
    if (!contains(found.cidr, ip)) throw new Fault('invalid', `${ip} is not in block ${found.cidr}`, { field: 'ip' });
    return portPools(control).regroup(found, request, async (ids) => {
      const block = await transact(control, async () => {
        const known = await find(control, principal, 'blocks', id);
        const self = asHost(principal, known.host, 'Ports');
        const { groups: before, ...rest } = known;
        const { [ip]: _, ...others } = before ?? {};
        const all = ids === undefined ? others : { ...others, [ip]: ids };
        const next: Block = Object.keys(all).length === 0 ? rest : { ...rest, groups: all };
        return {
          operations: [putResource('blocks', next, known.revision), incarnationCheck(self)],
          answer: (revision) => ({ ...next, revision }),
        };
      });
      await control.mirror.reached(block.revision);
      return block;
    });
  });
}

type LoanChange = (block: Block, asker: HostPrincipal) => readonly Loan[];

function changeLoans(control: Control, principal: Principal, id: string, change: LoanChange): Promise<Block> {
  if (principal.type !== 'host') throw new Fault('forbidden', 'Loans are between hosts');
  return transact(control, async () => {
    const block = await find(control, principal, 'blocks', id);
    const loans = change(block, principal);
    if (loans === block.loans) return { operations: [], answer: () => block };
    const next = { ...block, loans };
    return {
      operations: [putResource('blocks', next, block.revision), incarnationCheck(principal)],
      answer: (revision) => ({ ...next, revision }),
    };
  });
}

/** Asking again with the same id is answered with the block as it is. Faults: `invalid`, `forbidden`, `exists` (id of another's loan). */
export function askLoan(control: Control, principal: Principal, block: string, request: LoanRequest): Promise<Block> {
  asHost(principal, request.host, 'Requests for loans');
  return changeLoans(control, principal, block, (found) => loansWith(found, request));
}

/** The block's host grants or refuses what is asked; the borrower returns. The same again is success. Faults: `forbidden`, `invalid`, `conflict`. */
export function settleLoan(
  control: Control,
  principal: Principal,
  { block, loan, settlement }: { block: string; loan: string; settlement: LoanSettlement },
): Promise<Block> {
  return changeLoans(control, principal, block, (found, asker) => {
    const known = found.loans.find(({ id }) => id === loan);
    if (known === undefined) throw new Fault('not-found', `No loan ${loan}`);
    const settler = settlement.state === 'returned' ? known.host : found.host;
    if (asker.host !== settler) throw new Fault('forbidden', `Only host ${settler} can make this loan ${settlement.state}`);
    const next = settled(found, known, settlement);
    return next === known ? found.loans : found.loans.map((one) => (one === known ? next : one));
  });
}

/** By either side, once refused or returned. Absent already is success. Fault `in-use` while it is open. */
export async function forgetLoan(control: Control, principal: Principal, block: string, loan: string): Promise<void> {
  await changeLoans(control, principal, block, (found, asker) => {
    const known = found.loans.find(({ id }) => id === loan);
    if (known === undefined) return found.loans;
    if (asker.host !== known.host && asker.host !== found.host) throw new Fault('forbidden', 'Only the two hosts of a loan can remove it');
    if (isOpen(known)) throw new Fault('in-use', `The loan is ${known.state}; return it first`);
    return found.loans.filter((one) => one !== known);
  });
}

/** Whether `host` may give `ip` to an endpoint of its own: its block holds it, or it is lent to it. */
export async function holdsAddress(control: Control, host: string, pool: Pool, ip: Ip): Promise<boolean> {
  const mayUse = (block: Block): boolean =>
    contains(block.cidr, ip) &&
    (block.host === host || block.loans.some((loan) => loan.host === host && loan.ip === ip && loan.state === 'granted'));
  if ([...control.contents.of(pool.network, 'blocks').values()].some(mayUse)) return true;
  // The mirror may lag behind a claim that was made a moment ago.
  const block = await holderOf(control, pool, cidrOf(ip, Math.max(pool.blockLength, cidrLength(pool.cidr))));
  return block !== undefined && mayUse(block);
}
