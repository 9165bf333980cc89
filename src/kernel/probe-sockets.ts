// Where probes come in and go out: a packet socket for each family on the host's underlay link, behind a filter that lets nearly
// nothing else through. It raises a signal like the sockets of events.ts, for the same reasons.
import { closeSync } from 'node:fs';
import type { Ip } from '#model/ip.ts';
import { dumpLinks } from './batch.ts';
import { openFilteredPacketSocket, raiseSignal, receive, transmit, transmitIp } from './libc.ts';
import { filterOf, hear, type Probe, questionPacket } from './probe-packet.ts';
import type { Sockets } from './sockets.ts';

const signal = 'SIGURG';
/** In one go: nobody may keep an agent busy with questions. */
const mostFrames = 256;
const buffer = Buffer.alloc(256);

export interface ProbeHandlers {
  readonly answered: (nonce: string) => void;
  /** Whether a host asks another: nobody else is answered. */
  readonly mayAnswer: (from: Ip, to: Ip) => boolean;
}

export class ProbeSockets implements Disposable {
  readonly #sockets: Sockets;
  readonly #handlers: ProbeHandlers;
  #index: number | undefined;
  #fds: readonly number[] = [];
  readonly #drain = (): void => {
    for (const fd of this.#fds) this.#drainOne(fd);
  };

  constructor(sockets: Sockets, handlers: ProbeHandlers) {
    this.#sockets = sockets;
    this.#handlers = handlers;
    process.on(signal, this.#drain);
  }

  /** Listens on the link of that name from now on; on none when it is absent or has none. Fault `kernel`. */
  listen(link: string | undefined): void {
    const index = link === undefined ? undefined : dumpLinks(this.#sockets.of('')).find(({ name }) => name === link)?.index;
    if (index === this.#index) return;
    this.#close();
    if (index === undefined) return;
    this.#fds = ([4, 6] as const).map((family) => openFilteredPacketSocket(index, family, filterOf(family)));
    for (const fd of this.#fds) raiseSignal(fd, signal);
    this.#index = index;
  }

  /** Whether the host had a way to send it. */
  send(probe: Probe): boolean {
    return transmitIp(questionPacket(probe), probe.to) >= 0;
  }

  [Symbol.dispose](): void {
    process.off(signal, this.#drain);
    this.#close();
  }

  #close(): void {
    for (const fd of this.#fds) closeSync(fd);
    this.#fds = [];
    this.#index = undefined;
  }

  #drainOne(fd: number): void {
    for (let count = 0; count < mostFrames; count++) {
      const length = receive(fd, buffer, { wait: false });
      if (length < 0) return;
      const heard = hear(buffer.subarray(0, length));
      if (heard?.type === 'answer') this.#handlers.answered(heard.nonce);
      else if (heard !== undefined && this.#handlers.mayAnswer(heard.from, heard.to)) transmit(fd, heard.answer);
    }
  }
}
