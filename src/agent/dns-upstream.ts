// Asking the host's own name servers, or the resolver of a container's engine, for what a network does not know. Packets pass as
// they are; only the id is another one, and every question has a socket (so a port) of its own, which is what makes forged
// answers hard (RFC 5452).
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIP } from 'node:net';
import { codeOf, isReplyTo, isTruncated, type Question, rcode, withId } from './dns-wire.ts';

export interface Upstream {
  /** Addresses, perhaps with a scope (`fe80::1%eth0`), in the order in which they are asked. */
  readonly servers: readonly { readonly address: string; readonly port: number }[];
  /** For one server, once. */
  readonly timeoutMs: number;
  /** How many times the whole list is gone through. */
  readonly attempts: number;
}

/** What clients wait for: resolv.conf(5) has 5 seconds by default, and answers after that help nobody. */
const patienceMs = 4500;
const maxReply = 65_535;

/** Reads resolv.conf(5); unknown and broken lines are ignored, as every resolver does. Without servers: none. */
export function parseResolvConf(text: string): Upstream {
  const servers: { address: string; port: number }[] = [];
  let timeoutMs = 2000;
  let attempts = 2;
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line.trim().split(/\s+/);
    const [address = ''] = values;
    if (keyword === 'nameserver' && isIP(address) !== 0 && servers.length < 8) servers.push({ address, port: 53 });
    if (keyword !== 'options') continue;
    for (const value of values) {
      const [, option, digits] = /^(timeout|attempts):([0-9]{1,2})$/.exec(value) ?? [];
      if (option === 'timeout') timeoutMs = Math.min(Math.max(Number(digits), 1), 2) * 1000;
      if (option === 'attempts') attempts = Math.min(Math.max(Number(digits), 1), 5);
    }
  }
  return { servers, timeoutMs, attempts };
}

/**
 * The answer of the first server that gives one, or undefined. A server that refuses or fails is passed over, but its answer
 * is used when there is no better one. `viaTcp`: a truncated answer is asked for again over TCP.
 */
export async function ask(
  packet: Buffer,
  question: Question,
  { servers, timeoutMs, attempts }: Upstream,
  viaTcp: boolean,
): Promise<Buffer | undefined> {
  const end = Date.now() + patienceMs;
  let poor: Buffer | undefined;
  for (let attempt = 0; attempt < attempts; attempt++) {
    for (const server of servers) {
      const left = Math.min(timeoutMs, end - Date.now());
      if (left <= 0) return poor;
      const query = withId(packet, randomInt(0x1_0000));
      const isMine = (reply: Buffer) => isReplyTo(reply, query, question);
      let reply = await askUdp(query, server, left, isMine);
      if (viaTcp && reply !== undefined && isTruncated(reply)) reply = (await askTcp(query, server, left, isMine)) ?? reply;
      if (reply === undefined) continue;
      const answer = withId(reply, question.id);
      const code = codeOf(answer);
      if (code !== rcode.serverFailure && code !== rcode.refused && code !== rcode.notImplemented) return answer;
      poor ??= answer;
    }
    if (poor !== undefined) return poor;
  }
  return poor;
}

/** Longer than the engine's resolver waits for one server (4 seconds) nobody waits for it. */
const engineMs = 4000;

export interface EngineResolver {
  /** A bound socket inside the container; it is closed in any case. */
  readonly fd: number;
  readonly address: string;
  readonly port: number;
}

/** What the container's engine says to this query; undefined when it gives no answer, or says that it cannot. */
export async function askEngine(query: Buffer, question: Question, engine: EngineResolver): Promise<Buffer | undefined> {
  const reply = await askUdp(query, engine, engineMs, (answer) => isReplyTo(answer, query, question));
  const code = reply === undefined ? rcode.serverFailure : codeOf(reply);
  return reply === undefined || code === rcode.serverFailure || code === rcode.refused ? undefined : withId(reply, question.id);
}

type Server = Upstream['servers'][number];

async function askUdp(
  query: Buffer,
  { address, port, fd }: Server & { readonly fd?: number },
  timeoutMs: number,
  isMine: (reply: Buffer) => boolean,
): Promise<Buffer | undefined> {
  const { promise, resolve } = Promise.withResolvers<Buffer | undefined>();
  const socket = createSocket(isIP(address) === 6 ? 'udp6' : 'udp4');
  if (fd !== undefined) await new Promise<void>((bound) => socket.bind({ fd }, bound));
  const timer = setTimeout(() => resolve(undefined), timeoutMs);
  socket.on('error', () => resolve(undefined));
  socket.on('message', (reply) => {
    if (isMine(reply)) resolve(reply);
  });
  // Connected, so the kernel drops what comes from elsewhere and tells when nobody listens there.
  socket.connect(port, address, (...failed: unknown[]) => (failed[0] === undefined ? socket.send(query) : resolve(undefined)));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.close();
  });
}

function askTcp(
  query: Buffer,
  { address, port }: Server,
  timeoutMs: number,
  isMine: (reply: Buffer) => boolean,
): Promise<Buffer | undefined> {
  const { promise, resolve } = Promise.withResolvers<Buffer | undefined>();
  const socket = connect({ port, host: address });
  const timer = setTimeout(() => resolve(undefined), timeoutMs);
  let received = Buffer.alloc(0);
  socket.on('error', () => resolve(undefined));
  socket.on('close', () => resolve(undefined));
  socket.on('connect', () => socket.write(framed(query)));
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk]);
    const frame = received.length < 2 ? undefined : received.subarray(2, 2 + received.readUInt16BE(0));
    if (frame === undefined || frame.length < received.readUInt16BE(0)) return;
    resolve(isMine(frame) ? frame : undefined);
  });
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

/** A packet as it goes over TCP: its length in two octets before it (RFC 1035 section 4.2.2). */
export function framed(packet: Buffer): Buffer {
  const frame = Buffer.alloc(2 + Math.min(packet.length, maxReply));
  frame.writeUInt16BE(frame.length - 2, 0);
  packet.copy(frame, 2);
  return frame;
}
