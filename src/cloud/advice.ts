// Which networking model suits a cloud and its user: each model is tried in its ways of being carried, from what it asks of the cloud
// (by the same functions that `causeway cloud apply` asks by) and what the user needs. Pure.
import type { Overhead } from '#drivers/driver.ts';
import { choicesFor } from '#drivers/models.ts';
import { mtuSum } from '#drivers/mtu.ts';
import { type Family, parseCidr, parseIp } from '#model/ip.ts';
import type { Host, Network, Pool } from '#model/resources.ts';
import {
  type AdvisedName,
  advisedModels,
  advisedNames,
  type Feature,
  type FrontEnd,
  isAvailable,
  isClusterModel,
  servesFrontEnd,
  summaryOf,
  type Way,
} from './advice-table.ts';
import { mostPairs } from './pairs.ts';
import { mostRoutes } from './router.ts';
import type { Survey } from './survey.ts';
import { wishOf } from './wish.ts';

export interface Needs {
  readonly features: readonly Feature[];
  readonly frontEnds: readonly FrontEnd[];
  readonly hosts: number;
  /** On all hosts together. */
  readonly containers: number;
  readonly networks: number;
}

/** What a model takes of the cloud at the scale that was asked for. */
export interface Asked {
  readonly groups: number;
  readonly rules: number;
  /** Of each host's port. */
  readonly pairs: number;
  /** Beside those of the hosts. */
  readonly ports: number;
  /** Of a router. */
  readonly routes: number;
}

export interface Judgement {
  readonly model: AdvisedName;
  readonly summary: string;
  readonly isAvailable: boolean;
  readonly carry: string;
  readonly mtu: { readonly network: number; readonly overhead: readonly Overhead[]; readonly left: number };
  readonly bytesPerPacket: number;
  readonly asks: Asked;
  /** Why it cannot be: one sentence each. None: it does all that is needed, here. */
  readonly obstacles: readonly string[];
  readonly pros: readonly string[];
  readonly cons: readonly string[];
}

export interface Advice {
  /** Best first; those that cannot be come last. */
  readonly models: readonly Judgement[];
  /** The first of them, if it can be. */
  readonly recommended?: Judgement | undefined;
  readonly why: string;
}

/** IPv4 addresses of a /24, the block of a host of flannel, without its ends. */
const blockSize = 254;
/** Ports of one host's pool in a network of the model `neutron`. */
const poolSize = 2 ** (32 - choicesFor('neutron').address.blockLength4);
const leastMtu: Readonly<Record<Family, number>> = { 4: 576, 6: 1280 };

export function advise(survey: Survey, needs: Needs): Advice {
  const judged = advisedNames.map((model) => judge(model, { survey, needs }));
  const sorted = judged.toSorted((a, b) => firstDifference(ranks(a), ranks(b)));
  const [first] = sorted;
  if (first === undefined || first.obstacles.length > 0) return { models: sorted, why: 'No model of this version does all of it here' };
  const rivals = sorted.filter(({ obstacles }) => obstacles.length === 0).length;
  const why =
    rivals === 1
      ? 'it is the only one that does all of it here'
      : `of the ${rivals} that do all of it here it adds the fewest bytes to a packet, and among equal ones it asks the least of the cloud`;
  return { models: sorted, recommended: first, why };
}

/** Compared from the left; less is better. */
const ranks = ({ obstacles, bytesPerPacket, asks }: Judgement): readonly number[] => [
  obstacles.length,
  bytesPerPacket,
  asks.ports,
  asks.routes,
  asks.pairs,
  asks.rules,
];
const firstDifference = (a: readonly number[], b: readonly number[]): number =>
  a.map((value, index) => value - (b[index] ?? 0)).find((difference) => difference !== 0) ?? 0;

export interface Case {
  readonly survey: Survey;
  readonly needs: Needs;
}

/** In the first of its ways that can be, or else in the one with the fewest obstacles. */
function judge(model: AdvisedName, known: Case): Judgement {
  const { ways } = advisedModels[model];
  const tried = ways.map((way) => judgeWay(model, way, known));
  const [best] = tried.toSorted((a, b) => a.obstacles.length - b.obstacles.length);
  if (best === undefined) throw new TypeError(`Broken invariant: model ${model} has no way of being carried`);
  const better = ways.slice(0, tried.indexOf(best)).filter(({ isEncrypted }) => isEncrypted === true || !needsEncryption(known));
  const missed = better.flatMap((way) =>
    forbidden(way, askedOf(way, known), known.survey).map((reason) => `not carried by ${way.carry}: ${reason}`),
  );
  return { ...best, cons: [...missed, ...best.cons] };
}

const needsEncryption = ({ needs }: Case): boolean => needs.features.includes('encryption');

/** One way of carrying a model, on its own. */
export function judgeWay(model: AdvisedName, way: Way, known: Case): Judgement {
  const { survey, needs } = known;
  const { traits, pros, cons } = advisedModels[model];
  const mtu = mtuOf(way, survey);
  const asks = askedOf(way, known);
  const bytesPerPacket = mtu.overhead.reduce((sum, { bytes }) => sum + bytes, 0);
  const given = needs.features.filter((feature) => traits[feature].has);
  return {
    model,
    summary: summaryOf(model),
    isAvailable: isAvailable(model),
    carry: way.carry,
    mtu,
    bytesPerPacket,
    asks,
    obstacles: [
      ...unusable(survey),
      ...lacking(model, way, needs),
      ...crowded(way, needs),
      ...forbidden(way, asks, survey),
      ...tooSmall(mtu, survey),
      ...(way.hasPorts === true ? withoutPorts(way, known) : []),
    ],
    pros: [...given.map((feature) => `${feature}: ${traits[feature].why}`), ...pros],
    cons: [...cons, ...scaleCons({ model, way, asks }, known)],
  };
}

function lacking(model: AdvisedName, way: Way, needs: Needs): string[] {
  const { traits } = advisedModels[model];
  const missing = needs.features.filter((feature) => !traits[feature].has).map((feature) => `no ${feature}: ${traits[feature].why}`);
  const hasOther = (feature: Feature): boolean => needs.features.includes(feature) && traits[feature].has;
  return [
    ...(isAvailable(model) ? [] : ['this version of Causeway does not have it yet']),
    ...needs.frontEnds.filter((one) => !servesFrontEnd(model, one)).map((one) => `not for ${one === 'docker' ? 'Docker' : 'Kubernetes'}`),
    ...missing,
    ...(hasOther('policy') && isPodsOnly(model) && !needs.frontEnds.includes('kubernetes') ? ['no policy for Docker networks'] : []),
    ...(hasOther('encryption') && way.isEncrypted !== true ? [`carried by ${way.carry} it is not encrypted`] : []),
    ...(!needs.features.includes('encryption') && way.isEncrypted === true ? ['encryption costs and is not needed'] : []),
    ...(hasOther('policy') && way.hasPorts === true && way.isTrunk !== true
      ? ['as address pairs containers have no groups of their own']
      : []),
    ...(hasOther('addressable') && way.isPlain !== true ? [`carried by ${way.carry} no router can lead to containers`] : []),
  ];
}

/** Of the hosts' network, whatever the model. */
function unusable({ network: { name, mtu, families } }: Survey): string[] {
  return [
    ...(mtu === 0
      ? [
          `the cloud does not tell the MTU of network ${name}: ask its operator, and have it set (openstack network set --mtu BYTES ${name})`,
        ]
      : []),
    ...(families.length === 0
      ? [
          `network ${name} has no subnet, so hosts have no addresses there: make one (openstack subnet create --network ${name} --subnet-range RANGE NAME), or name another network (--network)`,
        ]
      : []),
  ];
}

/** Containers' ports are on the hosts' network, as sub-ports also on others. */
function withoutPorts({ isTrunk }: Way, { survey: { network }, needs }: Case): string[] {
  return [
    ...(network.takesPorts || isTrunk === true
      ? []
      : [`network ${network.name} is another project's, which alone may choose addresses of ports there`]),
    ...(needs.frontEnds.includes('docker') && network.families.length > 0 && !network.families.includes(4)
      ? [`network ${network.name} has no subnet of IPv4, of which Docker gives every network`]
      : []),
  ];
}

const isPodsOnly = (model: AdvisedName): boolean => model === 'flannel' || model === 'calico' || model === 'routes';

/** Of ports it is the hosts' own that decide whether containers' are sub-ports. */
function ofOtherSort({ hasPorts, isTrunk }: Way, { extensions, instances, parents }: Survey): string[] {
  if (hasPorts !== true) return [];
  if (isTrunk !== true)
    return instances > 0 && parents === instances ? ["all hosts are parents of trunks, so containers' ports are sub-ports"] : [];
  if (!extensions.includes('trunk')) return ['no port can be the parent of a trunk (extension trunk)'];
  return parents === instances ? [] : [`of the ports of ${instances} instances ${parents} are parents of trunks`];
}

/** What the cloud does not let be. */
function forbidden(way: Way, asks: Asked, survey: Survey): string[] {
  return [
    ...(survey.extensions.includes('security-group') ? [] : ['the cloud has no security groups (extension security-group)']),
    ...ofOtherSort(way, survey),
    ...(asks.pairs > 0 ? withoutPairs(asks.pairs, survey) : []),
    ...(asks.routes > 0 ? withoutRoutes(survey) : []),
    ...short(survey, 'security_group', asks.groups),
    // A group is born with two rules, which go before ours come.
    ...short(survey, 'security_group_rule', Math.max(asks.rules, 2 * asks.groups)),
    ...short(survey, 'port', way.hasPorts === true ? asks.ports : 0),
  ];
}

/** Ports without port security need none. */
function withoutPairs(wanted: number, survey: Survey): string[] {
  if (survey.instances > 0 && survey.unguarded === survey.instances) return [];
  return [
    ...(!survey.extensions.includes('allowed-address-pairs')
      ? ['the cloud has no address pairs (extension allowed-address-pairs)']
      : survey.rights.pairs === 'no'
        ? [`the login may not write allowed address pairs${insteadOfPairs(survey)}`]
        : []),
    ...(wanted > mostPairs ? [`${wanted} address pairs per port are needed, ${mostPairs} are allowed by default`] : []),
  ];
}

function withoutRoutes({ extensions, routers, rights }: Survey): string[] {
  const knows = extensions.includes('extraroute');
  return [
    ...(knows ? [] : ['routers take no routes (extension extraroute)']),
    ...(routers.length === 0 ? ['the project has no router'] : []),
    ...(knows && rights.routes === 'no'
      ? [`the login may not write routes of ${routers.length > 1 ? 'routers' : 'router'} ${routers.join(', ')}`]
      : []),
  ];
}

const insteadOfPairs = ({ rights }: Survey): string =>
  rights.portSecurity === 'yes' ? ", but may turn port security off on the hosts' ports, which need no pairs then" : '';

function short({ quotas }: Survey, name: string, wanted: number): string[] {
  const quota = quotas[name];
  if (quota === undefined || quota.limit < 0 || quota.used + wanted <= quota.limit) return [];
  return [`the quota of ${name.replaceAll('_', ' ')}s would not do: ${quota.used} used and ${wanted} needed, ${quota.limit} allowed`];
}

function tooSmall({ left }: Judgement['mtu'], { network: { mtu, families } }: Survey): string[] {
  if (mtu === 0) return [];
  const least = Math.max(...families.map((family) => leastMtu[family]), leastMtu[4]);
  return left >= least ? [] : [`a packet would have ${left} bytes at most, and ${least} are the least`];
}

function crowded({ hasPorts, isTrunk }: Way, { containers, hosts, networks }: Needs): string[] {
  const [each, most] = [Math.ceil(containers / hosts), networks * poolSize];
  return hasPorts !== true || isTrunk === true || each <= most
    ? []
    : [`${each} containers on a host are more than the ${most} that its port can have pairs for`];
}

/** What is no obstacle yet. */
function scaleCons({ model, way, asks }: { model: AdvisedName; way: Way; asks: Asked }, { survey, needs }: Case): string[] {
  const each = Math.ceil(needs.containers / needs.hosts);
  return [
    ...(asks.pairs > 0 && survey.instances === 0
      ? ['whether the login may write address pairs is not known: there is no instance to try it on']
      : []),
    ...(needs.frontEnds.includes('kubernetes') && servesFrontEnd(model, 'kubernetes') && !isClusterModel(model)
      ? ["with Kubernetes only in networks that pods ask for: the cluster's own is of another model"]
      : []),
    ...(way.hasPorts === true ? portCons(way, survey) : []),
    ...(asks.pairs > 0 ? ['the rule by range lets containers reach every port of the hosts'] : []),
    ...(asks.routes > mostRoutes ? [`a router takes ${mostRoutes} routes by default (max_routes), and ${asks.routes} are needed`] : []),
    ...(model === 'flannel' && each > blockSize
      ? [`${each} containers on a host do not fit into a /24 per host: give larger blocks (--block-length)`]
      : []),
  ];
}

function portCons({ isTrunk }: Way, { network }: Survey): string[] {
  if (isTrunk !== true) return [];
  const { name, takesPorts, families } = network;
  return [
    ...(takesPorts ? [] : [`network ${name} is another project's: containers' ports must be on another one, of this project`]),
    ...(families.length > 1 ? ['with IPv6, too (--ipv6), each container takes a port of each family: twice the ports'] : []),
  ];
}

function mtuOf(way: Way, { network: { mtu, families } }: Survey): Judgement['mtu'] {
  const own = way.as === undefined ? [] : mtuSum(networkOf(way.as, 1), hostOf(1, { mtu, families })).overhead;
  const overhead = way.adds ?? own;
  return {
    network: mtu,
    overhead,
    left: Math.max(
      0,
      overhead.reduce((left, { bytes }) => left - bytes, mtu),
    ),
  };
}

/** Counted from the wish for as many hosts and networks, which is what `causeway cloud apply` would make. */
function askedOf(way: Way, { survey, needs }: Case): Asked {
  const routes = way.isRouted === true || (way.isPlain === true && needs.features.includes('addressable') && way.hasPorts !== true);
  const ports = way.hasPorts === true ? pooledPorts(needs) : 0;
  const rest = { ports, routes: routes ? needs.networks * needs.hosts * blocksOf(way, needs) : 0 };
  if (way.isTrunk === true) return { groups: 0, rules: 0, pairs: 0, ...rest };
  // One pair for each address of a host's pools; the group and its rules are the same for all hosts and networks.
  if (way.hasPorts === true) return { groups: 1, rules: 2, pairs: needs.networks * poolSize, ...rest };
  if (way.as === undefined) return { groups: 0, rules: 0, pairs: 0, ...rest };
  const { as } = way;
  const networks = Array.from({ length: needs.networks }, (_, index) => networkOf(as, index + 1, way.isEncrypted));
  const wish = wishOf(
    {
      hosts: Array.from({ length: needs.hosts }, (_, index) => hostOf(index + 1, survey.network)),
      networks,
      pools: networks.flatMap((network, index) => poolsOf(network, index, survey.network.families)),
      blocks: [],
      endpoints: [],
      exposures: [],
    },
    'causeway',
  );
  const rules = wish.groups.reduce((sum, group) => sum + group.rules.length, 0);
  // By a router a host's port has its own blocks, of which there are none here.
  const pairs = way.isRouted === true ? needs.networks * survey.network.families.length : (wish.ports[0]?.pairs.length ?? 0);
  return { groups: wish.groups.length, rules, pairs, ...rest };
}

/** They are made a pool at a time, for each host in each network. */
function pooledPorts({ containers, hosts, networks }: Needs): number {
  const pools = Math.max(1, Math.ceil(containers / (hosts * networks * poolSize)));
  return hosts * networks * pools * poolSize;
}

/** Of each host in each network. */
function blocksOf({ as }: Way, { containers, hosts, networks }: Needs): number {
  if (as === undefined) return 1;
  const { blocksPerHost, blockLength4 } = choicesFor(as.model, { carry: as.carry }).address;
  return blocksPerHost === 1 ? 1 : Math.max(1, Math.ceil(containers / (hosts * networks * 2 ** (32 - blockLength4))));
}

const meta = (id: string) => ({ id, name: id, revision: 1, createdAt: '1970-01-01T00:00:00.000Z', labels: {} });

/** Any that would be there; its addresses matter by their families only. */
function hostOf(index: number, { mtu, families }: { mtu: number; families: readonly Family[] }): Host {
  const underlay = (families.length === 0 ? [4 as const] : families).map((family) => ({
    interface: 'eth0',
    ip: parseIp(family === 4 ? `198.18.${index >> 8}.${index & 255}` : `2001:db8::${index.toString(16)}`),
    subnet: parseCidr(family === 4 ? '198.18.0.0/15' : '2001:db8::/64'),
    mtu,
  }));
  const status = { ready: true, seenAt: '', desired: 0, applied: 0, failing: [], features: {} };
  return { ...meta(`host-${index}`), index, generation: 1, underlay, agentVersion: '', status };
}

function networkOf({ model, carry }: NonNullable<Way['as']>, index: number, isEncrypted = carry === 'wireguard'): Network {
  const choices = choicesFor(model, { carry, ...(isEncrypted ? { encrypted: true } : {}) });
  return {
    ...meta(`network-${index}`),
    model,
    tenant: 'default',
    choices,
    encrypted: isEncrypted,
    internal: false,
    vni: 4096 + index,
    attachable: true,
    addressing: 'blocks',
  };
}

function poolsOf({ id, choices }: Network, index: number, families: readonly Family[]): Pool[] {
  const is6 = families.length > 0 && !families.includes(4);
  const cidr = parseCidr(is6 ? `fd00:${index.toString(16)}::/64` : `10.${index}.0.0/16`);
  const blockLength = is6 ? choices.address.blockLength6 : choices.address.blockLength4;
  return [{ ...meta(`${id}-pool`), network: id, cidr, reserved: {}, blockLength }];
}
