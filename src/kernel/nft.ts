// The kinds `table` and `element`: nftables. Structure is loaded in the language of nft(8), the only interface its authors document:
// a table is replaced whole, in one transaction that also carries its elements over, so no packet meets a half-loaded or empty table.
// Elements that come and go in a table that stays are written by nft-elements.ts.
// How a table is known to be unchanged, without memory and without comparing nft's re-print with our text: its comment has
// the hash of the text it was loaded from, and an empty chain, added afterwards, has a digest of what nft listed then.
// Someone's later `nft flush chain` or `nft insert rule` changes the listing and so breaks the seal.
import { createHash } from 'node:crypto';
import type { NftElement, NftTable, Netns } from '#model/desired.ts';
import { Fault, isFault } from '#model/fault.ts';
import { tableName } from '#model/numbers.ts';
import type { Failure, Kind } from './kind.ts';
import { nftErrno, nftFault, type NftOptions, runNft } from './libnftables.ts';
import { inNetns, isAbsent, netnsPath } from './netns.ts';
import { changeElements, type ElementChange, elementCommands, identifier, isSpelled } from './nft-elements.ts';
import {
  canonical,
  type ListedElement,
  listedElements,
  parseListing,
  readSeal,
  sealChain,
  tableNames,
  timedElements,
  timedMaps,
} from './nft-listing.ts';

export interface NftKindOptions {
  /** Where named namespaces are, `/run/netns`. */
  readonly netnsDirectory: string;
  /** What the two kinds of one kernel share: the tables that were loaded and have no element yet. */
  readonly empty: Set<string>;
}

const fingerprint = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 32);

/** What list() gives as `text` of a table that is exactly as it was loaded from `text`. */
export const sealedText = (text: string): string => `sealed ${fingerprint(text)}`;
/** What list() gives as `text` of a table that somebody changed, or whose loading was cut short. */
export const tornText = 'torn';

export const tableKey = (table: Pick<NftTable, 'netns' | 'name'>): string => `${table.netns} ${table.name}`;
export const sameTable = (wanted: NftTable, found: NftTable): boolean =>
  found.text === wanted.text || found.text === sealedText(wanted.text);
/** Of the last element whose key was made: mostly the next one is of the same set, and keys of a set end alike. */
let [netnsBefore, tableBefore, setBefore, end]: string[] = [];
export function elementKey({ netns, table, set, key }: NftElement): string {
  if (set !== setBefore || table !== tableBefore || netns !== netnsBefore) {
    [netnsBefore, tableBefore, setBefore] = [netns, table, set];
    end = ` in ${set} of ${table}${where(netns)}`;
  }
  return canonical(key) + end;
}
const sameValue = (wanted: string | undefined, found: string | undefined): boolean =>
  wanted === found || canonical(wanted ?? '') === canonical(found ?? '');
export const sameElement = (wanted: NftElement, found: NftElement): boolean =>
  sameValue(wanted.value, found.value) &&
  wanted.values?.length === found.values?.length &&
  (wanted.values ?? []).every((value, index) => sameValue(value, found.values?.[index]));

const isOurTable = (name: string): boolean => name === tableName || name.startsWith(`${tableName}_`);
const where = (netns: Netns): string => (netns === '' ? '' : ` in ${netns}`);

/** What nft prints for a listing; undefined when the object is not there. */
function list(command: string, format: NonNullable<NftOptions['format']>): ReturnType<typeof parseListing> | undefined {
  const { output, error } = runNft(command, { format });
  if (error === undefined) return parseListing(output);
  if (nftErrno(error) === 'ENOENT') return undefined;
  throw nftFault(command, error);
}

const ourTables = (): string[] => tableNames(list('list tables inet', 'json') ?? []).filter(isOurTable);
const elementsIn = (table: string): ListedElement[] => listedElements(list(`list table inet ${table}`, 'json') ?? []);

/** The transaction that puts a table in the place of whatever has its name, with these elements in it. */
export function tableCommands(table: NftTable, elements: readonly NftElement[]): string {
  const name = `inet ${table.name}`;
  // Declared first, so that deleting always finds one.
  return `table ${name} { }
delete table ${name}
table ${name} {
  comment "causeway ${fingerprint(table.text)}"
${table.text}
}
${elementCommands({ verb: 'add', elements })}`;
}

function readTable(netns: Netns, name: string): NftTable | undefined {
  const listing = list(`list table inet ${name}`, 'terse');
  if (listing === undefined) return undefined;
  const { comment, written, expected } = readSeal(listing);
  return { netns, family: 'inet', name, text: written === expected ? comment.replace(/^causeway /, 'sealed ') : tornText };
}

/** What the rules have noted by themselves goes on with the time that it has left. */
function carriedOver({ netns, name }: NftTable): NftElement[] {
  const listing = list(`list table inet ${name}`, 'json') ?? [];
  const noted = timedElements(listing).map(({ set, key, value, timeoutSeconds, expiresSeconds }) => ({
    set,
    key: `${key} timeout ${timeoutSeconds}s expires ${expiresSeconds}s`,
    ...(value === undefined ? {} : { value }),
  }));
  return [...listedElements(listing), ...noted].map((element) => ({ ...element, netns, table: name }));
}

const bySet = (elements: readonly NftElement[]): Map<string, NftElement[]> => Map.groupBy(elements, ({ set }) => set);

interface Loaded {
  /** `renewed` is in it, all of it. */
  readonly isWhole: boolean;
  readonly isEmpty: boolean;
}

function loadTable(table: NftTable): Loaded {
  const action = `load table inet ${table.name}${where(table.netns)}`;
  if (!identifier.test(table.name)) throw new Fault('invalid', `Cannot ${action}: bad name`);
  const found = table.elements ?? carriedOver(table);
  const renewed = (table.renewed ?? []).filter(isSpelled);
  const all = new Map([...found, ...renewed].map((one): [string, NftElement] => [elementKey(one), one]));
  let refused = runNft(tableCommands(table, [...all.values()])).error;
  const isWhole = refused === undefined && renewed.length === table.renewed?.length;
  if (refused !== undefined && all.size > 0) {
    // A set is gone or holds something else now: carry over only the sets that the new table accepts.
    const isAccepted = (elements: readonly NftElement[]) => runNft(tableCommands(table, elements), { check: true }).error === undefined;
    const before = bySet(found);
    const kept = [...bySet([...all.values()])].flatMap(
      ([set, elements]) => [elements, before.get(set) ?? []].find((candidate) => isAccepted(candidate)) ?? [],
    );
    refused = runNft(tableCommands(table, kept)).error;
  }
  if (refused !== undefined) throw nftFault(action, refused);
  const { expected } = readSeal(list(`list table inet ${table.name}`, 'terse') ?? []);
  const unsealed = runNft(`add chain inet ${table.name} ${sealChain} { comment "${expected}"; }`).error;
  if (unsealed !== undefined) throw nftFault(`seal table inet ${table.name}${where(table.netns)}`, unsealed);
  return { isWhole, isEmpty: all.size === 0 };
}

function removeTable(table: NftTable): void {
  const { error } = runNft(`delete table inet ${table.name}`);
  if (error !== undefined && nftErrno(error) !== 'ENOENT') throw nftFault(`remove table inet ${table.name}${where(table.netns)}`, error);
}

function faultOf(error: unknown): Fault {
  if (isFault(error)) return error;
  throw error;
}

/** The items for which `apply` threw a Fault. */
function failuresOf<T>(items: readonly T[], apply: (item: T) => void): Failure<T>[] {
  return items.flatMap((item) => {
    try {
      apply(item);
      return [];
    } catch (error) {
      return [{ item, fault: faultOf(error) }];
    }
  });
}

/**
 * nft tables named `causeway` or `causeway_…` of family inet. Found tables have no text of their own: sealedText() of what
 * they were loaded from, or tornText. A change keeps the elements of every set that is in both tables with the same type.
 */
export function createTableKind({ netnsDirectory, empty }: NftKindOptions): Kind<NftTable> {
  const path = (netns: Netns) => netnsPath(netns, netnsDirectory);
  const whole = new WeakSet<NftTable>();
  const load = (item: NftTable): void =>
    inNetns(path(item.netns), () => {
      const { isWhole, isEmpty } = loadTable(item);
      if (isWhole) whole.add(item);
      if (isEmpty) empty.add(tableKey(item));
      else empty.delete(tableKey(item));
    });
  return {
    name: 'table',
    key: tableKey,
    same: sameTable,
    list: (netns) => presentIn(path(netns), () => ourTables().flatMap((name) => readTable(netns, name) ?? [])),
    tookAlong: (item) => whole.has(item),
    add: (items) => failuresOf(items, load),
    remove: (items) =>
      failuresOf(items, (item) => {
        presentIn(path(item.netns), () => {
          removeTable(item);
          return [];
        });
      }),
  };
}

/** What `read` gives inside the namespace; nothing when there is no such namespace. */
function presentIn<T>(path: string, read: () => T[]): T[] {
  let found: T[] = [];
  try {
    inNetns(path, () => {
      found = read();
    });
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
  return found;
}

/** Elements in nft's spelling, in batches: one transaction for all, and when something in it is refused, as few as find it. */
export function createElementKind({ netnsDirectory, empty }: NftKindOptions): Kind<NftElement> {
  const path = (netns: Netns) => netnsPath(netns, netnsDirectory);
  const perNetns = (items: readonly NftElement[], apply: (items: readonly NftElement[]) => Failure<NftElement>[]) =>
    [...Map.groupBy(items, ({ netns }) => netns)].flatMap(([netns, members]) => {
      try {
        return inNetns(path(netns), () => apply(members));
      } catch (error) {
        const fault = faultOf(error);
        return members.map((item) => ({ item, fault }));
      }
    });
  return {
    name: 'element',
    key: elementKey,
    same: sameElement,
    list: (netns) =>
      presentIn(path(netns), () => ourTables().flatMap((table) => elementsIn(table).map((element) => ({ ...element, netns, table })))),
    add: (items, changed = new Map()) =>
      perNetns(items, (some) => {
        const tables = [...new Set(some.map(({ table }) => table))].map((name) => tableKey({ netns: some[0]?.netns ?? '', name }));
        const isFirst = tables.every((table) => empty.has(table));
        for (const table of tables) empty.delete(table);
        return addElements(some, { changed, isFirst });
      }),
    exchange: (removed, added, changed) =>
      perNetns([...removed, ...added], (some) => {
        const isRemoved = new Set(removed);
        const { gone = [], come = [] } = Object.groupBy(some, (item) => (isRemoved.has(item) ? 'gone' : 'come'));
        const known = come.filter((item) => changed.has(item)).map((item) => changed.get(item) ?? item);
        const steps: ElementChange[] = [
          { verb: 'delete', elements: gone },
          { verb: 'destroy', elements: known },
          { verb: 'add', elements: come },
        ];
        if (changeElements(steps)) return [];
        const failed = removeElements(gone).filter(({ fault }) => !isAbsent(fault));
        return [...failed, ...addElements(come, { changed, isFirst: false })];
      }),
    remove: (items) => perNetns(items, removeElements).filter(({ fault }) => !isAbsent(fault)),
  };
}

const shown = ({ table, set, key, value, values, netns }: NftElement): string =>
  `element ${key}${value === undefined ? '' : ` : ${value}`}${values === undefined ? '' : ` . … : ${values.join(', ')}`} of inet ${table} ${set}${where(netns)}`;

/** Halves a refused batch until the refused items are alone. */
function settle(items: readonly NftElement[], commands: (items: readonly NftElement[]) => string, verb: string): Failure<NftElement>[] {
  const [item] = items;
  if (item === undefined) return [];
  const { error } = runNft(commands(items));
  if (error === undefined) return [];
  if (items.length === 1) return [{ item, fault: nftFault(`${verb} ${shown(item)}`, error) }];
  const middle = items.length >> 1;
  return [...settle(items.slice(0, middle), commands, verb), ...settle(items.slice(middle), commands, verb)];
}

function foundElements(items: readonly NftElement[]): ReadonlyMap<string, NftElement> {
  const [first] = items;
  const tables = new Set(items.map(({ table }) => table));
  const found = [...tables].flatMap((table) => elementsIn(table).map((element) => ({ ...element, netns: first?.netns ?? '', table })));
  return new Map(found.map((element) => [elementKey(element), element]));
}

interface Circumstances {
  readonly changed: ReadonlyMap<NftElement, NftElement | undefined>;
  readonly isFirst: boolean;
}

function addElements(items: readonly NftElement[], { changed, isFirst }: Circumstances): Failure<NftElement>[] {
  // A map that has the key with another value refuses (EEXIST), and what is refused waits for a grace period of RCU
  // (nf_tables_api.c, __nf_tables_abort): some ten milliseconds. Kernels since 6.3 replace without being told what is there.
  const known = changed.size === 0 ? [] : items.filter((item) => changed.has(item));
  const adding: ElementChange = { verb: 'add', elements: items };
  for (const elements of known.length === items.length ? [items] : [known, items])
    if (changeElements([{ verb: 'destroy', elements: elements.map((item) => changed.get(item) ?? item) }, adding], isFirst)) return [];
  const { spelled = [], not = [] } = Object.groupBy(items, (item) => (isSpelled(item) ? 'spelled' : 'not'));
  const unspelled = not.map((item) => ({
    item,
    fault: new Fault('invalid', `Cannot add ${JSON.stringify(shown(item)).slice(0, 200)}: not an element`),
  }));
  // Or something is refused: now look, and replace what differs.
  const found = foundElements(spelled);
  const missing = spelled.filter((item) => {
    const there = found.get(elementKey(item));
    return there === undefined || !sameElement(item, there);
  });
  const replace = (batch: readonly NftElement[]) =>
    elementCommands({ verb: 'delete', elements: batch.flatMap((item) => found.get(elementKey(item)) ?? []) }) +
    elementCommands({ verb: 'add', elements: batch });
  return [...unspelled, ...settle(missing, replace, 'add')];
}

function removeElements(items: readonly NftElement[]): Failure<NftElement>[] {
  if (changeElements([{ verb: 'delete', elements: items }])) return [];
  const found = foundElements(items);
  const present = items.filter(isSpelled).flatMap((item) => found.get(elementKey(item)) ?? []);
  return settle(present, (elements) => elementCommands({ verb: 'delete', elements }), 'remove');
}

/**
 * Deletes from the maps that rules fill by themselves what `isMeant` says, and answers how many there were.
 * Without a table of ours there are none. Fault `kernel`.
 */
export function forgetNoted(isMeant: (noted: ListedElement) => boolean): number {
  const listing = list(`list table inet ${tableName}`, 'terse') ?? [];
  const gone = timedMaps(listing)
    .flatMap((name) => timedElements(list(`list map inet ${tableName} ${name}`, 'json') ?? []))
    .filter(isMeant)
    .map(({ set, key }) => ({ netns: '', table: tableName, set, key }));
  if (gone.length === 0) return 0;
  // One may have run out by now: then they are deleted one by one.
  const failures = settle(gone, (elements) => elementCommands({ verb: 'delete', elements }), 'remove').filter(
    ({ fault }) => !isAbsent(fault),
  );
  if (failures[0] !== undefined) throw failures[0].fault;
  return gone.length;
}
