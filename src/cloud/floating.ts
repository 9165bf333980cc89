// Floating IPs of exposures: which ones are made, taken along to another host, and given back. One that a project's user has
// allocated is only borrowed; one that Causeway has made says so in its description, which is there from the moment it is made.
// A port has at most one of an external network, so exposures on one host share it. Pure.
import { isIP } from 'node:net';
import { isOfRouter, subnetOf } from './named.ts';
import type { SubnetChoice } from '#model/cloud-services.ts';
import { familyOf, parseCidr } from '#model/ip.ts';
import type { FloatingIp, NeutronNetwork, NeutronPort, NeutronRouter, NeutronSubnet } from './neutron-schemas.ts';
import type { WishedFloatingIp } from './wish.ts';

export interface FloatingState {
  readonly floatingIps: readonly FloatingIp[];
  readonly ports: readonly NeutronPort[];
  readonly routers: readonly NeutronRouter[];
  readonly networks: readonly NeutronNetwork[];
  /** Needed where a floating IP is to be of one. */
  readonly subnets?: readonly NeutronSubnet[];
}

export type FloatingStep =
  | {
      readonly type: 'make-floating-ip';
      readonly host: string;
      readonly port: NeutronPort;
      /** The port's address that it leads to. */
      readonly fixed: string;
      /** Id of an external network. */
      readonly network: string;
      /** Id of one of its subnets. */
      readonly subnet?: string;
      readonly tags: readonly string[];
      /** Ids of what is exposed by it. */
      readonly exposures: readonly string[];
    }
  | {
      readonly type: 'change-floating-ip';
      readonly floating: FloatingIp;
      readonly host: string;
      /** Absent: it stays where it is. */
      readonly target?: { readonly port: string; readonly fixed: string };
      readonly addTags: readonly string[];
      readonly removeTags: readonly string[];
      readonly exposures: readonly string[];
    }
  /** It comes back where it is to be by a later step. */
  | { readonly type: 'detach-floating-ip'; readonly floating: FloatingIp; readonly exposures: readonly string[] }
  | {
      readonly type: 'release-floating-ip';
      readonly floating: FloatingIp;
      /** It is removed; otherwise it stays its user's. */
      readonly isMade: boolean;
      /** It is still where we have put it, so it is taken from there. */
      readonly isOurs: boolean;
      /** Made by us, and the project's own from now on. */
      readonly isKept: boolean;
    };

/** Where an exposure is reached; `address` is absent until it has one. */
export interface Reached {
  readonly id: string;
  readonly exposure: string;
  readonly host: string;
  readonly address?: string;
}

export interface FloatingPlan {
  /** To be taken first, as they close something. */
  readonly releases: readonly FloatingStep[];
  readonly changes: readonly FloatingStep[];
  readonly reached: readonly Reached[];
  /** By id of what is exposed. */
  readonly problems: readonly { readonly id: string; readonly text: string }[];
}

export interface Finding {
  /** What every tag of the installation begins with. */
  readonly tag: string;
  /** A host's port, or why there is none. */
  readonly portOf: (host: string) => NeutronPort | string;
  /** Whether Causeway may have led a floating IP there. */
  readonly isOurs: (port: NeutronPort) => boolean;
  /** By id of what is exposed, why the cloud has refused it. */
  readonly refused: ReadonlyMap<string, string>;
}

export const isFloatingStep = (step: { readonly type: string }): step is FloatingStep => step.type.endsWith('floating-ip');

export const madeDescription = (tag: string): string => `${tag}: made for exposures`;
const isIp = (text: string): boolean => isIP(text) !== 0;
/** Which exposure something serves. */
export const exposureTag = (tag: string, id: string): string => `${tag}.exposure.${id}`;
/** It is not to go when nothing needs it any more. */
const keptTag = (tag: string): string => `${tag}.kept`;
export const isFloatingTag = (tag: string, one: string): boolean =>
  one === tag || one === keptTag(tag) || one.startsWith(exposureTag(tag, ''));

interface Target {
  readonly host: string;
  readonly port: NeutronPort;
  readonly fixed: string;
}
/** What has been decided about a floating IP, found or to be made. */
interface Use extends Target {
  readonly floating: FloatingIp | undefined;
  readonly network: string;
  /** Of one that is to be made. */
  readonly subnet?: string;
  readonly exposures: WishedFloatingIp[];
}

export function floatingPlan(wished: readonly WishedFloatingIp[], state: FloatingState, finding: Finding): FloatingPlan {
  const uses: Use[] = [];
  const problems: { id: string; text: string }[] = [];
  const reached: Reached[] = [];
  const { tag, refused } = finding;
  const held = new Set<string>();
  // Those that were named first, so that others on the host share them.
  for (const one of wished.toSorted((a, b) => Number(isIp(b.wanted)) - Number(isIp(a.wanted)))) {
    const refusal = refused.get(one.id);
    // One that is there and may not go where it is to go stays where it is.
    if (refusal !== undefined) for (const { id } of state.floatingIps.filter((found) => isFor(one, found, tag))) held.add(id);
    const use = refusal ?? useOf(one, { state, finding, uses });
    if (typeof use === 'string') {
      problems.push({ id: one.id, text: `${one.kind} ${one.name} has no floating IP: ${use}` });
      continue;
    }
    if (!uses.includes(use)) uses.push(use);
    use.exposures.push(one);
    reached.push({
      id: one.id,
      exposure: one.name,
      host: use.host,
      ...(use.floating === undefined ? {} : { address: use.floating.address }),
    });
  }
  const used = held.union(new Set(uses.map(({ floating }) => floating?.id)));
  const unused = state.floatingIps.filter((one) => !used.has(one.id) && (one.tags.includes(tag) || isMade(one, tag)));
  return {
    releases: unused.map((floating) => {
      const isOurs = state.ports.some((port) => port.id === floating.portId && finding.isOurs(port));
      const isKept = floating.tags.includes(keptTag(tag));
      return { type: 'release-floating-ip', floating, isMade: isMade(floating, tag) && !isKept, isOurs, isKept };
    }),
    changes: uses.flatMap((use) => stepOf(use, tag) ?? []),
    reached,
    problems,
  };
}

const isMade = ({ description }: FloatingIp, tag: string): boolean => description === madeDescription(tag);
const isFor = ({ id, wanted }: Pick<WishedFloatingIp, 'id' | 'wanted'>, { address, tags }: FloatingIp, tag: string): boolean =>
  address === wanted || tags.includes(exposureTag(tag, id));
const isOn = ({ port, fixed }: Target, { portId, fixedAddress }: FloatingIp): boolean => portId === port.id && fixedAddress === fixed;

interface Deciding {
  readonly state: FloatingState;
  readonly finding: Finding;
  readonly uses: readonly Use[];
}

/** The floating IP for an exposure, or why there can be none. */
function useOf(wished: WishedFloatingIp, deciding: Deciding): Use | string {
  const { state, finding, uses } = deciding;
  const target = targetOf(wished, deciding);
  if (typeof target === 'string') return target;
  const { wanted } = wished;
  const network = isIp(wanted) ? undefined : externalNetwork(wanted, target, state);
  if (network !== undefined && !network.isFound) return network.text;
  const fits = (one: { readonly networkId: string }): boolean => network === undefined || one.networkId === network.text;
  const shared = uses.find(
    (use) => use.port.id === target.port.id && (isIp(wanted) ? use.floating?.address === wanted : use.network === network?.text),
  );
  if (shared !== undefined) return shared;
  const there = state.floatingIps.find((one) => isOn(target, one) && fits(one));
  const { tag } = finding;
  const use = (floating: FloatingIp | undefined, networkId: string): Use => ({ ...target, floating, network: networkId, exposures: [] });
  if (isIp(wanted)) return given(wanted, { target, deciding });
  if (there !== undefined) return use(there, there.networkId);
  const taken = new Set(uses.map(({ floating }) => floating?.id));
  const ours = state.floatingIps.filter((one) => !taken.has(one.id) && fits(one) && one.tags.includes(exposureTag(tag, wished.id)));
  const id = network?.text ?? '';
  if (ours[0] !== undefined || wished.subnet === undefined) return use(ours[0], id);
  const subnet = subnetFor(wished.subnet, id, state);
  return subnet.isFound ? { ...use(undefined, id), subnet: subnet.text } : subnet.text;
}

/** Id of the network's subnet that is meant, of several the first; otherwise a sentence. */
function subnetFor(choice: SubnetChoice, network: string, { subnets = [], networks }: FloatingState): { isFound: boolean; text: string } {
  const there = subnets.filter(({ networkId, cidr }) => networkId === network && familyOf(parseCidr(cidr, 'cidr', false)) === 4);
  const fits = ({ id, name, tags }: NeutronSubnet): boolean =>
    'named' in choice ? id === choice.named || name === choice.named : choice.tagged.some((tag) => tags.includes(tag));
  const [found] = there.filter(fits).toSorted((a, b) => (a.id < b.id ? -1 : 1));
  if (found !== undefined) return { isFound: true, text: found.id };
  const what = 'named' in choice ? choice.named : `with the tag ${choice.tagged.join(' or ')}`;
  const name = networks.find(({ id }) => id === network)?.name || network;
  const names = there.map((one) => one.name || one.id).join(', ') || 'none';
  return { isFound: false, text: `the external network ${name} has no subnet ${what} of IPv4; there is ${names}` };
}

/** An address that the user has named. */
function given(address: string, { target, deciding: { state, finding, uses } }: { target: Target; deciding: Deciding }): Use | string {
  const floating = state.floatingIps.find((one) => one.address === address);
  if (floating === undefined)
    return `the project has none with the address ${address}; allocate it, or leave the choice to the cloud with auto`;
  const elsewhere = uses.find((use) => use.floating?.id === floating.id);
  if (elsewhere !== undefined)
    return `${address} leads to host ${elsewhere.host} for another exposure, this container is on ${target.host}`;
  const isFree = floating.portId === undefined || floating.tags.includes(finding.tag) || isMade(floating, finding.tag);
  if (!isFree && !isOn(target, floating)) return `${address} is in use by port ${floating.portId}`;
  const other = state.floatingIps.find((one) => isOn(target, one) && one.networkId === floating.networkId && one.id !== floating.id);
  const isUsed = uses.some((use) => use.floating?.id === other?.id);
  const isReleased = other !== undefined && !isUsed && (other.tags.includes(finding.tag) || isMade(other, finding.tag));
  if (other !== undefined && !isReleased)
    return `the port of host ${target.host} has ${other.address} of the same external network already, and takes one`;
  return { ...target, floating, network: floating.networkId, exposures: [] };
}

/** Of several hosts the one where its floating IP is already, otherwise the first whose port is found. */
function targetOf({ id, hosts, wanted }: WishedFloatingIp, { state, finding }: Deciding): Target | string {
  let trouble = 'its container is on no host';
  const targets: Target[] = [];
  for (const { host, address } of hosts) {
    const port = finding.portOf(host);
    if (typeof port === 'string') trouble = port;
    else targets.push({ host, port, fixed: address });
  }
  const kept = state.floatingIps.filter((one) => isFor({ id, wanted }, one, finding.tag));
  return targets.find((target) => kept.some((one) => isOn(target, one))) ?? targets[0] ?? trouble;
}

/** Id of the network that is meant by its name or id, or to which the host's router leads; otherwise a sentence. */
function externalNetwork(wanted: string, { host, port, fixed }: Target, state: FloatingState): { isFound: boolean; text: string } {
  const external = state.networks.filter(({ isExternal }) => isExternal);
  if (wanted !== 'auto') {
    const found = external.filter(({ id, name }) => id === wanted || name === wanted);
    const [one, other] = found;
    if (one !== undefined && other === undefined) return { isFound: true, text: one.id };
    const names = external.map(({ name, id }) => name || id).join(', ') || 'none';
    const text =
      one === undefined
        ? `there is no external network ${wanted}; there is ${names}`
        : `there are several external networks ${wanted}: name its id`;
    return { isFound: false, text };
  }
  const subnet = subnetOf(port, fixed);
  const leading = state.ports.filter((one) => isOfRouter(one) && one.addresses.some(({ subnetId }) => subnetId === subnet));
  for (const { device } of leading) {
    const network = state.routers.find(({ id }) => id === device)?.externalNetwork;
    if (network !== undefined) return { isFound: true, text: network };
  }
  return { isFound: false, text: `no router of the project leads from the network of host ${host} to an external one` };
}

function stepOf({ floating, host, port, fixed, network, subnet, exposures }: Use, tag: string): FloatingStep | undefined {
  const serving = [
    ...(exposures.some(({ isKept }) => isKept === true) ? [keptTag(tag)] : []),
    ...exposures.map(({ id }) => exposureTag(tag, id)),
  ];
  const ids = exposures.map(({ id }) => id);
  const place = { network, ...(subnet === undefined ? {} : { subnet }) };
  if (floating === undefined) return { type: 'make-floating-ip', host, port, fixed, ...place, tags: [tag, ...serving], exposures: ids };
  const target = { port: port.id, fixed };
  const isThere = isOn({ host, port, fixed }, floating);
  const isOurs = floating.tags.includes(tag) || isMade(floating, tag);
  // What somebody else has put there is theirs, also when we use it.
  if (isThere && !isOurs) return undefined;
  const tags = [tag, ...serving];
  const addTags = tags.filter((one) => !floating.tags.includes(one));
  const removeTags = floating.tags.filter((one) => isFloatingTag(tag, one) && !tags.includes(one));
  if (isThere && addTags.length + removeTags.length === 0) return undefined;
  return { type: 'change-floating-ip', floating, host, ...(isThere ? {} : { target }), addTags, removeTags, exposures: ids };
}
