// Token buckets at the exit of a link (net/sched/sch_tbf.c, linux/pkt_sched.h). Ours are known by their handle.
import { attribute, decodeAttributes, nested, readText, readU32, text, u32 } from './netlink/codec.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, RTM_DELQDISC, RTM_GETQDISC, RTM_NEWQDISC } from './netlink/uapi.ts';

export interface Bucket {
  /** Bytes per second. */
  readonly rate: number;
  /** Bytes that may go at once. */
  readonly burst: number;
}

const TC_H_ROOT = 0xffff_ffff;
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_TBF_PARMS = 1;
const TCA_TBF_RATE64 = 4;
const TCA_TBF_BURST = 6;
const linkLayerEthernet = 1;
const handle = 0x0c97_0000;
/** How long a packet may wait before the next is dropped. */
const queueMs = 25;
const tickNs = 64;
const wholeU32 = 0xffff_ffff;

function tcmsg(index: number, parent: number): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeInt32LE(index, 4);
  bytes.writeUInt32LE(handle, 8);
  bytes.writeUInt32LE(parent, 12);
  return bytes;
}

/** struct tc_tbf_qopt: the rate, no peak rate, the queue's limit; the bucket's size follows as an attribute of its own. */
function parameters({ rate, burst }: Bucket): Buffer {
  const bytes = Buffer.alloc(36);
  bytes[1] = linkLayerEthernet;
  bytes.writeUInt32LE(Math.min(rate, wholeU32), 8);
  bytes.writeUInt32LE(Math.min(Math.ceil((rate * queueMs) / 1000) + burst, wholeU32), 24);
  return attribute(TCA_TBF_PARMS, bytes);
}

function u64(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return attribute(type, bytes);
}

/** Puts a bucket at the exit of the link, or changes the one that is there. */
export function setBucket(index: number, bucket: Bucket, action: string): Request {
  const rate64 = bucket.rate > wholeU32 ? [u64(TCA_TBF_RATE64, bucket.rate)] : [];
  const options = nested(TCA_OPTIONS, parameters(bucket), u32(TCA_TBF_BURST, bucket.burst), ...rate64);
  return {
    type: RTM_NEWQDISC,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: Buffer.concat([tcmsg(index, TC_H_ROOT), text(TCA_KIND, 'tbf'), options]),
    action,
  };
}

/** ENOENT or EINVAL when there is none. */
export const removeBucket = (index: number, action: string): Request => ({ type: RTM_DELQDISC, body: tcmsg(index, TC_H_ROOT), action });

/** Our buckets of the socket's namespace, by the link's index. */
export function buckets(socket: NetlinkSocket): Map<number, Bucket> {
  const found = new Map<number, Bucket>();
  for (const { body } of socket.dump({ type: RTM_GETQDISC, body: Buffer.alloc(20), action: 'list qdiscs' })) {
    const attributes = decodeAttributes(body.subarray(20));
    if (body.readUInt32LE(8) !== handle || readText(attributes.get(TCA_KIND)) !== 'tbf') continue;
    const options = decodeAttributes(attributes.get(TCA_OPTIONS));
    const parms = options.get(TCA_TBF_PARMS);
    if (parms === undefined) continue;
    const rate64 = options.get(TCA_TBF_RATE64);
    const rate = rate64 === undefined ? readU32(parms.subarray(8)) : Number(rate64.readBigUInt64LE());
    found.set(body.readInt32LE(4), { rate, burst: Math.round((readU32(parms.subarray(28)) * tickNs * rate) / 1e9) });
  }
  return found;
}
