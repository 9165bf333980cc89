// What the programs of a trunk (trunk-program.ts) have in common: the packet's headers in reach, an address's VLAN, and comparisons of
// addresses with subnets. Pieces of programs for the assembler; r6 is the packet's metadata throughout, r7 its first byte.
import { type Cidr, cidrBase, cidrSize, contains, familyOf, type Family, hostPrefix, type Ip, ipToBigint } from '#model/ip.ts';
import type { TaggedBlock } from '#model/desired.ts';
import { endpointMac } from '#model/numbers.ts';
import {
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
  swap32,
} from './bpf-assembler.ts';
import { ethernet, headerBytes, loadedWords, octetsOf, protocols, swapped32, wordsOf } from './packet.ts';

export const macSourceAt = 6;

/** Of the last word; blocks are much smaller than it. */
const maskOf = (cidr: Cidr): number => -Number(cidrSize(cidr)) | 0;

export const begin: Instruction = compute('mov', 'r6', 'r1');
export const pass: readonly Instruction[] = [label('pass'), compute('mov', 'r0', -1), exit];

/** r7: the packet's first byte, its headers in reach. */
export function reachHeaders(bytes: number, otherwise: string): Instruction[] {
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
export function vlanOf(blocks: readonly TaggedBlock[], { family, at, otherwise }: Looked): Instruction[] {
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
export function byFamily(
  blocks: readonly TaggedBlock[],
  otherwise: string,
  each: (family: Family) => readonly Instruction[],
): Instruction[] {
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
export const storeMac = (at: number, end: Register | number): Instruction[] => [store(2, 'r7', at, macStart), store(4, 'r7', at + 2, end)];
export const storeIp = (at: number, ip: Ip): Instruction[] =>
  loadedWords(ipToBigint(ip), familyOf(ip)).map((word, index) => store(4, 'r7', at + 4 * index, word));
/** The last four bytes of the address, as they are loaded. */
export const endOf = (ip: Ip): number => swapped32(Number(ipToBigint(ip) & 0xffff_ffffn));

/** To `target` where the address there is not in the subnet; r2 is lost. */
export function unlessIn(at: number, subnet: Cidr, target: string): Instruction[] {
  const family = familyOf(subnet);
  const size = family === 4 ? 32 : 128;
  const masks = loadedWords((1n << BigInt(size)) - cidrSize(subnet), family);
  return loadedWords(ipToBigint(cidrBase(subnet)), family).flatMap((word, index) => {
    const mask = masks[index] ?? 0;
    if (mask === 0) return [];
    return [load(4, 'r2', 'r7', at + 4 * index), compute32('and', 'r2', mask), jump32('ne', 'r2', word, target)];
  });
}
export const unlessIs = (at: number, ip: Ip, target: string): Instruction[] => unlessIn(at, hostPrefix(ip), target);

export const vlanIn = (blocks: readonly TaggedBlock[], ip: Ip): number => {
  const block = blocks.find(({ cidr }) => contains(cidr, ip));
  if (block === undefined) throw new RangeError(`No block has ${ip}`);
  return block.vlan + Number(ipToBigint(ip) - ipToBigint(cidrBase(block.cidr)));
};
