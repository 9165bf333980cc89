// The programs of a trunk: what leaves by the host's link with a container's address gets that container's MAC and VLAN, and what
// comes in such a VLAN for exactly that address loses the tag and is the host's to forward. A block's addresses have consecutive VLANs
// and their MACs follow from them, so the programs change with blocks and not with containers. The helpers work on the tag in
// the packet's metadata (net/core/skbuff.c, skb_vlan_push), so the kernel needs no 8021q. Everything else passes untouched; of what
// comes in our VLANs only what is for the container itself gets in, so that nobody reaches the host around the groups of its own port.
// What is said there about neighbours: trunk-neighbours.ts.
import { cidrLength, cidrSize, type Family, familyOf } from '#model/ip.ts';
import type { OutsideSubnet, TaggedBlock, Trunk } from '#model/desired.ts';
import { assemble, call, compute, compute32, exit, go, helpers, type Instruction, jump32, label, load, skb } from './bpf-assembler.ts';
import { arpProtocol, destinationAt, protocols, sourceAt, swapped16 } from './packet.ts';
import { begin, byFamily, macSourceAt, pass, storeMac, vlanOf } from './trunk-frames.ts';
import { askByArp, askByDiscovery, hearByArp, hearByDiscovery } from './trunk-neighbours.ts';

const TC_ACT_SHOT = 2;
const PACKET_HOST = 0;
const PACKET_OTHERHOST = 3;
const ETH_P_8021Q = swapped16(0x8100);

type Wanted = Pick<Trunk, 'blocks' | 'outside'>;
const ofFamily = (outside: readonly OutsideSubnet[], family: Family): OutsideSubnet[] =>
  outside.filter(({ subnet }) => familyOf(subnet) === family);

/** At the link's exit. */
export function taggingProgram({ blocks, outside = [] }: Wanted): Uint8Array {
  const [outside4, outside6] = [ofFamily(outside, 4), ofFamily(outside, 6)];
  const otherwise = { 4: 'pass', 6: outside6.length === 0 ? 'pass' : 'asking' } as const;
  return assemble([
    begin,
    load(4, 'r1', 'r6', skb.vlanPresent),
    jump32('ne', 'r1', 0, 'pass'),
    ...(outside4.length === 0 ? [] : [load(4, 'r1', 'r6', skb.protocol), jump32('eq', 'r1', arpProtocol, 'arp')]),
    ...byFamily(blocks, 'pass', (family) => [...vlanOf(blocks, { family, at: sourceAt[family], otherwise: otherwise[family] }), go('tag')]),
    ...(outside4.length === 0 ? [] : [label('arp'), ...askByArp(blocks, outside4)]),
    ...(outside6.length === 0 ? [] : [label('asking'), ...askByDiscovery(blocks, outside6)]),
    label('tag'),
    ...storeMac(macSourceAt, 'r8'),
    label('push'),
    compute('mov', 'r1', 'r6'),
    compute('mov', 'r2', ETH_P_8021Q),
    call(helpers.vlanPush),
    ...pass,
  ]);
}

/** At the link's entrance. */
export function untaggingProgram({ blocks, outside = [] }: Wanted): Uint8Array {
  const has = (family: Family): boolean => blocks.some(({ cidr }) => familyOf(cidr) === family);
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
    load(4, 'r1', 'r6', skb.protocol),
    ...(has(4) ? [jump32('eq', 'r1', arpProtocol, 'arp')] : []),
    ...(has(6) ? [jump32('eq', 'r1', protocols[6], 'six')] : []),
    label('data'),
    load(4, 'r1', 'r6', skb.packetType),
    jump32('ne', 'r1', PACKET_OTHERHOST, 'drop'),
    ...byFamily(blocks, 'drop', (family) => [
      ...vlanOf(blocks, { family, at: destinationAt[family], otherwise: 'drop' }),
      jump32('eq', 'r3', 'r9', 'take'),
      go('drop'),
    ]),
    ...(has(4) ? [label('arp'), ...hearByArp(blocks, ofFamily(outside, 4))] : []),
    ...(has(6) ? [label('six'), ...hearByDiscovery(blocks, ofFamily(outside, 6), 'data')] : []),
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
