// The programs of a trunk: what leaves by the host's link with a container's address gets that container's MAC and VLAN, and what
// comes in such a VLAN for exactly that address loses the tag and is the host's to forward. A block's addresses have consecutive VLANs
// and their MACs follow from them, so the programs change with blocks and not with containers. The helpers work on the tag in
// the packet's metadata (net/core/skbuff.c, skb_vlan_push), so the kernel needs no 8021q. Everything else passes untouched; of what
// comes in our VLANs only what is for the container itself gets in, so that nobody reaches the host around the groups of its own port.
// Whoever asks by ARP in such a VLAN for its address is answered here, with its MAC. Of a subnet that the link is not in the host asks
// for neighbours as of any other; its questions leave in the name, the MAC and the VLAN of one of its addresses there, and of what
// comes back to that one only answers of that subnet get in.
import { type Cidr, cidrBase, cidrLength, cidrSize, contains, familyOf, type Family, type Ip, ipToBigint } from '#model/ip.ts';
import type { OutsideSubnet, TaggedBlock, Trunk } from '#model/desired.ts';
import { endpointMac } from '#model/numbers.ts';
import {
  assemble,
  call,
  compute,
  compute32,
  exit,
  go,
  type Instruction,
  jump,
  jump32,
  label,
  load,
  type Register,
  store,
  swap32,
} from './bpf-assembler.ts';
import {
  arp,
  arpProtocol,
  destinationAt,
  ethernet,
  headerBytes,
  octetsOf,
  protocols,
  sourceAt,
  swapped16,
  swapped32,
  wordsOf,
} from './packet.ts';

// struct __sk_buff, linux/bpf.h
const skb = { packetType: 4, protocol: 16, vlanPresent: 20, vlan: 24, link: 40, data: 76, dataEnd: 80 } as const;
const helpers = { vlanPush: 18, vlanPop: 19, redirect: 23, changeType: 32, pullData: 39 } as const;
const TC_ACT_UNSPEC = -1;
const TC_ACT_SHOT = 2;
const PACKET_HOST = 0;
const PACKET_OTHERHOST = 3;
const ETH_P_8021Q = swapped16(0x8100);
const macSourceAt = 6;

/** Of the last word; blocks are much smaller than it. */
const maskOf = (cidr: Cidr): number => -Number(cidrSize(cidr)) | 0;

const begin = compute('mov', 'r6', 'r1');
const pass: readonly Instruction[] = [label('pass'), compute('mov', 'r0', TC_ACT_UNSPEC), exit];

/** r7: the packet's first byte, its headers in reach. */
function reachHeaders(bytes: number, otherwise: string): Instruction[] {
  return [
    compute('mov', 'r1', 'r6'),
    compute('mov', 'r2', bytes),
    call(helpers.pullData),
    load(4, 'r7', 'r6', skb.data),
    load(4, 'r2', 'r6', skb.dataEnd),
    compute('mov', 'r1', 'r7'),
    compute('add', 'r1', bytes),
    jump('gt', 'r1', 'r2', otherwise),
  ];
}

interface Looked {
  readonly family: Family;
  /** Where the address is. */
  readonly at: number;
  readonly otherwise: string;
}

/** r3: the VLAN of the address, r8 its last four bytes as they are; to `otherwise` where it is in no block. */
function vlanOf(blocks: readonly TaggedBlock[], { family, at, otherwise }: Looked): Instruction[] {
  const last = family === 4 ? at : at + 12;
  const tests = blocks
    .filter(({ cidr }) => familyOf(cidr) === family)
    .flatMap(({ cidr, vlan }): Instruction[] => {
      const next = `${family} at ${at} not in ${cidr}`;
      const words = wordsOf(ipToBigint(cidrBase(cidr)), family);
      const upper = words
        .slice(0, -1)
        .flatMap((word, index) => [load(4, 'r2', 'r7', at + 4 * index), jump32('ne', 'r2', swapped32(word), next)]);
      return [
        ...upper,
        compute32('mov', 'r2', 'r3'),
        compute32('and', 'r2', maskOf(cidr)),
        jump32('ne', 'r2', (words.at(-1) ?? 0) | 0, next),
        compute32('and', 'r3', ~maskOf(cidr)),
        compute32('add', 'r3', vlan),
        go(`${family} at ${at} found`),
        label(next),
      ];
    });
  return [
    load(4, 'r8', 'r7', last),
    compute32('mov', 'r3', 'r8'),
    swap32('r3'),
    ...tests,
    go(otherwise),
    label(`${family} at ${at} found`),
  ];
}

/** Of the families that have blocks: code that nothing leads to is refused. */
function byFamily(blocks: readonly TaggedBlock[], otherwise: string, each: (family: Family) => readonly Instruction[]): Instruction[] {
  const used = ([4, 6] as const).filter((family) => blocks.some(({ cidr }) => familyOf(cidr) === family));
  return [
    load(4, 'r1', 'r6', skb.protocol),
    ...used.map((family) => jump32('eq', 'r1', protocols[family], `family ${family}`)),
    go(otherwise),
    ...used.flatMap((family) => [label(`family ${family}`), ...reachHeaders(ethernet + headerBytes[family], otherwise), ...each(family)]),
  ];
}

const [firstOctet = 0, secondOctet = 0] = octetsOf(endpointMac(cidrBase('0.0.0.0/0' as Cidr)));
const macStart = firstOctet | (secondOctet << 8);
/** The MAC of the address, whose last four bytes `end` is. */
const storeMac = (at: number, end: Register | number): Instruction[] => [store(2, 'r7', at, macStart), store(4, 'r7', at + 2, end)];
const loadedIp = (ip: Ip): number => swapped32(Number(ipToBigint(ip)));

/** The address in r3 is compared, r2 is lost. */
const unlessIn = (subnet: Cidr, target: string): Instruction[] => [
  compute32('mov', 'r2', 'r3'),
  compute32('and', 'r2', maskOf(subnet)),
  jump32('ne', 'r2', Number(ipToBigint(cidrBase(subnet))) | 0, target),
];

const vlanIn = (blocks: readonly TaggedBlock[], ip: Ip): number => {
  const block = blocks.find(({ cidr }) => contains(cidr, ip));
  if (block === undefined) throw new RangeError(`No block has ${ip}`);
  return block.vlan + Number(ipToBigint(ip) - ipToBigint(cidrBase(block.cidr)));
};

/** Questions for neighbours of such a subnet, in the name of its asker. */
const askOutside = (blocks: readonly TaggedBlock[], outside: readonly OutsideSubnet[]): Instruction[] => [
  ...reachHeaders(arp.bytes, 'pass'),
  load(2, 'r1', 'r7', arp.operation),
  jump32('ne', 'r1', swapped16(1), 'pass'),
  load(4, 'r3', 'r7', arp.target),
  swap32('r3'),
  ...outside.flatMap(({ subnet, asker }) => [
    ...unlessIn(subnet, `asked outside ${subnet}`),
    ...storeMac(macSourceAt, loadedIp(asker)),
    ...storeMac(arp.senderMac, loadedIp(asker)),
    store(4, 'r7', arp.sender, loadedIp(asker)),
    compute('mov', 'r3', vlanIn(blocks, asker)),
    go('push'),
    label(`asked outside ${subnet}`),
  ]),
  go('pass'),
];

/** At the link's exit. */
export function taggingProgram({ blocks, outside = [] }: Pick<Trunk, 'blocks' | 'outside'>): Uint8Array {
  return assemble([
    begin,
    load(4, 'r1', 'r6', skb.vlanPresent),
    jump32('ne', 'r1', 0, 'pass'),
    ...(outside.length === 0 ? [] : [load(4, 'r1', 'r6', skb.protocol), jump32('eq', 'r1', arpProtocol, 'arp')]),
    ...byFamily(blocks, 'pass', (family) => [...vlanOf(blocks, { family, at: sourceAt[family], otherwise: 'pass' }), go('tag')]),
    ...(outside.length === 0 ? [] : [label('arp'), ...askOutside(blocks, outside)]),
    label('tag'),
    ...storeMac(macSourceAt, 'r8'),
    label('push'),
    compute('mov', 'r1', 'r6'),
    compute('mov', 'r2', ETH_P_8021Q),
    call(helpers.vlanPush),
    ...pass,
  ]);
}

/** What is asked in an address's VLAN for that address is answered in it. */
const answer = (blocks: readonly TaggedBlock[]): Instruction[] => [
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
  load(4, 'r1', 'r6', skb.link),
  compute('mov', 'r2', 0),
  call(helpers.redirect),
  exit,
];

/** Of answers those to a subnet's asker about that subnet get in. */
const takeAnswers = (blocks: readonly TaggedBlock[], outside: readonly OutsideSubnet[]): Instruction[] => [
  load(4, 'r3', 'r7', arp.sender),
  swap32('r3'),
  ...outside.flatMap(({ subnet, asker }) => [
    jump32('ne', 'r9', vlanIn(blocks, asker), `answered outside ${subnet}`),
    ...unlessIn(subnet, 'drop'),
    jump32('eq', 'r1', swapped16(2), 'take'),
    label(`answered outside ${subnet}`),
  ]),
  go('drop'),
];

/** At the link's entrance. */
export function untaggingProgram({ blocks, outside = [] }: Pick<Trunk, 'blocks' | 'outside'>): Uint8Array {
  const isAsked = blocks.some(({ cidr }) => familyOf(cidr) === 4);
  return assemble([
    begin,
    load(4, 'r1', 'r6', skb.vlanPresent),
    jump32('eq', 'r1', 0, 'pass'),
    load(4, 'r9', 'r6', skb.vlan),
    compute32('and', 'r9', 0xfff),
    ...blocks.flatMap(({ cidr, vlan }): Instruction[] => [
      jump32('lt', 'r9', vlan, `below ${cidr}`),
      jump32('lt', 'r9', vlan + Number(cidrSize(cidr)), 'ours'),
      label(`below ${cidr}`),
    ]),
    ...pass,
    label('ours'),
    ...(isAsked ? [load(4, 'r1', 'r6', skb.protocol), jump32('eq', 'r1', arpProtocol, 'arp')] : []),
    load(4, 'r1', 'r6', skb.packetType),
    jump32('ne', 'r1', PACKET_OTHERHOST, 'drop'),
    ...byFamily(blocks, 'drop', (family) => [
      ...vlanOf(blocks, { family, at: destinationAt[family], otherwise: 'drop' }),
      jump32('eq', 'r3', 'r9', 'take'),
      go('drop'),
    ]),
    ...(isAsked
      ? [
          label('arp'),
          ...reachHeaders(arp.bytes, 'drop'),
          load(2, 'r1', 'r7', arp.operation),
          jump32('eq', 'r1', swapped16(1), 'asked'),
          ...takeAnswers(blocks, outside),
          ...answer(blocks),
        ]
      : []),
    label('take'),
    compute('mov', 'r1', 'r6'),
    call(helpers.vlanPop),
    compute('mov', 'r1', 'r6'),
    compute('mov', 'r2', PACKET_HOST),
    call(helpers.changeType),
    go('pass'),
    label('drop'),
    compute('mov', 'r0', TC_ACT_SHOT),
    exit,
  ]);
}

/** Whether the block can be in a program. */
export const isTaggable = ({ cidr, vlan }: TaggedBlock): boolean =>
  cidrLength(cidr) > (familyOf(cidr) === 4 ? 20 : 116) && vlan >= 1 && vlan + Number(cidrSize(cidr)) <= 4095;
