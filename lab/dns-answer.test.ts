import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answer, parseQuestion } from './dns-answer.ts';

const query = (name: string, type: number): Buffer => {
  const labels = name.split('.').flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)]);
  const header = Buffer.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, type, 0, 1])]);
};
const zone = { 'internet.example': { 4: Buffer.from([198, 51, 100, 10]) } };

test('a known name is answered with its address, whatever its case', () => {
  const question = parseQuestion(query('Internet.Example', 1));
  assert.ok(question !== undefined);
  const reply = answer(question, zone);
  assert.equal(reply.readUInt16BE(0), 0x1234);
  assert.equal(reply.readUInt16BE(2) & 15, 0);
  assert.deepEqual([...reply.subarray(-4)], [198, 51, 100, 10]);
});

test('an unknown name does not exist, an absent type of a known one has no data', () => {
  const codes = [query('nowhere.example', 1), query('internet.example', 28)].map((bytes) => {
    const question = parseQuestion(bytes);
    assert.ok(question !== undefined);
    const reply = answer(question, zone);
    return [reply.readUInt16BE(2) & 15, reply.readUInt16BE(6)];
  });
  assert.deepEqual(codes, [
    [3, 0],
    [0, 0],
  ]);
});

test('what is no query is no question', () => {
  for (const bytes of [Buffer.alloc(0), Buffer.alloc(20), query('a.b', 1).subarray(0, 15)]) assert.equal(parseQuestion(bytes), undefined);
});
