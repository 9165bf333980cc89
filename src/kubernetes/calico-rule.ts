// One rule of Calico's policies (projectcalico.org/v3: api/pkg/apis/projectcalico/v3/policy_common.go) as ordered rules. What of
// it cannot be read or is not followed closes: a rule that allows then allows nothing, one that logs says nothing, and one that
// denies or passes denies everything.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, hostPrefix } from '#model/ip.ts';
import {
  type Action,
  type Direction,
  type End,
  type IcmpSpec,
  type OrderedPolicy,
  type PortSpec,
  protocols,
  type Rule,
} from '#model/policy.ts';
import type { Selector } from '#model/selector.ts';
import { calicoSelector } from './calico-selector.ts';
import { accountName, both, type Holder, inNamespace } from './label-selector.ts';
import { cidrIn, type Problem, type Sets, united } from './policy-parts.ts';

/** Undefined for the empty text, which says nothing. */
const selectorField = (of: Holder) =>
  v.pipe(
    v.string(),
    v.rawTransform<string, Selector | undefined>(({ dataset, addIssue, NEVER }) => {
      try {
        return dataset.value.trim() === '' ? undefined : calicoSelector(dataset.value, of);
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        addIssue({ message: error.message });
        return NEVER;
      }
    }),
  );
export const endpointSelector: v.GenericSchema<unknown, Selector | undefined> = selectorField('endpoint');
export const namespaceSelector: v.GenericSchema<unknown, Selector | undefined> = selectorField('namespace');
export const accountSelector: v.GenericSchema<unknown, Selector | undefined> = selectorField('service account');

/** Fields that are not named may narrow a rule in a way that is not known here. */
const strict = <T extends v.ObjectEntries>(entries: T) =>
  v.strictObject(entries, ({ expected }) => (expected === 'never' ? 'is not known here' : 'expected an object'));

/** An address is its host prefix; host bits are cleared. */
export function netIn(text: string): Cidr | undefined {
  if (text.includes('/')) return cidrIn(text);
  const ip = v.safeParse(field.ip, text);
  return ip.success ? hostPrefix(ip.output) : undefined;
}
const net = v.pipe(
  v.string(),
  v.rawTransform<string, Cidr>(({ dataset, addIssue, NEVER }) => {
    const found = netIn(dataset.value);
    if (found !== undefined) return found;
    addIssue({ message: 'expected an address or a prefix' });
    return NEVER;
  }),
);

const numbers: Readonly<Record<string, number>> = {
  tcp: protocols.tcp,
  udp: protocols.udp,
  icmp: protocols.icmp,
  icmpv6: protocols.icmp6,
  sctp: protocols.sctp,
  udplite: protocols.udplite,
};
const protocol = v.pipe(
  v.union([v.number(), v.string()], 'expected the name or the number of a protocol'),
  v.transform((said) => (/^\d+$/.test(String(said)) ? Number(said) : numbers[String(said).toLowerCase()])),
  v.number('expected TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255'),
  v.integer('expected a whole number'),
  v.minValue(1, 'expected 1 to 255'),
  v.maxValue(255, 'expected 1 to 255'),
);

type Port = readonly [number, number] | string;
const port = v.pipe(
  v.union([v.number(), v.string()], 'expected a port'),
  v.transform((said) => portIn(String(said))),
  v.union([v.string(), v.tuple([v.number(), v.number()])], 'expected a port, a range such as 1024:2048, or a name'),
);

function portIn(text: string): Port | undefined {
  const [, first, last = first] = /^(\d{1,5})(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (first === undefined) return /^[A-Za-z0-9_.-]{1,128}$/.test(text) && !/^\d+$/.test(text) ? text : undefined;
  const ends = [Number(first), Number(last)] as const;
  return ends[0] <= ends[1] && ends[1] <= 65_535 ? ends : undefined;
}

const listOf = <T>(item: v.GenericSchema<unknown, T>) => v.optional(v.array(item), []);
const icmp = v.pipe(
  strict({
    type: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(254))),
    code: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255))),
  }),
  v.check(({ type, code }) => code === undefined || type !== undefined, 'has a code without a type'),
);
const service = strict({ name: v.pipe(v.string(), v.minLength(1, 'expected a name')), namespace: v.optional(v.string(), '') });
const end = strict({
  nets: listOf(net),
  notNets: listOf(net),
  selector: v.optional(endpointSelector),
  notSelector: v.optional(endpointSelector),
  namespaceSelector: v.optional(namespaceSelector),
  ports: listOf(port),
  notPorts: listOf(port),
  services: v.optional(service),
  serviceAccounts: v.optional(strict({ names: listOf(v.string()), selector: v.optional(accountSelector) })),
});
type SaidEnd = v.InferOutput<typeof end>;
const nothing: SaidEnd = { nets: [], notNets: [], ports: [], notPorts: [] };

const actions: Readonly<Record<string, Action>> = { Allow: 'allow', Deny: 'deny', Pass: 'pass', Log: 'log' };
const rule = strict({
  action: v.picklist(['Allow', 'Deny', 'Pass', 'Log']),
  ipVersion: v.optional(v.picklist([4, 6])),
  protocol: v.optional(protocol),
  notProtocol: v.optional(protocol),
  icmp: v.optional(icmp),
  notICMP: v.optional(icmp),
  source: v.optional(end, nothing),
  destination: v.optional(end, nothing),
  http: v.optional(v.never('what a request of HTTP says is not looked at')),
  metadata: v.optional(v.unknown()),
});
type SaidRule = v.InferOutput<typeof rule>;
const acting = v.object({ action: v.string() });

export interface RuleContext {
  readonly direction: Direction;
  /** Of the policy; absent: it is of the whole cluster. */
  readonly namespace?: string;
  readonly sets: Sets;
  readonly problems: Problem[];
}

const isGiven = ({ ports, notPorts }: SaidEnd): boolean => ports.length > 0 || notPorts.length > 0;
const isAnyOf = (number: number | undefined, ...some: readonly number[]): boolean => number !== undefined && some.includes(number);

/** `field`: within the rule. */
type Wrong = Pick<Problem, 'reason' | 'message'> & { readonly field?: string };
const contradiction = (at: string, message: string): Wrong => ({ field: at, reason: 'Invalid', message });

/** What belongs together and does not stand together. */
function contradictionOf(said: SaidRule, { direction, namespace }: RuleContext): Wrong | undefined {
  const { source, destination, protocol: number } = said;
  if ((isGiven(source) || isGiven(destination)) && !isAnyOf(number, protocols.tcp, protocols.udp, protocols.sctp))
    return contradiction('.protocol', 'ports need TCP, UDP or SCTP');
  if ((said.icmp ?? said.notICMP) !== undefined && !isAnyOf(number, protocols.icmp, protocols.icmp6))
    return contradiction('.protocol', 'types of ICMP need ICMP or ICMPv6');
  const [near, far] = direction === 'ingress' ? [destination, source] : [source, destination];
  const [nearName, farName] = direction === 'ingress' ? ['destination', 'source'] : ['source', 'destination'];
  if (near.services !== undefined) return contradiction(`.${nearName}.services`, 'services stand at the other end only');
  if (far.services === undefined) return undefined;
  const message = aroundService(far, { direction, namespace: far.services.namespace || namespace });
  return message === undefined ? undefined : contradiction(`.${farName}.services`, message);
}

function aroundService(
  far: SaidEnd,
  { direction, namespace }: { direction: Direction; namespace: string | undefined },
): string | undefined {
  if (direction === 'egress' && isGiven(far)) return 'a service has ports of its own';
  if (namespace === undefined) return 'needs a namespace';
  return isByWord(far) || far.nets.length > 0 || far.notNets.length > 0 ? 'excludes other words about who it is' : undefined;
}

const isByWord = ({ selector, notSelector, namespaceSelector: namespaces, serviceAccounts }: SaidEnd): boolean =>
  [selector, notSelector, namespaces, serviceAccounts].some((one) => one !== undefined);

/** Undefined: it says nothing about who is meant (GetEntityRuleSelector in libcalico-go's updateprocessors/rules.go). */
function whoIsMeant(said: SaidEnd, namespace: string | undefined): Selector | undefined {
  const { names = [], selector: accounts } = said.serviceAccounts ?? {};
  const named: Selector[] = names.length === 0 ? [] : [{ type: 'in', label: accountName, values: [...new Set(names)].toSorted() }];
  const own = [said.selector, accounts, ...named].flatMap((one) => one ?? []);
  const elsewhere = said.namespaceSelector;
  if (own.length === 0 && elsewhere === undefined && said.notSelector === undefined) return undefined;
  const within = elsewhere ?? (namespace === undefined ? undefined : inNamespace(namespace));
  const all = within === undefined ? own : [within, ...own];
  return all.length === 0 ? undefined : both(...all);
}

const labelled = { labelled: true } as const;

function portsOf(ports: readonly Port[]): PortSpec | undefined {
  if (ports.length === 0) return undefined;
  return {
    ranges: united(ports.flatMap((one) => (typeof one === 'string' ? [] : [one]))),
    named: [...new Set(ports.flatMap((one) => (typeof one === 'string' ? [one] : [])))].toSorted(),
  };
}

/** The name under which the ports of a service's endpoints are found, as no port can be called. */
const servicePrefix = 'service ';
const serviceName = (key: string): string => `${servicePrefix}${key}`;
/** The service, `namespace/name`, whose ports are found under that name. */
export const serviceOf = (name: string): string | undefined =>
  name.startsWith(servicePrefix) ? name.slice(servicePrefix.length) : undefined;
const serviceKey = ({ services }: SaidEnd, namespace = ''): string =>
  `${services?.namespace === '' ? namespace : services?.namespace}/${services?.name}`;

function endOf(said: SaidEnd, { sets, namespace, direction }: RuleContext): End {
  const who = whoIsMeant(said, namespace);
  const isBehind = said.services !== undefined && direction === 'ingress';
  const within = [
    ...(said.nets.length === 0 ? [] : [sets.add([], said.nets)]),
    ...(who === undefined ? [] : [sets.add([who], [], labelled)]),
    ...(isBehind ? [sets.add([], [], { services: [serviceKey(said, namespace)] })] : []),
  ];
  const outside = [
    ...(said.notNets.length === 0 ? [] : [sets.add([], said.notNets)]),
    ...(said.notSelector === undefined ? [] : [sets.add([said.notSelector], [], labelled)]),
  ];
  const [ports, notPorts] = [portsOf(said.ports), portsOf(said.notPorts)];
  return {
    ...(within.length === 0 ? {} : { in: within }),
    ...(outside.length === 0 ? {} : { notIn: outside }),
    ...(ports === undefined ? {} : { ports }),
    ...(notPorts === undefined ? {} : { notPorts }),
  };
}

const icmpOf = (said: v.InferOutput<typeof icmp> | undefined): IcmpSpec | undefined => {
  const { type, code } = said ?? {};
  return type === undefined ? undefined : { type, ...(code === undefined ? {} : { code }) };
};

function rulesFor(said: SaidRule, name: string, context: RuleContext): Rule[] {
  const [is, isNot] = [icmpOf(said.icmp), icmpOf(said.notICMP)];
  const one: Rule = {
    name,
    action: actions[said.action] ?? 'deny',
    ...(said.ipVersion ? { family: said.ipVersion } : {}),
    ...(said.protocol ? { protocol: said.protocol } : {}),
    ...(said.notProtocol ? { notProtocol: said.notProtocol } : {}),
    ...(is === undefined ? {} : { icmp: is }),
    ...(isNot === undefined ? {} : { notIcmp: isNot }),
    source: endOf(said.source, context),
    destination: endOf(said.destination, context),
  };
  if (context.direction !== 'egress' || said.destination.services === undefined) return [one];
  const ports = { ranges: [], named: [serviceName(serviceKey(said.destination, context.namespace))] };
  return [protocols.tcp, protocols.udp, protocols.sctp]
    .filter((number) => (said.protocol ?? number) === number)
    .map((number) => ({ ...one, protocol: number, destination: { ports } }));
}

/** Problems go into the context's. */
export function readCalicoRule(item: unknown, index: number, context: RuleContext): Rule[] {
  const { direction, problems } = context;
  const name = `${direction} ${index + 1}`;
  const read = v.safeParse(rule, item);
  const wrong = read.success ? contradictionOf(read.output, context) : wrongAt(read.issues[0]);
  if (read.success && wrong === undefined) return rulesFor(read.output, name, context);
  const word = v.safeParse(acting, item);
  const action = word.success ? actions[word.output.action] : undefined;
  const effects = { allow: 'it allows nothing', log: 'it logs nothing' } as const;
  const effect = action === 'allow' || action === 'log' ? effects[action] : 'it denies everything';
  const { field: place = '', ...more } = wrong ?? { reason: 'Invalid', message: 'cannot be read' };
  problems.push({ ...more, field: `spec.${direction}[${index}]${place}`, message: `${more.message}; ${effect}` });
  return action === 'allow' || action === 'log' ? [] : [{ name, action: 'deny', source: {}, destination: {} }];
}

/** As people write it: `.source.nets[0]`. */
function wrongAt(issue: v.BaseIssue<unknown>): Wrong {
  const place = (issue.path ?? []).map(({ key }) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('');
  return { field: place, reason: issue.expected === 'never' ? 'Unsupported' : 'Invalid', message: issue.message };
}

/** Whether it speaks of services, so that one has to know where they are. */
export const namesServices = ({ sets, ingress = [], egress = [] }: OrderedPolicy): boolean =>
  Object.values(sets).some(({ services }) => services !== undefined) ||
  [...ingress, ...egress].some(({ destination }) => (destination.ports?.named ?? []).some((name) => serviceOf(name) !== undefined));
