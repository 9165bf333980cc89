// Contexts: which controller to talk to and with which token, in one YAML file per user or machine:
// `current: NAME` and `contexts: {NAME: {url, urls, token, ca}}`, where `urls` are further controllers of the installation and
// `ca` is PEM text or the path of a PEM file. The controller writes /etc/causeway/contexts.yaml when it first starts. Files are made with mode 0600, because they hold tokens.
// They are written as JSON, which is YAML, too: to load what reads all of YAML takes a sixth of the processor time of a command.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import * as v from 'valibot';
import { dictionary } from '#api/fields.ts';
import { Fault } from '#model/fault.ts';

export interface Context {
  readonly url: string;
  /** Further controllers of the same installation, asked in this order when the first does not answer. */
  readonly urls?: readonly string[] | undefined;
  readonly token?: string | undefined;
  /** PEM text, or the path of a PEM file; a relative path counts from the contexts file. */
  readonly ca?: string | undefined;
}

export interface Contexts {
  readonly current?: string | undefined;
  readonly contexts: Readonly<Record<string, Context>>;
}

/** Who is asked and how: a Context with its certificate authority read. */
export interface Target {
  /** Name of the context, `environment` when it comes from there alone. */
  readonly name: string;
  readonly url: string;
  readonly token?: string | undefined;
  /** PEM text. */
  readonly ca?: string | undefined;
  /** Of a host, instead of a token; PEM texts. */
  readonly certificate?: { readonly certificate: string; readonly key: string };
  /** Further controllers of the same installation. */
  readonly others?: readonly string[];
}

/** What the user says beside the files. `context` is the --context option; the rest comes from the environment. */
export interface Choice {
  readonly context?: string | undefined;
  /** A host's identity (agent/identity.ts): used when nothing else names a controller, so that root needs no context there. */
  readonly identityFile?: string | undefined;
  /** `url` may name several controllers, separated by commas. */
  readonly environment: { readonly [key in 'context' | 'url' | 'token' | 'ca']?: string | undefined };
}

const schema = v.object({
  current: v.optional(v.string()),
  contexts: v.optional(
    dictionary(
      v.string(),
      v.object({
        url: v.string(),
        urls: v.optional(v.array(v.string())),
        token: v.optional(v.string()),
        ca: v.optional(v.string()),
      }),
    ),
    {},
  ),
});

const isCode = (error: unknown, ...codes: string[]): boolean =>
  error instanceof Error && 'code' in error && codes.includes(String(error.code));

/** The file's content; an absent file is one without contexts. Faults: `corrupt`, and `forbidden` when it cannot be opened. */
export async function readContexts(file: string): Promise<Contexts> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (isCode(error, 'ENOENT', 'ENOTDIR')) return { contexts: {} };
    throw new Fault('forbidden', `Cannot read ${file}`, {
      hint: 'Run the command as the owner of the file, or copy the context: "causeway context add".',
      cause: error,
    });
  }
  try {
    return v.parse(schema, jsonOf(text) ?? (await import('yaml')).parse(text) ?? {});
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : '';
    throw new Fault('corrupt', `${file} is not a contexts file: ${reason}`, { hint: `Correct or remove ${file}.`, cause: error });
  }
}

/** Undefined for what is no JSON. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Replaces the file in one step, mode 0600; makes its folder. Fault `forbidden` when that is not allowed. */
export function writeContexts(file: string, contexts: Contexts): void {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const draft = `${file}.${process.pid}.new`;
    writeFileSync(draft, `${JSON.stringify(contexts, null, 2)}\n`, { mode: 0o600 });
    renameSync(draft, file);
  } catch (error) {
    throw new Fault('forbidden', `Cannot write ${file}`, { hint: 'Check the owner and the mode of the folder.', cause: error });
  }
}

export interface FoundContext {
  readonly name: string;
  readonly file: string;
  readonly context: Context;
}

/** Every context of all files; a name in an earlier file hides the same name in a later one. */
export async function allContexts(files: readonly string[]): Promise<{ current: string | undefined; found: readonly FoundContext[] }> {
  const found = new Map<string, FoundContext>();
  let current: string | undefined;
  let denied: Fault | undefined;
  for (const file of files) {
    let content: Contexts = { contexts: {} };
    try {
      content = await readContexts(file);
    } catch (error) {
      if (!(error instanceof Fault && error.code === 'forbidden')) throw error;
      denied = error;
    }
    current ??= content.current;
    for (const [name, context] of Object.entries(content.contexts)) if (!found.has(name)) found.set(name, { name, file, context });
  }
  // A file that this user may not read matters only if nothing else can be used.
  if (found.size === 0 && denied !== undefined) throw denied;
  return { current, found: [...found.values()] };
}

function readCa(ca: string | undefined, file: string | undefined): string | undefined {
  if (ca === undefined || ca === '' || ca.includes('-----BEGIN')) return ca === '' ? undefined : ca;
  const path = isAbsolute(ca) || file === undefined ? ca : join(dirname(file), ca);
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Fault('not-found', `Cannot read the CA certificate ${path}`, {
      field: 'ca',
      hint: 'Copy /etc/causeway/ca.pem of the controller there, or correct the context.',
      cause: error,
    });
  }
}

const missing = (): Fault =>
  new Fault('not-found', 'No context: it is not known which controller to talk to', {
    hint: 'On the controller or a host run the command as root; elsewhere "causeway context add NAME --url https://HOST:7480 --token TOKEN --ca FILE", or set CAUSEWAY_URL, CAUSEWAY_TOKEN and CAUSEWAY_CA.',
  });

const identitySchema = v.object({
  host: v.string(),
  controllers: v.pipe(v.array(v.string()), v.minLength(1)),
  key: v.string(),
  certificate: v.string(),
  ca: v.string(),
});

/** With the host's own certificate. Fault `not-found` where there is no identity, or this user may not read it. */
function hostTarget(file: string | undefined): Target {
  try {
    const { host, controllers, key, certificate, ca } = v.parse(identitySchema, JSON.parse(readFileSync(file ?? '', 'utf8')));
    const [url = '', ...others] = controllers;
    return { name: `host ${host}`, url, others, ca, certificate: { certificate, key } };
  } catch {
    throw missing();
  }
}

function contextNamed(found: readonly FoundContext[], name: string): FoundContext {
  const hit = found.find((one) => one.name === name);
  if (hit !== undefined) return hit;
  const known = found.map((one) => one.name).join(', ');
  throw new Fault('not-found', `No context ${JSON.stringify(name)}`, {
    field: 'context',
    hint: known === '' ? missing().hint : `Use one of: ${known}`,
  });
}

/**
 * Whom to talk to. --context names a context and the environment is then ignored; otherwise CAUSEWAY_CONTEXT or the
 * files' `current` names one, or the only one there is is meant, and CAUSEWAY_URL, _TOKEN and _CA replace its fields one by
 * one. CAUSEWAY_URL without CAUSEWAY_CONTEXT needs no context. Without any context a host's own identity serves. Fault `not-found` when nothing names a controller.
 */
export async function resolveTarget(files: readonly string[], { context: wanted, environment, identityFile }: Choice): Promise<Target> {
  const { context: preferred, url, token, ca } = environment;
  const fromEnvironment = url === undefined ? undefined : urlsOf([url]);
  if (wanted === undefined && preferred === undefined && fromEnvironment !== undefined) {
    return targetOf('environment', { ...fromEnvironment, token, ca }, undefined);
  }
  const { current, found } = await allContexts(files);
  const name = wanted ?? preferred ?? current ?? (found.length === 1 ? found[0]?.name : undefined);
  if (name === undefined) return hostTarget(identityFile);
  const { context, file } = contextNamed(found, name);
  if (wanted !== undefined) return targetOf(name, context, file);
  const own = ca === undefined ? readCa(context.ca, file) : ca;
  const asked = fromEnvironment ?? { url: context.url, urls: context.urls };
  return targetOf(name, { ...asked, token: token ?? context.token, ca: own }, undefined);
}

function targetOf(name: string, { url, urls = [], token, ca }: Context, file: string | undefined): Target {
  for (const address of [url, ...urls]) checkUrl(address);
  const others = [...new Set(urls)].filter((address) => address !== url);
  return { name, url, ...(others.length === 0 ? {} : { others }), token: plain(token), ca: readCa(ca, file) };
}

/** Without what a file that it was read from has around it. Fault `invalid` for what no header could carry. */
function plain(token: string | undefined): string | undefined {
  const text = token?.trim();
  if (text === undefined || /^[!-~]*$/.test(text)) return text;
  throw new Fault('invalid', 'The token has a line break, a blank or another character that no token has in it', {
    field: 'token',
    hint: 'Copy it again as one line, without quotation marks',
  });
}

/** Fault `invalid` unless it can be asked over HTTP. */
export function checkUrl(url: string): void {
  if (URL.canParse(url) && /^https?:/.test(url)) return;
  throw new Fault('invalid', `Not an address of a controller: ${JSON.stringify(url)}`, { field: 'url', hint: 'Use https://HOST:7480' });
}

/** The fields of a context for addresses as a user writes them: each may hold several, separated by commas. */
export function urlsOf(written: readonly string[]): Pick<Context, 'url' | 'urls'> {
  const [url = '', ...urls] = written.flatMap((text) => text.split(',').filter((address) => address !== ''));
  return { url, ...(urls.length === 0 ? {} : { urls }) };
}
