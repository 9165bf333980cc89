import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Fault, isFault } from '#model/fault.ts';
import { checkMachine, type Identity, machineOf, readIdentity, writeIdentity } from './identity.ts';

const folder = mkdtempSync(join(tmpdir(), 'causeway-identity-'));
after(() => rmSync(folder, { recursive: true }));
let places = 0;

function faultOf(fn: () => void): Fault | undefined {
  try {
    fn();
  } catch (error) {
    return isFault(error) ? error : assert.fail('no Fault');
  }
  return undefined;
}

const newPlace = (): string => join(folder, String((places += 1)));
const identity: Identity = {
  host: 'a',
  generation: 2,
  controllers: ['https://10.0.0.5:7480'],
  key: 'key',
  certificate: 'certificate',
  ca: 'ca',
};

test('an identity that was written is read, by its owner only', () => {
  const place = newPlace();
  assert.equal(readIdentity(place), undefined);
  writeIdentity(place, identity);
  writeIdentity(place, { ...identity, generation: 3 });
  assert.deepEqual(readIdentity(place), { ...identity, generation: 3 });
  assert.deepEqual(
    [statSync(join(place, 'identity.json')).mode & 0o777, statSync(place).mode & 0o777, readdirSync(place)],
    [0o600, 0o700, ['identity.json']],
  );
});

test('a leftover of a write that was cut short is not looked at', () => {
  const place = newPlace();
  writeIdentity(place, identity);
  writeFileSync(join(place, 'identity.json.new'), '{"host"');
  assert.deepEqual(readIdentity(place), identity);
  writeIdentity(place, { ...identity, generation: 9 });
  assert.deepEqual([readIdentity(place)?.generation, readdirSync(place)], [9, ['identity.json']]);
});

const damages: readonly (readonly [string, string])[] = [
  ['an empty file', ''],
  ['a cut file', JSON.stringify(identity).slice(0, 40)],
  ['another document', '[]'],
  ['a field of another type', JSON.stringify({ ...identity, generation: '2' })],
  ['a missing field', JSON.stringify({ ...identity, key: undefined })],
  ['no text at all', '\u0000\u0001\u0002'],
];
for (const [what, text] of damages) {
  test(`${what} is corrupt, says what to do and is left alone`, () => {
    const place = newPlace();
    writeIdentity(place, identity);
    writeFileSync(join(place, 'identity.json'), text);
    assert.throws(
      () => readIdentity(place),
      (error) => isFault(error, 'corrupt') && error.hint !== undefined && error.message.includes(place),
    );
    assert.deepEqual(readdirSync(place), ['identity.json']);
  });
}

test('a folder in its place is corrupt', () => {
  const place = newPlace();
  mkdirSync(join(place, 'identity.json'), { recursive: true });
  assert.throws(() => readIdentity(place), { code: 'corrupt' });
});

test('a place where nothing can be written is unavailable, with a hint', () => {
  const place = newPlace();
  writeFileSync(place, 'a file, not a folder');
  assert.throws(
    () => writeIdentity(place, identity),
    (error) => isFault(error, 'unavailable') && error.hint !== undefined,
  );
});

test('a machine is named by its machine-id, which is not told; without one it has no name', () => {
  const place = newPlace();
  mkdirSync(place);
  const file = join(place, 'machine-id');
  assert.equal(machineOf(file), undefined);
  writeFileSync(file, 'uninitialized\n');
  assert.equal(machineOf(file), undefined);
  writeFileSync(file, '0123456789abcdef0123456789abcdef\n');
  const name = machineOf(file) ?? assert.fail();
  assert.match(name, /^[0-9a-f]{32}$/);
  assert.notEqual(name, '0123456789abcdef0123456789abcdef');
});

for (const [what, joined, now, isRefused] of [
  ['another machine', 'one', 'two', true],
  ['the same machine', 'one', 'one', false],
  ['a machine without a name', 'one', undefined, false],
  ['a machine, before machines were written down', undefined, 'two', false],
] as const) {
  test(`an identity is ${isRefused ? 'refused on' : 'good on'} ${what}`, () => {
    const expected = isRefused ? ['stale', true] : [undefined, false];
    const fault = faultOf(() => checkMachine('/var/lib/causeway', { ...identity, machine: joined }, now));
    assert.deepEqual([fault?.code, /empty \/var\/lib\/causeway and join/.test(fault?.hint ?? '')], expected);
  });
}
