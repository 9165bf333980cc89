// Who this host is to the controllers: a key that never leaves the host and the certificate they gave for it, in the state
// directory. Written by `causeway agent --join`, renewed by the running agent before it expires.
import 'reflect-metadata';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import * as v from 'valibot';
import { Pkcs10CertificateRequestGenerator, PemConverter } from '@peculiar/x509';
import { Fault } from '#model/fault.ts';

export interface Identity {
  readonly host: string;
  readonly generation: number;
  readonly controllers: readonly string[];
  /** PEM texts. */
  readonly key: string;
  readonly certificate: string;
  readonly ca: string;
}

const schema: v.GenericSchema<unknown, Identity> = v.object({
  host: v.string(),
  generation: v.number(),
  controllers: v.array(v.string()),
  key: v.string(),
  certificate: v.string(),
  ca: v.string(),
});

const fileOf = (directory: string): string => join(directory, 'identity.json');

/** A new P-256 key and a certificate request for `host`, both PEM. */
export async function makeRequest(host: string): Promise<{ key: string; csr: string }> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const request = await Pkcs10CertificateRequestGenerator.create({ name: `CN=${host}`, keys, signingAlgorithm: algorithm });
  const key = PemConverter.encode(await crypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY');
  return { key, csr: request.toString('pem') };
}

/** Undefined when this host has never joined. Fault `corrupt` when the file is not what we wrote. */
export function readIdentity(directory: string): Identity | undefined {
  let text: string;
  try {
    text = readFileSync(fileOf(directory), 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new Fault('corrupt', `Cannot read ${fileOf(directory)}`, { cause: error });
  }
  try {
    return v.parse(schema, JSON.parse(text));
  } catch (error) {
    throw new Fault('corrupt', `${fileOf(directory)} is not an identity of this agent`, {
      cause: error,
      hint: 'Join again: causeway agent --join TOKEN',
    });
  }
}

/** Replaces the file in one step; readable by root only. */
export function writeIdentity(directory: string, identity: Identity): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const temporary = `${fileOf(directory)}.new`;
  writeFileSync(temporary, `${JSON.stringify(identity, undefined, 2)}\n`, { mode: 0o600, flush: true });
  renameSync(temporary, fileOf(directory));
}

/** Milliseconds until a third of the certificate's life is left; 0 when that has passed. */
export function renewalDue(certificate: string, now: number): number {
  const { validFromDate, validToDate } = new X509Certificate(certificate);
  const life = validToDate.getTime() - validFromDate.getTime();
  return Math.max(0, validToDate.getTime() - life / 3 - now);
}
