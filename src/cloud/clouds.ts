// Which cloud and as whom: clouds.yaml with secure.yaml beside it, or the OS_* variables, as openstacksdk reads them
// (docs.openstack.org/openstacksdk, "Configuring OpenStack SDK Applications"). The first file of each sort that exists is used;
// secure.yaml is laid over clouds.yaml, so that secrets may be kept apart.
import { readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import * as v from 'valibot';
import { dictionary } from '#api/fields.ts';
import { Fault } from '#model/fault.ts';
import { identityUrl, type Domain, type Interface, type Login, type Named, type Place } from './keystone.ts';

export interface CloudSurroundings {
  /** Variables that begin with `OS_`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Where clouds.yaml and secure.yaml may be, best first. */
  readonly configFiles: readonly string[];
  readonly secureFiles: readonly string[];
}

export interface Cloud {
  /** In clouds.yaml, or `environment`. */
  readonly name: string;
  readonly authUrl: string;
  readonly login: Login;
  readonly place: Place;
  /** PEM. */
  readonly ca: string | undefined;
  readonly verify: boolean;
  /** Addresses that replace the catalogue's, by service type. */
  readonly overrides: Readonly<Record<string, string>>;
}

type Settings = Readonly<Record<string, string | undefined>>;

const scalar = v.pipe(
  v.union([v.string(), v.number(), v.boolean()]),
  v.transform((value) => String(value)),
);
const entry = v.looseObject({
  auth: v.optional(v.record(v.string(), v.union([scalar, v.unknown()])), {}),
  auth_type: v.optional(v.string()),
  region_name: v.optional(v.string()),
  interface: v.optional(v.string()),
  endpoint_type: v.optional(v.string()),
  cacert: v.optional(v.string()),
  verify: v.optional(v.boolean()),
});
const file = v.looseObject({ clouds: v.optional(dictionary(v.string(), v.looseObject({})), {}) });

/** Faults: `not-found` (no such cloud, or nothing says which), `invalid` with the field that is missing, `corrupt`. */
export async function findCloud(surroundings: CloudSurroundings, name?: string): Promise<Cloud> {
  const wanted = name ?? surroundings.environment['OS_CLOUD'];
  if (wanted !== undefined) return await fromFiles(surroundings, wanted);
  if (surroundings.environment['OS_AUTH_URL'] !== undefined) return fromEnvironment(surroundings.environment);
  const config = await firstFile(surroundings.configFiles);
  const names = Object.keys(config?.clouds ?? {});
  const [only] = names;
  if (only !== undefined && names.length === 1) return await fromFiles(surroundings, only);
  throw new Fault('not-found', names.length === 0 ? 'Nothing says which cloud' : `clouds.yaml names several clouds: ${names.join(', ')}`, {
    hint: 'Use --cloud NAME with clouds.yaml, or set OS_CLOUD, or OS_AUTH_URL and its companions',
  });
}

interface Found {
  readonly path: string;
  readonly clouds: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new Fault('forbidden', `Cannot read ${path}`, { hint: 'Check the owner and the mode of the file', cause });
  }
}

async function firstFile(paths: readonly string[]): Promise<Found | undefined> {
  for (const path of paths) {
    const text = readText(path);
    if (text === undefined) continue;
    const { parse } = await import('yaml');
    try {
      return { path, clouds: v.parse(file, parse(text) ?? {}).clouds };
    } catch (cause) {
      const reason = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : '';
      throw new Fault('corrupt', `${path} is not a clouds file: ${reason}`, {
        hint: 'It has one member, clouds, with a member for each',
        cause,
      });
    }
  }
  return undefined;
}

async function fromFiles({ configFiles, secureFiles }: CloudSurroundings, name: string): Promise<Cloud> {
  const [config, secure] = [await firstFile(configFiles), await firstFile(secureFiles)];
  const found = config?.clouds[name];
  if (config === undefined || found === undefined) {
    const known = Object.keys(config?.clouds ?? {}).join(', ');
    throw new Fault('not-found', `No cloud ${JSON.stringify(name)} in ${config?.path ?? 'any clouds.yaml'}`, {
      hint: known === '' ? `Looked for ${configFiles.join(', ')}` : `It has ${known}`,
    });
  }
  const read = v.safeParse(entry, merged(found, secure?.clouds[name] ?? {}));
  if (!read.success)
    throw new Fault('corrupt', `Cloud ${name} in ${config.path}: ${read.issues[0].message}`, {
      field: v.getDotPath(read.issues[0]) ?? name,
    });
  const { auth, ...rest } = read.output;
  return cloudOf(
    {
      name,
      folder: dirname(config.path),
      authType: rest.auth_type,
      region: rest.region_name,
      interface: rest.interface ?? rest.endpoint_type,
      cacert: rest.cacert,
      verify: rest.verify ?? true,
      overrides: overridesOf(rest),
    },
    texts(auth),
  );
}

/** Deep: what `over` says wins. */
function merged(under: Readonly<Record<string, unknown>>, over: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const [a, b] = [v.safeParse(members, under[key]), v.safeParse(members, value)];
    result[key] = a.success && b.success ? merged(a.output, b.output) : value;
  }
  return result;
}
const members = v.record(v.string(), v.unknown());

const texts = (values: Readonly<Record<string, unknown>>): Settings =>
  Object.fromEntries(Object.entries(values).flatMap(([key, value]) => (v.is(v.string(), value) ? [[key, value]] : [])));

/** `network_endpoint_override: URL`. */
const overridesOf = (values: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(texts(values)).flatMap(([key, value]) => {
      const type = /^(\w+)_endpoint_override$/.exec(key)?.[1]?.replaceAll('_', '-');
      return type === undefined || value === undefined ? [] : [[type, value]];
    }),
  );

function fromEnvironment(environment: CloudSurroundings['environment']): Cloud {
  const lower = Object.fromEntries(
    Object.entries(environment).flatMap(([key, value]) =>
      value === undefined || value === '' ? [] : [[key.replace(/^OS_/, '').toLowerCase(), value]],
    ),
  );
  return cloudOf(
    {
      name: 'environment',
      folder: '',
      authType: lower['auth_type'],
      region: lower['region_name'],
      interface: lower['interface'] ?? lower['endpoint_type'],
      cacert: lower['cacert'],
      verify: !/^(1|true|yes)$/i.test(lower['insecure'] ?? ''),
      overrides: overridesOf(lower),
    },
    lower,
  );
}

interface Around {
  readonly name: string;
  /** Relative paths count from here. */
  readonly folder: string;
  readonly authType: string | undefined;
  readonly region: string | undefined;
  readonly interface: string | undefined;
  readonly cacert: string | undefined;
  readonly verify: boolean;
  readonly overrides: Readonly<Record<string, string>>;
}

function cloudOf(around: Around, auth: Settings): Cloud {
  const { name, region, cacert, verify, overrides } = around;
  return {
    name,
    authUrl: identityUrl(needed(auth, 'auth_url', name)),
    login: loginOf(around, auth),
    place: { interface: interfaceOf(around.interface), region },
    ca: cacert === undefined ? undefined : caOf(around.folder === '' || isAbsolute(cacert) ? cacert : join(around.folder, cacert)),
    verify,
    overrides,
  };
}

function needed(auth: Settings, field: string, cloud: string): string {
  const value = auth[field];
  if (value !== undefined && value !== '') return value;
  const where = cloud === 'environment' ? `OS_${field.toUpperCase()}` : `auth.${field} of cloud ${cloud}`;
  throw new Fault('invalid', `${where} is missing`, { field, hint: 'See docs/openstack.md for what a login consists of' });
}

function caOf(path: string): string {
  const text = readText(path);
  if (text?.includes('-----BEGIN CERTIFICATE-----') === true) return text;
  throw new Fault('invalid', `No certificate in PEM form in ${path}`, { field: 'cacert' });
}

function interfaceOf(text: string | undefined): Interface {
  const word = (text ?? 'public').replace(/URL$/, '');
  if (word === 'public' || word === 'internal' || word === 'admin') return word;
  throw new Fault('invalid', `Not an interface of services: ${word}`, { field: 'interface', hint: 'Use public, internal or admin' });
}

function loginOf({ name, authType }: Around, auth: Settings): Login {
  const type = (authType ?? guessed(auth)).replace(/^v3/, '').replaceAll('_', '');
  if (type === 'password')
    return { type, user: userOf(auth, name), password: needed(auth, 'password', name), project: projectOf(auth, name) };
  if (type === 'token') {
    const hasProject = auth['project_id'] !== undefined || auth['project_name'] !== undefined;
    return { type, token: needed(auth, 'token', name), project: hasProject ? projectOf(auth, name) : undefined };
  }
  if (type === 'applicationcredential') {
    const id = auth['application_credential_id'];
    const credential = id === undefined ? { name: needed(auth, 'application_credential_name', name), user: userOf(auth, name) } : { id };
    return { type: 'application-credential', credential, secret: needed(auth, 'application_credential_secret', name) };
  }
  throw new Fault('unsupported', `Cloud ${name} logs in by ${authType}, which Causeway does not know`, {
    field: 'auth_type',
    hint: 'Use password, v3applicationcredential or token; an application credential works for users of any identity provider',
  });
}

function guessed(auth: Settings): string {
  if (auth['application_credential_secret'] !== undefined) return 'applicationcredential';
  return auth['token'] !== undefined && auth['password'] === undefined ? 'token' : 'password';
}

const domainOf = (auth: Settings, of: 'user' | 'project'): Domain => {
  const id = auth[`${of}_domain_id`] ?? auth['domain_id'] ?? auth['default_domain'];
  if (id !== undefined) return { id };
  const name = auth[`${of}_domain_name`] ?? auth['domain_name'];
  return name === undefined ? { id: 'default' } : { name };
};

function userOf(auth: Settings, cloud: string): Named {
  const id = auth['user_id'];
  return id === undefined ? { name: needed(auth, 'username', cloud), domain: domainOf(auth, 'user') } : { id };
}

function projectOf(auth: Settings, cloud: string): Named {
  const id = auth['project_id'] ?? auth['tenant_id'];
  if (id !== undefined) return { id };
  const name = auth['project_name'] ?? auth['tenant_name'] ?? needed(auth, 'project_name', cloud);
  return { name, domain: domainOf(auth, 'project') };
}
