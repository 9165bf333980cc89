// Calico's resources of BGP as their users write them (projectcalico.org/v3: api/pkg/apis/projectcalico/v3 of its source), read
// into our words: the same for clusters of Kubernetes and for those of a controller. What a resource says that is not followed
// is named in docs/bgp.md; what cannot be read is refused with the field's name.
import * as v from 'valibot';
import {
  type BgpFilter,
  bgpLabels,
  type BgpRule,
  type BgpSettings,
  defaultBgp,
  type HostChoice,
  isChosen,
  type Named,
  type Peering,
} from '#model/bgp.ts';
import { assertNever, Fault, isFault } from '#model/fault.ts';
import { bitsOf, type Cidr, cidrLength, type Family, familyOf, type Ip, parseIp } from '#model/ip.ts';
import type { BgpResource } from '#model/resources.ts';
import { parseSelector, type Selector, selects } from '#model/selector.ts';
import * as field from './fields.ts';

const optional = <T>(schema: v.GenericSchema<unknown, T>) => v.optional(schema);
const range = v.object({ cidr: field.cidr });
const asn = v.pipe(
  v.union([v.number(), v.string()]),
  v.transform((said) => asnOf(said)),
  v.number('expected an AS number, 1 to 4294967295 or as 64512.1'),
);
export const selector: v.GenericSchema<unknown, Selector> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => readSelector(dataset.value, addIssue) ?? NEVER),
);

function readSelector(text: string, addIssue: (info: { message: string }) => void): Selector | undefined {
  try {
    return parseSelector(text);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    addIssue({ message: error.message });
    return undefined;
  }
}

/** Also with a point (RFC 5396). */
function asnOf(said: number | string): number | undefined {
  const [, high, low] = /^(\d{1,5})\.(\d{1,5})$/.exec(String(said)) ?? [];
  const value = high === undefined || low === undefined ? Number(said) : Number(high) * 65_536 + Number(low);
  return Number.isInteger(value) && value > 0 && value <= 0xffffffff ? value : undefined;
}

/** As Go writes durations: `2m`, `90s`, `1m30s`. */
const duration = v.pipe(
  v.string(),
  v.regex(/^(\d+h)?(\d+m)?(\d+s)?$/, 'expected a duration such as 2m30s'),
  v.transform((text) => {
    const [, hours = '0', minutes = '0', seconds = '0'] = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(text) ?? [];
    return Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds);
  }),
  v.maxValue(4095, 'expected at most 4095 seconds (RFC 4724)'),
);

const communityPattern = /^\d{1,5}:\d{1,5}$|^\d{1,10}:\d{1,10}:\d{1,10}$/;
const community = v.pipe(v.string(), v.regex(communityPattern, 'expected a community such as 65001:300 or 65001:300:1'));
const secret = v.object({ secretKeyRef: v.object({ name: v.string(), key: v.string() }) });

export interface SecretKey {
  readonly name: string;
  readonly key: string;
}

/** The secret's text, if it can be read. */
export type Secrets = (of: SecretKey) => string | undefined;

/** Every text `secretKeyRef` in what users wrote, with the key that it names. */
export function secretsIn(spec: unknown): SecretKey[] {
  if (typeof spec !== 'object' || spec === null) return [];
  return Object.entries(spec).flatMap(([name, value]: [string, unknown]) => {
    const read = name === 'secretKeyRef' ? v.safeParse(v.object({ name: v.string(), key: v.string() }), value) : undefined;
    return read?.success === true ? [read.output] : secretsIn(value);
  });
}

const any: Secrets = () => 'any';

/** Fault `invalid`, naming the field: what `spec` says cannot be followed. Secrets need not be there. */
export function checkBgp({ sort, name, spec }: Pick<BgpResource, 'sort' | 'name' | 'spec'>): void {
  switch (sort) {
    case 'BGPConfiguration':
      if (name !== 'default')
        throw new Fault('invalid', `BGPConfiguration ${name}: only the one named default is followed`, {
          field: 'name',
          hint: `Say what is different on a host by labels: causeway host label HOST ${bgpLabels.asn}=65001`,
        });
      readConfiguration(name, spec, any);
      return;
    case 'BGPPeer':
      readPeer(name, spec, any);
      return;
    case 'BGPFilter':
      readFilter(name, spec);
      return;
    default:
      assertNever(sort);
  }
}

/** Names of the secrets that `host` has to know to speak with its peers. What cannot be read needs none. */
export function secretsFor(host: Named, resources: Iterable<BgpResource>): ReadonlySet<string> {
  const needed = [...resources].filter(
    ({ sort, name, spec }) => sort === 'BGPConfiguration' || (sort === 'BGPPeer' && concerns(host, name, spec)),
  );
  return new Set(needed.flatMap(({ spec }) => secretsIn(spec).map(({ name }) => name)));
}

function concerns(host: Named, name: string, spec: unknown): boolean {
  try {
    const { of, with: other } = readPeer(name, spec, any);
    return isChosen(host, of) || ('selector' in other && selects(other.selector, host.labels));
  } catch (error) {
    if (!isFault(error)) throw error;
    return false;
  }
}

/** Fault `invalid`, naming kind, object and field. */
export function readSpec<T>(kind: string, name: string, schema: v.GenericSchema<unknown, T>, spec: unknown): T {
  const result = v.safeParse(schema, spec ?? {});
  if (result.success) return result.output;
  const [issue] = result.issues;
  const place = v.getDotPath(issue);
  throw new Fault('invalid', `${kind} ${name}: spec${place === null ? '' : `.${place}`}: ${issue.message}`, {
    field: `spec${place === null ? '' : `.${place}`}`,
  });
}

const configuration = v.object({
  asNumber: optional(asn),
  nodeToNodeMeshEnabled: v.optional(v.boolean(), true),
  listenPort: v.optional(field.port, defaultBgp.port),
  nodeMeshPassword: optional(secret),
  nodeMeshMaxRestartTime: optional(duration),
  serviceClusterIPs: v.optional(v.array(range), []),
  serviceExternalIPs: v.optional(v.array(range), []),
  serviceLoadBalancerIPs: v.optional(v.array(range), []),
  communities: v.optional(v.array(v.object({ name: v.string(), value: community })), []),
  prefixAdvertisements: v.optional(v.array(v.object({ cidr: field.cidr, communities: v.array(v.string()) })), []),
});

type Configuration = Pick<BgpSettings, 'asn' | 'port' | 'mesh' | 'communities' | 'services'>;

/** Passwords go into a text of BIRD's, which has no way to write a quotation mark; TCP takes 80 bytes (RFC 2385). */
function passwordOf(kind: string, name: string, of: SecretKey, secrets: Secrets): string {
  const text = secrets(of);
  if (text === undefined) {
    throw new Fault('not-found', `${kind} ${name}: secret ${of.name} has no ${of.key}, or may not be read`, { field: 'spec.password' });
  }
  if (/^[^"\p{Cc}]{1,80}$/u.test(text)) return text;
  throw new Fault('invalid', `${kind} ${name}: the password has control characters or quotation marks, or is longer than 80 bytes`, {
    field: 'spec.password',
  });
}

/** Faults: `invalid`, `not-found` (a secret). */
export function readConfiguration(name: string, spec: unknown, secrets: Secrets): Configuration {
  const said = readSpec('BGPConfiguration', name, configuration, spec);
  const named = new Map(said.communities.map((one) => [one.name, one.value]));
  const communities = said.prefixAdvertisements.map(({ cidr, communities: list }) => ({
    cidr,
    values: list.map((text) => {
      const value = named.get(text) ?? text;
      if (communityPattern.test(value)) return value;
      throw new Fault('invalid', `BGPConfiguration ${name}: spec.prefixAdvertisements: no community ${text}`, {
        field: 'spec.prefixAdvertisements',
      });
    }),
  }));
  const { nodeMeshPassword: password, nodeMeshMaxRestartTime: restartSeconds } = said;
  return {
    asn: said.asNumber ?? defaultBgp.asn,
    port: said.listenPort,
    mesh: {
      enabled: said.nodeToNodeMeshEnabled,
      ...(password === undefined ? {} : { password: passwordOf('BGPConfiguration', name, password.secretKeyRef, secrets) }),
      ...(restartSeconds === undefined ? {} : { restartSeconds }),
    },
    communities,
    services: [...said.serviceClusterIPs, ...said.serviceExternalIPs, ...said.serviceLoadBalancerIPs].map(({ cidr }) => cidr),
  };
}

const peer = v.object({
  node: optional(v.string()),
  nodeSelector: optional(selector),
  peerIP: optional(v.string()),
  asNumber: optional(asn),
  peerSelector: optional(selector),
  keepOriginalNextHop: v.optional(v.boolean(), false),
  nextHopMode: v.optional(v.picklist(['Auto', 'Self', 'Keep']), 'Auto'),
  password: optional(secret),
  sourceAddress: v.optional(v.picklist(['UseNodeIP', 'None']), 'UseNodeIP'),
  maxRestartTime: optional(duration),
  filters: v.optional(v.array(v.string()), []),
  ttlSecurity: optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255))),
  reachableBy: optional(field.ip),
  localASNumber: optional(asn),
  numAllowedLocalASNumbers: optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255))),
});

/** `10.0.0.1`, `10.0.0.1:1179`, `fd00::1`, `[fd00::1]:1179`. */
function addressOf(name: string, text: string): { ip: Ip; port: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const number = port === undefined ? defaultBgp.port : Number(port);
  if (number < 1 || number > 65_535)
    throw new Fault('invalid', `BGPPeer ${name}: spec.peerIP: no port ${number}`, { field: 'spec.peerIP' });
  return { ip: parseIp(bracketed ?? plain ?? text, `spec.peerIP of BGPPeer ${name}`), port: number };
}

const modes = { Auto: 'auto', Self: 'self', Keep: 'keep' } as const;

type SaidPeer = v.InferOutput<typeof peer>;

/** Fault `invalid`. */
function checkPeer(name: string, said: SaidPeer): void {
  const wrong = (text: string, place: string): Fault => new Fault('invalid', `BGPPeer ${name}: ${text}`, { field: `spec.${place}` });
  if (said.node !== undefined && said.nodeSelector !== undefined) throw wrong('node and nodeSelector exclude each other', 'nodeSelector');
  if ((said.peerIP === undefined) === (said.peerSelector === undefined)) throw wrong('either peerIP or peerSelector is needed', 'peerIP');
  if (said.peerIP !== undefined && said.asNumber === undefined) throw wrong('peerIP needs an AS number', 'asNumber');
}

function detailsOf({ maxRestartTime, ttlSecurity, reachableBy, localASNumber, numAllowedLocalASNumbers }: SaidPeer): Partial<Peering> {
  return {
    ...(maxRestartTime === undefined ? {} : { restartSeconds: maxRestartTime }),
    ...(ttlSecurity === undefined || ttlSecurity === 0 ? {} : { hops: ttlSecurity }),
    ...(reachableBy === undefined ? {} : { reachableBy }),
    ...(localASNumber === undefined ? {} : { localAsn: localASNumber }),
    ...(numAllowedLocalASNumbers === undefined ? {} : { ownAsnAllowed: numAllowedLocalASNumbers }),
  };
}

/** Faults: `invalid`, `not-found` (a secret). */
export function readPeer(name: string, spec: unknown, secrets: Secrets): Peering {
  const said = readSpec('BGPPeer', name, peer, spec);
  checkPeer(name, said);
  const of: HostChoice = {
    ...(said.node === undefined ? {} : { host: said.node }),
    ...(said.nodeSelector === undefined ? {} : { selector: said.nodeSelector }),
  };
  const { password, peerSelector } = said;
  return {
    name,
    of,
    with: peerSelector === undefined ? { ...addressOf(name, said.peerIP ?? ''), asn: said.asNumber ?? 0 } : { selector: peerSelector },
    fromHostAddress: said.sourceAddress === 'UseNodeIP',
    nextHop: said.keepOriginalNextHop ? 'keep' : modes[said.nextHopMode],
    filters: said.filters,
    ...(password === undefined ? {} : { password: passwordOf('BGPPeer', name, password.secretKeyRef, secrets) }),
    ...detailsOf(said),
  };
}

const length = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(128));
const priority = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2_147_483_646));
const rule = v.object({
  action: v.picklist(['Accept', 'Reject']),
  cidr: optional(field.cidr),
  matchOperator: optional(v.picklist(['Equal', 'NotEqual', 'In', 'NotIn'])),
  prefixLength: optional(v.object({ min: optional(length), max: optional(length) })),
  source: optional(v.picklist(['RemotePeers'])),
  interface: optional(v.pipe(v.string(), v.regex(/^[A-Za-z0-9_.*-]{1,15}$/, 'expected the name of a link, or one with *'))),
  peerType: optional(v.picklist(['eBGP', 'iBGP'])),
  communities: optional(v.object({ values: v.pipe(v.array(community), v.length(1)) })),
  asPathPrefix: optional(v.array(asn)),
  priority: optional(priority),
  operations: v.optional(
    v.array(
      v.union([
        v.object({ addCommunity: v.object({ value: community }) }),
        v.object({ prependASPath: v.object({ prefix: v.array(asn) }) }),
        v.object({ setPriority: v.object({ value: priority }) }),
      ]),
    ),
    [],
  ),
});
const rules = v.optional(v.array(rule), []);
const filter = v.object({ exportV4: rules, importV4: rules, exportV6: rules, importV6: rules });

type SaidRule = v.InferOutput<typeof rule>;

/** Those that the range has at all; none: the first is greater than the last. */
const lengthsOf = (cidr: Cidr, { min, max }: { min?: number | undefined; max?: number | undefined }): { min: number; max: number } => ({
  min: Math.max(min ?? 0, cidrLength(cidr)),
  max: Math.min(max ?? 128, bitsOf(familyOf(cidr))),
});

/** Fault `invalid`. */
function checkRule({ cidr, matchOperator, prefixLength, action, operations }: SaidRule, family: Family, place: string): void {
  const wrong = (text: string): Fault => new Fault('invalid', `${place}: ${text}`, { field: place });
  if ((cidr === undefined) !== (matchOperator === undefined)) throw wrong('cidr and matchOperator belong together');
  if (cidr !== undefined && familyOf(cidr) !== family) throw wrong(`${cidr} is of the other family`);
  if (action === 'Reject' && operations.length > 0) throw wrong('operations need the action Accept');
  if (prefixLength === undefined) return;
  const { min, max } = cidr === undefined ? { min: 1, max: 0 } : lengthsOf(cidr, prefixLength);
  if (min > max) throw wrong('prefixLength does not fit the cidr');
}

const routeOf = ({ cidr, matchOperator: operator, prefixLength }: SaidRule): BgpRule['match'] =>
  cidr === undefined || operator === undefined
    ? {}
    : { cidr, operator, ...(prefixLength === undefined ? {} : { lengths: lengthsOf(cidr, prefixLength) }) };

function ruleOf(said: SaidRule, family: Family, place: string): BgpRule {
  checkRule(said, family, place);
  const { communities, asPathPrefix, peerType } = said;
  const [wanted] = communities?.values ?? [];
  return {
    accept: said.action === 'Accept',
    match: {
      ...routeOf(said),
      ...(said.source === undefined ? {} : { learned: true }),
      ...(said.interface === undefined ? {} : { interface: said.interface }),
      ...(peerType === undefined ? {} : { peer: peerType }),
      ...(wanted === undefined ? {} : { community: wanted }),
      ...(asPathPrefix === undefined ? {} : { pathBegins: asPathPrefix }),
      ...(said.priority === undefined ? {} : { priority: said.priority }),
    },
    changes: said.operations.map((one) => {
      if ('addCommunity' in one) return { type: 'community', value: one.addCommunity.value };
      if ('prependASPath' in one) return { type: 'prepend', path: one.prependASPath.prefix };
      return { type: 'priority', value: one.setPriority.value };
    }),
  };
}

export function readFilter(name: string, spec: unknown): BgpFilter {
  const said = readSpec('BGPFilter', name, filter, spec);
  const of = (list: readonly SaidRule[], family: Family, place: string): BgpRule[] =>
    list.map((one, index) => ruleOf(one, family, `BGPFilter ${name}: spec.${place}.${index}`));
  return {
    name,
    rules: {
      import4: of(said.importV4, 4, 'importV4'),
      export4: of(said.exportV4, 4, 'exportV4'),
      import6: of(said.importV6, 6, 'importV6'),
      export6: of(said.exportV6, 6, 'exportV6'),
    },
  };
}
