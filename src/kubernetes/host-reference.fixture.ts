// For tests: what Calico's documents say of host endpoints ("Host endpoints", "Summary", "Failsafe rules", "Apply on forwarded
// traffic"), sentence by sentence and as slow as it likes. It shares nothing with the compiler. One node with two links, one pod.
export interface HostEndpointObject {
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly spec: {
    readonly node: string;
    readonly interfaceName?: string;
    readonly expectedIPs?: readonly string[];
    readonly profiles?: readonly string[];
  };
}
export interface HostRule {
  readonly action: string;
  readonly protocol?: string;
  readonly source?: { readonly nets?: readonly string[]; readonly notNets?: readonly string[]; readonly selector?: string };
  readonly destination?: { readonly nets?: readonly string[]; readonly ports?: readonly number[] };
}
export interface GlobalPolicyObject {
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly tier?: string;
    readonly order?: number;
    /** Of the form `label == 'value'` or `all()`. */
    readonly selector: string;
    readonly types: readonly string[];
    readonly ingress?: readonly HostRule[];
    readonly egress?: readonly HostRule[];
    readonly doNotTrack?: boolean;
    readonly preDNAT?: boolean;
    readonly applyOnForward?: boolean;
  };
}
export interface HostWorld {
  readonly endpoints: readonly HostEndpointObject[];
  readonly policies: readonly GlobalPolicyObject[];
  readonly podLabels: Readonly<Record<string, string>>;
  readonly failsafes: { readonly in: readonly number[]; readonly out: readonly number[] };
}

export const thisNode = 'host1';
export const linkAddresses = { eth0: '10.213.0.1', eth1: '10.214.0.1' } as const;
export const podAddress = '10.44.0.1';
/** In the order in which they are weighed; the first passes on what it does not decide. */
export const worldTiers = [
  { name: 'first', order: 100, defaultAction: 'Pass' },
  { name: 'default', order: 1_000_000, defaultAction: 'Deny' },
] as const;

export type LinkName = keyof typeof linkAddresses;
/** UDP. Without `in` it comes from the host itself or its pod, without `out` it is for them. */
export interface HostPacket {
  readonly in?: LinkName;
  readonly out?: LinkName;
  readonly source: string;
  readonly destination: string;
  readonly port: number;
  /** Where it was sent to, before a node port was translated. */
  readonly before?: { readonly destination: string; readonly port: number };
}

type Way = 'ingress' | 'egress';
type Answer = 'allow' | 'deny' | undefined;
type Spec = GlobalPolicyObject['spec'];
interface Question {
  readonly link: LinkName | undefined;
  readonly way: Way;
  readonly isMeant: (spec: Spec) => boolean;
}
const isUntracked = ({ doNotTrack }: Spec): boolean => doNotTrack === true;
const isEarly = ({ preDNAT }: Spec): boolean => preDNAT === true;
const isNormal = (spec: Spec): boolean => !isUntracked(spec) && !isEarly(spec);
const isThrough = (spec: Spec): boolean => isNormal(spec) && spec.applyOnForward === true;
/** `untracked`: it gets through, and no translation finds it. */
export type Outcome = 'allow' | 'deny' | 'untracked';

const labelled = (selector: string, labels: Readonly<Record<string, string>>): boolean => {
  const [, label = '', value] = /^(\w+) == '(\w+)'$/.exec(selector) ?? [];
  return selector === 'all()' || labels[label] === value;
};
const number = (ip: string): number => ip.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
function isInside(net: string, ip: string): boolean {
  const [base = '', length = '32'] = net.split('/');
  const size = 2 ** (32 - Number(length));
  return Math.floor(number(base) / size) === Math.floor(number(ip) / size);
}

export class HostReference {
  readonly #world: HostWorld;

  constructor(world: HostWorld) {
    this.#world = world;
  }

  /** What becomes of the first packet of a connection. */
  outcome(packet: HostPacket): Outcome {
    const early = this.#arriving(packet);
    if (early !== undefined) return early;
    const { in: entry, out: exit } = packet;
    const isPods = packet.source === podAddress || packet.destination === podAddress;
    if (exit === undefined && !isPods)
      return this.#world.failsafes.in.includes(packet.port) ? 'allow' : this.#own(packet, entry, 'ingress');
    if (entry === undefined && !isPods) return this.#leaving(packet, exit);
    const isDenied =
      this.#weigh(packet, { link: entry, way: 'ingress', isMeant: isThrough }) === 'deny' ||
      this.#weigh(packet, { link: exit, way: 'egress', isMeant: isThrough }) === 'deny';
    return isDenied ? 'deny' : 'allow';
  }

  #arriving(packet: HostPacket): Outcome | undefined {
    const { in: link } = packet;
    const arriving: HostPacket = { ...packet, ...packet.before };
    if (this.#world.failsafes.in.includes(arriving.port)) return undefined;
    const untracked = this.#isWild(link) ? undefined : this.#weigh(arriving, { link, way: 'ingress', isMeant: isUntracked });
    if (untracked !== undefined) return untracked === 'allow' ? 'untracked' : 'deny';
    return this.#weigh(arriving, { link, way: 'ingress', isMeant: isEarly });
  }

  #leaving(packet: HostPacket, link: LinkName | undefined): Outcome {
    if (this.#world.failsafes.out.includes(packet.port)) return 'allow';
    const untracked = this.#isWild(link) ? undefined : this.#weigh(packet, { link, way: 'egress', isMeant: isUntracked });
    if (untracked !== undefined) return untracked === 'allow' ? 'untracked' : 'deny';
    return this.#own(packet, link, 'egress');
  }

  #own(packet: HostPacket, link: LinkName | undefined, way: Way): Outcome {
    const endpoint = this.#endpointOf(link);
    if (endpoint === undefined) return 'allow';
    const isOpen = endpoint.spec.profiles?.includes('projectcalico-default-allow') === true;
    return this.#weigh(packet, { link, way, isMeant: isNormal }) ?? (isOpen ? 'allow' : 'deny');
  }

  /** "Host endpoints with interfaceName: * do not support untracked policy." */
  #isWild(link: LinkName | undefined): boolean {
    return this.#endpointOf(link)?.spec.interfaceName === '*';
  }

  #endpointOf(link: LinkName | undefined): HostEndpointObject | undefined {
    if (link === undefined) return undefined;
    const own = this.#world.endpoints
      .filter(({ spec }) => spec.node === thisNode)
      .toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    const meant = own.find(({ spec }) => (spec.interfaceName ?? this.#linkAt(spec.expectedIPs ?? [])) === link);
    return meant ?? own.find(({ spec }) => spec.interfaceName === '*');
  }

  #linkAt(ips: readonly string[]): string | undefined {
    return ips.flatMap((ip) => Object.entries(linkAddresses).flatMap(([link, own]) => (own === ip ? [link] : [])))[0];
  }

  #weigh(packet: HostPacket, { link, way, isMeant }: Question): Answer {
    const endpoint = this.#endpointOf(link);
    if (endpoint === undefined) return undefined;
    const type = way === 'ingress' ? 'Ingress' : 'Egress';
    const policies = this.#world.policies.filter(
      ({ spec }) => isMeant(spec) && spec.types.includes(type) && labelled(spec.selector, endpoint.metadata.labels),
    );
    for (const tier of worldTiers) {
      const here = policies.filter(({ spec }) => (spec.tier ?? 'default') === tier.name);
      const answer = this.#tier(packet, way, here.toSorted(byOrder));
      if (answer === 'allow' || answer === 'deny') return answer;
      const isLast = here.some(({ spec }) => isNormal(spec)) && tier.defaultAction === 'Deny';
      if (answer === undefined && isLast) return 'deny';
    }
    return undefined;
  }

  #tier(packet: HostPacket, way: Way, policies: readonly GlobalPolicyObject[]): 'allow' | 'deny' | 'pass' | undefined {
    for (const { spec } of policies)
      for (const rule of spec[way] ?? [])
        if (rule.action !== 'Log' && this.#matches(rule, packet))
          return rule.action === 'Allow' ? 'allow' : rule.action === 'Deny' ? 'deny' : 'pass';
    return undefined;
  }

  #matches({ protocol, source = {}, destination = {} }: HostRule, packet: HostPacket): boolean {
    return (
      (protocol === undefined || protocol === 'UDP') &&
      (source.nets === undefined || source.nets.some((net) => isInside(net, packet.source))) &&
      !(source.notNets ?? []).some((net) => isInside(net, packet.source)) &&
      (source.selector === undefined || this.#isSelected(source.selector, packet.source)) &&
      (destination.nets === undefined || destination.nets.some((net) => isInside(net, packet.destination))) &&
      (destination.ports === undefined || destination.ports.includes(packet.port))
    );
  }

  /** "Calico uses the expectedIPs field to resolve label selectors to IP addresses." */
  #isSelected(selector: string, ip: string): boolean {
    if (ip === podAddress && labelled(selector, this.#world.podLabels)) return true;
    return this.#world.endpoints.some(({ metadata, spec }) => (spec.expectedIPs ?? []).includes(ip) && labelled(selector, metadata.labels));
  }
}

const byOrder = (a: GlobalPolicyObject, b: GlobalPolicyObject): number => {
  const [first, second] = [a.spec.order ?? Number.MAX_VALUE, b.spec.order ?? Number.MAX_VALUE];
  return first === second ? (a.metadata.name < b.metadata.name ? -1 : 1) : first - second;
};
