// Tries the ways to other hosts, all the time: of every sort of packet that this host's networks send there one, and one of full size
// that must not be fragmented. Each turn tries a few hosts, those that were not reached last time among them, so that the cost does
// not grow with the cluster. When only large packets are lost, the largest that arrives is searched for; routes to that host then
// say so to containers.
import { randomBytes, randomInt } from 'node:crypto';
import type { Check, PeerChecks } from '#drivers/probes.ts';
import type { Probe } from '#kernel/probe-packet.ts';
import type { LostPath, NarrowPath, Paths, PathSort } from '#model/paths.ts';
import type { Snapshot } from '#model/resources.ts';
import { familyOf, type Ip } from '#model/ip.ts';

export interface ProberOptions {
  /** What is to be tried, as things are now. */
  readonly checks: () => readonly PeerChecks[];
  /** Whether that is all there is: what the cluster says has been heard. */
  readonly isWhole: () => boolean;
  /** Whether the host had a way to send it. */
  readonly send: (probe: Probe) => boolean;
  readonly wait: (ms: number) => Promise<void>;
  /** Milliseconds of a clock that nobody sets. */
  readonly now: () => number;
  /** The largest packet to some host is another one than before; or everything has been tried once. */
  readonly changed: () => void;
  readonly log: (fields: object, message: string) => void;
}

/** Hosts tried in one turn: of those that were reached and of those that were not. */
const mostPeers = 4;
const attempts = 3;
const answerMs = 1_000;
/** While the largest packet is searched for. */
const sizesAtOnce = 16;
/** Turns after which a way that is known to be narrow is measured anew. */
const turnsUntilSearch = 30;
/** Hosts told of in a report. */
const mostTold = 32;
const leastMtu = { 4: 576, 6: 1280 } as const;

interface Way {
  readonly host: string;
  check: Check;
  /** Since when it is lost; absent while it passes. */
  lostAt?: number;
}

const keyOf = (host: string, { protocol, port, from, to }: Check): string => `${host} ${protocol} ${port} ${from} ${to}`;

export class Prober {
  readonly #options: ProberOptions;
  readonly #waiting = new Map<string, () => void>();
  readonly #ways = new Map<string, Way>();
  readonly #narrow = new Map<string, NarrowPath>();
  readonly #tried = new Set<PathSort>();
  #hasTriedAll = false;
  #turns = 0;
  #last = '';

  constructor(options: ProberOptions) {
    this.#options = options;
  }

  /** Whether every sort of packet that this host's networks send has been tried since it began, whatever has become of it. */
  get hasTriedAll(): boolean {
    return this.#hasTriedAll;
  }

  /** An answer came in. */
  answered(nonce: string): void {
    this.#waiting.get(nonce)?.();
  }

  /** Hosts with the MTU by which they are reached; the same snapshot where there is none to tell of. */
  narrowed(snapshot: Snapshot): Snapshot {
    if (this.#narrow.size === 0) return snapshot;
    const hosts = new Map(snapshot.hosts);
    for (const { host, mtu } of this.#narrow.values()) {
      const found = hosts.get(host);
      if (found !== undefined) {
        hosts.set(host, { ...found, underlay: found.underlay.map((one) => ({ ...one, mtu: Math.min(one.mtu, mtu) })) });
      }
    }
    return { ...snapshot, hosts };
  }

  paths(): Paths {
    const now = this.#options.now();
    const ways = [...this.#ways.values()];
    const passes = new Set(ways.filter(({ lostAt }) => lostAt === undefined).map(({ check }) => check.sort));
    const lost = ways.flatMap(({ host, check, lostAt }): LostPath[] => {
      if (lostAt === undefined) return [];
      const { sort, what, networks } = check;
      return [
        { host, sort, what, networks: [...networks].slice(0, 16), seconds: Math.floor((now - lostAt) / 1000), isAlone: !passes.has(sort) },
      ];
    });
    const passing = ways.length - lost.length;
    return { tried: ways.length, passing, lost: lost.slice(0, mostTold), narrow: [...this.#narrow.values()].slice(0, mostTold) };
  }

  /** One turn; they are not to overlap. */
  async turn(): Promise<void> {
    const peers = this.#options.checks();
    this.#forget(peers);
    this.#turns++;
    const isWhole = this.#options.isWhole();
    await Promise.all(this.#chosen(peers).map((peer) => this.#tryPeer(peer)));
    if (this.#hasTriedAll || !isWhole) return;
    if (peers.every(({ checks }) => checks.every(({ sort }) => this.#tried.has(sort)))) this.giveUp();
  }

  /** Nothing more is to be waited for: all has been tried, or nothing can be. */
  giveUp(): void {
    if (this.#hasTriedAll) return;
    this.#hasTriedAll = true;
    this.#options.changed();
  }

  #chosen(peers: readonly PeerChecks[]): PeerChecks[] {
    const isBad = ({ host, checks }: PeerChecks): boolean =>
      checks.some((check) => this.#ways.get(keyOf(host, check))?.lostAt !== undefined);
    const bad = peers.filter(isBad);
    return [
      ...this.#next(bad, mostPeers),
      ...this.#next(
        peers.filter((peer) => !bad.includes(peer)),
        mostPeers,
      ),
    ];
  }

  /** The next ones in a round, by the number of the turn. */
  #next(peers: readonly PeerChecks[], count: number): readonly PeerChecks[] {
    if (peers.length <= count) return peers;
    const start = (this.#turns * count) % peers.length;
    return [...peers.slice(start), ...peers.slice(0, start)].slice(0, count);
  }

  /** Ways that nothing is sent by any more. */
  #forget(peers: readonly PeerChecks[]): void {
    const wanted = new Map(peers.flatMap(({ host, checks }) => checks.map((check) => [keyOf(host, check), check] as const)));
    for (const [key, way] of this.#ways) {
      const check = wanted.get(key);
      if (check === undefined) this.#ways.delete(key);
      else way.check = check;
    }
    const hosts = new Set(peers.map(({ host }) => host));
    for (const host of this.#narrow.keys()) if (!hosts.has(host)) this.#widen(host);
  }

  async #tryPeer({ host, mtu, checks }: PeerChecks): Promise<void> {
    const startedAt = this.#options.now();
    const results = await Promise.all(checks.map(async (check) => ({ check, passes: await this.#passes(check) })));
    for (const { check, passes } of results) {
      this.#tried.add(check.sort);
      if (passes !== undefined) this.#note({ host, check, passes, startedAt });
    }
    const way = results.find(({ check, passes }) => passes === true && check.sort !== 'session');
    if (way !== undefined) await this.#measure(host, way.check, mtu);
  }

  #note({ host, check, passes, startedAt }: { host: string; check: Check; passes: boolean; startedAt: number }): void {
    const key = keyOf(host, check);
    const before = this.#ways.get(key);
    const lostAt = passes ? undefined : (before?.lostAt ?? startedAt);
    this.#ways.set(key, { host, check, ...(lostAt === undefined ? {} : { lostAt }) });
    if ((before?.lostAt === undefined) === passes) return;
    const { log } = this.#options;
    if (!passes) log({ host, what: check.what }, 'packets to another host are lost');
    else log({ host, what: check.what }, 'packets reach the other host again');
  }

  async #measure(host: string, check: Check, full: number): Promise<void> {
    if (await this.#passes(check, full)) {
      this.#widen(host);
      return;
    }
    const known = this.#narrow.get(host);
    const isDue = this.#turns % turnsUntilSearch === 0;
    if (known !== undefined && known.usual === full && !isDue && (await this.#passes(check, known.mtu))) return;
    // A link that is overloaded loses small ones, too.
    const mtu = await this.#largest(check, full);
    if (mtu === undefined || mtu === known?.mtu) return;
    this.#narrow.set(host, { host, mtu, usual: full });
    this.#options.log({ host, mtu, usual: full }, 'large packets to another host are lost');
    this.#tell();
  }

  #widen(host: string): void {
    if (!this.#narrow.delete(host)) return;
    this.#options.log({ host }, 'packets of full size reach the other host again');
    this.#tell();
  }

  #tell(): void {
    const text = JSON.stringify([...this.#narrow.values()].toSorted((a, b) => (a.host < b.host ? -1 : 1)));
    if (text === this.#last) return;
    this.#last = text;
    this.#options.changed();
  }

  /** Bytes; undefined when even the smallest that every link must take does not pass: then it is no matter of size. */
  async #largest(check: Check, full: number): Promise<number | undefined> {
    let low: number = leastMtu[familyOf(check.to)];
    if ((await this.#passes(check, low)) !== true) return undefined;
    for (let high = full; high - low > 1;) {
      const step = Math.ceil((high - low) / sizesAtOnce);
      const sizes = Array.from({ length: sizesAtOnce }, (_, index) => low + (index + 1) * step).filter((size) => size < high);
      const passing = await Promise.all(sizes.map(async (size) => ((await this.#passes(check, size)) === true ? size : low)));
      const largest = Math.max(low, ...passing);
      high = Math.min(high, ...sizes.filter((size) => size > largest));
      low = largest;
    }
    return low;
  }

  /** Whether one of a few was answered; undefined when this host has no way to send it, so that nothing is known. */
  async #passes(check: Check, size?: number): Promise<boolean | undefined> {
    for (let attempt = 0; attempt < attempts; attempt++) {
      const answer = await this.#ask(check, size);
      if (answer !== false) return answer;
    }
    return false;
  }

  async #ask({ protocol, port, from, to }: Check, size: number | undefined): Promise<boolean | undefined> {
    const nonce = randomBytes(8).toString('hex');
    const key = protocol === 'tcp' ? nonce.slice(0, 8) : nonce;
    const heard = new Promise<boolean>((resolve) => this.#waiting.set(key, () => resolve(true)));
    try {
      const probe = { protocol, port, from, to, sourcePort: randomInt(49152, 65536), nonce, ...(size === undefined ? {} : { size }) };
      if (!this.#options.send(probe)) return undefined;
      return await Promise.race([heard, this.#options.wait(answerMs).then(() => false)]);
    } finally {
      this.#waiting.delete(key);
    }
  }
}

/** Whether a packet from `from` to `to` can only be a probe between hosts: theirs are their underlay's addresses and their blocks' first ones. */
export function isBetweenHosts(snapshot: Snapshot, self: string, from: Ip, to: Ip): boolean {
  const has = (isWanted: (host: string) => boolean, ip: Ip): boolean =>
    [...snapshot.hosts.values()].some(({ id, underlay }) => isWanted(id) && underlay.some((one) => one.ip === ip)) ||
    [...snapshot.blocks.values()].some(({ host, cidr }) => isWanted(host) && cidr.startsWith(`${ip}/`));
  return has((host) => host === self, to) && has((host) => host !== self, from);
}
