// From what a connection and a request bring along (a client certificate, a bearer token) to the one who asks. Checked at
// every request, not once per connection, so that a revocation works at once.
import * as v from 'valibot';
import { assertNever, Fault } from '#model/fault.ts';
import type { Entry } from '#store/store.ts';
import { parseAnswer } from '#api/parse.ts';
import type { HostPrincipal, Principal } from './access.ts';
import { canonicalSerial } from './ca.ts';
import { certificateOf } from './certificates.ts';
import type { Control } from './control.ts';
import { keys } from './records.ts';
import { checkToken, readToken } from './tokens.ts';

/** What TLS says of the other side. `problem`: why the certificate does not lead to our authority. */
export interface Peer {
  readonly subject: string;
  /** URI alternative names. */
  readonly uris: readonly string[];
  readonly serial: string;
  /** Milliseconds. */
  readonly expiresAt: number;
  readonly problem?: string;
}

const incarnationSchema = v.object({ generation: v.number(), removed: v.boolean() });

export interface Incarnation {
  readonly generation: number;
  readonly removed: boolean;
  readonly revision: number;
}

const readIncarnation = (entry: Entry | undefined): Incarnation | undefined =>
  entry === undefined ? undefined : { ...parseAnswer(incarnationSchema, entry.value, 'an incarnation'), revision: entry.revision };

/** The latest incarnation of a host name: from the mirror when it is new enough for `atLeast`, otherwise from the store. */
export async function incarnationOf(
  control: Pick<Control, 'mirror' | 'store'>,
  host: string,
  atLeast: number = Infinity,
): Promise<Incarnation | undefined> {
  const known = readIncarnation(control.mirror.entry(keys.incarnation(host)));
  return known !== undefined && known.generation >= atLeast ? known : readIncarnation(await control.store.get(keys.incarnation(host)));
}

const rejoin = 'Join again with a new token: causeway agent --join TOKEN';

/** Faults: `unauthenticated` (foreign, expired, revoked, removed host), `stale` (another has joined under the name since). */
export async function hostOf(control: Control, peer: Peer): Promise<HostPrincipal> {
  if (peer.problem !== undefined)
    throw new Fault('unauthenticated', `The client certificate is refused: ${peer.problem}`, { hint: rejoin });
  if (peer.expiresAt <= control.now().getTime()) throw new Fault('unauthenticated', 'The client certificate has expired', { hint: rejoin });
  const [, host, generationText] =
    peer.uris.map((uri) => /^causeway:host:([^:]+):([0-9]+)$/.exec(uri)).find((match) => match !== null) ?? [];
  if (host === undefined || generationText === undefined || peer.subject !== host) {
    throw new Fault('unauthenticated', 'The client certificate names no host', { hint: rejoin });
  }
  const generation = Number(generationText);
  const incarnation = await incarnationOf(control, host, generation);
  if (incarnation !== undefined && incarnation.generation > generation) {
    throw new Fault(
      'stale',
      `Host ${host} has joined again since (generation ${incarnation.generation}); this is generation ${generation}`,
      {
        hint: 'Two machines use one name: give this one another name and join again',
      },
    );
  }
  if (incarnation?.generation !== generation || incarnation.removed) {
    throw new Fault('unauthenticated', `Host ${host} has been removed`, { hint: rejoin });
  }
  const serial = canonicalSerial(peer.serial);
  if (certificateOf(control, serial)?.revokedAt !== undefined) {
    throw new Fault('unauthenticated', 'The client certificate has been revoked', { hint: rejoin });
  }
  return { type: 'host', host, generation, serial, incarnation: incarnation.revision, expiresAt: peer.expiresAt };
}

/** A token wins over a certificate when both are there. Neither: `anyone`. Faults: `unauthenticated`, `stale`. */
export async function authenticate(control: Control, authorization: string | undefined, peer: Peer | undefined): Promise<Principal> {
  if (authorization !== undefined) {
    const [, text] = /^Bearer +(\S{1,512}) *$/i.exec(authorization) ?? [];
    if (text === undefined)
      throw new Fault('unauthenticated', 'The Authorization header is not "Bearer TOKEN"', { field: 'Authorization' });
    const { record } = await checkToken(control, text, 'api');
    return principalOfRole(record.role ?? '', record.id);
  }
  return peer === undefined ? { type: 'anyone' } : hostOf(control, peer);
}

function principalOfRole(role: string, token: string): Principal {
  if (role === 'admin' || role === 'operator' || role === 'viewer') return { type: 'role', role, token };
  if (role.startsWith('tenant:')) return { type: 'tenant', tenant: role.slice('tenant:'.length), token };
  throw new Fault('corrupt', `The token's role ${JSON.stringify(role)} is not known`);
}

/** Whether a watch that began as `principal` may go on. From the mirror only, so it is cheap enough to ask for everybody. */
export function isStillValid(control: Pick<Control, 'mirror' | 'now'>, principal: Principal): boolean {
  switch (principal.type) {
    case 'anyone':
      return false;
    case 'role':
    case 'tenant': {
      const entry = control.mirror.entry(keys.token(principal.token));
      if (entry === undefined) return false;
      const { expiresAt } = readToken(entry).record;
      return expiresAt === undefined || Date.parse(expiresAt) > control.now().getTime();
    }
    case 'host': {
      const current = control.mirror.entry(keys.incarnation(principal.host))?.revision ?? 0;
      const isRevoked = certificateOf(control, principal.serial)?.revokedAt !== undefined;
      return current <= principal.incarnation && !isRevoked && principal.expiresAt > control.now().getTime();
    }
    default:
      return assertNever(principal);
  }
}
