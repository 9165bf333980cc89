// The host's view of the cluster: an immutable Snapshot that watch lines replace piece by piece. What a new stream says
// is held back until it is complete, so nobody ever plans from half of the facts. Kept in the journal, so that a
// host that starts while no controller answers still knows everything it knew.
import { isDeepStrictEqual } from 'node:util';
import type { WatchLine } from '#api/answers.ts';
import type { Journal } from '#api/local.ts';
import { parseAnswer } from '#api/parse.ts';
import { schemas } from '#api/schemas.ts';
import { Fault } from '#model/fault.ts';
import type { BgpResource, Endpoint, ResourceKind, Resources, Secret, Snapshot } from '#model/resources.ts';
import { LeanRecords } from './lean.ts';
import type { Changed } from './news.ts';

/** What is kept of the cluster: what a plan is made from, and how speakers of BGP are set. */
type Kept = keyof Snapshot | 'bgp' | 'secrets';
type Tables = { readonly [K in Kept]: Map<string, Resources[K]> };
const kinds = ['hosts', 'networks', 'pools', 'blocks', 'endpoints', 'exposures', 'bgp', 'secrets'] as const satisfies readonly Kept[];
const isKept = (kind: ResourceKind): kind is Kept => (kinds as readonly string[]).includes(kind);

const emptyTables = (): Tables => ({
  hosts: new Map(),
  networks: new Map(),
  pools: new Map(),
  blocks: new Map(),
  endpoints: new Map(),
  exposures: new Map(),
  bgp: new Map(),
  secrets: new Map(),
});

export interface ViewOptions {
  readonly journal: Journal;
  /** Called after every change of facts. `endpoint`: it is all that has changed. */
  readonly changed: (endpoint?: Changed<Endpoint>) => void;
}

export class View {
  readonly #journal: Journal;
  readonly #changed: ViewOptions['changed'];
  #tables: Tables = emptyTables();
  /** Maps that somebody may hold on to; the others are changed in place. */
  readonly #given = new Set<Kept>();
  readonly #lean = new LeanRecords();
  /** What a new stream has said so far, until its `synced`. */
  #held: WatchLine[] | undefined;
  #revision = 0;
  #epoch: string | undefined;
  #synced = false;
  #unsaved = new Map<string, unknown>();
  /** Revisions of what was learned ahead of the watch, by key; a listing from before says nothing about them. */
  readonly #ahead = new Map<string, number>();

  constructor({ journal, changed }: ViewOptions) {
    this.#journal = journal;
    this.#changed = changed;
  }

  /** The current facts. Maps given out are replaced, not changed, when facts change: holding on to one is safe. */
  get snapshot(): Snapshot & { readonly bgp: ReadonlyMap<string, BgpResource>; readonly secrets: ReadonlyMap<string, Secret> } {
    for (const kind of kinds) this.#given.add(kind);
    return this.#tables;
  }

  /** The blocks of `snapshot`, without the rest being given out. */
  get blocks(): Snapshot['blocks'] {
    this.#given.add('blocks');
    return this.#tables.blocks;
  }

  /** Revision to resume the watch from; 0 before the first complete listing. */
  get revision(): number {
    return this.#revision;
  }

  /** Which of the store's histories that revision is of, as the controller has told. */
  get epoch(): string | undefined {
    return this.#epoch;
  }

  /** Whether this process has had a complete listing from a controller. */
  get isSynced(): boolean {
    return this.#synced;
  }

  /** The controller no longer knows our revision: the next watch begins with a complete listing. */
  forgetRevision(): void {
    this.#revision = 0;
  }

  /**
   * Takes up what an earlier process of this host kept. Fault `corrupt` when a record of it cannot be read: then nothing is
   * taken up, since nobody shall plan from half of the facts, and all of it is replaced by the next listing.
   */
  load(): void {
    const keys = this.#journal.keys('view/');
    let isTakenUp = false;
    try {
      isTakenUp = this.#takeUp(keys);
    } finally {
      if (!isTakenUp) for (const key of keys) this.#unsaved.set(key, undefined);
    }
  }

  /** A stream begins: what it says is held back until its `synced`. */
  begin(): void {
    this.#held = [];
  }

  apply(told: WatchLine): void {
    const line: WatchLine = told.type === 'put' && told.kind === 'endpoints' ? { ...told, item: this.#lean.endpoint(told.item) } : told;
    if (this.#held === undefined) this.#take(line);
    else if (line.type === 'synced') this.#settle(this.#held, line);
    // A revision that is reached counts only once everything before it has been taken in.
    else if (line.type !== 'bookmark') this.#held.push(line);
  }

  /** Facts that a controller's answer brought ahead of the watch; an older revision changes nothing. */
  learn<K extends Kept>(kind: K, item: Resources[K]): void {
    const known = this.#tables[kind].get(item.id);
    if (known !== undefined && known.revision >= item.revision) return;
    if (item.revision > this.#revision) this.#ahead.set(keyOf(kind, item.id), item.revision);
    this.#write(kind, item.id, item);
  }

  forget(kind: Kept, id: string): void {
    if (this.#tables[kind].has(id)) this.#delete(kind, id, 0);
  }

  /**
   * Writes what has changed since the last call to the journal, in one transaction. When that fails the next call does it. The cluster
   * says it again after a power cut, and what is given out from it waits for the disk by itself: here nobody does.
   */
  save(): void {
    if (this.#unsaved.size === 0) return;
    this.#journal.soon(() =>
      this.#journal.transaction(() => {
        for (const [key, value] of this.#unsaved) {
          if (value === undefined) this.#journal.delete(key);
          else this.#journal.put(key, value);
        }
      }),
    );
    this.#unsaved = new Map();
  }

  /** False when there never was a complete listing. */
  #takeUp(keys: readonly string[]): boolean {
    const revision = this.#journal.get('view/revision');
    if (revision === undefined) return false;
    if (typeof revision !== 'number') throw new Fault('corrupt', 'Journal record view/revision is not a revision');
    const epoch = this.#journal.get('view/epoch');
    const tables = emptyTables();
    for (const key of keys) {
      const kind = kinds.find((name) => key.startsWith(`view/${name}/`));
      if (kind === undefined) continue;
      const item = this.#read(kind, key);
      if (key !== keyOf(kind, item.id)) throw new Fault('corrupt', `Journal record ${key} is of ${item.id}`);
      putItem(tables, kind, item.id, item);
    }
    this.#replace(tables);
    this.#revision = revision;
    this.#epoch = typeof epoch === 'string' ? epoch : undefined;
    return true;
  }

  /** One by one, so that they never lie in memory all at once as they are written. */
  #read(kind: Kept, key: string): Resources[Kept] {
    const value = this.#journal.get(key);
    const what = `journal record ${key}`;
    if (kind === 'endpoints') return this.#lean.endpoint(parseAnswer(schemas.endpoints, value, what));
    return parseAnswer<Resources[Exclude<Kept, 'endpoints'>]>(schemas[kind], value, what);
  }

  #put(kind: ResourceKind, item: Resources[ResourceKind]): void {
    // Learned ahead of the watch, which is still telling of the past.
    if (!isKept(kind) || (this.#tables[kind].get(item.id)?.revision ?? 0) > item.revision) return;
    this.#write(kind, item.id, item);
  }

  #delete(kind: ResourceKind, id: string, revision: number): void {
    if (!isKept(kind)) return;
    const known = this.#tables[kind].get(id);
    if (known === undefined || (revision !== 0 && known.revision > revision)) return;
    this.#write(kind, id, undefined);
  }

  /** Changes one fact and tells so. Undefined: it has gone. */
  #write(kind: Kept, id: string, item: Resources[ResourceKind] | undefined): void {
    if (this.#given.delete(kind)) {
      this.#tables = { ...this.#tables, [kind]: new Map<string, Resources[ResourceKind]>(this.#tables[kind]) };
    }
    const before = this.#tables.endpoints.get(id);
    if (item === undefined) this.#tables[kind].delete(id);
    else putItem(this.#tables, kind, id, item);
    this.#unsaved.set(keyOf(kind, id), item);
    this.#changed(kind === 'endpoints' ? { before, after: this.#tables.endpoints.get(id) } : undefined);
  }

  #replace(tables: Tables): void {
    this.#tables = tables;
    this.#given.clear();
  }

  #take(line: WatchLine): void {
    if (line.type === 'put') this.#put(line.kind, line.item);
    else if (line.type === 'delete') this.#delete(line.kind, line.id, line.revision);
    else this.#turn(line.epoch);
    this.#advance(line.revision);
  }

  #turn(epoch: string | undefined): void {
    if (epoch === this.#epoch) return;
    this.#epoch = epoch;
    this.#unsaved.set('view/epoch', epoch);
  }

  #advance(revision: number): void {
    this.#revision = revision;
    this.#unsaved.set('view/revision', revision);
    for (const [key, at] of this.#ahead) if (at <= revision) this.#ahead.delete(key);
  }

  /** `whole`: what was held back is all there is. */
  #settle(held: readonly WatchLine[], { revision, epoch, whole }: Extract<WatchLine, { type: 'synced' }>): void {
    this.#held = undefined;
    if (whole) {
      const tables = emptyTables();
      for (const line of held) if (line.type === 'put' && isKept(line.kind)) putItem(tables, line.kind, line.item.id, line.item);
      this.#keepAhead(tables, revision);
      this.#swap(tables);
    } else for (const line of held) this.#take(line);
    this.#advance(revision);
    this.#turn(epoch);
    this.#synced = true;
    this.#changed();
  }

  /** Another controller may list from before an answer that this host has had. */
  #keepAhead(tables: Tables, revision: number): void {
    for (const kind of kinds) {
      for (const [id, item] of this.#tables[kind]) if ((this.#ahead.get(keyOf(kind, id)) ?? 0) > revision) putItem(tables, kind, id, item);
    }
  }

  /** What is as it was stays the same object and is not written again. */
  #swap(incoming: Tables): void {
    for (const kind of kinds) {
      const before: ReadonlyMap<string, Resources[Kept]> = this.#tables[kind];
      for (const id of before.keys()) if (!incoming[kind].has(id)) this.#unsaved.set(keyOf(kind, id), undefined);
      for (const [id, item] of incoming[kind]) {
        const known = before.get(id);
        if (known?.revision === item.revision && isDeepStrictEqual(known, item)) putItem(incoming, kind, id, known);
        else this.#unsaved.set(keyOf(kind, id), item);
      }
    }
    this.#replace(incoming);
  }
}

const keyOf = (kind: Kept, id: string): string => `view/${kind}/${id}`;

/** The journal and the stream are parsed at their borders, so an item of `kind` is one. */
function putItem(tables: Tables, kind: Kept, id: string, item: unknown): void {
  const table = tables[kind] as Map<string, unknown>;
  table.set(id, item);
}
