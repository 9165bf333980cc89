// A kubeconfig: where the Kubernetes API is and how one proves who one is there. Read are clusters, users and the current
// context; programs that make credentials (`exec`, `auth-provider`) are not run by an agent.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import * as v from 'valibot';
import type * as yaml from 'yaml';
import { parse, type Schema } from '#api/parse.ts';
import { Fault } from '#model/fault.ts';

export interface ApiAccess {
  readonly server: string;
  /** PEM of whom to trust; absent: the system's. */
  readonly ca?: string;
  /** PEM texts. */
  readonly certificate?: { readonly certificate: string; readonly key: string };
  /** Read for each request: tokens in files are replaced while an agent runs. */
  readonly token?: () => string;
}

const optional = v.exactOptional;
const text = optional(v.string());
const cluster = v.object({ server: v.string(), 'certificate-authority': text, 'certificate-authority-data': text });
const user = v.object({
  'client-certificate': text,
  'client-certificate-data': text,
  'client-key': text,
  'client-key-data': text,
  token: text,
  tokenFile: text,
});
interface Kubeconfig {
  readonly 'current-context': string;
  readonly contexts: readonly { readonly name: string; readonly context: { readonly cluster: string; readonly user: string } }[];
  readonly clusters: readonly { readonly name: string; readonly cluster: v.InferOutput<typeof cluster> }[];
  readonly users: readonly { readonly name: string; readonly user: v.InferOutput<typeof user> }[];
}
const kubeconfig: Schema<Kubeconfig> = v.object({
  'current-context': v.optional(v.string(), ''),
  contexts: v.array(v.object({ name: v.string(), context: v.object({ cluster: v.string(), user: v.string() }) })),
  clusters: v.array(v.object({ name: v.string(), cluster })),
  users: v.array(v.object({ name: v.string(), user })),
});

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new Fault('not-found', `Cannot read ${file}`, { field: '--kubernetes', cause });
  }
}

/** All JSON is YAML, and much is read without what reads the rest: loading that takes a tenth of an agent's start. */
function yamlOf(content: string, file: string): unknown {
  const json = v.safeParse(v.pipe(v.string(), v.parseJson()), content);
  if (json.success) return json.output;
  try {
    const { parse: parseYaml }: typeof yaml = createRequire(import.meta.url)('yaml');
    const value: unknown = parseYaml(content);
    return value;
  } catch (cause) {
    throw new Fault('invalid', `${file} is no YAML`, { field: '--kubernetes', cause });
  }
}

interface Chosen {
  readonly found: v.InferOutput<typeof cluster>;
  readonly who: v.InferOutput<typeof user>;
}

/** What a context says. Faults as readKubeconfig. */
function contextOf(config: Kubeconfig, file: string, chosen: string | undefined): Chosen {
  const wanted = chosen ?? config['current-context'];
  const context = config.contexts.find(({ name }) => name === wanted)?.context;
  if (chosen !== undefined && context === undefined) {
    const names = config.contexts.map(({ name }) => name).join(', ') || 'none';
    throw new Fault('not-found', `${file} has no context ${chosen}; it has ${names}`, { field: '--kube-context' });
  }
  const found = config.clusters.find(({ name }) => name === context?.cluster)?.cluster;
  const who = config.users.find(({ name }) => name === context?.user)?.user;
  if (found !== undefined && who !== undefined) return { found, who };
  throw new Fault('invalid', `${file} lacks the cluster or user of its context ${wanted}`, { field: 'current-context' });
}

/** `chosen`: another context than the current one. Faults: `not-found` (a file, the context), `invalid` (what it says, naming the field). */
export function readKubeconfig(file: string, chosen?: string): ApiAccess {
  const { found, who } = contextOf(parse(kubeconfig, yamlOf(readText(file), file), file), file, chosen);
  if (URL.parse(found.server)?.protocol !== 'https:') {
    throw new Fault('invalid', `${file}: ${JSON.stringify(found.server)} is no https address`, { field: 'clusters' });
  }
  const either = (data: string | undefined, path: string | undefined): string | undefined => {
    if (data !== undefined) return Buffer.from(data, 'base64').toString();
    return path === undefined ? undefined : readText(resolve(dirname(file), path));
  };
  const ca = either(found['certificate-authority-data'], found['certificate-authority']);
  const certificate = either(who['client-certificate-data'], who['client-certificate']);
  const key = either(who['client-key-data'], who['client-key']);
  const { token, tokenFile } = who;
  return {
    server: found.server.replace(/\/$/, ''),
    ...(ca === undefined ? {} : { ca }),
    ...(certificate === undefined || key === undefined ? {} : { certificate: { certificate, key } }),
    ...(token === undefined ? {} : { token: () => token }),
    ...(tokenFile === undefined ? {} : { token: () => readText(resolve(dirname(file), tokenFile)).trim() }),
  };
}
