// Where probes come in and go out: a packet socket for each family on the host's underlay link, behind a filter that lets nearly
// nothing else through. It raises a signal like the sockets of events.ts, for the same reasons. It sees packets before the host's own
// packet filters do (packet(7)). Where the host has such, a datagram for one of its ports is answered only when a raw socket, which is
// behind them (raw(7)), has seen it as well; that one costs every datagram a copy, so it is there only then.
import { closeSync } from 'node:fs';
import type { Family, Ip } from '#model/ip.ts';
import { probePort } from '#model/numbers.ts';
import { dumpLinks } from './batch.ts';
import { openFilteredDatagramSocket, openFilteredPacketSocket, raiseSignal, receive, transmit, transmitIp } from './libc.ts';
import { arrivedFilterOf, arrivedNonce, filterOf, hear, type Heard, type Probe, questionPacket } from './probe-packet.ts';
import type { Sockets } from './sockets.ts';

const signal = 'SIGURG';
/** In one go: nobody may keep an agent busy with questions. */
const mostFrames = 256;
/** Questions that wait to be let in. */
const mostWaiting = 1024;
/** What is not there by then was dropped on the way from one socket to the other, which takes microseconds. */
const arrivalMs = 1_000;
/** Whoever is not answered asks again every ten seconds. */
const rememberedMs = 60_000;
const buffer = Buffer.alloc(256);
const families = [4, 6] as const;

export interface ProbeHandlers {
  readonly answered: (nonce: string) => void;
  /** Whether a host asks another: nobody else is answered. */
  readonly mayAnswer: (from: Ip, to: Ip) => boolean;
  /** Milliseconds of a clock that nobody sets. */
  readonly now: () => number;
}

type Question = Extract<Heard, { type: 'question' }>;

interface Waiting {
  readonly fd: number;
  readonly question: Question;
  readonly port: number;
  readonly at: number;
}

/** A port of this host whose datagrams from another host came as far as to its link. */
export interface ShutPort {
  readonly port: number;
  readonly from: Ip;
}

interface Listened {
  readonly index: number;
  readonly packet: readonly number[];
  readonly arrived: readonly { readonly fd: number; readonly family: Family }[];
}

export class ProbeSockets implements Disposable {
  readonly #sockets: Sockets;
  readonly #handlers: ProbeHandlers;
  #listened: Listened | undefined;
  readonly #waiting = new Map<string, Waiting>();
  readonly #shut = new Map<string, ShutPort & { readonly at: number }>();
  readonly #drain = (): void => {
    for (const fd of this.#listened?.packet ?? []) this.#drainOne(fd);
    for (const { fd, family } of this.#listened?.arrived ?? []) this.#drainArrived(fd, family);
  };

  constructor(sockets: Sockets, handlers: ProbeHandlers) {
    this.#sockets = sockets;
    this.#handlers = handlers;
    process.on(signal, this.#drain);
  }

  /**
   * Listens on the link of that name from now on; on none when it is absent or has none. `isFiltered`: others may drop what comes in to
   * this host. Fault `kernel`.
   */
  listen(link: string | undefined, { isFiltered }: { readonly isFiltered: boolean }): void {
    const index = link === undefined ? undefined : dumpLinks(this.#sockets.of('')).find(({ name }) => name === link)?.index;
    if (index === this.#listened?.index && (index === undefined || isFiltered === this.#isConfirming)) return;
    this.#close();
    if (index === undefined) return;
    // Before those that put off answers until these have seen the question, too.
    const arrived = isFiltered
      ? families.map((family) => ({ fd: openFilteredDatagramSocket(family, arrivedFilterOf(family)), family }))
      : [];
    const packet = families.map((family) => openFilteredPacketSocket(index, family, filterOf(family)));
    this.#listened = { index, packet, arrived };
    for (const fd of [...packet, ...arrived.map((one) => one.fd)]) raiseSignal(fd, signal);
  }

  /** Whether the host had a way to send it. */
  send(probe: Probe): boolean {
    return transmitIp(questionPacket(probe), probe.to) >= 0;
  }

  /** Ports at which questions came in lately that the host has not let in since. */
  shut(): readonly ShutPort[] {
    this.#judge();
    return [...this.#shut.values()].map(({ port, from }) => ({ port, from }));
  }

  [Symbol.dispose](): void {
    process.off(signal, this.#drain);
    this.#close();
  }

  get #isConfirming(): boolean {
    return (this.#listened?.arrived.length ?? 0) > 0;
  }

  #close(): void {
    const { packet = [], arrived = [] } = this.#listened ?? {};
    for (const fd of [...packet, ...arrived.map((one) => one.fd)]) closeSync(fd);
    this.#listened = undefined;
    this.#waiting.clear();
    this.#shut.clear();
  }

  #drainOne(fd: number): void {
    for (let count = 0; count < mostFrames; count++) {
      const length = receive(fd, buffer, { wait: false });
      if (length < 0) return;
      const heard = hear(buffer.subarray(0, length));
      if (heard?.type === 'answer') this.#handlers.answered(heard.nonce);
      else if (heard !== undefined && this.#handlers.mayAnswer(heard.from, heard.to)) this.#asked(fd, heard);
    }
  }

  #asked(fd: number, question: Question): void {
    const { datagram, answer } = question;
    // What is for containers is not for a port of the host's.
    if (!this.#isConfirming || datagram === undefined || datagram.port === probePort) {
      transmit(fd, answer);
      return;
    }
    if (this.#waiting.size >= mostWaiting) this.#judge();
    if (this.#waiting.size >= mostWaiting) return;
    this.#waiting.set(datagram.nonce, { fd, question, port: datagram.port, at: this.#handlers.now() });
  }

  #drainArrived(fd: number, family: Family): void {
    for (let count = 0; count < mostFrames; count++) {
      const length = receive(fd, buffer, { wait: false });
      if (length < 0) return;
      const nonce = arrivedNonce(buffer.subarray(0, length), family);
      if (nonce === undefined) continue;
      // It has come in at the link since that was read.
      if (!this.#waiting.has(nonce)) for (const packet of this.#listened?.packet ?? []) this.#drainOne(packet);
      const waiting = this.#waiting.get(nonce);
      if (waiting === undefined) continue;
      this.#waiting.delete(nonce);
      this.#shut.delete(keyOf(waiting.question.from, waiting.port));
      transmit(waiting.fd, waiting.question.answer);
    }
  }

  #judge(): void {
    const now = this.#handlers.now();
    for (const [nonce, { question, port, at }] of this.#waiting) {
      if (now - at < arrivalMs) continue;
      this.#waiting.delete(nonce);
      this.#shut.set(keyOf(question.from, port), { port, from: question.from, at });
    }
    for (const [key, { at }] of this.#shut) if (now - at > rememberedMs) this.#shut.delete(key);
  }
}

const keyOf = (from: Ip, port: number): string => `${from} ${port}`;
