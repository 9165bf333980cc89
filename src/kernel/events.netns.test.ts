// Drift against the kernel: everything of ours that somebody else changes is noticed, nothing else is.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { mustBeIsolated } from '#test/isolated.ts';
import { parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { Events } from './events.ts';
import { createKinds } from './kinds.ts';
import { Sockets } from './sockets.ts';

mustBeIsolated();

const netnsDirectory = mkdtempSync(join(tmpdir(), 'causeway-netns-'));
const netns = 'cw-watched';
let seen: (string | undefined)[] = [];
let wake: () => void = () => undefined;
const kinds = createKinds({
  netnsDirectory,
  onDrift: (where) => {
    seen.push(where);
    wake();
  },
});
after(() => {
  kinds.netns.remove(kinds.netns.list(''));
  kinds[Symbol.dispose]();
});

/** Where drift is reported first, for which nobody waits longer than that; undefined when nowhere. */
async function drift(patienceMs = 60_000): Promise<string | undefined> {
  if (seen.length === 0) {
    const over = new AbortController();
    const reported = new Promise<void>((resolve) => (wake = resolve));
    await Promise.race([reported, setTimeout(patienceMs, undefined, { signal: over.signal }).catch(() => undefined)]);
    over.abort();
  }
  const [first] = seen;
  seen = [];
  return first;
}

/** What programs have done that have ended is heard of: the kernel raises its signal before, which is taken up between timers and this. */
async function heard(): Promise<void> {
  await setTimeout(20);
  await setImmediate();
}

/** None is reported in two seconds, or what was until then is over. */
const noDrift = (): Promise<string | undefined> => drift(2000);

function run(command: string): void {
  const [program = '', ...words] = command.split(' ');
  const result = spawnSync(program, words, { encoding: 'utf8' });
  assert.equal(result.status, 0, `${command}: ${result.stderr}`);
}
const inside = (command: string): void => run(`nsenter --net=${netnsDirectory}/${netns} ${command}`);

const mac = parseMac('0a:63:0a:00:00:05');
const peer = { netns: '', name: 'cwt1', mac, mtu: 1400, up: false };

/** Everything of ours, as it must be. */
function restore(): void {
  const where = { netns };
  kinds.netns.add([{ name: netns }]);
  kinds.link.add([{ type: 'veth', ...where, name: 'cwe1', mtu: 1400, mac: parseMac('02:63:77:ff:ff:01'), alias: 'causeway test', peer }]);
  const vxlan = { type: 'vxlan', ...where, name: 'cwx7', mtu: 1350, mac: parseMac('02:63:77:00:00:01'), alias: 'causeway test' } as const;
  kinds.link.add([{ ...vxlan, vni: 7, port: 8472, local: parseIp('192.0.2.1'), checksum: false }]);
  kinds.addr.add([
    { ...where, link: 'lo', address: '169.254.1.1/32' },
    { ...where, link: 'cwe1', address: 'fe80::1/64' },
  ]);
  for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding']) kinds.sysctl.add([{ ...where, path, value: '1' }]);
  kinds.sysctl.add([{ ...where, path: 'net/ipv4/conf/all/rp_filter', value: '0' }]);
  kinds.neigh.add([{ ...where, link: 'cwe1', ip: parseIp('10.0.0.5'), mac }]);
  kinds.fdb.add([{ ...where, link: 'cwx7', mac: parseMac('02:63:77:00:00:02'), remote: parseIp('192.0.2.2') }]);
  const over = { link: 'cwe1', onlink: false, type: 'unicast' } as const;
  kinds.route.add([
    { ...where, destination: parseCidr('10.0.0.5/32'), ...over },
    { ...where, destination: parseCidr('fd00::5/128'), ...over },
  ]);
  const text = 'chain c { type filter hook prerouting priority 0; policy accept; counter accept comment "ours"\n }';
  kinds.table.add([{ ...where, family: 'inet', name: 'causeway', text }]);
}

test('our own writes are no drift', async () => {
  restore();
  restore();
  kinds.netns.add([{ name: 'cw-short' }]);
  kinds.netns.remove([{ name: 'cw-short' }]);
  assert.equal(await noDrift(), undefined);
});

test('tables and elements need no listing as long as only we, or others elsewhere, change them', async () => {
  kinds.netns.remove([{ name: netns }]);
  restore();
  const isTold = (): boolean[] => [kinds.table, kinds.element].map((kind) => kind.isTold?.(netns) === true);
  const list = (): void => [kinds.table, kinds.element].forEach((kind) => void kind.list(netns));
  assert.deepEqual(isTold(), [false, false], 'never listed');
  list();
  assert.deepEqual(isTold(), [true, true]);
  const text = 'set s { type ipv4_addr\n }\nchain c { type filter hook prerouting priority 0; policy accept; ip saddr @s drop\n }';
  assert.deepEqual(kinds.table.add([{ netns, family: 'inet', name: 'causeway', text }]), []);
  const element = { netns, table: 'causeway', set: 's', key: '10.0.0.7' };
  assert.deepEqual(kinds.element.add([element]), []);
  inside('nft add table inet foreign');
  assert.deepEqual(isTold(), [true, true]);
  seen = [];
  inside('nft delete element inet causeway s { 10.0.0.7 }');
  assert.deepEqual(isTold(), [false, false], 'before drift is told of');
  assert.equal(await drift(), netns);
  assert.deepEqual(isTold(), [false, false], 'until it is listed again');
  list();
  assert.deepEqual(isTold(), [true, true]);
});

test('what others do to tables at the very time of our writes is drift', async () => {
  restore();
  using sockets = new Sockets(netnsDirectory);
  const told: (string | undefined)[] = [];
  using events = new Events(sockets, (where) => told.push(where));
  for (const change of ['nft add table inet foreign2', 'nft add set inet causeway s2 { type ipv4_addr; }']) {
    told.splice(0);
    events.listed(netns, 'element');
    events.quiet(() => events.transact([netns], () => inside(change)));
    await heard();
    assert.deepEqual(told, [netns]);
    assert.equal(events.isTold(netns, 'element'), false);
  }
});

test('of changes of our own that are more than there is room for nothing is lost', async () => {
  restore();
  const table = { netns, family: 'inet', name: 'causeway', text: 'map m { type ipv4_addr . inet_service : verdict\n }' } as const;
  kinds.table.add([table]);
  kinds.element.list(netns);
  await noDrift();
  const elements = Array.from({ length: 250_000 }, (_, number) => ({
    netns,
    table: 'causeway',
    set: 'm',
    key: `10.${number >> 16}.${(number >> 8) & 255}.${number & 255} . 80`,
    value: 'drop',
  }));
  assert.deepEqual(kinds.element.add(elements), []);
  assert.equal(kinds.element.isTold?.(netns), true);
  kinds.element.remove(elements);
  assert.equal(kinds.element.isTold?.(netns), true);
  assert.equal(await noDrift(), undefined);
});

test("changes of others' tables on the host are counted, our own are not", async () => {
  restore();
  await noDrift();
  const before = kinds.othersTables ?? Number.NaN;
  kinds.table.remove(kinds.table.list(netns));
  restore();
  inside('nft add table ip filter');
  await heard();
  assert.equal(kinds.othersTables, before);
  run('nft add table ip filter');
  await heard();
  assert.equal(kinds.othersTables, before + 1);
  run('nft delete table ip filter');
  await noDrift();
});

test(
  'of what iptables says only what is forwarded is counted',
  { skip: spawnSync('iptables', ['-S']).status !== 0 && 'no iptables here' },
  async () => {
    const counted = async (command: string): Promise<number> => {
      const before = kinds.othersTables ?? Number.NaN;
      run(command);
      await heard();
      return (kinds.othersTables ?? Number.NaN) - before;
    };
    run('iptables -N OTHERS');
    run('iptables -t nat -N OTHERS');
    await heard();
    for (const command of ['iptables -A OTHERS -j RETURN', 'iptables -t nat -A OTHERS -j RETURN', 'iptables -t nat -F OTHERS'])
      assert.equal(await counted(command), 0, command);
    for (const command of ['iptables -P FORWARD DROP', 'iptables -A FORWARD -j OTHERS', 'iptables -F FORWARD', 'iptables -N DOCKER-USER'])
      assert.ok((await counted(command)) > 0, command);
  },
);

test('what does not concern us is no drift', async () => {
  restore();
  run('ip link add foreign0 type bridge');
  run('ip route add 198.51.100.0/24 dev lo');
  run('nft add table inet foreign');
  inside('nft add table inet foreign');
  inside('ip link add foreign1 type bridge');
  // As an engine does it: the far end is renamed, goes away, comes up.
  run('ip link set cwt1 name eth9');
  run('ip link set eth9 up');
  assert.equal(await noDrift(), undefined);
  run('ip link del foreign0');
  assert.equal(await noDrift(), undefined);
});

for (const command of [
  'ip route del 10.0.0.5',
  'ip -6 route del fd00::5',
  'ip route add 10.0.9.0/24 dev cwe1 proto 197',
  'ip neigh del 10.0.0.5 dev cwe1',
  'ip neigh replace 10.0.0.5 lladdr 0a:63:0a:00:00:09 dev cwe1 nud permanent',
  'ip addr del 169.254.1.1/32 dev lo',
  'ip addr del fe80::1/64 dev cwe1',
  'ip addr add fe80::5/64 dev cwe1',
  'ip addr add 10.0.0.77/32 dev cwe1',
  'bridge fdb del 02:63:77:00:00:02 dev cwx7',
  'bridge fdb replace 02:63:77:00:00:02 dst 192.0.2.9 dev cwx7',
  'ip link set cwe1 mtu 1300',
  'ip link set cwe1 down',
  'ip link set cwe1 name other',
  'ip link del cwx7',
  'sysctl -qw net.ipv4.ip_forward=0',
  'sysctl -qw net.ipv6.conf.all.forwarding=0',
  'sysctl -qw net.ipv4.conf.all.rp_filter=1',
  'nft flush table inet causeway',
  'nft delete table inet causeway',
  'nft flush ruleset',
]) {
  test(`drift is noticed: ${command}`, async () => {
    kinds.netns.remove([{ name: netns }]);
    restore();
    seen = [];
    inside(command);
    assert.equal(await drift(), netns);
  });
}

for (const command of ['ip link del cww7', 'ip link set cww7 down']) {
  test(`drift is noticed: ${command}`, async () => {
    restore();
    // What wireguard-go makes.
    inside('ip tuntap add mode tun name cww7');
    inside('ip link set cww7 up');
    await noDrift();
    seen = [];
    inside(command);
    assert.equal(await drift(), netns);
    kinds.netns.remove([{ name: netns }]);
  });
}

test('drift is noticed: the namespace loses its name', async () => {
  restore();
  seen = [];
  run(`umount ${netnsDirectory}/${netns}`);
  run(`rm ${netnsDirectory}/${netns}`);
  assert.notEqual(await drift(), undefined);
});
