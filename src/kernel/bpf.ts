// bpf(2) and the tc filters that hold programs: a direct-action filter on the `clsact` qdisc of a link keeps its program
// alive for as long as the link lives, without any process (net/sched/cls_bpf.c, net/sched/sch_ingress.c).
import { attribute, decodeAttributes, nested, readText, readU32, text, u32 } from './netlink/codec.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER } from './netlink/uapi.ts';

// linux/pkt_sched.h, linux/pkt_cls.h
const TC_H_CLSACT = 0xffff_fff1;
const TC_H_CLSACT_HANDLE = 0xffff_0000;
const ingress = 0xffff_fff2;
const egress = 0xffff_fff3;
/** Where on a link a program sees packets; what the first at the entrance passes on comes to the second. */
export type Door = 'entrance' | 'second entrance' | 'exit';
const parents: Readonly<Record<Door, number>> = { entrance: ingress, 'second entrance': ingress, exit: egress };
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_BPF_FD = 6;
const TCA_BPF_NAME = 7;
const TCA_BPF_FLAGS = 8;
const TCA_BPF_FLAG_ACT_DIRECT = 1;
const ETH_P_ALL = 3;
const TCA_U32_SEL = 5;
const TCA_U32_ACT = 7;
const TC_U32_TERMINAL = 1;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TCA_MIRRED_PARMS = 2;
const TC_ACT_STOLEN = 4;
const TCA_EGRESS_REDIR = 1;
/** Where our filters are among others of the same link: bandwidth is limited before a short cut is taken. */
const redirectPriority = 196;
const priorities: Readonly<Record<Door, number>> = { entrance: 197, 'second entrance': 198, exit: 197 };
const handle = 1;

const infoOf = (place: number): number => ((place << 16) | (ETH_P_ALL << 8)) >>> 0;

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

interface Program {
  readonly fd: number;
  readonly name: string;
  readonly door?: Door;
}

/** Puts the program at a door of the link, in one step also where another of ours is. */
export function setFilter(index: number, program: Program, action: string): Request {
  const { door = 'entrance' } = program;
  const options = [u32(TCA_BPF_FD, program.fd), text(TCA_BPF_NAME, program.name), u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)];
  return {
    type: RTM_NEWTFILTER,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: Buffer.concat([
      header(index, parents[door], { handle, info: infoOf(priorities[door]) }),
      text(TCA_KIND, 'bpf'),
      attribute(TCA_OPTIONS, Buffer.concat(options)),
    ]),
    action,
  };
}

/** ENOENT or EINVAL when there is none. */
export const removeFilter = (index: number, action: string, door: Door = 'entrance'): Request => ({
  type: RTM_DELTFILTER,
  body: Buffer.concat([header(index, parents[door], { handle, info: infoOf(priorities[door]) }), text(TCA_KIND, 'bpf')]),
  action,
});

/** Of struct tcmsg: whether a filter is where ours are. */
export const isFilterPlace = (body: Buffer): boolean => Object.values(priorities).includes(body.readUInt32LE(16) >>> 16);
/** Of struct tcmsg: whether a qdisc is the one that filters need. */
export const holdsFilters = (body: Buffer): boolean => body.readUInt32LE(12) === TC_H_CLSACT;

/** The name under which a program was put at that door of the link in our place, at most one; none without the qdisc. */
export function filterNames(socket: NetlinkSocket, index: number, door: Door = 'entrance'): string[] {
  const messages = socket.dump({ type: RTM_GETTFILTER, body: header(index, parents[door]), action: 'list filters' });
  return messages.flatMap(({ body }) => {
    if (body.readUInt32LE(8) !== handle || body.readUInt32LE(16) >>> 16 !== priorities[door]) return [];
    const name = decodeAttributes(decodeAttributes(body.subarray(20)).get(TCA_OPTIONS)).get(TCA_BPF_NAME);
    return name === undefined ? [] : [readText(name)];
  });
}

/** struct tc_u32_sel with one key that every packet has. */
function everyPacket(): Buffer {
  const bytes = Buffer.alloc(32);
  bytes[0] = TC_U32_TERMINAL;
  bytes[2] = 1;
  return bytes;
}

/** struct tc_mirred */
function toLink(index: number): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeInt32LE(TC_ACT_STOLEN, 8);
  bytes.writeInt32LE(TCA_EGRESS_REDIR, 20);
  bytes.writeUInt32LE(index, 24);
  return bytes;
}

/** Sends everything that comes in by the link out of another one (net/sched/act_mirred.c). One of ours must not be there. */
export function redirectFilter(index: number, target: number, action: string): Request {
  const options = nested(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, toLink(target)));
  const actions = nested(TCA_U32_ACT, nested(1, text(TCA_ACT_KIND, 'mirred'), options));
  return {
    type: RTM_NEWTFILTER,
    flags: NLM_F_CREATE,
    body: Buffer.concat([
      header(index, ingress, { info: infoOf(redirectPriority) }),
      text(TCA_KIND, 'u32'),
      nested(TCA_OPTIONS, attribute(TCA_U32_SEL, everyPacket()), actions),
    ]),
    action,
  };
}

/** ENOENT or EINVAL when there is none. */
export const removeRedirect = (index: number, action: string): Request => ({
  type: RTM_DELTFILTER,
  body: Buffer.concat([header(index, ingress, { info: infoOf(redirectPriority) }), text(TCA_KIND, 'u32')]),
  action,
});

/** Indexes of the links that our filter sends to what comes in by the link; none without the qdisc. */
export function redirects(socket: NetlinkSocket, index: number): number[] {
  const messages = socket.dump({ type: RTM_GETTFILTER, body: header(index, ingress), action: 'list filters' });
  return messages.flatMap(({ body }) => {
    if (body.readUInt32LE(16) >>> 16 !== redirectPriority) return [];
    const actions = decodeAttributes(decodeAttributes(decodeAttributes(body.subarray(20)).get(TCA_OPTIONS)).get(TCA_U32_ACT));
    const mirred = decodeAttributes(decodeAttributes(actions.get(1)).get(TCA_ACT_OPTIONS)).get(TCA_MIRRED_PARMS);
    return mirred === undefined ? [] : [readU32(mirred.subarray(24))];
  });
}
