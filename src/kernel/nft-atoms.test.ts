import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '#model/ip.ts';
import { ipBytes } from './netlink/codec.ts';
import { atomsOf } from './nft-atoms.ts';

const [address4, address6] = [7, 8].map((type) => atomsOf(type)?.[0]);

/** The bytes, or undefined when the text is not understood. */
function written(text: string, isEnd = false): string | undefined {
  const atom = text.includes(':') ? address6 : address4;
  const bytes = Buffer.alloc(atom?.size ?? 0);
  return atom?.write(text, { bytes, at: 0, isEnd }) === true ? bytes.toString('hex') : undefined;
}

test('addresses are the bytes that they are elsewhere', () => {
  const some = [
    '0.0.0.0',
    '255.255.255.255',
    '10.1.20.255',
    '::',
    '::1',
    '1::',
    'fd00::1',
    'fd00:1:2:3:4:5:6:7',
    '1:0:0:2::3',
    '2001:db8::ffff:0',
  ];
  for (const text of some) assert.equal(written(text), ipBytes(parseIp(text)).toString('hex'), text);
  let seed = 1;
  const next = (most: number): number => (seed = (seed * 48_271) % 0x7fff_ffff) % most;
  for (let index = 0; index < 2000; index++) {
    const ip = parseIp(Array.from({ length: 8 }, () => (next(3) === 0 ? next(65_536) : 0).toString(16)).join(':'));
    assert.equal(written(ip), ipBytes(ip).toString('hex'), ip);
  }
});

test('a prefix has a first and a last address', () => {
  assert.deepEqual([written('10.0.0.0/8'), written('10.0.0.0/8', true)], ['0a000000', '0affffff']);
  assert.deepEqual([written('fd00::/127'), written('fd00::/127', true)], [`fd${'0'.repeat(30)}`, `fd${'0'.repeat(29)}1`]);
});

test('what is no address is not understood', () => {
  const wrong = [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.',
    '.1.2.3',
    '1..2.3',
    '1.2.3.256',
    '1.2.3.0004',
    '1.2.3.4 ',
    '10.0.0.1/8',
    '10.0.0.0/33',
  ];
  const wrong6 = [
    ':',
    ':::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1::2::3',
    '1:2:3:4:5:6:7:8::',
    ':1::',
    '1:::2',
    'g::',
    '12345::',
    '::1.2.3.4',
    'fd00::1/64',
  ];
  for (const text of [...wrong, ...wrong6]) assert.equal(written(text), undefined, text);
});
