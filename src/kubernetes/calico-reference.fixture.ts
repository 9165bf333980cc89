// For tests: what Calico's documents say of its policies ("Global network policy", "Network policy", "Tier", "Network set"),
// sentence by sentence and as slow as it likes. It shares nothing with the compiler, not even the reading of selectors.
import {
  type CalicoEnd,
  type CalicoPolicy,
  type CalicoRule,
  type CalicoWorld,
  isInside,
  type Pod,
  type World,
  type WorldPacket,
} from './policy-world.fixture.ts';

type Way = 'ingress' | 'egress';
type LabelMap = Readonly<Record<string, string>>;

/** Parts at the outermost level, where such an operator stands. */
function split(text: string, operator: string): string[] {
  let depth = 0;
  const parts = [''];
  for (let at = 0; at < text.length; at++) {
    if (depth === 0 && text.startsWith(operator, at)) {
      parts.push('');
      at += operator.length - 1;
      continue;
    }
    if (text[at] === '(') depth += 1;
    if (text[at] === ')') depth -= 1;
    parts[parts.length - 1] += text[at] ?? '';
  }
  return parts;
}

const valuesIn = (text: string): string[] => [...text.matchAll(/'([^']*)'/g)].map(([, value = '']) => value);

function holds(selector: string, labels: LabelMap): boolean {
  const text = selector.trim();
  const either = split(text, ' || ');
  if (either.length > 1) return either.some((part) => holds(part, labels));
  const all = split(text, ' && ');
  if (all.length > 1) return all.every((part) => holds(part, labels));
  if (text.startsWith('!')) return !holds(text.slice(1), labels);
  return text.startsWith('(') ? holds(text.slice(1, -1), labels) : isMet(text, labels);
}

function isMet(text: string, labels: LabelMap): boolean {
  if (text === '' || text === 'all()') return true;
  const [, has] = /^has\((.*)\)$/.exec(text) ?? [];
  if (has !== undefined) return Object.hasOwn(labels, has);
  const [, key = '', operator = '', rest = ''] = /^(\S+) (==|!=|in|not in|contains|starts with|ends with) (.*)$/.exec(text) ?? [];
  const value = labels[key];
  if (value === undefined) return operator === '!=' || operator === 'not in';
  return compared(value, operator, valuesIn(rest));
}

function compared(value: string, operator: string, given: readonly string[]): boolean {
  const [one = ''] = given;
  if (operator === 'contains') return value.includes(one);
  if (operator === 'starts with') return value.startsWith(one);
  if (operator === 'ends with') return value.endsWith(one);
  return given.includes(value) === (operator === '==' || operator === 'in');
}

/** Something with labels that has the address. */
interface Holder {
  readonly labels: LabelMap;
  readonly namespace?: string;
  readonly account?: string;
}

const protocolNumbers: Readonly<Record<string, number>> = { TCP: 6, UDP: 17, SCTP: 132, ICMP: 1, ICMPV6: 58, UDPLITE: 136 };
const numberOf = (protocol: string | number): number => protocolNumbers[String(protocol).toUpperCase()] ?? Number(protocol);

/** Of which sort it is, whoever speaks. */
function isTraffic({ ipVersion, protocol, notProtocol, icmp, notICMP }: CalicoRule, packet: WorldPacket): boolean {
  const isIt = ({ type, code }: NonNullable<CalicoRule['icmp']>): boolean =>
    type === packet.icmp?.type && (code === undefined || code === packet.icmp?.code);
  const number = numberOf(packet.protocol);
  return [
    ipVersion === undefined || (ipVersion === 6) === packet.source.includes(':'),
    protocol === undefined || numberOf(protocol) === number,
    notProtocol === undefined || numberOf(notProtocol) !== number,
    icmp?.type === undefined || isIt(icmp),
    notICMP?.type === undefined || !isIt(notICMP),
  ].every(Boolean);
}

export class CalicoReference {
  readonly #world: World;
  readonly #calico: CalicoWorld;

  constructor(world: World, calico: CalicoWorld) {
    this.#world = world;
    this.#calico = calico;
  }

  /** Whether the policy is in force for the pod in that direction. */
  isFor({ kind, metadata, spec }: CalicoPolicy, pod: Pod, way: Way): boolean {
    // "Staged policies … do not affect traffic"; those before translation and without tracking are for hosts.
    if (kind.startsWith('Staged') || spec['doNotTrack'] === true || spec['preDNAT'] === true) return false;
    if (metadata.namespace !== undefined && metadata.namespace !== pod.namespace) return false;
    const [ingress, egress] = [spec.ingress ?? [], spec.egress ?? []].map(({ length }) => length > 0);
    const byRules = way === 'egress' ? egress === true : ingress === true || egress !== true;
    const isType = spec.types?.includes(way === 'ingress' ? 'Ingress' : 'Egress') ?? byRules;
    return isType && this.#isSubject(spec, this.#holderOf(pod));
  }

  #isSubject(
    { selector = '', namespaceSelector: namespaces, serviceAccountSelector: accounts }: CalicoPolicy['spec'],
    holder: Holder,
  ): boolean {
    return (
      holds(selector, holder.labels) &&
      (namespaces === undefined || this.#isInNamespace(namespaces, holder)) &&
      (accounts === undefined || this.#isAccount(accounts, holder))
    );
  }

  /** What the first rule that matches does. */
  actionOf({ metadata, spec }: CalicoPolicy, packet: WorldPacket, way: Way): string | undefined {
    for (const rule of spec[way] ?? []) {
      // What is not supported opens nothing.
      const action = rule.http === undefined ? rule.action : 'none';
      if (action === 'Log' || action === 'none') continue;
      if (this.#ruleMatches(rule, packet, way, metadata.namespace)) return action;
    }
    return undefined;
  }

  #holderOf({ labels, namespace, account = 'default' }: Pod): Holder {
    const given = {
      'projectcalico.org/namespace': namespace,
      'projectcalico.org/serviceaccount': account,
      'projectcalico.org/orchestrator': 'k8s',
    };
    return { labels: { ...labels, ...given }, namespace, account };
  }

  #holdersAt(ip: string): Holder[] {
    const pods = this.#world.pods.filter(({ ips, hostNetwork }) => hostNetwork !== true && ips.includes(ip));
    const sets = this.#calico.sets.filter(({ spec }) => spec.nets.some((net) => isInside(net, ip)));
    return [
      ...pods.map((pod) => this.#holderOf(pod)),
      ...sets.map(({ metadata: { labels, namespace } }): Holder => {
        if (namespace === undefined) return { labels };
        return { labels: { ...labels, 'projectcalico.org/namespace': namespace }, namespace };
      }),
    ];
  }

  #isInNamespace(selector: string, { namespace }: Holder): boolean {
    if (selector === 'global()') return namespace === undefined;
    if (namespace === undefined) return false;
    const labels = this.#world.namespaces.find(({ name }) => name === namespace)?.labels ?? {};
    return holds(selector, { ...labels, 'projectcalico.org/name': namespace, 'kubernetes.io/metadata.name': namespace });
  }

  #isAccount(selector: string, { namespace, account }: Holder): boolean {
    if (account === undefined) return false;
    const found = this.#calico.accounts.find((one) => one.namespace === namespace && one.name === account);
    return holds(selector, { ...found?.labels, 'projectcalico.org/name': account });
  }

  #ruleMatches(rule: CalicoRule, packet: WorldPacket, way: Way, namespace: string | undefined): boolean {
    const { source = {}, destination = {} } = rule;
    if (!isTraffic(rule, packet)) return false;
    const far = way === 'ingress' ? source : destination;
    if (far.services !== undefined && !this.#isService(far.services, packet, way, namespace)) return false;
    return (
      this.#isAt(source, packet, { ip: packet.source, port: 40_000 }, namespace) &&
      this.#isAt(destination, packet, { ip: packet.destination, port: packet.port }, namespace)
    );
  }

  #isService(
    { name, namespace: of }: { name: string; namespace?: string },
    packet: WorldPacket,
    way: Way,
    own: string | undefined,
  ): boolean {
    const service = this.#calico.services.find((one) => one.name === name && one.namespace === (of ?? own));
    if (service === undefined) return false;
    if (way === 'ingress') return service.ips.includes(packet.source);
    const isPort = service.ports.some(({ protocol, port }) => protocol === packet.protocol && port === packet.port);
    return isPort && service.ips.includes(packet.destination);
  }

  #isAt(end: CalicoEnd, packet: WorldPacket, at: { ip: string; port: number }, namespace: string | undefined): boolean {
    const { nets = [], notNets = [], ports = [], notPorts = [], notSelector } = end;
    if (nets.length > 0 && !nets.some((net) => isInside(net, at.ip))) return false;
    if (notNets.some((net) => isInside(net, at.ip))) return false;
    const holders = this.#holdersAt(at.ip);
    if (!this.#isMeant(end, holders, namespace)) return false;
    if (notSelector !== undefined && holders.some(({ labels }) => holds(notSelector, labels))) return false;
    const isPort = (port: number | string): boolean => this.#isPort(port, packet, at);
    return (ports.length === 0 || ports.some(isPort)) && !notPorts.some(isPort);
  }

  #isMeant(end: CalicoEnd, holders: readonly Holder[], namespace: string | undefined): boolean {
    const { selector, notSelector, namespaceSelector, serviceAccounts } = end;
    const isSaid = [selector, namespaceSelector, serviceAccounts].some((one) => one !== undefined);
    // "NotSelector … endpoints for a namespaced policy being limited to the namespace as soon as any of the selectors is used"
    if (!isSaid && (notSelector === undefined || namespace === undefined)) return true;
    return holders.some((holder) => {
      const isThere =
        namespaceSelector === undefined
          ? namespace === undefined || holder.namespace === namespace
          : this.#isInNamespace(namespaceSelector, holder);
      const { names, selector: accounts } = serviceAccounts ?? {};
      return (
        isThere &&
        holds(selector ?? '', holder.labels) &&
        (names === undefined || names.includes(holder.account ?? '')) &&
        (accounts === undefined || this.#isAccount(accounts, holder))
      );
    });
  }

  #isPort(said: number | string, packet: WorldPacket, { ip, port }: { ip: string; port: number }): boolean {
    const [, first, last = first] = /^(\d+)(?::(\d+))?$/.exec(String(said)) ?? [];
    if (first !== undefined) return Number(first) <= port && port <= Number(last);
    const pod = this.#world.pods.find(({ ips, hostNetwork }) => hostNetwork !== true && ips.includes(ip));
    return (pod?.ports ?? []).some((one) => one.name === said && one.protocol === packet.protocol && one.containerPort === port);
  }
}
