// The first contact of a host: it knows a token and an address, but no CA yet. The token holds the fingerprint of the CA, so
// the CA is fetched over a connection that proves nothing, compared, and only then is the secret sent over one that does.
import { connect, type DetailedPeerCertificate } from 'node:tls';
import { createHash } from 'node:crypto';
import { Fault } from '#model/fault.ts';
import type { CertificateAnswer } from './answers.ts';
import { Client } from './client.ts';
import { type KeyAndRequest, makeIdentity, parseToken } from './identity.ts';
import { transportFault } from './transport.ts';

const firstContactMs = 10_000;

export interface JoinOptions {
  readonly urls: readonly string[];
  readonly token: string;
  readonly host: string;
  /** Of the agent's program. */
  readonly version: string;
  /** Names the machine. */
  readonly machine?: string | undefined;
  readonly make?: (host: string) => Promise<KeyAndRequest>;
}

export interface Joined extends CertificateAnswer {
  /** PEM; made here and sent nowhere. */
  readonly key: string;
}

const toPem = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replaceAll(/.{64}(?=.)/g, '$&\n')}\n-----END CERTIFICATE-----\n`;

function issuers(leaf: DetailedPeerCertificate): Buffer[] {
  const chain: Buffer[] = [];
  let next: DetailedPeerCertificate | undefined = leaf;
  for (const seen = new Set<DetailedPeerCertificate>(); next?.raw !== undefined && !seen.has(next); next = next.issuerCertificate) {
    seen.add(next);
    chain.push(next.raw);
  }
  return chain;
}

/** The CA that the controller at `url` shows, if its SHA-256 is `fingerprint`. Faults: `unauthenticated`, `unavailable`. */
export async function fetchCa(url: string, fingerprint: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const host = hostname.replaceAll(/[[\]]/g, '');
  const { promise, resolve, reject } = Promise.withResolvers<Buffer[]>();
  // Nothing is believed or sent on this connection: what it shows is compared with the fingerprint.
  const socket = connect({ host, port: port === '' ? 443 : Number(port), rejectUnauthorized: false, timeout: firstContactMs });
  socket.once('secureConnect', () => resolve(issuers(socket.getPeerCertificate(true))));
  socket.once('timeout', () => reject(new Fault('timeout', `No answer from ${url}`)));
  socket.once('error', (error) => reject(transportFault(error)));
  try {
    const ca = (await promise).find((der) => createHash('sha256').update(der).digest('hex') === fingerprint);
    if (ca !== undefined) return toPem(ca);
    throw new Fault('unauthenticated', `${url} is not the controller that made the token`, {
      hint: 'Check the address; if the controller was set up anew, create a new token',
    });
  } finally {
    socket.destroy();
  }
}

/** Makes a key, joins and returns everything the host needs from now on. Faults: as fetchCa and Client.join; `invalid` token, `exists` name. */
export async function joinCluster({ urls, token, host, version, machine, make = makeIdentity }: JoinOptions): Promise<Joined> {
  const parsed = parseToken(token);
  if (parsed?.type !== 'join')
    throw new Fault('invalid', 'Not a join token', { field: 'token', hint: 'Create one: causeway token create --join' });
  const { key, csr } = await make(host);
  let failure: unknown = new Fault('invalid', 'No controller to talk to', { field: 'urls' });
  for (const url of urls) {
    try {
      const ca = await fetchCa(url, parsed.fingerprint);
      await using client = new Client({ urls: [url], ca });
      return { ...(await client.join({ token: token.trim(), csr, host, version, ...(machine === undefined ? {} : { machine }) })), key };
    } catch (error) {
      failure = error;
      if (!(error instanceof Fault) || (error.code !== 'unavailable' && error.code !== 'timeout')) throw error;
    }
  }
  throw failure;
}
