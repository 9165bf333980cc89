// Names for containers: one server for all networks of the host, with sockets of its own in each network's domain. A socket
// stays in the namespace in which it was opened, so nothing here knows of namespaces: which socket a question comes in
// on says which network may be told of.
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import type { Family } from '#model/ip.ts';
import { randomInt } from 'node:crypto';
import { ask, askEngine, type EngineResolver, framed, type Upstream } from './dns-upstream.ts';
import { FairShare } from './fair-share.ts';
import { type Question, rcode, readQuestion, type Reply, udpLimit, withId, writeReply } from './dns-wire.ts';
import { answer, ttlSeconds, type Verdict, ZoneIndex, type ZoneSource } from './dns-zone.ts';

/** An open socket, bound to the address to answer from; the server owns it from now on. `tcp` is not listening yet, or is. */
export interface DnsSocket {
  readonly fd: number;
  readonly protocol: 'udp' | 'tcp';
  readonly family: Family;
}

export interface DnsCounters {
  queries: number;
  /** Answered from a zone, with and without addresses. */
  answered: number;
  missed: number;
  forwarded: number;
  /** Forwarded, and no server gave an answer; or too many of the asker's under way. */
  failed: number;
  malformed: number;
  truncated: number;
}

/** Where a question came in, and from whom. */
interface Asker {
  readonly network: string;
  readonly client: string;
  readonly protocol: 'udp' | 'tcp';
}

const refused: Verdict = { kind: 'answer', code: rcode.refused, records: [] };
/** Somebody has that name, or that address. */
const isKnown = (verdict: Verdict): boolean => verdict.kind === 'answer' && verdict.code === rcode.ok;

interface Listener {
  readonly zone: ZoneIndex;
  readonly closers: (() => void)[];
}

/** Of all containers of the host; each has its share. */
const maxForwards = 1000;
/** Of one network on this host, likewise. */
const maxConnections = 128;
const idleMs = 10_000;
const maxTcp = 65_535;

export interface DnsOptions {
  readonly upstream: Upstream;
  /** Hears of sockets that broke; the others go on. */
  readonly onFault?: (fault: unknown, network: string) => void;
  /** Other networks whose names this client of `network` may be told too: those that the same container is in. */
  readonly companions?: (network: string, client: string) => readonly string[];
  /** The way to the engine's resolver, for clients of `network` whose questions come here before they come to that. */
  readonly engine?: (network: string, client: string) => EngineDoor | undefined;
}

/** A resolver inside a container, with a socket there; undefined when the container has ended. */
export type EngineDoor = () => EngineResolver | undefined;

export class DnsServer implements Disposable {
  readonly counters: DnsCounters = { queries: 0, answered: 0, missed: 0, forwarded: 0, failed: 0, malformed: 0, truncated: 0 };
  readonly #networks = new Map<string, Listener>();
  readonly #onFault: (fault: unknown, network: string) => void;
  readonly #companions: (network: string, client: string) => readonly string[];
  readonly #engine: DnsOptions['engine'] & {};
  /** Questions that engines are being asked: one of those that asks us in its turn is not asked again. */
  readonly #atEngines = new Set<string>();
  #upstream: Upstream;
  readonly #forwards = new FairShare(maxForwards);
  #turn = 0;

  constructor(options: DnsOptions) {
    this.#upstream = options.upstream;
    this.#onFault = options.onFault ?? (() => {});
    this.#companions = options.companions ?? (() => []);
    this.#engine = options.engine ?? (() => undefined);
  }

  setUpstream(upstream: Upstream): void {
    this.#upstream = upstream;
  }

  /** The network's names from now on; costs nothing until somebody asks. */
  setZone(network: string, source: ZoneSource): void {
    const known = this.#networks.get(network);
    if (known === undefined) this.#networks.set(network, { zone: new ZoneIndex(source), closers: [] });
    else known.zone.set(source);
  }

  /** Serves these sockets for the network, whose zone is set; resolves when all of them are read. Adds to earlier ones. */
  async listen(network: string, sockets: readonly DnsSocket[]): Promise<void> {
    const listener = this.#networks.get(network);
    if (listener === undefined) throw new TypeError(`Broken invariant: network ${network} has no zone`);
    await Promise.all(
      sockets.map((socket) =>
        socket.protocol === 'udp' ? this.#listenUdp(network, listener, socket) : this.#listenTcp(network, listener, socket),
      ),
    );
  }

  isListening(network: string): boolean {
    return (this.#networks.get(network)?.closers.length ?? 0) > 0;
  }

  /** Forgets the network and closes its sockets. Unknown ones are fine. */
  remove(network: string): void {
    for (const close of this.#networks.get(network)?.closers ?? []) close();
    this.#networks.delete(network);
  }

  [Symbol.dispose](): void {
    for (const network of this.#networks.keys()) this.remove(network);
  }

  #listenUdp(network: string, { closers }: Listener, { fd, family }: DnsSocket): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = createSocket(family === 6 ? 'udp6' : 'udp4');
    let isOpen = true;
    closers.push(() => {
      if (isOpen) socket.close();
      isOpen = false;
    });
    socket.on('error', (error) => {
      this.#onFault(error, network);
      reject(error);
    });
    socket.on('message', (packet, from) => {
      this.#serve(packet, { network, client: from.address, protocol: 'udp' }, (reply) => {
        if (isOpen) this.#sendUdp(socket, reply, from);
      });
    });
    socket.bind({ fd }, resolve);
    return promise;
  }

  /** A client that has gone away is nobody's fault. */
  #sendUdp(socket: UdpSocket, reply: Buffer, from: RemoteInfo): void {
    socket.send(reply, from.port, from.address, () => {});
  }

  #listenTcp(network: string, { closers }: Listener, { fd }: DnsSocket): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const clients = new Set<Socket>();
    const shares = new FairShare(maxConnections);
    const server: Server = createServer((client) => {
      const { remoteAddress = '' } = client;
      if (!shares.take(remoteAddress)) {
        client.destroy();
        return;
      }
      clients.add(client);
      client.once('close', () => {
        clients.delete(client);
        shares.release(remoteAddress);
      });
      this.#talk(client, network);
    });
    server.on('error', (error) => {
      this.#onFault(error, network);
      reject(error);
    });
    closers.push(() => {
      server.close();
      for (const client of clients) client.destroy();
    });
    server.listen({ fd }, resolve);
    return promise;
  }

  #talk(client: Socket, network: string): void {
    let received = Buffer.alloc(0);
    client.setTimeout(idleMs, () => client.destroy());
    client.on('error', () => client.destroy());
    client.on('data', (chunk) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      while (received.length >= 2) {
        const end = 2 + received.readUInt16BE(0);
        if (received.length < end) break;
        this.#serve(received.subarray(2, end), { network, client: client.remoteAddress ?? '', protocol: 'tcp' }, (reply) => {
          // A client that asks and does not read its answers is not kept.
          if (client.writableLength > maxTcp) client.destroy();
          else if (client.writable) client.write(framed(reply));
        });
        received = received.subarray(end);
      }
    });
  }

  #serve(packet: Buffer, asker: Asker, send: (reply: Buffer) => void): void {
    const { protocol } = asker;
    this.counters.queries++;
    const reading = readQuestion(packet);
    if (reading.kind !== 'question') {
      this.counters.malformed++;
      if (reading.kind === 'answer') send(reading.reply);
      return;
    }
    const { question } = reading;
    const verdict = this.#verdict(question, asker);
    const isOwn = isKnown(verdict) || this.#atEngines.has(traceOf(question, asker, question.id));
    const engine = isOwn ? undefined : this.#engine(asker.network, asker.client);
    if (verdict.kind === 'forward' || engine !== undefined) {
      this.#forward({ packet, question, asker, verdict, engine }, send);
      return;
    }
    send(this.#said(question, verdict, protocol));
  }

  #said(question: Question, verdict: Verdict & { readonly kind: 'answer' }, protocol: Asker['protocol']): Buffer {
    if (verdict.records.length > 0) this.counters.answered++;
    else this.counters.missed++;
    const isAuthoritative = verdict.code === rcode.ok || verdict.code === rcode.noSuchName;
    return this.#write(question, { ...verdict, isAuthoritative, ttlSeconds }, protocol);
  }

  /** The network's own answer; what it does not know the container's other networks may. */
  #verdict(question: Question, { network, client }: Asker): Verdict {
    const turn = this.#turn++;
    const askZone = (id: string): Verdict[] => {
      const zone = this.#networks.get(id)?.zone;
      return zone === undefined ? [] : [answer(question, zone, turn)];
    };
    const [own = refused] = askZone(network);
    if (isKnown(own)) return own;
    const others = this.#companions(network, client).flatMap(askZone);
    return others.find(isKnown) ?? [own, ...others].find(({ kind }) => kind === 'forward') ?? own;
  }

  #write(question: Question, reply: Reply, protocol: 'udp' | 'tcp'): Buffer {
    const limit = protocol === 'udp' ? udpLimit(question) : maxTcp;
    const bytes = writeReply(question, reply, limit);
    if (((bytes[2] ?? 0) & 2) !== 0) this.counters.truncated++;
    return bytes;
  }

  #forward(passed: Passed, send: (reply: Buffer) => void): void {
    const { question, asker } = passed;
    this.counters.forwarded++;
    const fail = (): void => {
      this.counters.failed++;
      send(this.#write(question, { code: rcode.serverFailure, records: [] }, asker.protocol));
    };
    const who = `${asker.network} ${asker.client}`;
    if (!this.#forwards.take(who)) {
      fail();
      return;
    }
    this.#elsewhere(passed)
      .then((reply) => (reply === undefined ? fail() : send(reply)))
      .catch(fail)
      .finally(() => this.#forwards.release(who));
  }

  /** What the container's engine says, or else the host's servers where the network asks outside, or else what was known here. */
  async #elsewhere(passed: Passed): Promise<Buffer | undefined> {
    const { packet, question, asker, verdict } = passed;
    const reply = await this.#engineSays(passed);
    if (reply !== undefined) return reply;
    if (verdict.kind === 'answer') return this.#said(question, verdict, asker.protocol);
    return ask(packet, question, this.#upstream, asker.protocol === 'tcp');
  }

  async #engineSays({ packet, question, asker, engine }: Passed): Promise<Buffer | undefined> {
    const resolver = engine?.();
    if (resolver === undefined) return undefined;
    const id = randomInt(0x1_0000);
    const trace = traceOf(question, asker, id);
    this.#atEngines.add(trace);
    try {
      return await askEngine(withId(packet, id), question, resolver);
    } finally {
      this.#atEngines.delete(trace);
    }
  }
}

/** A question that is answered elsewhere. */
interface Passed {
  readonly packet: Buffer;
  readonly question: Question;
  readonly asker: Asker;
  readonly verdict: Verdict;
  readonly engine: EngineDoor | undefined;
}

const traceOf = ({ name, type }: Question, { client }: Asker, id: number): string => `${client} ${id} ${type} ${name}`;
