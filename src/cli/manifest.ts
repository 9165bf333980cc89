// `causeway get` and `causeway apply`: tenants, networks, exposures and what is set of BGP as YAML documents that can be kept in
// a repository. What `get` prints `apply` takes, here or in another installation. Applying what is already so changes nothing.
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { exposureRequest, networkRequest, tenantRequest } from '#api/requests.ts';
import { parse } from '#api/parse.ts';
import { Fault, isFault } from '#model/fault.ts';
import { familyOf } from '#model/ip.ts';
import type { Exposure, Network, NeutronPlace, Pool, Tenant } from '#model/resources.ts';
import type { NetworkRequest, NeutronRequest } from '#api/local.ts';
import type { ExposureRequest, TenantRequest } from '#api/requests.ts';
import { calicoDocument, calicoManifest, type CalicoManifest, documentsIn } from './calico-manifest.ts';
import { all, type Client } from './client.ts';
import { collect, each, examples, type Group } from './command.ts';
import type { Answer, Session } from './session.ts';

export type Manifest =
  | ({ readonly kind: 'tenant' } & TenantRequest)
  | ({ readonly kind: 'network' } & NetworkRequest)
  | ({ readonly kind: 'exposure' } & ExposureRequest)
  | CalicoManifest;

const ownKinds = ['tenant', 'network', 'exposure'] as const;
/** In the order in which they are applied. */
const kinds = [...ownKinds, 'secret', 'bgp'] as const;

const labelsOf = (labels: Readonly<Record<string, string>>): { labels?: Readonly<Record<string, string>> } =>
  Object.keys(labels).length === 0 ? {} : { labels };

const tenantManifest = ({ name, description, labels }: Tenant): Manifest => ({ kind: 'tenant', name, description, ...labelsOf(labels) });

/** What the front ends keep there of a network is of this installation alone. */
const usersLabels = (labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(labels).filter(([key]) => !key.startsWith('causeway.')));

const ofOthers = (labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(labels).filter(([key]) => key.startsWith('causeway.')));

/** A place of IPv6 alone is found by its pools. */
function neutronDocument({ network, subnet, subnet6, groups, fallback }: NeutronPlace, pools: readonly Pool[]): NeutronRequest {
  const hasIpv4 = pools.some((pool) => pool.fallback !== true && familyOf(pool.cidr) === 4);
  return {
    network,
    ...(hasIpv4 ? { subnet } : {}),
    ...(subnet6 === undefined ? {} : { subnet6 }),
    ...(groups === undefined ? {} : { groups }),
    ...(fallback === undefined ? {} : { fallback: 'overlay' }),
  };
}

function networkManifest(network: Network, everyPool: readonly Pool[]): Extract<Manifest, { kind: 'network' }> {
  const { name, model, tenant, encrypted, internal, attachable, mtu, vni, choices, addressing, labels, neutron } = network;
  const pools = everyPool.filter((pool) => pool.network === network.id);
  return {
    kind: 'network',
    name,
    model,
    tenant,
    encrypted,
    internal,
    attachable,
    ...(mtu === undefined ? {} : { mtu }),
    ...(model === 'swarm'
      ? {}
      : { vni, carry: choices.carry, blockLength4: choices.address.blockLength4, blockLength6: choices.address.blockLength6 }),
    addressing,
    ...labelsOf(usersLabels(labels)),
    ...(neutron === undefined ? {} : { neutron: neutronDocument(neutron, pools) }),
    pools: pools
      .filter(({ fallback }) => fallback !== true)
      .map(({ cidr, range, gateway, reserved }) => ({
        family: familyOf(cidr),
        cidr,
        ...(range === undefined ? {} : { range }),
        ...(gateway === undefined ? {} : { gateway }),
        ...(Object.keys(reserved).length === 0 ? {} : { reserved }),
      })),
  };
}

function exposureManifest(exposure: Exposure, networks: readonly Network[]): Extract<Manifest, { kind: 'exposure' }> {
  const {
    name,
    network,
    endpoint,
    protocol,
    port,
    hostPort,
    hostIp,
    sources,
    floatingIp,
    loadBalancer,
    provider,
    virtualIp,
    family,
    labels,
  } = exposure;
  return {
    kind: 'exposure',
    name,
    network: networks.find(({ id }) => id === network)?.name ?? network,
    endpoint,
    protocol,
    port,
    hostPort,
    ...(hostIp === undefined ? {} : { hostIp }),
    ...(sources.length === 0 ? {} : { sources }),
    ...(floatingIp === undefined ? {} : { floatingIp }),
    ...(loadBalancer === undefined ? {} : { loadBalancer }),
    ...(provider === undefined ? {} : { provider }),
    ...(virtualIp === undefined ? {} : { virtualIp: true }),
    ...(family === undefined ? {} : { family }),
    ...labelsOf(labels),
  };
}

/** A tenant's token sees nothing of the installation. */
async function installationOnly<T>(rows: Promise<readonly T[]>): Promise<readonly T[]> {
  try {
    return await rows;
  } catch (error) {
    if (!isFault(error, 'forbidden')) throw error;
    return [];
  }
}

/** As it is printed, and read again. */
const documentOf = (manifest: Manifest): object =>
  manifest.kind === 'bgp' ? calicoDocument({ ...manifest, labels: manifest.labels ?? {} }) : manifest;

/** Everything that can be applied, but secrets, in the order in which it must be. Networks on their way out are left out. */
export async function manifests(client: Client): Promise<readonly Manifest[]> {
  const [tenants, everyNetwork, pools, exposures, bgp] = await Promise.all([
    all(client, 'tenants'),
    all(client, 'networks'),
    all(client, 'pools'),
    all(client, 'exposures'),
    installationOnly(all(client, 'bgp')),
  ]);
  const networks = everyNetwork.filter(({ deletedAt }) => deletedAt === undefined);
  return [
    ...tenants.map(tenantManifest),
    ...networks.map((network) => networkManifest(network, pools)),
    ...exposures.map((exposure) => exposureManifest(exposure, networks)),
    ...bgp.map(({ sort, name, labels, spec }): Manifest => ({ kind: 'bgp', sort, name, ...labelsOf(labels), spec })),
  ];
}

/** Parses YAML documents (or a list of them in one). Fault `invalid` with document number, line and field. */
export async function readManifests(text: string, file: string): Promise<readonly Manifest[]> {
  const { parseAllDocuments } = await import('yaml');
  const documents = parseAllDocuments(text);
  const values = documents.flatMap((document): unknown[] => {
    const [error] = document.errors;
    if (error !== undefined) throw new Fault('invalid', `${file} is not YAML: ${error.message.split('\n')[0] ?? ''}`, { field: file });
    const value: unknown = document.toJS();
    return value === null ? [] : (Array.isArray(value) ? value : [value]).flatMap(documentsIn);
  });
  return values.map((value, index) => manifestFrom(value, `${file}, document ${index + 1}`));
}

function manifestFrom(value: unknown, place: string): Manifest {
  const foreign = calicoManifest(value, place);
  if (foreign !== undefined) return foreign;
  const head = v.safeParse(v.looseObject({ kind: v.picklist(ownKinds) }), value);
  if (!head.success)
    throw new Fault('invalid', `${place} has no kind`, { field: 'kind', hint: `Write kind: ${ownKinds.join(', or kind: ')}.` });
  const { kind, ...rest } = head.output;
  if (kind === 'tenant') return { kind, ...parse(tenantRequest, rest, place) };
  if (kind === 'network') return { kind, ...parse(networkRequest, rest, place) };
  return { kind, ...parse(exposureRequest, rest, place) };
}

type Outcome = 'created' | 'changed' | 'unchanged';

/** Fields of `wanted` that differ from `found`. */
const differing = (wanted: object, found: object): readonly string[] => {
  const now = new Map(Object.entries(found));
  return Object.entries(wanted)
    .filter(([key, value]) => !isDeepStrictEqual(value, now.get(key)))
    .map(([key]) => key);
};

/** Whether everything that `wanted` says is so. */
const isSaidOf = (wanted: object, found: object | undefined): boolean => found !== undefined && differing(wanted, found).length === 0;

const isCloudId = (text: string): boolean => /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/.test(text);

/** Names are the cloud's to resolve: only ids can be compared. */
function isSamePlace({ fallback, ...wanted }: NeutronRequest, found: NeutronRequest | undefined): boolean {
  if (found === undefined || (fallback === undefined) !== (found.fallback === undefined)) return false;
  const named = Object.entries(wanted).filter(([, value]) => [value].flat().every((text) => typeof text === 'string' && isCloudId(text)));
  return isSaidOf(Object.fromEntries(named), found);
}

/** As `differing`; of pools and places in a cloud a document may leave out what is chosen. */
function differingOf({ pools, neutron, ...wanted }: NetworkRequest, found: NetworkRequest): readonly string[] {
  const now = found.pools ?? [];
  const isSamePools = pools === undefined || (pools.length === now.length && pools.every((pool, index) => isSaidOf(pool, now[index])));
  return [
    ...differing(wanted, found),
    ...(isSamePools ? [] : ['pools']),
    ...(neutron === undefined || isSamePlace(neutron, found.neutron) ? [] : ['neutron']),
  ];
}

async function applyTenant(client: Client, { kind: _kind, ...wanted }: Extract<Manifest, { kind: 'tenant' }>): Promise<Outcome> {
  const found = (await all(client, 'tenants')).find(({ name }) => name === wanted.name);
  if (found === undefined) {
    await client.create('tenants', wanted);
    return 'created';
  }
  if (differing(wanted, tenantManifest(found)).length === 0) return 'unchanged';
  await client.replace('tenants', { ...found, ...wanted });
  return 'changed';
}

async function applyNetwork(client: Client, { kind: _kind, ...wanted }: Extract<Manifest, { kind: 'network' }>): Promise<Outcome> {
  const found = (await all(client, 'networks')).find(({ name }) => name === wanted.name);
  if (found === undefined) {
    await client.create('networks', wanted);
    return 'created';
  }
  const fields = differingOf(wanted, networkManifest(found, await all(client, 'pools')));
  if (fields.length === 0) return 'unchanged';
  const fixed = fields.filter((field) => field !== 'labels' && field !== 'mtu' && field !== 'attachable');
  if (fixed.length > 0) {
    throw new Fault('in-use', `Network ${wanted.name} exists with another ${fixed.join(', ')}`, {
      field: fixed[0],
      hint: 'These cannot change: remove the network first, or give the document another name.',
    });
  }
  await client.replace('networks', {
    ...found,
    ...(wanted.mtu === undefined ? {} : { mtu: wanted.mtu }),
    attachable: wanted.attachable ?? found.attachable,
    labels: wanted.labels === undefined ? found.labels : { ...wanted.labels, ...ofOthers(found.labels) },
  });
  return 'changed';
}

/** By name where the document has one, otherwise by what it opens. */
const isSameExposure = (wanted: ExposureRequest, found: ExposureRequest): boolean =>
  wanted.name === undefined
    ? wanted.network === found.network &&
      wanted.endpoint === found.endpoint &&
      wanted.port === found.port &&
      wanted.protocol === found.protocol
    : wanted.name === found.name;

async function applyExposure(client: Client, { kind: _kind, ...wanted }: Extract<Manifest, { kind: 'exposure' }>): Promise<Outcome> {
  const networks = await all(client, 'networks');
  const found = (await all(client, 'exposures'))
    .map((exposure) => ({ exposure, document: exposureManifest(exposure, networks) }))
    .find(({ document }) => isSameExposure(wanted, document));
  if (found === undefined) {
    await client.create('exposures', wanted);
    return 'created';
  }
  if (differing({ sources: [], ...wanted }, { sources: [], ...found.document }).length === 0) return 'unchanged';
  const {
    hostIp: _,
    floatingIp: __,
    loadBalancer: ___,
    provider: ____,
    family: _____,
    virtualIp = { hosts: [] },
    ...rest
  } = found.exposure;
  const { virtualIp: isVirtual, ...plain } = wanted;
  const next = { ...rest, sources: [], ...plain, name: rest.name, network: rest.network };
  await client.replace('exposures', isVirtual === undefined ? next : { ...next, virtualIp });
  return 'changed';
}

async function applyBgp(client: Client, { kind: _kind, ...wanted }: Extract<Manifest, { kind: 'bgp' }>): Promise<Outcome> {
  const found = (await all(client, 'bgp')).find(({ sort, name }) => sort === wanted.sort && name === wanted.name);
  const { revision } = await client.putBgp(wanted);
  return found === undefined ? 'created' : found.revision === revision ? 'unchanged' : 'changed';
}

async function applySecret(client: Client, { name, texts }: Extract<Manifest, { kind: 'secret' }>): Promise<Outcome> {
  const found = (await all(client, 'secrets')).find((one) => one.name === name);
  const { revision } = await client.putSecret(name, { texts });
  return found === undefined ? 'created' : found.revision === revision ? 'unchanged' : 'changed';
}

function applyOne(client: Client, manifest: Manifest): Promise<Outcome> {
  if (manifest.kind === 'tenant') return applyTenant(client, manifest);
  if (manifest.kind === 'network') return applyNetwork(client, manifest);
  if (manifest.kind === 'bgp') return applyBgp(client, manifest);
  if (manifest.kind === 'secret') return applySecret(client, manifest);
  return applyExposure(client, manifest);
}

const partsOf = (manifest: Manifest): { readonly kind: string; readonly name: string } => ({
  kind: manifest.kind === 'bgp' ? manifest.sort : manifest.kind,
  name: manifest.name ?? ('endpoint' in manifest ? `${manifest.endpoint}:${manifest.port}` : ''),
});
const calledIn = (manifest: Manifest): string => Object.values(partsOf(manifest)).join(' ');

async function apply(session: Session, _args: readonly string[], options: { filename: readonly string[] }): Promise<Answer> {
  const wanted: Manifest[] = [];
  for (const file of options.filename) {
    wanted.push(
      ...(await readManifests(file === '-' ? await session.readStdin() : readFile(file), file === '-' ? 'standard input' : file)),
    );
  }
  const client = await session.client();
  const rows: { kind: string; name: string; outcome: Outcome }[] = [];
  const ordered = kinds.flatMap((kind) => wanted.filter((manifest) => manifest.kind === kind));
  await each(ordered, calledIn, async (manifest) => {
    rows.push({ ...partsOf(manifest), outcome: await applyOne(client, manifest) });
  });
  return {
    data: rows,
    names: rows.map(({ name }) => name),
    text: () => rows.map(({ kind, name, outcome }) => `${kind} ${name}: ${outcome}\n`).join('') || 'No documents: nothing was changed.\n',
  };
}

function readFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new Fault('not-found', `Cannot read ${file}`, {
      field: 'filename',
      hint: 'Name a file that you may read, or - for standard input.',
      cause: error,
    });
  }
}

async function get(session: Session, names: readonly string[]): Promise<Answer> {
  const every = await manifests(await session.client());
  const rows = names.length === 0 ? every : every.filter(({ name }) => name !== undefined && names.includes(name));
  const absent = names.find((name) => !rows.some((row) => row.name === name));
  if (absent !== undefined)
    throw new Fault('not-found', `No tenant, network, exposure or resource of BGP ${JSON.stringify(absent)}`, { field: 'name' });
  const { stringify } = await import('yaml');
  return {
    data: rows.map(documentOf),
    names: rows.map((row) => `${row.kind === 'bgp' ? row.sort : row.kind} ${row.name ?? ''}`),
    text: () => rows.map((row) => stringify(documentOf(row))).join('---\n'),
  };
}

export const applyGroup: Group = {
  build(command, act) {
    command.requiredOption('-f, --filename <file>', 'YAML file; - is standard input; repeatable', collect);
    act<{ filename: readonly string[] }>(
      examples(
        command,
        'causeway apply -f networks.yaml',
        'causeway apply -f bgp-peers.yaml',
        'causeway get | causeway --context other apply -f -',
      ),
      apply,
    );
  },
};

export const getGroup: Group = {
  build(command, act) {
    command.argument('[name...]', 'only these');
    act(examples(command, 'causeway get > everything.yaml', 'causeway get web'), get);
  },
};
