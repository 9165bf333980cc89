// The first administrator of a new installation: on the controller's own machine a contexts file appears that the CLI reads,
// with an admin token. Made once; afterwards tokens are made with the CLI.
import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parse } from 'yaml';
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';
import type { Control } from './control.ts';
import { createToken } from './tokens.ts';

const contextName = 'local';
const context = v.looseObject({ url: v.optional(v.string()), token: v.optional(v.string()), ca: v.optional(v.string()) });
const contextsFile = v.looseObject({ current: v.optional(v.string()), contexts: v.optional(v.record(v.string(), context), {}) });
type ContextsFile = v.InferOutput<typeof contextsFile>;

function readContexts(path: string): ContextsFile | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new Fault('forbidden', `Cannot read ${path}`, { cause: error });
  }
  try {
    return v.parse(contextsFile, parse(text) ?? {});
  } catch (error) {
    throw new Fault('corrupt', `${path} is not a contexts file`, { hint: 'Move it away and start again', cause: error });
  }
}

/** Whether the file's context still opens the door of this installation. */
async function works(control: Control, found: ContextsFile): Promise<boolean> {
  const known = found.contexts[contextName];
  if (known?.token === undefined || known.ca?.trim() !== control.authority.certificate.trim()) return false;
  const [, id] = /^cwa_([0-9a-z]+)_/.exec(known.token) ?? [];
  return id !== undefined && (await control.store.get(`tokens/${id}`)) !== undefined;
}

function replaceFile(path: string, text: string, mode: number): void {
  const draft = `${path}.${process.pid}.new`;
  writeFileSync(draft, text, { mode });
  // The mode of a file that is left from before is not changed by writing.
  chmodSync(draft, mode);
  renameSync(draft, path);
}

/**
 * Makes an admin token and puts it into the file (mode 0600, replaced in one step), keeping other contexts, with the CA beside
 * it as `ca.pem` for other machines; does nothing when
 * the file has a working one. Returns whether it wrote. Faults: `forbidden`, `corrupt`.
 */
export async function writeFirstContext(control: Control, path: string, url: string): Promise<boolean> {
  const found = readContexts(path) ?? { contexts: {} };
  if (await works(control, found)) return false;
  const { token } = await createToken(control, { type: 'api', role: 'admin', name: `first administrator (${path})` });
  const next = {
    ...found,
    current: found.current ?? contextName,
    contexts: { ...found.contexts, [contextName]: { url, token, ca: control.authority.certificate } },
  };
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    // JSON is YAML, too, and read by the CLI at once.
    replaceFile(path, `${JSON.stringify(next, null, 2)}\n`, 0o600);
    replaceFile(join(dirname(path), 'ca.pem'), control.authority.certificate, 0o644);
  } catch (error) {
    throw new Fault('forbidden', `Cannot write ${path}`, { hint: 'Choose another place: --contexts-file', cause: error });
  }
  return true;
}
