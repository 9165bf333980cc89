// Forwarding entries of vxlan links: exactly one remote per MAC. The kernel keeps a list of remotes per MAC and adds to it
// unless told to replace, which in turn only replaces the first (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_replace): an
// entry that somebody gave a second remote is therefore made again.
import type { Fdb, Netns } from '#model/desired.ts';
import { byNetns, linksByIndex, place, sendAboutLinks } from './batch.ts';
import type { Failure, Kind } from './kind.ts';
import { decodeNeigh, encodeNeigh, encodeNeighDump } from './netlink/rtnl.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import {
  AF_BRIDGE,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  NTF_SELF,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './netlink/uapi.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';

/** An entry with more than one remote is never the same as a wanted one. */
type Seen = Fdb & { readonly several?: boolean };

export const fdbKey = (fdb: Fdb): string => `${fdb.netns} ${fdb.link} ${fdb.mac}`;
export const fdbText = (fdb: Fdb): string => `forwarding entry ${fdb.mac} dst ${fdb.remote} dev ${fdb.link}${place(fdb.netns)}`;
export const sameFdb = (wanted: Fdb, found: Seen): boolean => wanted.remote === found.remote && found.several !== true;

const encode = (fdb: Fdb, index: number): Buffer =>
  encodeNeigh({ family: AF_BRIDGE, index, state: NUD_PERMANENT, flags: NTF_SELF, ip: fdb.remote, mac: fdb.mac });

/** Without a remote: the whole entry. */
const encodeWhole = (fdb: Fdb, index: number): Buffer =>
  encodeNeigh({ family: AF_BRIDGE, index, state: NUD_PERMANENT, flags: NTF_SELF, ip: undefined, mac: fdb.mac });

function write(socket: NetlinkSocket, items: readonly Fdb[], flags: number): Failure<Fdb>[] {
  return sendAboutLinks(socket, items, (fdb, index) => ({
    type: RTM_NEWNEIGH,
    flags,
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
  function list(netns: Netns): Seen[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    const links = linksByIndex(socket);
    const entries = new Map<string, Seen>();
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
      entries.set(fdbKey(entry), entries.has(fdbKey(entry)) ? { ...entry, several: true } : entry);
    }
    return [...entries.values()];
  }

  function replace(netns: Netns, socket: NetlinkSocket, items: readonly Fdb[]): Failure<Fdb>[] {
    const crowded = new Set(
      list(netns)
        .filter(({ several }) => several === true)
        .map(fdbKey),
    );
    erase(
      socket,
      items.filter((fdb) => crowded.has(fdbKey(fdb))),
    );
    return write(socket, items, NLM_F_CREATE | NLM_F_REPLACE);
  }

  return {
    name: 'fdb',
    key: fdbKey,
    same: sameFdb,
    list,
    add: (items) =>
      byNetns(items, (netns, group) => {
        const socket = sockets.of(netns);
        const failures = write(socket, group, NLM_F_CREATE | NLM_F_EXCL);
        const taken = failures.filter(({ fault }) => fault.errno === 'EEXIST').map(({ item }) => item);
        const others = failures.filter(({ fault }) => fault.errno !== 'EEXIST');
        return taken.length === 0 ? others : [...others, ...replace(netns, socket, taken)];
      }),
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
