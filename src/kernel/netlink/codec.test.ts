import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { formatIp, type Ip, parseIp } from '#model/ip.ts';
import {
  attribute,
  attributeList,
  decodeAttributes,
  decodeError,
  decodeMessages,
  encodeMessage,
  ipBytes,
  nested,
  readIp,
  readText,
  text,
  u16,
  u16be,
  u8,
} from './codec.ts';
import * as recorded from './recorded.fixture.ts';

test('a message survives encoding and decoding, padded to four bytes', () => {
  const message = { type: 24, flags: 5, sequence: 77, port: 9, body: Buffer.from('abcde') };
  const bytes = encodeMessage(message);
  assert.equal(bytes.length, 24);
  assert.deepEqual(decodeMessages(Buffer.concat([bytes, bytes])), [message, message]);
});

test('what is cut off, or claims an impossible length, ends the list without harm', () => {
  const whole = encodeMessage({ type: 24, flags: 5, sequence: 77, port: 9, body: Buffer.from('abcd') });
  const short = Buffer.from(whole);
  short.writeUInt32LE(3, 0);
  const long = Buffer.from(whole);
  long.writeUInt32LE(4_000_000, 0);
  for (const bad of [whole.subarray(0, 7), short, long]) assert.equal(decodeMessages(Buffer.concat([whole, bad])).length, 1);
  for (const bad of ['0300', '03000100', 'ff000100aa']) {
    assert.deepEqual(attributeList(Buffer.from(bad, 'hex')), []);
    assert.equal(decodeAttributes(Buffer.from(bad, 'hex')).get(1), undefined);
  }
});

test('attributes are padded, nested ones are marked, and are found whatever their flags', () => {
  const bytes = nested(18, text(1, 'veth'), nested(2, u8(7, 1), u16be(15, 8472), u16(16, 8472)));
  assert.equal(bytes.toString('hex'), '2c0012800900010076657468000000001c000280050007000100000006000f00211800000600100018210000');
  const info = decodeAttributes(decodeAttributes(bytes).get(18));
  assert.equal(readText(info.get(1)), 'veth');
  assert.equal(decodeAttributes(info.get(2)).get(15)?.readUInt16BE(0), 8472);
  assert.equal(decodeAttributes(undefined).get(1), undefined);
});

test('a list may repeat a type', () => {
  const bytes = Buffer.concat([attribute(1, Buffer.from('a')), attribute(1, Buffer.from('b'))]);
  assert.deepEqual(
    attributeList(bytes).map(([type, value]) => [type, value.toString()]),
    [
      [1, 'a'],
      [1, 'b'],
    ],
  );
});

test('a refusal carries the number and the sentence of the kernel', () => {
  const [message] = decodeMessages(recorded.refusal);
  assert.ok(message !== undefined);
  assert.deepEqual(decodeError(message), { errno: 101, text: 'Nexthop has invalid gateway' });
});

const round = (ip: Ip): Ip | undefined => readIp(ipBytes(ip));
test('addresses are read as the model writes them', () => {
  const texts = [
    '::',
    '::1',
    '1::',
    'fe80::1',
    '1:0:0:2::',
    '1:0:2::3',
    '0:1::',
    '2001:db8:0:1:1:1:1:1',
    '1:0:0:2:0:0:0:3',
    '1:2:3:4:5:6:7:8',
  ];
  assert.deepEqual(
    texts.map((value) => round(parseIp(value))),
    texts.map((value) => parseIp(value)),
  );
  assert.equal(round(parseIp('10.0.0.255')), '10.0.0.255');
  fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }), (value) => round(formatIp(value, 6)) === formatIp(value, 6)));
  assert.equal(readIp(Buffer.alloc(5)), undefined);
});
