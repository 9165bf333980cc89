import assert from 'node:assert/strict';
import { test } from 'node:test';
import { holding, parseSavefile } from './demo-capture.ts';

/** A savefile record of an Ethernet frame with an IPv4 packet. */
function record(protocol: number, port: number, payload: string, type = 0x0800): Buffer {
  const ip = Buffer.alloc(20);
  ip.writeUInt8(0x45, 0);
  ip.writeUInt8(protocol, 9);
  const ports = Buffer.alloc(8);
  ports.writeUInt16BE(port, 2);
  const ethernet = Buffer.alloc(14);
  ethernet.writeUInt16BE(type, 12);
  const frame = Buffer.concat([ethernet, ip, ports, Buffer.from(payload)]);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(frame.length, 8);
  header.writeUInt32LE(frame.length, 12);
  return Buffer.concat([header, frame]);
}

const file = (...records: readonly Buffer[]): Buffer => Buffer.concat([Buffer.alloc(24), ...records]);

test('a savefile is read packet by packet, with protocol, port and content', () => {
  const packets = parseSavefile(
    file(record(17, 8472, 'say secret'), record(6, 22, 'other'), record(1, 7, 'echo'), record(17, 1, 'arp', 0x0806)),
  );
  assert.deepEqual(
    packets.map(({ protocol, port }) => [protocol, port]),
    [
      [17, 8472],
      [6, 22],
      [1, 0],
    ],
  );
  assert.equal(holding(packets, 'secret'), 1);
});

test('a savefile that was cut off gives the whole packets before', () => {
  const whole = file(record(17, 8472, 'first'), record(17, 8472, 'second'));
  assert.equal(parseSavefile(whole.subarray(0, whole.length - 3)).length, 1);
  assert.deepEqual(parseSavefile(Buffer.alloc(0)), []);
});
