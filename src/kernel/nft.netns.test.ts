// The nft kinds against the kernel. `nft` here is the program, a second opinion on what the library did.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { domainTable, hostTable } from '#drivers/guard.ts';
import type { NftElement, NftTable } from '#model/desired.ts';
import { runNft, runNftProgram } from './libnftables.ts';
import { createElementKind, createTableKind, tornText } from './nft.ts';
import { nftContract } from './nft-contract.ts';

mustBeIsolated();

const options = { netnsDirectory: '/nonexistent', empty: new Set<string>() };
const table = createTableKind(options);
const element = createElementKind(options);

function nft(...words: string[]): string {
  const { status, stdout, stderr } = spawnSync('nft', words, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}

nftContract('kernel', { netns: '', absent: 'cw-absent', table, element, tear: (name) => void nft('flush', 'table', 'inet', name) });

const sample: NftTable = {
  netns: '',
  family: 'inet',
  name: 'causeway',
  text: `
  set members4 { type ifname . ether_addr . ipv4_addr; }
  set sources4 { type inet_proto . inet_service . ipv4_addr; flags interval; }
  set sources6 { type inet_proto . inet_service . ipv6_addr; flags interval; }
  set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
  map verdicts { type ifname : verdict; }
  map inside6 { type ipv6_addr : ipv6_addr; }
  chain allowed { accept
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname { "cwup", "lo" } counter accept
    iifname vmap @verdicts
    counter drop comment "nobody"
  }`,
};
const members: NftElement[] = Array.from({ length: 2000 }, (_, index) => ({
  netns: '',
  table: 'causeway',
  set: 'members4',
  key: `"cwe${index}" . 0a:63:0a:00:${(index >> 8).toString(16).padStart(2, '0')}:${(index & 255).toString(16).padStart(2, '0')} . 10.0.${index >> 8}.${index & 255}`,
}));

const of = (set: string, key: string, value?: string): NftElement => ({
  netns: '',
  table: 'causeway',
  set,
  key,
  ...(value === undefined ? {} : { value }),
});
const bySpelling = (left: NftElement, right: NftElement) => (JSON.stringify(left) < JSON.stringify(right) ? -1 : 1);
function addOften(count: number): void {
  for (let index = 0; index < count; index++) element.add(members.slice(0, 1));
}

function loadFresh(): void {
  assert.deepEqual(table.remove([sample]), []);
  assert.deepEqual(table.add([sample]), []);
}

test('every sort of tampering breaks the seal, and traffic and elements do not', () => {
  const isIntact = () => table.list('').some((found) => table.same(sample, found));
  const deeds: string[][] = [
    ['flush', 'chain', 'inet', 'causeway', 'allowed'],
    ['add', 'rule', 'inet', 'causeway', 'forward', 'accept'],
    ['insert', 'rule', 'inet', 'causeway', 'forward', 'accept'],
    ['add', 'chain', 'inet', 'causeway', 'extra'],
    ['delete', 'chain', 'inet', 'causeway', 'cw_seal'],
    ['delete', 'map', 'inet', 'causeway', 'inside6'],
    ['add', 'chain', 'inet', 'causeway', 'forward', '{ policy drop; }'],
  ];
  for (const deed of deeds) {
    assert.deepEqual(table.add([sample]), []);
    assert.equal(isIntact(), true);
    nft(...deed);
    assert.equal(isIntact(), false, deed.join(' '));
  }
  assert.deepEqual(table.add([sample]), []);
  nft('add', 'element', 'inet', 'causeway', 'seen', '{ 1.2.3.4 }');
  nft('reset', 'rules');
  assert.equal(isIntact(), true);
  assert.deepEqual(element.list(''), [], 'what rules add by themselves is not ours');
});

test('a rule that is deleted and put back is noticed', () => {
  assert.deepEqual(table.add([sample]), []);
  nft('flush', 'chain', 'inet', 'causeway', 'allowed');
  nft('add', 'rule', 'inet', 'causeway', 'allowed', 'accept');
  assert.equal(table.list('')[0]?.text, tornText);
});

test('tables of others are neither listed nor touched', () => {
  nft('add', 'table', 'inet', 'filter');
  nft('add', 'table', 'ip', 'causeway');
  assert.deepEqual(
    table.list('').map(({ name }) => name),
    ['causeway'],
  );
  assert.deepEqual(table.remove([sample]), []);
  assert.match(nft('list', 'tables'), /inet filter[^]*ip causeway/);
  nft('delete', 'table', 'ip', 'causeway');
});

test('spellings of all types survive the way to the kernel and back', () => {
  loadFresh();
  const items = [
    of('sources4', 'tcp . 80 . 10.0.0.0/8'),
    of('sources4', 'udp . 1-9 . 0.0.0.0/0'),
    of('sources4', 'tcp . 443 . 1.2.3.4'),
    of('sources6', 'tcp . 443 . 2001:db8::/32'),
    of('sources6', 'sctp . 443 . ::1'),
    of('verdicts', '"cwe1"', 'jump allowed'),
    of('verdicts', '"cwe2"', 'drop'),
    of('inside6', 'fd63:7701::5', 'fd00::5'),
  ];
  assert.deepEqual(element.add(items), []);
  assert.deepEqual(element.list('').toSorted(bySpelling), items.toSorted(bySpelling));
  assert.deepEqual(element.remove(element.list('')), []);
  assert.deepEqual(element.list(''), []);
});

test('the tables of plans load, hold their elements in the spelling of plans, and replace each other', () => {
  loadFresh();
  const items = [
    of('members4', '"cweabcdefghijk" . 0a:63:0a:00:00:05 . 10.0.0.5'),
    of('members6', '"cweabcdefghijk" . 0a:63:0a:00:00:05 . fd00::5'),
    of('ranges4', '10.0.0.0/24'),
    of('ranges6', 'fd00::/64'),
  ];
  const outward = [of('inside4', '100.127.0.1', '10.0.0.5'), of('outside4', '10.0.0.5', '100.127.0.1')];
  const published = [
    of('published4', '192.0.2.1 . tcp . 80', '100.127.0.1 . 8080'),
    of('published6', '2001:db8::1 . tcp . 80', 'fd63:7701::1 . 8080'),
    of('published_any4', 'udp . 53', '100.127.0.1 . 53'),
    of('restricted', 'tcp . 80'),
    of('sources4', 'tcp . 80 . 198.51.100.0/24'),
    of('sources6', 'tcp . 80 . 2001:db8::/32'),
  ];
  const cases: [NftTable, NftElement[]][] = [
    [domainTable('', true), items],
    [domainTable('', false), [...items, ...outward]],
    [hostTable(), [...items, ...published]],
  ];
  for (const [wanted, elements] of cases) {
    assert.deepEqual(table.add([wanted]), []);
    assert.ok(table.list('').some((found) => table.same(wanted, found)));
    assert.deepEqual(element.add(elements), []);
    assert.deepEqual(element.list('').toSorted(bySpelling), elements.toSorted(bySpelling));
  }
  assert.deepEqual(table.add([domainTable('', true)]), []);
  assert.deepEqual(element.list('').toSorted(bySpelling), items.toSorted(bySpelling));
});

test('a set that changes its type loses its elements, the others keep theirs', () => {
  loadFresh();
  assert.deepEqual(element.add(members.slice(0, 5)), []);
  assert.deepEqual(element.add([{ netns: '', table: 'causeway', set: 'inside6', key: 'fd63:7701::5', value: 'fd00::5' }]), []);
  const changed = { ...sample, text: sample.text.replace('map inside6 { type ipv6_addr :', 'map inside6 { type ipv4_addr :') };
  assert.deepEqual(table.add([changed]), []);
  assert.deepEqual(
    element.list('').map(({ set }) => set),
    Array.from({ length: 5 }, () => 'members4'),
  );
});

test('no packet meets a moment without rules or members while a table is replaced', () => {
  // A transaction is seen whole: a listing taken by another process in between has the old or the new generation.
  loadFresh();
  assert.deepEqual(element.add(members.slice(0, 50)), []);
  const watcher = spawn('sh', ['-c', 'while :; do nft list set inet causeway members4 | grep -c cwe49; done']);
  let seen = '';
  watcher.stdout.on('data', (chunk: Buffer) => (seen += chunk.toString()));
  for (let round = 0; round < 40; round++) assert.deepEqual(table.add([{ ...sample, text: `${sample.text}\n  chain c${round} { }` }]), []);
  watcher.kill('SIGKILL');
  assert.ok(!seen.includes('0'));
});

test('a batch of thousands with a few bad ones is one transaction, then as few as find them', () => {
  loadFresh();
  const bad = [17, 900, 1999].map((index) => ({ ...(members[index] as NftElement), key: `"cwe${index}" . nonsense . 10.0.0.1` }));
  const batch = members.map((item, index) => bad.find(({ key }) => key.startsWith(`"cwe${index}" `)) ?? item);
  const failures = element.add(batch);
  assert.deepEqual(
    failures.map(({ item }) => item.key),
    bad.map(({ key }) => key),
  );
  assert.equal(element.list('').length, 1997);
  assert.deepEqual(element.remove(members), []);
  assert.deepEqual(element.list(''), []);
});

test('hostile spellings never reach nft', () => {
  const hostile = ['10.0.0.1 } ; flush ruleset', '10.0.0.1\nflush ruleset', '$x', '{', ''];
  const failures = element.add(hostile.map((key) => ({ netns: '', table: 'causeway', set: 'members4', key })));
  assert.deepEqual(
    failures.map(({ fault }) => fault.code),
    hostile.map(() => 'invalid'),
  );
  assert.equal(table.add([{ ...sample, name: 'causeway_; flush ruleset' }])[0]?.fault.code, 'invalid');
});

test('a table with a mistake is refused whole, and the one there stays', () => {
  loadFresh();
  const [failure] = table.add([{ ...sample, text: `${sample.text}\n  chain broken { no such thing\n }` }]);
  assert.equal(failure?.fault.code, 'kernel');
  assert.ok(table.list('').some((found) => table.same(sample, found)));
});

const leadingTo = (chain: string): string => `
  map verdicts { type ipv4_addr : verdict; }
  chain ${chain} { accept
  }`;

test('a table that no longer has what a verdict leads to is loaded with another verdict, and loses nothing', () => {
  const before = { ...sample, text: leadingTo('old') };
  assert.deepEqual(table.add([before]), []);
  assert.deepEqual(element.add([of('verdicts', '10.0.0.1', 'goto old'), of('verdicts', '10.0.0.2', 'accept')]), []);
  const renewed = [of('verdicts', '10.0.0.1', 'goto new'), of('verdicts', '10.0.0.3', 'drop')];
  const after = { ...before, text: leadingTo('new'), renewed };
  assert.deepEqual([table.add([after]), table.tookAlong?.(after)], [[], true]);
  assert.deepEqual(element.list('').toSorted(bySpelling), [...renewed, of('verdicts', '10.0.0.2', 'accept')].toSorted(bySpelling));
  const third = { ...before, text: leadingTo('third'), renewed: [of('absent', '10.0.0.1', 'accept')] };
  assert.deepEqual([table.add([third]), table.tookAlong?.(third)], [[], false]);
  assert.deepEqual(element.list(''), [], 'a set that cannot be carried over is left out');
});

test('the program answers as the library does', () => {
  for (const run of [runNft, runNftProgram]) {
    assert.equal(run('add table inet causeway_two').error, undefined);
    assert.equal(run('add set inet causeway_two s { type ipv4_addr; }\nadd element inet causeway_two s { 1.2.3.4 }').error, undefined);
    assert.match(run('delete table inet nothing').error ?? '', /No such file/);
    assert.equal(run('delete table inet causeway_two', { check: true }).error, undefined);
  }
  for (const format of ['text', 'json', 'terse'] as const) {
    const [one, two] = [runNft, runNftProgram].map((run) => run('list table inet causeway_two', { format }).output.trim());
    assert.equal(one, two);
  }
  runNft('delete table inet causeway_two');
});

test('a namespace by path is worked in, and the own one is not touched', async () => {
  const other = spawn('unshare', ['-n', 'sh', '-c', 'echo ready; exec sleep 60']);
  try {
    await new Promise((resolve) => other.stdout.once('data', resolve));
    const netns = `/proc/${other.pid}/ns/net`;
    assert.deepEqual(table.remove([sample]), []);
    assert.deepEqual(table.add([{ ...sample, netns }]), []);
    assert.deepEqual(element.add(members.slice(0, 3).map((item) => ({ ...item, netns }))), []);
    assert.equal(element.list(netns).length, 3);
    assert.deepEqual(table.list(''), []);
  } finally {
    other.kill();
  }
});

test('thousands of calls leave no memory behind', () => {
  loadFresh();
  addOften(500);
  const before = process.memoryUsage().rss;
  addOften(2000);
  assert.ok(process.memoryUsage().rss - before < 20e6);
});

/** Packets that the rules have met. */
const counted = (): number[] =>
  Array.from(nft('list', 'chain', 'inet', 'causeway', 'input').matchAll(/packets (\d+)/g), ([, packets]) => Number(packets));

test('elements take the place of others so that no packet meets what is in between', async () => {
  const text = `
  set bad { type ipv4_addr; flags interval; }
  chain input {
    type filter hook input priority filter; policy accept;
    ip saddr @bad udp dport 9 counter drop
    udp dport 9 counter accept
  }`;
  assert.deepEqual([table.remove([sample]), table.add([{ ...sample, text }])], [[], []]);
  const [few, all] = [of('bad', '127.0.0.0/9'), of('bad', '127.0.0.0/8')];
  assert.deepEqual(element.add([few]), []);
  const flood = `
    const socket = require('node:dgram').createSocket('udp4');
    const send = () => { for (let i = 0; i < 50; i++) socket.send('x', 9, '127.0.0.1'); setImmediate(send); };
    socket.bind(0, '127.0.0.5', () => { process.stdout.write('sending'); send(); });`;
  const sender = spawn(process.execPath, ['-e', flood], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await once(sender.stdout, 'data');
    // As many turns as that takes: on a busy machine the sender may get less of it than who exchanges.
    for (let turn = 0; turn < 200 || ((counted()[0] ?? 0) < 1000 && turn < 20_000); turn++) {
      const [gone, come] = turn % 2 === 0 ? [few, all] : [all, few];
      assert.deepEqual(element.exchange?.([gone], [come], new Map()), []);
    }
  } finally {
    sender.kill();
  }
  const [dropped = 0, accepted] = counted();
  assert.ok(dropped >= 1000, `${dropped} dropped`);
  assert.equal(accepted, 0);
  assert.deepEqual(table.remove([sample]), []);
});

test('what is refused of an exchange does not keep the rest', () => {
  assert.deepEqual([table.remove([sample]), table.add([sample])], [[], []]);
  const [old, fresh, nowhere] = [of('members4', members[0]?.key ?? ''), of('members4', members[1]?.key ?? ''), of('nowhere', '1.2.3.4')];
  assert.deepEqual(element.add([old]), []);
  const failures = element.exchange?.([old, of('members4', members[2]?.key ?? '')], [fresh, nowhere], new Map()) ?? [];
  assert.deepEqual(
    failures.map(({ item }) => item),
    [nowhere],
  );
  assert.deepEqual(
    element.list('').map(({ key }) => key),
    [fresh.key],
  );
  assert.deepEqual(table.remove([sample]), []);
});
