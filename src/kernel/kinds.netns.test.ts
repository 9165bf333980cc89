// The contract against the kernel, with ip(8) as the second opinion, and what only the real kinds promise.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { mustBeIsolated } from '#test/isolated.ts';
import { type Desired, emptyDesired, type Route, type Sysctl, type VethLink, type VxlanLink } from '#model/desired.ts';
import { diff } from '#model/diff.ts';
import { parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { type Foreign, kindContract } from './contract.ts';
import type { Kind } from './kind.ts';
import { createKinds, type RealKinds } from './kinds.ts';

mustBeIsolated();

const netnsDirectory = mkdtempSync(join(tmpdir(), 'causeway-netns-'));
let current: RealKinds | undefined;

function clean(): void {
  if (current === undefined) return;
  current.netns.remove(current.netns.list(''));
  current.link.remove(current.link.list(''));
  current[Symbol.dispose]();
  current = undefined;
}
after(clean);

function open(): RealKinds {
  clean();
  current = createKinds({ netnsDirectory });
  return current;
}

/** Runs a program inside a namespace. */
function within(netns: string, ...words: string[]): string {
  const [program = '', ...rest] = netns === '' ? words : ['nsenter', `--net=${netnsDirectory}/${netns}`, ...words];
  return execFileSync(program, rest, { encoding: 'utf8', stdio: 'pipe' });
}

kindContract('kernel', {
  open,
  put(foreign: Foreign) {
    if (foreign.what === 'link') {
      within(foreign.netns, 'ip', 'link', 'add', foreign.name, 'up', 'type', 'bridge');
    } else if (foreign.what === 'addr') {
      within(foreign.netns, 'ip', 'addr', 'add', foreign.address, 'dev', foreign.link);
    } else {
      within(foreign.netns, 'ip', 'route', 'add', foreign.destination, 'dev', foreign.link);
    }
  },
  has(foreign: Foreign) {
    if (foreign.what === 'link') return within(foreign.netns, 'ip', '-o', 'link').includes(`${foreign.name}:`);
    if (foreign.what === 'addr') return within(foreign.netns, 'ip', '-o', 'addr').includes(foreign.address);
    return within(foreign.netns, 'ip', 'route').includes(`${foreign.destination} dev ${foreign.link}`);
  },
});

const veth = (name: string, more: Partial<VethLink> = {}): VethLink => ({
  type: 'veth',
  netns: 'cw-real',
  name,
  mtu: 1400,
  mac: parseMac('02:63:77:ff:ff:01'),
  alias: `causeway test ${name}`,
  peer: { netns: '', name: `cwt${name.slice(3)}`, mac: parseMac('0a:63:0a:00:00:05'), mtu: 1400, up: false },
  ...more,
});

test('a namespace can be entered with ip netns, and its lo is up', () => {
  const kinds = createKinds();
  kinds.netns.add([{ name: 'cw-real' }]);
  assert.match(execFileSync('ip', ['netns', 'exec', 'cw-real', 'ip', 'link', 'show', 'lo'], { encoding: 'utf8' }), /LOOPBACK,UP/);
  kinds.netns.remove([{ name: 'cw-real' }]);
  assert.doesNotMatch(execFileSync('ip', ['netns'], { encoding: 'utf8' }), /cw-real/);
  kinds[Symbol.dispose]();
});

test('the UDP socket of a vxlan stays in the host namespace', () => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  const link: VxlanLink = {
    type: 'vxlan',
    netns: 'cw-real',
    name: 'cwx5',
    mtu: 1350,
    mac: parseMac('02:63:77:00:00:01'),
    alias: 'causeway test',
    vni: 5,
    port: 18472,
    local: parseIp('192.0.2.1'),
    checksum: false,
  };
  assert.deepEqual(kinds.link.add([link]), []);
  assert.deepEqual(
    ['', 'cw-real'].map((netns) => within(netns, 'ss', '-lun').includes(':18472')),
    [true, false],
  );
});

test('a new alias leaves the neighbours of the link alone', () => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  kinds.link.add([veth('cwe1')]);
  const neigh = { netns: 'cw-real', link: 'cwe1', ip: parseIp('10.0.0.5'), mac: parseMac('0a:63:0a:00:00:05') };
  kinds.neigh.add([neigh]);
  assert.deepEqual(kinds.link.add([veth('cwe1', { alias: 'causeway test other' })]), []);
  assert.match(within('cw-real', 'ip', '-d', 'link', 'show', 'cwe1'), /alias causeway test other/);
  const third = veth('cwe1', { alias: 'causeway test third' });
  assert.deepEqual(kinds.link.add([third], new Map([[third, undefined]])), []);
  assert.match(within('cw-real', 'ip', '-d', 'link', 'show', 'cwe1'), /alias causeway test third/);
  assert.deepEqual(kinds.neigh.list('cw-real'), [neigh]);
});

test('a link that has gone while it was believed to be there is made again', () => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  const first = veth('cwe0');
  const links = [first, ...Array.from({ length: 19 }, (_, index) => veth(`cwe${index + 1}`))];
  assert.deepEqual(kinds.link.add(links.slice(1)), []);
  assert.deepEqual(kinds.link.add(links, new Map(links.map((link) => [link, undefined]))), []);
  assert.equal(kinds.link.list('cw-real').length, links.length);
  within('cw-real', 'ip', 'link', 'del', 'cwe0');
  assert.deepEqual(kinds.link.add([first], new Map([[first, undefined]])), []);
  assert.equal(kinds.link.list('cw-real').length, links.length);
});

test('of writes together each finds the link as it is by then', () => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  const address = { netns: 'cw-real', link: 'cwe1', address: parseCidr('10.0.0.5/32') };
  const neigh = { netns: 'cw-real', link: 'cwe1', ip: parseIp('10.0.0.6'), mac: parseMac('0a:63:0a:00:00:06') };
  kinds.together(() => {
    assert.deepEqual(kinds.link.add([veth('cwe1')]), []);
    assert.deepEqual(kinds.addr.add([address]), []);
    assert.deepEqual(kinds.link.remove([veth('cwe1')]), []);
    assert.equal(kinds.neigh.add([neigh])[0]?.fault.errno, 'ENODEV');
    assert.deepEqual(kinds.link.add([veth('cwe1')]), []);
    assert.deepEqual([kinds.addr.add([address]), kinds.neigh.add([neigh])], [[], []]);
  });
  within('cw-real', 'ip', 'link', 'del', 'cwe1');
  assert.equal(kinds.neigh.add([neigh])[0]?.fault.errno, 'ENODEV');
});

test('a namespace that was removed and made again behind our back is not mistaken for the old one', () => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  kinds.link.add([veth('cwe9')]);
  assert.equal(kinds.link.list('cw-real').length, 1);
  execFileSync('umount', [`${netnsDirectory}/cw-real`]);
  assert.deepEqual([...kinds.netns.list(''), ...kinds.link.list('cw-real')], []);
  assert.deepEqual(kinds.netns.add([{ name: 'cw-real' }]), []);
  assert.deepEqual(kinds.link.list('cw-real'), []);
});

test('what the kernel adds by itself is not ours', { timeout: 120_000 }, async ({ signal }) => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  assert.deepEqual(kinds.link.add([veth('cwe2', { peer: { ...veth('cwe2').peer, up: true } })]), []);
  // Its own link-local address comes with the carrier.
  while (!within('cw-real', 'ip', '-6', '-o', 'addr', 'show', 'dev', 'cwe2').includes('fe80::'))
    await setTimeout(10, undefined, { signal });
  const kindsOfThings = ['addr', 'neigh', 'fdb', 'route'] as const;
  assert.deepEqual(
    kindsOfThings.flatMap((kind): readonly unknown[] => [...kinds[kind].list(''), ...kinds[kind].list('cw-real')]),
    [],
  );
});

test('ten thousand routes go in, are listed and go out', () => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  assert.deepEqual(kinds.link.add([veth('cwe1')]), []);
  const routes = Array.from({ length: 10_000 }, (_, index): Route => {
    const destination = parseCidr(index % 2 === 0 ? `10.${index >> 8}.${index & 255}.0/24` : `fd00:${index.toString(16)}::/64`);
    return { netns: 'cw-real', destination, link: 'cwe1', onlink: false, type: 'unicast' };
  });
  assert.equal(kinds.route.add(routes).length, 0);
  assert.equal(kinds.route.list('cw-real').length, routes.length);
  assert.equal(kinds.route.remove(routes).length, 0);
  assert.deepEqual(kinds.route.list('cw-real'), []);
});

test('settings are read before they are written, so that a second process writes nothing', () => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  const item: Sysctl = { netns: 'cw-real', path: 'net/ipv4/conf/default/rp_filter', value: '2' };
  kinds.sysctl.add([item]);
  const after1 = kinds.writes;
  const second = createKinds({ netnsDirectory });
  assert.deepEqual(second.sysctl.add([item]), []);
  assert.deepEqual([after1, second.writes], [2, 0]);
  second[Symbol.dispose]();
});

test('the kernel says why it refuses', () => {
  const kinds = open();
  const route: Route = { netns: '', destination: parseCidr('10.1.0.0/24'), via: parseIp('203.0.113.1'), onlink: false, type: 'unicast' };
  const [failure] = kinds.route.add([route]);
  assert.equal(failure?.fault.message, 'Cannot add route 10.1.0.0/24 via 203.0.113.1: ENETUNREACH (Nexthop has invalid gateway)');
});

test('a process without memory finds everything as it is wanted, and writes nothing', () => {
  const kinds = open();
  const where = { netns: 'cw-real' };
  const over = { link: 'cwe1', onlink: false, type: 'unicast' } as const;
  const [ip, mac] = [parseIp('10.0.0.5'), parseMac('0a:63:0a:00:00:05')];
  const desired: Desired = {
    ...emptyDesired,
    netns: [{ name: 'cw-real' }],
    sysctl: [{ ...where, path: 'net/ipv4/ip_forward', value: '1' }],
    link: [veth('cwe1')],
    addr: [{ ...where, link: 'lo', address: '169.254.1.1/32' }],
    neigh: [{ ...where, link: 'cwe1', ip, mac }],
    route: [{ ...where, destination: parseCidr('10.0.0.5/32'), ...over }],
    table: [{ ...where, family: 'inet', name: 'causeway', text: 'set members4 { type ifname . ether_addr . ipv4_addr; }' }],
    element: [{ ...where, table: 'causeway', set: 'members4', key: `"cwe1" . ${mac} . ${ip}` }],
  };
  for (const name of ['netns', 'sysctl', 'link', 'addr', 'neigh', 'route', 'table', 'element'] as const) {
    assert.deepEqual((kinds[name] as { add(items: readonly unknown[]): unknown[] }).add(desired[name]), []);
  }
  const second = createKinds({ netnsDirectory });
  second.sysctl.add(desired.sysctl);
  const differences = (['netns', 'link', 'addr', 'neigh', 'fdb', 'route', 'table', 'element'] as const).map((name) => {
    const kind = second[name] as Kind<unknown>;
    return diff<unknown>(desired[name], [...kind.list(''), ...kind.list('cw-real')], kind);
  });
  second[Symbol.dispose]();
  assert.deepEqual(new Set(differences.map((difference) => JSON.stringify(difference))), new Set(['{"add":[],"change":[],"remove":[]}']));
  assert.equal(second.writes, 0);
});

test('lists stay right while somebody else changes the tables', async () => {
  const kinds = open();
  kinds.netns.add([{ name: 'cw-real' }]);
  const links = Array.from({ length: 40 }, (_, index) => veth(`cwe${index}`));
  assert.deepEqual(kinds.link.add(links), []);
  assert.deepEqual(kinds.addr.add(links.map(({ name }, index) => ({ netns: 'cw-real', link: name, address: `10.1.0.${index}/32` }))), []);
  const loop = 'for i in $(seq 40); do ip addr add 198.51.100.1/32 dev lo; ip addr del 198.51.100.1/32 dev lo; done';
  const churn = spawn('nsenter', [`--net=${netnsDirectory}/cw-real`, 'sh', '-c', loop]);
  const ended = once(churn, 'exit');
  const counts = new Set<number>();
  while (churn.exitCode === null) {
    counts.add(kinds.addr.list('cw-real').filter(({ link }) => link !== 'lo').length);
    await setTimeout(0);
  }
  await ended;
  assert.deepEqual(counts, new Set([40]));
});
