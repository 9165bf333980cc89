// What in the kernel is ours, decided from the object alone by a process with no memory (DESIGN.md, invariant 3). A new
// sort of kernel object needs its rule here first.
//
// - namespace: name `cw-…`.
// - link: a veth or vxlan named `cw…`. Of a veth pair only the end with an alias `causeway …` is an item of its own; the far
//   end has none and lives and dies with it. (Name and alias are set in one write, so no crash separates them; a vxlan
//   cannot be a far end, so it is ours even before it has its alias.)
// - address: every address on a link named `cw…`, and in our namespaces those on `lo` besides 127.0.0.0/8 and ::1. What the
//   kernel gives by itself is not: IFA_PROTO (Linux 5.18) says so, and where it does not, a link-local address counts as the
//   kernel's when it is the one that follows from the link's MAC.
//   On links of others a host prefix with IFA_PROTO 197: an address of a load balancer that this host answers for.
// - route: protocol 197 in the main table; what another system has left over a link of ours, or by the same next hop, is replaced by
//   ours of that destination. neighbour, forwarding entry: permanent ones on links named `cw…`.
// - proxy neighbour: NDA_PROTOCOL 197, on any link.
// - way back: routing rules with FRA_PROTOCOL 197 for a mark of wayMarks.
// - trunk: the other routing rules with FRA_PROTOCOL 197, the first of which names the link; routes of protocol 197 in the tables that they lead
//   to; on that link, which is the host's own, the tc filters with preference 197 at entrance and exit, and that it is promiscuous.
// - bandwidth limit: the qdisc with handle c97: on a link named `cwe…`; an ifb named `cwi…`, with its qdisc and the tc filter
//   with preference 196 at the entrance of the link of that endpoint.
// - BGP speaker: the BIRD process that listens in the agent's own directory. Routes of protocol 12 (bird) in the main table are
//   that process's, and nobody else's; the agent itself only removes them, once no speaker is wanted any more. Routes of protocol 198
//   are copies of them, for a minute after the process has been started again.
// - fast path: the tc filter with a name `cw_…` at the entrance of a link, with preference 197 on one named `cw…`, and with 198 on links
//   of others in the host's own namespace.
import { type Ip, linkLocalOf, type Mac } from '#model/ip.ts';
import { domainPrefix, linkPrefix, routeProtocol } from '#model/numbers.ts';
import { IFAPROT_KERNEL_LL, IFAPROT_KERNEL_LO } from './netlink/uapi.ts';

export const aliasPrefix = 'causeway ';

// Canonical text decides: this is asked for every address of every link.
const loopback = /^(127\.|::1$)/;
const linkLocal6 = /^fe[89ab]/;

export const isOurNetns = (name: string): boolean => name.startsWith(domainPrefix);

export const isOurLinkName = (name: string): boolean => name.startsWith(linkPrefix);

export function isOurLink(link: { readonly name: string; readonly kind: string; readonly alias: string }): boolean {
  if (!isOurLinkName(link.name)) return false;
  return link.kind === 'vxlan' || (link.kind === 'veth' && link.alias.startsWith(aliasPrefix));
}

export interface FoundAddress {
  readonly link: string;
  readonly mac: Mac;
  readonly ip: Ip;
  /** IFA_PROTO; 0 when the kernel does not say. */
  readonly protocol: number;
}

/** `domain`: whether the namespace itself is ours. */
export function isOurAddress(address: FoundAddress, domain: boolean): boolean {
  if (address.link === 'lo') return domain && !loopback.test(address.ip);
  if (!isOurLinkName(address.link)) return address.protocol === routeProtocol && !domain;
  if (address.protocol >= IFAPROT_KERNEL_LO && address.protocol <= IFAPROT_KERNEL_LL) return false;
  return !(linkLocal6.test(address.ip) && address.ip === linkLocalOf(address.mac));
}
