// Ethernet frames made by hand for the test that a fast path changes nothing: good ones, and one of each sort that
// forwarding refuses, answers or treats in a way of its own.
import { type Ip, ipToBigint, type Mac, parseIp } from '#model/ip.ts';

export interface End {
  readonly mac: Mac;
  readonly ip4: Ip;
  readonly ip6: Ip;
}

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/[^0-9a-f]/g, ''), 'hex');
const ip4 = (ip: Ip): Buffer => hex(ipToBigint(ip).toString(16).padStart(8, '0'));
const ip6 = (ip: Ip): Buffer => hex(ipToBigint(ip).toString(16).padStart(32, '0'));
const u16 = (value: number): Buffer => Buffer.of(value >> 8, value & 255);

/** The one's complement sum of RFC 1071. */
export function sum16(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

const frame = (to: string, from: string, type: number, ...rest: readonly Buffer[]): Buffer =>
  Buffer.concat([hex(to), hex(from), u16(type), ...rest]);

interface Header {
  readonly ttl?: number;
  readonly tos?: number;
  readonly protocol?: number;
  /** Flags and fragment offset. */
  readonly fragment?: number;
  readonly options?: string;
  /** Added to what the length should be. */
  readonly length?: number;
  readonly badChecksum?: boolean;
}

function packet4(from: Ip, to: Ip, payload: Buffer, header: Header = {}): Buffer {
  const { ttl = 64, tos = 0, protocol = 17, fragment = 0x4000, options = '', length = 0, badChecksum = false } = header;
  const extra = hex(options);
  const bytes = Buffer.concat([
    Buffer.of(0x45 + extra.length / 4, tos),
    u16(20 + extra.length + payload.length + length),
    u16(0x1234),
    u16(fragment),
    Buffer.of(ttl, protocol, 0, 0),
    ip4(from),
    ip4(to),
    extra,
  ]);
  bytes.writeUInt16BE((0xffff - sum16(bytes)) ^ (badChecksum ? 0x0101 : 0), 10);
  return Buffer.concat([bytes, payload]);
}

function packet6(from: Ip, to: Ip, payload: Buffer, header: Header & { readonly next?: number } = {}): Buffer {
  const { ttl = 64, tos = 0, protocol = 17, length = 0, next = protocol } = header;
  return Buffer.concat([
    Buffer.of(0x60 | (tos >> 4), (tos & 15) << 4, 0x12, 0x34),
    u16(payload.length + length),
    Buffer.of(next, ttl),
    ip6(from),
    ip6(to),
    payload,
  ]);
}

/** UDP or TCP with the right checksum; ports and data as given. */
function transport(family: 4 | 6, protocol: number, [from, to]: readonly [Ip, Ip], port: number, data: Buffer): Buffer {
  const head = protocol === 17 ? hex('0000 0000 0000 0000') : hex('0000 0000 00000001 00000000 5002 2000 0000 0000');
  head.writeUInt16BE(4711, 0);
  head.writeUInt16BE(port, 2);
  const bytes = Buffer.concat([head, data]);
  if (protocol === 17) bytes.writeUInt16BE(bytes.length, 4);
  const addresses = family === 4 ? [ip4(from), ip4(to)] : [ip6(from), ip6(to)];
  const even = bytes.length % 2 === 0 ? bytes : Buffer.concat([bytes, Buffer.of(0)]);
  const sum = 0xffff - sum16(Buffer.concat([...addresses, u16(protocol), u16(bytes.length), even]));
  bytes.writeUInt16BE(sum, protocol === 17 ? 6 : 16);
  return bytes;
}

export interface Frames {
  readonly gateway: Mac;
  /** Not in the network. */
  readonly elsewhere: { readonly ip4: Ip; readonly ip6: Ip };
  /** In the network, but nobody's. */
  readonly nobody: { readonly ip4: Ip; readonly ip6: Ip };
  readonly stranger: Mac;
}

const data = (length: number): Buffer => Buffer.alloc(length, 'causeway');
const closed = 9999;

function both(from: End, to: { readonly ip4: Ip; readonly ip6: Ip }, gateway: Mac): Buffer[] {
  const four = [from.ip4, to.ip4] as const;
  const six = [from.ip6, to.ip6] as const;
  const v4 = (payload: Buffer, header?: Header): Buffer => frame(gateway, from.mac, 0x0800, packet4(...four, payload, header));
  const v6 = (payload: Buffer, header?: Header & { next?: number }): Buffer =>
    frame(gateway, from.mac, 0x86dd, packet6(...six, payload, header));
  const udp4 = (length = 64, port = closed): Buffer => transport(4, 17, four, port, data(length));
  const udp6 = (length = 64, port = closed): Buffer => transport(6, 17, six, port, data(length));
  return [
    v4(udp4()),
    v4(udp4(0)),
    v4(udp4(33)),
    v4(udp4(1330)),
    v4(udp4(1372)),
    v4(udp4(1372), { fragment: 0 }),
    v4(udp4(40, 53)),
    v4(transport(4, 6, four, closed, data(0)), { protocol: 6 }),
    v4(transport(4, 6, four, 53, data(0)), { protocol: 6 }),
    v4(data(40), { protocol: 253 }),
    v4(data(2)),
    v4(udp4(), { ttl: 0 }),
    v4(udp4(), { ttl: 1 }),
    v4(udp4(), { ttl: 2 }),
    v4(udp4(), { ttl: 3 }),
    v4(udp4(), { ttl: 255 }),
    ...[0x02, 0x03, 0x10, 0x48, 0xb8].map((tos) => v4(udp4(), { tos })),
    v4(udp4(), { options: '01 01 01 00' }),
    v4(udp4(), { options: '07 07 04 00000000 00' }),
    v4(udp4(64), { fragment: 0x2000 }),
    v4(data(64), { fragment: 0x0009 }),
    v4(udp4(64), { fragment: 0x8000 }),
    v4(udp4(), { badChecksum: true }),
    v4(udp4(), { length: -10 }),
    v4(udp4(), { length: 10 }),
    v4(hex('08 00 e5ca 1234 0001'), { protocol: 1 }),
    frame(gateway, from.mac, 0x0800, Buffer.concat([Buffer.of(0x44), packet4(...four, udp4()).subarray(1)])),
    frame(gateway, from.mac, 0x8100, hex('0005 0800'), packet4(...four, udp4())),
    v6(udp6()),
    v6(udp6(1)),
    v6(udp6(1310)),
    v6(udp6(1352)),
    v6(udp6(40, 53)),
    v6(transport(6, 6, six, closed, data(0)), { protocol: 6 }),
    v6(transport(6, 58, six, 0, data(0)), { protocol: 58 }),
    v6(udp6(), { ttl: 0 }),
    v6(udp6(), { ttl: 1 }),
    v6(udp6(), { ttl: 2 }),
    v6(udp6(), { ttl: 3 }),
    v6(udp6(), { tos: 0xb8 }),
    v6(Buffer.concat([hex('11 00 0104 00000000'), udp6()]), { next: 0 }),
    v6(Buffer.concat([hex('11 00 0104 00000000'), udp6()]), { next: 60 }),
    v6(Buffer.concat([hex('11 00 0001 00001234'), udp6()]), { next: 44 }),
    v6(data(40), { protocol: 253 }),
    v6(udp6(), { length: -8 }),
    v6(udp6(), { length: 8 }),
  ];
}

/** What `from` may send on its link, in this order. */
export function framesOf(from: End, local: End, remote: End, { gateway, elsewhere, nobody, stranger }: Frames): Buffer[] {
  const udp = (sender: Ip, to: Ip): Buffer => packet4(sender, to, transport(4, 17, [sender, to], closed, data(20)));
  const udp6 = (sender: Ip, to: Ip): Buffer => packet6(sender, to, transport(6, 17, [sender, to], closed, data(20)));
  const broadcast = 'ff:ff:ff:ff:ff:ff';
  return [
    ...[local, remote, nobody, elsewhere, from].flatMap((to) => both(from, to, gateway)),
    ...[local, remote].flatMap((to) => [
      frame(gateway, stranger, 0x0800, udp(from.ip4, to.ip4)),
      frame(gateway, stranger, 0x86dd, udp6(from.ip6, to.ip6)),
      frame(gateway, from.mac, 0x0800, udp(local.ip4, to.ip4)),
      frame(gateway, from.mac, 0x0800, udp(nobody.ip4, to.ip4)),
      frame(gateway, from.mac, 0x0800, udp(parseIp('0.0.0.0'), to.ip4)),
      frame(gateway, from.mac, 0x86dd, udp6(local.ip6, to.ip6)),
      frame(gateway, from.mac, 0x86dd, udp6(parseIp('::'), to.ip6)),
      frame(gateway, from.mac, 0x86dd, udp6(parseIp('fe80::5'), to.ip6)),
      frame(stranger, from.mac, 0x0800, udp(from.ip4, to.ip4)),
      frame(to.mac, from.mac, 0x86dd, udp6(from.ip6, to.ip6)),
      frame(broadcast, from.mac, 0x0800, udp(from.ip4, to.ip4)),
      frame('33:33:00:00:00:01', from.mac, 0x86dd, udp6(from.ip6, to.ip6)),
      frame(broadcast, from.mac, 0x0806, hex('0001 0800 0604 0001'), hex(from.mac), ip4(from.ip4), hex('000000000000'), ip4(to.ip4)),
    ]),
    frame('01:00:5e:01:02:03', from.mac, 0x0800, udp(from.ip4, parseIp('224.1.2.3'))),
    frame(gateway, from.mac, 0x0800, udp(from.ip4, parseIp('224.1.2.3'))),
    frame(broadcast, from.mac, 0x0800, udp(from.ip4, parseIp('255.255.255.255'))),
    frame(gateway, from.mac, 0x86dd, udp6(from.ip6, parseIp('ff0e::1'))),
    frame(gateway, from.mac, 0x0800, udp(from.ip4, parseIp('169.254.1.1'))),
    frame(gateway, from.mac, 0x88b5, data(60)),
  ];
}
