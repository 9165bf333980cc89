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
import { readSpeaker } from './speakers.ts';
import { checkToken, readToken, tenantOf } from './tokens.ts';

/** What TLS says of the other side. `problem`: why the certificate does not lead to our authority. */
export interface Peer {
  readonly subject: string;
  /** URI alternative names. */
  readonly uris: readonly string[];
  readonly serial: string;
  /** Milliseconds. */
  readonly expiresAt: number;
  readonly problem?: string;
  /** The other side's IP address. */
  readonly address?: string;
}

const incarnationSchema = v.object({ generation: v.number(), removed: v.boolean(), machine: v.optional(v.string()) });

export interface Incarnation {
  readonly generation: number;
  readonly removed: boolean;
  /** Which machine joined, where it said so. */
  readonly machine?: string | undefined;
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

/** A certificate is renewed long before it ends, so this host was away for weeks, or one of the two clocks is wrong. */
const expired = ({ expiresAt }: Peer, now: Date): Fault =>
  new Fault(
    'unauthenticated',
    `The client certificate has expired, or is not valid yet: it ends at ${new Date(expiresAt).toISOString()}, and the clock of this controller says ${now.toISOString()}`,
    { hint: `If that clock is wrong, set it; otherwise ${rejoin.charAt(0).toLowerCase()}${rejoin.slice(1)}` },
  );

/** Faults: `stale` when another has joined under the name since, `unauthenticated` when the host has been removed. */
async function currentIncarnation(control: Control, host: string, generation: number): Promise<Incarnation> {
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
  return incarnation;
}

/**
 * `boot`: what the request says of its machine. Faults: `unauthenticated` (foreign, expired, revoked, removed host), `stale`
 * (another has joined under the name since, or another machine speaks with this certificate).
 */
export async function hostOf(control: Control, peer: Peer, boot: string | undefined): Promise<HostPrincipal> {
  if (peer.problem === 'CERT_HAS_EXPIRED' || peer.problem === 'CERT_NOT_YET_VALID') throw expired(peer, control.now());
  if (peer.problem !== undefined)
    throw new Fault('unauthenticated', `The client certificate is refused: ${peer.problem}`, { hint: rejoin });
  if (peer.expiresAt <= control.now().getTime()) throw expired(peer, control.now());
  const [, host, generationText] =
    peer.uris.map((uri) => /^causeway:host:([^:]+):([0-9]+)$/.exec(uri)).find((match) => match !== null) ?? [];
  if (host === undefined || generationText === undefined || peer.subject !== host) {
    throw new Fault('unauthenticated', 'The client certificate names no host', { hint: rejoin });
  }
  const generation = Number(generationText);
  const incarnation = await currentIncarnation(control, host, generation);
  const serial = canonicalSerial(peer.serial);
  if (certificateOf(control, serial)?.revokedAt !== undefined) {
    throw new Fault('unauthenticated', 'The client certificate has been revoked', { hint: rejoin });
  }
  const speaking = { host, generation, boot, address: peer.address };
  control.speakers.check(control, speaking);
  return { type: 'host', ...speaking, serial, incarnation: incarnation.revision, expiresAt: peer.expiresAt };
}

/** What a request shows of who asks. */
export interface Shown {
  readonly authorization: string | undefined;
  /** Of the header that names the machine. */
  readonly boot: string | undefined;
  readonly peer: Peer | undefined;
}

/** A token wins over a certificate when both are there. Neither: `anyone`. Faults: `unauthenticated`, `stale`. */
export async function authenticate(control: Control, { authorization, boot, peer }: Shown): Promise<Principal> {
  if (authorization !== undefined) {
    const [, text] = /^Bearer +(\S{1,512}) *$/i.exec(authorization) ?? [];
    if (text === undefined)
      throw new Fault('unauthenticated', 'The Authorization header is not "Bearer TOKEN"', { field: 'Authorization' });
    const { record } = await checkToken(control, text, 'api');
    return principalOfRole(record.role ?? '', record.id);
  }
  return peer === undefined ? { type: 'anyone' } : hostOf(control, peer, boot);
}

function principalOfRole(role: string, token: string): Principal {
  if (role === 'admin' || role === 'operator' || role === 'viewer') return { type: 'role', role, token };
  const tenant = tenantOf(role);
  if (tenant !== undefined) return { type: 'tenant', tenant, token };
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
      const speaker = readSpeaker(control.mirror.entry(keys.speaker(principal.host)));
      const isReplaced = speaker !== undefined && speaker.generation === principal.generation && speaker.boot !== principal.boot;
      return current <= principal.incarnation && !isRevoked && !isReplaced && principal.expiresAt > control.now().getTime();
    }
    default:
      return assertNever(principal);
  }
}
