// Permanent neighbours on links of ours: they are never asked for on the wire and never age. What the kernel learns by
// itself is not permanent, so it is not ours.
import type { Neigh, Netns } from '#model/desired.ts';
import { familyOf } from '#model/ip.ts';
import { byNetns, linksByIndex, place, sendAboutLinks } from './batch.ts';
import type { Kind } from './kind.ts';
import { afOf, decodeNeigh, encodeNeigh, encodeNeighDump, neighState } from './netlink/rtnl.ts';
import { AF_UNSPEC, NLM_F_CREATE, NLM_F_REPLACE, NUD_PERMANENT, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH } from './netlink/uapi.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';

export const neighKey = (neigh: Neigh): string => `${neigh.netns} ${neigh.link} ${neigh.ip}`;
export const neighText = (neigh: Neigh): string => `neighbour ${neigh.ip} lladdr ${neigh.mac} dev ${neigh.link}${place(neigh.netns)}`;

const encode = (neigh: Neigh, index: number): Buffer =>
  encodeNeigh({ family: afOf(familyOf(neigh.ip)), index, state: NUD_PERMANENT, flags: 0, ip: neigh.ip, mac: neigh.mac });

export function createNeighKind(sockets: Sockets): Kind<Neigh> {
  function list(netns: Netns): Neigh[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    const links = linksByIndex(socket);
    const messages = socket.dump({ type: RTM_GETNEIGH, body: encodeNeighDump(AF_UNSPEC), action: `list neighbours${place(netns)}` });
    return messages.flatMap((message) => {
      if (neighState(message.body) !== NUD_PERMANENT) return [];
      const { index, ip, mac } = decodeNeigh(message.body);
      const link = links.get(index)?.name;
      if (link === undefined || ip === undefined || mac === undefined || !isOurLinkName(link)) return [];
      return [{ netns, link, ip, mac }];
    });
  }

  return {
    name: 'neigh',
    key: neighKey,
    same: (wanted, found) => wanted.mac === found.mac,
    list,
    add: (items) =>
      byNetns(items, (netns, group) =>
        sendAboutLinks(sockets.of(netns), group, (neigh, index) => {
          const flags = NLM_F_CREATE | NLM_F_REPLACE;
          return { type: RTM_NEWNEIGH, flags, body: encode(neigh, index), action: `add ${neighText(neigh)}` };
        }),
      ),
    remove: (items) =>
      byNetns(
        items.filter(({ link }) => isOurLinkName(link)),
        (netns, group) => {
          const socket = sockets.find(netns);
          if (socket === undefined) return [];
          return sendAboutLinks(socket, group, (neigh, index) => {
            return { type: RTM_DELNEIGH, body: encode(neigh, index), action: `remove ${neighText(neigh)}` };
          }).filter(({ fault }) => fault.errno !== 'ENOENT' && fault.errno !== 'ENODEV');
        },
      ),
  };
}
