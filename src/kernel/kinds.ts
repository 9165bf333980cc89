// All kinds of the real kernel in one value, over one set of sockets. Every write passes here, so here is where writes are
// counted (a restart that changes nothing must write nothing) and where they are told apart from drift.
import type { Netns } from '#model/desired.ts';
import { createAddrKind } from './addr.ts';
import { createBirdKind, findBird } from './bird.ts';
import { createNetnsKind } from './domain.ts';
import { Events, type OnDrift } from './events.ts';
import { createFastKind } from './fast.ts';
import { createFdbKind } from './fdb.ts';
import type { Kind, Kinds, Together } from './kind.ts';
import { createLinkKind, withoutWireguard } from './link.ts';
import { createNeighKind } from './neigh.ts';
import { defaultNetnsDirectory } from './netns.ts';
import { createElementKind, createTableKind } from './nft.ts';
import { createProxyKind } from './proxy.ts';
import { createRouteKind } from './route.ts';
import { createRuleKind } from './rule.ts';
import { createShaperKind } from './shaper.ts';
import { Sockets } from './sockets.ts';
import { createSysctlKind } from './sysctl.ts';
import { createTrunkKind } from './trunk.ts';
import { createWireguardKind, openWireguard, type UserspacePlace, type WireguardKind, type WireguardKindOptions } from './wireguard.ts';

export interface KindsOptions {
  /** Where named namespaces are; default /run/netns. */
  readonly netnsDirectory?: string;
  /** The host's private key (base64) and where wireguard-go's sockets go; absent: wireguard is refused as `unsupported`. */
  readonly wireguard?: Omit<WireguardKindOptions, 'backend'> & UserspacePlace;
  /** Where the BGP speaker's files go; absent: it is refused as `unsupported`. */
  readonly birdDirectory?: string;
  /** Called when somebody else may have changed something of ours; absent: nothing is watched. */
  readonly onDrift?: OnDrift;
}

export interface RealKinds extends Kinds, Required<Together>, Disposable {
  /** Items that were written to the kernel since creation: added, changed, removed. Settings that had their value do not count. */
  readonly writes: number;
  /** How many changes of what others' iptables let the host forward were heard of; undefined: nobody listens. */
  readonly othersTables: number | undefined;
  /** See BirdKind. */
  readonly isSpeakerRecovering: boolean;
  readonly sockets: Sockets;
}

const noWireguard: WireguardKind = {
  name: 'wireguard',
  key: ({ netns, link }) => `${netns} ${link}`,
  same: () => false,
  list: () => [],
  add: (items) => items.map((item) => ({ item, fault: withoutWireguard(item.link) })),
  remove: () => [],
  [Symbol.dispose]: () => undefined,
};

/** Faults: `kernel` when the process may not use netlink or share the directory. The caller disposes of it. */
export function createKinds(options: KindsOptions = {}): RealKinds {
  const netnsDirectory = options.netnsDirectory ?? defaultNetnsDirectory;
  const sockets = new Sockets(netnsDirectory);
  const events = options.onDrift === undefined ? undefined : new Events(sockets, options.onDrift);
  let writes = 0;
  const count = (items: number): void => {
    writes += items;
  };
  const quietly = <T>(fn: () => T): T => (events === undefined ? fn() : events.quiet(fn));

  function watched<T>(kind: Kind<T>, counting = true): Kind<T> {
    return {
      ...kind,
      add(items, changed) {
        if (counting) count(items.length);
        return quietly(() => kind.add(items, changed));
      },
      remove(items) {
        if (counting) count(items.length);
        return quietly(() => kind.remove(items));
      },
    };
  }

  /** What the kernel tells of every change of; listing a hundred thousand elements takes seconds. */
  function told<T extends { readonly netns: Netns }>(kind: Kind<T>): Kind<T> {
    if (events === undefined) return kind;
    const whereOf = (items: readonly T[]): ReadonlySet<Netns> => new Set(items.map(({ netns }) => netns));
    return {
      ...kind,
      add: (items, changed) => events.transact(whereOf(items), () => kind.add(items, changed)),
      remove: (items) => events.transact(whereOf(items), () => kind.remove(items)),
      list(netns) {
        const found = kind.list(netns);
        events.listed(netns, kind.name);
        return found;
      },
      isTold: (netns) => events.isTold(netns, kind.name),
    };
  }

  const { wireguard } = options;
  const backend = wireguard === undefined ? undefined : openWireguard(sockets, wireguard);
  const ciphers = wireguard === undefined || backend === undefined ? noWireguard : createWireguardKind({ ...wireguard, backend });
  const bird = createBirdKind({
    sockets,
    directory: options.birdDirectory ?? '/nonexistent',
    program: options.birdDirectory === undefined ? undefined : findBird(),
    ended: () => options.onDrift?.(''),
  });
  const nft = { netnsDirectory, empty: new Set<string>() };
  const netns = createNetnsKind(sockets, (name: Netns) => events?.release(name));
  return {
    netns: {
      ...netns,
      add(items) {
        count(items.length);
        const failures = quietly(() => netns.add(items));
        events?.follow();
        return failures;
      },
      remove(items) {
        count(items.length);
        return quietly(() => netns.remove(items));
      },
    },
    rule: watched(createRuleKind(sockets)),
    sysctl: watched(createSysctlKind(sockets, count), false),
    link: watched(createLinkKind(sockets, backend?.devices)),
    wireguard: watched(ciphers),
    addr: watched(createAddrKind(sockets)),
    neigh: watched(createNeighKind(sockets)),
    proxy: watched(createProxyKind(sockets)),
    trunk: watched(createTrunkKind(sockets)),
    fdb: watched(createFdbKind(sockets)),
    route: watched(createRouteKind(sockets)),
    table: told(watched(createTableKind(nft))),
    element: told(watched(createElementKind(nft))),
    fast: watched(createFastKind(sockets)),
    shaper: watched(createShaperKind(sockets)),
    bird: watched(bird),
    sockets,
    // The kernel's messages are read once for all of them.
    together: quietly,
    get writes() {
      return writes;
    },
    get isSpeakerRecovering() {
      return bird.isRecovering;
    },
    get othersTables() {
      return events?.elsewhere;
    },
    [Symbol.dispose]() {
      events?.[Symbol.dispose]();
      bird[Symbol.dispose]();
      ciphers[Symbol.dispose]();
      sockets[Symbol.dispose]();
    },
  };
}
