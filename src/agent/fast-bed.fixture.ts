// Where fast paths are tried: two hosts, two containers on the one and one on the other, of a network of one's choice. The other host's
// underlay carries less, so that routes have an MTU of their own.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { makeBlock, makeEndpoint, makeDualHost, makePool, snapshotOf } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { probeFast } from '#kernel/fast.ts';
import { createKinds, type RealKinds } from '#kernel/kinds.ts';
import { openUdp } from '#kernel/libc.ts';
import { inNetns } from '#kernel/netns.ts';
import { type Desired, emptyDesired } from '#model/desired.ts';
import { cidrLength, familyOf, parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { domainName, gatewayMac } from '#model/numbers.ts';
import type { Endpoint, Host, LocalEndpoint, Network, Snapshot } from '#model/resources.ts';
import { type End, framesOf, sum16 } from './fast-frames.fixture.ts';
import { Reconciler } from './reconcile.ts';
import { forgetShort, isShortPair } from './short-connections.ts';

const has = (program: string): boolean => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
const missing = (): string => (!probeFast() ? 'tc programs in this kernel' : (['socat', 'tcpdump', 'tc'].find((one) => !has(one)) ?? ''));
/** Why tests of fast paths cannot run here. */
export const skipFast: string | false = missing() === '' ? false : `missing: ${missing()}`;

export function run(program: string, ...words: string[]): string {
  return execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
const ip = (...words: string[]): string => run('ip', ...words);
export const sandboxOf = ({ owner }: Endpoint): string => `/run/netns/${owner}`;
const placed = (list: readonly Endpoint[]): LocalEndpoint[] =>
  list.map((item, index) => ({ endpoint: item, slot: index + 1, sandbox: sandboxOf(item), ifname: 'eth0' }));

export const one: Host = makeDualHost(1);
export const two: Host = makeDualHost(2, { mtu: 1400 });

/** One host. */
export class Side implements Disposable {
  readonly self: Host;
  readonly place: string;
  readonly kinds: RealKinds;
  readonly reconciler: Reconciler;
  readonly directory: string = mkdtempSync(join(tmpdir(), 'causeway-fast-'));
  readonly local: readonly LocalEndpoint[];
  snapshot: Snapshot;
  drifted: (netns: string | undefined) => void = () => undefined;

  constructor(self: Host, local: readonly LocalEndpoint[], snapshot: Snapshot) {
    this.self = self;
    this.place = `/run/netns/${self.id}`;
    this.local = local;
    this.snapshot = snapshot;
    this.kinds = inNetns(this.place, () => createKinds({ netnsDirectory: this.directory, onDrift: (netns) => this.drifted(netns) }));
    this.reconciler = new Reconciler(this.kinds);
  }

  /** Where the network is routed. */
  get domain(): string {
    const [network] = this.snapshot.networks.values();
    return network?.choices.domain === 'own' ? join(this.directory, domainName(network.id)) : this.place;
  }

  desired(isShort: boolean): Desired {
    return plan(this.snapshot, this.local, this.self, { isShort });
  }

  apply(isShort: boolean): number {
    const desired = this.desired(isShort);
    const outcome = inNetns(this.place, () => this.reconciler.apply(desired, true));
    if (outcome.changed > 0) inNetns(this.place, () => forgetShort(desired.element.filter(isShortPair)));
    assert.deepEqual(
      outcome.failing.map(({ fault }) => fault.message),
      [],
    );
    return outcome.changed;
  }

  /** Packets that the IP layers have forwarded where the network is routed. */
  forwarded(): number {
    const text = run('nsenter', `--net=${this.domain}`, 'cat', '/proc/net/snmp', '/proc/net/snmp6');
    const four = /^Ip: (\d.*)$/m.exec(text)?.[1]?.split(' ')[5];
    return Number(four) + Number(/Ip6OutForwDatagrams\s+(\d+)/.exec(text)?.[1]);
  }

  /** In the host's own namespace. */
  run(...words: string[]): string {
    return run('nsenter', `--net=${this.place}`, ...words);
  }

  [Symbol.dispose](): void {
    inNetns(this.place, () => this.reconciler.apply(emptyDesired, true));
    this.kinds[Symbol.dispose]();
    run('umount', '-l', this.directory);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Waits until something holds, for a minute. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 60_000; !holds(); await setTimeout(1)) {
    assert.ok(performance.now() < deadline, `timed out: ${what}`);
  }
}

const marker = 'a mark';

/** A frame as text; what the kernel numbers by chance in packets of its own, which may be our number, is left out. */
function comparable(bytes: Buffer): string {
  const copy = Buffer.from(bytes);
  const payload = 14 + 4 * ((copy[14] ?? 0) & 15);
  const tellsOfError = copy[23] === 1 && copy[payload] === 3;
  if (copy.readUInt16BE(12) === 0x0800 && (tellsOfError || copy.readUInt16BE(18) !== 0x1234)) {
    assert.equal(sum16(copy.subarray(14, payload)), 0xffff, 'a header checksum is right');
    copy.fill(0, 18, 20);
    copy.fill(0, 24, 26);
  }
  return copy.toString('hex');
}

/** What comes when it pleases: neighbour discovery, MLD, ARP, `no route` and redirect messages, of which the kernel only sends some a second. */
function isChatter(bytes: Buffer): boolean {
  const type = bytes.readUInt16BE(12);
  if (type === 0x0800) {
    const message = 14 + 4 * ((bytes[14] ?? 0) & 15);
    return bytes[23] === 1 && (bytes[message] === 5 || (bytes[message] === 3 && (bytes[message + 1] ?? 0) <= 1));
  }
  return type === 0x0806 || (type === 0x86dd && (bytes[20] === 0 || (bytes[20] === 58 && (bytes[54] ?? 0) >= 130)));
}

/** What is in one multiset and not in the other. */
export function differences(slow: Record<string, string[]>, fast: Record<string, string[]>): string[] {
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
export const digest = (all: Buffer): string => createHash('sha256').update(all).digest('hex');

export class FastBed implements Disposable {
  readonly client: Endpoint;
  readonly neighbour: Endpoint;
  readonly far: Endpoint;
  readonly sides: readonly [Side, Side];
  readonly #started: ChildProcess[] = [];

  /** `change`: what is particular about the client. */
  constructor(network: Network, change: Partial<Endpoint> = {}) {
    const endpoint = (host: Host, number: number, last: number, subnet: number): Endpoint =>
      makeEndpoint(network.id, host.id, number, [parseIp(`10.0.0.${last}`), parseIp(`fd00:7:7:${subnet}::${last}`)]);
    this.client = { ...endpoint(one, 1, 2, 0), ...change };
    this.neighbour = endpoint(one, 2, 3, 0);
    this.far = endpoint(two, 3, 66, 1);
    mkdirSync('/run/netns', { recursive: true });
    for (const host of [one, two]) ip('netns', 'add', host.id);
    ip('-n', one.id, 'link', 'add', 'eth0', 'mtu', '1450', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', two.id);
    for (const host of [one, two]) {
      for (const { ip: own, subnet } of host.underlay)
        ip('-n', host.id, 'addr', 'add', `${own}/${cidrLength(subnet)}`, 'dev', 'eth0', ...(familyOf(own) === 6 ? ['nodad'] : []));
      ip('-n', host.id, 'link', 'set', 'eth0', 'up');
    }
    const all = [this.client, this.neighbour, this.far];
    for (const item of all) ip('netns', 'add', item.owner);
    const snapshot = this.snapshotWith(network);
    this.sides = [new Side(one, placed([this.client, this.neighbour]), snapshot), new Side(two, placed([this.far]), snapshot)];
    for (const side of this.sides) side.apply(false);
    for (const item of all) {
      const on = (...words: string[]): string => ip('-n', item.owner, ...words);
      for (const address of item.addresses) on('addr', 'add', address, 'dev', 'eth0', 'nodad');
      on('link', 'set', 'lo', 'up');
      on('link', 'set', 'eth0', 'up');
      on('route', 'add', 'default', 'via', '169.254.1.1', 'dev', 'eth0', 'onlink');
      on('-6', 'route', 'add', 'default', 'via', 'fe80::1', 'dev', 'eth0', 'onlink');
    }
    const unlimited = ['net.ipv4.icmp_ratelimit=0', 'net.ipv4.icmp_msgs_per_sec=100000', 'net.ipv6.icmp.ratelimit=0'];
    for (const place of [...this.sides.flatMap(({ domain, place: host }) => [domain, host]), ...all.map(sandboxOf)]) {
      spawnSync('nsenter', [`--net=${place}`, 'sysctl', '-q', '-w', ...unlimited]);
    }
  }

  snapshotWith(network: Network): Snapshot {
    const pool4 = makePool(network.id, parseCidr('10.0.0.0/24'), 26);
    const pool6 = makePool(network.id, parseCidr('fd00:7:7::/56'), 64);
    return snapshotOf({
      hosts: [one, two],
      networks: [network],
      pools: [pool4, pool6],
      blocks: [makeBlock(pool4, 0, one.id), makeBlock(pool4, 1, two.id), makeBlock(pool6, 0, one.id), makeBlock(pool6, 1, two.id)],
      endpoints: [this.client, this.neighbour, this.far],
    });
  }

  inside(of: Endpoint, ...words: string[]): string {
    return run('nsenter', `--net=${sandboxOf(of)}`, ...words);
  }

  start(of: Endpoint, ...words: string[]): ChildProcess {
    const child = spawn('nsenter', [`--net=${sandboxOf(of)}`, ...words], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#started.push(child);
    return child;
  }

  /** Everything that arrives at a container from here on, one string of hex digits a frame. */
  async capture(of: Endpoint): Promise<{ readonly frames: () => Buffer[]; readonly stop: () => void }> {
    const child = this.start(of, 'tcpdump', '--immediate-mode', '-U', '-n', '-Q', 'in', '-B', '8192', '-i', 'eth0', '-w', '-');
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
  async inject(frames: readonly Buffer[]): Promise<void> {
    const sandbox = sandboxOf(this.client);
    const sender = this.start(this.client, 'socat', '-u', '-b', '65536', 'UDP4-RECV:4000,bind=127.0.0.1,rcvbuf=4194304', 'INTERFACE:eth0');
    const sockets = (): string => inNetns(sandbox, () => readFileSync('/proc/thread-self/net/udp', 'utf8'));
    await until('socat to listen', () => sockets().includes(':0FA0 '));
    const fd = inNetns(sandbox, () => openUdp({ ip: parseIp('127.0.0.1'), port: 4001 }));
    const socket = createSocket('udp4');
    await new Promise<void>((resolve) => socket.bind({ fd }, resolve));
    for (const bytes of frames) {
      await new Promise((resolve) => socket.send(bytes, 4000, '127.0.0.1', resolve));
      // One after the other, so that none is dropped for want of room.
      await until('socat to take a frame', () => / 00000000:00000000 /.test(/^.*:0FA0 .*$/m.exec(sockets())?.[0] ?? ''));
    }
    socket.close();
    sender.kill();
  }

  /** Everything that arrives at the containers after these frames were sent, by container. */
  async observe(frames: readonly Buffer[]): Promise<Record<string, string[]>> {
    const { client, neighbour, far } = this;
    const all = [client, neighbour, far];
    const captures = await Promise.all(all.map((item) => this.capture(item)));
    const mark = async (when: string): Promise<void> => {
      for (const to of [neighbour, far, client]) {
        for (const target of to.addresses) {
          const text = `${marker} ${when} to ${target}`;
          const arrived = (): boolean => captures[all.indexOf(to)]?.frames().some((bytes) => bytes.includes(text)) ?? false;
          const socket = familyOf(target) === 4 ? `UDP4:${target}:7` : `UDP6:[${target}]:7`;
          const from = to === client ? far : client;
          execFileSync('nsenter', [`--net=${sandboxOf(from)}`, 'socat', '-u', 'STDIN', socket], {
            input: text,
            stdio: ['pipe', 'ignore', 'ignore'],
          });
          await until(`${text} to arrive`, arrived);
        }
      }
    };
    // Neighbours are known then, and nothing is dropped while they are sought.
    await mark('before');
    await this.inject(frames);
    await mark('after');
    for (const { stop } of captures) stop();
    const seen = captures.map(({ frames: of }, index) => {
      const texts = of()
        .filter((bytes) => !bytes.includes(marker) && !isChatter(bytes))
        .map(comparable);
      return [all[index]?.owner ?? '', texts.sort()] as const;
    });
    return Object.fromEntries(seen);
  }

  /** How often the network's IP layers forward while `work` is done, with or without fast paths. */
  async through<T>(isShort: boolean, work: () => Promise<T>): Promise<{ readonly result: T; readonly forwarded: number[] }> {
    for (const side of this.sides) side.apply(isShort);
    const earlier = this.sides.map((side) => side.forwarded());
    const result = await work();
    return { result, forwarded: this.sides.map((side, index) => side.forwarded() - (earlier[index] ?? 0)) };
  }

  /** Every sort of frame, from each end to each. */
  frames(): Buffer[] {
    return framesOf(endOf(this.client), endOf(this.neighbour), endOf(this.far), {
      gateway: gatewayMac,
      elsewhere: { ip4: parseIp('192.0.2.7'), ip6: parseIp('2001:db8::7') },
      nobody: { ip4: parseIp('10.0.0.9'), ip6: parseIp('fd00:7:7::9') },
      stranger: parseMac('0a:00:00:00:00:99'),
    });
  }

  /** Streams between containers of one host and of two, in either family, arrive as they were sent, and by short cuts. */
  async assertStreams(): Promise<void> {
    const bytes = randomBytes(50 * 1024 * 1024);
    for (const [from, to] of [
      [this.client, this.neighbour],
      [this.client, this.far],
      [this.far, this.client],
    ] as const) {
      for (const family of [4, 6] as const) {
        const { result, forwarded } = await this.through(true, () => this.stream([from, to], family, bytes));
        assert.equal(digest(result), digest(bytes), `${from.owner} to ${to.owner} over IPv${family}`);
        assert.ok(Math.max(...forwarded) < 200, `short cuts were taken: ${forwarded.join(' and ')} packets were still forwarded`);
      }
    }
  }

  /** A process without memory finds everything as it wants it. */
  assertFound(): void {
    for (const side of this.sides) {
      side.apply(true);
      const again = new Reconciler(side.kinds);
      assert.equal(inNetns(side.place, () => again.apply(side.desired(true), true)).changed, 0);
    }
  }

  /** What tc(8) removes on the first host is missed and put back, one by one. Answers the drift that is heard of from then on. */
  async assertMended(removals: readonly (readonly string[])[]): Promise<(string | undefined)[]> {
    const [side] = this.sides;
    const drifted: (string | undefined)[] = [];
    side.apply(true);
    side.drifted = (where) => drifted.push(where);
    for (const words of removals) {
      drifted.length = 0;
      run('nsenter', `--net=${side.domain}`, 'tc', ...words);
      await until('the drift to be noticed', () => drifted.length > 0);
      for (const where of drifted) side.reconciler.suspect(where);
      assert.equal(side.apply(true), 1);
    }
    drifted.length = 0;
    return drifted;
  }

  /** A server that says what it is sent, and what it has been sent so far. */
  async listen(on: Endpoint, port = 7000): Promise<{ readonly received: () => Buffer; readonly ended: Promise<unknown> }> {
    const server = this.start(on, 'socat', '-u', `TCP6-LISTEN:${port},reuseaddr,ipv6only=0`, 'STDOUT');
    const chunks: Buffer[] = [];
    server.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
    const ended = once(server, 'close');
    const place = `:${port.toString(16).toUpperCase().padStart(4, '0')} 0`;
    await until('the server to listen', () => this.inside(on, 'cat', '/proc/net/tcp', '/proc/net/tcp6').includes(place));
    return { received: () => Buffer.concat(chunks), ended };
  }

  /** Sends `bytes` over TCP and returns what came out at the other end. */
  async stream([from, to]: readonly [Endpoint, Endpoint], family: 4 | 6, bytes: Buffer): Promise<Buffer> {
    const target = to.addresses.find((own) => familyOf(own) === family) ?? '';
    const { received, ended } = await this.listen(to);
    const sender = this.start(from, 'socat', '-u', 'STDIN', family === 4 ? `TCP4:${target}:7000` : `TCP6:[${target}]:7000`);
    sender.stdin?.end(bytes);
    await ended;
    return received();
  }

  [Symbol.dispose](): void {
    for (const child of this.#started) child.kill();
    for (const side of this.sides) side[Symbol.dispose]();
  }
}
