// Tokens: one-time ones that make a host, and lasting ones for people and programs. The store holds only the hash of a
// secret; the text is shown once. The secrets are random, so one round of SHA-256 is enough.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';
import type { Entry, Operation } from '#store/store.ts';
import type { NewToken, TokenRecord } from '#api/answers.ts';
import { tokenRecord } from '#api/answers.ts';
import { formatToken, parseToken } from '#api/identity.ts';
import { parseAnswer } from '#api/parse.ts';
import type { TokenRequest } from '#api/requests.ts';
import { type Control, operationLimit, transact } from './control.ts';
import { fieldsOf, keys, listAll, toJson } from './records.ts';

/** How long a join token is good unless told. */
const joinLifeSeconds = 3600;

/** What of a token is shown to nobody. */
interface Secret {
  /** SHA-256 of the secret, hexadecimal. */
  readonly hash: string;
  /** Fingerprint of the key that was certified with it. */
  readonly usedKey?: string;
  /** Of the host that joined with it. */
  readonly usedGeneration?: number;
}
const secretPart: v.GenericSchema<unknown, Secret> = v.object({
  hash: v.string(),
  usedKey: v.exactOptional(v.string()),
  usedGeneration: v.exactOptional(v.number()),
});

export interface StoredToken extends Secret {
  readonly record: TokenRecord;
  readonly revision: number;
}

const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex');

/** 40 lower-case letters and digits, about 200 bits. */
export const newSecret = (): string => [...randomBytes(40)].map((byte) => (byte % 36).toString(36)).join('');

/** Each entry is read once; it is looked at with every request. */
const known = new WeakMap<Entry, StoredToken>();

export function readToken(entry: Entry): StoredToken {
  const token = known.get(entry) ?? parseStored(entry);
  known.set(entry, token);
  return token;
}

function parseStored(entry: Entry): StoredToken {
  const secret = parseAnswer(secretPart, entry.value, 'a token');
  const record = parseAnswer(tokenRecord, fieldsOf(entry.value), 'a token');
  return { record, ...secret, revision: entry.revision };
}

export const tokenValue = (record: TokenRecord, secret: Secret): ReturnType<typeof toJson> => toJson({ ...record, ...secret });

const isExpired = ({ expiresAt }: TokenRecord, now: Date): boolean => expiresAt !== undefined && Date.parse(expiresAt) <= now.getTime();

const rolePrefix = 'tenant:';

/** Whose role it is; undefined: of no tenant. */
export const tenantOf = (role: string): string | undefined => (role.startsWith(rolePrefix) ? role.slice(rolePrefix.length) : undefined);

/** What must still be so when the token is written. */
async function checkRequest({ store }: Control, { type, role, host }: TokenRequest): Promise<Operation[]> {
  if (type === 'join' && role !== undefined) throw new Fault('invalid', 'A join token has no role', { field: 'role' });
  if (type === 'join') return [];
  if (host !== undefined) throw new Fault('invalid', 'Only join tokens are bound to a host', { field: 'host' });
  if (role === undefined) {
    throw new Fault('invalid', 'An API token needs a role', { field: 'role', hint: 'Use admin, operator, viewer or tenant:NAME' });
  }
  const tenant = tenantOf(role);
  if (tenant === undefined) return [];
  const entry = await store.get(keys.resource('tenants', tenant));
  if (entry === undefined)
    throw new Fault('not-found', `No tenant ${tenant}`, { field: 'role', hint: `Create it: causeway tenant create ${tenant}` });
  return [
    { type: 'check', key: entry.key, expect: entry.revision },
    { type: 'put', key: tenantTokens(tenant), value: null },
  ];
}

/** Whoever makes a token of that tenant writes it. */
const tenantTokens = (tenant: string): string => keys.guard(`tokens-${tenant}`);

/**
 * The next operations that take a tenant's tokens away, with none made meanwhile: one who gets the name later is another. The
 * guard goes with the last of them, so as long as `mayHaveMore` it tells that some are left.
 */
export async function removalOfTokens(
  { store }: Pick<Control, 'store'>,
  tenant: string,
): Promise<{ operations: Operation[]; mayHaveMore: boolean }> {
  const key = tenantTokens(tenant);
  const guard = (await store.get(key))?.revision ?? 0;
  const all = (await listAll(store, keys.token(''))).filter((entry) => tenantOf(readToken(entry).record.role ?? '') === tenant);
  const some = all.slice(0, operationLimit);
  const mayHaveMore = some.length < all.length;
  return {
    operations: [
      mayHaveMore || guard === 0 ? { type: 'check', key, expect: guard } : { type: 'delete', key, expect: guard },
      ...some.map((entry): Operation => ({ type: 'delete', key: entry.key })),
    ],
    mayHaveMore,
  };
}

/** Of a tenant that exists no more; when one of that name does, they are its own and stay. */
export async function removeTokensOf(control: Control, tenant: string): Promise<void> {
  const key = keys.resource('tenants', tenant);
  for (let mayHaveMore = true; mayHaveMore;) {
    mayHaveMore = await transact(control, async () => {
      if ((await control.store.get(key)) !== undefined) return { operations: [], answer: () => false };
      const next = await removalOfTokens(control, tenant);
      return { operations: [{ type: 'check', key, expect: 0 }, ...next.operations], answer: () => next.mayHaveMore };
    });
  }
}

/** What must hold while a tenant gets its name: no token is left of one that had it before. */
export const noTokensOf = (tenant: string): Operation => ({ type: 'check', key: tenantTokens(tenant), expect: 0 });

/** Faults: `invalid` when role or host do not fit the type; `not-found` for an unknown tenant. */
export async function createToken(control: Control, request: TokenRequest): Promise<NewToken> {
  const { type, role, host, name = '' } = request;
  const now = control.now();
  const life = request.ttlSeconds ?? (type === 'join' ? joinLifeSeconds : undefined);
  const [id, secret] = [control.newId(), newSecret()];
  const record: TokenRecord = {
    id,
    type,
    name,
    ...(role === undefined ? {} : { role }),
    ...(host === undefined ? {} : { host }),
    createdAt: now.toISOString(),
    ...(life === undefined ? {} : { expiresAt: new Date(now.getTime() + life * 1000).toISOString() }),
  };
  const value = tokenValue(record, { hash: hashOf(secret) });
  await transact(control, async () => ({
    operations: [...(await checkRequest(control, request)), { type: 'put', key: keys.token(id), value, expect: 0 }],
    answer: () => undefined,
  }));
  const text = formatToken(type === 'join' ? { type, id, secret, fingerprint: control.authority.fingerprint } : { type, id, secret });
  return { ...record, token: text };
}

export function listTokens(control: Control): TokenRecord[] {
  return control.mirror
    .entries('tokens')
    .map((entry) => readToken(entry).record)
    .toSorted((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
}

/** Fault `not-found`. */
export async function deleteToken(control: Control, id: string): Promise<void> {
  await transact(control, async () => {
    const entry = await control.store.get(keys.token(id));
    if (entry === undefined) throw new Fault('not-found', `No token ${id}`, { hint: 'List them: causeway token ls' });
    return { operations: [{ type: 'delete', key: entry.key, expect: entry.revision }], answer: () => undefined };
  });
}

const refused = (why: string, hint: string): Fault => new Fault('unauthenticated', why, { hint });

/**
 * The token that `text` stands for, expired ones refused; whether a join token has been used is for the caller to judge.
 * Fault `unauthenticated`, with the same words for an unknown id and a wrong secret.
 */
export async function checkToken(control: Control, text: string, type: TokenRecord['type']): Promise<StoredToken> {
  const hint = type === 'join' ? 'Create one: causeway token create --join' : 'Create one: causeway token create --role ROLE';
  const token = parseToken(text);
  if (token?.type !== type) throw refused(`Not ${type === 'join' ? 'a join' : 'an API'} token`, hint);
  const key = keys.token(token.id);
  // API tokens do not change, so the mirror is good enough; join tokens are used up, so only the store is.
  const entry = (type === 'api' ? control.mirror.entry(key) : undefined) ?? (await control.store.get(key));
  const stored = entry === undefined ? undefined : readToken(entry);
  const given = Buffer.from(hashOf(token.secret));
  if (stored?.record.type !== type || !timingSafeEqual(given, Buffer.from(stored.hash))) throw refused('The token is not known', hint);
  if (isExpired(stored.record, control.now())) throw refused('The token has expired', hint);
  return stored;
}
