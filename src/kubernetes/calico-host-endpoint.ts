// Calico's HostEndpoint, and of its FelixConfiguration the failsafe ports (projectcalico.org/v3; defaults of felix/config):
// which links of which node are under policy, and what is let through there whatever policies say.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { everything, type Family, type Ip } from '#model/ip.ts';
import { type Failsafe, type GuardedLink, protocols } from '#model/policy.ts';
import type { Labels } from '#model/selector.ts';
import type { PodPort } from './pods.ts';
import { cidrIn, numberOf, type Problem } from './policy-parts.ts';

export interface HostEndpoint {
  readonly name: string;
  /** metadata.generation */
  readonly generation: number;
  readonly labels: Labels;
  readonly node: string;
  /** `*`: every link that no other one means. Absent: the one that has one of the addresses. */
  readonly link?: string;
  readonly ips: readonly Ip[];
  readonly ports: readonly PodPort[];
  readonly otherwise: GuardedLink['otherwise'];
}

export interface HostReading {
  readonly endpoint?: HostEndpoint;
  readonly problems: readonly Problem[];
}

/** The profile that is always there; it allows everything. */
export const openProfile: string = 'projectcalico-default-allow';
const transports = ['TCP', 'UDP', 'SCTP'] as const;
const transport = v.pipe(
  v.string(),
  v.transform((said) => transports.find((one) => one === said.toUpperCase())),
  v.picklist(transports, 'expected TCP, UDP or SCTP'),
);
const hostEndpoint = v.object({
  metadata: v.object({
    name: v.string(),
    generation: v.optional(v.number(), 0),
    labels: v.nullish(field.texts, {}),
  }),
  spec: v.pipe(
    v.object({
      node: v.pipe(v.string('expected the name of a node'), v.minLength(1, 'expected the name of a node')),
      interfaceName: v.optional(v.pipe(v.string(), v.regex(/^(\*|[A-Za-z0-9_.-]{0,15})$/, 'expected the name of a link, or *')), ''),
      expectedIPs: v.nullish(v.array(field.ip), []),
      profiles: v.nullish(v.array(v.string()), []),
      ports: v.nullish(v.array(v.object({ name: v.string(), port: field.port, protocol: transport })), []),
    }),
    v.check(
      ({ interfaceName, expectedIPs }) => interfaceName !== '' || (expectedIPs ?? []).length > 0,
      'needs an interfaceName or expectedIPs',
    ),
  ),
});

const problemOf = (issue: v.BaseIssue<unknown>, effect: string): Problem => ({
  field: v.getDotPath(issue) ?? 'spec',
  reason: 'Invalid',
  message: `${issue.message}; ${effect}`,
});

/** Without an endpoint: it cannot be read, and its link is as if nobody had said anything of it. */
export function readHostEndpoint(item: unknown): HostReading {
  const read = v.safeParse(hostEndpoint, item);
  if (!read.success) return { problems: [problemOf(read.issues[0], 'nothing is under policy by it')] };
  const { metadata, spec } = read.output;
  const profiles = spec.profiles ?? [];
  return {
    endpoint: {
      name: metadata.name,
      generation: metadata.generation,
      labels: metadata.labels ?? {},
      node: spec.node,
      ...(spec.interfaceName === '' ? {} : { link: spec.interfaceName }),
      ips: spec.expectedIPs ?? [],
      ports: (spec.ports ?? []).map(({ name, port, protocol }) => ({ name, port, protocol: numberOf[protocol] })),
      otherwise: profiles.includes(openProfile) ? 'allow' : 'deny',
    },
    problems: profiles.flatMap((name, index) =>
      name === openProfile
        ? []
        : [{ field: `spec.profiles.${index}`, reason: 'Unsupported' as const, message: `${name} is not known here and allows nothing` }],
    ),
  };
}

type Side = Failsafe['direction'];
const families: readonly Family[] = [4, 6];

/** From or to anybody. */
export const anywhere = (direction: Side, protocol: number, ports: readonly number[]): Failsafe[] =>
  ports.flatMap((port) => families.map((family) => ({ direction, protocol, port, cidr: everything[family] })));

/** ssh, DHCP, BGP, etcd, Typha and the Kubernetes API: what Calico keeps open where nobody says otherwise. */
export const defaultFailsafes: Readonly<Record<Side, readonly Failsafe[]>> = {
  in: [...anywhere('in', protocols.tcp, [22, 179, 2379, 2380, 5473, 6443, 6666, 6667]), ...anywhere('in', protocols.udp, [68])],
  out: [...anywhere('out', protocols.tcp, [179, 2379, 2380, 5473, 6443, 6666, 6667]), ...anywhere('out', protocols.udp, [53, 67])],
};

const ports = v.nullish(
  v.array(
    v.object({
      protocol: v.optional(transport, 'TCP'),
      port: field.port,
      net: v.optional(
        v.pipe(
          v.string(),
          v.check((text) => text === '' || cidrIn(text.includes('/') ? text : wholePrefix(text)) !== undefined, 'expected a prefix'),
        ),
        '',
      ),
    }),
  ),
);
const felix = v.object({ spec: v.nullish(v.object({ failsafeInboundHostPorts: ports, failsafeOutboundHostPorts: ports }), {}) });

const wholePrefix = (text: string): string => `${text}/${text.includes(':') ? 128 : 32}`;

/** Absent: it says nothing about that side. */
export type Failsafes = Partial<Record<Side, readonly Failsafe[]>>;
export interface FailsafeReading {
  readonly failsafes: Failsafes;
  readonly problems: readonly Problem[];
}

/** What cannot be read is as if nothing was said, so that nobody is cut off by it. */
export function readFailsafes(item: unknown): FailsafeReading {
  const read = v.safeParse(felix, item);
  if (!read.success) return { failsafes: {}, problems: [problemOf(read.issues[0], 'the failsafe ports stay as they are without it')] };
  const { failsafeInboundHostPorts: inbound, failsafeOutboundHostPorts: outbound } = read.output.spec ?? {};
  return {
    failsafes: {
      ...(inbound ? { in: inbound.flatMap((one) => failsafesOf('in', one)) } : {}),
      ...(outbound ? { out: outbound.flatMap((one) => failsafesOf('out', one)) } : {}),
    },
    problems: [],
  };
}

function failsafesOf(direction: Side, { protocol, port, net }: NonNullable<v.InferOutput<typeof ports>>[number]): Failsafe[] {
  const number = numberOf[protocol];
  if (net === '') return anywhere(direction, number, [port]);
  const cidr = cidrIn(net.includes('/') ? net : wholePrefix(net));
  return cidr === undefined ? [] : [{ direction, protocol: number, port, cidr }];
}

/** Names of the objects that a node follows, later ones before earlier ones. */
export const felixNames = (node: string): readonly string[] => ['default', `node.${node}`];
