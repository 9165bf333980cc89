// What policy needs of Pods and Namespaces, read from the API's objects or from what the journal kept of them.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Ip } from '#model/ip.ts';
import { type TransportName, numberOf } from './policy-parts.ts';

export interface PodPort {
  readonly name: string;
  readonly protocol: number;
  readonly port: number;
}
export interface PodFacts {
  readonly namespace: string;
  /** By which its node knows it from earlier ones of its name. */
  readonly id?: string;
  readonly labels: Readonly<Record<string, string>>;
  /** The service account that it runs as. */
  readonly account: string;
  /** Of a pod in its node's own network, or one that has ended, none. */
  readonly ips: readonly Ip[];
  readonly ports: readonly PodPort[];
}

const transports: readonly TransportName[] = ['TCP', 'UDP', 'SCTP'];
const labels = v.nullish(field.texts, {});
const port = v.object({
  name: v.string(),
  containerPort: field.port,
  protocol: v.optional(v.picklist(transports), 'TCP'),
});
const container = v.object({ ports: v.nullish(v.array(v.unknown()), []) });
const pod = v.object({
  metadata: v.object({ namespace: v.string(), name: v.string(), uid: v.optional(v.string()), annotations: labels, labels }),
  spec: v.object({
    hostNetwork: v.optional(v.boolean(), false),
    serviceAccountName: v.nullish(v.string(), ''),
    containers: v.nullish(v.array(container), []),
    initContainers: v.nullish(
      v.array(v.looseObject({ restartPolicy: v.optional(v.string()), ports: v.nullish(v.array(v.unknown()), []) })),
      [],
    ),
  }),
  status: v.optional(
    v.object({
      phase: v.optional(v.string()),
      podIP: v.optional(v.string()),
      podIPs: v.nullish(v.array(v.object({ ip: v.string() })), []),
    }),
    {},
  ),
});
const namespace = v.object({ metadata: v.object({ name: v.string(), labels }) });

/** Of pods that name none: the server says so itself. */
const defaultAccount = 'default';

/** What a node runs by itself it has in the API as a copy with a uid of its own, which says here what the node calls it. */
const mirrored = 'kubernetes.io/config.mirror';

const idOf = ({ uid, annotations }: v.InferOutput<typeof pod>['metadata']): Pick<PodFacts, 'id'> => {
  const id = annotations?.[mirrored] ?? uid;
  return id === undefined ? {} : { id };
};

/** Undefined: it has no network of its own, has ended, or cannot be read. */
export function readPod(item: unknown): PodFacts | undefined {
  const read = v.safeParse(pod, item);
  if (!read.success) return undefined;
  const { metadata, spec, status } = read.output;
  if (spec.hostNetwork || status.phase === 'Succeeded' || status.phase === 'Failed') return undefined;
  const written = status.podIPs?.map(({ ip }) => ip) ?? [];
  const ips = written.length === 0 ? [status.podIP ?? ''] : written;
  const sidecars = (spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
  return {
    namespace: metadata.namespace,
    ...idOf(metadata),
    labels: metadata.labels ?? {},
    account: spec.serviceAccountName || defaultAccount,
    ips: ips.flatMap((text) => {
      const ip = v.safeParse(field.ip, text);
      return ip.success ? [ip.output] : [];
    }),
    ports: [...sidecars, ...(spec.containers ?? [])].flatMap(({ ports }) => (ports ?? []).flatMap(readPort)),
  };
}

/** Ports without a name are of no use to a policy. */
function readPort(item: unknown): PodPort[] {
  const read = v.safeParse(port, item);
  if (!read.success || read.output.name === '') return [];
  const transport: TransportName = read.output.protocol;
  return [{ name: read.output.name, protocol: numberOf[transport], port: read.output.containerPort }];
}

const nameLabel = 'kubernetes.io/metadata.name';

/** Labels, with the name's own one that servers before 1.21 do not set. Undefined for what cannot be read. */
export function readNamespace(item: unknown): Readonly<Record<string, string>> | undefined {
  const read = v.safeParse(namespace, item);
  if (!read.success) return undefined;
  return { ...read.output.metadata.labels, [nameLabel]: read.output.metadata.name };
}

/** For the journal: a pod that readPod reads as the same facts. */
export const keptPod = (key: string, { namespace: of, id: uid, labels: own, account, ips, ports }: PodFacts): object => ({
  metadata: { namespace: of, name: key.slice(of.length + 1), ...(uid === undefined ? {} : { uid }), labels: own },
  spec: {
    ...(account === defaultAccount ? {} : { serviceAccountName: account }),
    ...(ports.length === 0 ? {} : { containers: [{ ports: ports.map(keptPort) }] }),
  },
  status: { podIPs: ips.map((ip) => ({ ip })) },
});

const keptPort = ({ name, protocol, port: containerPort }: PodPort): object => ({
  name,
  containerPort,
  protocol: transports.find((transport) => numberOf[transport] === protocol),
});
