// The programs of a trunk: what leaves by the host's link with a container's address gets that container's MAC and VLAN, and what
// comes in such a VLAN for exactly that address loses the tag and is the host's to forward. A block's addresses have consecutive VLANs
// and their MACs follow from them, so the programs change with blocks and not with containers. The helpers work on the tag in
// the packet's metadata (net/core/skbuff.c, skb_vlan_push), so the kernel needs no 8021q. Everything else passes untouched; of what
// comes in our VLANs only what is for the container itself gets in, so that nobody reaches the host around the groups of its own port.
import { type Cidr, cidrBase, cidrLength, cidrSize, familyOf, type Family, ipToBigint } from '#model/ip.ts';
import type { TaggedBlock } from '#model/desired.ts';
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
  store,
  swap32,
} from './bpf-assembler.ts';
import { destinationAt, ethernet, headerBytes, octetsOf, protocols, sourceAt, swapped16, swapped32, wordsOf } from './packet.ts';

// struct __sk_buff, linux/bpf.h
const skb = { packetType: 4, protocol: 16, vlanPresent: 20, vlan: 24, data: 76, dataEnd: 80 } as const;
const helpers = { vlanPush: 18, vlanPop: 19, changeType: 32, pullData: 39 } as const;
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
function reachHeaders(family: Family, otherwise: string): Instruction[] {
  const bytes = ethernet + headerBytes[family];
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

/** r3: the VLAN of the address, r8 its last four bytes as they are; to `otherwise` where it is in no block. */
function vlanOf(
  blocks: readonly TaggedBlock[],
  family: Family,
  addressAt: Readonly<Record<Family, number>>,
  otherwise: string,
): Instruction[] {
  const at = addressAt[family];
  const last = family === 4 ? at : at + 12;
  const tests = blocks
    .filter(({ cidr }) => familyOf(cidr) === family)
    .flatMap(({ cidr, vlan }): Instruction[] => {
      const next = `${family} not in ${cidr}`;
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
        go(`${family} found`),
        label(next),
      ];
    });
  return [load(4, 'r8', 'r7', last), compute32('mov', 'r3', 'r8'), swap32('r3'), ...tests, go(otherwise), label(`${family} found`)];
}

/** Of the families that have blocks: code that nothing leads to is refused. */
function byFamily(blocks: readonly TaggedBlock[], otherwise: string, each: (family: Family) => readonly Instruction[]): Instruction[] {
  const used = ([4, 6] as const).filter((family) => blocks.some(({ cidr }) => familyOf(cidr) === family));
  return [
    load(4, 'r1', 'r6', skb.protocol),
    ...used.map((family) => jump32('eq', 'r1', protocols[family], `family ${family}`)),
    go(otherwise),
    ...used.flatMap((family) => [label(`family ${family}`), ...reachHeaders(family, otherwise), ...each(family)]),
  ];
}

/** At the link's exit. */
export function taggingProgram(blocks: readonly TaggedBlock[]): Uint8Array {
  const [first = 0, second = 0] = octetsOf(endpointMac(cidrBase('0.0.0.0/0' as Cidr)));
  return assemble([
    begin,
    load(4, 'r1', 'r6', skb.vlanPresent),
    jump32('ne', 'r1', 0, 'pass'),
    ...byFamily(blocks, 'pass', (family) => [...vlanOf(blocks, family, sourceAt, 'pass'), go('tag')]),
    label('tag'),
    store(2, 'r7', macSourceAt, first | (second << 8)),
    store(4, 'r7', macSourceAt + 2, 'r8'),
    compute('mov', 'r1', 'r6'),
    compute('mov', 'r2', ETH_P_8021Q),
    call(helpers.vlanPush),
    ...pass,
  ]);
}

/** At the link's entrance. */
export function untaggingProgram(blocks: readonly TaggedBlock[]): Uint8Array {
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
    load(4, 'r1', 'r6', skb.packetType),
    jump32('ne', 'r1', PACKET_OTHERHOST, 'drop'),
    ...byFamily(blocks, 'drop', (family) => [
      ...vlanOf(blocks, family, destinationAt, 'drop'),
      jump32('eq', 'r3', 'r9', 'take'),
      go('drop'),
    ]),
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
