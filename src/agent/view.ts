// The host's view of the cluster: an immutable Snapshot that watch lines replace piece by piece. What a new stream says
// is held back until it is complete, so nobody ever plans from half of the facts. Kept in the journal, so that a
// host that starts while no controller answers still knows everything it knew.
import type { WatchLine } from '#api/answers.ts';
import type { Journal } from '#api/local.ts';
import type { ResourceKind, Resources, Snapshot } from '#model/resources.ts';

type Tables = { readonly [K in keyof Snapshot]: Map<string, Resources[K]> };
const kinds = ['hosts', 'networks', 'pools', 'blocks', 'endpoints', 'exposures'] as const satisfies readonly (keyof Snapshot)[];
const isKept = (kind: ResourceKind): kind is keyof Snapshot => (kinds as readonly string[]).includes(kind);

const emptyTables = (): Tables => ({
  hosts: new Map(),
  networks: new Map(),
  pools: new Map(),
  blocks: new Map(),
  endpoints: new Map(),
  exposures: new Map(),
});

export interface ViewOptions {
  readonly journal: Journal;
  /** Called after every change of facts. */
  readonly changed: () => void;
}

export class View {
  readonly #journal: Journal;
  readonly #changed: () => void;
  #tables: Tables = emptyTables();
  /** What a new stream has said so far, until its `synced`. */
  #held: WatchLine[] | undefined;
  #revision = 0;
  #synced = false;
  #unsaved = new Map<string, unknown>();

  constructor({ journal, changed }: ViewOptions) {
    this.#journal = journal;
    this.#changed = changed;
  }

  /** The current facts. Maps are replaced, not changed, whenever facts change: holding on to one is safe. */
  get snapshot(): Snapshot {
    return this.#tables;
  }

  /** Revision to resume the watch from; 0 before the first complete listing. */
  get revision(): number {
    return this.#revision;
  }

  /** Whether this process has had a complete listing from a controller. */
  get isSynced(): boolean {
    return this.#synced;
  }

  /** The controller no longer knows our revision: the next watch begins with a complete listing. */
  forgetRevision(): void {
    this.#revision = 0;
  }

  /** Takes up what an earlier process of this host kept. */
  load(): void {
    const saved = this.#journal.get('view/revision');
    if (typeof saved !== 'number') return;
    const tables = emptyTables();
    for (const kind of kinds) {
      const prefix = `view/${kind}/`;
      for (const { key, value } of this.#journal.list(prefix)) putItem(tables, kind, key.slice(prefix.length), value);
    }
    this.#tables = tables;
    this.#revision = saved;
  }

  /** A stream begins: what it says is held back until its `synced`. */
  begin(): void {
    this.#held = [];
  }

  apply(line: WatchLine): void {
    if (this.#held === undefined || line.type === 'bookmark') this.#take(line);
    else if (line.type === 'synced') this.#settle(this.#held, line);
    else this.#held.push(line);
  }

  /** Facts that a controller's answer brought ahead of the watch; an older revision changes nothing. */
  learn<K extends keyof Snapshot>(kind: K, item: Resources[K]): void {
    const known = this.#tables[kind].get(item.id);
    if (known !== undefined && known.revision >= item.revision) return;
    this.#tables = { ...this.#tables, [kind]: new Map<string, Resources[ResourceKind]>([...this.#tables[kind], [item.id, item]]) };
    this.#unsaved.set(`view/${kind}/${item.id}`, item);
    this.#changed();
  }

  forget(kind: keyof Snapshot, id: string): void {
    if (this.#tables[kind].has(id)) this.#delete(kind, id, 0);
  }

  /** Writes what has changed since the last call to the journal, in one transaction. */
  save(): void {
    if (this.#unsaved.size === 0) return;
    const unsaved = this.#unsaved;
    this.#unsaved = new Map();
    this.#journal.transaction(() => {
      for (const [key, value] of unsaved) {
        if (value === undefined) this.#journal.delete(key);
        else this.#journal.put(key, value);
      }
    });
  }

  #put(kind: ResourceKind, item: Resources[ResourceKind]): void {
    if (!isKept(kind)) return;
    this.#tables = { ...this.#tables, [kind]: new Map<string, Resources[ResourceKind]>(this.#tables[kind]) };
    putItem(this.#tables, kind, item.id, item);
    this.#unsaved.set(`view/${kind}/${item.id}`, item);
    this.#changed();
  }

  #delete(kind: ResourceKind, id: string, revision: number): void {
    if (!isKept(kind)) return;
    const known = this.#tables[kind].get(id);
    if (known === undefined || (revision !== 0 && known.revision > revision)) return;
    const rest = new Map<string, Resources[ResourceKind]>(this.#tables[kind]);
    rest.delete(id);
    this.#tables = { ...this.#tables, [kind]: rest };
    this.#unsaved.set(`view/${kind}/${id}`, undefined);
    this.#changed();
  }

  #take(line: WatchLine): void {
    if (line.type === 'put') this.#put(line.kind, line.item);
    else if (line.type === 'delete') this.#delete(line.kind, line.id, line.revision);
    this.#advance(line.revision);
  }

  #advance(revision: number): void {
    this.#revision = revision;
    this.#unsaved.set('view/revision', revision);
  }

  /** `whole`: what was held back is all there is. */
  #settle(held: readonly WatchLine[], { revision, whole }: { revision: number; whole: boolean }): void {
    this.#held = undefined;
    if (whole) {
      const tables = emptyTables();
      for (const line of held) if (line.type === 'put' && isKept(line.kind)) putItem(tables, line.kind, line.item.id, line.item);
      this.#swap(tables);
    } else for (const line of held) this.#take(line);
    this.#advance(revision);
    this.#synced = true;
    this.#changed();
  }

  #swap(incoming: Tables): void {
    for (const kind of kinds) {
      for (const id of this.#tables[kind].keys()) if (!incoming[kind].has(id)) this.#unsaved.set(`view/${kind}/${id}`, undefined);
      for (const [id, item] of incoming[kind]) this.#unsaved.set(`view/${kind}/${id}`, item);
    }
    this.#tables = incoming;
  }
}

/** The journal and the stream are parsed at their borders, so an item of `kind` is one. */
function putItem(tables: Tables, kind: keyof Snapshot, id: string, item: unknown): void {
  const table = tables[kind] as Map<string, unknown>;
  table.set(id, item);
}
