// Removing veth pairs without waiting for their memory. Whoever deletes a link is kept until the kernel has freed it, a grace
// period of RCU after nobody can see it any more (net/core/dev.c, netdev_run_todo), some ten milliseconds each time. So the
// request is written by a thread of libuv's pool, and what is waited for is the kernel's word that the link has gone, which
// comes before that.
import { closeSync, write } from 'node:fs';
import type { Netns } from '#model/desired.ts';
import type { Fault } from '#model/fault.ts';
import { doomedGroup } from './batch.ts';
import { errnoName, kernelFault, netlinkPort, openNetlinkSocket, receive, setOption } from './libc.ts';
import { decodeError, decodeMessages, encodeMessage, type Message } from './netlink/codec.ts';
import { decodeLink, encodeLink } from './netlink/rtnl.ts';
import {
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_REQUEST,
  NLMSG_ERROR,
  RTM_DELLINK,
  RTM_SETLINK,
  RTMGRP_LINK,
  SO_RCVBUFFORCE,
  SO_RCVTIMEO,
  SOL_SOCKET,
} from './netlink/uapi.ts';
import { inNetns } from './netns.ts';
import type { Sockets } from './sockets.ts';

// Should every thread of the pool be waiting for something else, the caller does not wait with them for long.
const patienceMs = 2000;
const bufferBytes = 4 * 1024 * 1024;
const buffer = Buffer.alloc(64 * 1024);

/** Links that the kernel has said have gone, and what it refused, by the request's number from 1. */
interface Heard {
  readonly gone: Set<string>;
  readonly refused: Map<number, string>;
  readonly answered: Set<number>;
}

const open = (): number => openNetlinkSocket(NETLINK_ROUTE, RTMGRP_LINK);

/** The number of the request that removes them. */
const lastRequest = (names: readonly string[]): number => (names.length === 1 ? 1 : names.length + 1);

function requestsFor(names: readonly string[]): Buffer {
  const bodies: { readonly type: number; readonly body: Buffer }[] =
    names.length === 1
      ? names.map((name) => ({ type: RTM_DELLINK, body: encodeLink({ name }) }))
      : [
          ...names.map((name) => ({ type: RTM_SETLINK, body: encodeLink({ name, group: doomedGroup }) })),
          { type: RTM_DELLINK, body: encodeLink({ group: doomedGroup }) },
        ];
  return Buffer.concat(
    bodies.map(({ type, body }, index) => encodeMessage({ type, flags: NLM_F_REQUEST | NLM_F_ACK, sequence: index + 1, port: 0, body })),
  );
}

function hear(heard: Heard, message: Message, port: number): void {
  if (message.type === RTM_DELLINK) {
    const { name } = decodeLink(message.body);
    heard.gone.add(name);
  }
  if (message.type !== NLMSG_ERROR || message.port !== port) return;
  heard.answered.add(message.sequence);
  const { errno } = decodeError(message);
  if (errno !== 0) heard.refused.set(message.sequence, errnoName(errno));
}

/** Reads until every link has gone or is known to stay. */
function listen(fd: number, port: number, names: readonly string[]): Heard {
  const heard: Heard = { gone: new Set(), refused: new Map(), answered: new Set() };
  const last = lastRequest(names);
  const isSettled = (name: string, index: number): boolean => heard.gone.has(name) || heard.refused.has(index + 1);
  const end = performance.now() + patienceMs;
  while (!names.every(isSettled) && !heard.answered.has(last) && performance.now() < end) {
    const length = receive(fd, buffer, { wait: true });
    if (length > 0) for (const message of decodeMessages(buffer.subarray(0, length))) hear(heard, message, port);
  }
  return heard;
}

/** As deleteLinks(), but on return the links are only out of sight. Fault `kernel` when it did not come to that. */
export function removeLinks(sockets: Sockets, netns: Netns, names: readonly string[]): (Fault | undefined)[] {
  if (names.length === 0) return [];
  const fd = netns === '' ? open() : inNetns(sockets.path(netns), open);
  const port = netlinkPort(fd);
  setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, bufferBytes);
  const timeout = Buffer.alloc(16);
  timeout.writeBigInt64LE(BigInt(patienceMs / 1000), 0);
  setOption(fd, SOL_SOCKET, SO_RCVTIMEO, timeout);
  sockets.ports.add(port);
  write(fd, requestsFor(names), () => {
    sockets.ports.delete(port);
    closeSync(fd);
  });
  const { gone, refused, answered } = listen(fd, port, names);
  const last = lastRequest(names);
  return names.map((name, index) => {
    if (gone.has(name)) return undefined;
    const own = refused.get(index + 1);
    // ENODEV: nothing was in the group.
    const errno = own ?? (answered.has(last) ? 'ENODEV' : 'ETIMEDOUT');
    return kernelFault(`remove link ${name}`, errno);
  });
}
