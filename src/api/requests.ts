// What may be asked of the controller beyond whole resources, and what it answers to that: creating, claiming, borrowing,
// joining, reporting, tokens. One type and one schema each; the compiler holds them together.
import * as v from 'valibot';
import type { Cidr, Family, Ip } from '#model/ip.ts';
import type { BgpResource, BgpSort, Exposure, Host, HostStatus, Loan, Protocol, Tenant, Underlay } from '#model/resources.ts';
import * as field from './fields.ts';
import type { NetworkRequest, NeutronRequest, PoolRequest } from './local.ts';
import type { EntriesOf, Schema } from './parse.ts';
import {
  addressing,
  bgpSort,
  bgpSpec,
  loadBalancer,
  providerName,
  carryName,
  endpointRequest,
  type EndpointRequest,
  family,
  modelName,
  mostGroups,
  ownStatus,
  protocol,
  underlay,
  wireguard,
} from './schemas.ts';

const optional = v.exactOptional;

const poolEntries = {
  cidr: optional(field.cidr),
  family,
  range: optional(field.cidr),
  gateway: optional(field.ip),
  reserved: optional(field.recordOf(field.ipOrCidr)),
  id: optional(field.id),
} satisfies EntriesOf<PoolRequest>;

/** Neutron's names are any text, and may even be empty; then there is the id. */
const cloudName = v.pipe(v.string(), v.minLength(1), v.maxLength(255, 'expected at most 255 characters'));

export const neutronRequest: Schema<NeutronRequest> = v.strictObject({
  network: cloudName,
  subnet: optional(cloudName),
  subnet6: optional(cloudName),
  groups: optional(field.listOf(cloudName, mostGroups)),
  fallback: optional(v.union([v.literal('overlay'), field.cidr])),
} satisfies EntriesOf<NeutronRequest>);

export const networkRequest: Schema<NetworkRequest> = v.strictObject({
  name: field.name,
  model: optional(modelName),
  tenant: optional(field.name),
  pools: optional(field.listOf(v.strictObject(poolEntries), 16)),
  encrypted: optional(field.flag),
  internal: optional(field.flag),
  attachable: optional(field.flag),
  mtu: optional(field.mtu),
  vni: optional(field.vni),
  carry: optional(carryName),
  addressing: optional(addressing),
  blockLength4: optional(field.blockLength4),
  blockLength6: optional(field.blockLength6),
  labels: optional(field.labels),
  neutron: optional(neutronRequest),
} satisfies EntriesOf<NetworkRequest>);

/** One more pool for a network that exists; `network` is an id or a name. */
export interface AddPoolRequest extends Omit<PoolRequest, 'family'> {
  readonly network: string;
  /** May be left out when `cidr` is given. */
  readonly family?: Family;
  readonly labels?: Readonly<Record<string, string>>;
}
export const addPoolRequest: Schema<AddPoolRequest> = v.strictObject({
  ...poolEntries,
  family: optional(family),
  network: field.anyId,
  labels: optional(field.labels),
} satisfies EntriesOf<AddPoolRequest>);

export interface TenantRequest {
  readonly name: string;
  readonly description?: string;
  readonly labels?: Tenant['labels'];
}
export const tenantRequest: Schema<TenantRequest> = v.strictObject({
  name: field.name,
  description: optional(field.line),
  labels: optional(field.labels),
} satisfies EntriesOf<TenantRequest>);

export interface ExposureRequest {
  /** Chosen from endpoint, port and protocol when left out. */
  readonly name?: string;
  /** Id or name. */
  readonly network: string;
  readonly endpoint: string;
  readonly protocol: Protocol;
  readonly port: number;
  readonly hostPort: number;
  readonly hostIp?: Ip;
  readonly sources?: readonly Cidr[];
  readonly floatingIp?: string;
  readonly loadBalancer?: NonNullable<Exposure['loadBalancer']>;
  readonly provider?: string;
  readonly virtualIp?: true;
  readonly family?: NonNullable<Exposure['family']>;
  readonly labels?: Exposure['labels'];
}
export const exposureRequest: Schema<ExposureRequest> = v.strictObject({
  name: optional(field.name),
  network: field.anyId,
  endpoint: field.alias,
  protocol,
  port: field.port,
  hostPort: field.port,
  hostIp: optional(field.ip),
  sources: optional(field.listOf(field.cidr, 256)),
  floatingIp: optional(field.floatingIp),
  loadBalancer: optional(loadBalancer),
  provider: optional(providerName),
  virtualIp: optional(v.literal(true)),
  family: optional(v.literal(6)),
  labels: optional(field.labels),
} satisfies EntriesOf<ExposureRequest>);

export interface ClaimRequest {
  readonly network: string;
  readonly pool: string;
  readonly host: string;
  /** Claims exactly the block that holds this address, even outside the pool's range. */
  readonly ip?: Ip;
  /** Which end of the pool to begin at; `low` unless told. */
  readonly prefer?: 'low' | 'high';
  /** Blocks of the pool that the host knows to have; where it has more it is answered with one of them. None unless told. */
  readonly has?: number;
}
export const claimRequest: Schema<ClaimRequest> = v.strictObject({
  network: field.anyId,
  pool: field.id,
  host: field.name,
  ip: optional(field.ip),
  prefer: optional(v.picklist(['low', 'high'])),
  has: optional(field.count),
} satisfies EntriesOf<ClaimRequest>);

/** What the port of one address of a block is in. */
export interface PortGroupsRequest {
  readonly ip: Ip;
  /** By name or id; absent: those of the network again. */
  readonly groups?: readonly string[];
}
export const portGroupsRequest: Schema<PortGroupsRequest> = v.strictObject({
  ip: field.ip,
  groups: optional(v.pipe(field.listOf(cloudName, mostGroups), v.minLength(1))),
} satisfies EntriesOf<PortGroupsRequest>);

/** By the borrower; asking again with the same `id` is answered with the loan as it is. */
export interface LoanRequest {
  readonly id: string;
  readonly host: string;
  readonly endpoint: string;
  readonly ip?: Ip;
}
export const loanRequest: Schema<LoanRequest> = v.strictObject({
  id: field.id,
  host: field.name,
  endpoint: field.anyId,
  ip: optional(field.ip),
} satisfies EntriesOf<LoanRequest>);

/** The block's host grants (with the address) or refuses; the borrower returns. */
export interface LoanSettlement {
  readonly state: Exclude<Loan['state'], 'asked'>;
  readonly ip?: Ip;
  readonly reason?: string;
}
export const loanSettlement: Schema<LoanSettlement> = v.strictObject({
  state: v.picklist(['granted', 'refused', 'returned']),
  ip: optional(field.ip),
  reason: optional(field.line),
} satisfies EntriesOf<LoanSettlement>);

/** Deletes are tried before puts, so an address can change its endpoint within one batch. At most 500 items in all. */
export interface BatchRequest {
  readonly puts: readonly EndpointRequest[];
  readonly deletes: readonly { readonly id: string; readonly sequence?: number }[];
}
/** `puts` are each checked on their own, so that one bad item does not spoil the rest. */
export const batchRequest: Schema<{ puts: unknown[]; deletes: { id: string; sequence?: number }[] }> = v.pipe(
  v.strictObject({
    puts: v.array(v.unknown()),
    deletes: v.array(v.strictObject({ id: field.id, sequence: optional(field.count) })),
  }),
  v.check(({ puts, deletes }) => puts.length + deletes.length <= 500, 'expected at most 500 items'),
);
export { endpointRequest, type EndpointRequest };

export interface JoinRequest {
  readonly token: string;
  /** PKCS #10, PEM. */
  readonly csr: string;
  readonly host: string;
  /** Of the agent. */
  readonly version: string;
  /** Names the machine, so that another one does not take a name that is in use. */
  readonly machine?: string;
}
const pem: Schema<string> = v.pipe(
  v.string(),
  v.maxLength(16_384, 'expected at most 16384 characters'),
  v.startsWith('-----BEGIN ', 'expected PEM text'),
);
const secret: Schema<string> = v.pipe(v.string(), v.maxLength(256, 'expected at most 256 characters'));
export const joinRequest: Schema<JoinRequest> = v.strictObject({
  token: secret,
  csr: pem,
  host: field.name,
  version: field.line,
  machine: optional(field.line),
} satisfies EntriesOf<JoinRequest>);

export interface RotateRequest {
  readonly csr: string;
}
export const rotateRequest: Schema<RotateRequest> = v.strictObject({ csr: pem });

export interface Report {
  readonly generation: number;
  readonly underlay: readonly Underlay[];
  readonly wireguard?: NonNullable<Host['wireguard']>;
  readonly talkKey?: string | undefined;
  readonly agentVersion: string;
  /** `seenAt` is the controller's to say; it may be given and is not looked at. */
  readonly status: Omit<HostStatus, 'seenAt'> & { readonly seenAt?: string };
  /** Destinations that the host itself routes, default route and our own left out: no network is put there. */
  readonly routes: readonly Cidr[];
  /** Ranges of the container engine's own bridges there: only networks that hosts take part in keep clear of them. */
  readonly bridges?: readonly Cidr[];
}
export const report: Schema<Report> = v.strictObject({
  generation: field.count,
  underlay: field.listOf(underlay, 16),
  wireguard: optional(wireguard),
  talkKey: optional(field.publicKey),
  agentVersion: field.line,
  status: v.strictObject({ ...ownStatus, seenAt: optional(v.string()) }),
  routes: field.listOf(field.cidr, 4096),
  bridges: optional(field.listOf(field.cidr, 4096)),
} satisfies EntriesOf<Report>);

export interface ProposeRequest {
  readonly family: Family;
  readonly besides?: readonly Cidr[];
}
export const proposeRequest: Schema<ProposeRequest> = v.strictObject({
  family,
  besides: optional(field.listOf(field.cidr, 4096)),
} satisfies EntriesOf<ProposeRequest>);

/** One of Calico's resources, made or replaced. */
export interface BgpRequest {
  readonly sort: BgpSort;
  readonly name: string;
  readonly labels?: BgpResource['labels'];
  readonly spec: BgpResource['spec'];
}
/** Part of an id, as `bgpconfiguration.NAME`. */
const bgpName: Schema<string> = v.pipe(field.name, v.maxLength(46, 'expected at most 46 characters'));
export const bgpRequest: Schema<BgpRequest> = v.strictObject({
  sort: bgpSort,
  name: bgpName,
  labels: optional(field.labels),
  spec: bgpSpec,
} satisfies EntriesOf<BgpRequest>);
/** Of a resource of BGP, unlike for all of them. */
export const bgpId = ({ sort, name }: Pick<BgpRequest, 'sort' | 'name'>): string => `${sort.toLowerCase()}.${name}`;

/** Made or replaced whole; nobody can read `texts` again but the hosts that need them. */
export interface SecretRequest {
  readonly texts: Readonly<Record<string, string>>;
}
export const secretRequest: Schema<SecretRequest> = v.strictObject({
  texts: v.pipe(
    v.record(
      v.pipe(v.string(), v.regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/, 'expected a key of letters, digits, "_", "." or "-"')),
      v.pipe(v.string(), v.minLength(1, 'expected a text'), v.maxBytes(256, 'expected at most 256 bytes')),
    ),
    v.minEntries(1, 'expected at least one key'),
    v.maxEntries(64, 'expected at most 64 keys'),
  ),
} satisfies EntriesOf<SecretRequest>);

export interface TokenRequest {
  readonly type: 'join' | 'api';
  /** For `api`: admin, operator, viewer or tenant:NAME. */
  readonly role?: string;
  /** For `join`: the only host that may use it. */
  readonly host?: string;
  /** Absent: an hour for `join`, for ever for `api`. */
  readonly ttlSeconds?: number;
  readonly name?: string;
}
export const tokenRequest: Schema<TokenRequest> = v.strictObject({
  type: v.picklist(['join', 'api']),
  role: optional(field.role),
  host: optional(field.name),
  ttlSeconds: optional(field.seconds),
  name: optional(field.line),
} satisfies EntriesOf<TokenRequest>);
