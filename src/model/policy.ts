// Policy in the one ordered form that every dialect compiles to: tiers in order, in each the policies in order that select an
// endpoint, in each the rules of one direction in order. The first rule that matches a connection's first packet and is no
// `log` decides. A packet between two endpoints needs to be let out by the one and in by the other.
import { type Cidr, coverage, type Family, familyOf, type Ip } from './ip.ts';
import type { Selector } from './selector.ts';

export type Direction = 'ingress' | 'egress';
/** `pass`: the rest of this tier does not matter, the next one decides. `log`: noted, and the next rule is looked at. */
export type Action = 'allow' | 'deny' | 'pass' | 'log';

/** Which addresses a rule means: those of endpoints that one of the selectors picks, and those in one of the prefixes. */
export interface AddressSpec {
  readonly selectors: readonly Selector[];
  /** Whether the selectors pick everything that has labels, sets of prefixes too. Else endpoints only. */
  readonly labelled?: true;
  /** Those that stand behind one of these services, as `namespace/name`. */
  readonly services?: readonly string[];
  /** No two overlap. */
  readonly cidrs: readonly Cidr[];
}

export interface PortSpec {
  /** Both ends included. */
  readonly ranges: readonly (readonly [number, number])[];
  /** Ports that the endpoint with that end's address calls so, for the rule's protocol. */
  readonly named: readonly string[];
}

/** One end of a connection; everything that is given must hold. Sets by id. */
export interface End {
  readonly in?: readonly string[];
  readonly notIn?: readonly string[];
  readonly ports?: PortSpec;
  readonly notPorts?: PortSpec;
}

export interface Rule {
  /** For people: the policy's own name for it, or where it stands. */
  readonly name: string;
  readonly action: Action;
  readonly family?: Family;
  /** IP protocol numbers. */
  readonly protocol?: number;
  readonly notProtocol?: number;
  readonly icmp?: IcmpSpec;
  readonly notIcmp?: IcmpSpec;
  readonly source: End;
  readonly destination: End;
}
export interface IcmpSpec {
  readonly type: number;
  readonly code?: number;
}

/**
 * Where a policy meets what comes to a host itself: what the host sends and receives; what it forwards, too; before services are
 * translated; or before connections are tracked. The last two are for hosts alone and no endpoint is their subject.
 */
export type HostStage = 'local' | 'forwarded' | 'untranslated' | 'untracked';

/** Selectors and names that are not resolved yet. */
export interface OrderedPolicy {
  /** Unlike for all policies: what it is called and of which sort. */
  readonly key: string;
  readonly tier: string;
  /** Lower comes first; equal ones by name, then by key. */
  readonly order: number;
  readonly name: string;
  /** It decides nothing: what it would decide, were it alone in force, is counted. */
  readonly staged?: true;
  /** What its subjects send to their own host is policed as well, which is not so where none of an endpoint's policies says this. */
  readonly bindsToHost?: true;
  /** Absent: it is for no host. */
  readonly onHosts?: HostStage;
  /** Which endpoints it is for. */
  readonly subject: Selector;
  /** Absent: it says nothing about that direction. */
  readonly ingress?: readonly Rule[];
  readonly egress?: readonly Rule[];
  /** By the id that its rules use. */
  readonly sets: Readonly<Record<string, AddressSpec>>;
}

export interface Tier {
  readonly name: string;
  readonly order: number;
  /** What happens to a packet that a policy of this tier is for and none of their rules decides. */
  readonly otherwise: 'deny' | 'pass';
}

/** An endpoint of this host. */
export interface GuardedEndpoint extends OwnedAddresses {
  /** Keys of the policies that select it. Undefined: that is not known yet, and it is closed until then. */
  readonly policies: readonly string[] | undefined;
}

/** An endpoint of this host as others know it: whose it is and where. */
export interface OwnedAddresses {
  readonly owner: string;
  /** Which of those of that name, where that is known. */
  readonly ownerId?: string;
  readonly addresses: readonly Ip[];
  /** No policy is for it: a further network of its owner. */
  readonly isFree?: true;
}

export interface NamedPort {
  readonly ip: Ip;
  readonly port: number;
}

/** Links of the host itself that are under policy. */
export interface GuardedLink {
  /** For people: what says so. */
  readonly name: string;
  /** Absent: each that no other one names, but loopback and those of containers. */
  readonly link?: string;
  /** Keys of the policies that select it. */
  readonly policies: readonly string[];
  /** What happens to packets of the host's own processes in a direction that no policy is for. */
  readonly otherwise: 'allow' | 'deny';
}

/** What is always let through, whatever policies say: the port is that of the host for `in`, of the other for `out`. */
export interface Failsafe {
  readonly direction: 'in' | 'out';
  readonly protocol: number;
  readonly port: number;
  /** Of the other end; one for each family where it may be anybody. */
  readonly cidr: Cidr;
}

export interface HostGuard {
  readonly links: readonly GuardedLink[];
  /** Links on which another system's containers live, which are not meant by all others. */
  readonly spared: readonly string[];
  readonly failsafes: readonly Failsafe[];
}

/** Everything that one host needs to know: only policies that select one of its endpoints, and what they mention, resolved. */
export interface PolicyFacts {
  /** In order of evaluation. */
  readonly tiers: readonly Tier[];
  /** By key. */
  readonly policies: ReadonlyMap<string, OrderedPolicy>;
  /** Addresses by the set's id; no two overlap. */
  readonly sets: ReadonlyMap<string, readonly Cidr[]>;
  /** By `protocol name`. */
  readonly named: ReadonlyMap<string, readonly NamedPort[]>;
  readonly endpoints: readonly GuardedEndpoint[];
  /** Absent: none of the host's own links is under policy. */
  readonly host?: HostGuard;
  /** Whether the kernel's log tells of packets that are denied, and by which rule. */
  readonly logDenied?: boolean;
}

export const protocols = { icmp: 1, tcp: 6, udp: 17, icmp6: 58, sctp: 132, udplite: 136 } as const;
export const namedPortKey = (protocol: number, name: string): string => `${protocol} ${name}`;

/** The first packet of a connection as the policy sees it: after a service's translation, before any masquerading. */
export interface Packet {
  readonly source: Ip;
  readonly destination: Ip;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly icmp?: { readonly type: number; readonly code: number };
}

/** Policies, which way, and at which stage they are weighed; endpoints know only `local`. */
export interface Way {
  readonly keys: readonly string[];
  readonly direction: Direction;
  readonly stage: HostStage;
}

/** Those of the policies that are weighed at that stage; what is for forwarded packets is for a host's own, too. */
export const keysAt = ({ policies }: PolicyFacts, keys: readonly string[], stage: HostStage): string[] =>
  keys.filter((key) => {
    const on = policies.get(key)?.onHosts;
    return on === stage || (stage === 'local' && on === 'forwarded');
  });

/** Policies of one endpoint and direction by tier, in order of evaluation, staged ones among them. */
export function tiersFor(
  facts: PolicyFacts,
  keys: readonly string[],
  direction: Direction,
): readonly (readonly [Tier, readonly OrderedPolicy[]])[] {
  const chosen = keys.flatMap((key) => facts.policies.get(key) ?? []).filter((policy) => policy[direction] !== undefined);
  return facts.tiers.flatMap((tier): [Tier, OrderedPolicy[]][] => {
    const policies = chosen.filter((policy) => policy.tier === tier.name).toSorted(byOrder);
    return policies.length === 0 ? [] : [[tier, policies]];
  });
}

/** Whether what such an endpoint sends to its own host is policed. */
export const isBoundToHost = ({ policies: all }: PolicyFacts, { policies: keys = [] }: GuardedEndpoint): boolean =>
  keys.some((key) => {
    const { bindsToHost, egress, staged } = all.get(key) ?? {};
    return bindsToHost === true && egress !== undefined && staged !== true;
  });

const textOrder = (a: string, b: string): number => (a < b ? -1 : Number(a > b));
/** The difference of two that have no order, infinity, is no number. */
const byOrder = (a: OrderedPolicy, b: OrderedPolicy): number => a.order - b.order || textOrder(a.name, b.name) || textOrder(a.key, b.key);

export const byTierOrder = (a: Tier, b: Tier): number => a.order - b.order || textOrder(a.name, b.name);

/** Answers for many packets from facts that stay the same. */
export class Verdicts {
  readonly #facts: PolicyFacts;
  readonly #covers = new Map<string, (ip: Ip) => boolean>();
  readonly #endpoints: ReadonlyMap<Ip, GuardedEndpoint>;
  readonly #ports = new Map<string, ReadonlySet<string>>();
  /** Rules and what else, tier by tier, by direction and endpoint. */
  readonly #ways = new Map<string, readonly (readonly [Tier, readonly Rule[]])[]>();

  constructor(facts: PolicyFacts) {
    this.#facts = facts;
    this.#endpoints = new Map(facts.endpoints.flatMap((endpoint) => endpoint.addresses.map((ip) => [ip, endpoint] as const)));
  }

  /** Whether both ends' policies on this host let the packet begin a connection. An endpoint always reaches itself. */
  allows(packet: Packet): boolean {
    if (packet.source === packet.destination) return true;
    return this.#lets(packet, packet.source, 'egress') && this.#lets(packet, packet.destination, 'ingress');
  }

  /** Whether the sender's policies let the packet go to a process of its own host. */
  allowsToHost(packet: Packet): boolean {
    const endpoint = this.#endpoints.get(packet.source);
    return endpoint === undefined || !isBoundToHost(this.#facts, endpoint) || this.#lets(packet, packet.source, 'egress');
  }

  /** What those policies say of it. Undefined: they leave it to whoever comes next. */
  decision(packet: Packet, { keys, direction, stage }: Way): 'allow' | 'deny' | undefined {
    const isEarly = stage === 'untracked' || stage === 'untranslated';
    for (const [tier, rules] of this.#way(keys, direction)) {
      const action = this.#decide(packet, rules) ?? (isEarly ? 'pass' : tier.otherwise);
      if (action !== 'pass') return action === 'allow' ? 'allow' : 'deny';
    }
    return undefined;
  }

  #lets(packet: Packet, ip: Ip, direction: Direction): boolean {
    const endpoint = this.#endpoints.get(ip);
    if (endpoint === undefined) return true;
    if (endpoint.policies === undefined) return false;
    return this.decision(packet, { keys: endpoint.policies, direction, stage: 'local' }) !== 'deny';
  }

  #way(policies: readonly string[], direction: Direction): readonly (readonly [Tier, readonly Rule[]])[] {
    const key = [direction, ...policies].join('\n');
    let way = this.#ways.get(key);
    if (way === undefined) {
      way = tiersFor(this.#facts, policies, direction).flatMap(([tier, all]) => {
        const some = all.filter(({ staged }) => staged !== true);
        return some.length === 0 ? [] : [[tier, some.flatMap((policy) => policy[direction] ?? [])] as const];
      });
      this.#ways.set(key, way);
    }
    return way;
  }

  #decide(packet: Packet, rules: readonly Rule[]): Action | undefined {
    return rules.find((rule) => rule.action !== 'log' && this.#matches(rule, packet))?.action;
  }

  #matches(rule: Rule, packet: Packet): boolean {
    const { family, protocol, notProtocol, icmp, notIcmp, source, destination } = rule;
    return (
      (family === undefined || familyOf(packet.source) === family) &&
      (protocol === undefined || packet.protocol === protocol) &&
      (notProtocol === undefined || packet.protocol !== notProtocol) &&
      (icmp === undefined || isIcmp(icmp, packet)) &&
      (notIcmp === undefined || !isIcmp(notIcmp, packet)) &&
      this.#isAt(source, packet, { ip: packet.source, port: packet.sourcePort }) &&
      this.#isAt(destination, packet, { ip: packet.destination, port: packet.destinationPort })
    );
  }

  #isAt(end: End, { protocol }: Packet, at: NamedPort): boolean {
    return (
      (end.in ?? []).every((set) => this.#has(set, at.ip)) &&
      !(end.notIn ?? []).some((set) => this.#has(set, at.ip)) &&
      (end.ports === undefined || this.#isPort(end.ports, protocol, at)) &&
      (end.notPorts === undefined || !this.#isPort(end.notPorts, protocol, at))
    );
  }

  #has(set: string, ip: Ip): boolean {
    let covered = this.#covers.get(set);
    if (covered === undefined) this.#covers.set(set, (covered = coverage(this.#facts.sets.get(set) ?? [])));
    return covered(ip);
  }

  #isPort({ ranges, named }: PortSpec, protocol: number, { ip, port }: NamedPort): boolean {
    return (
      ranges.some(([first, last]) => first <= port && port <= last) || named.some((name) => this.#isNamed(protocol, name, `${ip} ${port}`))
    );
  }

  #isNamed(protocol: number, name: string, place: string): boolean {
    const key = namedPortKey(protocol, name);
    let places = this.#ports.get(key);
    if (places === undefined) {
      places = new Set((this.#facts.named.get(key) ?? []).map(({ ip, port }) => `${ip} ${port}`));
      this.#ports.set(key, places);
    }
    return places.has(place);
  }
}

const isIcmp = ({ type, code }: IcmpSpec, { icmp }: Packet): boolean =>
  icmp !== undefined && icmp.type === type && (code === undefined || icmp.code === code);
