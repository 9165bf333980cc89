// Datagrams between hosts, by the host's own address. The socket is there only while somebody has something to say, and follows the
// address; what is lost or cannot be sent is not missed, as it is said again.
import { createSocket, type Socket } from 'node:dgram';
import { familyOf, type Ip, parseIp } from '#model/ip.ts';

export interface DatagramsOptions {
  readonly port: number;
  readonly heard: (from: Ip, text: string) => void;
  readonly log: (fields: object, message: string) => void;
}

export class Datagrams implements Disposable {
  readonly #options: DatagramsOptions;
  #open: { readonly address: Ip; readonly socket: Socket } | undefined;
  #said = '';

  constructor(options: DatagramsOptions) {
    this.#options = options;
  }

  /** Undefined: no more. What fails is tried again with the next call. */
  listen(address: Ip | undefined): void {
    if (this.#open?.address === address) return;
    this[Symbol.dispose]();
    if (address === undefined) return;
    const { port, heard, log } = this.#options;
    const socket = createSocket(familyOf(address) === 4 ? 'udp4' : 'udp6');
    this.#open = { address, socket };
    socket.on('message', (message, { address: from }) => heard(parseIp(from), message.toString('utf8')));
    socket.on('listening', () => (this.#said = ''));
    socket.on('error', (error) => {
      if (this.#said !== error.message) log({ error: error.message, address, port }, 'cannot hear other hosts');
      this.#said = error.message;
      if (this.#open?.socket === socket) this[Symbol.dispose]();
    });
    socket.bind({ address, port });
    socket.unref();
  }

  send(to: Ip, text: string): void {
    this.#open?.socket.send(text, this.#options.port, to, () => undefined);
  }

  [Symbol.dispose](): void {
    this.#open?.socket.close();
    this.#open = undefined;
  }
}
