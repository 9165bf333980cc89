// The execution configuration on standard input: what stands in the host's CNI configuration for this plugin, and what the
// runtime adds to it (CNI 1.1.0, "Network configuration format", CONVENTIONS.md). Strict for ADD, because a misspelt key
// would otherwise be ignored in silence; whatever the runtime adds itself is known by its place or its prefix `cni.dev/`.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { parse, type Schema } from '#api/parse.ts';
import { Fault, isFault } from '#model/fault.ts';
import { cidrBase, cidrLast, contains, type Ip, ipAdd, ipToBigint, type Mac, parseInterface } from '#model/ip.ts';
import type { Bandwidth, Limit, PublishedPort } from '#model/resources.ts';
import { dns, type Dns, result, type Result } from './result.ts';

export interface Wanted {
  /** Name of the network configuration; with container and interface it names an attachment. */
  readonly name: string;
  /** Name or id of the network of ours; absent: the one called `name`. */
  readonly network?: string;
  readonly addresses: readonly Ip[];
  readonly mac?: Mac;
  /** Name of an IPAM plugin of others that gives the addresses. */
  readonly ipam?: string;
  /** One address is taken out of each set of ranges. */
  readonly ranges: readonly (readonly AddressRange[])[];
  readonly aliases: readonly string[];
  readonly ports: readonly PublishedPort[];
  readonly bandwidth?: Bandwidth;
  /** Of the pod, where the runtime tells of them. */
  readonly annotations: Readonly<Record<string, string>>;
  /** For the result only: who resolves names is the runtime's affair. */
  readonly dns: Dns;
  readonly earlier?: Result;
}

/** Both ends included. */
export interface AddressRange {
  readonly first: Ip;
  readonly last: Ip;
}

/** One attachment that the runtime still knows of. */
export interface Valid {
  readonly containerID: string;
  readonly ifname: string;
}

const optional = v.exactOptional;
const configurationName: Schema<string> = v.pipe(
  v.string(),
  v.regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$/, 'expected letters, digits, "_", "." or "-", beginning with a letter or digit'),
);
const portNumber = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535));
const bits = v.pipe(v.number(), v.integer(), v.minValue(0));

/**
 * An object whose keys are found without regard to case; an exact match wins. containerd writes arguments of capabilities by
 * the names of Go's fields (`HostPort`), and Go reads them so (containerd/go-cni 1.1.9, types.go).
 */
const goObject = <E extends v.ObjectEntries>(entries: E) =>
  v.pipe(
    v.record(v.string(), v.unknown()),
    v.transform((input) => {
      const keys = Object.keys(input);
      return Object.fromEntries(
        Object.keys(entries).flatMap((key): [string, unknown][] => {
          const found = Object.hasOwn(input, key) ? key : keys.find((other) => other.toLowerCase() === key.toLowerCase());
          return found === undefined ? [] : [[key, input[found]]];
        }),
      );
    }),
    v.object(entries),
  );

const portMapping = goObject({
  hostPort: optional(portNumber, 0),
  containerPort: field.port,
  protocol: optional(v.pipe(v.string(), v.toLowerCase(), v.picklist(['tcp', 'udp', 'sctp'])), 'tcp'),
  hostIP: optional(v.union([v.literal(''), field.ip]), ''),
});

/** Go writes an empty list as null. */
const goNames = optional(v.nullable(field.listOf(field.line, 64)), null);

/** The convention lets an address come with a prefix length, which the endpoint's own takes the place of. */
const address: Schema<Ip> = v.union([
  field.ip,
  v.pipe(
    field.interfaceAddress,
    v.transform((text) => parseInterface(text).ip),
  ),
]);

/** A range of a subnet, or all of it but its first and last address (CONVENTIONS.md, "ipRanges"). */
const ipRange: Schema<AddressRange> = v.pipe(
  goObject({ subnet: field.cidr, rangeStart: optional(field.ip), rangeEnd: optional(field.ip), gateway: optional(field.ip) }),
  v.check(
    ({ subnet, rangeStart = cidrBase(subnet), rangeEnd = cidrLast(subnet) }) =>
      contains(subnet, rangeStart) && contains(subnet, rangeEnd) && ipToBigint(rangeStart) <= ipToBigint(rangeEnd),
    'expected a range inside its subnet',
  ),
  v.transform(({ subnet, rangeStart, rangeEnd }) => ({
    first: rangeStart ?? ipAdd(cidrBase(subnet), 1),
    last: rangeEnd ?? ipAdd(cidrLast(subnet), -1),
  })),
);

export const annotationsCapability = 'io.kubernetes.cri.pod-annotations';
const runtimeConfig = v.object({
  portMappings: optional(field.listOf(portMapping, 1024), []),
  ips: optional(field.listOf(address, 2), []),
  mac: optional(field.mac),
  aliases: optional(field.listOf(field.alias, 256), []),
  dns: optional(goObject({ servers: goNames, searches: goNames, options: goNames }), {}),
  bandwidth: optional(
    goObject({
      ingressRate: optional(bits, 0),
      ingressBurst: optional(bits, 0),
      egressRate: optional(bits, 0),
      egressBurst: optional(bits, 0),
    }),
    {},
  ),
  ipRanges: optional(field.listOf(field.listOf(ipRange, 16), 2), []),
  infinibandGUID: optional(v.string(), ''),
  deviceID: optional(v.string(), ''),
  cgroupPath: optional(v.string(), ''),
  // Of containerd and CRI-O.
  [annotationsCapability]: optional(v.nullable(v.record(v.string(), v.string())), null),
});

const configuration = v.strictObject({
  cniVersion: v.string(),
  name: configurationName,
  type: v.string(),
  network: optional(field.name),
  capabilities: optional(v.record(v.string(), v.boolean()), {}),
  ipam: optional(v.looseObject({ type: optional(v.string(), '') }), {}),
  dns: optional(dns, {}),
  args: optional(
    v.looseObject({
      cni: optional(v.looseObject({ ips: optional(field.listOf(address, 2), []) }), {}),
    }),
    {},
  ),
  runtimeConfig: optional(runtimeConfig, {}),
  prevResult: optional(result),
});
type Configuration = v.InferOutput<typeof configuration>;

const unsupported = (key: string, value: unknown): Fault =>
  new Fault('unsupported', `Cannot serve ${key} ${JSON.stringify(value).slice(0, 200)}`, {
    field: key,
    hint: 'Remove it from the network configuration',
  });

/** What would have no effect is refused rather than passed over. */
function checkSupported({ runtimeConfig: runtime }: Configuration): void {
  if (runtime.infinibandGUID !== '') throw unsupported('runtimeConfig.infinibandGUID', runtime.infinibandGUID);
  if (runtime.deviceID !== '') throw unsupported('runtimeConfig.deviceID', runtime.deviceID);
}

/** Without what runtimes add for themselves. */
const withoutRuntimeKeys = (input: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(input).filter(([key]) => !key.startsWith('cni.dev/')));

/** A later plugin of a chain is asked with the result so far; a list that has never run has none. */
const isAbsent = (value: unknown): boolean => value === undefined || value === null;

/**
 * The configuration of an ADD or CHECK. Faults: `invalid` naming the field; `unsupported` (an unknown key, a capability or an
 * IPAM plugin that cannot be served).
 */
export function parseConfiguration(input: Readonly<Record<string, unknown>>): Wanted {
  const given = Object.fromEntries(Object.entries(withoutRuntimeKeys(input)).filter(([, value]) => !isAbsent(value)));
  const unknown = Object.keys(given).find((key) => !Object.hasOwn(configuration.entries, key));
  if (unknown !== undefined) throw unsupported(unknown.slice(0, 80), given[unknown]);
  const parsed = parse(configuration, given, 'The network configuration');
  checkSupported(parsed);
  const { name, network, runtimeConfig: runtime, args, prevResult: earlier } = parsed;
  const { mac, aliases, portMappings } = runtime;
  const bandwidth = bandwidthOf(runtime.bandwidth);
  return {
    name,
    ...(network === undefined ? {} : { network }),
    addresses: runtime.ips.length > 0 ? runtime.ips : args.cni.ips,
    ...(mac === undefined ? {} : { mac }),
    ...(isForeign(parsed.ipam.type) ? { ipam: parsed.ipam.type } : {}),
    ranges: isForeign(parsed.ipam.type) ? [] : runtime.ipRanges,
    aliases,
    ports: portMappings.flatMap((mapping) => publishedPort(mapping) ?? []),
    ...(bandwidth === undefined ? {} : { bandwidth }),
    annotations: runtime[annotationsCapability] ?? {},
    dns: dnsOf(parsed),
    ...(earlier === undefined ? {} : { earlier }),
  };
}

/** A container port without a host port is only a note. */
function publishedPort({ hostPort, containerPort, protocol: of, hostIP }: v.InferOutput<typeof portMapping>): PublishedPort | undefined {
  if (hostPort === 0) return undefined;
  return { protocol: of, ...(hostIP === '' ? {} : { hostIp: hostIP }), hostPort, port: containerPort };
}

// What runtimes write where the user has said nothing of a burst: containerd 2^32 - 1 (internal/cri, toCNIBandWidth), others
// 2^31 - 1. Taken at its word it would let half a gigabyte pass before any limit.
const unsaidBurst = 2 ** 31 - 1;

function limitOf(rate: number, burst: number): Limit | undefined {
  if (rate === 0) return undefined;
  return { rate, ...(burst === 0 || burst >= unsaidBurst ? {} : { burst }) };
}

function bandwidthOf(asked: Configuration['runtimeConfig']['bandwidth']): Bandwidth | undefined {
  const { ingressRate, ingressBurst, egressRate, egressBurst } = asked;
  const ingress = limitOf(ingressRate, ingressBurst);
  const egress = limitOf(egressRate, egressBurst);
  if (ingress === undefined && egress === undefined) return undefined;
  return { ...(ingress === undefined ? {} : { ingress }), ...(egress === undefined ? {} : { egress }) };
}

function dnsOf({ dns: configured, runtimeConfig: { dns: asked } }: Configuration): Dns {
  return {
    ...configured,
    ...(asked.servers === null ? {} : { nameservers: asked.servers }),
    ...(asked.searches === null ? {} : { search: asked.searches }),
    ...(asked.options === null ? {} : { options: asked.options }),
  };
}

const isForeign = (type: string): boolean => type !== '' && type !== 'causeway';

const foreign = v.looseObject({ ipam: v.looseObject({ type: v.string() }) });

/** Name of the IPAM plugin of others, also in a configuration that is otherwise wrong. */
export function foreignIpam(input: Readonly<Record<string, unknown>>): string | undefined {
  const read = v.safeParse(foreign, input);
  return read.success && isForeign(read.output.ipam.type) ? read.output.ipam.type : undefined;
}

const named = v.object({ name: configurationName });

/** All that a DEL needs: it must succeed although the rest has been changed since, or never was right. Fault `invalid`. */
export const parseName = (input: Readonly<Record<string, unknown>>): string => parse(named, input, 'The network configuration').name;

export const containerId: Schema<string> = v.pipe(
  v.string(),
  v.regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$/, 'expected letters, digits, "_", "." or "-", beginning with a letter or digit'),
);

const attachmentsKey = 'cni.dev/valid-attachments';
const collection = v.object({
  name: configurationName,
  [attachmentsKey]: v.nullish(field.listOf(v.object({ containerID: containerId, ifname: field.linkName }), 65_536)),
});

/**
 * What GC may not touch. Fault `invalid`; also when the list is absent, since taking that for an empty one would cut off
 * every container. `null` is how Go writes an empty list.
 */
export function parseCollection(input: Readonly<Record<string, unknown>>): { readonly name: string; readonly valid: readonly Valid[] } {
  if (!Object.hasOwn(input, attachmentsKey)) {
    throw new Fault('invalid', `The network configuration lacks ${attachmentsKey}`, { field: attachmentsKey });
  }
  const { name, [attachmentsKey]: valid } = parse(collection, input, 'The network configuration');
  return { name, valid: valid ?? [] };
}

/** Fault `invalid` about standard input as a whole when it is no JSON object. */
export function parseJson(text: string, whole: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return parse(v.record(v.string(), v.unknown()), Array.isArray(value) ? undefined : value, 'Standard input');
  } catch (cause) {
    const message = isFault(cause) ? cause.message : 'Standard input is no JSON';
    throw new Fault('invalid', message, { field: whole, cause });
  }
}
