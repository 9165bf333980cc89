// The host's edge around published ports and services: packet filters of others that would stop our links, and connections
// that lead to an endpoint that has gone. Only those are cut, entry by entry; everything else on the host keeps flowing.
import type { Desired, NftElement } from '#model/desired.ts';
import { changedPart } from '#model/diff.ts';
import { familyOf, type Ip, parseIp } from '#model/ip.ts';
import { flushConntrack, flushConntrackAside, type ConntrackSelection } from '#kernel/conntrack.ts';
import { commandOf, ensureForwarding, hasSilentTables, removeForwarding } from '#kernel/forwarding.ts';
import { forgetNoted } from '#kernel/nft.ts';
import type { Sockets } from '#kernel/sockets.ts';
import { EndedConnections } from './ended-connections.ts';
import { linkAddresses } from './link-addresses.ts';
import type { Outcome } from './reconcile.ts';
import { forgetShort, isShortPair } from './short-connections.ts';
import { type Fronts, frontsOf, isNotedStale, isOfFronts, mayNoteStale, staleConnections } from './stale-connections.ts';

export interface OpeningsOptions {
  readonly sockets: Sockets;
  readonly log: (fields: object, message: string) => void;
  readonly now: () => number;
  /** How many changes of what others' packet filters say of forwarding the kernel has told of; without, it may be any at any time. */
  readonly changes?: () => number | undefined;
}

const checkMs = 5_000;
/** The same where the kernel has told of no change. */
const anywayMs = 60_000;

/** Where published ports lead, by a text that says it all. Keys are `[host ip .] protocol . port`, values `ip . port`. */
function targetsOf(desired: Desired): Map<string, ConntrackSelection> {
  const targets = new Map<string, ConntrackSelection>();
  for (const { set, key, value } of desired.element) {
    if (value === undefined || !set.startsWith('published')) continue;
    const [protocol] = key.split(' . ').slice(-2);
    const [ip, port] = value.split(' . ');
    if (ip === undefined || (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp')) continue;
    targets.set(`${protocol} ${value}`, { protocol, replySource: parseIp(ip), replySourcePort: Number(port) });
  }
  return targets;
}

/**
 * What clients began to send to a port before it led where it leads now, by protocols that know no end of a connection: it would go on
 * to where it went then, or to nobody, for as long as they send.
 */
function earlierAt(ports: readonly NftElement[]): ConntrackSelection[] {
  let known: readonly Ip[] | undefined;
  return ports.flatMap(({ set, key, value }) => {
    const [port, protocol, hostIp] = key.split(' . ').toReversed();
    if (value === undefined || !set.startsWith('published') || (protocol !== 'udp' && protocol !== 'sctp')) return [];
    const family = set.endsWith('6') ? 6 : 4;
    const own =
      hostIp === undefined
        ? (known ??= [...new Set(linkAddresses().map(({ ip }) => ip))]).filter((ip) => familyOf(ip) === family)
        : [parseIp(hostIp)];
    return own.map((destination) => ({ protocol, destination, destinationPort: Number(port), except: new Set([value]) }));
  });
}

const comparison = {
  key: ({ set, key }: NftElement): string => `${set} ${key}`,
  same: (a: NftElement, b: NftElement): boolean => a.value === b.value && a.values?.join() === b.values?.join(),
};

const forgetting = 'forget connections of endpoints that have gone';

export class Openings {
  readonly #options: OpeningsOptions;
  #targets = new Map<string, ConntrackSelection>();
  #fronts: Fronts | undefined;
  #checkedAt = -anywayMs;
  /** As they were at the last check. */
  #changes: number | undefined;
  #isOpen = false;
  #elements: readonly NftElement[] = [];
  readonly #ended = new EndedConnections({
    forget: (selections) => this.#guarded(forgetting, () => this.#cut(selections)),
    forgetAside: (selections) =>
      flushConntrackAside(selections).then(
        (count) => this.#tell(count),
        (error: unknown) => this.#failed(forgetting, error),
      ),
  });
  /** The kernel refused to cut what had to be. */
  #isOwed = false;

  constructor(options: OpeningsOptions) {
    this.#options = options;
  }

  /** After every run of the loop. `mended`: rules were in disorder, so connections may have begun that nothing has changed for since. */
  applied(desired: Desired, { mended }: Pick<Outcome, 'mended'> = { mended: false }): void {
    const part = changedPart(desired.element, this.#elements, comparison);
    this.#elements = desired.element;
    this.#ended.changed(part.before, part.wanted);
    const fronts = this.#fronts;
    const isConcerned =
      fronts === undefined || [...part.wanted, ...part.before].some((one) => one.set.startsWith('published') || isOfFronts(one, fronts));
    if (mended || this.#isOwed || isConcerned) this.#follow(desired, { mended, came: this.#isOwed ? desired.element : part.wanted });
    const short = part.wanted.filter(isShortPair);
    if (short.length > 0) this.#guarded('forget connections that take short cuts', () => forgetShort(short));
    const wasOpen = this.#isOpen;
    this.#isOpen = desired.table.length > 0;
    if (!this.#isOpen && wasOpen) this.#guarded('take away forwarding rules', removeForwarding);
    if (!this.#isOpen || wasOpen) return;
    this.#checkedAt = -anywayMs;
    this.check();
  }

  /** What led to what has gone ends; `came`: elements that are new, or others. */
  #follow(desired: Desired, { mended, came }: { readonly mended: boolean; readonly came: readonly NftElement[] }): void {
    const targets = targetsOf(desired);
    const gone = [...this.#targets].filter(([text]) => !targets.has(text)).map(([, target]) => target);
    this.#targets = targets;
    const [before, fronts] = [this.#fronts, frontsOf(desired)];
    this.#fronts = fronts;
    const stale = [...staleConnections(before, fronts), ...(mended || this.#isOwed ? staleConnections(undefined, fronts) : [])];
    this.#isOwed = true;
    this.#guarded('cut connections to what has gone', () => {
      this.#cut([...gone, ...stale, ...earlierAt(mended ? desired.element : came)]);
      this.#isOwed = false;
    });
    if (mayNoteStale(before, fronts))
      this.#guarded('forget who was led to what has gone', () => forgetNoted((noted) => isNotedStale(fronts, noted)));
  }

  /**
   * Somebody else's firewall may have been made anew (dockerd does so when it starts). Called now and then, and not for every
   * container that starts, which would wait for two programs; at most every few seconds, and only when there is news.
   */
  check(): void {
    const { now, log, changes } = this.#options;
    const told = changes?.();
    const isNews = told === undefined || told !== this.#changes || hasSilentTables();
    if (!this.#isOpen || now() - this.#checkedAt < (isNews ? checkMs : anywayMs)) return;
    this.#checkedAt = now();
    // Taken before the look, so that a change during it is looked at again; our own rules are one.
    this.#changes = told;
    this.#guarded('let our links through the firewall', () => {
      const added = ensureForwarding();
      if (added.length > 0) log({ rules: added.map(commandOf) }, 'let our links through the firewall');
    });
  }

  #cut(gone: readonly ConntrackSelection[]): void {
    if (gone.length === 0) return;
    this.#tell(flushConntrack(this.#options.sockets, '', gone));
  }

  #tell(count: number): void {
    if (count > 0) this.#options.log({ count }, 'cut connections to what has gone');
  }

  /** These are beside the plan: a failure is told and tried again, it stops nothing. */
  #guarded(what: string, fn: () => void): void {
    try {
      fn();
    } catch (error) {
      this.#failed(what, error);
    }
  }

  #failed(what: string, error: unknown): void {
    this.#options.log({ error: error instanceof Error ? error.message : error }, `cannot ${what}`);
  }
}
