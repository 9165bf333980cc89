// A host's key pair and certificate request (PKCS #10), and the text of tokens. The request is written here octet by octet,
// because it has one shape only: a library for certificates would stay in the agent's memory (9 MB) for one call a month.
import { generateKeyPair, sign, X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import { Fault } from '#model/fault.ts';

export interface KeyAndRequest {
  /** PKCS #8, PEM. Stays on the host. */
  readonly key: string;
  /** PKCS #10, PEM. */
  readonly csr: string;
}

const generate = promisify(generateKeyPair);

/** A fresh ECDSA P-256 key for `host` and the request to certify it (RFC 2986). */
export async function makeIdentity(host: string): Promise<KeyAndRequest> {
  const { privateKey, publicKey } = await generate('ec', { namedCurve: 'prime256v1' });
  const info = der(
    tag.sequence,
    der(tag.integer, Buffer.of(0)),
    der(tag.sequence, der(tag.set, der(tag.sequence, oid.commonName, der(tag.utf8String, Buffer.from(host))))),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(tag.attributes),
  );
  const signature = der(tag.bitString, Buffer.of(0), sign('sha256', info, privateKey));
  const csr = toPem('CERTIFICATE REQUEST', der(tag.sequence, info, der(tag.sequence, oid.ecdsaWithSha256), signature));
  return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), csr };
}

/** X.690: the octets that say what a value is. */
const tag = { integer: 0x02, bitString: 0x03, utf8String: 0x0c, sequence: 0x30, set: 0x31, attributes: 0xa0 };
/** Whole object identifiers: 2.5.4.3 and 1.2.840.10045.4.3.2 (RFC 5758). */
const oid = { commonName: Buffer.from('0603550403', 'hex'), ecdsaWithSha256: Buffer.from('06082a8648ce3d040302', 'hex') };

/** A value in DER: tag, length, contents; at most 65,535 octets. */
function der(what: number, ...parts: readonly Buffer[]): Buffer {
  const contents = Buffer.concat(parts);
  const { length } = contents;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.of(what, ...size), contents]);
}

export const toPem = (label: string, contents: Buffer): string =>
  `-----BEGIN ${label}-----\n${contents.toString('base64').replaceAll(/.{64}(?=.)/g, '$&\n')}\n-----END ${label}-----\n`;

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
