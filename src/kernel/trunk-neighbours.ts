// How hosts and members of a trunk's networks find each other's MACs, by ARP (RFC 826) and by neighbour discovery (RFC 4861). Whoever asks
// in an address's VLAN for that address is answered there, with its MAC. Of a subnet that the link is not in the host asks for
// neighbours as of any other; its questions leave in the name, the MAC and the VLAN of one of its addresses there, the asker. By IPv6
// that name is the link-local address that follows from the asker's MAC, which the host has on the link: so answers come to the host
// itself, and clouds that look at senders let it pass, as they let every port have that one. (An answer to the asker's own address would
// be the container's.)
import { parseIp } from '#model/ip.ts';
import type { OutsideSubnet, TaggedBlock } from '#model/desired.ts';
import { askingName } from '#model/numbers.ts';
import { call, compute, compute32, exit, go, helpers, type Instruction, jump32, label, load, skb, store } from './bpf-assembler.ts';
import { arp, destinationAt, discovery, sourceAt, swapped16 } from './packet.ts';
import { endOf, macSourceAt, reachHeaders, storeIp, storeMac, unlessIn, unlessIs, vlanIn, vlanOf } from './trunk-frames.ts';

const everybody = parseIp('ff02::1');

/** The host's questions by ARP: with the VLAN in r3 to `push`. */
export const askByArp = (blocks: readonly TaggedBlock[], outside: readonly OutsideSubnet[]): Instruction[] => [
  ...reachHeaders(arp.bytes, 'pass'),
  load(2, 'r1', 'r7', arp.operation),
  jump32('ne', 'r1', swapped16(1), 'pass'),
  ...outside.flatMap(({ subnet, asker }) => [
    ...unlessIn(arp.target, subnet, `asked outside ${subnet}`),
    ...storeMac(macSourceAt, endOf(asker)),
    ...storeMac(arp.senderMac, endOf(asker)),
    ...storeIp(arp.sender, asker),
    compute('mov', 'r3', vlanIn(blocks, asker)),
    go('push'),
    label(`asked outside ${subnet}`),
  ]),
  go('pass'),
];

/** To `otherwise` what is no question or answer of a neighbour; in r1 which of the two. */
const discovered = (bytes: number, otherwise: string): Instruction[] => [
  ...reachHeaders(bytes, otherwise),
  load(1, 'r1', 'r7', discovery.next),
  jump32('ne', 'r1', discovery.icmp, otherwise),
  // No router has passed it on.
  load(1, 'r1', 'r7', discovery.hops),
  jump32('ne', 'r1', 255, otherwise),
  load(1, 'r1', 'r7', discovery.type),
];
/** With the one option that tells the asking MAC, as questions have it but for those whether an address is free. */
const unlessTelling = (otherwise: string): Instruction[] => [
  load(2, 'r1', 'r7', discovery.length),
  jump32('ne', 'r1', swapped16(discovery.bytes - discovery.type), otherwise),
  load(2, 'r1', 'r7', discovery.option),
  jump32('ne', 'r1', discovery.sourceMac, otherwise),
];

/** Of everything from the addresses on, and of the length and the protocol that the checksum is about, too (RFC 8200 section 8.1). */
const sum = (): Instruction[] => [
  compute('mov', 'r1', 0),
  compute('mov', 'r2', 0),
  compute('mov', 'r3', 'r7'),
  compute('add', 'r3', sourceAt[6]),
  compute('mov', 'r4', discovery.bytes - sourceAt[6]),
  compute('mov', 'r5', swapped16(discovery.bytes - discovery.type + discovery.icmp)),
  call(helpers.checksum),
  ...[0, 1].flatMap(() => [
    compute32('mov', 'r1', 'r0'),
    compute32('rsh', 'r1', 16),
    compute32('and', 'r0', 0xffff),
    compute32('add', 'r0', 'r1'),
  ]),
  compute32('mov', 'r1', 0xffff),
  compute32('sub', 'r1', 'r0'),
  store(2, 'r7', discovery.checksum, 'r1'),
];
/** With the code and a checksum of 0. */
const storeType = (type: number): Instruction => store(4, 'r7', discovery.type, type);

/** As askByArp. */
export const askByDiscovery = (blocks: readonly TaggedBlock[], outside: readonly OutsideSubnet[]): Instruction[] => [
  ...discovered(discovery.bytes, 'pass'),
  jump32('ne', 'r1', discovery.question, 'pass'),
  ...unlessTelling('pass'),
  ...outside.flatMap((one) => [
    ...unlessIn(discovery.target, one.subnet, `asked outside ${one.subnet}`),
    ...storeMac(macSourceAt, endOf(one.asker)),
    ...storeMac(discovery.mac, endOf(one.asker)),
    ...storeIp(sourceAt[6], askingName(one.asker)),
    compute('mov', 'r9', vlanIn(blocks, one.asker)),
    go('named'),
    label(`asked outside ${one.subnet}`),
  ]),
  go('pass'),
  label('named'),
  storeType(discovery.question),
  ...sum(),
  compute('mov', 'r3', 'r9'),
  go('push'),
];

const turnBack: readonly Instruction[] = [load(4, 'r1', 'r6', skb.ifindex), compute('mov', 'r2', 0), call(helpers.redirect), exit];

/** What is asked in an address's VLAN for that address is answered in it. */
const answerByArp = (blocks: readonly TaggedBlock[]): Instruction[] => [
  label('asked'),
  ...vlanOf(blocks, { family: 4, at: arp.target, otherwise: 'drop' }),
  jump32('ne', 'r3', 'r9', 'drop'),
  load(2, 'r1', 'r7', arp.senderMac),
  load(4, 'r2', 'r7', arp.senderMac + 2),
  load(4, 'r3', 'r7', arp.sender),
  ...[0, arp.targetMac].flatMap((at) => [store(2, 'r7', at, 'r1'), store(4, 'r7', at + 2, 'r2')]),
  store(4, 'r7', arp.target, 'r3'),
  ...[macSourceAt, arp.senderMac].flatMap((at) => storeMac(at, 'r8')),
  store(4, 'r7', arp.sender, 'r8'),
  store(2, 'r7', arp.operation, swapped16(2)),
  ...turnBack,
];

const words = [0, 4, 8, 12];
const copyIp = (from: number, to: number): Instruction[] =>
  words.flatMap((at) => [load(4, 'r1', 'r7', from + at), store(4, 'r7', to + at, 'r1')]);

/** The same. */
const answerByDiscovery = (blocks: readonly TaggedBlock[]): Instruction[] => [
  label('asked by six'),
  ...reachHeaders(discovery.bytes, 'drop'),
  ...unlessTelling('drop'),
  ...vlanOf(blocks, { family: 6, at: discovery.target, otherwise: 'drop' }),
  jump32('ne', 'r3', 'r9', 'drop'),
  load(2, 'r1', 'r7', discovery.mac),
  load(4, 'r2', 'r7', discovery.mac + 2),
  store(2, 'r7', 0, 'r1'),
  store(4, 'r7', 2, 'r2'),
  ...copyIp(sourceAt[6], destinationAt[6]),
  ...copyIp(discovery.target, sourceAt[6]),
  ...[macSourceAt, discovery.mac].flatMap((at) => storeMac(at, 'r8')),
  store(2, 'r7', discovery.option, discovery.targetMac),
  store(4, 'r7', discovery.flags, discovery.asAsked),
  storeType(discovery.answer),
  ...sum(),
  ...turnBack,
];

/** Of answers those to a subnet's asker about that subnet get in. */
const takeByArp = (blocks: readonly TaggedBlock[], outside: readonly OutsideSubnet[]): Instruction[] => [
  ...outside.flatMap(({ subnet, asker }) => [
    jump32('ne', 'r9', vlanIn(blocks, asker), `answered outside ${subnet}`),
    ...unlessIn(arp.sender, subnet, 'drop'),
    jump32('eq', 'r1', swapped16(2), 'take'),
    label(`answered outside ${subnet}`),
  ]),
  go('drop'),
];

/** The same, also those that nobody has asked for. */
const takeByDiscovery = (blocks: readonly TaggedBlock[], outside: readonly OutsideSubnet[]): Instruction[] => [
  ...outside.flatMap((one) => [
    jump32('ne', 'r9', vlanIn(blocks, one.asker), `answered outside ${one.subnet}`),
    ...unlessIn(discovery.target, one.subnet, 'drop'),
    ...unlessIs(destinationAt[6], askingName(one.asker), `answered all of ${one.subnet}`),
    go('take'),
    label(`answered all of ${one.subnet}`),
    ...unlessIs(destinationAt[6], everybody, 'drop'),
    go('take'),
    label(`answered outside ${one.subnet}`),
  ]),
  go('drop'),
];

/** What comes in a VLAN of ours by ARP. */
export const hearByArp = (blocks: readonly TaggedBlock[], outside: readonly OutsideSubnet[]): Instruction[] => [
  ...reachHeaders(arp.bytes, 'drop'),
  load(2, 'r1', 'r7', arp.operation),
  jump32('eq', 'r1', swapped16(1), 'asked'),
  ...takeByArp(blocks, outside),
  ...answerByArp(blocks),
];

/** What comes in a VLAN of ours by IPv6; what is about no neighbour goes to `otherwise`. */
export const hearByDiscovery = (blocks: readonly TaggedBlock[], outside: readonly OutsideSubnet[], otherwise: string): Instruction[] => [
  ...discovered(discovery.answerBytes, otherwise),
  jump32('eq', 'r1', discovery.question, 'asked by six'),
  jump32('ne', 'r1', discovery.answer, otherwise),
  ...takeByDiscovery(blocks, outside),
  ...answerByDiscovery(blocks),
];
