// Requests and answers over one netlink socket, synchronously: the kernel answers a request while it is being written, so
// nothing ever waits for long. Requests are numbered; answers of an abandoned earlier request are dropped by their number.
// A socket belongs for its whole life to the network namespace it was opened in (netlink(7)).
import { close, closeSync, write } from 'node:fs';
import { constants } from 'node:os';
import { promisify } from 'node:util';
import type { Fault } from '#model/fault.ts';
import { errnoName, kernelFault, linkIndex, netlinkPort, openNetlinkSocket, receive, setOption, transmit } from '../libc.ts';
import { addFlags, decodeError, decodeMessages, encodeMessage, type Message } from './codec.ts';
import {
  NETLINK_CAP_ACK,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_NOOP,
  SO_RCVBUFFORCE,
  SO_RCVTIMEO,
  SO_SNDBUFFORCE,
  SOL_NETLINK,
  SOL_SOCKET,
} from './uapi.ts';

export interface Request {
  readonly type: number;
  readonly flags?: number;
  readonly body: Buffer;
  /** Verb and object in ip(8) spelling, for the error: `add route 10.1.0.0/24 via 10.0.0.2 dev eth0`. */
  readonly action: string;
  /** Of a list: what it is of comes into being with its first entry, and until then it is empty. */
  readonly mayLack?: true;
}

/** How the kernel took one request of a batch, and what it sent back before acknowledging. */
export interface Outcome {
  readonly fault: Fault | undefined;
  readonly replies: readonly Message[];
}

/** A batch of netfilter's, whole: the number of its first message, and of the one that is to be acknowledged, the last before its end. */
export interface Transaction {
  readonly bytes: Buffer;
  readonly first: number;
  readonly acknowledged: number;
}

// One write holds at most this much, so that neither direction of the socket can overflow.
const batchBytes = 64 * 1024;
const batchCount = 256;
const dumpAttempts = 8;
const bufferBytes = 4 * 1024 * 1024;
// Shared by all sockets: a receive is finished with before the next one starts, as all of this is synchronous.
const receiveBuffer = Buffer.alloc(512 * 1024);

const writeAside = promisify(write);

interface Dumped {
  readonly messages: Message[];
  /** No change has come between. */
  readonly whole: boolean;
}

const encodeDump = ({ type, flags = 0, body }: Request, sequence: number): Buffer =>
  encodeMessage({ type, flags: NLM_F_REQUEST | NLM_F_DUMP | flags, sequence, port: 0, body });

export class NetlinkSocket implements Disposable {
  /** nl_pid: what multicast messages about this socket's own requests carry. */
  readonly port: number;
  readonly #fd: number;
  #sequence = 0;

  /** Opens in the calling thread's namespace. Fault `kernel`. */
  constructor(protocol: number = NETLINK_ROUTE) {
    this.#fd = openNetlinkSocket(protocol);
    this.port = netlinkPort(this.#fd);
    setOption(this.#fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    setOption(this.#fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    if (protocol === NETLINK_ROUTE) setOption(this.#fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
    setOption(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, bufferBytes);
    setOption(this.#fd, SOL_SOCKET, SO_SNDBUFFORCE, bufferBytes);
    // A lost answer must not hang the process for ever: struct timeval, ten seconds.
    const timeout = Buffer.alloc(16);
    timeout.writeBigInt64LE(10n, 0);
    setOption(this.#fd, SOL_SOCKET, SO_RCVTIMEO, timeout);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }

  /**
   * The same by a thread of libuv's pool. Whoever closes a socket to netfilter is kept until the kernel has destroyed all that anybody's
   * transactions removed so far (nf_tables_api.c, nft_rcv_nl_event): a grace period of RCU, 8 to 16 ms.
   */
  closeAside(): void {
    close(this.#fd, () => undefined);
  }

  /** The index of the link of that name in the socket's namespace; undefined when there is none. */
  indexOf(name: string): number | undefined {
    return linkIndex(this.#fd, name);
  }

  /** One request; its replies. Throws the kernel's refusal as a Fault `kernel`. */
  request(request: Request): readonly Message[] {
    const [outcome] = this.batch([request]);
    if (outcome?.fault !== undefined) throw outcome.fault;
    return outcome?.replies ?? [];
  }

  /**
   * Every request in order, several in one write; outcomes in the same order. One refusal does not stop the others. The kernel takes
   * them in order and tells every refusal unasked, so only the last of a write is to be acknowledged (af_netlink.c, netlink_rcv_skb).
   */
  batch(requests: readonly Request[]): Outcome[] {
    const outcomes: Outcome[] = [];
    let start = 0;
    while (start < requests.length) {
      // Numbers of one chunk are consecutive, so wrap around only between chunks.
      if (this.#sequence > 0x7fff_0000) this.#sequence = 0;
      const first = this.#sequence + 1;
      const chunk: Buffer[] = [];
      let bytes = 0;
      for (const request of requests.slice(start, start + batchCount)) {
        const { type, flags = 0, body } = request;
        const encoded = encodeMessage({ type, flags: NLM_F_REQUEST | flags, sequence: this.#next(), port: 0, body });
        chunk.push(encoded);
        bytes += encoded.length;
        if (bytes >= batchBytes) break;
      }
      const last = chunk.at(-1);
      if (last !== undefined) addFlags(last, NLM_F_ACK);
      const part = requests.slice(start, start + chunk.length);
      this.#send(chunk.length === 1 && chunk[0] !== undefined ? chunk[0] : Buffer.concat(chunk), part[0]?.action ?? '');
      outcomes.push(...this.#acknowledgements(part, first));
      start += chunk.length;
    }
    return outcomes;
  }

  /**
   * Messages that the kernel takes together or not at all (nfnetlink.c, nfnetlink_rcv_batch), in one write, numbered from nextNumber. Answers
   * why they were not taken: the first refusal.
   */
  transact(action: string, { bytes, first, acknowledged }: Transaction): Fault | undefined {
    this.#sequence = acknowledged + 1;
    if (bytes.length > bufferBytes) setOption(this.#fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes.length);
    this.#send(bytes, action);
    let refused: Fault | undefined;
    for (;;) {
      const datagram = this.#receive(action);
      if (datagram === undefined) throw kernelFault(action, 'ENOBUFS', 'acknowledgements were lost');
      for (const message of decodeMessages(datagram)) {
        if (message.type !== NLMSG_ERROR || message.sequence < first || message.sequence > acknowledged) continue;
        const { errno, text } = decodeError(message);
        if (errno !== 0) refused ??= kernelFault(action, errnoName(errno), text);
        // Nothing more may come when the beginning is refused.
        if (message.sequence === acknowledged || (message.sequence === first && errno !== 0)) return refused;
      }
    }
  }

  /**
   * Every object the kernel lists. A dump that a concurrent change interrupted is taken again, a few times; under changes
   * that never cease the last one counts, in which an object may be missing or stale (the next pass of the loop finds out).
   * Bodies are copies. Fault `kernel`.
   */
  dump(request: Request): Message[] {
    let last: Message[] = [];
    for (let attempt = 0; attempt < dumpAttempts; attempt++) {
      const { messages, whole } = this.#dumpOnce(request);
      if (whole) return messages;
      last = messages;
    }
    return last;
  }

  /**
   * The same where the kernel looks for long before it has anything to tell: a thread of libuv's pool asks, and so is kept for as long
   * as that. Nothing else may be asked meanwhile.
   */
  async dumpAside(request: Request): Promise<Message[]> {
    const sequence = this.#next();
    try {
      await writeAside(this.#fd, encodeDump(request, sequence));
    } catch (error) {
      const { errno = 0 } = error as NodeJS.ErrnoException;
      throw kernelFault(request.action, errnoName(-errno));
    }
    const { messages, whole } = this.#dumped(request, sequence);
    return whole ? messages : this.dump(request);
  }

  #dumpOnce(request: Request): Dumped {
    const sequence = this.#next();
    this.#send(encodeDump(request, sequence), request.action);
    return this.#dumped(request, sequence);
  }

  #dumped(request: Request, sequence: number): Dumped {
    const found: Message[] = [];
    let interrupted = false;
    for (;;) {
      const datagram = this.#receive(request.action);
      if (datagram === undefined) {
        interrupted = true;
        continue;
      }
      for (const message of decodeMessages(Buffer.from(datagram))) {
        if (message.sequence !== sequence) continue;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
          const errno = message.body.length >= 4 ? -message.body.readInt32LE(0) : 0;
          if (errno === constants.errno.ENOENT && request.mayLack === true) return { messages: [], whole: true };
          if (errno !== 0) {
            const text = message.type === NLMSG_ERROR ? decodeError(message).text : '';
            throw kernelFault(request.action, errnoName(errno), text);
          }
          return { messages: found, whole: !interrupted };
        }
        if (message.type !== NLMSG_NOOP) found.push(message);
      }
    }
  }

  #acknowledgements(requests: readonly Request[], first: number): Outcome[] {
    const faults: (Fault | undefined)[] = Array.from({ length: requests.length });
    const replies: Message[][] = requests.map(() => []);
    let isOpen = true;
    while (isOpen) {
      const datagram = this.#receive(requests[0]?.action ?? '');
      // Answers were lost for want of memory. What became of the requests is unknown: say so for those still open.
      if (datagram === undefined) throw kernelFault(requests[0]?.action ?? '', 'ENOBUFS', 'acknowledgements were lost');
      for (const message of decodeMessages(datagram)) {
        const index = message.sequence - first;
        const request = requests[index];
        if (request === undefined) continue;
        if (message.type !== NLMSG_ERROR) {
          replies[index]?.push({ ...message, body: Buffer.from(message.body) });
          continue;
        }
        if (index === requests.length - 1) isOpen = false;
        const { errno, text } = decodeError(message);
        if (errno !== 0) faults[index] = kernelFault(request.action, errnoName(errno), text);
      }
    }
    return requests.map((_, index) => ({ fault: faults[index], replies: replies[index] ?? [] }));
  }

  /** A number for the first message of a transaction. */
  get nextNumber(): number {
    if (this.#sequence > 0x7fff_0000) this.#sequence = 0;
    return this.#sequence + 1;
  }

  #next(): number {
    this.#sequence++;
    return this.#sequence;
  }

  #send(bytes: Buffer, action: string): void {
    for (;;) {
      const sent = transmit(this.#fd, bytes);
      if (sent >= 0) return;
      const errno = errnoName(-sent);
      if (errno !== 'EINTR') throw kernelFault(action, errno);
    }
  }

  /** A view into the shared buffer; undefined when the kernel had to drop answers (ENOBUFS). */
  #receive(action: string): Buffer | undefined {
    for (;;) {
      const length = receive(this.#fd, receiveBuffer, { wait: true });
      if (length >= 0) return receiveBuffer.subarray(0, length);
      const errno = errnoName(-length);
      if (errno === 'ENOBUFS') return undefined;
      if (errno === 'EAGAIN') throw kernelFault(action, 'ETIMEDOUT', 'the kernel did not answer');
      if (errno !== 'EINTR') throw kernelFault(action, errno);
    }
  }
}
