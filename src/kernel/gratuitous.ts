// Telling the wire that an address is here now, unasked, so that neighbours who knew it elsewhere turn at once: a gratuitous ARP
// request (RFC 5227, section 3) or an unsolicited neighbour advertisement with the override flag (RFC 4861, section 7.2.6). The
// kernel does so for addresses of a link that comes up, not for one that is added.
import { closeSync } from 'node:fs';
import { familyOf, type Ip, type Mac } from '#model/ip.ts';
import { dumpLinks } from './batch.ts';
import { checksum } from './checksum.ts';
import { openPacketSocket, transmit } from './libc.ts';
import { ipBytes, macBytes } from './netlink/codec.ts';
import type { Sockets } from './sockets.ts';

const broadcast = Buffer.from('ffffffffffff', 'hex');
/** Of ff02::1, all nodes (RFC 2464, section 7). */
const allNodesMac = Buffer.from('333300000001', 'hex');
const allNodes = Buffer.from('ff020000000000000000000000000001', 'hex');

function arpFrame(mac: Buffer, ip: Buffer): Buffer {
  const ethernet = Buffer.concat([broadcast, mac, Buffer.from('0806', 'hex')]);
  // Ethernet, IPv4, lengths 6 and 4, request; asks for the address that it comes from.
  return Buffer.concat([ethernet, Buffer.from('0001080006040001', 'hex'), mac, ip, Buffer.alloc(6), ip]);
}

function advertisementFrame(mac: Buffer, ip: Buffer): Buffer {
  // Type 136, code 0, checksum, flags: router and override; then the target link-layer address option.
  const message = Buffer.concat([Buffer.from('88000000a0000000', 'hex'), ip, Buffer.from('0201', 'hex'), mac]);
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(message.length, 0);
  pseudo.writeUInt32BE(58, 4);
  message.writeUInt16BE(checksum(Buffer.concat([ip, allNodes, pseudo, message])), 2);
  const header = Buffer.from('6000000000003aff', 'hex');
  header.writeUInt16BE(message.length, 4);
  return Buffer.concat([allNodesMac, mac, Buffer.from('86dd', 'hex'), header, ip, allNodes, message]);
}

/** The Ethernet frame. Pure. */
export const gratuitousFrame = (mac: Mac, ip: Ip): Buffer =>
  familyOf(ip) === 4 ? arpFrame(macBytes(mac), ipBytes(ip)) : advertisementFrame(macBytes(mac), ipBytes(ip));

/** Sends one frame for each of the addresses by the link of that name in the calling thread's namespace; an absent link has none. Fault `kernel`. */
export function announce(sockets: Sockets, name: string, ips: readonly Ip[]): void {
  const link = dumpLinks(sockets.of('')).find((one) => one.name === name);
  if (link === undefined || ips.length === 0) return;
  const fd = openPacketSocket(link.index);
  try {
    for (const ip of ips) transmit(fd, gratuitousFrame(link.mac, ip));
  } finally {
    closeSync(fd);
  }
}
