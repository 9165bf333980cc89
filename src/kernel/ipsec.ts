// Whether anybody encrypts on this host what is sent by its links (IPsec, ip-xfrm(8)): the kernel asks its policies for every packet
// that it routes, and no program of ours can (net/xfrm/xfrm_policy.c).
import { isFault } from '#model/fault.ts';
import { decodeAttributes } from './netlink/codec.ts';
import { NetlinkSocket } from './netlink/socket.ts';

// linux/xfrm.h, linux/netlink.h
const NETLINK_XFRM = 6;
const XFRM_MSG_GETSPDINFO = 0x25;
const XFRMA_SPD_INFO = 1;
/** Of struct xfrmu_spdinfo: policies for what comes in, goes out and is forwarded. */
const counted = [0, 4, 8] as const;

/** Policies of the namespace that the calling thread is in. A kernel without them has none. */
export function hasIpsecPolicies(): boolean {
  try {
    using socket = new NetlinkSocket(NETLINK_XFRM);
    const [answer] = socket.request({ type: XFRM_MSG_GETSPDINFO, body: Buffer.alloc(4), action: 'count IPsec policies' });
    const counts = answer && decodeAttributes(answer.body.subarray(4)).get(XFRMA_SPD_INFO);
    return counts !== undefined && counted.some((offset) => counts.readUInt32LE(offset) > 0);
  } catch (error) {
    if (!isFault(error, 'kernel')) throw error;
    return false;
  }
}
