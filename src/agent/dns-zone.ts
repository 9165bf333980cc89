// The names of one network and what they resolve to. A container sees the names of its own network and no others; names
// that the network does not know go to the host's servers, if the network lets traffic out at all.
import { contains, type Cidr, formatIp, type Ip } from '#model/ip.ts';
import type { Endpoint } from '#model/resources.ts';
import { addressRecord, type AnswerRecord, nameRecord, type Question, type Rcode, rcode, recordType } from './dns-wire.ts';

/** How long answers may be kept by clients: containers move, so not long. */
export const ttlSeconds = 2;

/** Where a zone comes from; cheap to make, nothing is read before the first question. */
export interface ZoneSource {
  /** The network's name: names resolve with it as a suffix too. */
  readonly name: string;
  /** Internal networks do not ask outside. */
  readonly isInternal: boolean;
  readonly pools: readonly Cidr[];
  /** Of this network only, by id. Endpoints that did not change must be the same objects as before. */
  readonly endpoints: ReadonlyMap<string, Endpoint>;
}

export interface Zone {
  readonly isInternal: boolean;
  readonly pools: readonly Cidr[];
  /** Address records of a name in lower case; undefined when nobody has it. */
  records(name: string): readonly AnswerRecord[] | undefined;
  /** The name that belongs to an address. */
  reverse(ip: Ip): string | undefined;
}

export type Verdict =
  | { readonly kind: 'answer'; readonly code: Rcode; readonly records: readonly AnswerRecord[] }
  | { readonly kind: 'forward' };

const negative = (code: Rcode): Verdict => ({ kind: 'answer', code, records: [] });

/**
 * What to say to a question. `turn` rotates the addresses of a name that several endpoints share. A known name that lacks
 * the type asked for has no such data; a single label that nobody has does not exist (it must not leak to the outside).
 */
export function answer(question: Question, zone: Zone, turn: number): Verdict {
  if (!question.isInternet) return negative(rcode.refused);
  const records = zone.records(question.name);
  if (records !== undefined) return { kind: 'answer', code: rcode.ok, records: rotate(ofType(records, question.type), turn) };
  const ip = addressOf(question.name);
  if (ip !== undefined && zone.pools.some((pool) => contains(pool, ip))) return answerReverse(question, zone.reverse(ip));
  if (question.labels === 1) return negative(rcode.noSuchName);
  return zone.isInternal ? negative(rcode.refused) : { kind: 'forward' };
}

function answerReverse(question: Question, name: string | undefined): Verdict {
  const record = name === undefined ? undefined : nameRecord(name);
  if (record === undefined) return negative(rcode.noSuchName);
  return { kind: 'answer', code: rcode.ok, records: ofType([record], question.type) };
}

const ofType = (records: readonly AnswerRecord[], type: number): readonly AnswerRecord[] =>
  type === recordType.ANY ? records : records.filter((record) => record.type === type);

function rotate<T>(items: readonly T[], turn: number): readonly T[] {
  if (items.length < 2) return items;
  const start = turn % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}

/** The address that a whole reverse name stands for (RFC 1035 section 3.5, RFC 3596 section 2.5). */
export function addressOf(name: string): Ip | undefined {
  if (name.endsWith('.in-addr.arpa')) {
    const parts = name.slice(0, -'.in-addr.arpa'.length).split('.').toReversed();
    if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) < 256)) return undefined;
    return formatIp(
      parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n),
      4,
    );
  }
  if (!name.endsWith('.ip6.arpa')) return undefined;
  const nibbles = name.slice(0, -'.ip6.arpa'.length).split('.').toReversed();
  if (nibbles.length !== 32 || !nibbles.every((nibble) => /^[0-9a-f]$/.test(nibble))) return undefined;
  return formatIp(BigInt(`0x${nibbles.join('')}`), 6);
}

interface Holders {
  readonly addresses: Map<string, readonly Ip[]>;
  records?: readonly AnswerRecord[] | undefined;
}

const noEndpoints: ReadonlyMap<string, Endpoint> = new Map();

/** A zone that follows its source: only endpoints that differ from the last time are read, and only when a question comes. */
export class ZoneIndex implements Zone {
  #next: ZoneSource;
  #name: string;
  #read: ReadonlyMap<string, Endpoint> = noEndpoints;
  readonly #names = new Map<string, Holders>();
  readonly #reverse = new Map<Ip, string>();

  constructor(source: ZoneSource) {
    this.#next = source;
    this.#name = source.name;
  }

  set(source: ZoneSource): void {
    this.#next = source;
  }

  get isInternal(): boolean {
    return this.#next.isInternal;
  }

  get pools(): readonly Cidr[] {
    return this.#next.pools;
  }

  records(name: string): readonly AnswerRecord[] | undefined {
    this.#follow();
    const holders = this.#names.get(name);
    if (holders === undefined) return undefined;
    holders.records ??= [...holders.addresses.values()].flatMap((addresses) => addresses.map(addressRecord));
    return holders.records;
  }

  reverse(ip: Ip): string | undefined {
    this.#follow();
    return this.#reverse.get(ip);
  }

  #follow(): void {
    const { name, endpoints } = this.#next;
    if (endpoints === this.#read && name === this.#name) return;
    const before = name === this.#name ? this.#read : noEndpoints;
    if (name !== this.#name) {
      this.#names.clear();
      this.#reverse.clear();
      this.#name = name;
    }
    for (const [id, endpoint] of before) if (endpoints.get(id) !== endpoint) this.#remove(endpoint);
    for (const [id, endpoint] of endpoints) if (before.get(id) !== endpoint) this.#add(endpoint);
    this.#read = endpoints;
  }

  #namesOf({ name, names }: Endpoint): Set<string> {
    const plain = [name, ...names].filter((each) => each !== '').map((each) => each.toLowerCase());
    return new Set([...plain, ...plain.map((each) => `${each}.${this.#name.toLowerCase()}`)]);
  }

  #add(endpoint: Endpoint): void {
    for (const name of this.#namesOf(endpoint)) {
      const holders = this.#names.get(name) ?? { addresses: new Map<string, readonly Ip[]>() };
      holders.addresses.set(endpoint.id, endpoint.addresses);
      holders.records = undefined;
      this.#names.set(name, holders);
    }
    const shown = endpoint.name === '' ? endpoint.names[0] : endpoint.name;
    if (shown !== undefined) for (const ip of endpoint.addresses) this.#reverse.set(ip, `${shown}.${this.#name}`);
  }

  #remove(endpoint: Endpoint): void {
    for (const name of this.#namesOf(endpoint)) {
      const holders = this.#names.get(name);
      if (holders === undefined) continue;
      holders.addresses.delete(endpoint.id);
      holders.records = undefined;
      if (holders.addresses.size === 0) this.#names.delete(name);
    }
    for (const ip of endpoint.addresses) this.#reverse.delete(ip);
  }
}
