// A host's key pair and certificate request (PKCS #10), and the text of tokens.
import { webcrypto, X509Certificate } from 'node:crypto';
import { Fault } from '#model/fault.ts';

export interface KeyAndRequest {
  /** PKCS #8, PEM. Stays on the host. */
  readonly key: string;
  /** PKCS #10, PEM. */
  readonly csr: string;
}

/** A fresh ECDSA P-256 key for `name`, of `group` where one is said, and the request to certify it (RFC 2986). */
export async function makeIdentity(name: string, group?: string): Promise<KeyAndRequest> {
  // Not before it is needed: see identity-apart.ts. x509 wants reflect-metadata to be there.
  await import('reflect-metadata');
  const { PemConverter, Pkcs10CertificateRequestGenerator } = await import('@peculiar/x509');
  const signingAlgorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(signingAlgorithm, true, ['sign', 'verify']);
  const subject = [{ CN: [name] }, ...(group === undefined ? [] : [{ O: [group] }])];
  const request = await Pkcs10CertificateRequestGenerator.create({ name: subject, keys, signingAlgorithm });
  const key = PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY');
  return { key, csr: request.toString('pem') };
}

/** `cwj_…` makes a host, `cwa_…` speaks for a person or program. The fingerprint is the CA's, SHA-256, hexadecimal. */
export type TokenText =
  | { readonly type: 'join'; readonly id: string; readonly secret: string; readonly fingerprint: string }
  | { readonly type: 'api'; readonly id: string; readonly secret: string };

export const formatToken = (token: TokenText): string =>
  token.type === 'join' ? `cwj_${token.id}_${token.secret}_${token.fingerprint}` : `cwa_${token.id}_${token.secret}`;

/** Undefined when it is not the text of a token. */
export function parseToken(text: string): TokenText | undefined {
  const [, kind, id, secret, fingerprint] = /^cw([ja])_([0-9a-z]{10,64})_([0-9a-z]{20,64})(?:_([0-9a-f]{64}))?$/.exec(text.trim()) ?? [];
  if (id === undefined || secret === undefined) return undefined;
  if (kind === 'j') return fingerprint === undefined ? undefined : { type: 'join', id, secret, fingerprint };
  return fingerprint === undefined ? { type: 'api', id, secret } : undefined;
}

/** When a certificate begins and ceases to be valid, in milliseconds. Fault `invalid` when `pem` holds none. */
export function validityOf(pem: string): { readonly from: number; readonly to: number } {
  try {
    const { validFromDate, validToDate } = new X509Certificate(pem);
    return { from: validFromDate.getTime(), to: validToDate.getTime() };
  } catch (error) {
    throw new Fault('invalid', 'Not a certificate in PEM form', { field: 'certificate', cause: error });
  }
}

/** Whether two thirds of a certificate's life have passed: time to rotate it. */
export function needsRotation(pem: string, now: number): boolean {
  const { from, to } = validityOf(pem);
  return now >= from + ((to - from) * 2) / 3;
}
