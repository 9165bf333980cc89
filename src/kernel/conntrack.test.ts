import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Ip } from '#model/ip.ts';
import { type ConntrackSelection, decodeEntry, encodeDump, matcherOf, matches } from './conntrack.ts';

// A UDP entry in the kernel's layout, by hand: 10.0.0.9:40000 -> 192.0.2.1:53, answered by 10.0.0.5:5353.
const captured = Buffer.from(
  [
    '02000000',
    '34000180', // CTA_TUPLE_ORIG
    '14000180',
    '08000100',
    '0a000009',
    '08000200',
    'c0000201',
    '1c000280',
    '0500010011000000',
    '060002009c400000',
    '0600030000350000',
    '34000280', // CTA_TUPLE_REPLY
    '14000180',
    '08000100',
    '0a000005',
    '08000200',
    '0a000009',
    '1c000280',
    '0500010011000000',
    '0600020014e90000',
    '060003009c400000',
    '08000c0012345678', // CTA_ID
  ].join(''),
  'hex',
);

test('an entry is read, and named by its original tuple and number', () => {
  const entry = decodeEntry(captured);
  assert.equal(entry.family, 4);
  assert.deepEqual(entry.original, { source: '10.0.0.9', destination: '192.0.2.1', protocol: 17, sourcePort: 40000, destinationPort: 53 });
  assert.deepEqual(entry.reply, { source: '10.0.0.5', destination: '10.0.0.9', protocol: 17, sourcePort: 5353, destinationPort: 40000 });
  assert.equal(entry.identity.toString('hex'), `${captured.toString('hex', 4, 56)}08000c0012345678`);
});

test('a selection matches by what it says and nothing else', () => {
  const entry = decodeEntry(captured);
  const cases: [ConntrackSelection, boolean][] = [
    [{ protocol: 'udp' }, true],
    [{ protocol: 'tcp' }, false],
    [{ protocol: 'udp', destination: '192.0.2.1' as Ip, destinationPort: 53 }, true],
    [{ protocol: 'udp', destination: '192.0.2.1' as Ip, destinationPort: 54 }, false],
    [{ destination: '10.0.0.5' as Ip }, false],
    [{ replySource: '10.0.0.5' as Ip }, true],
    [{ replySource: '10.0.0.5' as Ip, replySourcePort: 5353 }, true],
    [{ replySource: '10.0.0.5' as Ip, replySourcePort: 53 }, false],
    [{ replySource: '10.0.0.9' as Ip }, false],
    [{ protocol: 'udp', destination: '192.0.2.1' as Ip, except: new Set(['10.0.0.5 . 53']) }, true],
    [{ protocol: 'udp', destination: '192.0.2.1' as Ip, except: new Set(['10.0.0.5 . 5353']) }, false],
  ];
  for (const [selection, expected] of cases) {
    assert.equal(matches(entry, selection), expected, JSON.stringify(selection));
    assert.equal(matcherOf([{ destination: '10.9.9.9' as Ip }, selection])(entry), expected, `among others: ${JSON.stringify(selection)}`);
  }
});

test('the dump asks the kernel to compare exactly what is selected', () => {
  assert.equal(
    encodeDump({ protocol: 'udp', destination: '192.0.2.1' as Ip, destinationPort: 53 }, 4).toString('hex'),
    [
      '02000000',
      '240001800c000180',
      '08000200c0000201',
      '14000280',
      '0500010011000000',
      '0600030000350000',
      '10000280',
      '0c000280',
      '0500010011000000',
      '14001980',
      '080001002a000000',
      '0800020008000000',
    ].join(''),
  );
  assert.equal(encodeDump({ replySource: 'fd00::5' as Ip }, 6)[0], 10);
});
