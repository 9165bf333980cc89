// Addresses that move between hosts, put together: what an agent tells the wire, and what hosts tell each other.
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Agent, Log } from '#agent/agent.ts';
import { Announcements } from '#agent/announcements.ts';
import { Datagrams } from '#agent/datagrams.ts';
import { SealedTalk } from '#agent/sealed-talk.ts';
import { turnMs, VirtualAddresses } from '#agent/virtual-addresses.ts';
import { type VirtualAddress, virtualAddresses } from '#drivers/virtual.ts';
import { announce } from '#kernel/gratuitous.ts';
import type { RealKinds } from '#kernel/kinds.ts';
import { loadKeyPair } from '#kernel/wireguard-keys.ts';
import type { Desired } from '#model/desired.ts';
import { cidrBase, type Ip, parseCidr } from '#model/ip.ts';
import { virtualPort } from '#model/numbers.ts';

interface Surroundings {
  readonly kinds: RealKinds;
  /** Known as soon as this turn of the event loop is over. */
  readonly agent: () => Agent;
  /** Folder of what the agent keeps. */
  readonly state: string;
  readonly log: Log;
  readonly closing: AsyncDisposableStack;
}

export interface Moving {
  /** Public, for other hosts. */
  readonly talkKey: string;
  /** Addresses that this host is to have now. */
  readonly carried: () => ReadonlySet<Ip>;
  /** After every run of the loop. */
  readonly applied: (desired: Desired) => void;
}

/** Begins when the agent is there, and ends with `closing`. */
export function moving({ kinds, agent, state, log, closing }: Surroundings): Moving {
  const { privateKey, publicKey } = loadKeyPair(join(state, 'talk.key'));
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
    talk: new SealedTalk({
      host: () => agent().local.host,
      privateKey,
      keyOf: (host) => agent().facts.hosts.get(host)?.talkKey,
      newSession: () => randomBytes(16).toString('hex'),
    }),
    listen: (isOn) => datagrams.listen(isOn ? selfOf()?.underlay[0]?.ip : undefined),
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
  const timer = setInterval(() => virtual.turn(), turnMs);
  timer.unref();
  closing.defer(() => clearInterval(timer));
  return {
    talkKey: publicKey,
    carried: () => virtual.carried(),
    applied: (desired) => {
      announcements.applied(desired);
      virtual.touch();
    },
  };
}
