// What the controller answers beyond resources: pages, certificates, tokens, results of a batch, and the lines of a watch.
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';
import type { Cidr } from '#model/ip.ts';
import type { Endpoint, ResourceKind, Resources } from '#model/resources.ts';
import * as field from './fields.ts';
import { type EntriesOf, parseAnswer, type Schema } from './parse.ts';
import { kind, schemas } from './schemas.ts';

const optional = v.exactOptional;

export interface Page<T> {
  readonly items: readonly T[];
  /** Store revision that the page was read at. */
  readonly revision: number;
  /** Pass it as `after` to get the next page; absent on the last. */
  readonly next?: string;
}
export const pageOf = <T>(item: Schema<T>): Schema<Page<T>> =>
  v.strictObject({ items: v.array(item), revision: field.count, next: optional(v.string()) });

/** PEM texts. `certificate` is for the asker, `ca` is whom to trust. */
export interface CertificateAnswer {
  readonly certificate: string;
  readonly ca: string;
  readonly host: Resources['hosts'];
}
export const certificateAnswer: Schema<CertificateAnswer> = v.strictObject({
  certificate: v.string(),
  ca: v.string(),
  host: schemas.hosts,
} satisfies EntriesOf<CertificateAnswer>);

/** Never with the secret, except in the answer to its creation (`token`). */
export interface TokenRecord {
  readonly id: string;
  readonly type: 'join' | 'api';
  readonly name: string;
  readonly role?: string;
  readonly host?: string;
  readonly createdAt: string;
  readonly expiresAt?: string;
  readonly usedAt?: string;
  readonly usedBy?: string;
}
const tokenEntries = {
  id: v.string(),
  type: v.picklist(['join', 'api']),
  name: v.string(),
  role: optional(field.role),
  host: optional(field.name),
  createdAt: field.timestamp,
  expiresAt: optional(field.timestamp),
  usedAt: optional(field.timestamp),
  usedBy: optional(v.string()),
} satisfies EntriesOf<TokenRecord>;
export const tokenRecord: Schema<TokenRecord> = v.strictObject(tokenEntries);
export interface NewToken extends TokenRecord {
  readonly token: string;
}
export const newToken: Schema<NewToken> = v.strictObject({ ...tokenEntries, token: v.string() });

/** A certificate that the controller has issued to a host. */
export interface CertificateRecord {
  readonly serial: string;
  readonly host: string;
  readonly generation: number;
  readonly issuedAt: string;
  readonly expiresAt: string;
  readonly revokedAt?: string;
}
export const certificateRecord: Schema<CertificateRecord> = v.strictObject({
  serial: v.string(),
  host: field.name,
  generation: field.count,
  issuedAt: field.timestamp,
  expiresAt: field.timestamp,
  revokedAt: optional(field.timestamp),
} satisfies EntriesOf<CertificateRecord>);

/** RFC 9457, with our code, field and hint beside it. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly field?: string;
  readonly hint?: string;
}
export const problem: Schema<Problem> = v.object({
  type: v.string(),
  title: v.string(),
  status: v.number(),
  detail: v.string(),
  code: v.string(),
  field: optional(v.string()),
  hint: optional(v.string()),
} satisfies EntriesOf<Problem>);

/** In the order of the request: deletes first, then puts. Either `item` (of a put), or `problem`, or neither (deleted). */
export interface BatchResult {
  readonly id: string;
  readonly item?: Endpoint;
  readonly problem?: Problem;
}
export const batchAnswer: Schema<{ results: BatchResult[] }> = v.strictObject({
  results: v.array(
    v.strictObject({ id: v.string(), item: optional(schemas.endpoints), problem: optional(problem) } satisfies EntriesOf<BatchResult>),
  ),
});

/** Of an empty answer. */
export const nothing: Schema<undefined> = v.undefined();

/** The texts of a secret by key; for hosts that need them. */
export interface SecretTexts {
  readonly texts: Readonly<Record<string, string>>;
}
export const secretTexts: Schema<SecretTexts> = v.strictObject({ texts: v.record(v.string(), v.string()) });

export const proposal: Schema<{ cidr: Cidr }> = v.strictObject({ cidr: field.cidr });

export interface VersionAnswer {
  /** Of the controller's program. */
  readonly version: string;
  /** Of the protocol: what the header `Causeway-Version` carries. */
  readonly api: string;
}
export const versionAnswer: Schema<VersionAnswer> = v.strictObject({ version: v.string(), api: v.string() });

/** What the controller that keeps the cloud last knew of it. */
export interface CloudReport {
  /** Project and cloud, in words. */
  readonly place: string;
  /** When the cloud was last as it should be, or was made so. */
  readonly lookedAt?: string;
  /** When something was last changed there, and what. */
  readonly changedAt?: string;
  readonly changes: readonly string[];
  /** What is in the way and nothing can be done about from here. */
  readonly problems: readonly string[];
  /** By which exposures are reached, by their names: floating IPs, and addresses of load balancers that have none. */
  readonly addresses?: Readonly<Record<string, string>>;
  /** Why it cannot be looked at or changed. */
  readonly failure?: CloudFailure;
}
export interface CloudFailure {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly since: string;
}
export const cloudReport: Schema<CloudReport> = v.strictObject({
  place: v.string(),
  lookedAt: optional(field.timestamp),
  changedAt: optional(field.timestamp),
  changes: v.array(v.string()),
  problems: v.array(v.string()),
  addresses: optional(v.record(v.string(), v.string())),
  failure: optional(
    v.strictObject({
      code: v.string(),
      message: v.string(),
      hint: optional(v.string()),
      since: field.timestamp,
    } satisfies EntriesOf<CloudFailure>),
  ),
} satisfies EntriesOf<CloudReport>);

export interface PutLine<K extends ResourceKind> {
  readonly type: 'put';
  readonly kind: K;
  readonly item: Resources[K];
  readonly revision: number;
}
type PutReaders = { readonly [K in ResourceKind]: (item: unknown, revision: number) => PutLine<K> };
type AnyPutLine = { [K in ResourceKind]: PutLine<K> }[ResourceKind];
/**
 * One line of a watch. Puts and deletes may come twice, never out of order. `synced`: everything up to `revision` has been
 * said; when `whole` is set, what came before it on this connection is all there is, and the reader drops anything else.
 * `bookmark`: nothing before `revision` is missing, so it may be used as `since`. `epoch` goes with it: after a restore of the
 * store from a backup the same revision stands for something else, and the watch begins anew.
 */
export type WatchLine =
  | AnyPutLine
  | { readonly type: 'delete'; readonly kind: ResourceKind; readonly id: string; readonly revision: number }
  | { readonly type: 'synced'; readonly revision: number; readonly epoch?: string; readonly whole: boolean }
  | { readonly type: 'bookmark'; readonly revision: number; readonly epoch?: string };

const revision = field.count;
const epoch = v.exactOptional(v.string());
const lineSchema = v.variant('type', [
  v.object({ type: v.literal('put'), kind, item: v.unknown(), revision }),
  v.object({ type: v.literal('delete'), kind, id: v.string(), revision }),
  v.object({ type: v.literal('synced'), revision, epoch, whole: v.boolean() }),
  v.object({ type: v.literal('bookmark'), revision, epoch }),
]);

const readerOf =
  <K extends ResourceKind>(of: K): ((item: unknown, revision: number) => PutLine<K>) =>
  (item, at) => ({ type: 'put', kind: of, item: parseAnswer(schemas[of], item, `one of ${of}`), revision: at });
const putReaders: PutReaders = {
  tenants: readerOf('tenants'),
  hosts: readerOf('hosts'),
  networks: readerOf('networks'),
  pools: readerOf('pools'),
  blocks: readerOf('blocks'),
  endpoints: readerOf('endpoints'),
  exposures: readerOf('exposures'),
  bgp: readerOf('bgp'),
  secrets: readerOf('secrets'),
};

/** Reads one line; undefined when its type or kind is of a newer version than this. Fault `corrupt` when it makes no sense. */
export function parseWatchLine(text: string): WatchLine | undefined {
  let input: unknown;
  try {
    input = JSON.parse(text);
  } catch (error) {
    throw new Fault('corrupt', 'Cannot read a line of the watch', { cause: error });
  }
  const { success, output } = v.safeParse(lineSchema, input);
  if (!success) return undefined;
  return output.type === 'put' ? putReaders[output.kind](output.item, output.revision) : output;
}
