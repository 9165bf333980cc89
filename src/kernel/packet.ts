// Frames as programs of the kernel read them: where the headers are, and numbers and addresses as little-endian loads see them.
import type { Family, Mac } from '#model/ip.ts';

export const ethernet = 14;
export const headerBytes = { 4: 20, 6: 40 } as const;
export const sourceAt: Readonly<Record<Family, number>> = { 4: ethernet + 12, 6: ethernet + 8 };
export const destinationAt: Readonly<Record<Family, number>> = { 4: ethernet + 16, 6: ethernet + 24 };

export const swapped16 = (value: number): number => ((value & 0xff) << 8) | (value >> 8);
export const swapped32 = (word: number): number =>
  ((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24) | 0;
/** EtherTypes. */
export const protocols: Readonly<Record<Family, number>> = { 4: swapped16(0x0800), 6: swapped16(0x86dd) };

export const arpProtocol: number = swapped16(0x0806);
/** Of IPv4 on Ethernet: where its fields are, and how many bytes the frame has. */
export const arp = { operation: 20, senderMac: 22, sender: 28, targetMac: 32, target: 38, bytes: 42 } as const;

/**
 * Of neighbour discovery (RFC 4861) on Ethernet: where its fields are, how many bytes a question or an answer with the option of a MAC has
 * and an answer without, and, as they are loaded, that option's two beginnings and an answer's flags "solicited" and "override".
 */
export const discovery = {
  length: 18,
  next: 20,
  hops: 21,
  type: 54,
  checksum: 56,
  flags: 58,
  target: 62,
  option: 78,
  mac: 80,
  bytes: 86,
  answerBytes: 78,
  icmp: 58,
  question: 135,
  answer: 136,
  sourceMac: 0x0101,
  targetMac: 0x0102,
  asAsked: 0x60,
} as const;

/** The 32-bit words of an address or a mask, the most significant first, as numbers. */
export const wordsOf = (bits: bigint, family: Family): number[] =>
  Array.from({ length: family === 4 ? 1 : 4 }, (_, index, count = family === 4 ? 1 : 4) =>
    Number((bits >> BigInt(32 * (count - 1 - index))) & 0xffff_ffffn),
  );
/** Those of an address, as they are loaded. */
export const loadedWords = (bits: bigint, family: Family): number[] => wordsOf(bits, family).map(swapped32);
export const octetsOf = (mac: Mac): number[] => mac.split(':').map((part) => Number.parseInt(part, 16));
