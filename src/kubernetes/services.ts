// What a cluster's Services and EndpointSlices say, read into facts. The slices say the ports, so named ports and a pod's own
// choice of number need no look at pods; and they say readiness, so that publishNotReadyAddresses needs nothing here at all.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { type Cidr, familyOf, type Ip, readIp } from '#model/ip.ts';
import type { Protocol } from '#model/resources.ts';

const text = v.optional(v.nullable(v.string()));
const texts = v.nullish(v.array(v.string()));
/** Kubernetes writes protocols in capitals. */
const by = v.optional(v.pipe(v.string(), v.toLowerCase(), v.picklist(['tcp', 'udp', 'sctp'])), 'TCP');
const metadata = v.object({ namespace: v.string(), name: v.string(), labels: v.optional(field.texts, {}) });
/** 0 and absence: none. */
const maybePort = v.nullish(v.union([field.port, v.literal(0)]));
const service = v.object({
  metadata,
  spec: v.object({
    type: text,
    clusterIP: text,
    clusterIPs: v.optional(v.array(v.string())),
    ports: v.optional(v.array(v.object({ name: text, protocol: by, port: field.port, nodePort: maybePort })), []),
    externalIPs: texts,
    externalTrafficPolicy: text,
    internalTrafficPolicy: text,
    healthCheckNodePort: maybePort,
    loadBalancerSourceRanges: texts,
    sessionAffinity: text,
    sessionAffinityConfig: v.nullish(v.object({ clientIP: v.nullish(v.object({ timeoutSeconds: v.nullish(v.number()) })) })),
  }),
  status: v.nullish(v.object({ loadBalancer: v.nullish(v.object({ ingress: v.nullish(v.array(v.object({ ip: text, ipMode: text }))) })) })),
});
const hints = v.nullish(
  v.object({ forZones: v.nullish(v.array(v.object({ name: v.string() }))), forNodes: v.nullish(v.array(v.object({ name: v.string() }))) }),
);

type Maybe<T> = T | null | undefined;
interface ReadEndpoint {
  readonly addresses: readonly string[];
  readonly conditions?: Maybe<{
    readonly ready?: Maybe<boolean>;
    readonly serving?: Maybe<boolean>;
    readonly terminating?: Maybe<boolean>;
  }>;
  readonly nodeName?: Maybe<string>;
  /** v1beta1 has the name of the node here. */
  readonly topology?: Maybe<Readonly<Record<string, string>>>;
  readonly hints?: v.InferOutput<typeof hints>;
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null;
const isMissing = (value: unknown): value is null | undefined => value === undefined || value === null;
const isText = (value: unknown): value is string => typeof value === 'string';
const isMaybe = (value: unknown): boolean => typeof value === 'boolean' || isMissing(value);

/** There may be a hundred thousand: they are looked at where they are, which takes a tenth of the time that copying them by a schema takes. */
function isEndpoint(one: unknown): one is ReadEndpoint {
  if (!isObject(one)) return false;
  const { addresses, conditions, nodeName, topology, hints: hinted } = one;
  return (
    Array.isArray(addresses) &&
    addresses.every(isText) &&
    (isMissing(conditions) ||
      (isObject(conditions) && isMaybe(conditions['ready']) && isMaybe(conditions['serving']) && isMaybe(conditions['terminating']))) &&
    (isText(nodeName) || isMissing(nodeName)) &&
    (isMissing(topology) || (isObject(topology) && Object.values(topology).every(isText))) &&
    (isMissing(hinted) || v.is(hints, hinted))
  );
}
const endpointList = v.custom<readonly ReadEndpoint[]>((some) => Array.isArray(some) && some.every(isEndpoint));

const slice = v.object({
  metadata,
  addressType: v.string(),
  endpoints: v.nullish(endpointList, []),
  ports: v.nullish(v.array(v.object({ name: text, protocol: by, port: v.optional(v.nullable(field.port)) })), []),
});

/** Servers before 1.21 have only the second, servers since 1.25 only the first. */
export const sliceVersions: readonly string[] = [
  '/apis/discovery.k8s.io/v1/endpointslices',
  '/apis/discovery.k8s.io/v1beta1/endpointslices',
];
/** Somebody else serves services with this label. */
const proxyLabel = 'service.kubernetes.io/service-proxy-name';
/** Nobody serves services with this label, whatever addresses they have (v1.IsHeadlessService, which kube-proxy heeds). */
const headlessLabel = 'service.kubernetes.io/headless';
const serviceLabel = 'kubernetes.io/service-name';
const hostLabel = 'kubernetes.io/hostname';
/** What the API fills in where a service does not say it. */
const usualAffinitySeconds = 10_800;
const mostAffinitySeconds = 86_400;

export interface ServicePort {
  readonly name: string;
  readonly protocol: Protocol;
  readonly port: number;
  readonly nodePort?: number;
}

export interface ServiceFacts {
  readonly key: string;
  readonly ips: readonly Ip[];
  readonly ports: readonly ServicePort[];
  readonly externalIps: readonly Ip[];
  /** Of load balancers that leave the address to the hosts (`ipMode: VIP`). */
  readonly balancerIps: readonly Ip[];
  /** Of clients that may use those; absent: all. */
  readonly sources?: readonly Cidr[];
  readonly isExternalLocal: boolean;
  readonly isInternalLocal: boolean;
  readonly affinitySeconds?: number;
  readonly healthPort?: number;
}

export interface EndpointFacts {
  readonly ip: Ip;
  readonly isReady: boolean;
  /** Not ready any more, but would answer; only with `isTerminating` of interest. */
  readonly isServing: boolean;
  readonly isTerminating: boolean;
  readonly node?: string;
  readonly forZones?: readonly string[];
  readonly forNodes?: readonly string[];
}

export interface SliceFacts {
  /** Of the service it belongs to. */
  readonly service: string;
  readonly endpoints: readonly EndpointFacts[];
  readonly ports: readonly { readonly name: string; readonly protocol: Protocol; readonly port: number }[];
}

const ipsOf = (some: readonly string[]): Ip[] => some.flatMap((one) => readIp(one) ?? []);

/** In canonical form: unspecified, loopback, link-local, multicast, reserved. */
const special = /^(0|127|169\.254|22[4-9]|2[345]\d)\.|^::1?$|^fe[89ab]|^ff/;

const isRoutable = (ip: Ip): boolean => !special.test(ip);

/** Addresses that packets from elsewhere can be sent to. */
const routableIpsOf = (some: readonly string[] | null | undefined): Ip[] => [...new Set(ipsOf(some ?? []))].filter(isRoutable);

const cidrsOf = (some: readonly string[]): Cidr[] =>
  some.flatMap((one) => {
    const read = v.safeParse(field.cidr, one.trim());
    return read.success ? [read.output] : [];
  });

type ReadService = v.InferOutput<typeof service>;

function affinityOf(spec: ReadService['spec']): { affinitySeconds?: number } {
  if (spec.sessionAffinity !== 'ClientIP') return {};
  const seconds = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? usualAffinitySeconds;
  return { affinitySeconds: Math.min(Math.max(1, Math.trunc(seconds)), mostAffinitySeconds) };
}

const portOf = ({ name, protocol: carrier, port, nodePort }: ReadService['spec']['ports'][number]): ServicePort => ({
  name: name ?? '',
  protocol: carrier,
  port,
  ...(typeof nodePort === 'number' && nodePort > 0 ? { nodePort } : {}),
});

function balancerOf({ spec, status }: ReadService): Pick<ServiceFacts, 'balancerIps' | 'sources' | 'healthPort'> {
  if (spec.type !== 'LoadBalancer') return { balancerIps: [] };
  const ingress = status?.loadBalancer?.ingress ?? [];
  const ranges = spec.loadBalancerSourceRanges ?? [];
  const healthPort = spec.externalTrafficPolicy === 'Local' ? (spec.healthCheckNodePort ?? 0) : 0;
  return {
    balancerIps: routableIpsOf(ingress.flatMap(({ ip, ipMode }) => (ipMode === 'Proxy' ? [] : (ip ?? [])))),
    ...(ranges.length === 0 ? {} : { sources: cidrsOf(ranges) }),
    ...(healthPort === 0 ? {} : { healthPort }),
  };
}

/** Undefined: it has no address of the cluster (headless, a name elsewhere), is served by somebody else, or cannot be read. */
export function readService(item: unknown): ServiceFacts | undefined {
  const read = v.safeParse(service, item);
  if (!read.success) return undefined;
  const { metadata: of, spec } = read.output;
  const isLeft = [proxyLabel, headlessLabel].some((label) => of.labels[label] !== undefined);
  if (isLeft || spec.type === 'ExternalName') return undefined;
  const ips = routableIpsOf(spec.clusterIPs ?? [spec.clusterIP ?? '']);
  if (ips.length === 0) return undefined;
  return {
    key: `${of.namespace}/${of.name}`,
    ips,
    ports: spec.ports.map(portOf),
    externalIps: routableIpsOf(spec.externalIPs),
    ...balancerOf(read.output),
    isExternalLocal: spec.externalTrafficPolicy === 'Local',
    isInternalLocal: spec.internalTrafficPolicy === 'Local',
    ...affinityOf(spec),
  };
}

function hintsOf(hinted: ReadEndpoint['hints']): Pick<EndpointFacts, 'forZones' | 'forNodes'> {
  const forZones = hinted?.forZones?.map(({ name }) => name);
  const forNodes = hinted?.forNodes?.map(({ name }) => name);
  return { ...(forZones === undefined ? {} : { forZones }), ...(forNodes === undefined ? {} : { forNodes }) };
}

/** Undefined: packets cannot be sent there. */
function endpointOf({ addresses, conditions, nodeName, topology, hints: hinted }: ReadEndpoint): EndpointFacts | undefined {
  // All addresses of one endpoint lead to the same place (EndpointSlice v1, "addresses"): the first is enough.
  const ip = readIp(addresses[0] ?? '');
  if (ip === undefined || !isRoutable(ip)) return undefined;
  const isReady = conditions?.ready ?? true;
  const isServing = conditions?.serving ?? isReady;
  const isTerminating = conditions?.terminating ?? false;
  const node = nodeName ?? topology?.[hostLabel];
  const facts = node === undefined ? { ip, isReady, isServing, isTerminating } : { ip, isReady, isServing, isTerminating, node };
  return isMissing(hinted) ? facts : { ...facts, ...hintsOf(hinted) };
}

/** Undefined: it belongs to no service, has no addresses of ours, or cannot be read. Absent readiness counts as ready. */
export function readSlice(item: unknown): SliceFacts | undefined {
  const read = v.safeParse(slice, item);
  if (!read.success) return undefined;
  const { metadata: of, addressType, endpoints, ports } = read.output;
  const name = of.labels[serviceLabel];
  if (name === undefined || (addressType !== 'IPv4' && addressType !== 'IPv6')) return undefined;
  return {
    service: `${of.namespace}/${name}`,
    endpoints: (endpoints ?? []).map(endpointOf).filter((one) => one !== undefined),
    ports: (ports ?? []).flatMap(({ name: called, protocol: carrier, port }) =>
      typeof port === 'number' ? [{ name: called ?? '', protocol: carrier, port }] : [],
    ),
  };
}

/** For the journal: a slice whose addresses and ports readSlice reads as the same. */
export const keptSlice = (key: string, { service: of, endpoints, ports }: SliceFacts): object => {
  const [namespace = '', name = ''] = key.split('/');
  return {
    metadata: { namespace, name, labels: { [serviceLabel]: of.slice(namespace.length + 1) } },
    addressType: endpoints.some(({ ip }) => familyOf(ip) === 6) ? 'IPv6' : 'IPv4',
    endpoints: endpoints.map(({ ip }) => ({ addresses: [ip] })),
    ports,
  };
};
