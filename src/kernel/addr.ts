// Addresses of links. IPv6 ones are added without duplicate detection: they are usable at once, and uniqueness is the
// allocator's business. Ours carry the address protocol 197 (IFA_PROTO), which older kernels ignore.
import type { Addr, Netns } from '#model/desired.ts';
import { parseInterface } from '#model/ip.ts';
import { routeProtocol } from '#model/numbers.ts';
import { byNetns, linksByIndex, place, sendAboutLinks } from './batch.ts';
import type { Kind } from './kind.ts';
import { decodeAddress, encodeAddress, encodeAddressDump } from './netlink/rtnl.ts';
import type { Request } from './netlink/socket.ts';
import { IFA_F_NODAD, NLM_F_CREATE, NLM_F_REPLACE, RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR } from './netlink/uapi.ts';
import { isOurAddress, isOurLinkName, isOurNetns } from './ownership.ts';
import type { Sockets } from './sockets.ts';

export const addrKey = (addr: Addr): string => `${addr.netns} ${addr.link} ${addr.address}`;
export const addrText = (addr: Addr): string => `address ${addr.address} dev ${addr.link}${place(addr.netns)}`;

/**
 * Body of a request to add or remove the address of the link with that index. `shared`: a link of others, whose own connections
 * shall not begin from it (RFC 6724, rule 3; by IPv4 the link's first address is taken anyhow).
 */
export function encodeAddr(address: string, index: number, shared = false): Buffer {
  const { ip, length } = parseInterface(address);
  const isShared = shared && ip.includes(':');
  return encodeAddress({ index, ip, length, protocol: routeProtocol, flags: ip.includes(':') ? IFA_F_NODAD : 0, isDeprecated: isShared });
}

/** On links of others only host prefixes, in the host's own namespace: addresses of load balancers. */
const mayHold = ({ netns, link, address }: Addr): boolean => {
  if (isOurLinkName(link)) return true;
  return link === 'lo' ? isOurNetns(netns) : netns === '' && /\/(32|128)$/.test(address);
};

export function createAddrKind(sockets: Sockets): Kind<Addr> {
  function list(netns: Netns): Addr[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    const links = linksByIndex(socket);
    const messages = socket.dump({ type: RTM_GETADDR, body: encodeAddressDump(), action: `list addresses${place(netns)}` });
    return messages.flatMap((message) => {
      const address = decodeAddress(message.body);
      const link = address === undefined ? undefined : links.get(address.index);
      if (address === undefined || link === undefined) return [];
      const { ip, length, protocol } = address;
      const ours = isOurAddress({ link: link.name, mac: link.mac, ip, protocol }, isOurNetns(netns));
      return ours ? [{ netns, link: link.name, address: `${ip}/${length}` }] : [];
    });
  }

  return {
    name: 'addr',
    key: addrKey,
    same: (wanted, found) => addrKey(wanted) === addrKey(found),
    list,
    add: (items) =>
      byNetns(items, (netns, group) =>
        sendAboutLinks(sockets.of(netns), group, (addr, index): Request => {
          const flags = NLM_F_CREATE | NLM_F_REPLACE;
          return {
            type: RTM_NEWADDR,
            flags,
            body: encodeAddr(addr.address, index, !isOurLinkName(addr.link)),
            action: `add ${addrText(addr)}`,
          };
        }),
      ),
    remove: (items) =>
      byNetns(items.filter(mayHold), (netns, group) => {
        const socket = sockets.find(netns);
        if (socket === undefined) return [];
        return sendAboutLinks(socket, group, (addr, index): Request => {
          return {
            type: RTM_DELADDR,
            body: encodeAddr(addr.address, index, !isOurLinkName(addr.link)),
            action: `remove ${addrText(addr)}`,
          };
        }).filter(({ fault }) => fault.errno !== 'EADDRNOTAVAIL' && fault.errno !== 'ENODEV');
      }),
  };
}
