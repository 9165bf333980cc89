// Which multicast messages of the kernel mean that something of ours is no longer as we left it. Pure. Most messages mean
// nothing of the kind: a container's link comes up, the kernel learns a neighbour, Docker edits its own tables. To tell,
// one has to remember what was there: the links of the namespace, and which neighbours are permanent.
import { routeProtocol, tableName } from '#model/numbers.ts';
import { decodeAttributes, type Message, readText, readU32 } from './netlink/codec.ts';
import { decodeAddress, decodeLink, decodeNeigh, decodeRoute, type FoundLink, type NeighMessage } from './netlink/rtnl.ts';
import {
  AF_BRIDGE,
  AF_UNSPEC,
  NETCONFA_IFINDEX,
  NFT_MSG_DELCHAIN,
  NFT_MSG_DELRULE,
  NFT_MSG_DELTABLE,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWTABLE,
  NFTA_CHAIN_NAME,
  NFTA_RULE_CHAIN,
  NLM_F_REPLACE,
  NUD_PERMANENT,
  RT_TABLE_MAIN,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_DELNEIGH,
  RTM_DELQDISC,
  RTM_DELROUTE,
  RTM_DELTFILTER,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWNETCONF,
  RTM_NEWROUTE,
  RTM_NEWTFILTER,
} from './netlink/uapi.ts';
import { holdsFilters, isFilterPlace } from './bpf.ts';
import { forwardingChains } from './forwarding.ts';
import { isOurAddress, isOurLink, isOurLinkName } from './ownership.ts';

/** What is remembered of one namespace. Kept up to date by every message, also by those about our own writes. */
export interface Memory {
  /** Whether the namespace itself is ours. */
  readonly domain: boolean;
  readonly links: Map<number, FoundLink>;
  /** By rememberedAs(). */
  readonly permanent: Set<string>;
}

/** Who caused a message: `kernel` by itself, or as a consequence; `self`; or a `foreign` process. */
export type Cause = 'kernel' | 'self' | 'foreign';

// A wireguard link is told by its name alone, of the kernel's as of wireguard-go's making.
const concernsUs = (link: FoundLink): boolean =>
  isOurLink(link) || (isOurLinkName(link.name) && (link.kind === 'tun' || link.kind === 'wireguard'));

const sameLinkState = (a: FoundLink, b: FoundLink): boolean =>
  a.name === b.name && a.mtu === b.mtu && a.mac === b.mac && a.alias === b.alias && a.up === b.up;

function linkDrift(memory: Memory, message: Message, cause: Cause): boolean {
  // Bridges tell about their ports in messages of the same type but another family.
  if (message.body[0] !== AF_UNSPEC) return false;
  const link = decodeLink(message.body);
  const before = memory.links.get(link.index);
  if (message.type === RTM_DELLINK) {
    memory.links.delete(link.index);
    return before !== undefined && concernsUs(before);
  }
  memory.links.set(link.index, link);
  if (before === undefined) return cause === 'foreign' && concernsUs(link);
  return (concernsUs(before) || concernsUs(link)) && !sameLinkState(before, link);
}

function addressDrift(memory: Memory, message: Message, cause: Cause): boolean {
  const address = decodeAddress(message.body);
  const link = address === undefined ? undefined : memory.links.get(address.index);
  if (address === undefined || link === undefined) return false;
  const { ip, protocol } = address;
  if (!isOurAddress({ link: link.name, mac: link.mac, ip, protocol }, memory.domain)) return false;
  // IPv6 does not say who added an address, but ours carry our protocol.
  return message.type === RTM_DELADDR || cause === 'foreign' || (cause === 'kernel' && protocol !== routeProtocol);
}

function routeDrift(message: Message, cause: Cause): boolean {
  const route = decodeRoute(message.body);
  if (route.table !== RT_TABLE_MAIN) return false;
  if (message.type === RTM_DELROUTE) return route.protocol === routeProtocol;
  // A route that replaces another does not name the other's owner.
  return cause === 'foreign' && (route.protocol === routeProtocol || (message.flags & NLM_F_REPLACE) !== 0);
}

function neighDrift(memory: Memory, message: Message, cause: Cause): boolean {
  const neigh = decodeNeigh(message.body);
  const link = memory.links.get(neigh.index);
  if (link === undefined || !isOurLinkName(link.name)) return false;
  const key = rememberedAs(neigh);
  if (message.type === RTM_NEWNEIGH && (neigh.state & NUD_PERMANENT) !== 0) {
    const known = memory.permanent.has(key);
    memory.permanent.add(key);
    return cause === 'foreign' || (cause === 'kernel' && !known);
  }
  return memory.permanent.delete(key);
}

/** Settings that hold for all links (index -1) or for those to come (-2), such as forwarding; those of one link follow from its making. */
const isGeneralSetting = (message: Message): boolean => (readU32(decodeAttributes(message.body.subarray(4)).get(NETCONFA_IFINDEX)) | 0) < 0;

/**
 * A filter or the qdisc that holds filters; on links of others only in a place of ours. The kernel's own messages are about links that
 * come and go, which say so.
 */
function filterDrift(memory: Memory, message: Message, cause: Cause): boolean {
  if (![RTM_NEWTFILTER, RTM_DELTFILTER, RTM_DELQDISC].includes(message.type)) return false;
  const link = memory.links.get(message.body.readInt32LE(4));
  if (cause !== 'foreign' || link === undefined) return false;
  return isOurLinkName(link.name) || (message.type === RTM_DELQDISC ? holdsFilters(message.body) : isFilterPlace(message.body));
}

/** A neighbour is known by its address, a forwarding entry by its MAC and remote. */
export const rememberedAs = (neigh: NeighMessage): string =>
  neigh.ip === undefined || neigh.family === AF_BRIDGE ? `${neigh.index} ${neigh.mac} ${neigh.ip}` : `${neigh.index} ${neigh.ip}`;

const isAboutLinks = ({ type }: Message): boolean => type === RTM_NEWLINK || type === RTM_DELLINK;

/** Judges one message of NETLINK_ROUTE and brings `memory` up to date. */
export function isRouteDrift(memory: Memory, message: Message, cause: Cause): boolean {
  if (cause === 'self' && !isAboutLinks(message)) {
    if (message.type === RTM_NEWNEIGH || message.type === RTM_DELNEIGH) neighDrift(memory, message, cause);
    return false;
  }
  if (message.type === RTM_NEWNETCONF) return isGeneralSetting(message);
  switch (message.type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      return linkDrift(memory, message, cause) && cause !== 'self';
    case RTM_NEWADDR:
    case RTM_DELADDR:
      return addressDrift(memory, message, cause);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      return routeDrift(message, cause);
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      return neighDrift(memory, message, cause);
    default:
      return filterDrift(memory, message, cause);
  }
}

const tableBytes = Buffer.from(tableName);
/** Judges one message of the nftables group: attribute 1 of every one of them is the table's name. Each element has its message. */
export const isNftDrift = (message: Message): boolean =>
  decodeAttributes(message.body.subarray(4)).get(1)?.subarray(0, tableBytes.length).equals(tableBytes) === true;

/** Where a message of this kind names its chain. */
const chainNames: ReadonlyMap<number, number> = new Map([
  [NFT_MSG_NEWCHAIN, NFTA_CHAIN_NAME],
  [NFT_MSG_DELCHAIN, NFTA_CHAIN_NAME],
  [NFT_MSG_NEWRULE, NFTA_RULE_CHAIN],
  [NFT_MSG_DELRULE, NFTA_RULE_CHAIN],
]);

/** Whether a message of the nftables group says that others have changed what the host forwards. */
export function isForwardingChange(message: Message): boolean {
  const attributes = decodeAttributes(message.body.subarray(4));
  const chains = forwardingChains.get(readText(attributes.get(1)));
  if (chains === undefined) return false;
  const type = message.type & 0xff;
  const named = chainNames.get(type);
  return named === undefined ? type === NFT_MSG_NEWTABLE || type === NFT_MSG_DELTABLE : chains.includes(readText(attributes.get(named)));
}
