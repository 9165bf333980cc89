// Calico's resources as their users write them (projectcalico.org/v3: api/pkg/apis/projectcalico/v3 of its source), read into
// our words. What a resource says that is not followed is named in docs/bgp.md; what cannot be read is refused with the
// field's name, and others are used all the same.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { BgpFilter, BgpRule, BgpSettings, HostChoice, Peering } from '#model/bgp.ts';
import { defaultBgp } from '#model/bgp.ts';
import { Fault } from '#model/fault.ts';
import { bitsOf, type Cidr, cidrLength, type Family, familyOf, hostPrefix, type Ip, parseIp } from '#model/ip.ts';
import { parseSelector, type Selector } from '#model/selector.ts';

const optional = <T>(schema: v.GenericSchema<unknown, T>) => v.optional(schema);
const range = v.object({ cidr: field.cidr });
const asn = v.pipe(
  v.union([v.number(), v.string()]),
  v.transform((said) => asnOf(said)),
  v.number('expected an AS number, 1 to 4294967295 or as 64512.1'),
);
const selector = v.pipe(
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

/** Fault `invalid`, naming kind, object and field. */
function read<T>(kind: string, name: string, schema: v.GenericSchema<unknown, T>, spec: unknown): T {
  const result = v.safeParse(schema, spec ?? {});
  if (result.success) return result.output;
  const [issue] = result.issues;
  const place = v.getDotPath(issue);
  throw new Fault('invalid', `${kind} ${name}: spec${place === null ? '' : `.${place}`}: ${issue.message}`, {
    field: `spec${place === null ? '' : `.${place}`}`,
  });
}

const pool = v.object({
  cidr: field.cidr,
  blockSize: optional(v.pipe(v.number(), v.integer(), v.minValue(20), v.maxValue(128))),
  vxlanMode: v.optional(v.picklist(['', 'Never', 'Always', 'CrossSubnet']), 'Never'),
  ipipMode: v.optional(v.picklist(['', 'Never', 'Always', 'CrossSubnet']), 'Never'),
  disabled: v.optional(v.boolean(), false),
  disableBGPExport: v.optional(v.boolean(), false),
  nodeSelector: v.optional(selector, ''),
  namespaceSelector: v.optional(selector, ''),
  allowedUses: v.optional(v.array(v.string()), []),
  assignmentMode: v.optional(v.string(), 'Automatic'),
});

export interface IpPool {
  readonly name: string;
  readonly cidr: Cidr;
  readonly blockLength: number;
  /** Whether packets between hosts in different subnets go through a tunnel. */
  readonly tunnelled: boolean;
  readonly announced: boolean;
  /** For pods at all; and for those that do not ask for it by name. */
  readonly forPods: boolean;
  readonly automatic: boolean;
  readonly nodes: Selector;
  readonly namespaces: Selector;
}

const usualLength = { 4: 26, 6: 122 } as const;

const isTunnel = (mode: string): boolean => mode === 'Always' || mode === 'CrossSubnet';

export function readPool(name: string, spec: unknown): IpPool {
  const said = read('IPPool', name, pool, spec);
  const family = familyOf(said.cidr);
  const blockLength = said.blockSize ?? usualLength[family];
  if (blockLength < cidrLength(said.cidr) || blockLength > bitsOf(family)) {
    throw new Fault(
      'invalid',
      `IPPool ${name}: spec.blockSize: ${blockLength} is not between ${cidrLength(said.cidr)} and ${bitsOf(family)}`,
      {
        field: 'spec.blockSize',
      },
    );
  }
  return {
    name,
    cidr: said.cidr,
    blockLength,
    tunnelled: isTunnel(said.vxlanMode) || isTunnel(said.ipipMode),
    announced: !said.disableBGPExport,
    forPods: !said.disabled && (said.allowedUses.length === 0 || said.allowedUses.includes('Workload')),
    automatic: said.assignmentMode !== 'Manual',
    nodes: said.nodeSelector,
    namespaces: said.namespaceSelector,
  };
}

const reservation = v.object({ reservedCIDRs: v.optional(v.array(v.union([field.cidr, v.pipe(field.ip, v.transform(hostPrefix))])), []) });
export const readReservation = (name: string, spec: unknown): readonly Cidr[] =>
  read('IPReservation', name, reservation, spec).reservedCIDRs;

const ipam = v.object({
  strictAffinity: v.optional(v.boolean(), false),
  maxBlocksPerHost: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 0),
});
export interface IpamSettings {
  readonly strictAffinity: boolean;
  readonly maxBlocksPerHost: number;
}
export const readIpam = (name: string, spec: unknown): IpamSettings => read('IPAMConfiguration', name, ipam, spec);

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
  const said = read('BGPConfiguration', name, configuration, spec);
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
  const said = read('BGPPeer', name, peer, spec);
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
  const said = read('BGPFilter', name, filter, spec);
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
