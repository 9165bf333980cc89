// bpf(2) and the tc filters that hold programs: a direct-action filter on the `clsact` qdisc of a link keeps its program
// alive for as long as the link lives, without any process (net/sched/cls_bpf.c, net/sched/sch_ingress.c).
import { attribute, decodeAttributes, readText, text, u32 } from './netlink/codec.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER } from './netlink/uapi.ts';

// linux/pkt_sched.h, linux/pkt_cls.h
const TC_H_CLSACT = 0xffff_fff1;
const TC_H_CLSACT_HANDLE = 0xffff_0000;
const ingress = 0xffff_fff2;
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_BPF_FD = 6;
const TCA_BPF_NAME = 7;
const TCA_BPF_FLAGS = 8;
const TCA_BPF_FLAG_ACT_DIRECT = 1;
const ETH_P_ALL = 3;
/** Where our filter is among others of the same link. */
const priority = 197;
const handle = 1;

const info = ((priority << 16) | (ETH_P_ALL << 8)) >>> 0;

/** struct tcmsg */
function header(index: number, parent: number, of: { readonly handle?: number; readonly info?: number } = {}): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeInt32LE(index, 4);
  bytes.writeUInt32LE(of.handle ?? 0, 8);
  bytes.writeUInt32LE(parent, 12);
  bytes.writeUInt32LE(of.info ?? 0, 16);
  return bytes;
}

/** Filters need this qdisc; there already is success (EEXIST never comes without NLM_F_EXCL). */
export const addClsact = (index: number, action: string): Request => ({
  type: RTM_NEWQDISC,
  flags: NLM_F_CREATE,
  body: Buffer.concat([header(index, TC_H_CLSACT, { handle: TC_H_CLSACT_HANDLE }), text(TCA_KIND, 'clsact')]),
  action,
});

/** Puts the program at the entrance of the link, in one step also where another of ours is. */
export function setFilter(index: number, program: { readonly fd: number; readonly name: string }, action: string): Request {
  const options = [u32(TCA_BPF_FD, program.fd), text(TCA_BPF_NAME, program.name), u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)];
  return {
    type: RTM_NEWTFILTER,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: Buffer.concat([header(index, ingress, { handle, info }), text(TCA_KIND, 'bpf'), attribute(TCA_OPTIONS, Buffer.concat(options))]),
    action,
  };
}

/** ENOENT or EINVAL when there is none. */
export const removeFilter = (index: number, action: string): Request => ({
  type: RTM_DELTFILTER,
  body: Buffer.concat([header(index, ingress, { handle, info }), text(TCA_KIND, 'bpf')]),
  action,
});

/** The name under which a program was put at the entrance of the link in our place, at most one; none without the qdisc. */
export function filterNames(socket: NetlinkSocket, index: number): string[] {
  const messages = socket.dump({ type: RTM_GETTFILTER, body: header(index, ingress), action: 'list filters' });
  return messages.flatMap(({ body }) => {
    if (body.readUInt32LE(8) !== handle || body.readUInt32LE(16) >>> 16 !== priority) return [];
    const name = decodeAttributes(decodeAttributes(body.subarray(20)).get(TCA_OPTIONS)).get(TCA_BPF_NAME);
    return name === undefined ? [] : [readText(name)];
  });
}
