import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { parseIp } from '#model/ip.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { createNetns, inNetns, removeNetns } from './netns.ts';
import type { Probe } from './probe-packet.ts';
import { ProbeSockets } from './probe-sockets.ts';
import { Sockets } from './sockets.ts';

mustBeIsolated();

const directory = mkdtempSync(join(tmpdir(), 'causeway-netns-'));
const ip = (...words: string[]): string => execFileSync('ip', words, { encoding: 'utf8' });
const there = (...words: string[]): string => execFileSync('nsenter', [`--net=${directory}/peer`, ...words], { encoding: 'utf8' });

createNetns(directory, 'peer');
ip('link', 'add', 'wire0', 'type', 'veth', 'peer', 'name', 'wire1');
ip('link', 'set', 'wire1', 'netns', `${directory}/peer`);
for (const [run, name, last] of [
  [ip, 'wire0', '1'],
  [(...words: string[]) => there('ip', ...words), 'wire1', '2'],
] as const) {
  run('address', 'add', `192.0.2.${last}/24`, 'dev', name);
  run('-6', 'address', 'add', `2001:db8::${last}/64`, 'dev', name, 'nodad');
  run('link', 'set', name, 'mtu', '1450', 'up');
}
ip('route', 'add', '10.9.2.0/24', 'via', '192.0.2.2');
// The kernel has the port of VXLAN itself then.
there('ip', 'link', 'add', 'cwv1', 'type', 'vxlan', 'id', '1', 'dstport', '8472', 'local', '192.0.2.2');
there('ip', 'link', 'set', 'cwv1', 'up');

const answers = new Set<string>();
const asked: string[] = [];
const allowed = { isAny: true };
const own = new ProbeSockets(new Sockets(directory), {
  answered: (nonce) => answers.add(nonce),
  mayAnswer: () => false,
  now: () => performance.now(),
});
const peer = inNetns(`${directory}/peer`, () => {
  const sockets = new ProbeSockets(new Sockets(directory), {
    answered: () => undefined,
    mayAnswer: (from, to) => {
      asked.push(`${from} ${to}`);
      return allowed.isAny;
    },
    now: () => performance.now(),
  });
  sockets.listen('wire1', { isFiltered: false });
  return sockets;
});
own.listen('wire0', { isFiltered: false });
after(() => {
  own[Symbol.dispose]();
  peer[Symbol.dispose]();
  removeNetns(directory, 'peer');
});

let count = 0;
/** Whether one of some tries is answered, as neighbours have to be found first. */
async function passes(probe: Partial<Probe>, tries = 300): Promise<boolean> {
  const nonces: string[] = [];
  for (let attempt = 0; attempt < tries; attempt++) {
    count += 1;
    const nonce = count.toString(16).padStart(8, '0').repeat(2);
    nonces.push(nonce, nonce.slice(0, 8));
    const whole = { protocol: 'udp', from: parseIp('192.0.2.1'), to: parseIp('192.0.2.2'), sourcePort: 50_000, port: 8472 } as const;
    own.send({ ...whole, ...probe, nonce });
    await setTimeout(100);
    if (nonces.some((sent) => answers.has(sent))) return true;
  }
  return false;
}

test('a datagram to the port of VXLAN is answered while the kernel has that port, and the kernel takes it for none of its own', async () => {
  assert.ok(await passes({}));
  assert.ok(asked.includes('192.0.2.1 192.0.2.2'));
  assert.match(there('ip', '-json', '-stats', 'link', 'show', 'cwv1'), /"rx":\{"bytes":0,"packets":0/);
});

test('so are the first segment of a connection, whether somebody listens or not, addresses of containers, and IPv6', async () => {
  assert.ok(await passes({ protocol: 'tcp', port: 179 }));
  assert.ok(await passes({ from: parseIp('10.9.1.0'), to: parseIp('10.9.2.0'), port: 9 }));
  const six = { from: parseIp('2001:db8::1'), to: parseIp('2001:db8::2') };
  assert.ok(await passes({ ...six }));
  assert.ok(await passes({ ...six, protocol: 'tcp', port: 179 }));
});

test('packets of full size pass, and larger ones than the other end takes are lost', async () => {
  for (const family of [{}, { from: parseIp('2001:db8::1'), to: parseIp('2001:db8::2') }]) {
    assert.ok(await passes({ ...family, size: 1450 }));
    there('ip', 'link', 'set', 'wire1', 'mtu', '1300');
    assert.equal(await passes({ ...family, size: 1450 }, 3), false);
    assert.ok(await passes({ ...family, size: 1300 }));
    there('ip', 'link', 'set', 'wire1', 'mtu', '1450');
  }
});

test('what a filter drops is lost, and nobody else than hosts is answered', async () => {
  there('nft', 'add table netdev drops; add chain netdev drops in { type filter hook ingress device wire1 priority 0; }');
  there('nft', 'add rule netdev drops in udp dport 8472 drop');
  assert.equal(await passes({}, 3), false);
  assert.ok(await passes({ port: 51820 }));
  there('nft', 'delete table netdev drops');
  assert.ok(await passes({}));
  allowed.isAny = false;
  assert.equal(await passes({}, 3), false);
  allowed.isAny = true;
});

test('a link that has gone is no trouble, and one that comes is listened on', async () => {
  inNetns(`${directory}/peer`, () => peer.listen(undefined, { isFiltered: false }));
  assert.equal(await passes({}, 3), false);
  inNetns(`${directory}/peer`, () => peer.listen('absent', { isFiltered: false }));
  inNetns(`${directory}/peer`, () => peer.listen('wire1', { isFiltered: false }));
  assert.ok(await passes({}));
});

test('where others filter, what they let in is answered, and what they drop is not and is told of', async () => {
  inNetns(`${directory}/peer`, () => peer.listen('wire1', { isFiltered: true }));
  const six = { from: parseIp('2001:db8::1'), to: parseIp('2001:db8::2') };
  assert.ok(await passes({}));
  assert.ok(await passes({ ...six }));
  there('nft', 'add table inet others; add chain inet others input { type filter hook input priority 10; policy drop; }');
  there('nft', 'add rule inet others input icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept');
  assert.equal(await passes({}, 3), false);
  assert.equal(await passes({ ...six }, 3), false);
  assert.ok(await passes({ from: parseIp('10.9.1.0'), to: parseIp('10.9.2.0'), port: 9 }), 'nothing comes in to the host there');
  await setTimeout(1_100);
  assert.deepEqual(peer.shut(), [
    { port: 8472, from: '192.0.2.1' },
    { port: 8472, from: '2001:db8::1' },
  ]);
  there('nft', 'add rule inet others input udp dport 8472 accept');
  assert.ok(await passes({}));
  assert.ok(await passes({ ...six }));
  assert.deepEqual(peer.shut(), []);
  there('nft', 'delete table inet others');
});
