// What `nft -j list` prints (libnftables-json(5)), read into items and digests. Pure. Elements come out in the one spelling
// that plans use: `"cwe0" . 02:00:00:00:00:01 . 10.0.0.1`, interface names in quotes, prefixes as `10.0.0.0/8`, ranges as
// `1-9`; the value of a verdict map as `jump chain`.
import { createHash } from 'node:crypto';
import { Fault } from '#model/fault.ts';

export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };
export type JsonObject = { readonly [name: string]: Json };

export interface ListedElement {
  readonly set: string;
  readonly key: string;
  readonly value?: string;
  readonly values?: readonly string[];
}

export const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
export const isList = (value: Json | undefined): value is readonly Json[] => Array.isArray(value);
export const word = (value: Json | undefined): string => (typeof value === 'string' || typeof value === 'number' ? `${value}` : '');
const words = (value: Json | undefined): readonly string[] => (isList(value) ? value.map(word) : [word(value)]);

/** The objects of a listing, each `{ chain: … }`, `{ rule: … }`, … . Fault `kernel` when it is not one. */
export function parseListing(output: string): readonly JsonObject[] {
  try {
    const listing = JSON.parse(output) as Json;
    const objects = isObject(listing) ? listing['nftables'] : undefined;
    if (isList(objects)) return objects.filter(isObject).filter((object) => object['metainfo'] === undefined);
  } catch {
    // Falls through: told below with what was printed instead.
  }
  throw new Fault('kernel', `Cannot read nft's listing: ${output.slice(0, 80)}`);
}

/** Names of the inet tables in a listing. */
export const tableNames = (objects: readonly JsonObject[]): string[] =>
  objects.map(({ table }) => table).flatMap((table) => (isObject(table) && table['family'] === 'inet' ? [word(table['name'])] : []));

function atom(value: Json, type: string): string {
  if (isObject(value)) {
    const { prefix, range, elem } = value;
    if (isObject(prefix)) return `${word(prefix['addr'])}/${word(prefix['len'])}`;
    if (isList(range)) return range.map((end) => atom(end, type)).join('-');
    if (isObject(elem)) return atom(elem['val'] ?? '', type);
    const [verdict = ''] = Object.keys(value);
    const inner = value[verdict];
    return isObject(inner) ? `${verdict} ${word(inner['target'])}` : verdict;
  }
  return type === 'ifname' ? `"${word(value)}"` : word(value);
}

function spelled(value: Json, types: readonly string[]): string {
  if (isObject(value)) {
    const { concat, elem } = value;
    if (isList(concat)) return concat.map((part, index) => atom(part, types[index] ?? '')).join(' . ');
    if (isObject(elem)) return spelled(elem['val'] ?? '', types);
  }
  return atom(value, types[0] ?? '');
}

/** Filled by the rules themselves, with time-outs: state of the kernel's, not of ours. */
const isTimed = (declared: JsonObject): boolean => words(declared['flags']).some((flag) => flag === 'dynamic' || flag === 'timeout');

function elementsOf(declared: JsonObject): ListedElement[] {
  const set = word(declared['name']);
  const types = words(declared['type']);
  const found = declared['elem'];
  if (!isList(found)) return [];
  if (declared['map'] === undefined) return found.map((key) => ({ set, key: spelled(key, types) }));
  const values = words(declared['map']);
  const pairs = found.flatMap((pair) => {
    const [key, value] = isList(pair) ? pair : [];
    return key === undefined || value === undefined ? [] : [{ set, key: spelled(key, types), value: spelled(value, values) }];
  });
  return isOfRows(declared['type']) ? inRows(set, pairs) : pairs;
}

/** Whether keys end with a number as rules choose it, `numgen`; how a set is declared by examples, older versions of nft list as types. */
function isOfRows(type: Json | undefined): boolean {
  const example = isObject(type) && isObject(type['typeof']) ? type['typeof']['concat'] : undefined;
  const last = isList(example) ? example.at(-1) : undefined;
  return (isObject(last) && last['numgen'] !== undefined) || (isList(type) && type.at(-1) === 'integer');
}

function inRows(set: string, pairs: readonly { readonly key: string; readonly value: string }[]): ListedElement[] {
  const rows = new Map<string, string[]>();
  for (const { key, value } of pairs) {
    const end = key.lastIndexOf(' . ');
    const values = rows.get(key.slice(0, end)) ?? [];
    values[Number(key.slice(end + 3))] = value;
    rows.set(key.slice(0, end), values);
  }
  return [...rows].map(([key, values]) => ({ set, key, values: Array.from(values, (value: string | undefined) => value ?? '') }));
}

const declarations = (objects: readonly JsonObject[]): JsonObject[] => objects.flatMap(({ set, map }) => [set, map].filter(isObject));

/** The elements of every set and map in the listing of a table, those that rules add by themselves left out. */
export const listedElements = (objects: readonly JsonObject[]): ListedElement[] =>
  declarations(objects)
    .filter((declared) => !isTimed(declared))
    .flatMap(elementsOf);

/** Names of the maps that rules add to by themselves. */
export const timedMaps = (objects: readonly JsonObject[]): string[] =>
  declarations(objects)
    .filter((declared) => isTimed(declared) && declared['map'] !== undefined)
    .map((declared) => word(declared['name']));

export interface TimedElement extends ListedElement {
  readonly timeoutSeconds: number;
  readonly expiresSeconds: number;
}

function timesOf(key: Json | undefined): Pick<TimedElement, 'timeoutSeconds' | 'expiresSeconds'> {
  const times = isObject(key) && isObject(key['elem']) ? key['elem'] : {};
  return { timeoutSeconds: Number(times['timeout'] ?? 0), expiresSeconds: Number(times['expires'] ?? 0) };
}

/** The elements of maps that rules add to by themselves, which are not over yet. */
export const timedElements = (objects: readonly JsonObject[]): TimedElement[] =>
  declarations(objects)
    .filter((declared) => isTimed(declared) && declared['map'] !== undefined)
    .flatMap((declared) => {
      const pairs = isList(declared['elem']) ? declared['elem'] : [];
      return elementsOf(declared).map((element, index) => ({ ...element, ...timesOf(isList(pairs[index]) ? pairs[index][0] : undefined) }));
    })
    .filter(({ expiresSeconds }) => expiresSeconds > 0);

/** One spelling for comparison: quotes, spare spaces and full-length prefixes do not tell elements apart. */
export function canonical(spelling: string): string {
  if (!mayDiffer.test(spelling)) return spelling;
  return spelling
    .replaceAll('"', '')
    .trim()
    .split(/\s+/)
    .map((part) => part.replace(part.includes(':') ? /\/128$/ : /\/32$/, ''))
    .join(' ');
}

/** Few elements have any of this, and there may be a hundred thousand. */
const mayDiffer = /["/]|^\s|\s$|\s\s|[^\S ]/;

/** Named so that no chain of a rendered table has the name by chance. */
export const sealChain = 'cw_seal';

export interface Seal {
  /** The comment of the table. */
  readonly comment: string;
  /** The comment of the seal chain; '' when there is none. */
  readonly written: string;
  /** What it must be, given everything else in the listing. */
  readonly expected: string;
}

/**
 * Digest over everything in a terse listing except the seal and what packets change (counters, quotas). Handles are part
 * of it, and the kernel never gives a handle twice in the life of a table: so a rule that was deleted and added again by
 * somebody is noticed as well.
 */
export function readSeal(objects: readonly JsonObject[]): Seal {
  let comment = '';
  let written = '';
  const rest = objects.filter(({ table, chain }) => {
    if (isObject(table)) comment = word(table['comment']);
    if (!isObject(chain) || chain['name'] !== sealChain) return true;
    written = word(chain['comment']);
    return false;
  });
  const text = JSON.stringify(rest, (name, value: unknown) =>
    name === 'packets' || name === 'bytes' || name === 'used' ? undefined : value,
  );
  return { comment, written, expected: createHash('sha256').update(text).digest('hex').slice(0, 32) };
}
