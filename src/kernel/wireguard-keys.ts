// Keys of hosts, WireGuard's and others: X25519 (RFC 7748), written in base64 as wg(8) does. A private key stays on its host, in one file that
// only its owner can read.
import { createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, linkSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { Fault } from '#model/fault.ts';

export interface KeyPair {
  readonly privateKey: string;
  readonly publicKey: string;
}

// DER of a PKCS #8 X25519 private key (RFC 8410, section 7) up to the 32 bytes themselves.
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');
// The same of a public one (RFC 8410, section 4).
const spkiPrefix = Buffer.from('302a300506032b656e032100', 'hex');

const rawPart = (key: KeyObject, part: 'd' | 'x'): string =>
  Buffer.from(key.export({ format: 'jwk' })[part] ?? '', 'base64url').toString('base64');

/** A new key pair. */
export function generateKeyPair(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('x25519');
  return { privateKey: rawPart(privateKey, 'd'), publicKey: rawPart(publicKey, 'x') };
}

/** The 32 bytes of a key in base64. Fault `corrupt`. */
export function keyBytes(key: string): Buffer {
  const bytes = Buffer.from(key, 'base64');
  if (bytes.length !== 32 || bytes.toString('base64') !== key) throw new Fault('corrupt', 'Cannot read a key: not 32 bytes of base64');
  return bytes;
}

const readPrivate = (privateKey: string): KeyObject =>
  createPrivateKey({ key: Buffer.concat([pkcs8Prefix, keyBytes(privateKey)]), format: 'der', type: 'pkcs8' });

/** The public key that goes with a private one. Fault `corrupt`. */
export const publicKeyOf = (privateKey: string): string => rawPart(createPublicKey(readPrivate(privateKey)), 'x');

/** What the owners of the two keys have in common (RFC 7748, section 6.1); undefined where the public key is one of no use. Fault `corrupt`. */
export function sharedSecret(privateKey: string, publicKey: string): Buffer | undefined {
  const theirs = createPublicKey({ key: Buffer.concat([spkiPrefix, keyBytes(publicKey)]), format: 'der', type: 'spki' });
  try {
    return diffieHellman({ privateKey: readPrivate(privateKey), publicKey: theirs });
  } catch {
    // A point of low order: OpenSSL refuses what everybody could know.
    return undefined;
  }
}

/**
 * The key pair whose private key is in the file; made and written with mode 0600 when there is none. Of several processes
 * that start at once all get the same. Fault `corrupt` when the file holds something else: it is never overwritten.
 */
export function loadKeyPair(path: string): KeyPair {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'ENOENT') throw error;
    writeNewKey(path);
    text = readFileSync(path, 'utf8');
  }
  try {
    const privateKey = text.trim();
    return { privateKey, publicKey: publicKeyOf(privateKey) };
  } catch (cause) {
    throw new Fault('corrupt', `Cannot read the key in ${path}`, {
      cause,
      hint: `Restore ${path}, or remove it to get a new key`,
    });
  }
}

/**
 * Another system's key becomes the one in `path`, whatever was there: who encrypts to this host goes on doing so. Returns whether
 * there is one in `from`. Fault `corrupt` when it holds something else.
 */
export function takeKey(from: string, path: string): boolean {
  if (!existsSync(from)) return false;
  const { privateKey } = loadKeyPair(from);
  renameSync(writeKey(path, privateKey), path);
  return true;
}

/** Beside the file it is for, whole. */
function writeKey(path: string, privateKey: string): string {
  const temporary = `${path}.${process.pid}`;
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    writeSync(fd, `${privateKey}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  return temporary;
}

function writeNewKey(path: string): void {
  const temporary = writeKey(path, generateKeyPair().privateKey);
  try {
    linkSync(temporary, path);
  } catch (error) {
    // Another process was faster: its key counts.
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'EEXIST') throw error;
  } finally {
    rmSync(temporary);
  }
}
