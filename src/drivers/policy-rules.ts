// One rule of a policy in the language of nft(8): for each family that it can match, and for numbered and named ports, one
// line with a counter. A port or set that nothing can be in makes no line at all.
import type { NftElement } from '#model/desired.ts';
import { type Family, familyOf } from '#model/ip.ts';
import { policyTableName } from '#model/numbers.ts';
import { type AddressSpec, type End, namedPortKey, type PortSpec, protocols, type Rule } from '#model/policy.ts';
import { fingerprint } from './policy-names.ts';

const families: readonly Family[] = [4, 6];
const prefixOf: Readonly<Record<Family, string>> = { 4: 'ip', 6: 'ip6' };

/** What is sent on after a connection has been cut would else begin it again. */
export const noBeginning = 'tcp flags & (syn | ack) != syn counter drop comment "no beginning of a connection"';

export const policyElement = (set: string, key: string, value?: string): NftElement => ({
  netns: '',
  table: policyTableName,
  set,
  key,
  ...(value === undefined ? {} : { value }),
});

export const setName = (id: string, family: Family): string => `${id}_${family}`;
export const namedSet = (key: string, family: Family): string => `port_${fingerprint(key)}_${family}`;

/** A comment of nft has 128 bytes; what is longer keeps its beginning and a fingerprint of all. */
export function labelOf(policy: string, rule: string): string {
  const whole = `${policy}: ${rule}`.replaceAll(/[^ !#-[\]-~]/g, '_');
  return whole.length <= 120 ? whole : `${whole.slice(0, 100)}~${fingerprint(`${policy}: ${rule}`)}`;
}

type Side = 'source' | 'destination';
const sideWord: Readonly<Record<Side, readonly [string, string]>> = { source: ['saddr', 'sport'], destination: ['daddr', 'dport'] };
const list = (ranges: PortSpec['ranges']): string =>
  `{ ${ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ')} }`;

interface Making {
  readonly specs: ReadonlyMap<string, AddressSpec>;
  readonly family: Family;
  readonly protocol: number | undefined;
}

/** Undefined: nothing can match. */
type Conditions = string[] | undefined;

const mayHold = (spec: AddressSpec | undefined, family: Family): boolean =>
  spec !== undefined &&
  (spec.selectors.length > 0 || (spec.services ?? []).length > 0 || spec.cidrs.some((cidr) => familyOf(cidr) === family));

function addresses(end: End, side: Side, { specs, family }: Making): Conditions {
  const [word] = sideWord[side];
  const within = end.in ?? [];
  if (!within.every((id) => mayHold(specs.get(id), family))) return undefined;
  const outside = (end.notIn ?? []).filter((id) => mayHold(specs.get(id), family));
  const at = `${prefixOf[family]} ${word}`;
  return [...within.map((id) => `${at} @${setName(id, family)}`), ...outside.map((id) => `${at} != @${setName(id, family)}`)];
}

/** Each of them alone is enough. */
function ports({ ports: spec }: End, side: Side, { family, protocol }: Making): string[] {
  if (spec === undefined) return [''];
  const [address, port] = sideWord[side];
  const numbered = spec.ranges.length === 0 ? [] : [`th ${port} ${list(spec.ranges)}`];
  const named = protocol === undefined ? [] : spec.named.map((name) => `@${namedSet(namedPortKey(protocol, name), family)}`);
  return [...numbered, ...named.map((set) => `${prefixOf[family]} ${address} . th ${port} ${set}`)];
}

function notPorts({ notPorts: spec }: End, side: Side, { family, protocol }: Making): string[] {
  if (spec === undefined) return [];
  const [address, port] = sideWord[side];
  const named = protocol === undefined ? [] : spec.named.map((name) => `@${namedSet(namedPortKey(protocol, name), family)}`);
  return [
    ...(spec.ranges.length === 0 ? [] : [`th ${port} != ${list(spec.ranges)}`]),
    ...named.map((set) => `${prefixOf[family]} ${address} . th ${port} != ${set}`),
  ];
}

function icmp({ icmp: spec, notIcmp }: Rule, family: Family): string[] {
  const word = family === 4 ? 'icmp' : 'icmpv6';
  const is = spec === undefined ? [] : [`${word} type ${spec.type}`, ...(spec.code === undefined ? [] : [`${word} code ${spec.code}`])];
  if (notIcmp === undefined) return is;
  const { type, code } = notIcmp;
  return [...is, code === undefined ? `${word} type != ${type}` : `${word} type . ${word} code != { ${type} . ${code} }`];
}

/** What a rule becomes part of. */
export interface RuleContext {
  /** Comment of each line, by which counters are found again. */
  readonly label: string;
  /** Of all sets that the rule mentions. */
  readonly specs: ReadonlyMap<string, AddressSpec>;
  /** What allowing is, other than accepting. */
  readonly allow?: string | undefined;
}

/** At most ten a second, so that nobody can fill the host's log. The kernel cuts longer prefixes (NF_LOG_PREFIXLEN). */
export const logging = (label: string): string => `limit rate 10/second burst 20 packets log prefix "causeway: ${label.slice(0, 100)} "`;

function ending({ action }: Rule, { label, allow = 'accept' }: RuleContext): string {
  if (action === 'log') return `${logging(label)} comment "${label}"`;
  const verdicts = { allow, deny: 'drop', pass: 'return' } as const;
  return `counter ${verdicts[action]} comment "${label}"`;
}

function linesFor(rule: Rule, making: Making): string[] {
  const [from, to] = [addresses(rule.source, 'source', making), addresses(rule.destination, 'destination', making)];
  if (from === undefined || to === undefined) return [];
  const protocol = [
    ...(rule.protocol === undefined ? [] : [`meta l4proto ${rule.protocol}`]),
    ...(rule.notProtocol === undefined ? [] : [`meta l4proto != ${rule.notProtocol}`]),
  ];
  const always = [
    ...from,
    ...to,
    ...protocol,
    ...icmp(rule, making.family),
    ...notPorts(rule.source, 'source', making),
    ...notPorts(rule.destination, 'destination', making),
  ];
  return ports(rule.source, 'source', making).flatMap((sport) =>
    ports(rule.destination, 'destination', making).map((dport) => [...always, sport, dport].filter((one) => one !== '').join(' ')),
  );
}

export function renderRule(rule: Rule, context: RuleContext): string[] {
  const { specs } = context;
  const end = ending(rule, context);
  const possible = families.filter((family) => (rule.family ?? family) === family && !isOther(rule, family));
  const lines = possible.map((family) => linesFor(rule, { specs, family, protocol: rule.protocol }));
  const [first, second] = lines;
  // Without a word about addresses both families are the same.
  if (first !== undefined && second !== undefined && String(first) === String(second)) return first.map((line) => `${line} ${end}`.trim());
  return possible.flatMap((family, index) =>
    (lines[index] ?? []).map((line) => {
      const isTold = line.includes(`${prefixOf[family]} `) || line.includes(family === 4 ? 'icmp type' : 'icmpv6 type');
      return `${isTold ? '' : `meta nfproto ipv${family} `}${line} ${end}`;
    }),
  );
}

/** Each family has an ICMP of its own. */
const isOther = ({ protocol }: Rule, family: Family): boolean => protocol === (family === 4 ? protocols.icmp6 : protocols.icmp);
