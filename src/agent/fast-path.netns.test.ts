// A fast path may only ever be faster: two hosts, three containers, the same frames and streams with and without it, and
// everything that arrives anywhere must be the same.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { mustBeIsolated } from '#test/isolated.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { probeFast } from '#kernel/fast.ts';
import { createKinds, type RealKinds } from '#kernel/kinds.ts';
import { openUdp } from '#kernel/libc.ts';
import { inNetns } from '#kernel/netns.ts';
import { type Desired, emptyDesired } from '#model/desired.ts';
import { familyOf, parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { domainName, endpointLink, gatewayMac } from '#model/numbers.ts';
import type { Endpoint, Host, LocalEndpoint, Network, Snapshot } from '#model/resources.ts';
import { type End, framesOf, sum16 } from './fast-frames.fixture.ts';
import { Reconciler } from './reconcile.ts';

mustBeIsolated();

const has = (program: string): boolean => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
const missing = !probeFast() ? 'tc programs in this kernel' : (['socat', 'tcpdump', 'tc'].find((program) => !has(program)) ?? '');
const skip = missing === '' ? false : `missing: ${missing}`;
const options = { skip, timeout: 120_000 };

const network = makeNetwork('fastpath00', { vni: 77 });
const internalNetwork = { ...network, internal: true };
const pool4 = makePool(network.id, parseCidr('10.0.0.0/24'), 26);
const pool6 = makePool(network.id, parseCidr('fd00:7:7::/56'), 64);
// The other host's underlay carries less, so that routes have an MTU of their own.
const one = makeHost(1);
const two = makeHost(2, { underlay: [{ interface: 'eth0', ip: parseIp('10.213.0.2'), subnet: parseCidr('10.213.0.0/16'), mtu: 1400 }] });
const endpoint = (host: Host, number: number, last: number, subnet: number): Endpoint =>
  makeEndpoint(network.id, host.id, number, [parseIp(`10.0.0.${last}`), parseIp(`fd00:7:7:${subnet}::${last}`)]);
const client = endpoint(one, 1, 2, 0);
const neighbour = endpoint(one, 2, 3, 0);
const far = endpoint(two, 3, 66, 1);
const snapshotWith = (known: Network): Snapshot =>
  snapshotOf({
    hosts: [one, two],
    networks: [known],
    pools: [pool4, pool6],
    blocks: [makeBlock(pool4, 0, one.id), makeBlock(pool4, 1, two.id), makeBlock(pool6, 0, one.id), makeBlock(pool6, 1, two.id)],
    endpoints: [client, neighbour, far],
  });
const sandboxOf = ({ owner }: Endpoint): string => `/run/netns/${owner}`;
const placed = (list: readonly Endpoint[]): LocalEndpoint[] =>
  list.map((item, index) => ({ endpoint: item, slot: index + 1, sandbox: sandboxOf(item), ifname: 'eth0' }));

function run(program: string, ...words: string[]): string {
  return execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
const ip = (...words: string[]): string => run('ip', ...words);

class Bed implements Disposable {
  readonly self: Host;
  readonly place: string;
  readonly kinds: RealKinds;
  readonly reconciler: Reconciler;
  readonly directory: string = mkdtempSync(join(tmpdir(), 'causeway-fast-'));
  readonly local: readonly LocalEndpoint[];
  internal = false;
  drifted: (netns: string | undefined) => void = () => undefined;

  constructor(self: Host, local: readonly LocalEndpoint[]) {
    this.self = self;
    this.place = `/run/netns/${self.id}`;
    this.local = local;
    this.kinds = inNetns(this.place, () => createKinds({ netnsDirectory: this.directory, onDrift: (netns) => this.drifted(netns) }));
    this.reconciler = new Reconciler(this.kinds);
  }

  get domain(): string {
    return join(this.directory, domainName(network.id));
  }

  desired(fast: boolean): Desired {
    const planned = plan(snapshotWith(this.internal ? internalNetwork : network), this.local, this.self);
    return fast ? planned : { ...planned, fast: [] };
  }

  apply(fast: boolean): number {
    const outcome = inNetns(this.place, () => this.reconciler.apply(this.desired(fast), true));
    assert.deepEqual(
      outcome.failing.map(({ fault }) => fault.message),
      [],
    );
    return outcome.changed;
  }

  /** Packets that the domain's IP layers have forwarded. */
  forwarded(): number {
    const text = run('nsenter', `--net=${this.domain}`, 'cat', '/proc/net/snmp', '/proc/net/snmp6');
    const four = /^Ip: (\d.*)$/m.exec(text)?.[1]?.split(' ')[5];
    return Number(four) + Number(/Ip6OutForwDatagrams\s+(\d+)/.exec(text)?.[1]);
  }

  [Symbol.dispose](): void {
    inNetns(this.place, () => this.reconciler.apply(emptyDesired, true));
    this.kinds[Symbol.dispose]();
    run('umount', '-l', this.directory);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const beds: Bed[] = [];
const started: ChildProcess[] = [];
const inside = (of: Endpoint, ...words: string[]): string => run('nsenter', `--net=${sandboxOf(of)}`, ...words);

function start(of: Endpoint, ...words: string[]): ChildProcess {
  const child = spawn('nsenter', [`--net=${sandboxOf(of)}`, ...words], { stdio: ['pipe', 'pipe', 'pipe'] });
  started.push(child);
  return child;
}

before(() => {
  if (skip !== false) return;
  mkdirSync('/run/netns', { recursive: true });
  for (const host of [one, two]) ip('netns', 'add', host.id);
  ip('-n', one.id, 'link', 'add', 'eth0', 'mtu', '1450', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', two.id);
  for (const host of [one, two]) {
    ip('-n', host.id, 'addr', 'add', `${host.underlay[0]?.ip}/16`, 'dev', 'eth0');
    ip('-n', host.id, 'link', 'set', 'eth0', 'up');
  }
  for (const item of [client, neighbour, far]) ip('netns', 'add', item.owner);
  beds.push(new Bed(one, placed([client, neighbour])), new Bed(two, placed([far])));
  for (const bed of beds) bed.apply(false);
  for (const item of [client, neighbour, far]) {
    const on = (...words: string[]): string => ip('-n', item.owner, ...words);
    for (const address of item.addresses) on('addr', 'add', address, 'dev', 'eth0', 'nodad');
    on('link', 'set', 'lo', 'up');
    on('link', 'set', 'eth0', 'up');
    on('route', 'add', 'default', 'via', '169.254.1.1', 'dev', 'eth0', 'onlink');
    on('-6', 'route', 'add', 'default', 'via', 'fe80::1', 'dev', 'eth0', 'onlink');
  }
  const unlimited = ['net.ipv4.icmp_ratelimit=0', 'net.ipv4.icmp_msgs_per_sec=100000', 'net.ipv6.icmp.ratelimit=0'];
  for (const place of [...beds.flatMap(({ domain, place: host }) => [domain, host]), ...[client, neighbour, far].map(sandboxOf)]) {
    spawnSync('nsenter', [`--net=${place}`, 'sysctl', '-q', '-w', ...unlimited]);
  }
});

after(() => {
  for (const child of started) child.kill();
  for (const bed of beds) bed[Symbol.dispose]();
});

/** Waits until something holds, for ten seconds. */
async function until(what: string, holds: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 10_000; !holds(); await setTimeout(1)) {
    assert.ok(performance.now() < deadline, `timed out: ${what}`);
  }
}

/** Everything that arrives at a container from here on, one string of hex digits a frame. */
async function capture(of: Endpoint): Promise<{ readonly frames: () => Buffer[]; readonly stop: () => void }> {
  const child = start(of, 'tcpdump', '--immediate-mode', '-U', '-n', '-Q', 'in', '-B', '8192', '-i', 'eth0', '-w', '-');
  let bytes = Buffer.alloc(0);
  let said = '';
  child.stdout?.on('data', (chunk: Buffer) => (bytes = Buffer.concat([bytes, chunk])));
  child.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await until('tcpdump to listen', () => said.includes('listening on'));
  return {
    frames() {
      const frames: Buffer[] = [];
      for (let at = 24; at + 16 <= bytes.length;) {
        const length = bytes.readUInt32LE(at + 8);
        if (at + 16 + length > bytes.length) break;
        frames.push(bytes.subarray(at + 16, at + 16 + length));
        at += 16 + length;
      }
      return frames;
    },
    stop: () => void child.kill(),
  };
}

/** Sends frames as they are from the client's link. socat makes one of each datagram. */
async function inject(frames: readonly Buffer[]): Promise<void> {
  const sender = start(client, 'socat', '-u', '-b', '65536', 'UDP4-RECV:4000,bind=127.0.0.1,rcvbuf=4194304', 'INTERFACE:eth0');
  await until('socat to listen', () => inside(client, 'cat', '/proc/net/udp').includes(':0FA0 '));
  const fd = inNetns(sandboxOf(client), () => openUdp({ ip: parseIp('127.0.0.1'), port: 4001 }));
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind({ fd }, resolve));
  for (const bytes of frames) {
    await new Promise((resolve) => socket.send(bytes, 4000, '127.0.0.1', resolve));
    // One after the other, so that none is dropped for want of room.
    await until('socat to take a frame', () =>
      / 00000000:00000000 /.test(
        /^.*:0FA0 .*$/m.exec(inNetns(sandboxOf(client), () => readFileSync('/proc/thread-self/net/udp', 'utf8')))?.[0] ?? '',
      ),
    );
  }
  socket.close();
  sender.kill();
}

const marker = 'the last one';

/** A frame as text; what the kernel numbers by chance in packets of its own is left out. */
function comparable(bytes: Buffer): string {
  const copy = Buffer.from(bytes);
  if (copy.readUInt16BE(12) === 0x0800 && copy.readUInt16BE(18) !== 0x1234) {
    assert.equal(sum16(copy.subarray(14, 14 + 4 * ((copy[14] ?? 0) & 15))), 0xffff, 'a header checksum is right');
    copy.fill(0, 18, 20);
    copy.fill(0, 24, 26);
  }
  return copy.toString('hex');
}

/** What comes when it pleases: neighbour discovery, MLD, ARP, and `no route` messages, of which the kernel only sends some a second. */
function isChatter(bytes: Buffer): boolean {
  const type = bytes.readUInt16BE(12);
  if (type === 0x0800) {
    const message = 14 + 4 * ((bytes[14] ?? 0) & 15);
    return bytes[23] === 1 && bytes[message] === 3 && (bytes[message + 1] ?? 0) <= 1;
  }
  return type === 0x0806 || (type === 0x86dd && (bytes[20] === 0 || (bytes[20] === 58 && (bytes[54] ?? 0) >= 130)));
}

async function observe(frames: readonly Buffer[]): Promise<Record<string, string[]>> {
  const all = [client, neighbour, far];
  const captures = await Promise.all(all.map(capture));
  await inject(frames);
  for (const to of [neighbour, far, client]) {
    const from = to === client ? far : client;
    const target = to.addresses[0] ?? '';
    const arrived = (): boolean => captures[all.indexOf(to)]?.frames().some((bytes) => bytes.includes(marker)) ?? false;
    execFileSync('nsenter', [`--net=${sandboxOf(from)}`, 'socat', '-u', 'STDIN', `UDP:${target}:7`], {
      input: marker,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    await until(`the marker to arrive at ${to.owner}`, arrived);
  }
  for (const { stop } of captures) stop();
  const seen = captures.map(({ frames: of }, index) => {
    const texts = of()
      .filter((bytes) => !bytes.includes(marker) && !isChatter(bytes))
      .map(comparable);
    return [all[index]?.owner ?? '', texts.sort()] as const;
  });
  return Object.fromEntries(seen);
}

/** What is in one multiset and not in the other. */
function differences(slow: Record<string, string[]>, fast: Record<string, string[]>): string[] {
  return Object.entries(slow).flatMap(([owner, list]) => {
    const added = [...(fast[owner] ?? [])];
    const lost = list.filter((text) => {
      const index = added.indexOf(text);
      if (index >= 0) added.splice(index, 1);
      return index < 0;
    });
    return [...lost.map((text) => `${owner} lost ${text}`), ...added.map((text) => `${owner} gained ${text}`)];
  });
}

const endOf = ({ mac, addresses: [ip4, ip6] }: Endpoint): End => ({ mac, ip4: parseIp(`${ip4}`), ip6: parseIp(`${ip6}`) });

/** How often the domains' IP layers forward while `work` is done, with or without fast paths. */
async function through<T>(fast: boolean, work: () => Promise<T>): Promise<{ readonly result: T; readonly forwarded: number[] }> {
  for (const bed of beds) bed.apply(fast);
  const earlier = beds.map((bed) => bed.forwarded());
  const result = await work();
  return { result, forwarded: beds.map((bed, index) => bed.forwarded() - (earlier[index] ?? 0)) };
}

for (const internal of [false, true]) {
  test(
    `every frame that arrives ${internal ? 'in an internal network ' : ''}is the same with and without fast paths`,
    options,
    async () => {
      for (const bed of beds) bed.internal = internal;
      const frames = framesOf(endOf(client), endOf(neighbour), endOf(far), {
        gateway: gatewayMac,
        elsewhere: { ip4: parseIp('192.0.2.7'), ip6: parseIp('2001:db8::7') },
        nobody: { ip4: parseIp('10.0.0.9'), ip6: parseIp('fd00:7:7::9') },
        stranger: parseMac('0a:00:00:00:00:99'),
      });
      const slow = await through(false, () => observe(frames));
      const fast = await through(true, () => observe(frames));
      assert.deepEqual(differences(slow.result, fast.result), []);
      assert.ok(Object.values(slow.result).every((list) => list.length > 25));
      const shares = fast.forwarded.map((count, index) => count / (slow.forwarded[index] ?? 0));
      assert.ok(
        shares.every((share) => share < 0.6),
        `short cuts were taken: ${shares.join(' and ')} of the packets were still forwarded`,
      );
    },
  );
}

/** Sends `bytes` over TCP and returns what came out at the other end. */
async function stream(from: Endpoint, to: Endpoint, family: 4 | 6, bytes: Buffer): Promise<Buffer> {
  const target = to.addresses.find((own) => familyOf(own) === family) ?? '';
  const server = start(to, 'socat', '-u', `TCP${family}-LISTEN:7000,reuseaddr`, 'STDOUT');
  const chunks: Buffer[] = [];
  server.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
  const ended = once(server, 'close');
  await until('the server to listen', () => inside(to, 'cat', '/proc/net/tcp', '/proc/net/tcp6').includes(':1B58 0'));
  const sender = start(from, 'socat', '-u', 'STDIN', family === 4 ? `TCP4:${target}:7000` : `TCP6:[${target}]:7000`);
  sender.stdin?.end(bytes);
  await ended;
  return Buffer.concat(chunks);
}

const digest = (all: Buffer): string => createHash('sha256').update(all).digest('hex');

test('streams arrive whole over fast paths, also where the way takes less than the sender thinks', options, async () => {
  const bytes = randomBytes(50 * 1024 * 1024);
  for (const [from, to] of [
    [client, neighbour],
    [client, far],
    [far, client],
  ] as const) {
    for (const family of [4, 6] as const) {
      const { result, forwarded } = await through(true, () => stream(from, to, family, bytes));
      assert.equal(digest(result), digest(bytes), `${from.owner} to ${to.owner} over IPv${family}`);
      assert.ok(Math.max(...forwarded) < 200, `short cuts were taken: ${forwarded.join(' and ')} packets were still forwarded`);
    }
  }
});

test('a process without memory finds its fast paths and writes nothing', options, () => {
  for (const bed of beds) {
    bed.apply(true);
    const again = new Reconciler(bed.kinds);
    assert.equal(inNetns(bed.place, () => again.apply(bed.desired(true), true)).changed, 0);
  }
});

test('a filter that somebody removes is missed and put back', options, async () => {
  const [bed] = beds;
  const drifted: (string | undefined)[] = [];
  assert.ok(bed !== undefined);
  bed.apply(true);
  bed.drifted = (netns) => drifted.push(netns);
  const link = endpointLink(client.id);
  for (const words of [
    ['filter', 'del', 'dev', link, 'ingress'],
    ['qdisc', 'del', 'dev', link, 'clsact'],
  ]) {
    drifted.length = 0;
    run('nsenter', `--net=${bed.domain}`, 'tc', ...words);
    await until('the drift to be noticed', () => drifted.length > 0);
    for (const netns of drifted) bed.reconciler.suspect(netns);
    assert.equal(bed.apply(true), 1);
  }
  assert.equal(bed.apply(false), 3, 'what is not wanted any more is removed');
});
