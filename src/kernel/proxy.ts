// Addresses that the host answers for on a link although they are not its own (`ip neigh add proxy`): by ARP where the link
// forwards, by neighbour discovery where net.ipv6.conf.LINK.proxy_ndp says so. The links are the host's own, so ours are told by
// the protocol number (NDA_PROTOCOL, Linux 4.20).
import type { Netns, Proxy } from '#model/desired.ts';
import { familyOf } from '#model/ip.ts';
import { routeProtocol } from '#model/numbers.ts';
import { byNetns, linksByIndex, place, sendAboutLinks } from './batch.ts';
import type { Kind } from './kind.ts';
import { afOf, decodeNeigh, encodeNeigh, encodeNeighDump } from './netlink/rtnl.ts';
import { AF_UNSPEC, NLM_F_CREATE, NLM_F_REPLACE, NTF_PROXY, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH } from './netlink/uapi.ts';
import type { Sockets } from './sockets.ts';

export const proxyKey = (proxy: Proxy): string => `${proxy.netns} ${proxy.link} ${proxy.ip}`;
export const proxyText = (proxy: Proxy): string => `proxy neighbour ${proxy.ip} dev ${proxy.link}${place(proxy.netns)}`;

const encode = (proxy: Proxy, index: number): Buffer =>
  encodeNeigh({
    family: afOf(familyOf(proxy.ip)),
    index,
    state: 0,
    flags: NTF_PROXY,
    ip: proxy.ip,
    mac: undefined,
    protocol: routeProtocol,
  });

export function createProxyKind(sockets: Sockets): Kind<Proxy> {
  function list(netns: Netns): Proxy[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    const body = encodeNeighDump(AF_UNSPEC, NTF_PROXY);
    const messages = socket.dump({ type: RTM_GETNEIGH, body, action: `list proxy neighbours${place(netns)}` });
    const found = messages.map((message) => decodeNeigh(message.body)).filter(({ protocol }) => protocol === routeProtocol);
    // Few hosts have any, and links need not be read for nothing.
    if (found.length === 0) return [];
    const links = linksByIndex(socket);
    return found.flatMap(({ index, ip }) => {
      const link = links.get(index)?.name;
      return link === undefined || ip === undefined ? [] : [{ netns, link, ip }];
    });
  }

  return {
    name: 'proxy',
    key: proxyKey,
    same: () => true,
    list,
    add: (items) =>
      byNetns(items, (netns, group) =>
        sendAboutLinks(sockets.of(netns), group, (proxy, index) => {
          const flags = NLM_F_CREATE | NLM_F_REPLACE;
          return { type: RTM_NEWNEIGH, flags, body: encode(proxy, index), action: `add ${proxyText(proxy)}` };
        }),
      ),
    remove: (items) =>
      byNetns(items, (netns, group) => {
        const socket = sockets.find(netns);
        if (socket === undefined) return [];
        return sendAboutLinks(socket, group, (proxy, index) => {
          return { type: RTM_DELNEIGH, body: encode(proxy, index), action: `remove ${proxyText(proxy)}` };
        }).filter(({ fault }) => fault.errno !== 'ENOENT' && fault.errno !== 'ENODEV');
      }),
  };
}
