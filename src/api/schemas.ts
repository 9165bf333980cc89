// The schema of every resource, in the shape of src/model/resources.ts; `EntriesOf` and the type of each export make the
// compiler refuse a difference. From these come validation, the OpenAPI document and the client's reading of answers.
import * as v from 'valibot';
import type { Family } from '#model/ip.ts';
import type { LostPath, NarrowPath, Paths } from '#model/paths.ts';
import {
  type BgpResource,
  type BgpSort,
  type Block,
  type Carrying,
  type RefusedCarriages,
  type RoutedBlocks,
  type Choices,
  type Endpoint,
  type Exposure,
  type Host,
  type HostStatus,
  type Instead,
  type Loan,
  type Meta,
  type Network,
  type NeutronPlace,
  type Pool,
  type Protocol,
  type PublishedPort,
  type ResourceKind,
  resourceKinds,
  type Resources,
  type Secret,
  type Tenant,
  type Underlay,
  type VirtualIp,
} from '#model/resources.ts';
import * as field from './fields.ts';
import type { EntriesOf, Schema } from './parse.ts';

const optional = v.exactOptional;

const meta = {
  id: field.anyId,
  name: field.name,
  revision: field.count,
  createdAt: field.timestamp,
  labels: field.labels,
} satisfies EntriesOf<Meta>;

/** Of a container's port. */
export const mostGroups = 32;
export const modelName: Schema<Network['model']> = v.picklist(['overlay', 'flannel', 'calico', 'neutron', 'routes', 'swarm']);
export const carryName: Schema<Choices['carry']> = v.picklist([
  'vxlan',
  'direct-routing',
  'host-gateway',
  'bgp',
  'bgp-cross-subnet',
  'wireguard',
  'routes',
  'address-pairs',
  'docker',
]);
export const protocol: Schema<Protocol> = v.picklist(['tcp', 'udp', 'sctp']);
export const addressing: Schema<Network['addressing']> = v.picklist(['blocks', 'external']);
export const family: Schema<Family> = v.picklist([4, 6]);
export const kind: Schema<ResourceKind> = v.picklist(resourceKinds);

const tenant: Schema<Tenant> = v.strictObject({ ...meta, description: field.line } satisfies EntriesOf<Tenant>);

export const underlay: Schema<Underlay> = v.strictObject({
  interface: field.linkName,
  ip: field.ip,
  subnet: field.cidr,
  mtu: field.mtu,
} satisfies EntriesOf<Underlay>);

export const wireguard: Schema<NonNullable<Host['wireguard']>> = v.strictObject({
  publicKey: field.publicKey,
  port: optional(field.port),
});

const carrying: Schema<Carrying> = v.strictObject({
  wants: carryName,
  sends: optional(field.listOf(carryName, 8)),
  receives: optional(field.listOf(carryName, 8)),
  vtepMac: optional(field.mac),
  vtepMac6: optional(field.mac),
  routed: optional(
    v.strictObject({
      to: field.listOf(field.cidr, 64),
      problem: optional(v.pipe(v.string(), v.maxLength(1024, 'expected at most 1024 characters'))),
    } satisfies EntriesOf<RoutedBlocks>),
  ),
  refused: optional(
    v.strictObject({
      carries: field.listOf(carryName, 8),
      because: v.pipe(v.string(), v.maxLength(1024, 'expected at most 1024 characters')),
    } satisfies EntriesOf<RefusedCarriages>),
  ),
  insteadOf: optional(carryName),
} satisfies EntriesOf<Carrying>);

const line: Schema<string> = v.pipe(v.string(), v.maxLength(256, 'expected at most 256 characters'));

const paths: Schema<Paths> = v.strictObject({
  tried: field.count,
  passing: field.count,
  lost: field.listOf(
    v.strictObject({
      host: field.name,
      sort: v.picklist(['tunnel', 'session', 'plain']),
      what: line,
      networks: field.listOf(line, 16),
      seconds: field.count,
      isAlone: field.flag,
    } satisfies EntriesOf<LostPath>),
    32,
  ),
  narrow: field.listOf(v.strictObject({ host: field.name, mtu: field.mtu, usual: field.mtu } satisfies EntriesOf<NarrowPath>), 32),
} satisfies EntriesOf<Paths>);

/** Without the time, which is the controller's to say: a host's clock may be wrong. */
export const ownStatus: EntriesOf<Omit<HostStatus, 'seenAt'>> = {
  ready: field.flag,
  desired: field.count,
  applied: field.count,
  failing: field.listOf(v.pipe(v.string(), v.maxLength(1024, 'expected at most 1024 characters')), 256),
  features: field.recordOf(v.union([v.boolean(), v.pipe(v.string(), v.maxLength(1024))])),
  paths: optional(paths),
};

const host: Schema<Host> = v.strictObject({
  ...meta,
  index: field.hostIndex,
  generation: field.count,
  underlay: field.listOf(underlay, 16),
  wireguard: optional(wireguard),
  talkKey: optional(field.publicKey),
  carrying: optional(carrying),
  agentVersion: field.line,
  status: v.strictObject({ ...ownStatus, seenAt: field.timestamp }),
} satisfies EntriesOf<Host>);

const choices: Schema<Choices> = v.strictObject({
  attach: v.picklist(['routed', 'docker']),
  domain: v.picklist(['own', 'host', 'docker']),
  address: v.strictObject({
    blockLength4: field.blockLength4,
    blockLength6: field.blockLength6,
    blocksPerHost: field.count,
    borrow: field.flag,
  } satisfies EntriesOf<Choices['address']>),
  carry: carryName,
  guard: v.picklist(['isolated', 'open', 'docker']),
} satisfies EntriesOf<Choices>);

const network: Schema<Network> = v.strictObject({
  ...meta,
  id: field.id,
  model: modelName,
  tenant: field.name,
  choices,
  instead: optional(v.strictObject({ carry: carryName, because: field.line } satisfies EntriesOf<Instead>)),
  encrypted: field.flag,
  internal: field.flag,
  vni: field.vni,
  mtu: optional(field.mtu),
  attachable: field.flag,
  addressing,
  neutron: optional(
    v.strictObject({
      network: field.anyId,
      subnet: field.anyId,
      subnet6: optional(field.anyId),
      mtu: optional(field.mtu),
      groups: optional(field.listOf(field.anyId, mostGroups)),
      fallback: optional(v.literal(true)),
    } satisfies EntriesOf<NeutronPlace>),
  ),
  names: optional(v.literal('elsewhere')),
  present: optional(v.literal('always')),
  deletedAt: optional(field.timestamp),
} satisfies EntriesOf<Network>);

const pool: Schema<Pool> = v.strictObject({
  ...meta,
  id: field.id,
  network: field.id,
  cidr: field.cidr,
  range: optional(field.cidr),
  gateway: optional(field.ip),
  reserved: field.recordOf(field.ipOrCidr),
  blockLength: field.blockLength,
  fallback: optional(v.literal(true)),
  keepsSender: optional(v.literal(true)),
} satisfies EntriesOf<Pool>);

export const loanState: Schema<Loan['state']> = v.picklist(['asked', 'granted', 'refused', 'returned']);

const loan: Schema<Loan> = v.strictObject({
  id: field.id,
  host: field.name,
  endpoint: field.anyId,
  ip: optional(field.ip),
  state: loanState,
  reason: optional(field.line),
} satisfies EntriesOf<Loan>);

const block: Schema<Block> = v.strictObject({
  ...meta,
  id: field.id,
  network: field.id,
  pool: field.id,
  cidr: field.cidr,
  host: field.name,
  loans: field.listOf(loan, 4096),
  vlan: optional(field.vlan),
  groups: optional(field.recordOf(field.listOf(field.anyId, mostGroups))),
} satisfies EntriesOf<Block>);

const publishedPort: Schema<PublishedPort> = v.strictObject({
  protocol,
  hostIp: optional(field.ip),
  hostPort: field.port,
  port: field.port,
} satisfies EntriesOf<PublishedPort>);

const endpointEntries = {
  ...meta,
  id: field.id,
  name: field.endpointName,
  network: field.id,
  host: field.name,
  owner: field.line,
  addresses: v.pipe(
    field.listOf(field.ip, 2),
    v.check((list) => new Set(list.map((one) => one.includes(':'))).size === list.length, 'expected at most one address per family'),
  ),
  mac: field.mac,
  names: field.listOf(field.alias, 256),
  ports: field.listOf(publishedPort, 1024),
  sequence: field.count,
} satisfies EntriesOf<Endpoint>;
const endpoint: Schema<Endpoint> = v.strictObject(endpointEntries);

/** What a host publishes; revision and time of creation are the controller's, so they may be left out and are not looked at. */
export type EndpointRequest = Omit<Endpoint, 'revision' | 'createdAt' | 'labels'> &
  Partial<Pick<Endpoint, 'revision' | 'createdAt' | 'labels'>>;
export const endpointRequest: Schema<EndpointRequest> = v.strictObject({
  ...endpointEntries,
  revision: optional(field.count),
  createdAt: optional(v.string()),
  labels: optional(field.labels),
});

const virtualIp: Schema<VirtualIp> = v.strictObject({
  ip: optional(field.ip),
  hosts: field.listOf(field.name, 16),
} satisfies EntriesOf<VirtualIp>);

/** Of Octavia's load balancers. */
export const providerName: Schema<string> = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][\w.-]{0,63}$/, 'not a name of a provider'));
export const loadBalancer: Schema<NonNullable<Exposure['loadBalancer']>> = v.picklist(['public', 'internal']);

const exposure: Schema<Exposure> = v.strictObject({
  ...meta,
  id: field.id,
  network: field.id,
  endpoint: field.alias,
  protocol,
  port: field.port,
  hostPort: field.port,
  hostIp: optional(field.ip),
  sources: field.listOf(field.cidr, 256),
  floatingIp: optional(field.floatingIp),
  loadBalancer: optional(loadBalancer),
  provider: optional(providerName),
  balancerRanges: optional(field.listOf(field.cidr, 16)),
  virtualIp: optional(virtualIp),
  family: optional(v.literal(6)),
} satisfies EntriesOf<Exposure>);

export const bgpSort: Schema<BgpSort> = v.picklist(['BGPConfiguration', 'BGPPeer', 'BGPFilter']);
/** Bounded by the size of a request; what is in it is for `readBgp` to judge. */
export const bgpSpec: Schema<BgpResource['spec']> = v.record(v.string(), v.unknown());
const bgp: Schema<BgpResource> = v.strictObject({ ...meta, sort: bgpSort, spec: bgpSpec } satisfies EntriesOf<BgpResource>);

const secret: Schema<Secret> = v.strictObject({ ...meta, keys: field.listOf(field.anyId, 64) } satisfies EntriesOf<Secret>);

/** By kind, as REST paths and store keys name them. */
export const schemas: { readonly [K in ResourceKind]: Schema<Resources[K]> } = {
  tenants: tenant,
  hosts: host,
  networks: network,
  pools: pool,
  blocks: block,
  endpoints: endpoint,
  exposures: exposure,
  bgp,
  secrets: secret,
};
