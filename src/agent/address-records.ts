// The address book's part of the journal: which keys it uses and what is in them. Values come back from a disk, so they are
// parsed; a record that does not parse is a Fault `corrupt`, for an address that is forgotten might be given twice.
import * as v from 'valibot';
import type { Journal } from '#api/local.ts';
import type { AddressState } from '#model/allocation.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, type Ip, parseCidr, parseIp } from '#model/ip.ts';

/** A block of this host. `releasing`: the cluster has been asked to take it back; `released`: it has agreed. */
export interface BlockRecord {
  readonly id: string;
  readonly network: string;
  readonly pool: string;
  readonly cidr: Cidr;
  readonly revision: number;
  readonly status: 'active' | 'releasing' | 'released';
  readonly quietUntil: number;
  /** Of Block. */
  readonly vlan?: number;
}

/** A held address that no block of this host covers: borrowed, given by somebody else, or left from a block that went away. */
export interface LooseRecord {
  readonly owner: string;
  readonly sequence: number;
  readonly since: number;
  readonly endpoint?: string;
  readonly loan?: { readonly block: string; readonly id: string };
}

/** A borrowed address that was freed here and whose owner has not been told yet. */
export interface ReturnRecord {
  readonly loan: string;
  readonly block: string;
}

export type AddressRecord = AddressState | ({ readonly status: 'loose' } & LooseRecord);

const count = v.pipe(v.number(), v.finite());
const text = v.string();
const ip = v.pipe(
  text,
  v.transform((value): Ip => parseIp(value)),
);
const cidr = v.pipe(
  text,
  v.transform((value): Cidr => parseCidr(value)),
);

const blockSchema = v.object({
  id: text,
  network: text,
  pool: text,
  cidr,
  revision: count,
  status: v.picklist(['active', 'releasing', 'released']),
  quietUntil: count,
  vlan: v.exactOptional(count),
});

const heldEntries = { owner: text, sequence: count, since: count, endpoint: v.exactOptional(text) };
const addressSchema = v.variant('status', [
  v.object({ status: v.literal('held'), ...heldEntries }),
  v.object({ status: v.literal('cooling'), owner: text, sequence: count, freedAt: count }),
  v.object({ status: v.literal('lent'), loan: text, host: text, sequence: count, revision: count }),
  v.object({ status: v.literal('loose'), ...heldEntries, loan: v.exactOptional(v.object({ block: text, id: text })) }),
]);

const returnSchema = v.object({ loan: text, block: text });
const bookSchema = v.object({ version: v.literal(1), sequence: count });

const bookKey = 'address-book';
const blockPrefix = 'address-block/';
const addressPrefix = 'address/';
const returnPrefix = 'address-return/';

export const blockKey = (id: string): string => `${blockPrefix}${id}`;
export const addressKey = (pool: string, address: Ip): string => `${addressPrefix}${pool}/${address}`;
export const returnKey = (loan: string): string => `${returnPrefix}${loan}`;

function parse<T extends v.GenericSchema>(schema: T, key: string, value: unknown): v.InferOutput<T> {
  try {
    return v.parse(schema, value);
  } catch (error) {
    throw new Fault('corrupt', `Cannot read ${key} in the journal`, { cause: error });
  }
}

export interface Records {
  /** Highest sequence given so far; undefined when this journal has never belonged to an address book. */
  readonly sequence: number | undefined;
  readonly blocks: readonly BlockRecord[];
  readonly addresses: readonly { readonly pool: string; readonly ip: Ip; readonly record: AddressRecord }[];
  readonly returns: readonly ReturnRecord[];
}

/** Everything the journal holds of the address book. Fault `corrupt`. */
export function readRecords(journal: Journal): Records {
  const book = journal.get(bookKey);
  return {
    sequence: book === undefined ? undefined : parse(bookSchema, bookKey, book).sequence,
    blocks: journal.list(blockPrefix).map(({ key, value }) => parse(blockSchema, key, value)),
    addresses: journal.list(addressPrefix).map(({ key, value }) => {
      const [pool = '', address = ''] = key.slice(addressPrefix.length).split('/');
      return { pool, ip: parse(ip, key, address), record: parse(addressSchema, key, value) };
    }),
    returns: journal.list(returnPrefix).map(({ key, value }) => parse(returnSchema, key, value)),
  };
}

/** Marks the journal as the address book's own, and remembers the highest sequence although its record may be forgotten. */
export const writeBook = (journal: Journal, sequence: number): void => journal.put(bookKey, { version: 1, sequence });
