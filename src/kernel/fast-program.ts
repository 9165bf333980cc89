// The program of a fast path: a packet between endpoints of one network that the path of record would only route goes
// straight to where it would come out. Everything else, and everything in doubt, falls through untouched (TC_ACT_UNSPEC), so
// the slow path stays the only place that drops, answers, translates or counts. What the kernel's forwarding does to a
// packet on the way is done here too (net/ipv4/ip_input.c, ip_forward.c, net/ipv6/ip6_output.c): header checks, TTL, MTU by
// segment. The way out is the kernel's own answer (bpf_fib_lookup, net/core/filter.c) and known by the MAC of its link.
// That helper is only for programs under a licence that goes with the GPL, so these may be had under MIT or GPL-2.0 too.
// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
import { type Cidr, cidrBase, cidrLength, type Family, familyOf, hostPrefix, type Ip, ipToBigint, type Mac } from '#model/ip.ts';
import type { FastPath } from '#model/desired.ts';
import { gatewayMac, probePort } from '#model/numbers.ts';
import {
  assemble,
  call,
  compute,
  compute32,
  exit,
  go,
  helpers,
  type Instruction,
  jump,
  jump32,
  label,
  load,
  type Register,
  skb,
  store,
  swap16,
} from './bpf-assembler.ts';
import { destinationAt, ethernet, headerBytes, loadedWords, octetsOf, protocols, sourceAt, swapped16 } from './packet.ts';

// struct bpf_fib_lookup, linux/bpf.h, on the stack
const fibBytes = 64;
const fib = { family: 0, totalLength: 6, ifindex: 8, tos: 12, source: 16, destination: 32, smac: 52, dmac: 58 } as const;
const onStack = (field: number): number => field - fibBytes;
const TC_ACT_UNSPEC = -1;
const AF_INET = 2;
const AF_INET6 = 10;
const TCP = 6;
const UDP = 17;
const ICMPV6 = 58;
// r6 the context, r7 the first byte of the packet, r8 the one after its linear part, r9 what counts against the MTU.
const packet: Register = 'r7';
const slow = 'slow';

function macWords(mac: Mac): { first: number; last: number } {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = octetsOf(mac);
  return { first: a | (b << 8) | (c << 16) | (d << 24) | 0, last: e | (f << 8) };
}

/** Jumps to `otherwise` unless the six bytes are `mac`. */
const unlessMac = (mac: Mac, base: Register, offset: number, otherwise: string): Instruction[] => [
  load(4, 'r1', base, offset),
  jump32('ne', 'r1', macWords(mac).first, otherwise),
  load(2, 'r1', base, offset + 4),
  jump32('ne', 'r1', macWords(mac).last, otherwise),
];

interface Sought {
  readonly family: Family;
  readonly offset: number;
  readonly name: string;
  readonly otherwise: string;
}

/** Jumps to `otherwise` unless the address at `offset` is in one of the prefixes. */
function unlessIn(prefixes: readonly Cidr[], { family, offset, name, otherwise }: Sought): Instruction[] {
  const bits = family === 4 ? 32 : 128;
  const tests = prefixes.flatMap((prefix, number) => {
    const mask = ((1n << BigInt(cidrLength(prefix))) - 1n) << BigInt(bits - cidrLength(prefix));
    const base = loadedWords(ipToBigint(cidrBase(prefix)), family);
    const next = `${name} not ${number}`;
    const compared = loadedWords(mask, family).flatMap((word, index) =>
      word === 0
        ? []
        : [
            load(4, 'r1', packet, offset + 4 * index),
            ...(word === -1 ? [] : [compute32('and', 'r1', word)]),
            jump32('ne', 'r1', base[index] ?? 0, next),
          ],
    );
    return [...compared, go(`${name} found`), label(next)];
  });
  return [...tests, go(otherwise), label(`${name} found`)];
}

const within = (bytes: number): Instruction[] => [compute('mov', 'r0', packet), compute('add', 'r0', bytes), jump('gt', 'r0', 'r8', slow)];

/** r9 becomes the size of the largest packet on the wire: that of a segment, if the packet is several. */
const sizeOfSegments = (family: Family): Instruction[] => {
  const header = headerBytes[family];
  return [
    load(4, 'r1', 'r6', skb.gsoSize),
    jump32('eq', 'r1', 0, `look up ${family}`),
    compute('mov', 'r9', 'r1'),
    jump('eq', 'r5', UDP, `datagrams ${family}`),
    jump('ne', 'r5', TCP, slow),
    ...within(ethernet + header + 20),
    load(1, 'r1', packet, ethernet + header + 12),
    compute('and', 'r1', 0xf0),
    compute('rsh', 'r1', 2),
    compute('add', 'r9', 'r1'),
    compute('add', 'r9', header),
    go(`look up ${family}`),
    label(`datagrams ${family}`),
    compute('add', 'r9', header + 8),
  ];
};

/** Names are the agent's to answer, whoever is asked (guard.ts): port 53 goes slow. r5 has the protocol. */
const unlessNames = (family: Family): Instruction[] => [
  jump('eq', 'r5', TCP, `ports ${family}`),
  jump('ne', 'r5', UDP, `no ports ${family}`),
  label(`ports ${family}`),
  load(2, 'r1', packet, ethernet + headerBytes[family] + 2),
  jump('eq', 'r1', swapped16(53), slow),
  label(`no ports ${family}`),
];

/** Questions of hosts and answers to them are heard behind this program (probe-sockets.ts): they go slow. r5 has the protocol. */
const unlessProbe = (family: Family): Instruction[] => [
  jump('ne', 'r5', UDP, `no probe ${family}`),
  ...[0, 2].flatMap((port) => [load(2, 'r1', packet, ethernet + headerBytes[family] + port), jump('eq', 'r1', swapped16(probePort), slow)]),
  label(`no probe ${family}`),
];

/** The length in the header (r9) must be the packet's own: nothing to trim, nothing missing. */
const unlessWhole: readonly Instruction[] = [load(4, 'r1', 'r6', skb.length), compute('sub', 'r1', ethernet), jump('ne', 'r1', 'r9', slow)];

/** The header's one's complement sum must be 0xffff (RFC 1071). */
const unlessSound: readonly Instruction[] = [
  compute('mov', 'r1', 0),
  ...[0, 4, 8, 12, 16].flatMap((offset) => [load(4, 'r2', packet, ethernet + offset), compute('add', 'r1', 'r2')]),
  ...[32, 16, 16].flatMap((bits) => [
    compute('mov', 'r2', 'r1'),
    compute('rsh', 'r2', bits),
    ...(bits === 32 ? [compute32('mov', 'r1', 'r1')] : [compute('and', 'r1', 0xffff)]),
    compute('add', 'r1', 'r2'),
  ]),
  compute('mov', 'r2', 'r1'),
  compute('rsh', 'r2', 16),
  compute('and', 'r1', 0xffff),
  compute('add', 'r1', 'r2'),
  jump('ne', 'r1', 0xffff, slow),
];

const copyToLookup = (field: number, offset: number, family: Family): Instruction[] =>
  (family === 4 ? [0] : [0, 4, 8, 12]).flatMap((word) => [
    load(4, 'r1', packet, offset + word),
    store(4, 'r10', onStack(field + word), 'r1'),
  ]);

interface Way {
  readonly source: number;
  readonly destination: number;
  /** What must fit; none: nothing is sent. */
  readonly size: Register | 0;
  readonly tos: readonly Instruction[];
}

/** Asks the kernel for a way, as for a packet that came in by the same link; slow unless there is one with a known neighbour. */
const askWay = (family: Family, { source, destination, size, tos }: Way): Instruction[] => [
  ...[0, 8, 16, 24, 32, 40, 48, 56].map((offset) => store(8, 'r10', onStack(offset), 0)),
  store(1, 'r10', onStack(fib.family), family === 4 ? AF_INET : AF_INET6),
  store(2, 'r10', onStack(fib.totalLength), size),
  load(4, 'r1', 'r6', skb.ifindex),
  store(4, 'r10', onStack(fib.ifindex), 'r1'),
  ...tos,
  ...copyToLookup(fib.source, source, family),
  ...copyToLookup(fib.destination, destination, family),
  compute('mov', 'r1', 'r6'),
  compute('mov', 'r2', 'r10'),
  compute('add', 'r2', -fibBytes),
  compute('mov', 'r3', fibBytes),
  compute('mov', 'r4', 0),
  call(helpers.fibLookup),
  jump32('ne', 'r0', 0, slow),
  load(4, 'r1', 'r6', skb.ifindex),
  load(4, 'r2', 'r10', onStack(fib.ifindex)),
];

/** Slow unless the sender is behind the link by which its packet came in, as with rp_filter 1 (net/ipv4/fib_frontend.c). */
const unlessBehind = (family: Family): Instruction[] => [
  ...askWay(family, { source: destinationAt[family], destination: sourceAt[family], size: 0, tos: [] }),
  jump32('ne', 'r1', 'r2', slow),
];

/** Slow unless the answer is the tunnel or one of the links to other hosts. */
function unlessOutward({ tunnel, outward, indexes }: Compiled, family: Family): Instruction[] {
  const mtu = tunnel?.mtu ?? outward?.mtu ?? 0;
  return [
    ...(tunnel === undefined
      ? [...indexes.map((index) => jump32('eq', 'r2', index, `outward ${family}`)), go(slow), label(`outward ${family}`)]
      : unlessMac(tunnel.mac, 'r10', onStack(fib.smac), slow)),
    // The look-up knows the MTU of links and what was learnt, but not that of routes, which forwarding heeds.
    jump('gt', 'r9', mtu, slow),
    ...(family === 4 ? unlessPlainTos : []),
    compute('mov', 'r5', helpers.redirect),
  ];
}

/** Asks the kernel where the packet goes; slow unless it goes to another endpoint here, into the tunnel or to another host. */
function lookUp(path: Compiled, family: Family, tos: readonly Instruction[]): Instruction[] {
  const stays = path.tunnel === undefined && path.indexes.length === 0;
  return [
    label(`look up ${family}`),
    ...(path.strict === true ? unlessBehind(family) : []),
    ...askWay(family, { source: sourceAt[family], destination: destinationAt[family], size: 'r9', tos }),
    jump32('eq', 'r1', 'r2', slow),
    ...unlessMac(gatewayMac, 'r10', onStack(fib.smac), stays ? slow : `not here ${family}`),
    compute('mov', 'r5', helpers.redirectPeer),
    ...(stays ? [] : [go(`write ${family}`), label(`not here ${family}`), ...unlessOutward(path, family)]),
    label(`write ${family}`),
  ];
}

/** Forwarding turns these bits into the packet's priority on the underlay (net/route.h, rt_tos2priority). */
const unlessPlainTos: readonly Instruction[] = [load(1, 'r1', packet, ethernet + 1), compute('and', 'r1', 0x1c), jump('ne', 'r1', 0, slow)];

/** As ip_decrease_ttl() does it (net/ip.h). */
const decrementTtl: readonly Instruction[] = [
  load(1, 'r1', packet, ethernet + 8),
  compute('sub', 'r1', 1),
  store(1, packet, ethernet + 8, 'r1'),
  load(2, 'r1', packet, ethernet + 10),
  compute('add', 'r1', 1),
  jump('lt', 'r1', 0xffff, 'no carry'),
  compute('add', 'r1', 1),
  label('no carry'),
  store(2, packet, ethernet + 10, 'r1'),
];
const decrementHopLimit: readonly Instruction[] = [
  load(1, 'r1', packet, ethernet + 7),
  compute('sub', 'r1', 1),
  store(1, packet, ethernet + 7, 'r1'),
];

function ipv4(path: Compiled): Instruction[] {
  return [
    label('4'),
    load(1, 'r1', packet, ethernet),
    jump('ne', 'r1', 0x45, slow),
    load(2, 'r1', packet, ethernet + 6),
    compute('and', 'r1', swapped16(0x3fff)),
    jump('ne', 'r1', 0, slow),
    load(1, 'r1', packet, ethernet + 8),
    jump('lt', 'r1', 2, slow),
    load(2, 'r9', packet, ethernet + 2),
    swap16('r9'),
    ...unlessWhole,
    ...ends(path, 4),
    ...unlessSound,
    load(1, 'r5', packet, ethernet + 9),
    ...(path.member === undefined ? [] : unlessNames(4)),
    ...(path.strict === true ? unlessProbe(4) : []),
    ...sizeOfSegments(4),
    ...lookUp(path, 4, [load(1, 'r1', packet, ethernet + 1), store(1, 'r10', onStack(fib.tos), 'r1')]),
    ...decrementTtl,
    go('leave'),
  ];
}

function ipv6(path: Compiled): Instruction[] {
  return [
    label('6'),
    ...within(ethernet + 48),
    load(1, 'r1', packet, ethernet),
    compute('and', 'r1', 0xf0),
    jump('ne', 'r1', 0x60, slow),
    load(1, 'r1', packet, ethernet + 7),
    jump('lt', 'r1', 2, slow),
    load(2, 'r9', packet, ethernet + 4),
    swap16('r9'),
    compute('add', 'r9', headerBytes[6]),
    ...unlessWhole,
    load(1, 'r5', packet, ethernet + 6),
    jump('eq', 'r5', TCP, 'plain'),
    jump('eq', 'r5', UDP, 'plain'),
    jump('ne', 'r5', ICMPV6, slow),
    label('plain'),
    ...ends(path, 6),
    ...(path.member === undefined ? [] : unlessNames(6)),
    ...(path.strict === true ? unlessProbe(6) : []),
    ...sizeOfSegments(6),
    ...lookUp(path, 6, [load(4, 'r1', packet, ethernet), compute32('and', 'r1', 0xffff_ff0f), store(4, 'r10', onStack(fib.tos), 'r1')]),
    ...decrementHopLimit,
    go('leave'),
  ];
}

const ofFamily = <T extends Ip | Cidr>(all: readonly T[], family: Family): T[] => all.filter((one) => familyOf(one) === family);

/** An endpoint speaks with its own address only; through the tunnel and from other hosts comes whatever is of one of the networks. */
function ends({ member, networks }: FastPath, family: Family): Instruction[] {
  const known = networks.map((ranges) => ofFamily(ranges, family)).filter((ranges) => ranges.length > 0);
  return [
    ...known.flatMap((ranges, index) => {
      const sources = member === undefined ? ranges : ofFamily(member.addresses, family).map(hostPrefix);
      const isLast = index === known.length - 1;
      const otherwise = isLast ? slow : `network ${family} not ${index}`;
      return [
        ...unlessIn(sources, { family, offset: sourceAt[family], name: `source ${family} ${index}`, otherwise }),
        ...unlessIn(ranges, { family, offset: destinationAt[family], name: `destination ${family} ${index}`, otherwise }),
        ...(isLast ? [] : [go(`inside ${family}`), label(otherwise)]),
      ];
    }),
    label(`inside ${family}`),
  ];
}

/** With the numbers of its links to other hosts, those that there are. */
export interface Compiled extends FastPath {
  readonly indexes: readonly number[];
}

/** The fast path's program, ready for the kernel. The same facts give the same bytes. */
export function fastProgram(path: Compiled): Uint8Array {
  const families = ([4, 6] as const).filter((family) => {
    const { member, networks } = path;
    const isUsed = networks.some((ranges) => ofFamily(ranges, family).length > 0);
    return isUsed && (member === undefined || ofFamily(member.addresses, family).length > 0);
  });
  return assemble([
    compute('mov', 'r6', 'r1'),
    load(4, 'r1', 'r6', skb.packetType),
    jump32('ne', 'r1', 0, slow),
    load(4, 'r1', 'r6', skb.vlanPresent),
    jump32('ne', 'r1', 0, slow),
    load(4, packet, 'r6', skb.data),
    load(4, 'r8', 'r6', skb.dataEnd),
    ...within(ethernet + 28),
    ...(path.member === undefined ? [] : unlessMac(path.member.mac, packet, 6, slow)),
    load(2, 'r1', packet, 12),
    ...(families.includes(4) ? [jump('eq', 'r1', protocols[4], '4')] : []),
    ...(families.includes(6) ? [jump('eq', 'r1', protocols[6], '6')] : []),
    label(slow),
    compute('mov', 'r0', TC_ACT_UNSPEC),
    exit,
    ...(families.includes(4) ? ipv4(path) : []),
    ...(families.includes(6) ? ipv6(path) : []),
    // The kernel refuses programs with instructions that are never reached.
    ...(families.length === 0 ? [] : [label('leave'), ...leave]),
  ]);
}

/** Writes both MACs and hands the packet over to the link of the answer; r5 says how. */
const leave: readonly Instruction[] = [
  load(2, 'r1', 'r10', onStack(fib.dmac)),
  store(2, packet, 0, 'r1'),
  load(4, 'r1', 'r10', onStack(fib.dmac + 2)),
  store(4, packet, 2, 'r1'),
  load(4, 'r1', 'r10', onStack(fib.smac)),
  store(4, packet, 6, 'r1'),
  load(2, 'r1', 'r10', onStack(fib.smac + 4)),
  store(2, packet, 10, 'r1'),
  load(4, 'r1', 'r10', onStack(fib.ifindex)),
  compute('mov', 'r2', 0),
  jump('eq', 'r5', helpers.redirect, 'tunnel'),
  call(helpers.redirectPeer),
  exit,
  label('tunnel'),
  call(helpers.redirect),
  exit,
];
