// What a Service asks of an OpenStack cloud: of type LoadBalancer a load balancer of Octavia, with the annotations that users of the
// cloud provider know (kubernetes/cloud-provider-openstack, expose-applications-using-loadbalancer-type-service.md); of type NodePort
// that its ports be let in. What of it cannot be done is said; where a service would work otherwise than its user means, it is refused.
// Who makes the load balancer is not known here: what only some can do is told apart (openstack-proxy.ts).
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { MonitorWish, NodePort, ServiceBalancer, SubnetChoice } from '#model/cloud-services.ts';
import { isFault } from '#model/fault.ts';
import { type Cidr, familyOf, type Ip } from '#model/ip.ts';
import { type BalancerClasses, classed } from './balancer-classes.ts';
import { isTrue, notPassedOf, prefix, proxyOf, refused, type Said } from './openstack-proxy.ts';

/** A service that names another class is served by somebody else. */
export const octaviaClass = 'causeway.dev/octavia';
/**
 * Ranges of clients outside of the cluster, separated by commas, for whom nodes let in the ports of a service of type NodePort. Of its own
 * nodes and pods it says nothing: where packets of pods travel as they are, nodes let in these by every port.
 */
export const sourcesAnnotation = 'causeway.dev/node-port-sources';
const internalAnnotation = 'service.beta.kubernetes.io/openstack-internal-load-balancer';

const text = v.nullish(v.string());
const by = v.optional(v.pipe(v.string(), v.toLowerCase(), v.picklist(['tcp', 'udp', 'sctp'])), 'TCP');
const service = v.object({
  metadata: v.object({
    namespace: v.string(),
    name: v.string(),
    uid: v.optional(v.string(), ''),
    annotations: v.nullish(v.record(v.string(), v.string()), {}),
  }),
  spec: v.object({
    type: text,
    clusterIP: text,
    clusterIPs: v.nullish(v.array(v.string())),
    ports: v.optional(v.array(v.object({ protocol: by, port: field.port, nodePort: v.nullish(v.number(), 0) })), []),
    externalTrafficPolicy: text,
    healthCheckNodePort: v.nullish(v.number(), 0),
    loadBalancerClass: text,
    loadBalancerIP: text,
    loadBalancerSourceRanges: v.nullish(v.array(v.string()), []),
    sessionAffinity: text,
  }),
});
type Read = v.InferOutput<typeof service>;

export interface AskedBalancer {
  /** `namespace/name`. */
  readonly key: string;
  /** Absent: it is refused. */
  readonly balancer?: ServiceBalancer;
  /** It is led to hosts only that have a pod of it. */
  readonly isLocal: boolean;
  /** It is led to hosts only whose Nodes have these labels; null: with whatever value. */
  readonly nodes?: Readonly<Record<string, string | null>>;
  /** By which clients are to know it, instead of its address. */
  readonly hostname?: string;
  /** Pods as well are to reach it by the load balancer: what it writes before their words is waited for. */
  readonly isByProxy?: true;
  /** Why it is refused, or what of it is passed over; for people. */
  readonly notes: readonly string[];
}

export interface ServiceAsk {
  readonly nodePorts: readonly NodePort[];
  readonly balancer?: AskedBalancer;
}

const nothing: ServiceAsk = { nodePorts: [] };

/** How services are understood in this cluster. */
export interface Serving {
  /** Services that name no class of Kubernetes' are Octavia's as well. */
  readonly isDefault: boolean;
  readonly classes: BalancerClasses;
}

export function readAsk(item: unknown, { isDefault, classes }: Serving): ServiceAsk {
  const read = v.safeParse(service, item);
  if (!read.success) return nothing;
  const { spec } = read.output;
  if (spec.type === 'NodePort') return { nodePorts: nodePortsOf(read.output) };
  const isOurs = spec.type === 'LoadBalancer' && (spec.loadBalancerClass ?? (isDefault ? octaviaClass : '')) === octaviaClass;
  return isOurs ? { nodePorts: [], balancer: askedOf(read.output, classes) } : nothing;
}

const keyOf = ({ metadata }: Read): string => `${metadata.namespace}/${metadata.name}`;

/** Ranges that cannot be read open nothing. */
function nodePortsOf(read: Read): NodePort[] {
  const { metadata, spec } = read;
  const sources = rangesOf((metadata.annotations?.[sourcesAnnotation] ?? '').split(','), sourcesAnnotation, false);
  if (sources.length === 0) return [];
  return spec.ports.flatMap(({ protocol, nodePort }) => (nodePort ? [{ service: keyOf(read), protocol, port: nodePort, sources }] : []));
}

function askedOf({ metadata, spec }: Read, classes: BalancerClasses): AskedBalancer {
  const key = keyOf({ metadata, spec });
  const isLocal = spec.externalTrafficPolicy === 'Local';
  try {
    const read = { metadata: { ...metadata, annotations: classed(metadata.annotations ?? {}, classes) }, spec };
    const balancer = balancerOf(read);
    const said = annotationsOf(read);
    const hostname = hostnameOf(said);
    const nodes = nodesOf(said);
    return {
      key,
      isLocal,
      balancer,
      ...(nodes === undefined ? {} : { nodes }),
      ...(hostname === undefined ? {} : { hostname }),
      ...(balancer.proxy?.header === undefined ? {} : { isByProxy: true }),
      notes: notesOf(read),
    };
  } catch (error) {
    if (!isFault(error)) throw error;
    return { key, isLocal, notes: [error.message] };
  }
}

/** Faults: `unsupported`, `invalid`, with the name of the field or annotation in words. */
function balancerOf(read: Read): ServiceBalancer {
  const { metadata, spec } = read;
  const said = annotationsOf(read);
  const isInternal = isTrue(metadata.annotations?.[internalAnnotation], internalAnnotation);
  const isSix = isOfSix(read);
  const address = addressOf(spec.loadBalancerIP ?? '', isSix);
  const subnet = floatingSubnetOf(said);
  const floating = {
    wanted: address ?? said('floating-network-id') ?? 'auto',
    isKept: isTrue(said('keep-floatingip'), `${prefix}keep-floatingip`),
    ...(subnet === undefined ? {} : { subnet }),
  };
  const isProbed = isTrue(said('enable-health-monitor') ?? 'true', `${prefix}enable-health-monitor`);
  return {
    id: metadata.uid.replaceAll('-', '').slice(0, 16),
    service: keyOf(read),
    ports: spec.ports.map(portOf),
    sources: rangesOf(spec.loadBalancerSourceRanges ?? [], 'spec.loadBalancerSourceRanges', true),
    // No floating IP leads to IPv6: its own address is one that clients reach, or none is.
    ...(isSix ? { family: 6 } : {}),
    ...(isInternal || isSix ? {} : { floating }),
    place: placeOf(said, isInternal || isSix ? address : undefined),
    ...sharingOf(said),
    ...(isProbed ? { monitor: monitorOf(said) } : {}),
    ...furtherOf(read),
  };
}

function sharingOf(said: Said): Pick<ServiceBalancer, 'shared' | 'memberSubnet'> {
  const [shared, memberSubnet] = [said('load-balancer-id'), said('member-subnet-id')];
  return { ...(shared === undefined ? {} : { shared }), ...(memberSubnet === undefined ? {} : { memberSubnet }) };
}

/** What not all load balancers do. */
function furtherOf(read: Read): Pick<ServiceBalancer, 'proxy' | 'notPassed'> {
  const { spec } = read;
  const said = annotationsOf(read);
  const isSticky = spec.sessionAffinity === 'ClientIP';
  const proxy = proxyOf(said, { isSticky, healthPort: spec.externalTrafficPolicy === 'Local' ? (spec.healthCheckNodePort ?? 0) : 0 });
  const notPassed = notPassedOf(said, { isSticky, isForFew: (spec.loadBalancerSourceRanges ?? []).length > 0 });
  return { ...(proxy === undefined ? {} : { proxy }), ...(notPassed.length === 0 ? {} : { notPassed }) };
}

/** Names alone, where the cloud provider takes patterns as well. Fault `unsupported`. */
function floatingSubnetOf(said: Said): SubnetChoice | undefined {
  const [named, tagged] = [said('floating-subnet-id') ?? said('floating-subnet'), said('floating-subnet-tags')];
  for (const pattern of [named, tagged])
    if (pattern !== undefined && /^[~!&]|[*?[\]]/.test(pattern))
      throw refused(
        `${prefix}floating-subnet: ${JSON.stringify(pattern.slice(0, 60))} is a pattern; give the name, the id or tags as they are`,
      );
  if (named !== undefined) return { named };
  return tagged === undefined ? undefined : { tagged: tagged.split(',').map((tag) => tag.trim()) };
}

function hostnameOf(said: Said): string | undefined {
  const name = said('hostname');
  if (name === undefined || /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/.test(name))
    return name;
  throw refused(`${prefix}hostname: ${JSON.stringify(name.slice(0, 60))} is no name of a host`);
}

/** `key=value,key`. Fault `unsupported`. */
function nodesOf(said: Said): AskedBalancer['nodes'] {
  const labels = said('node-selector');
  if (labels === undefined) return undefined;
  return Object.fromEntries(
    labels.split(',').map((one): [string, string | null] => {
      const [, key, value] = /^([^=\s]+)(?:=([^=\s]*))?$/.exec(one.trim()) ?? [];
      if (key === undefined)
        throw refused(`${prefix}node-selector: ${JSON.stringify(labels.slice(0, 60))} is no list of labels, as in disk=ssd,gpu`);
      return [key, value ?? null];
    }),
  );
}

const addressesOf = ({ spec }: Read): string[] => (spec.clusterIPs ?? [spec.clusterIP ?? '']).filter((ip) => ip !== '' && ip !== 'None');

/** Of IPv6 and no other. */
function isOfSix(read: Read): boolean {
  const ips = addressesOf(read);
  return ips.length > 0 && ips.every((ip) => ip.includes(':'));
}

function portOf({ protocol, port, nodePort }: Read['spec']['ports'][number]): ServiceBalancer['ports'][number] {
  if (!nodePort) throw refused(`Port ${port} has no node port to lead to: allocateLoadBalancerNodePorts has to be true`);
  return { protocol, port, nodePort };
}

function addressOf(asked: string, isSix: boolean): Ip | undefined {
  if (asked === '') return undefined;
  const read = v.safeParse(field.ip, asked);
  if (read.success && (familyOf(read.output) === 6) !== isSix)
    throw refused(`spec.loadBalancerIP: ${read.output} is not of IPv${isSix ? 6 : 4}, as the service is`);
  if (read.success) return read.output;
  throw refused(`spec.loadBalancerIP: ${JSON.stringify(asked.slice(0, 60))} is no address`);
}

function placeOf(said: Said, address: Ip | undefined): ServiceBalancer['place'] {
  const [subnet, network, port] = [said('subnet-id'), said('network-id'), said('port-id')];
  return {
    ...(subnet === undefined ? {} : { subnet }),
    ...(network === undefined ? {} : { network }),
    ...(port === undefined ? {} : { port }),
    ...(address === undefined ? {} : { address }),
  };
}

/** An empty one says nothing, as with the cloud provider. */
const annotationsOf =
  ({ metadata }: Read): Said =>
  (name) => {
    const value = metadata.annotations?.[prefix + name]?.trim();
    return value === '' ? undefined : value;
  };

function rangesOf(texts: readonly string[], name: string, isStrict: boolean): Cidr[] {
  return texts.flatMap((one) => {
    const read = v.safeParse(field.cidr, one.trim());
    if (!read.success && isStrict) throw refused(`${name}: ${JSON.stringify(one.slice(0, 60))} is no prefix`);
    return read.success ? [read.output] : [];
  });
}

const limits: Readonly<Record<keyof MonitorWish, { readonly name: string; readonly most: number }>> = {
  delay: { name: 'health-monitor-delay', most: 3600 },
  timeout: { name: 'health-monitor-timeout', most: 3600 },
  // Octavia's own.
  retries: { name: 'health-monitor-max-retries', most: 10 },
  retriesDown: { name: 'health-monitor-max-retries-down', most: 10 },
};

function monitorOf(said: Said): MonitorWish {
  const numbers = Object.fromEntries(
    Object.entries(limits).flatMap(([key, { name, most }]) => {
      const value = said(name);
      if (value === undefined) return [];
      const number = /^\d{1,4}s?$/.test(value) ? Number.parseInt(value, 10) : 0;
      if (number < 1 || number > most)
        throw refused(`${prefix}${name}: ${JSON.stringify(value.slice(0, 60))} is no number from 1 to ${most}`);
      return [[key, number]];
    }),
  ) as MonitorWish;
  const { delay, timeout } = numbers;
  if (delay !== undefined && timeout !== undefined && timeout > delay)
    throw refused(`${prefix}health-monitor-timeout: ${timeout} is more than the delay, ${delay}`);
  return numbers;
}

/** What a load balancer has from when it is made. */
const ofMaking = ['subnet-id', 'network-id', 'port-id', 'flavor-id', 'availability-zone'] as const;
const ofFloating = ['floating-network-id', 'floating-subnet', 'floating-subnet-id', 'floating-subnet-tags', 'keep-floatingip'] as const;

function notesOf(read: Read): string[] {
  const said = annotationsOf(read);
  const isShared = said('load-balancer-id') !== undefined;
  const [vain, why] = isShared
    ? [[...ofMaking, ...ofFloating], 'it is on a load balancer that is there']
    : [isOfSix(read) ? ofFloating : [], 'no floating IP leads to IPv6'];
  return [
    ...vain.filter((name) => said(name) !== undefined).map((name) => `${prefix}${name} is not followed: ${why}`),
    ...(isShared && read.spec.loadBalancerIP ? [`spec.loadBalancerIP is not followed: ${why}`] : []),
    ...(!isOfSix(read) && addressesOf(read).some((ip) => ip.includes(':')) ? ['It is reached by IPv4 only'] : []),
  ];
}
