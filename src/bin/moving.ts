// Addresses that move between hosts, put together: what an agent tells the wire, and what hosts tell each other.
import type { Agent, Log } from '#agent/agent.ts';
import { Announcements } from '#agent/announcements.ts';
import { Datagrams } from '#agent/datagrams.ts';
import { turnMs, VirtualAddresses } from '#agent/virtual-addresses.ts';
import { type VirtualAddress, virtualAddresses } from '#drivers/virtual.ts';
import { announce } from '#kernel/gratuitous.ts';
import type { RealKinds } from '#kernel/kinds.ts';
import type { Desired } from '#model/desired.ts';
import { cidrBase, type Ip, parseCidr } from '#model/ip.ts';
import { virtualPort } from '#model/numbers.ts';

interface Surroundings {
  readonly kinds: RealKinds;
  /** Known as soon as this turn of the event loop is over. */
  readonly agent: () => Agent;
  readonly log: Log;
  readonly closing: AsyncDisposableStack;
}

export interface Moving {
  /** Addresses that this host is to have now. */
  readonly carried: () => ReadonlySet<Ip>;
  /** After every run of the loop. */
  readonly applied: (desired: Desired) => void;
}

/** Begins when the agent is there, and ends with `closing`. */
export function moving({ kinds, agent, log, closing }: Surroundings): Moving {
  const announcements = closing.use(
    new Announcements({
      announce: (link, ips) => announce(kinds.sockets, link, ips),
      log: (fields, message) => log.warn(fields, message),
    }),
  );
  const selfOf = () => agent().facts.hosts.get(agent().local.host);
  const able = (): readonly VirtualAddress[] => {
    const self = selfOf();
    return self === undefined ? [] : virtualAddresses(agent().facts, agent().endpoints.all(), self);
  };
  const datagrams = closing.use(
    new Datagrams({
      port: virtualPort,
      heard: (from, text) => virtual.heard(from, text),
      log: (fields, message) => log.warn(fields, message),
    }),
  );
  const virtual = new VirtualAddresses({
    host: () => agent().local.host,
    able,
    held: () => new Set(kinds.addr.list('').map(({ address }) => cidrBase(parseCidr(address)))),
    send: (to, text) => datagrams.send(to, text),
    changed: () => agent().loop.kick(),
    anew: (ip) => {
      announcements.forget(ip);
      agent().loop.kick();
    },
    now: () => performance.now(),
    log: (fields, message) => log.info(fields, message),
  });
  const listen = (): void => {
    if (able().length > 0) datagrams.listen(selfOf()?.underlay[0]?.ip);
  };
  let isQuiet = true;
  const timer = setInterval(() => {
    listen();
    virtual.turn();
    // Not before the others have been told that there is nothing more.
    const wasQuiet = isQuiet;
    isQuiet = able().length === 0;
    if (isQuiet && wasQuiet) datagrams.listen(undefined);
  }, turnMs);
  timer.unref();
  closing.defer(() => clearInterval(timer));
  return {
    carried: () => virtual.carried(),
    applied: (desired) => {
      announcements.applied(desired);
      listen();
      virtual.touch();
    },
  };
}
