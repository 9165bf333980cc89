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

const noEndpoints: ReadonlyMap<string, Endpoint> = new Map();

/**
 * A zone that follows its source: only endpoints that differ from the last time are read, and only when a question comes.
 * Keeps no copies of what the endpoints hold, and no names with the network's behind them: a network may have thousands.
 */
export class ZoneIndex implements Zone {
  #source: ZoneSource;
  #read: ReadonlyMap<string, Endpoint> = noEndpoints;
  readonly #holders = new Map<string, Endpoint[]>();
  readonly #reverse = new Map<Ip, Endpoint>();
  /** What was answered since anything changed. */
  readonly #records = new Map<string, readonly AnswerRecord[]>();

  constructor(source: ZoneSource) {
    this.#source = source;
  }

  set(source: ZoneSource): void {
    if (source.name !== this.#source.name) this.#records.clear();
    this.#source = source;
  }

  get isInternal(): boolean {
    return this.#source.isInternal;
  }

  get pools(): readonly Cidr[] {
    return this.#source.pools;
  }

  records(name: string): readonly AnswerRecord[] | undefined {
    this.#follow();
    const known = this.#records.get(name);
    if (known !== undefined) return known;
    const suffix = `.${this.#source.name.toLowerCase()}`;
    const long = name.endsWith(suffix) ? (this.#holders.get(name.slice(0, -suffix.length)) ?? []) : [];
    const holders = new Set([...(this.#holders.get(name) ?? []), ...long]);
    if (holders.size === 0) return undefined;
    const records = [...holders].flatMap(({ addresses }) => addresses.map(addressRecord));
    this.#records.set(name, records);
    return records;
  }

  reverse(ip: Ip): string | undefined {
    this.#follow();
    const endpoint = this.#reverse.get(ip);
    const shown = endpoint?.name === '' ? endpoint.names[0] : endpoint?.name;
    return shown === undefined ? undefined : `${shown}.${this.#source.name}`;
  }

  #follow(): void {
    const { endpoints } = this.#source;
    const before = this.#read;
    if (endpoints === before) return;
    for (const [id, endpoint] of before) if (endpoints.get(id) !== endpoint) this.#remove(endpoint);
    for (const [id, endpoint] of endpoints) if (before.get(id) !== endpoint) this.#add(endpoint);
    this.#records.clear();
    this.#read = endpoints;
  }

  #add(endpoint: Endpoint): void {
    for (const name of namesOf(endpoint)) {
      const holders = this.#holders.get(name);
      if (holders === undefined) this.#holders.set(name, [endpoint]);
      else holders.push(endpoint);
    }
    for (const ip of endpoint.addresses) this.#reverse.set(ip, endpoint);
  }

  #remove(endpoint: Endpoint): void {
    for (const name of namesOf(endpoint)) {
      const others = (this.#holders.get(name) ?? []).filter((holder) => holder !== endpoint);
      if (others.length === 0) this.#holders.delete(name);
      else this.#holders.set(name, others);
    }
    for (const ip of endpoint.addresses) this.#reverse.delete(ip);
  }
}

/** In lower case, each once, without the network's. */
const namesOf = ({ name, names }: Endpoint): Set<string> =>
  new Set([name, ...names].filter((each) => each !== '').map((each) => each.toLowerCase()));
