// For kernel tests: hosts and containers as network namespaces on one wire, without an engine. A host's kernel is brought to
// its plan by the reconciler, as the agent does it; what the engine would do, moving the link into the container and setting
// it up there, is done here with ip(8). Everything hangs on the namespace of the test's process, where the wire is.
import { spawnSync } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import * as v from 'valibot';
import type { Desired } from '#model/desired.ts';
import { Fault } from '#model/fault.ts';
import { familyOf, parseIp, type Ip } from '#model/ip.ts';
import { domainName, endpointPeerLink, gatewayOf } from '#model/numbers.ts';
import type { LocalEndpoint } from '#model/resources.ts';
import { createKinds, type RealKinds } from '#kernel/kinds.ts';
import { bindUdpInNetns, createNetns, inNetns, removeNetns } from '#kernel/netns.ts';
import { waitFor } from '#kernel/wait.ts';
import type { WireguardKindOptions } from '#kernel/wireguard.ts';
import { type After, later } from '#kernel/wireguard-handshakes.ts';
import { type Outcome, Reconciler } from './reconcile.ts';

const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };

/** One that asks for an echo. */
interface Packet {
  /** Of the whole IP packet, which may not be fragmented. */
  readonly size?: number;
  readonly from?: string;
}

/** Somewhere packets come from and go to. */
export class Place {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** Exit status and what was printed. */
  try(...words: readonly string[]): { readonly status: number | null; readonly output: string } {
    const [program = '', ...rest] = words;
    // The kernel takes namespaces down one by one, and on a busy machine makes everybody wait who wants to change a link.
    const run = () => spawnSync(program, rest, { encoding: 'utf8', env: environment, timeout: 60_000 });
    const { status, stdout, stderr } = inNetns(this.path, run);
    return { status, output: `${stdout}${stderr}` };
  }

  /** As try, of something that must succeed. */
  run(...words: readonly string[]): string {
    const { status, output } = this.try(...words);
    if (status !== 0) throw new Fault('internal', `${words.join(' ')}: ${output}`);
    return output;
  }

  ip(...words: readonly string[]): void {
    this.run('ip', ...words);
  }

  /** Whether packets come back, five of which are sent a second until one does: the first ones after a link was made may be lost. */
  ping(target: string, packet: Packet = {}): boolean {
    return this.#ping(target, packet, ['-i', '0.2', '-w', '3']);
  }

  /** Whether one packet does not come back, for which nobody waits long. */
  loses(target: string, packet: Packet = {}): boolean {
    return !this.#ping(target, packet, ['-W', '0.5']);
  }

  #ping(target: string, { size, from }: Packet, patience: readonly string[]): boolean {
    const header = target.includes(':') ? 48 : 28;
    const whole = size === undefined ? [] : ['-M', 'do', '-s', String(size - header)];
    const source = from === undefined ? [] : ['-I', from];
    return this.try('ping', '-n', '-c', '1', ...patience, ...whole, ...source, target).status === 0;
  }

  /** A UDP socket here. */
  async udp(ip: string, port = 0): Promise<Peer> {
    const fd = bindUdpInNetns(this.path, { ip: parseIp(ip), port });
    const socket = createSocket(ip.includes(':') ? 'udp6' : 'udp4');
    const listening = once(socket, 'listening');
    socket.bind({ fd });
    await listening;
    return new Peer(socket);
  }

  /** Packets that the chain's rules with a counter have met. */
  count(chain: string, table = 'causeway'): number {
    const { status, output } = this.try('nft', '-j', 'list', 'chain', 'inet', table, chain);
    return status === 0 ? countersIn(output).reduce((sum, packets) => sum + packets, 0) : 0;
  }
}

const counters = v.object({
  nftables: v.array(
    v.object({ rule: v.optional(v.object({ expr: v.array(v.object({ counter: v.optional(v.object({ packets: v.number() })) })) })) }),
  ),
});
const countersIn = (json: string): number[] =>
  v.parse(counters, JSON.parse(json)).nftables.flatMap(({ rule }) => (rule?.expr ?? []).flatMap(({ counter }) => counter?.packets ?? []));

export interface Message {
  readonly text: string;
  readonly from: string;
  readonly port: number;
}

/** One end of a conversation over UDP. */
export class Peer implements Disposable {
  readonly messages: Message[] = [];
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (bytes, { address, port }) =>
      this.messages.push({ text: bytes.toString(), from: address.replace(/%.*/, ''), port }),
    );
    socket.on('error', () => undefined);
  }

  get port(): number {
    return this.#socket.address().port;
  }

  /** Resolves when the kernel has taken it; what it refuses (no route, too large) counts as sent and lost. */
  async send(text: string, target: { readonly ip: string; readonly port: number }): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#socket.send(text, target.port, target.ip, () => resolve());
    });
  }

  /** The next message after `question` was sent. */
  async ask(question: Buffer, target: { readonly ip: string; readonly port: number }): Promise<Buffer> {
    const answered: Promise<Buffer[]> = once(this.#socket, 'message', { signal: AbortSignal.timeout(60_000) });
    this.#socket.send(question, target.port, target.ip);
    const [answer = Buffer.alloc(0)] = await answered;
    return answer;
  }

  /** The message, as soon as it is there. */
  async hears(text: string): Promise<Message> {
    return await eventually(() => this.messages.find((message) => message.text === text), `hears ${text}`);
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/** What `look` gives as soon as it is not undefined and not false. */
export async function eventually<T>(look: () => T | undefined | false, what: string, patienceMs = 60_000): Promise<T> {
  for (const end = performance.now() + patienceMs; performance.now() < end; await setTimeout(5)) {
    const seen = look();
    if (seen !== undefined && seen !== false) return seen;
  }
  throw new Fault('timeout', `Not within ${patienceMs} ms: ${what}`);
}

export type Encryption = Pick<WireguardKindOptions, 'privateKey' | 'predecessor'>;

/** With a private key it can do WireGuard. */
export interface HostOptions extends Partial<Encryption> {
  /** As Reconciler has it. */
  readonly lingerMs?: number;
}

/** A host: its namespace, its kernel, and the domains in it. */
export class NetnsHost extends Place {
  readonly kinds: RealKinds;
  readonly birdDirectory: string;
  readonly #directory: string;
  readonly #reconciler: Reconciler;

  constructor(path: string, directory: string, { lingerMs = 0, privateKey, ...more }: HostOptions) {
    super(path);
    this.#directory = directory;
    this.birdDirectory = `${directory}-bird`;
    // What is looked at later is looked at from here too.
    const after: After = (ms, fn) => later(ms, () => inNetns(path, fn));
    const wireguard = privateKey === undefined ? {} : { wireguard: { ...more, privateKey, directory: `${directory}-wireguard`, after } };
    this.kinds = createKinds({ netnsDirectory: directory, birdDirectory: this.birdDirectory, ...wireguard });
    this.#reconciler = new Reconciler(this.kinds, { lingerMs });
  }

  domain(network: string): Place {
    return new Place(join(this.#directory, domainName(network)));
  }

  /** Somebody has been in the kernel. */
  forget(): void {
    this.#reconciler.suspect();
  }

  /** Brings the kernel to `desired`. Fault `kernel` for what it refuses. */
  apply(desired: Desired): Outcome {
    const outcome = inNetns(this.path, (): Outcome => this.#reconciler.apply(desired, true));
    const [refused] = outcome.failing;
    if (refused !== undefined) throw refused.fault;
    return outcome;
  }
}

/** In the background the kernel takes in that the other end has a carrier, too, and until then drops what goes out there. */
const untilCarried = (place: Place): boolean => waitFor(() => place.run('ip', 'link', 'show', 'dev', 'eth0').includes(' state UP '), 5000);

export class Wire implements Disposable {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'causeway-wire-'));
  readonly #names: string[] = [];
  readonly #hosts: NetnsHost[] = [];
  readonly #here = new Place('/proc/self/ns/net');
  readonly #mtu: number;

  constructor(mtu = 1450) {
    this.#mtu = mtu;
    this.#here.ip('link', 'add', 'wire', 'mtu', String(mtu), 'type', 'bridge');
    this.#here.ip('link', 'set', 'wire', 'up');
  }

  /** From now on everything comes out everywhere: nobody is looked for where he was seen last. */
  hub(): void {
    this.#here.ip('link', 'set', 'wire', 'type', 'bridge', 'ageing_time', '0');
  }

  #netns(name: string): string {
    createNetns(this.folder, name, () => spawnSync('ip', ['link', 'set', 'lo', 'up'], { env: environment }));
    this.#names.push(name);
    return join(this.folder, name);
  }

  /** A namespace with `eth0` on the wire. */
  place(name: string, addresses: readonly string[]): Place {
    const place = new Place(this.#netns(name));
    this.#here.ip(
      'link',
      'add',
      `to-${name}`,
      'mtu',
      String(this.#mtu),
      'type',
      'veth',
      'peer',
      'eth0',
      'mtu',
      String(this.#mtu),
      'netns',
      place.path,
    );
    this.#here.ip('link', 'set', `to-${name}`, 'up', 'master', 'wire');
    for (const address of addresses) place.ip('addr', 'add', address, 'dev', 'eth0', ...(address.includes(':') ? ['nodad'] : []));
    // The kernel would try its own link-local address for a second before it asks for neighbours.
    inNetns(place.path, () => writeFileSync('/proc/sys/net/ipv6/conf/eth0/accept_dad', '0'));
    place.ip('link', 'set', 'eth0', 'up');
    untilCarried(place);
    return place;
  }

  host(name: string, addresses: readonly string[], options: HostOptions = {}): NetnsHost {
    const { path } = this.place(name, addresses);
    const host = new NetnsHost(path, join(this.folder, `${name}-netns`), options);
    this.#hosts.push(host);
    return host;
  }

  /** A container as an engine would leave it: the endpoint's link inside, its addresses and routes on it. */
  container(host: NetnsHost, { endpoint, order = 1 }: LocalEndpoint, more: { readonly internal?: boolean } = {}): Place {
    const place = new Place(this.#netns(`box-${endpoint.id.slice(0, 10)}`));
    host.ip('link', 'set', endpointPeerLink(endpoint.id), 'netns', place.path, 'name', 'eth0');
    for (const ip of endpoint.addresses)
      place.ip('addr', 'add', `${ip}/${ip.includes(':') ? 128 : 32}`, 'dev', 'eth0', ...(ip.includes(':') ? ['nodad'] : []));
    place.ip('link', 'set', 'eth0', 'up');
    untilCarried(place);
    for (const ip of endpoint.addresses) this.#routes(place, ip, { order, internal: more.internal ?? false });
    return place;
  }

  #routes(place: Place, ip: Ip, { order }: { readonly order: number; readonly internal: boolean }): void {
    const gateway = gatewayOf(familyOf(ip), order);
    if (familyOf(ip) === 4) place.ip('route', 'add', gateway, 'dev', 'eth0');
    place.ip('route', 'add', 'default', 'via', gateway, 'dev', 'eth0');
  }

  [Symbol.dispose](): void {
    for (const host of this.#hosts) {
      inNetns(host.path, () => {
        host.kinds.netns.remove(host.kinds.netns.list(''));
        host.kinds.bird.remove(host.kinds.bird.list(''));
      });
      host.kinds[Symbol.dispose]();
    }
    // Namespaces end later and in the background; their links shall not outlive this.
    for (const name of this.#names) this.#here.try('ip', 'link', 'del', `to-${name}`);
    for (const name of this.#names) removeNetns(this.folder, name);
    for (const name of ['', ...this.#names.map((host) => `${host}-netns`)]) this.#here.try('umount', '-l', join(this.folder, name));
    this.#here.try('ip', 'link', 'del', 'wire');
    rmSync(this.folder, { recursive: true, force: true });
  }
}
