import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import type { Attachment } from '#model/desired.ts';
import { isFault } from '#model/fault.ts';
import { hostPrefix, parseIp, parseMac } from '#model/ip.ts';
import { type FoundAttachment, inspectAttachment, repairAttachment } from './attachment.ts';
import { createKinds } from './kinds.ts';
import { createNetns, removeNetns } from './netns.ts';

mustBeIsolated();

const directory = mkdtempSync(join(tmpdir(), 'causeway-netns-'));
const sandbox = `${directory}/sandbox`;
const kinds = createKinds({ netnsDirectory: directory });
after(() => {
  kinds.netns.remove([{ name: 'cw-a' }]);
  removeNetns(directory, 'sandbox');
  kinds[Symbol.dispose]();
});
kinds.netns.add([{ name: 'cw-a' }]);
createNetns(directory, 'sandbox');

const attachment: Attachment = {
  netns: sandbox,
  mac: parseMac('0a:63:0a:00:00:05'),
  mtu: 1400,
  addresses: [hostPrefix(parseIp('10.0.0.5')), hostPrefix(parseIp('fd00::5'))],
  gateways: [parseIp('169.254.1.1'), parseIp('fe80::1')],
  host: { netns: 'cw-a', name: 'cwe5' },
};
const options = { link: kinds.link, alias: 'causeway test' };
const inside = (...words: string[]): string => execFileSync('nsenter', [`--net=${sandbox}`, 'ip', ...words], { encoding: 'utf8' });

const whole = {
  addresses: ['10.0.0.5/32', 'fd00::5/128'],
  defaults: ['0.0.0.0/0', '::/0'],
  routes: ['0.0.0.0/0 169.254.1.1', '169.254.1.1/32', '::/0 fe80::1'],
};
const isOfTheKernel = (text: string): boolean => text.startsWith('fe80:') || text.startsWith('fd00:');
const asFound = ({ addresses, defaults, routes }: FoundAttachment): typeof whole => ({
  addresses: addresses.filter((address) => !address.startsWith('fe80:')).toSorted(),
  defaults: defaults.toSorted(),
  routes: routes
    .map(({ destination, via }) => `${destination} ${via ?? ''}`.trim())
    .filter((text) => !isOfTheKernel(text))
    .toSorted(),
});
const found = (): typeof whole => asFound(inspectAttachment(sandbox, attachment.mac) ?? assert.fail());

test('a lost end is made again, whole, and needs nothing more', () => {
  assert.equal(inspectAttachment(sandbox, attachment.mac), undefined);
  const { written, leadsOut, end } = repairAttachment(attachment, options);
  assert.deepEqual([written, leadsOut], [true, true]);
  assert.deepEqual(found(), whole);
  assert.deepEqual(asFound(end), whole, 'what is answered is what is there');
  assert.equal(repairAttachment(attachment, options).written, false);
  const [ours] = kinds.link.list('cw-a');
  assert.equal(ours?.alias, 'causeway test');
});

test('what somebody took away inside comes back', () => {
  for (const loss of [
    ['addr', 'del', '10.0.0.5/32', 'dev', 'eth0'],
    ['route', 'del', 'default'],
    ['-6', 'route', 'del', 'default'],
    ['link', 'set', 'eth0', 'down'],
  ]) {
    inside(...loss);
    const { written, end } = repairAttachment(attachment, options);
    assert.equal(written, true, loss.join(' '));
    assert.deepEqual(found(), whole);
    assert.deepEqual(asFound(end), whole);
  }
});

test('a renamed link is recognised, and the MTU follows', () => {
  inside('link', 'set', 'eth0', 'name', 'lan7');
  assert.equal(repairAttachment({ ...attachment, mtu: 1380 }, options).written, true);
  const state = inspectAttachment(sandbox, attachment.mac);
  assert.deepEqual([state?.name, state?.mtu], ['lan7', 1380]);
});

test('an end that has one of its addresses is spared all but the MTU', () => {
  for (const loss of [
    ['addr', 'del', 'fd00::5/128'],
    ['route', 'del', 'default'],
  ])
    inside(...loss, 'dev', 'lan7');
  const sparing = { ...options, isSparing: true };
  const { written, isSpared, leadsOut, end } = repairAttachment(attachment, sparing);
  assert.deepEqual([written, isSpared, leadsOut, end.mtu], [true, true, false, attachment.mtu]);
  const left = { addresses: ['10.0.0.5/32'], defaults: ['::/0'], routes: whole.routes.slice(1) };
  assert.deepEqual([found(), asFound(end)], [left, left]);
  assert.equal(repairAttachment(attachment, sparing).written, false);
  inside('addr', 'del', '10.0.0.5/32', 'dev', 'lan7');
  assert.equal(repairAttachment(attachment, sparing).isSpared, false);
  assert.deepEqual(found(), whole);
});

test('a default route over another network stays', () => {
  inside('link', 'add', 'other0', 'type', 'bridge');
  inside('link', 'set', 'other0', 'up');
  inside('route', 'del', 'default');
  inside('route', 'add', 'default', 'dev', 'other0');
  repairAttachment(attachment, options);
  assert.match(inside('route'), /^default dev other0/m);
});

test('without its namespace there is nothing to repair', () => {
  assert.throws(
    () => repairAttachment({ ...attachment, netns: `${directory}/gone` }, options),
    (error) => isFault(error, 'kernel') && error.errno === 'ENOENT',
  );
});
