// What crosses the wire between two hosts, recorded by the real tcpdump on the underlay's switch port of one of them and
// read here packet by packet: which protocol, which port, and whether a given text is in it in the clear.
// File format: pcap-savefile(5); little-endian here because tcpdump writes its own machine's order.
import type { Host } from './host.ts';
import type { Lab } from './lab.ts';
import { until } from './until.ts';

export interface WirePacket {
  /** IP protocol number. */
  readonly protocol: number;
  /** Destination port of UDP and TCP, 0 for others. */
  readonly port: number;
  readonly bytes: Buffer;
}

const fileHeader = 24;
const recordHeader = 16;
const ethernetHeader = 14;

/** The IPv4 packets of a savefile of Ethernet frames; a record that is cut off at the end is left out. */
export function parseSavefile(file: Buffer): WirePacket[] {
  const packets: WirePacket[] = [];
  for (let at = fileHeader; at + recordHeader <= file.length;) {
    const length = file.readUInt32LE(at + 8);
    const frame = file.subarray(at + recordHeader, at + recordHeader + length);
    at += recordHeader + length;
    if (frame.length < length || frame.length < ethernetHeader + 20 || frame.readUInt16BE(12) !== 0x0800) continue;
    const bytes = frame.subarray(ethernetHeader);
    const header = (bytes.readUInt8(0) & 15) * 4;
    const protocol = bytes.readUInt8(9);
    const hasPorts = (protocol === 6 || protocol === 17) && bytes.length >= header + 4;
    packets.push({ protocol, port: hasPorts ? bytes.readUInt16BE(header + 2) : 0, bytes });
  }
  return packets;
}

export const holding = (packets: readonly WirePacket[], text: string): number => packets.filter(({ bytes }) => bytes.includes(text)).length;

export const capturePort = (host: Host): string => `p-${host.name}`;
export const captureFilter = (one: Host, other: Host): string => `ip host ${one.address} and ip host ${other.address}`;

/** Records what passes between the hosts while `work` runs. Fault `timeout` when tcpdump does not begin. */
export async function capture(lab: Lab, [one, other]: readonly [Host, Host], work: () => Promise<void>): Promise<WirePacket[]> {
  const argv = ['tcpdump', '--immediate-mode', '-U', '-n', '-s', '0', '-i', capturePort(other), '-w', '-', captureFilter(one, other)];
  const tcpdump = lab.underlay.spawn(argv);
  const { child, ended } = tcpdump;
  const chunks: Buffer[] = [];
  let said = '';
  child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  try {
    await until('tcpdump to listen', () => said.includes('listening on'));
    await work();
  } finally {
    tcpdump.kill('SIGINT');
    await ended;
  }
  return parseSavefile(Buffer.concat(chunks));
}
