// Arithmetic of claims and loans, whoever keeps them (a store of ours, the Kubernetes API): which block a host gets, and what
// a block's loans become. The one who writes makes sure that nobody else has written meanwhile.
import { spaceOf } from './block.ts';
import { Fault } from './fault.ts';
import {
  bitsOf,
  type Cidr,
  cidrBase,
  cidrLength,
  cidrOf,
  cidrSize,
  contains,
  coverage,
  familyOf,
  type Ip,
  ipToBigint,
  subnetAt,
} from './ip.ts';
import type { Block, Loan, Network, Pool } from './resources.ts';

/** The first block from the wanted end, or from the middle upwards and then downwards, that is free and has something to give. */
export function chooseBlock(pool: Pool, isTaken: (cidr: Cidr) => boolean, prefer: 'low' | 'high' | 'middle'): Cidr | undefined {
  const within = pool.range ?? pool.cidr;
  const size = 1n << BigInt(bitsOf(familyOf(pool.cidr)) - pool.blockLength);
  const base = ipToBigint(cidrBase(pool.cidr));
  const first = (ipToBigint(cidrBase(within)) - base) / size;
  const last = (ipToBigint(cidrBase(within)) + cidrSize(within) - 1n - base) / size;
  const firstFrom = (from: bigint, step: bigint): Cidr | undefined => {
    for (let index = from; index >= first && index <= last; index += step) {
      const cidr = subnetAt(pool.cidr, pool.blockLength, index);
      if (cidr !== undefined && !isTaken(cidr) && spaceOf(pool, cidr).capacity > 0) return cidr;
    }
    return undefined;
  };
  if (prefer === 'low') return firstFrom(first, 1n);
  if (prefer === 'high') return firstFrom(last, -1n);
  const middle = (first + last + 1n) / 2n;
  return firstFrom(middle, 1n) ?? firstFrom(middle, -1n);
}

/** Whether a range has addresses in common with any of `ranges`. */
export function overlapping(ranges: readonly Cidr[]): (range: Cidr) => boolean {
  const holds = coverage(ranges);
  /** By length: prefixes around those that are longer. */
  const around = new Map<number, ReadonlySet<Cidr>>();
  return (range) => {
    const length = cidrLength(range);
    const outer = around.get(length) ?? new Set(ranges.flatMap((one) => (cidrLength(one) > length ? cidrOf(cidrBase(one), length) : [])));
    around.set(length, outer);
    return holds(cidrBase(range)) || outer.has(range);
  };
}

/**
 * Whether a host with these blocks of a pool may have another one. Those whose ports are sub-ports are bounded by nothing but VLANs, and
 * those without ports by nothing but the pool.
 */
export const mayHaveMore = (
  { choices }: Pick<Network, 'choices'>,
  { fallback }: Pick<Pool, 'fallback'>,
  blocks: readonly Pick<Block, 'vlan'>[],
): boolean =>
  fallback === true ||
  choices.address.blocksPerHost === 0 ||
  blocks.length < choices.address.blocksPerHost ||
  blocks.every(({ vlan }) => vlan !== undefined);

/** The block of the pool that holds `ip`. Fault `invalid` when the pool does not. */
export function blockAround(pool: Pool, ip: Ip): Cidr {
  if (contains(pool.cidr, ip)) return cidrOf(ip, pool.blockLength);
  throw new Fault('invalid', `${ip} is not inside ${pool.cidr}`, { field: 'ip' });
}

/** Whether the address may be in use, or come to be. */
export const isOpen = ({ state }: Loan): boolean => state === 'asked' || state === 'granted';

/** The block's loans with one more that is asked for; asking again changes nothing. Faults: `invalid`, `exists` (id of another's loan). */
export function loansWith(block: Block, request: Omit<Loan, 'state' | 'reason'>): readonly Loan[] {
  if (block.host === request.host) throw new Fault('invalid', 'A host does not borrow from itself', { field: 'host' });
  if (request.ip !== undefined && !contains(block.cidr, request.ip)) {
    throw new Fault('invalid', `${request.ip} is not inside ${block.cidr}`, { field: 'ip' });
  }
  const known = block.loans.find(({ id }) => id === request.id);
  if (known === undefined) return [...block.loans, { ...request, state: 'asked' }];
  if (known.host === request.host) return block.loans;
  throw new Fault('exists', `Loan ${request.id} is another host's`, { field: 'id' });
}

export interface LoanEnd {
  readonly state: Exclude<Loan['state'], 'asked'>;
  readonly ip?: Ip | undefined;
  readonly reason?: string | undefined;
}

/** What the loan becomes; the same again changes nothing. Faults: `stale` (it has gone on since), `invalid`, `exists` (lent already). */
export function settled(block: Block, loan: Loan, { state, ip, reason }: LoanEnd): Loan {
  if (loan.state === state && (ip === undefined || ip === loan.ip)) return loan;
  if (state === 'returned') return { ...loan, state };
  if (loan.state !== 'asked') throw new Fault('stale', `The loan is ${loan.state} already`, { field: 'state' });
  if (state === 'refused') return { ...loan, state, ...(reason === undefined ? {} : { reason }) };
  if (ip === undefined || !contains(block.cidr, ip)) {
    throw new Fault('invalid', `A grant names an address inside ${block.cidr}`, { field: 'ip' });
  }
  if (loan.ip !== undefined && loan.ip !== ip) throw new Fault('invalid', `${loan.ip} was asked for`, { field: 'ip' });
  if (block.loans.some((one) => one !== loan && one.ip === ip && one.state === 'granted')) {
    throw new Fault('exists', `${ip} is lent already`, { field: 'ip' });
  }
  return { ...loan, state, ip };
}
