// Store keys and what lies under them: resources as JSON without their revision (the store has it), and the unique indexes
// that are written in the same commit. Every other file here reads and writes through these functions.
import { Fault } from '#model/fault.ts';
import type { Cidr, Ip } from '#model/ip.ts';
import type { ResourceKind, Resources } from '#model/resources.ts';
import type { Entry, Json, Operation, Store } from '#store/store.ts';
import { parseAnswer } from '#api/parse.ts';
import { schemas } from '#api/schemas.ts';

export const keys = {
  resource: (kind: ResourceKind, id: string): string => `${kind}/${id}`,
  name: (kind: ResourceKind, name: string): string => `names/${kind}/${name}`,
  vni: (vni: number): string => `vnis/${vni}`,
  hostIndex: (index: number): string => `indexes/${index}`,
  claims: (pool: string): string => `claims/${pool}/`,
  claim: (pool: string, cidr: Cidr): string => `claims/${pool}/${cidr}`,
  addresses: (network: string): string => `addresses/${network}/`,
  address: (network: string, ip: Ip): string => `addresses/${network}/${ip}`,
  token: (id: string): string => `tokens/${id}`,
  certificate: (serial: string): string => `certificates/${serial}`,
  incarnation: (host: string): string => `incarnations/${host}`,
  /** Which machine speaks for the host. */
  speaker: (host: string): string => `speakers/${host}`,
  /** Texts of a secret; whoever reads the store can read them. */
  secretTexts: (name: string): string => `secret-texts/${name}`,
  routes: (host: string): string => `routes/${host}`,
  /** Written by whoever depends on a set staying as it was seen; its revision is what others check. */
  guard: (what: string): string => `guards/${what}`,
  /** Its revision is where it begins. */
  epoch: (id: string): string => `epochs/${id}`,
  /** Who of several controllers does it. */
  lease: (what: string): string => `leases/${what}`,
  /** What the one that keeps the cloud has last seen there. */
  cloudReport: 'reports/cloud',
  authority: 'ca/root',
} as const;

/** What a resource is called in a sentence. */
export const singular: Readonly<Record<ResourceKind, string>> = {
  tenants: 'tenant',
  hosts: 'host',
  networks: 'network',
  pools: 'pool',
  blocks: 'block',
  endpoints: 'endpoint',
  exposures: 'exposure',
  bgp: 'resource of BGP',
  secrets: 'secret',
};

/** Plain JSON: no undefined, no shared structure. */
export function toJson(value: unknown): Json {
  const json: Json = JSON.parse(JSON.stringify(value));
  return json;
}

/** The operation that stores `item`; `expect` is the revision it must have now, 0 = it must be new. */
export function putResource<K extends ResourceKind>(kind: K, item: Resources[K], expect: number): Operation {
  const { revision: _, ...rest } = item;
  return { type: 'put', key: keys.resource(kind, item.id), value: toJson(rest), expect };
}

const isRecord = (value: Json): value is { readonly [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A copy of a record's fields; none when it is no record. */
export const fieldsOf = (value: Json): Record<string, Json> => (isRecord(value) ? { ...value } : {});

/** Fault `corrupt`, with the record's key, when it cannot be read. */
export function fromEntry<K extends ResourceKind>(kind: K, { key, value, revision }: Entry): Resources[K] {
  try {
    return parseAnswer(schemas[kind], { ...fieldsOf(value), revision }, key);
  } catch (error) {
    throw new Fault('corrupt', `Cannot read the record ${key} of the store`, {
      hint: 'Restore the store from a backup, as docs/operate.md says',
      cause: error,
    });
  }
}

export async function readResource<K extends ResourceKind>(store: Store, kind: K, id: string): Promise<Resources[K] | undefined> {
  const entry = await store.get(keys.resource(kind, id));
  return entry === undefined ? undefined : fromEntry(kind, entry);
}

/** Every entry below `prefix`, page by page. */
export async function listAll(store: Store, prefix: string): Promise<Entry[]> {
  const all: Entry[] = [];
  for (let after: string | undefined; ;) {
    const { entries, more } = await store.list(prefix, { limit: 1000, ...(after === undefined ? {} : { after }) });
    all.push(...entries);
    after = entries.at(-1)?.key;
    if (!more || after === undefined) return all;
  }
}

export async function listResources<K extends ResourceKind>(store: Store, kind: K): Promise<Resources[K][]> {
  return (await listAll(store, `${kind}/`)).map((entry) => fromEntry(kind, entry));
}

export const notFound = (kind: ResourceKind, id: string): Fault =>
  new Fault('not-found', `No ${singular[kind]} ${JSON.stringify(id)}`, {
    hint: kind === 'blocks' ? undefined : `List them: causeway ${kind === 'bgp' ? 'bgp' : singular[kind]} ls`,
  });

/** The text of an index entry (`names/…`), which holds an id. */
export const idOf = (entry: Entry | undefined): string | undefined =>
  entry !== undefined && typeof entry.value === 'string' ? entry.value : undefined;
