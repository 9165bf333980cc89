// Who this host is to the controllers: a key that never leaves the host and the certificate they gave for it, in the state
// directory. Written by `causeway agent --join`, renewed by the running agent before it expires.
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
}

const schema: v.GenericSchema<unknown, Identity> = v.object({
  host: v.string(),
  generation: v.number(),
  controllers: v.array(v.string()),
  key: v.string(),
  certificate: v.string(),
  ca: v.string(),
  token: v.exactOptional(v.string()),
});

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
      hint: 'Join again: causeway agent --join TOKEN',
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
