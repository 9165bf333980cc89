// Domains: named namespaces of ours as a Kind. A new one has its `lo` up before anybody can see it. Removing one first
// deletes its links, because the kernel ends a namespace only later and in the background: until then a vxlan's VNI stays
// taken and the host's end of an uplink stays there.
import type { NetnsItem } from '#model/desired.ts';
import { byItem, dumpLinks } from './batch.ts';
import type { Kind } from './kind.ts';
import { encodeLink } from './netlink/rtnl.ts';
import { NetlinkSocket } from './netlink/socket.ts';
import { RTM_DELLINK, RTM_SETLINK } from './netlink/uapi.ts';
import { createNetns, listNetns, removeNetns } from './netns.ts';
import { isOurNetns } from './ownership.ts';
import type { Sockets } from './sockets.ts';

function bringLoopbackUp(): void {
  using socket = new NetlinkSocket();
  socket.request({ type: RTM_SETLINK, body: encodeLink({ name: 'lo', up: true }), action: 'set link lo up' });
}

function empty(socket: NetlinkSocket): void {
  const links = dumpLinks(socket).filter(({ kind }) => kind !== '');
  // Refusals do not matter: a pair's second end is gone with its first, and the namespace's end takes the rest.
  socket.batch(links.map(({ index, name }) => ({ type: RTM_DELLINK, body: encodeLink({ index }), action: `remove link ${name}` })));
}

/** list() answers for the namespace '' only: names belong to the host. */
export function createNetnsKind(sockets: Sockets): Kind<NetnsItem> {
  return {
    name: 'netns',
    key: ({ name }) => name,
    same: (wanted, found) => wanted.name === found.name,
    list: (netns) => (netns === '' ? listNetns(sockets.directory) : []),
    add: (items) => byItem(items, ({ name }) => createNetns(sockets.directory, name, bringLoopbackUp)),
    remove: (items) =>
      byItem(
        items.filter(({ name }) => isOurNetns(name)),
        ({ name }) => {
          const socket = sockets.find(name);
          if (socket !== undefined) empty(socket);
          sockets.forget(name);
          removeNetns(sockets.directory, name);
        },
      ),
  };
}
