// Sockets to netfilter's part of the kernel: conntrack and nf_tables.
import { Lingering } from './lingering.ts';
import { NetlinkSocket } from './netlink/socket.ts';
import { NETLINK_NETFILTER } from './netlink/uapi.ts';

/** One for the namespace that the calling thread is in. */
export const netfilterSockets: Lingering<NetlinkSocket> = new Lingering(
  () => new NetlinkSocket(NETLINK_NETFILTER),
  (socket) => socket.closeAside(),
);
