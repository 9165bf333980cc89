// The controller's own certificate authority. Its key and certificate live in the store, so that every controller of the
// installation signs alike; whoever starts first makes them. ECDSA P-256 throughout; X.509 profile of RFC 5280.
// oxlint-disable-next-line import/no-unassigned-import -- x509 needs it to be loaded first
import 'reflect-metadata';
import { createHash, randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';
import * as v from 'valibot';
import { Fault, isFault } from '#model/fault.ts';
import type { Store } from '#store/store.ts';
import { parseAnswer } from '#api/parse.ts';
import { keys } from './records.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const day = 86_400_000;
/** A host's clock may be behind ours by this much. */
const backdateMs = 3_600_000;
export const hostLifeMs: number = 30 * day;
export const serverLifeMs: number = 90 * day;
const authorityLifeMs = 3650 * day;

export interface Issued {
  /** PEM. */
  readonly certificate: string;
  /** Lower-case hexadecimal without leading zeros. */
  readonly serial: string;
  readonly issuedAt: string;
  readonly expiresAt: string;
}

export interface Authority {
  /** PEM. */
  readonly certificate: string;
  /** SHA-256 of the certificate's DER form, lower-case hexadecimal: what a join token carries. */
  readonly fingerprint: string;
  /** Certifies the key of a PKCS #10 request; its subject and extensions are not looked at. Fault `invalid` (`csr`). */
  issueHost(csr: string, identity: { host: string; generation: number; now: Date }): Promise<Issued>;
  /** A key pair and certificate for a controller that is reached by these names and addresses. */
  issueServer(names: readonly string[], now: Date): Promise<{ certificate: string; key: string; expiresAt: string }>;
}

const rootSchema = v.object({ certificate: v.string(), key: v.string() });

/** The first byte is 16 to 127, so that the number is positive and has no leading zeros, neither in bytes nor in digits. */
const newSerial = (): string => (0x10 + ((randomBytes(1)[0] ?? 0) % 0x70)).toString(16) + randomBytes(15).toString('hex');

/** As in `certificates/<serial>`, from whatever spelling. */
export const canonicalSerial = (serial: string): string =>
  serial
    .toLowerCase()
    .replaceAll(':', '')
    .replace(/^0+(?=.)/, '');

const toPem = (label: string, der: ArrayBuffer): string => x509.PemConverter.encode(der, label);

async function makeRoot(now: Date): Promise<{ certificate: string; key: string }> {
  const pair = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=Causeway CA ${randomBytes(4).toString('hex')}`,
    serialNumber: newSerial(),
    notBefore: new Date(now.getTime() - backdateMs),
    notAfter: new Date(now.getTime() + authorityLifeMs),
    keys: pair,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(pair.publicKey),
    ],
  });
  return {
    certificate: certificate.toString('pem'),
    key: toPem('PRIVATE KEY', await webcrypto.subtle.exportKey('pkcs8', pair.privateKey)),
  };
}

/** Finds the installation's authority, or makes it when there is none. Faults: `unavailable`, `corrupt`. */
export async function openAuthority(store: Store, now: Date): Promise<Authority> {
  for (;;) {
    const found = await store.get(keys.authority);
    if (found !== undefined) return authorityOf(parseAnswer(rootSchema, found.value, 'the certificate authority'));
    try {
      const root = await makeRoot(now);
      await store.commit([{ type: 'put', key: keys.authority, value: root, expect: 0 }]);
    } catch (error) {
      // Another controller was faster: take its authority.
      if (!isFault(error, 'conflict')) throw error;
    }
  }
}

async function authorityOf(root: { certificate: string; key: string }): Promise<Authority> {
  const own = new x509.X509Certificate(root.certificate);
  const signingKey = await webcrypto.subtle.importKey('pkcs8', x509.PemConverter.decodeFirst(root.key), algorithm, false, ['sign']);
  const usages = x509.KeyUsageFlags.digitalSignature;

  const issue = async (
    subject: string,
    publicKey: x509.PublicKey,
    { now, lifeMs, purpose, names }: { now: Date; lifeMs: number; purpose: x509.ExtendedKeyUsage[]; names: x509.JsonGeneralName[] },
  ): Promise<Issued> => {
    const [notBefore, notAfter] = [new Date(now.getTime() - backdateMs), new Date(now.getTime() + lifeMs)];
    const serial = newSerial();
    const certificate = await x509.X509CertificateGenerator.create({
      subject,
      issuer: own.subject,
      serialNumber: serial,
      notBefore,
      notAfter,
      publicKey,
      signingKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(usages, true),
        new x509.ExtendedKeyUsageExtension(purpose),
        new x509.SubjectAlternativeNameExtension(names),
        await x509.AuthorityKeyIdentifierExtension.create(own),
      ],
    });
    return {
      certificate: certificate.toString('pem'),
      serial: canonicalSerial(serial),
      issuedAt: now.toISOString(),
      expiresAt: notAfter.toISOString(),
    };
  };

  return {
    certificate: root.certificate,
    fingerprint: createHash('sha256').update(Buffer.from(own.rawData)).digest('hex'),
    issueHost: async (csr, { host, generation, now }) => {
      const publicKey = await keyOfRequest(csr);
      return issue(`CN=${host}`, publicKey, {
        now,
        lifeMs: hostLifeMs,
        purpose: [x509.ExtendedKeyUsage.clientAuth],
        names: [{ type: 'url', value: `causeway:host:${host}:${generation}` }],
      });
    },
    issueServer: async (names, now) => {
      const pair = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
      const { certificate, expiresAt } = await issue('CN=causeway controller', await x509.PublicKey.create(pair.publicKey), {
        now,
        lifeMs: serverLifeMs,
        purpose: [x509.ExtendedKeyUsage.serverAuth],
        names: [...new Set(names)].map((name) => ({ type: isIP(name) === 0 ? 'dns' : 'ip', value: name })),
      });
      const key = toPem('PRIVATE KEY', await webcrypto.subtle.exportKey('pkcs8', pair.privateKey));
      // The chain holds the authority itself, so that a host that joins can compare it with its token's fingerprint.
      return { certificate: `${certificate}\n${root.certificate}\n`, key, expiresAt };
    },
  };
}

/** The public key of a PKCS #10 request whose signature proves that the asker has the private one. */
async function keyOfRequest(csr: string): Promise<x509.PublicKey> {
  let request: x509.Pkcs10CertificateRequest;
  try {
    request = new x509.Pkcs10CertificateRequest(csr);
    if (!(await request.verify()))
      throw new Fault('invalid', 'The signature of the certificate request does not fit its key', { field: 'csr' });
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault('invalid', 'The certificate request cannot be read', { field: 'csr', hint: 'Send PKCS #10 as PEM', cause: error });
  }
  const { name } = request.publicKey.algorithm;
  if (name !== 'ECDSA')
    throw new Fault('invalid', `Keys of type ${name} are not certified`, { field: 'csr', hint: 'Use an ECDSA P-256 key' });
  return request.publicKey;
}

/** Identifies the key of a request, so that asking again with the same one can be told. */
export async function fingerprintOfRequest(csr: string): Promise<string> {
  return createHash('sha256')
    .update(Buffer.from((await keyOfRequest(csr)).rawData))
    .digest('hex');
}
