// Addresses of load balancers that hosts answer for on the wire: one host at a time has the address on its underlay link, the
// kernel answers for it by ARP and neighbour discovery. Which host is worked out by each from the same facts, by rendezvous
// hashing (Thaler and Ravishankar, 1998): no host has to be asked, and when one goes only its own addresses move.
import type { Desired, NftElement } from '#model/desired.ts';
import { familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import { tableName } from '#model/numbers.ts';
import type { Host, Service } from '#model/resources.ts';

/** FNV-1a, 32 bits, and a last mixing so that names that differ in one digit are far apart. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

/** The host that answers for the address, of those that may; undefined when there is none. */
export function elected(ip: Ip, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestScore = -1;
  for (const name of [...candidates].toSorted()) {
    const score = hash(`${name} ${ip}`);
    if (score > bestScore) [best, bestScore] = [name, score];
  }
  return best;
}

const mayAnnounce = ({ status, labels }: Host): boolean => status.ready && labels[excludeLabel] === undefined;

/** A Node with this label takes no part in load balancing, as for the load balancers of clouds. */
export const excludeLabel = 'node.kubernetes.io/exclude-from-external-load-balancers';

/** Addresses that this host answers for, and what to let in by them. */
export function planAnnouncements(
  services: readonly Service[],
  hosts: Iterable<Host>,
  self: Host,
): Partial<Desired> & Pick<Desired, 'addr' | 'element'> {
  const announced = services.filter(({ announcers }) => announcers !== undefined);
  if (announced.length === 0) return { addr: [], element: [] };
  const all = [...hosts];
  const able = new Set(all.filter(mayAnnounce).map(({ id }) => id));
  // A host's own is nobody else's, whatever a service is said to have.
  const taken = new Set([self, ...all].flatMap(({ underlay }) => underlay.map(({ ip }) => ip)));
  const ips = new Set<Ip>();
  for (const { ip, announcers } of announced) {
    if (taken.has(ip)) continue;
    const candidates = announcers === 'every' || announcers === undefined ? able : announcers.filter((name) => able.has(name));
    if (elected(ip, candidates) === self.id) ips.add(ip);
  }
  const own = [...ips].toSorted();
  return {
    addr: own.flatMap((ip) => {
      const underlay = self.underlay.find((one) => familyOf(one.ip) === familyOf(ip)) ?? self.underlay[0];
      return underlay === undefined ? [] : [{ netns: '', link: underlay.interface, address: hostPrefix(ip) }];
    }),
    element: own.map((ip): NftElement => ({ netns: '', table: tableName, set: `announced${familyOf(ip)}`, key: ip })),
  };
}
