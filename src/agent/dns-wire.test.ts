import assert from 'node:assert/strict';
import test from 'node:test';
import dnsPacket from 'dns-packet';
import * as fc from 'fast-check';
import type { Ip } from '#model/ip.ts';
import { addressRecord, isReplyTo, nameRecord, type Question, readQuestion, rcode, recordType, udpLimit, writeReply } from './dns-wire.ts';

type Packet = Parameters<typeof dnsPacket.encode>[0];

const query = (name: string, type: dnsPacket.RecordType = 'A', rest: Packet = {}): Buffer =>
  dnsPacket.encode({ type: 'query', id: 4711, flags: dnsPacket.RECURSION_DESIRED, questions: [{ name, type }], ...rest });

const opt = (udpPayloadSize: number, ednsVersion = 0): Packet => ({
  additionals: [{ type: 'OPT', name: '.', udpPayloadSize, extendedRcode: 0, ednsVersion, flags: 0, flag_do: false, options: [] }],
});

function question(packet: Buffer): Question {
  const reading = readQuestion(packet);
  assert.equal(reading.kind, 'question');
  return reading.kind === 'question' ? reading.question : assert.fail();
}

function codeOf(packet: Buffer): number | undefined {
  const reading = readQuestion(packet);
  return reading.kind === 'answer' ? reading.reply.readUInt16BE(2) & 15 : undefined;
}

test('a question is read in lower case and answered in its own', () => {
  const asked = question(query('Web.MyNet', 'AAAA', opt(4096)));
  const { id, name, labels, type, isInternet, wantsRecursion, edns } = asked;
  assert.deepEqual(
    { id, name, labels, type, isInternet, wantsRecursion, edns },
    { id: 4711, name: 'web.mynet', labels: 2, type: 28, isInternet: true, wantsRecursion: true, edns: { bytes: 4096 } },
  );
  const reply = dnsPacket.decode(writeReply(asked, { code: rcode.ok, records: [addressRecord('fd00::5' as Ip)], ttlSeconds: 2 }, 512));
  assert.equal(reply.questions?.[0]?.name, 'Web.MyNet');
  assert.deepEqual(reply.answers, [{ name: 'Web.MyNet', type: 'AAAA', ttl: 2, class: 'IN', flush: false, data: 'fd00::5' }]);
  assert.equal(reply.additionals?.[0]?.type, 'OPT');
  assert.deepEqual([reply.flag_qr, reply.flag_rd, reply.flag_ra, reply.flag_tc], [true, true, true, false]);
});

test('a client without EDNS gets none', () => {
  assert.equal(dnsPacket.decode(writeReply(question(query('web')), { code: rcode.ok, records: [] }, 512)).additionals?.length, 0);
});

test('an answer holds as many records as fit and says when that is not all', () => {
  const records = Array.from({ length: 100 }, (_, index) => addressRecord(`10.0.0.${index}` as Ip));
  const sizes = [
    { asked: question(query('web')), limit: 512 },
    { asked: question(query('web', 'A', opt(100))), limit: 512 },
    { asked: question(query('web', 'A', opt(1000))), limit: 1000 },
    { asked: question(query('web', 'A', opt(65_000))), limit: 1232 },
  ];
  for (const { asked, limit } of sizes) {
    assert.equal(udpLimit(asked), limit);
    const bytes = writeReply(asked, { code: rcode.ok, records }, udpLimit(asked));
    const reply = dnsPacket.decode(bytes);
    assert.ok(bytes.length <= limit && bytes.length > limit - 16);
    assert.deepEqual([reply.flag_tc, reply.answers?.length], [true, Math.floor((limit - 21 - (asked.edns ? 11 : 0)) / 16)]);
  }
  const whole = dnsPacket.decode(writeReply(question(query('web')), { code: rcode.ok, records }, 65_535));
  assert.deepEqual([whole.flag_tc, whole.answers?.length], [false, 100]);
});

const broken: [name: string, packet: Buffer, code: number | undefined][] = [
  ['nothing', Buffer.alloc(0), undefined],
  ['half a header', query('web').subarray(0, 11), undefined],
  ['a response', dnsPacket.encode({ type: 'response', id: 1, questions: [{ name: 'web', type: 'A' }] }), undefined],
  ['no question', dnsPacket.encode({ type: 'query', id: 1 }), rcode.formatError],
  [
    'two questions',
    query('web', 'A', {
      questions: [
        { name: 'a', type: 'A' },
        { name: 'b', type: 'A' },
      ],
    }),
    rcode.formatError,
  ],
  ['half a question', query('web').subarray(0, 18), rcode.formatError],
  ['a name that points to itself', Buffer.concat([query('web').subarray(0, 12), Buffer.of(0xc0, 12, 0, 1, 0, 1)]), rcode.formatError],
  ['a name of 300 bytes', query(Array.from({ length: 60 }, () => 'abcd').join('.')), rcode.formatError],
  ['two OPT records', query('web', 'A', { additionals: [...opt(1232).additionals!, ...opt(1232).additionals!] }), rcode.formatError],
  ['a record that ends too early', query('web', 'A', opt(1232)).subarray(0, 28), rcode.formatError],
  ['another operation', query('web', 'A', { flags: 0x2800 }), rcode.notImplemented],
  ['a newer EDNS', query('web', 'A', opt(1232, 1)), 0],
];
for (const [name, packet, code] of broken) {
  test(`${name} is ${code === undefined ? 'not answered' : `answered with code ${code}`}`, () => assert.equal(codeOf(packet), code));
}

test('a newer EDNS is told that the version is bad', () => {
  const reading = readQuestion(query('web', 'A', opt(1232, 1)));
  const reply = reading.kind === 'answer' ? dnsPacket.decode(reading.reply) : assert.fail();
  assert.equal(reply.additionals?.[0]?.type === 'OPT' ? reply.additionals[0].extendedRcode : undefined, 1);
});

test('a dot inside a label does not make two labels', () => {
  const packet = query('web-db');
  packet[16] = 0x2e;
  assert.equal(question(packet).name, String.raw`web\.db`);
});

test('no bytes make the reader throw, and every answer it gives can be decoded', () => {
  const anything = fc.oneof(
    fc.uint8Array({ maxLength: 80 }).map((bytes) => Buffer.from(bytes)),
    // Nearly right: a real question with a few bytes changed or cut off.
    fc
      .tuple(
        fc.constantFrom(query('web'), query('a.b.c', 'TXT', opt(700))),
        fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 4 }),
        fc.nat(60),
      )
      .map(([packet, changes, cut]) => {
        const copy = Buffer.from(packet);
        for (const [at, byte] of changes) if (at < copy.length) copy[at] = byte;
        return copy.subarray(0, Math.max(0, copy.length - (cut > 40 ? cut - 40 : 0)));
      }),
  );
  fc.assert(
    fc.property(anything, (packet) => {
      const reading = readQuestion(packet);
      if (reading.kind === 'answer') dnsPacket.decode(reading.reply);
      if (reading.kind !== 'question') return;
      const reply = writeReply(
        reading.question,
        { code: rcode.ok, records: [addressRecord('10.0.0.1' as Ip)] },
        udpLimit(reading.question),
      );
      assert.equal(dnsPacket.decode(reply).answers?.length, 1);
      assert.ok(isReplyTo(reply, packet, reading.question));
    }),
    { numRuns: 5000 },
  );
});

test('a name for an address is written only if it is one', () => {
  assert.deepEqual(nameRecord('web.net'), { type: recordType.PTR, data: Buffer.from('\x03web\x03net\x00', 'latin1') });
  assert.deepEqual(
    [nameRecord('a..b'), nameRecord('x'.repeat(64)), nameRecord(Array.from({ length: 90 }, () => 'abc').join('.'))],
    [undefined, undefined, undefined],
  );
});
