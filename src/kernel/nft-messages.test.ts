// Against the bytes that nft 1.1.3 sends for the same elements, taken with strace(1).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NftElement } from '#model/desired.ts';
import type { SetShape } from './nft-forms.ts';
import { encodeSteps, shapeOf } from './nft-messages.ts';
import { decodeMessages, u32be } from './netlink/codec.ts';
import { NFTA_SET_DATA_TYPE, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE } from './netlink/uapi.ts';

const verdict = 0xffff_ff00;

function shape(key: number, { value = 0, flags = 0 }: { readonly value?: number; readonly flags?: number } = {}): SetShape | undefined {
  const attributes = [u32be(NFTA_SET_FLAGS, flags), u32be(NFTA_SET_KEY_TYPE, key), u32be(NFTA_SET_DATA_TYPE, value)];
  return shapeOf({ type: 0, flags: 0, sequence: 0, port: 0, body: Buffer.concat([Buffer.alloc(4), ...attributes]) });
}

const shapes = {
  services4: shape(0x730d, { value: verdict }),
  backends6: shape(0x20c344, { value: 0x20d }),
  hosts4: shape(2, { value: 7 }),
  members4: shape(0x29247),
  uplinks: shape(0x29),
  leaving4: shape(7, { value: verdict }),
  sources4: shape(0x730d, { flags: 0x84 }),
} as const;
type Name = keyof typeof shapes;

const element = (set: Name, key: string, value?: string): NftElement => ({
  netns: '',
  table: 't',
  set,
  key,
  ...(value === undefined ? {} : { value }),
});

function encoded(verb: 'add' | 'delete' | 'destroy', set: Name, elements: readonly NftElement[], first = 7) {
  const known = shapes[set];
  assert.ok(known !== undefined);
  return encodeSteps([[{ verb, table: 't', set, elements }, known]], first);
}

/** The list of elements of the only message between the borders. */
function listOf(set: Name, elements: readonly NftElement[]): string {
  const [, message] = decodeMessages(encoded('add', set, elements)?.bytes ?? Buffer.alloc(0));
  return message?.body.subarray(4 + 8 + ((4 + set.length + 1 + 3) & ~3) + 4).toString('hex') ?? '';
}

test('elements are the bytes that nft sends', () => {
  const recorded: readonly (readonly [Name, readonly (readonly [string, string?])[], string])[] = [
    [
      'services4',
      [
        ['10.0.0.1 . tcp . 80', 'goto b_10'],
        ['10.0.0.2 . udp . 81', 'drop'],
      ],
      '3400018014000180100001000a00000106000000005000001c0002801800028008000100fffffffc09000200625f3130000000002800028014000180100001000a0000021100000000510000100002800c0002800800010000000000',
    ],
    [
      'backends6',
      [['fd00::1 . sctp . 80 . 3', 'fd00::2 . 8080']],
      '440001802400018020000100fd0000000000000000000000000000018400000000500000030000001c00028018000100fd0000000000000000000000000000021f900000',
    ],
    ['hosts4', [['ipv4', '10.0.0.1']], '1c0001800c00018005000100020000000c000280080001000a000001'],
    [
      'members4',
      [['"cwe0" . 02:00:00:00:00:01 . 10.0.0.1']],
      '2800018024000180200001006377653000000000000000000000000002000000000100000a000001',
    ],
    ['uplinks', [['"eth0"']], '1c000180180001801400010065746830000000000000000000000000'],
    ['leaving4', [['10.0.0.9', 'jump b_10']], '2c0001800c000180080001000a0000091c0002801800028008000100fffffffd09000200625f313000000000'],
  ];
  for (const [set, entries, bytes] of recorded) {
    const elements = entries.map(([key, value]) => element(set, key, value));
    // nft marks list entries after the first with another number; the kernel looks at none.
    assert.equal(listOf(set, elements).replace('28000180140001801000', '28000280140001801000'), bytes, set);
  }
});

test('a batch is numbered through, bordered, and acknowledged once at its end', () => {
  const many = Array.from({ length: 5000 }, (_, index) => element('uplinks', `"l${index}"`));
  const batch = encoded('add', 'uplinks', many, 100);
  const messages = decodeMessages(batch?.bytes ?? Buffer.alloc(0));
  assert.ok(messages.length > 4);
  assert.deepEqual(
    messages.map(({ sequence }) => sequence),
    messages.map((_, index) => 100 + index),
  );
  assert.deepEqual([messages.at(0)?.type, messages.at(-1)?.type], [0x10, 0x11]);
  assert.deepEqual(
    messages.filter(({ flags }) => (flags & 4) !== 0).map(({ sequence }) => sequence),
    [batch?.acknowledged],
  );
  assert.equal(messages.at(-2)?.sequence, batch?.acknowledged);
});

test('what is taken away is named by its key alone', () => {
  const [, message] = decodeMessages(encoded('delete', 'hosts4', [element('hosts4', 'ipv4', '10.0.0.1')])?.bytes ?? Buffer.alloc(0));
  assert.equal(message?.type, 0xa0e);
  assert.ok(message?.body.toString('hex').endsWith('100001800c0001800500010002000000'));
});

test('ranges have two ends, also where they are one address', () => {
  const list = listOf('sources4', [element('sources4', '198.51.100.0/24 . tcp . 80')]);
  assert.ok(list.includes('c63364000600000000500000') && list.includes('c63364ff0600000000500000'));
});

test('what is not spelled as plans spell it is left to nft', () => {
  const wrong: readonly (readonly [Name, string, string?])[] = [
    ['services4', '10.0.0.1 . tcp', 'drop'],
    ['services4', '10.0.0.1 . tcp . http', 'drop'],
    ['services4', '10.0.0.1 . tcp . 65536', 'drop'],
    ['services4', '10.0.0.1 . dccp . 80', 'drop'],
    ['services4', '10.0.0.256 . tcp . 80', 'drop'],
    ['services4', '10.0.0 . tcp . 80', 'drop'],
    ['services4', '10.0.0.1.1 . tcp . 80', 'drop'],
    ['services4', '10.0.0.0/24 . tcp . 80', 'drop'],
    ['services4', '10.0.0.1 . tcp . 80', 'goto'],
    ['services4', '10.0.0.1 . tcp . 80', 'drop b'],
    ['services4', '10.0.0.1 . tcp . 80', 'queue'],
    ['backends6', 'fd00:: . tcp . 80 . 3', 'fd00::2'],
    ['backends6', 'fd00::1::2 . tcp . 80 . 3', 'fd00::2 . 80'],
    ['backends6', '10.0.0.1 . tcp . 80 . 3', 'fd00::2 . 80'],
    ['hosts4', 'ipv5', '10.0.0.1'],
    ['uplinks', '"eth*"'],
    ['uplinks', '"a-name-of-16-byt"'],
    ['uplinks', '"eth0"', 'drop'],
    ['members4', '"cwe0" . 02:00:00:00:00 . 10.0.0.1'],
    ['sources4', '198.51.100.1/24 . tcp . 80'],
    ['sources4', '198.51.100.0-198.51.100.9 . tcp . 80'],
  ];
  for (const [set, key, value] of wrong) assert.equal(encoded('add', set, [element(set, key, value)]), undefined, `${set} ${key} ${value}`);
});

test('sets of ranges alone, and of what is not known here, are left to nft', () => {
  assert.equal(shape(7, { flags: 4 }), undefined);
  assert.equal(shape(19), undefined);
  assert.equal(shape(0x730d, { value: 19 }), undefined);
});
