// How many connections the kernel keeps track of in a namespace, and how many at most: net.netfilter.nf_conntrack_max, which counts for
// each namespace by itself and can be changed in the first one only (ctnetlink_stat_ct, net/netfilter/nf_conntrack_netlink.c).
import type { Netns } from '#model/desired.ts';
import { isFault } from '#model/fault.ts';
import { netfilterSockets } from './netfilter.ts';
import { decodeAttributes } from './netlink/codec.ts';
import { inNetns, isAbsent } from './netns.ts';
import type { Sockets } from './sockets.ts';

export interface ConnectionRoom {
  readonly used: number;
  /** 0: as many as there are. */
  readonly most: number;
}

// linux/netfilter/nfnetlink_conntrack.h; message types have the subsystem, 1, in their upper byte.
const IPCTNL_MSG_CT_GET_STATS = 0x105;
const CTA_STATS_GLOBAL_ENTRIES = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES = 2;
const header = Buffer.alloc(4);

/** Undefined where there is no such namespace, and where the kernel does not tell both. Fault `kernel`. */
export function connectionRoom(sockets: Sockets, netns: Netns): ConnectionRoom | undefined {
  const request = { type: IPCTNL_MSG_CT_GET_STATS, body: header, action: 'count connections that are kept track of' };
  const ask = (): ConnectionRoom | undefined =>
    netfilterSockets.use((socket) => {
      const [reply] = socket.request(request);
      const attributes = decodeAttributes(reply?.body.subarray(header.length));
      const used = attributes.get(CTA_STATS_GLOBAL_ENTRIES)?.readUInt32BE(0);
      const most = attributes.get(CTA_STATS_GLOBAL_MAX_ENTRIES)?.readUInt32BE(0);
      return used === undefined || most === undefined ? undefined : { used, most };
    });
  try {
    return inNetns(sockets.path(netns), ask);
  } catch (error) {
    // EINVAL: without connection tracking, or its netlink part.
    if (isAbsent(error) || (isFault(error, 'kernel') && error.errno === 'EINVAL')) return undefined;
    throw error;
  }
}
