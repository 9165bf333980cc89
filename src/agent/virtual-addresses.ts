// Which host has an address that moves between hosts. The hosts settle it among themselves, so that it goes on moving while no
// controller answers: each tells the others, twice a second and whenever it changes, which addresses it could have, and of those
// whom a host hears the one has it that rendezvous hashing chooses, as for addresses of load balancers. A host that is not heard for
// three seconds is left out. As with VRRP (RFC 9568) two hosts that cannot hear each other may both have it; the cloud then goes by
// the one that told the wire last.
import { elected } from '#drivers/announce.ts';
import type { VirtualAddress } from '#drivers/virtual.ts';
import { type Ip, parseIp } from '#model/ip.ts';
import { isFault } from '#model/fault.ts';
import type { SealedTalk } from './sealed-talk.ts';

export interface VirtualAddressesOptions {
  readonly host: () => string;
  /** That this host could have, as things are now. */
  readonly able: () => readonly VirtualAddress[];
  /** Whether the kernel has it; asked once, at the beginning. */
  readonly held: () => ReadonlySet<Ip>;
  readonly talk: Pick<SealedTalk, 'seal' | 'open'>;
  /** Whether there is something to hear or to say. */
  readonly listen: (isOn: boolean) => void;
  readonly send: (to: Ip, text: string) => void;
  /** The host is to have others than before. */
  readonly changed: () => void;
  /** Another host may have had it meanwhile: the wire is to be told again. */
  readonly anew: (ip: Ip) => void;
  /** Milliseconds of a clock that nobody sets. */
  readonly now: () => number;
  readonly log: (fields: object, message: string) => void;
}

export const turnMs = 500;
/** So many turns may be lost, or an agent may be so long in restarting, before its addresses move. */
export const silenceMs = 3_000;
const mostHeard = 64;

interface Heard {
  readonly at: number;
  readonly able: ReadonlySet<Ip>;
}

export class VirtualAddresses {
  readonly #options: VirtualAddressesOptions;
  /** By host. */
  readonly #heard = new Map<string, Heard>();
  /** Since when this host could have it. */
  readonly #since = new Map<Ip, number>();
  /** Whom something was told at last, by host. */
  #told: ReadonlyMap<string, Ip> = new Map();
  #said = '';
  #isQuiet = true;
  #held: ReadonlySet<Ip> | undefined;
  #carried: ReadonlySet<Ip> = new Set();

  constructor(options: VirtualAddressesOptions) {
    this.#options = options;
  }

  /** Of those, the ones that this host is to have now. */
  carried(): ReadonlySet<Ip> {
    return this.#choose(this.#options.able());
  }

  #choose(addresses: readonly VirtualAddress[]): ReadonlySet<Ip> {
    const { log } = this.#options;
    this.#notice(addresses);
    const carried = new Set(addresses.filter((one) => this.#isMine(one)).map(({ ip }) => ip));
    for (const ip of carried) if (!this.#carried.has(ip)) log({ ip }, 'this host has the virtual address now');
    for (const ip of this.#carried) if (!carried.has(ip)) log({ ip }, 'this host has the virtual address no more');
    this.#carried = carried;
    return carried;
  }

  /** Every so often, and when facts have changed. */
  turn(): void {
    this.#turn(this.#options.able());
  }

  #turn(addresses: readonly VirtualAddress[]): void {
    const before = this.#carried;
    const isQuiet = addresses.length === 0;
    // Not before the others have been told that there is nothing more.
    this.#options.listen(!(isQuiet && this.#isQuiet));
    this.#isQuiet = isQuiet;
    this.#tell(addresses);
    if (isQuiet && before.size === 0) return;
    const now = this.#choose(addresses);
    if (now.size !== before.size || [...now].some((ip) => !before.has(ip))) this.#options.changed();
  }

  /** Tells only when it is news. */
  touch(): void {
    const addresses = this.#options.able();
    if (wordsOf(addresses) !== this.#said) this.#turn(addresses);
  }

  /** What came in; what those with whom this host shares addresses have not said themselves, and now, is nobody's word. */
  heard(from: Ip, text: string): void {
    const addresses = this.#options.able();
    const host = addresses.flatMap(({ others }) => [...others]).find(([, address]) => address === from)?.[0];
    const opened = host === undefined ? undefined : this.#options.talk.open(host, text);
    if (host === undefined || opened === undefined) return;
    if ('stale' in opened) {
      this.#send(host, from, { words: wordsOf(addresses), session: opened.stale });
      return;
    }
    const able = parsed(opened.words);
    if (able === undefined) return;
    const come = addresses.filter(({ ip, others }) => others.has(host) && able.has(ip) && !this.#hears(host, ip));
    const gone = addresses.some(({ ip }) => !able.has(ip) && this.#hears(host, ip));
    this.#heard.set(host, { at: this.#options.now(), able });
    if (come.length === 0 && !gone) return;
    this.#turn(addresses);
    for (const { ip } of come) if (this.#carried.has(ip)) this.#options.anew(ip);
  }

  #notice(addresses: readonly VirtualAddress[]): void {
    this.#held ??= this.#options.held();
    const ips = new Set(addresses.map(({ ip }) => ip));
    for (const ip of this.#since.keys()) if (!ips.has(ip)) this.#since.delete(ip);
    for (const ip of ips) if (!this.#since.has(ip)) this.#since.set(ip, this.#options.now());
  }

  /** Before all the others can have been heard a host begins only what nobody would take from it, and goes on with what it had. */
  #isMine({ ip, others }: VirtualAddress): boolean {
    const { now } = this.#options;
    const host = this.#options.host();
    const isHearing = now() - (this.#since.get(ip) ?? 0) < silenceMs && [...others.keys()].some((one) => !this.#isThere(one));
    const among = isHearing && this.#held?.has(ip) !== true ? [...others.keys()] : [...others.keys()].filter((one) => this.#hears(one, ip));
    return elected(ip, [host, ...among]) === host;
  }

  #isThere(host: string): boolean {
    const heard = this.#heard.get(host);
    return heard !== undefined && this.#options.now() - heard.at < silenceMs;
  }

  #hears(host: string, ip: Ip): boolean {
    return this.#isThere(host) && this.#heard.get(host)?.able.has(ip) === true;
  }

  /** Also those whom nothing concerns any more, once. */
  #tell(addresses: readonly VirtualAddress[]): void {
    const words = wordsOf(addresses);
    const to = new Map(addresses.flatMap(({ others }) => [...others]));
    for (const [host, ip] of new Map([...this.#told, ...to])) this.#send(host, ip, { words });
    this.#told = to;
    this.#said = words;
  }

  #send(host: string, ip: Ip, { words, session }: { readonly words: string; readonly session?: string }): void {
    const sealed = this.#options.talk.seal(host, words, session);
    if (sealed !== undefined) this.#options.send(ip, sealed);
  }
}

const wordsOf = (addresses: readonly VirtualAddress[]): string => addresses.map(({ ip }) => ip).join(' ');

/** undefined: it is not what hosts say. */
function parsed(text: string): ReadonlySet<Ip> | undefined {
  const words = text === '' ? [] : text.split(' ');
  if (words.length > mostHeard) return undefined;
  try {
    return new Set(words.map((word) => parseIp(word)));
  } catch (error) {
    if (!isFault(error, 'invalid')) throw error;
    return undefined;
  }
}
