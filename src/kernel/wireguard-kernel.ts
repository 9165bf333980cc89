// WireGuard devices of the kernel. A device's UDP socket belongs to the namespace that asked for the device, wherever that
// one is moved (https://www.wireguard.com/netns/), so it is asked for from the host's namespace, for a domain's.
import type { Netns, WireguardLink } from '#model/desired.ts';
import { dumpLinks } from './batch.ts';
import { inNetns, isAbsent } from './netns.ts';
import { nested, text } from './netlink/codec.ts';
import { encodeLink } from './netlink/rtnl.ts';
import { NetlinkSocket } from './netlink/socket.ts';
import {
  IFLA_INFO_KIND,
  IFLA_LINKINFO,
  NETLINK_GENERIC,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM_DELLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
} from './netlink/uapi.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';
import { readDevice, wireguardFamily, writeDevice } from './wireguard-netlink.ts';
import type { WireguardBackend } from './wireguard-config.ts';

const linkKind = 'wireguard';

/** Whether this kernel has WireGuard; loads the module where it is one. */
export function hasKernelWireguard(): boolean {
  using socket = new NetlinkSocket(NETLINK_GENERIC);
  try {
    return wireguardFamily(socket) !== 0;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

export function createKernelWireguard(sockets: Sockets): WireguardBackend {
  const generic = <T>(netns: Netns, use: (socket: NetlinkSocket, family: number) => T): T => {
    let answer: T | undefined;
    inNetns(sockets.path(netns), () => {
      using socket = new NetlinkSocket(NETLINK_GENERIC);
      answer = use(socket, wireguardFamily(socket));
    });
    return answer as T;
  };
  const found = (netns: Netns) => {
    const socket = sockets.find(netns);
    return socket === undefined ? [] : dumpLinks(socket).filter(({ kind, name }) => kind === linkKind && isOurLinkName(name));
  };
  const list = (netns: Netns): WireguardLink[] =>
    // A link that is down is not the one that is wanted: it shows with an MTU that nobody asks for.
    found(netns).map(({ name, mtu, alias, up }) => ({ type: 'wireguard', netns, name, mtu: up ? mtu : 0, alias }));

  function add(link: WireguardLink): void {
    const { netns, name, mtu, alias } = link;
    if (!found(netns).some((other) => other.name === name)) {
      sockets.withFd(netns, (netnsFd) =>
        sockets.of('').request({
          type: RTM_NEWLINK,
          flags: NLM_F_CREATE | NLM_F_EXCL,
          body: encodeLink({ name, mtu, netnsFd, info: nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, linkKind)) }),
          action: `add link ${name} type wireguard`,
        }),
      );
    }
    sockets.of(netns).request({ type: RTM_SETLINK, body: encodeLink({ name, mtu, alias, up: true }), action: `set link ${name}` });
  }

  function remove({ netns, name }: WireguardLink): void {
    if (!found(netns).some((other) => other.name === name)) return;
    sockets.of(netns).request({ type: RTM_DELLINK, body: encodeLink({ name }), action: `remove link ${name}` });
  }

  return {
    devices: { list, add, remove },
    names: (netns) => found(netns).map(({ name }) => name),
    read: (netns, link) => generic(netns, (socket, family) => readDevice(socket, family, link)),
    write: (netns, link, change) => generic(netns, (socket, family) => writeDevice(socket, family, link, change)),
  };
}
