// From desired state to the kernel: which changes, in which order, and what is remembered. The kernel is listed once per
// namespace and then only again where an event says that somebody else has been there; in between the agent knows what it
// wrote. Rules before links, so that no packet is ever let in ahead of its guard; removal in the opposite order. What packets may be
// on their way by goes after the new has come.
import { changedPart, type Difference, diff } from '#model/diff.ts';
import type { Desired, KindName, Netns } from '#model/desired.ts';
import type { Fault } from '#model/fault.ts';
import { tableName } from '#model/numbers.ts';
import type { Kinds, Together } from '#kernel/kind.ts';
import {
  type AnyKind,
  type Changes,
  elementsAside,
  type Exchange,
  exchange,
  goneWith,
  type Item,
  netnsOf,
  placeOf,
  tableOf,
  withRenewed,
} from './changes.ts';
import { followersOf, goesAlong, LeftTunnels, linkOf } from './ways-left.ts';
import { Wanted } from './wanted.ts';

/** Order of creation. Settings for all and new links precede links; those of one link, and of connection tracking, follow it (#inOrder). */
const order = [
  'netns',
  // Before packets are marked for them.
  'rule',
  'table',
  'link',
  'sysctl',
  'wireguard',
  'addr',
  // A neighbour that has changed its MAC leads to the new one's entry.
  'fdb',
  'neigh',
  'route',
  'element',
  // Packets for an address come as soon as it is answered for.
  'proxy',
  'trunk',
  'shaper',
  'fast',
  'bird',
] as const satisfies readonly KindName[];

interface Refused {
  readonly kind: KindName;
  readonly what: string;
  readonly fault: Fault;
}

export interface Outcome {
  readonly desired: number;
  /** Objects added, changed or removed by this run. */
  readonly changed: number;
  /** What the kernel refused; those items stay pending and are tried again by the next run. */
  readonly failing: readonly Refused[];
  /** Links of ours that were made again although their endpoint had been placed: their far end needs its addresses back. */
  readonly remadeLinks: readonly Desired['link'][number][];
  /** Tunnels stay for as long as this for what others still send by them: then there is more to do. Absent: none. */
  readonly lingersMs?: number | undefined;
  /** Tables or elements were not as they had been wanted before this run, or the host's table was loaded anew: packets may have met that. */
  readonly mended: boolean;
}

/** What hangs on links. */
const onLinks: readonly KindName[] = ['sysctl', 'wireguard', 'addr', 'neigh', 'fdb', 'route', 'proxy', 'shaper', 'fast'];

export class Reconciler {
  readonly #kinds: Readonly<Record<KindName, AnyKind>>;
  readonly #together: <T>(fn: () => T) => T;
  /** What is in the kernel as far as we know, by kind and key; a namespace not in #known has to be listed first. */
  readonly #actual = new Map<KindName, Map<string, Item>>(order.map((kind) => [kind, new Map()]));
  readonly #known = new Set<Netns>();
  /** Namespaces that were known, with kinds that may say for themselves whether they still are (Kind.isTold). */
  readonly #unsure = new Set<Netns>();
  /** What this process has wanted at some time: only that may be removed before every source is in sync. */
  readonly #wanted: ReadonlyMap<KindName, Wanted<Item>>;
  /** What was wanted by the last run, of kinds of which exactly that is in the kernel as far as we know. */
  readonly #inStep = new Map<KindName, readonly Item[]>();
  /** The last run was refused some of the rules. */
  #isDisordered = false;
  readonly #leftTunnels: LeftTunnels;

  /** `lingerMs`: how long tunnels stay that the host has gone over from. */
  constructor(kinds: Kinds & Together, { lingerMs = 0 }: { readonly lingerMs?: number } = {}) {
    this.#leftTunnels = new LeftTunnels(lingerMs);
    this.#together = kinds.together ?? ((fn) => fn());
    // One table for the loops below; each kind is only ever given items of its own.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the record's key ties kind and item together
    this.#kinds = kinds as unknown as Readonly<Record<KindName, AnyKind>>;
    this.#wanted = new Map(order.map((kind) => [kind, new Wanted(this.#kinds[kind].key)]));
  }

  /** How many objects are remembered, as found or as wanted: no more than the kernel holds or should hold. */
  get remembered(): number {
    return order.reduce((sum, kind) => sum + this.#actualOf(kind).size + this.#wantedOf(kind).size, 0);
  }

  /** Somebody else may have changed `netns` (absent: anything): what cannot say that it is as before is listed again before the next run. */
  suspect(netns?: Netns): void {
    for (const one of netns === undefined ? [...this.#known] : [netns]) if (this.#known.delete(one)) this.#unsure.add(one);
  }

  /** What is remembered may be wrong: everything is listed again before the next run, whatever is said of it. */
  forget(): void {
    this.#known.clear();
    this.#unsure.clear();
  }

  /**
   * Brings the kernel to `desired`. With `sweep` false, objects that this process never wanted are left alone. Never
   * throws for what the kernel refuses: that is in the outcome. A kernel that cannot be listed throws.
   */
  apply(desired: Desired, sweep: boolean): Outcome {
    this.#learn(desired);
    return this.#together(() => this.#write(desired, sweep));
  }

  #write(desired: Desired, sweep: boolean): Outcome {
    const changes = this.#leftTunnels.withoutThem(withRenewed(order.map((kind) => this.#changesOf(kind, desired, sweep))));
    const { lingersMs } = this.#leftTunnels;
    const mended = this.#isDisordered || changes.some(isMending);
    const failing: Refused[] = [];
    const remadeLinks: Desired['link'][number][] = [];
    const aside = elementsAside(changes);
    const late = new Set([...followersOf(changes), ...aside.late, ...aside.exchanged, ...aside.reloaded]);
    const carried = new Set<Item>();
    this.#takeAway(changes, (item) => !late.has(item), failing);
    const steps = this.#inOrder(changes);
    let changed = changes.reduce((sum, { remove }) => sum + remove.length, 0);
    for (let next = steps.shift(); next !== undefined; next = steps.shift()) {
      const come = next.add.filter((item) => !carried.has(item));
      const gone = goneWith(come, next.kind, aside);
      this.#change(next, { gone, come }, failing);
      for (const item of [...gone, ...this.#rememberCarried(next, aside.reloaded)]) carried.add(item);
      changed += next.add.length;
      if (next.kind !== 'link') continue;
      for (const link of next.add) if (!next.changed.has(link) && isPlaced(link)) remadeLinks.push(link);
      if (next.disturbed.size === 0) continue;
      for (const netns of next.disturbed) for (const kind of onLinks) this.#list(kind, netns);
      steps.splice(0, steps.length, ...this.#afterLinks(order.map((kind) => this.#changesOf(kind, desired, sweep))));
    }
    this.#takeAway(changes, (item) => late.has(item) && !carried.has(item), failing);
    this.#isDisordered = failing.some(({ kind }) => isOfRules(kind));
    for (const kind of order) if (sweep && desired[kind].length === this.#actualOf(kind).size) this.#inStep.set(kind, desired[kind]);
    for (const { kind } of failing) this.#inStep.delete(kind);
    return {
      desired: order.reduce((sum, kind) => sum + desired[kind].length, 0),
      changed: changed - failing.length,
      failing,
      remadeLinks,
      lingersMs,
      mended,
    };
  }

  #takeAway(changes: readonly Changes[], isMeant: (item: Item) => boolean, failing: Refused[]): void {
    const those = changes.map((change) => ({ change, items: change.remove.filter(isMeant) }));
    const links = new Map(
      those.flatMap(({ change, items }) => (change.kind === 'link' ? items.map((item): [string, Item] => [placeOf(item), item]) : [])),
    );
    for (const { change, items } of those.toReversed())
      this.#change(change, { gone: items.filter((item) => !goesAlong(change.kind, item, links)) }, failing);
    // With a link that stays they do too.
    const isLeft = (item: Item): boolean => this.#actualOf('link').has(linkOf(item));
    for (const { change, items } of those)
      this.#remember(
        change.kind,
        'remove',
        items.filter((item) => goesAlong(change.kind, item, links) && !isLeft(item)),
      );
  }

  /** What of it is not refused is remembered. */
  #change({ kind, changed }: Changes, { gone = [], come = [] }: Exchange, failing: Refused[]): void {
    const failures = exchange(this.#kinds[kind], { gone, come }, changed);
    if (failing.some((before) => before.kind === kind)) this.#forgive({ kind, come }, failing);
    const failed = new Set(failures.map(({ item }) => item));
    if (kind === 'link') this.#doubt([...failed]);
    for (const { item, fault } of failures) failing.push({ kind, what: this.#kinds[kind].key(item), fault });
    for (const [verb, items] of [['remove', gone] as const, ['add', come] as const])
      this.#remember(
        kind,
        verb,
        items.filter((item) => !failed.has(item)),
      );
  }

  /** What comes a second time counts as it came then. */
  #forgive({ kind, come }: { readonly kind: KindName; readonly come: readonly Item[] }, failing: Refused[]): void {
    const again = new Set(come.map((item) => this.#kinds[kind].key(item)));
    failing.splice(0, failing.length, ...failing.filter((before) => before.kind !== kind || !again.has(before.what)));
  }

  /** A link takes several requests: one that was refused may be there in part. */
  #doubt(links: readonly Item[]): void {
    for (const link of links) this.suspect(netnsOf(link));
  }

  /** Lists the host, every namespace of ours that exists and every one that is wanted, unless it is known. */
  #learn(desired: Desired): void {
    const kinds = this.#kinds;
    if (!this.#known.has('')) {
      const found = new Map(kinds.netns.list('').map((item) => [kinds.netns.key(item), item]));
      this.#actual.set('netns', found);
      this.#inStep.delete('netns');
      for (const kind of order) if (kind !== 'netns') this.#relist(kind, '', true);
      this.#known.add('');
      this.#unsure.delete('');
    }
    const names = [...new Set([...this.#actualOf('netns').values(), ...desired.netns].map(netnsOf))].filter(
      (netns) => !this.#known.has(netns),
    );
    if (names.length === 0) return;
    const existing = new Set(kinds.netns.list('').map(netnsOf));
    for (const netns of names) {
      const exists = existing.has(netns);
      if (!exists && this.#actualOf('netns').delete(netns)) this.#inStep.delete('netns');
      for (const kind of order) if (kind !== 'netns') this.#relist(kind, netns, exists);
      this.#known.add(netns);
      this.#unsure.delete(netns);
    }
  }

  #relist(kind: KindName, netns: Netns, exists: boolean): void {
    if (exists && this.#unsure.has(netns) && this.#kinds[kind].isTold?.(netns) === true) return;
    this.#list(kind, netns, exists);
  }

  #list(kind: KindName, netns: Netns, exists = true): void {
    const actual = this.#actualOf(kind);
    this.#inStep.delete(kind);
    for (const [key, item] of actual) if (netnsOf(item) === netns) actual.delete(key);
    if (!exists) return;
    for (const item of this.#kinds[kind].list(netns)) actual.set(this.#kinds[kind].key(item), item);
  }

  #actualOf(kind: KindName): Map<string, Item> {
    const actual = this.#actual.get(kind);
    if (actual === undefined) throw new TypeError(`Broken invariant: no kind ${kind}`);
    return actual;
  }

  #wantedOf(kind: KindName): Wanted<Item> {
    const wanted = this.#wanted.get(kind);
    if (wanted === undefined) throw new TypeError(`Broken invariant: no kind ${kind}`);
    return wanted;
  }

  /** Of what is in step only the part that is wanted otherwise is looked at: there are hosts with a hundred thousand elements. */
  #compare(kind: KindName, wanted: readonly Item[]): Difference<Item> {
    const comparison = this.#kinds[kind];
    const before = this.#inStep.get(kind);
    if (before !== undefined) {
      const part = changedPart(wanted, before, comparison);
      const difference = diff(part.wanted, part.before, comparison);
      const actual = this.#actualOf(kind);
      if (!difference.add.some((item) => actual.has(comparison.key(item)))) return difference;
    }
    this.#inStep.delete(kind);
    return diff(wanted, [...this.#actualOf(kind).values()], comparison);
  }

  #changesOf(kind: KindName, desired: Desired, sweep: boolean): Changes {
    const wanted: readonly Item[] = desired[kind];
    const ever = this.#wantedOf(kind);
    const difference = this.#compare(kind, wanted);
    // Of what is in step, or is all there, nothing that was wanted is missing.
    const mayBeLoss = !this.#inStep.has(kind) && difference.add.length > 0 && !ever.isWithin(this.#actualOf(kind));
    const isLoss = mayBeLoss && difference.add.some((item) => ever.has(item));
    // Once everything may be removed, what was wanted long ago no longer matters.
    if (sweep) ever.replace(wanted);
    else ever.add(wanted);
    if (difference.add.length + difference.change.length + difference.remove.length > 0) this.#inStep.delete(kind);
    const remove = sweep ? difference.remove : difference.remove.filter((item) => ever.has(item));
    const disturbing = kind === 'link' ? difference.change.filter(({ wanted: item, found }) => !isRenaming(item, found)) : [];
    const halves = kind === 'link' ? otherHalves(difference.add, wanted) : [];
    const changed = new Map<Item, Item | undefined>(difference.change.map(({ wanted: item, found }) => [item, found]));
    for (const item of halves) if (!changed.has(item)) changed.set(item, undefined);
    return {
      kind,
      add: changed.size === 0 ? difference.add : [...changed.keys(), ...difference.add],
      remove,
      replaced: difference.change.map(({ found }) => found),
      changed,
      isLoss,
      disturbed: new Set([...disturbing.map(({ wanted: item }) => item), ...halves].map(netnsOf)),
    };
  }

  /** Additions, with settings in their two places, and after routes what waits for them. */
  #inOrder(changes: readonly Changes[]): Changes[] {
    return changes.flatMap((change) => {
      if (change.kind === 'route') return this.#withFollowers(change, changes);
      if (change.kind === 'wireguard') return [this.#only(change, false)];
      if (change.kind !== 'netns' && change.kind !== 'sysctl') return [change];
      const settings = changes.find(({ kind }) => kind === 'sysctl') ?? change;
      const those = (isLate: boolean): Changes => ({ ...settings, add: settings.add.filter((item) => isLateSetting(item) === isLate) });
      return change.kind === 'netns' ? [change, those(false)] : [those(true)];
    });
  }

  #only(change: Changes, isAfterRoutes: boolean): Changes {
    const kind = this.#kinds[change.kind];
    if (kind.isAfterRoutes === undefined) return isAfterRoutes ? { ...change, add: [] } : change;
    return { ...change, add: change.add.filter((item) => kind.isAfterRoutes?.(item) === isAfterRoutes) };
  }

  /** What was in the way of a route may have gone with what others had in its place. */
  #withFollowers(routes: Changes, changes: readonly Changes[]): Changes[] {
    const followers = changes.map((change) => this.#only(change, true)).filter(({ add }) => add.length > 0);
    return followers.length === 0 ? [routes] : [routes, ...followers, routes];
  }

  #afterLinks(changes: readonly Changes[]): Changes[] {
    const steps = this.#inOrder(changes);
    return steps.slice(steps.findIndex(({ kind }) => kind === 'link') + 1);
  }

  #remember(kind: KindName, verb: 'add' | 'remove', items: readonly Item[]): void {
    const actual = this.#actualOf(kind);
    for (const item of items) {
      const key = this.#kinds[kind].key(item);
      if (verb === 'add') actual.set(key, item);
      else actual.delete(key);
      if (kind === 'netns' && verb === 'remove') this.#dropNetns(netnsOf(item));
    }
  }

  /** Elements that came with tables, or went with those that were there before them. */
  #rememberCarried({ kind, add }: Changes, reloaded: readonly Item[]): readonly Item[] {
    const whole = add.filter((item) => this.#kinds[kind].tookAlong?.(item) === true);
    const places = new Set(whole.map(placeOf));
    const come = whole.flatMap((item) => ('renewed' in item ? (item.renewed ?? []) : []));
    const gone = reloaded.filter((item) => places.has(tableOf(item)));
    this.#remember('element', 'remove', gone);
    this.#remember('element', 'add', come);
    return [...gone, ...come];
  }

  /** The kernel has thrown away what was inside; so do we. */
  #dropNetns(netns: Netns): void {
    for (const kind of order) {
      const actual = this.#actualOf(kind);
      for (const [key, item] of actual) if (netnsOf(item) === netns) actual.delete(key);
    }
    this.#known.delete(netns);
  }
}

const isOfRules = (kind: KindName): boolean => kind === 'table' || kind === 'element';
const isHostTable = (item: Item): boolean => 'name' in item && item.name === tableName && netnsOf(item) === '';
const isMending = ({ kind, add, isLoss }: Changes): boolean => (kind === 'table' && add.some(isHostTable)) || (isOfRules(kind) && isLoss);

/**
 * Of pairs of which one end is missing, the ends that seem to be there. A pair ends as one, if not in one moment: the kernel takes a
 * namespace apart after it has gone. So such an end is about to go, or has come anew with the other since it was listed.
 */
function otherHalves(missing: readonly Item[], wanted: readonly Item[]): Item[] {
  const places = new Set(missing.flatMap((item) => ('peer' in item ? [`${item.peer.netns} ${item.peer.name}`] : [])));
  return places.size === 0 ? [] : wanted.filter((item) => places.has(placeOf(item)) && !missing.includes(item));
}

/** Of a link, or of what comes with rules. */
const isLateSetting = (item: Item): boolean => 'path' in item && (item.path.includes('/conf/cw') || item.path.startsWith('net/netfilter/'));
/** A link of ours whose far end is in a container. */
const isPlaced = (item: Item): item is Desired['link'][number] =>
  'type' in item && item.type === 'veth' && 'peer' in item && item.peer.netns.startsWith('/');

/** Whether nothing but the alias differs. */
function isRenaming(wanted: Item, found: Item): boolean {
  const before = new Map<string, unknown>(Object.entries(found));
  if (before.get('up') === false) return false;
  return Object.entries(wanted).every(([name, value]) => name === 'alias' || name === 'peer' || before.get(name) === value);
}
