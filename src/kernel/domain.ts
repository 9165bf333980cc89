// Domains: named namespaces of ours as a Kind. A new one has its `lo` up before anybody can see it. Removing one first
// deletes its links, because the kernel ends a namespace only later and in the background: until then a vxlan's VNI stays
// taken and the host's end of an uplink stays there.
import type { NetnsItem } from '#model/desired.ts';
import { byItem, deleteLinks, dumpLinks } from './batch.ts';
import type { Kind } from './kind.ts';
import { encodeLink } from './netlink/rtnl.ts';
import { NetlinkSocket } from './netlink/socket.ts';
import { RTM_SETLINK } from './netlink/uapi.ts';
import { createNetns, listNetns, removeNetns } from './netns.ts';
import { isOurNetns } from './ownership.ts';
import type { Sockets } from './sockets.ts';

function bringLoopbackUp(): void {
  using socket = new NetlinkSocket();
  socket.request({ type: RTM_SETLINK, body: encodeLink({ name: 'lo', up: true }), action: 'set link lo up' });
}

function empty(socket: NetlinkSocket): void {
  // Refusals do not matter: the namespace's end takes what is left.
  deleteLinks(
    socket,
    dumpLinks(socket)
      .filter(({ kind }) => kind !== '')
      .map(({ name, index }) => ({ name, index })),
  );
}

/** list() answers for the namespace '' only: names belong to the host. `release` closes what others hold open inside. */
export function createNetnsKind(sockets: Sockets, release: (name: string) => void = () => undefined): Kind<NetnsItem> {
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
          release(name);
          removeNetns(sockets.directory, name);
        },
      ),
  };
}
