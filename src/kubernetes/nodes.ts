// What a cluster's Nodes say, in our words: each is a host with one block per family, its podCIDR (Node.spec.podCIDRs), and all
// of them hold one network, of the model `flannel`. A host's index, from which the address and MAC of its tunnel's end
// follow, is the place of its block among blocks of that length, so no host has to be told its own.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { excludeLabel } from '#drivers/announce.ts';
import { choicesFor } from '#drivers/models.ts';
import { compactOf, indexIn } from '#model/block.ts';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, cidrLength, contains, covers, type Family, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import { unknownInterface, wireguardPortOf } from '#model/numbers.ts';
import { answersProbes } from '#model/paths.ts';
import type { Block, CarryName, Host, Network, Pool } from '#model/resources.ts';
import { readAnnotations } from './annotations.ts';
import { revisionOf } from './client.ts';

export interface ClusterOptions {
  /** One range per family, of which every node's podCIDR is a part. */
  readonly podCidrs: readonly Cidr[];
  readonly carry?: CarryName;
}

/** The network of all pods. Its VNI is the one that flannel's users know. */
export const podNetwork = { id: 'kubernetespods', name: 'pods', vni: 1 } as const;
const tenant = 'default';
/** Of a Node's labels only these are kept: where it is, and whether it takes part in load balancing. */
export const zoneLabel = 'topology.kubernetes.io/zone';
/** MTU of a peer's underlay: a Node does not say it, so it is taken to be no smaller than ours. */
export const peerMtu = 65_535;

const node = v.object({
  metadata: v.object({
    name: field.name,
    resourceVersion: v.string(),
    creationTimestamp: field.timestamp,
    labels: v.optional(field.texts, {}),
    annotations: v.optional(v.record(v.string(), v.string()), {}),
  }),
  spec: v.optional(v.object({ podCIDR: v.optional(v.string()), podCIDRs: v.optional(v.array(v.string())) }), {}),
  status: v.optional(
    v.object({
      addresses: v.optional(v.array(v.object({ type: v.string(), address: v.string() })), []),
      conditions: v.nullish(v.array(v.object({ type: v.string(), status: v.string() }))),
    }),
    {},
  ),
});
const named = v.object({ metadata: v.object({ name: v.string() }) });

export interface NodeFacts {
  /** Absent: the Node has not been given a range yet, or only one that is not ours to route. */
  readonly host?: Host;
  readonly blocks: readonly Block[];
  /** What of the Node cannot be used, for the log. */
  readonly problem?: string;
}

/** The name of something that may be no usable Node at all. */
export const nameOf = (item: unknown): string | undefined => {
  const read = v.safeParse(named, item);
  return read.success ? read.output.metadata.name : undefined;
};

const blockId = (cidr: Cidr): string => `podcidr${compactOf(cidr)}`;
const poolId = (cidr: Cidr): string => `kubernetespool${familyOf(cidr)}`;

const meta = (id: string, name: string, revision: number, createdAt: string) => ({ id, name, revision, createdAt, labels: {} });

/** Canonical forms of what can be read; other texts are dropped. */
const readable = <T>(schema: v.GenericSchema<unknown, T>, texts: readonly string[]): T[] =>
  texts.flatMap((text) => {
    const read = v.safeParse(schema, text);
    return read.success ? [read.output] : [];
  });

/** By these other Nodes reach it; what cannot be read is left out. */
export const internalIps = (addresses: readonly { readonly type: string; readonly address: string }[]): Ip[] =>
  readable(
    field.ip,
    addresses.filter(({ type }) => type === 'InternalIP').map(({ address }) => address),
  );

/** Faults: `invalid` when it is no Node, `unsupported` when it is one that cannot be a host, `overlap` when it has a pod's address. */
export function readNode(item: unknown, { podCidrs }: ClusterOptions): NodeFacts {
  const read = v.safeParse(node, item);
  if (!read.success) throw new Fault('invalid', `Node ${nameOf(item) ?? 'without a name'} cannot be read: ${read.issues[0].message}`);
  const { metadata, spec, status } = read.output;
  const revision = revisionOf(metadata.resourceVersion);
  const { name, creationTimestamp: createdAt, labels } = metadata;
  const given = readable(field.cidr, spec.podCIDRs ?? (spec.podCIDR === undefined ? [] : [spec.podCIDR]));
  const rangeOf = (cidr: Cidr): Cidr | undefined => podCidrs.find((range) => covers(range, cidr));
  const usable = given.filter((cidr) => rangeOf(cidr) !== undefined);
  const [first] = usable;
  const outside = given.find((cidr) => !usable.includes(cidr));
  const problem = outside === undefined ? {} : { problem: `podCIDR ${outside} is outside of --pod-cidr ${podCidrs.join(', ')}` };
  if (first === undefined) return { blocks: [], ...problem };
  const internal = internalIps(status.addresses);
  const inside = internal.find((ip) => podCidrs.some((range) => contains(range, ip)));
  if (inside !== undefined) {
    throw new Fault('overlap', `The node's address ${inside} is in the range of pods, --pod-cidr ${podCidrs.join(', ')}`, {
      field: 'status.addresses',
    });
  }
  const { publicIps, wireguard, answersProbes: answers, ...told } = readAnnotations(metadata.annotations);
  const addresses = new Set([...publicIps, ...internal]);
  const host: Host = {
    ...meta(name, name, revision, createdAt),
    labels: Object.fromEntries([zoneLabel, excludeLabel].flatMap((label) => (labels[label] === undefined ? [] : [[label, labels[label]]]))),
    index: indexIn(rangeOf(first) ?? first, first),
    generation: 0,
    ...told,
    ...(wireguard === undefined ? {} : { wireguard: wireguardOf(wireguard) }),
    underlay: [...addresses].map((ip: Ip) => ({ interface: unknownInterface, ip, subnet: hostPrefix(ip), mtu: peerMtu })),
    agentVersion: '',
    status: statusOf(status.conditions, { seenAt: createdAt, answers }),
  };
  const blocks = usable.map((cidr) => ({
    ...meta(blockId(cidr), blockId(cidr), revision, createdAt),
    network: podNetwork.id,
    pool: poolId(cidr),
    cidr,
    host: name,
    loans: [],
  }));
  return { host, blocks, ...problem };
}

/** As far as a Node tells it. `answers`: other nodes' probes. */
export function statusOf(
  conditions: readonly { readonly type: string; readonly status: string }[] | null | undefined,
  { seenAt, answers }: { readonly seenAt: string; readonly answers: boolean },
): Host['status'] {
  const isReady = conditions?.find(({ type }) => type === 'Ready')?.status;
  const ready = isReady === undefined || isReady === 'True';
  return { ready, seenAt, desired: 0, applied: 0, failing: [], features: { [answersProbes]: answers } };
}

/** The port that follows from the network of all pods is no port of its own: in other networks it is another. */
const wireguardOf = ({ publicKey, port }: NonNullable<Host['wireguard']>): NonNullable<Host['wireguard']> =>
  port === undefined || port === wireguardPortOf(podNetwork.vni) ? { publicKey } : { publicKey, port };

const epoch = '1970-01-01T00:00:00Z';
const usualLengths = { 4: 24, 6: 64 } as const;

/** The network and its pools; `blocks` only say how long blocks are. Fault `invalid` for a carriage that the model has not. */
export function clusterNetwork({ podCidrs, carry }: ClusterOptions, blocks: readonly Block[]): { network: Network; pools: Pool[] } {
  const lengthOf = (family: Family): number => {
    const some = blocks.find(({ cidr }) => familyOf(cidr) === family);
    return some === undefined ? usualLengths[family] : cidrLength(some.cidr);
  };
  const choices = choicesFor('flannel', { carry, blockLength4: lengthOf(4), blockLength6: lengthOf(6) });
  const network: Network = {
    ...meta(podNetwork.id, podNetwork.name, 1, epoch),
    model: 'flannel',
    tenant,
    choices,
    encrypted: choices.carry === 'wireguard',
    internal: false,
    vni: podNetwork.vni,
    attachable: false,
    addressing: 'blocks',
    names: 'elsewhere',
    present: 'always',
  };
  const pools = podCidrs.map((cidr): Pool => ({
    ...meta(poolId(cidr), poolId(cidr), 1, epoch),
    network: podNetwork.id,
    cidr,
    reserved: {},
    blockLength: lengthOf(familyOf(cidr)),
  }));
  return { network, pools };
}

/** Whether the fault is about one Node, so that the others can still be used. */
export const isNodeFault = (error: unknown): error is Fault =>
  isFault(error, 'invalid') || isFault(error, 'unsupported') || isFault(error, 'overlap');
