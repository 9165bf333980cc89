// What the dialects of policy have in common: sets of addresses by an id that follows from what they mean, so that policies
// share them, and rules for one port or many.
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { type Cidr, parseCidr } from '#model/ip.ts';
import { isFault } from '#model/fault.ts';
import type { AddressSpec, Direction, OrderedPolicy, PortSpec, Rule, Tier } from '#model/policy.ts';
import { protocols } from '#model/policy.ts';
import { disjoint } from '#model/ranges.ts';
import type { Selector } from '#model/selector.ts';

/** As Calico orders them; NetworkPolicies are in `default` there, too. They are always there, and as they are. */
export const tiers: readonly Tier[] = [
  { name: 'kube-admin', order: 1_000, otherwise: 'pass' },
  { name: 'default', order: 1_000_000, otherwise: 'deny' },
  { name: 'kube-baseline', order: 10_000_000, otherwise: 'pass' },
];

/** What of a policy cannot be served. */
export interface Problem {
  /** Where in the object: `spec.ingress[0].from[1]`. */
  readonly field: string;
  /** `Unsupported`: it may well be right, and is not known here. */
  readonly reason: 'Invalid' | 'Unsupported';
  /** What is wrong, and what follows from it. */
  readonly message: string;
}
export const problemText = ({ field, message }: Problem): string => `${field}: ${message}`;

/** What was read, and what of it cannot be served. Without a policy nothing of it is. */
export interface Reading {
  readonly policy?: OrderedPolicy;
  readonly problems: readonly Problem[];
}

/** Of an object that cannot be read so far that one could say whom it is for. */
export function unreadable(issue: v.BaseIssue<unknown>): Reading {
  const field = v.getDotPath(issue) ?? 'spec';
  return { problems: [{ field, reason: 'Invalid', message: `${issue.message}; nothing of the policy is in force` }] };
}

export type TransportName = 'TCP' | 'UDP' | 'SCTP';
export const numberOf: Readonly<Record<TransportName, number>> = { TCP: protocols.tcp, UDP: protocols.udp, SCTP: protocols.sctp };

/** 80 bits of the specification's digest, as a name that nft takes. */
const idOf = (spec: AddressSpec): string => `a${createHash('sha256').update(JSON.stringify(spec)).digest('hex').slice(0, 20)}`;

/** Collects the sets that the rules of one policy mention. */
export class Sets {
  readonly specs: Record<string, AddressSpec> = {};

  /** Its id. The same addresses have the same one, in whatever order they are named. */
  add(selectors: readonly Selector[], cidrs: readonly Cidr[], more: Pick<AddressSpec, 'labelled' | 'services'> = {}): string {
    const byText = new Map(selectors.map((selector) => [JSON.stringify(selector), selector]));
    const spec: AddressSpec = {
      selectors: [...byText].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one),
      ...more,
      cidrs: disjoint(cidrs),
    };
    const id = idOf(spec);
    this.specs[id] = spec;
    return id;
  }
}

/** Host bits are cleared, as the API takes them. Undefined for what is no prefix. */
export function cidrIn(text: string): Cidr | undefined {
  try {
    return parseCidr(text, 'cidr', false);
  } catch (error) {
    if (!isFault(error, 'invalid')) throw error;
    return undefined;
  }
}

/** One protocol's ports; undefined: all of them. */
export interface Ports {
  readonly protocol: number;
  readonly ports?: PortSpec;
}

export interface RuleParts {
  readonly name: string;
  readonly action: Rule['action'];
  readonly direction: Direction;
  /** The peers' set; absent: anybody. */
  readonly peers?: string;
  /** Absent: every protocol. */
  readonly ports?: readonly Ports[];
}

/** One rule for each protocol, all of the same name. */
export function rulesOf({ name, action, direction, peers, ports }: RuleParts): Rule[] {
  const peer = peers === undefined ? {} : { in: [peers] };
  const of = (more: Ports | undefined): Rule => {
    const own = more?.ports === undefined ? {} : { ports: more.ports };
    const ends = direction === 'ingress' ? { source: peer, destination: own } : { source: {}, destination: { ...peer, ...own } };
    return { name, action, ...(more === undefined ? {} : { protocol: more.protocol }), ...ends };
  };
  return ports === undefined ? [of(undefined)] : merged(ports).map(of);
}

/** Ports of one protocol together; a protocol without ports says all of them. */
const merged = (ports: readonly Ports[]): Ports[] =>
  [...Map.groupBy(ports, ({ protocol }) => protocol)].map(([protocol, some]): Ports => {
    const specs = some.map((one) => one.ports);
    if (specs.includes(undefined)) return { protocol };
    return {
      protocol,
      ports: {
        ranges: united(specs.flatMap((spec) => spec?.ranges ?? [])),
        named: [...new Set(specs.flatMap((spec) => spec?.named ?? []))].toSorted(),
      },
    };
  });

/** The same numbers in ranges that neither overlap nor touch, ascending. */
export function united(ranges: readonly (readonly [number, number])[]): [number, number][] {
  const result: [number, number][] = [];
  for (const [first, last] of ranges.toSorted(([a], [b]) => a - b)) {
    const before = result.at(-1);
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else result.push([first, last]);
  }
  return result;
}
