// The store of the reference IPAM plugin as it is found on hosts: with locks, leftovers and addresses of both families.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { MemoryJournal } from '#agent/journal.ts';
import { endpointId } from './attachments.ts';
import { readHostLocal, releaseHostLocal, takenByOthers } from './host-local.ts';
import { AttachmentRecords } from './records.ts';

function store(t: TestContext, files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-host-local-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(join(folder, file, '..'), { recursive: true });
    writeFileSync(join(folder, file), content);
  }
  return folder;
}

test('addresses of every network, and nothing else', (t) => {
  const folder = store(t, {
    'cbr0/10.244.1.7': 'abc\r\neth0',
    'cbr0/fd00::7': 'abc\r\neth0',
    'cbr0/10.244.1.8': 'old-release',
    'cbr0/last_reserved_ip.0': '10.244.1.8',
    'cbr0/lock': '',
    'other/10.9.0.1': 'def\neth1',
    'a-file': '',
  });
  assert.deepEqual(readHostLocal(folder), [
    { ip: '10.244.1.7', containerId: 'abc', ifname: 'eth0' },
    { ip: '10.244.1.8', containerId: 'old-release', ifname: '' },
    { ip: 'fd00::7', containerId: 'abc', ifname: 'eth0' },
    { ip: '10.9.0.1', containerId: 'def', ifname: 'eth1' },
  ]);
  assert.deepEqual(readHostLocal(join(folder, 'nowhere')), []);
});

test('what containers of ours have from it is not taken by others', (t) => {
  const folder = store(t, { 'pods/10.244.1.7': 'abc\r\neth0', 'cbr0/10.244.1.8': 'def\r\neth0' });
  const journal = new MemoryJournal();
  const attachment = { name: 'pods', containerId: 'abc', ifname: 'eth0' };
  new AttachmentRecords(journal).put(endpointId(attachment), { ...attachment, netns: '/run/netns/a' });
  assert.deepEqual(takenByOthers(journal, folder), ['10.244.1.8']);
});

test('what a container had that another system attached is given back with its link, and nothing else', (t) => {
  const files = {
    'cbr0/10.244.1.7': 'abc\r\neth0',
    'cbr0/fd00::7': 'abc\r\neth0',
    'cbr0/10.244.1.9': 'abc',
    'lan/10.98.0.7': 'abc\r\nnet1',
    'cbr0/10.244.1.8': 'abcd\r\neth0',
    'cbr0/last_reserved_ip.0': 'abc',
  };
  const folder = store(t, files);
  releaseHostLocal({ containerId: 'abc', ifname: 'eth0' }, folder);
  assert.deepEqual(
    readHostLocal(folder).map(({ ip }) => ip),
    ['10.244.1.8', '10.98.0.7'],
  );
  releaseHostLocal({ containerId: 'abc', ifname: 'eth0' }, join(folder, 'nowhere'));
});
