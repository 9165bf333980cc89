import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import type { Ip } from '#model/ip.ts';
import { flushConntrack, flushConntrackAside } from './conntrack.ts';
import { Sockets } from './sockets.ts';

mustBeIsolated();

using sockets = new Sockets('/nonexistent');
const clients: Socket[] = [];

function run(program: string, ...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}
const tracked = (): string[] =>
  run('conntrack', '-L', '-p', 'udp')
    .split('\n')
    .filter((line) => line !== '');

async function send(address: string, port: number): Promise<void> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  clients.push(socket);
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.send('x', port, address, resolve));
}

before(() => {
  run('ip', 'link', 'set', 'lo', 'up');
  for (const address of ['10.0.0.5/32', '192.0.2.1/32', 'fd00::5/128'])
    run('ip', 'addr', 'add', address, 'dev', 'lo', ...(address.includes(':') ? ['nodad'] : []));
  run(
    'nft',
    'add table inet nat; add chain inet nat out { type nat hook output priority -100; }; add rule inet nat out ct state new ip daddr 192.0.2.1 udp dport 53 dnat ip to 10.0.0.5:5353',
  );
});
after(() => {
  for (const socket of clients) socket.close();
});

test('exactly the selected connections are forgotten', async () => {
  await send('192.0.2.1', 53);
  await send('192.0.2.1', 54);
  await send('10.0.0.5', 5353);
  await send('fd00::5', 53);
  const all = tracked().length;
  assert.equal(all, 4, tracked().join('\n'));
  assert.equal(flushConntrack(sockets, '', [{ protocol: 'tcp' }]), 0);
  assert.equal(flushConntrack(sockets, '', [{ protocol: 'udp', destination: '192.0.2.1' as Ip, destinationPort: 53 }]), 1);
  assert.equal(tracked().length, all - 1);
  assert.equal(flushConntrack(sockets, '', [{ protocol: 'udp', destination: '192.0.2.1' as Ip, destinationPort: 53 }]), 0);
  await send('192.0.2.1', 53);
  assert.equal(
    flushConntrack(sockets, '', [{ replySource: '10.0.0.5' as Ip }, { replySource: '10.0.0.5' as Ip, replySourcePort: 5353 }]),
    2,
  );
  assert.equal(flushConntrack(sockets, '', [{ destination: 'fd00::5' as Ip }]), 1);
  assert.equal(tracked().length, all - 3);
  assert.equal(flushConntrack(sockets, '', [{ protocol: 'udp', destinationPort: 54 }]), 1);
});

test('the same aside, whose walk a thread makes', async () => {
  for (const [address, port] of [
    ['192.0.2.1', 53],
    ['10.0.0.5', 5354],
    ['fd00::5', 54],
  ] as const)
    await send(address, port);
  const all = tracked().length;
  const asked = flushConntrackAside([
    { protocol: 'udp', destination: '192.0.2.1' as Ip, destinationPort: 53 },
    { destination: 'fd00::5' as Ip },
  ]);
  assert.equal(tracked().length, all, 'nothing has been deleted by then');
  assert.equal(await asked, 2);
  assert.equal(tracked().length, all - 2);
  assert.equal(await flushConntrackAside([{ destination: '10.0.0.5' as Ip, destinationPort: 5354, protocol: 'udp' }]), 1);
  assert.equal(await flushConntrackAside([]), 0);
  await assert.rejects(flushConntrackAside([{}]), { code: 'invalid' });
});

test('nothing selected is refused, and an absent namespace has nothing', () => {
  assert.throws(() => flushConntrack(sockets, '', [{}]), { code: 'invalid' });
  assert.throws(() => flushConntrack(sockets, '', [{ destination: undefined }]), { code: 'invalid' });
  assert.equal(flushConntrack(sockets, '', []), 0);
  assert.equal(flushConntrack(sockets, 'cw-absent', [{ protocol: 'udp' }]), 0);
});
