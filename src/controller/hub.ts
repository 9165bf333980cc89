// Tells every watching host what it needs of each change, and nothing else. Each change is written as a line once; lines are
// sent in small batches, because a thousand connections times a hundred changes a second are too many writes otherwise.
import { isDeepStrictEqual } from 'node:util';
import { assertNever } from '#model/fault.ts';
import { type ResourceKind, resourceKinds, type Resources } from '#model/resources.ts';
import type { WatchLine } from '#api/answers.ts';
import { mayRead, type Principal, shownTo } from './access.ts';
import { isStillValid } from './authentication.ts';
import { type Contents, networkOf, type Participation } from './contents.ts';
import type { Control } from './control.ts';
import { epochAt } from './epochs.ts';
import { hostFacts } from './hosts.ts';
import type { Change, Mirror, MirrorListener, PrivateKind } from './mirror.ts';
import { type Interest, TextMemo, Watcher } from './watcher.ts';

const bookmarkMs = 10_000;
const historyLength = 20_000;
/** Longest wait of a line for company, reached when 1,200 connections are written to at once. */
const longestBatchMs = 150;
const contentKinds = ['pools', 'blocks', 'endpoints', 'exposures'] as const;
const memberKinds = ['blocks', 'endpoints', 'exposures'] as const;

/** How far a reader has come. */
export interface Place {
  readonly revision: number;
  /** The history that it is of (epochs.ts); absent: unknown. */
  readonly epoch?: string;
}

type Item = Exclude<Change['after'], undefined>;

const lineOf = (line: WatchLine): string => `${JSON.stringify(line)}\n`;
const putLine = (kind: ResourceKind, item: Item): string => `${JSON.stringify({ type: 'put', kind, item, revision: item.revision })}\n`;
const deleteLine = (kind: ResourceKind, id: string, revision: number): string => lineOf({ type: 'delete', kind, id, revision });

const itemOf = (change: Change): Item | undefined => change.after ?? change.before;

/** Whether other hosts need to hear of it: a host's report of its own state changes every few seconds and is not for them. */
const isForHosts = (change: Change): boolean =>
  change.kind !== 'hosts' ||
  change.before === undefined ||
  change.after === undefined ||
  !isDeepStrictEqual(hostFacts(change.before), hostFacts(change.after));

/** Whether what became of that record may end the watch of that asker. */
function concerns(principal: Principal, kind: PrivateKind, id: string): boolean {
  switch (kind) {
    case 'tokens':
      return 'token' in principal && principal.token === id;
    case 'certificates':
      return principal.type === 'host' && principal.serial === id;
    case 'incarnations':
    case 'speakers':
      return principal.type === 'host' && principal.host === id;
    case 'routes':
    case 'epochs':
      return false;
    default:
      return assertNever(kind);
  }
}

export class Hub implements MirrorListener, Disposable {
  readonly #mirror: Mirror;
  readonly #contents: Contents;
  readonly #now: () => Date;
  readonly #hosts = new Map<string, Set<Watcher>>();
  readonly #others = new Set<Watcher>();
  readonly #waking = new Set<Watcher>();
  readonly #texts = new TextMemo();
  /** Lines of items as they are, written when first needed. */
  readonly #lines = new WeakMap<object, string>();
  readonly #subscription: Disposable;
  readonly #bookmarks: NodeJS.Timeout;
  #history: Change[] = [];
  /** A watch may resume from this revision on. */
  #resumable: number;
  /** When hosts began and ceased to take part in networks, as far as history goes: `host network` and `host`. */
  readonly #gainedAt = new Map<string, number>();
  readonly #lostAt = new Map<string, number>();
  #batch: NodeJS.Timeout | undefined;
  #cut = 0;

  /** `contents` must be filled from `mirror` already; from now on the hub keeps it up to date. */
  constructor({ mirror, contents, now }: Pick<Control, 'mirror' | 'contents' | 'now'>) {
    this.#mirror = mirror;
    this.#contents = contents;
    this.#now = now;
    // What was read at the start may be part of a commit, so that revision itself is not safe to resume from.
    this.#resumable = mirror.revision + 1;
    this.#subscription = mirror.listen(this);
    this.#bookmarks = setInterval(() => this.#bookmark(), bookmarkMs);
    this.#bookmarks.unref();
  }

  get watchers(): number {
    return [...this.#hosts.values()].reduce((sum, set) => sum + set.size, this.#others.size);
  }

  /** Connections that were cut because they read too slowly or may not go on. */
  get cut(): number {
    return this.#cut;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#bookmarks);
    clearTimeout(this.#batch);
    this.#subscription[Symbol.dispose]();
    for (const watcher of this.#all()) watcher.close();
  }

  /** Begins a watch: from where the reader is, if history reaches back to that and is still the same, otherwise with everything. */
  watch(interest: Interest, reader?: Place): Watcher {
    const watcher = new Watcher(interest, this.#texts);
    const isOfThis = reader !== undefined && reader.epoch !== undefined && reader.epoch === epochAt(this.#mirror, reader.revision);
    const past = isOfThis ? this.#linesSince(interest, reader.revision) : undefined;
    watcher.pushSnapshot(past ?? this.#everything(interest));
    watcher.push(lineOf({ type: 'synced', ...this.#place(), whole: past === undefined }));
    const set = this.#setFor(interest);
    set.add(watcher);
    watcher.onClose = (): void => {
      set.delete(watcher);
      this.#waking.delete(watcher);
    };
    return watcher;
  }

  changed(change: Change): void {
    const participation = this.#contents.apply(change);
    this.#remember(change, participation);
    for (const watcher of this.#others)
      if (this.#isFor(watcher.interest.principal, change)) this.#send(watcher, this.#line(change, watcher.interest.principal));
    if (isForHosts(change)) this.#tellHosts(change, participation);
    else this.#tell(change.id, this.#line(change));
    this.#schedule();
  }

  privateChanged(kind: PrivateKind, id: string): void {
    for (const watcher of this.#all()) {
      if (!concerns(watcher.interest.principal, kind, id)) continue;
      if (!isStillValid({ mirror: this.#mirror, now: this.#now }, watcher.interest.principal)) this.#drop(watcher);
    }
  }

  restarted(revision: number): void {
    this.#history = [];
    this.#resumable = revision + 1;
    this.#gainedAt.clear();
    this.#lostAt.clear();
  }

  #all(): Watcher[] {
    return [...this.#others, ...[...this.#hosts.values()].flatMap((set) => [...set])];
  }

  #setFor({ host }: Interest): Set<Watcher> {
    if (host === undefined) return this.#others;
    const set = this.#hosts.get(host) ?? new Set();
    this.#hosts.set(host, set);
    return set;
  }

  #drop(watcher: Watcher): void {
    this.#cut += 1;
    watcher.close();
  }

  #line({ kind, id, after, revision }: Change, reader?: Principal): string {
    return after === undefined
      ? deleteLine(kind, id, revision)
      : this.#itemLine(kind, reader === undefined ? after : shownTo(reader, after));
  }

  #itemLine(kind: ResourceKind, item: Item): string {
    const known = this.#lines.get(item);
    if (known !== undefined) return known;
    const line = putLine(kind, item);
    this.#lines.set(item, line);
    return line;
  }

  #isFor(principal: Principal, change: Change): boolean {
    const item = itemOf(change);
    const network = item === undefined ? undefined : networkOf(item);
    // What is gone may have lost its network before; its id tells nothing.
    if (item === undefined || (network !== undefined && this.#mirror.get('networks', network) === undefined))
      return change.after === undefined;
    return mayRead({ mirror: this.#mirror, contents: this.#contents }, principal, change.kind, item);
  }

  #tellHosts(change: Change, { gained, lost }: Participation): void {
    const item = itemOf(change);
    const network = item === undefined ? undefined : networkOf(item);
    if (network === undefined || change.kind === 'pools') {
      const line = this.#line(change);
      for (const set of this.#hosts.values()) for (const watcher of set) this.#send(watcher, line);
      return;
    }
    const line = this.#line(change);
    const own = item !== undefined && 'host' in item ? [item.host] : [];
    for (const host of new Set([...this.#contents.hosts(network), ...own, ...lost])) {
      if (gained.includes(host)) continue;
      this.#tell(host, line);
    }
    for (const host of gained) for (const text of this.#contentsOf(network)) this.#tell(host, text);
    for (const host of lost) this.#forget(host, network, change.revision);
  }

  /** Of a network that a host takes part in no longer it gets deletes, so that it does not go on with what nobody updates. */
  #forget(host: string, network: string, revision: number): void {
    if (!this.#hosts.has(host)) return;
    for (const kind of memberKinds) {
      for (const id of this.#contents.of(network, kind).keys()) this.#tell(host, deleteLine(kind, id, revision));
    }
  }

  #tell(host: string, line: string): void {
    for (const watcher of this.#hosts.get(host) ?? []) this.#send(watcher, line);
  }

  #send(watcher: Watcher, line: string): void {
    watcher.push(line);
    if (watcher.isClosed) this.#cut += 1;
    else this.#waking.add(watcher);
  }

  #schedule(): void {
    if (this.#batch !== undefined || this.#waking.size === 0) return;
    this.#batch = setTimeout(() => this.#wakeAll(), Math.min(longestBatchMs, this.#waking.size / 8));
  }

  #wakeAll(): void {
    this.#batch = undefined;
    const waking = [...this.#waking];
    this.#waking.clear();
    for (const watcher of waking) watcher.wake();
  }

  #bookmark(): void {
    const line = lineOf({ type: 'bookmark', ...this.#place() });
    for (const watcher of this.#all()) {
      if (isStillValid({ mirror: this.#mirror, now: this.#now }, watcher.interest.principal)) this.#send(watcher, line);
      else this.#drop(watcher);
    }
    this.#schedule();
  }

  #place(): Place {
    const { revision } = this.#mirror;
    const epoch = epochAt(this.#mirror, revision);
    return { revision, ...(epoch === undefined ? {} : { epoch }) };
  }

  #contentsOf(network: string): string[] {
    return memberKinds.flatMap((kind) => [...this.#contents.of(network, kind).values()].map((item) => this.#itemLine(kind, item)));
  }

  #everything({ host, principal }: Interest): string[] {
    if (host === undefined) {
      return resourceKinds.flatMap((kind) =>
        this.#items(kind)
          .filter((item) => mayRead({ mirror: this.#mirror, contents: this.#contents }, principal, kind, item))
          .map((item) => this.#itemLine(kind, shownTo(principal, item))),
      );
    }
    const shared = (['tenants', 'hosts', 'networks', 'pools', 'bgp', 'secrets'] as const).flatMap((kind) =>
      this.#items(kind).map((item) => this.#itemLine(kind, item)),
    );
    return [...shared, ...this.#contents.networksOf(host).flatMap((network) => this.#contentsOf(network))];
  }

  #items(kind: ResourceKind): Resources[ResourceKind][] {
    return [...this.#mirror.all(kind).values()];
  }

  #remember(change: Change, { gained, lost }: Participation): void {
    this.#history.push(change);
    const item = itemOf(change);
    const network = item === undefined ? undefined : networkOf(item);
    for (const host of gained) this.#gainedAt.set(`${host} ${network}`, change.revision);
    for (const host of lost) this.#lostAt.set(host, change.revision);
    if (this.#history.length < historyLength * 1.1) return;
    this.#history = this.#history.slice(-historyLength);
    this.#resumable = (this.#history[0]?.revision ?? this.#mirror.revision) + 1;
    for (const marks of [this.#gainedAt, this.#lostAt]) {
      for (const [key, revision] of marks) if (revision < this.#resumable) marks.delete(key);
    }
  }

  /** Undefined when history does not reach back. Includes what happened at `since`, of which the reader may have seen a part. */
  #linesSince({ host, principal }: Interest, since: number): string[] | undefined {
    if (since < this.#resumable || since > this.#mirror.revision) return undefined;
    const news = this.#history.slice(this.#indexOf(since));
    if (host === undefined) return news.filter((change) => this.#isFor(principal, change)).map((change) => this.#line(change, principal));
    if ((this.#lostAt.get(host) ?? 0) >= since) return undefined;
    const gained = this.#contents.networksOf(host).filter((network) => (this.#gainedAt.get(`${host} ${network}`) ?? 0) >= since);
    const told = news.filter((change) => {
      const item = itemOf(change);
      const network = item === undefined ? undefined : networkOf(item);
      if (network === undefined || change.kind === 'pools') return isForHosts(change) || change.id === host;
      // Of a network that is told whole below, what the reader may have seen before and is gone now.
      if (gained.includes(network)) return change.after === undefined;
      return this.#contents.takesPart(host, network);
    });
    return [...told.map((change) => this.#line(change)), ...gained.flatMap((network) => this.#contentsOf(network))];
  }

  #indexOf(since: number): number {
    let low = 0;
    let high = this.#history.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#history[middle]?.revision ?? 0) >= since) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** Fills `contents` with what the mirror holds already. */
export function fillContents(mirror: Mirror, contents: Contents): void {
  for (const kind of contentKinds) {
    for (const [id, after] of mirror.all(kind)) contents.apply(asChange(kind, id, after));
  }
}

function asChange<K extends (typeof contentKinds)[number]>(kind: K, id: string, after: Resources[K]): Change {
  const changes: { readonly [C in (typeof contentKinds)[number]]: (item: Resources[C]) => Change } = {
    pools: (item) => ({ kind: 'pools', id, after: item, revision: item.revision }),
    blocks: (item) => ({ kind: 'blocks', id, after: item, revision: item.revision }),
    endpoints: (item) => ({ kind: 'endpoints', id, after: item, revision: item.revision }),
    exposures: (item) => ({ kind: 'exposures', id, after: item, revision: item.revision }),
  };
  return changes[kind](after);
}
