// Forwarding entries of vxlan links: exactly one remote per MAC. The kernel could keep several, but for a unicast MAC it only
// ever replaces the one (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_update_existing).
import type { Fdb, Netns } from '#model/desired.ts';
import { byNetns, linksByIndex, place, sendAboutLinks } from './batch.ts';
import type { Failure, Kind } from './kind.ts';
import { decodeNeigh, encodeNeigh, encodeNeighDump } from './netlink/rtnl.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import {
  AF_BRIDGE,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  NTF_SELF,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './netlink/uapi.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';

export const fdbKey = (fdb: Fdb): string => `${fdb.netns} ${fdb.link} ${fdb.mac}`;
export const fdbText = (fdb: Fdb): string => `forwarding entry ${fdb.mac} dst ${fdb.remote} dev ${fdb.link}${place(fdb.netns)}`;
export const sameFdb = (wanted: Fdb, found: Fdb): boolean => wanted.remote === found.remote;

const encode = (fdb: Fdb, index: number): Buffer =>
  encodeNeigh({ family: AF_BRIDGE, index, state: NUD_PERMANENT, flags: NTF_SELF, ip: fdb.remote, mac: fdb.mac });

/** Without a remote: the whole entry. */
const encodeWhole = (fdb: Fdb, index: number): Buffer =>
  encodeNeigh({ family: AF_BRIDGE, index, state: NUD_PERMANENT, flags: NTF_SELF, ip: undefined, mac: fdb.mac });

function write(socket: NetlinkSocket, items: readonly Fdb[]): Failure<Fdb>[] {
  return sendAboutLinks(socket, items, (fdb, index) => ({
    type: RTM_NEWNEIGH,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: encode(fdb, index),
    action: `add ${fdbText(fdb)}`,
  }));
}

function erase(socket: NetlinkSocket, items: readonly Fdb[]): Failure<Fdb>[] {
  return sendAboutLinks(socket, items, (fdb, index) => ({
    type: RTM_DELNEIGH,
    body: encodeWhole(fdb, index),
    action: `remove ${fdbText(fdb)}`,
  })).filter(({ fault }) => fault.errno !== 'ENOENT' && fault.errno !== 'ENODEV');
}

export function createFdbKind(sockets: Sockets): Kind<Fdb> {
  function list(netns: Netns): Fdb[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    const links = linksByIndex(socket);
    const entries = new Map<string, Fdb>();
    const messages = socket.dump({
      type: RTM_GETNEIGH,
      body: encodeNeighDump(AF_BRIDGE),
      action: `list forwarding entries${place(netns)}`,
    });
    for (const message of messages) {
      // Multicast addresses of ordinary links are listed too; they have no remote.
      const { index, state, ip, mac } = decodeNeigh(message.body);
      const link = links.get(index);
      if (ip === undefined || mac === undefined || (state & NUD_PERMANENT) === 0) continue;
      if (link === undefined || link.kind !== 'vxlan' || !isOurLinkName(link.name)) continue;
      const entry: Fdb = { netns, link: link.name, mac, remote: ip };
      entries.set(fdbKey(entry), entry);
    }
    return [...entries.values()];
  }

  return {
    name: 'fdb',
    key: fdbKey,
    same: sameFdb,
    list,
    add: (items) => byNetns(items, (netns, group) => write(sockets.of(netns), group)),
    remove: (items) =>
      byNetns(
        items.filter(({ link }) => isOurLinkName(link)),
        (netns, group) => {
          const socket = sockets.find(netns);
          return socket === undefined ? [] : erase(socket, group);
        },
      ),
  };
}
