// From desired state to the kernel: which changes, in which order, and what is remembered. The kernel is listed once per
// namespace and then only again where an event says that somebody else has been there; in between the agent knows what it
// wrote. Rules before links, so that no packet is ever let in ahead of its guard; removal in the opposite order.
import { diff } from '#model/diff.ts';
import type { Desired, KindName, Netns } from '#model/desired.ts';
import type { Fault } from '#model/fault.ts';
import type { Kind, Kinds } from '#kernel/kind.ts';

/** Order of creation. Settings for all and new links precede links; those of one link follow it (see splitSysctl). */
const order = [
  'netns',
  'table',
  'link',
  'sysctl',
  'wireguard',
  'addr',
  'neigh',
  'fdb',
  'route',
  'element',
] as const satisfies readonly KindName[];

export interface Outcome {
  readonly desired: number;
  /** Objects added, changed or removed by this run. */
  readonly changed: number;
  /** What the kernel refused; those items stay pending and are tried again by the next run. */
  readonly failing: readonly { readonly kind: KindName; readonly what: string; readonly fault: Fault }[];
  /** Links of ours that were made again although their endpoint had been placed: their far end needs its addresses back. */
  readonly remadeLinks: readonly Desired['link'][number][];
  /** A link was changed, perhaps by making it again, which takes its routes and neighbours with it: look and run again. */
  readonly again: boolean;
}

type Item = Desired[KindName][number];
type AnyKind = Kind<Item>;

const netnsOf = (item: Item): Netns => ('netns' in item ? item.netns : item.name);

interface Changes {
  readonly kind: KindName;
  readonly add: Item[];
  readonly remove: Item[];
  /** Those of `add` that existed, but differently. */
  readonly changed: Item[];
}

export class Reconciler {
  readonly #kinds: Readonly<Record<KindName, AnyKind>>;
  /** What is in the kernel as far as we know, by kind and key; a namespace not in #known has to be listed first. */
  readonly #actual = new Map<KindName, Map<string, Item>>(order.map((kind) => [kind, new Map()]));
  readonly #known = new Set<Netns>();
  /** Keys that this process has wanted at some time: only these may be removed before every source is in sync. */
  readonly #wanted = new Map<KindName, Set<string>>(order.map((kind) => [kind, new Set()]));

  constructor(kinds: Kinds) {
    // One table for the loops below; each kind is only ever given items of its own.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the record's key ties kind and item together
    this.#kinds = kinds as unknown as Readonly<Record<KindName, AnyKind>>;
  }

  /** Somebody else may have changed `netns` (absent: anything): it is listed again before the next run. */
  suspect(netns?: Netns): void {
    if (netns === undefined) this.#known.clear();
    else this.#known.delete(netns);
  }

  /**
   * Brings the kernel to `desired`. With `sweep` false, objects that this process never wanted are left alone. Never
   * throws for what the kernel refuses: that is in the outcome. A kernel that cannot be listed throws.
   */
  apply(desired: Desired, sweep: boolean): Outcome {
    this.#learn(desired);
    const changes = order.map((kind) => this.#changesOf(kind, desired, sweep));
    const failing: Outcome['failing'][number][] = [];
    const remadeLinks: Desired['link'][number][] = [];
    const run = (kind: KindName, verb: 'add' | 'remove', items: readonly Item[]) => {
      if (items.length === 0) return;
      const failures = verb === 'add' ? this.#kinds[kind].add(items) : this.#kinds[kind].remove(items);
      const failed = new Set(failures.map(({ item }) => item));
      for (const { item, fault } of failures) failing.push({ kind, what: this.#kinds[kind].key(item), fault });
      this.#remember(
        kind,
        verb,
        items.filter((item) => !failed.has(item)),
      );
    };
    for (const { kind, remove } of changes.toReversed()) run(kind, 'remove', remove);
    for (const { kind, add } of this.#inOrder(changes)) run(kind, 'add', add);
    for (const link of changes.find(({ kind }) => kind === 'link')?.add ?? []) if (isRemade(link)) remadeLinks.push(link);
    const shaken = changes.flatMap(({ kind, changed }) => (kind === 'link' ? changed.map(netnsOf) : []));
    for (const netns of shaken) this.suspect(netns);
    return {
      again: shaken.length > 0,
      desired: order.reduce((sum, kind) => sum + desired[kind].length, 0),
      changed: changes.reduce((sum, { add, remove }) => sum + add.length + remove.length, 0) - failing.length,
      failing,
      remadeLinks,
    };
  }

  /** Lists the host, every namespace of ours that exists and every one that is wanted, unless it is known. */
  #learn(desired: Desired): void {
    const kinds = this.#kinds;
    if (!this.#known.has('')) {
      const found = new Map(kinds.netns.list('').map((item) => [kinds.netns.key(item), item]));
      this.#actual.set('netns', found);
      this.#known.add('');
      for (const kind of order) if (kind !== 'netns') this.#list(kind, '');
    }
    const names = [...new Set([...this.#actualOf('netns').values(), ...desired.netns].map(netnsOf))].filter(
      (netns) => !this.#known.has(netns),
    );
    if (names.length === 0) return;
    const existing = new Set(kinds.netns.list('').map(netnsOf));
    for (const netns of names) {
      const exists = existing.has(netns);
      if (!exists) this.#actualOf('netns').delete(netns);
      for (const kind of order) if (kind !== 'netns') this.#list(kind, netns, exists);
      this.#known.add(netns);
    }
  }

  #list(kind: KindName, netns: Netns, exists = true): void {
    const actual = this.#actualOf(kind);
    for (const [key, item] of actual) if (netnsOf(item) === netns) actual.delete(key);
    if (!exists) return;
    for (const item of this.#kinds[kind].list(netns)) actual.set(this.#kinds[kind].key(item), item);
  }

  #actualOf(kind: KindName): Map<string, Item> {
    const actual = this.#actual.get(kind);
    if (actual === undefined) throw new TypeError(`Broken invariant: no kind ${kind}`);
    return actual;
  }

  #changesOf(kind: KindName, desired: Desired, sweep: boolean): Changes {
    const { key, same } = this.#kinds[kind];
    const wanted: readonly Item[] = desired[kind];
    const ever = this.#wanted.get(kind) ?? new Set();
    for (const item of wanted) ever.add(key(item));
    const difference = diff(wanted, [...this.#actualOf(kind).values()], { key, same });
    // A setting has no state to go back to, so it is never removed.
    const remove = kind === 'sysctl' ? [] : difference.remove.filter((item) => sweep || ever.has(key(item)));
    const changed = difference.change.map(({ wanted: item }) => item);
    return { kind, add: [...changed, ...difference.add], remove, changed };
  }

  #inOrder(changes: readonly Changes[]): { kind: KindName; add: readonly Item[] }[] {
    const settings = changes.find(({ kind }) => kind === 'sysctl')?.add ?? [];
    const general = settings.filter((item) => !isLinkSetting(item));
    return changes.flatMap((change) => {
      if (change.kind === 'netns') return [change, { kind: 'sysctl' as const, add: general }];
      if (change.kind === 'sysctl') return [{ kind: 'sysctl' as const, add: settings.filter(isLinkSetting) }];
      return [change];
    });
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

  /** The kernel has thrown away what was inside; so do we. */
  #dropNetns(netns: Netns): void {
    for (const kind of order) {
      const actual = this.#actualOf(kind);
      for (const [key, item] of actual) if (netnsOf(item) === netns) actual.delete(key);
    }
    this.#known.delete(netns);
  }
}

const isLinkSetting = (item: Item): boolean => 'path' in item && item.path.includes('/conf/cw');
const isRemade = (item: Item): item is Desired['link'][number] =>
  'type' in item && item.type === 'veth' && 'peer' in item && item.peer.netns.startsWith('/');
