// Who this host is to the controllers: a key that never leaves the host and the certificate they gave for it, in the state
// directory. Written by `causeway agent --join`, renewed by the running agent before it expires. It belongs to one machine: a
// copy of the state directory elsewhere would give out addresses that the first one gives out too.
import { createHmac } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';

export interface Identity {
  readonly host: string;
  readonly generation: number;
  readonly controllers: readonly string[];
  /** PEM texts. */
  readonly key: string;
  readonly certificate: string;
  readonly ca: string;
  /** Id of the join token that it was made with; absent in files of early versions. */
  readonly token?: string;
  /** Which machine joined, as machineOf names it. */
  readonly machine?: string | undefined;
}

const schema: v.GenericSchema<unknown, Identity> = v.object({
  host: v.string(),
  generation: v.number(),
  controllers: v.array(v.string()),
  key: v.string(),
  certificate: v.string(),
  ca: v.string(),
  token: v.exactOptional(v.string()),
  machine: v.optional(v.string()),
});

/**
 * Names this machine, from machine-id(5), which must not be told to others as it is. Undefined where there is none, as in a
 * managed plugin's root.
 */
export function machineOf(file = '/etc/machine-id'): string | undefined {
  try {
    const id = readFileSync(file, 'utf8').trim();
    return /^[0-9a-f]{32}$/.test(id) ? createHmac('sha256', id).update('causeway').digest('hex').slice(0, 32) : undefined;
  } catch {
    return undefined; // there is none, and nothing to compare
  }
}

/** Fault `stale` when the identity was made on another machine. */
export function checkMachine(directory: string, identity: Identity, machine: string | undefined): void {
  if (machine === undefined || identity.machine === undefined || identity.machine === machine) return;
  throw new Fault('stale', `The identity in ${directory} is of another machine, which joined as host ${identity.host}`, {
    hint: `This one was copied from it: empty ${directory} and join under a name of its own, causeway agent --join TOKEN --host NAME. If only its machine-id has changed, join again with a new token`,
  });
}

const fileOf = (directory: string): string => join(directory, 'identity.json');

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
      hint: 'Remove it and join again with a new token: causeway agent --join TOKEN',
    });
  }
}

/** Replaces the file in one step; readable by root only. Fault `unavailable` (disk full, no access); then the old one stays. */
export function writeIdentity(directory: string, identity: Identity): void {
  const temporary = `${fileOf(directory)}.new`;
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    writeFileSync(temporary, `${JSON.stringify(identity, undefined, 2)}\n`, { mode: 0o600, flush: true });
    renameSync(temporary, fileOf(directory));
  } catch (error) {
    throw new Fault('unavailable', `Cannot write ${fileOf(directory)}: ${error instanceof Error ? error.message : 'unknown'}`, {
      cause: error,
      hint: 'Check that the disk has room and that the directory can be written to',
    });
  }
}
