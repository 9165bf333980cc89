// A host's kernel in memory, as the kinds see it: for tests of the loop without root, and proof that kind.ts and the contract
// say enough. What hangs on something goes with it; what the kernel would refuse is refused with the kernel's errno.
import type {
  Addr,
  BirdConfig,
  FastPath,
  Fdb,
  KindName,
  Link,
  Neigh,
  Netns,
  NetnsItem,
  Proxy,
  Route,
  Shaper,
  Sysctl,
  Trunk,
  WayRule,
  WireguardConfig,
} from '#model/desired.ts';
import type { Fault } from '#model/fault.ts';
import { addrKey, addrText } from './addr.ts';
import { byItem, place } from './batch.ts';
import { fastKey, fastText, sameFast } from './fast.ts';
import { fdbKey, fdbText, sameFdb } from './fdb.ts';
import type { Kind, Kinds } from './kind.ts';
import { kernelFault } from './libc.ts';
import { linkKey, linkText, sameLink } from './link.ts';
import { neighKey, neighText } from './neigh.ts';
import { createFakeNft } from './nft-fake.ts';
import { isOurLinkName } from './ownership.ts';
import { proxyKey, proxyText } from './proxy.ts';
import { routeKey, routeText, sameRoute } from './route.ts';
import { ruleKey, ruleText, sameRule } from './rule.ts';
import { sameShaper, shaperKey, shaperText } from './shaper.ts';
import { sysctlKey } from './sysctl.ts';
import { sameTrunk, trunkKey, trunkText } from './trunk.ts';

export interface FakeKinds extends Kinds {
  /** Items that were given to add() and remove() since creation. */
  readonly writes: number;
  /** Somebody else makes a link, or a route over it, that is not ours. */
  putForeign(foreign: { readonly netns: Netns; readonly link: string; readonly destination?: string }): void;
  /** Somebody else removes an object of ours, and with it what hangs on it. */
  lose(kind: KindName, key: string): void;
  /** A container's namespace ends, and with it the links that have an end in it. */
  endSandbox(path: string): void;
  /** The next addition under that key is refused once with that errno. */
  refuseNext(kind: KindName, key: string, errno: string): void;
}

/** One end of a link. Without `item` it is the far end of a pair, or foreign. */
interface End {
  item?: Link;
  readonly pair?: string;
}

interface OnLink {
  readonly netns: Netns;
  readonly link?: string;
}

const endKey = (netns: Netns, name: string): string => `${netns} ${name}`;

/** Nothing exists but the host's own namespace; sandboxes (absolute paths) exist until endSandbox(). */
export function createFakeKinds(): FakeKinds {
  const domains = new Map<string, NetnsItem>();
  const ended = new Set<string>();
  const ends = new Map<string, End>();
  const foreignRoutes = new Set<string>();
  const refusals = new Map<string, string>();
  const nft = createFakeNft();
  let writes = 0;

  const exists = (netns: Netns): boolean => netns === '' || domains.has(netns) || (netns.startsWith('/') && !ended.has(netns));
  const hasLink = (netns: Netns, link: string): boolean => link === 'lo' || ends.has(endKey(netns, link));

  function absence(action: string, { netns, link }: OnLink): Fault | undefined {
    if (!exists(netns)) return kernelFault(`open network namespace ${netns}`, 'ENOENT');
    return link === undefined || hasLink(netns, link) ? undefined : kernelFault(action, 'ENODEV', `no link ${link}`);
  }

  /** A kind whose items are kept by key; `check` says why the kernel would refuse one. */
  function kept<T extends { readonly netns: Netns }>(
    name: KindName,
    { key, same, check }: { key: (item: T) => string; same: (wanted: T, found: T) => boolean; check: (item: T) => Fault | undefined },
  ): { readonly kind: Kind<T>; readonly items: Map<string, T> } {
    const items = new Map<string, T>();
    const add = (item: T): void => {
      refuse(name, key(item));
      const fault = check(item);
      if (fault !== undefined) throw fault;
      items.set(key(item), item);
    };
    const kind: Kind<T> = {
      name,
      key,
      same,
      list: (netns) => [...items.values()].filter((item) => item.netns === netns),
      add: (batch) => byItem(batch, add),
      remove(batch) {
        for (const item of batch) items.delete(key(item));
        return [];
      },
    };
    return { kind, items };
  }

  function refuse(kind: KindName, key: string): void {
    const errno = refusals.get(`${kind} ${key}`);
    refusals.delete(`${kind} ${key}`);
    if (errno !== undefined) throw kernelFault(`add ${kind} ${key}`, errno);
  }

  const addr = kept<Addr>('addr', { key: addrKey, same: () => true, check: (item) => absence(`add ${addrText(item)}`, item) });
  const proxy = kept<Proxy>('proxy', { key: proxyKey, same: () => true, check: (item) => absence(`add ${proxyText(item)}`, item) });
  const rule = kept<WayRule>('rule', { key: ruleKey, same: sameRule, check: (item) => absence(`add ${ruleText(item)}`, item) });
  const trunk = kept<Trunk>('trunk', { key: trunkKey, same: sameTrunk, check: (item) => absence(`add ${trunkText(item)}`, item) });
  const neigh = kept<Neigh>('neigh', {
    key: neighKey,
    same: (wanted, found) => wanted.mac === found.mac,
    check: (item) => absence(`add ${neighText(item)}`, item),
  });
  const fdb = kept<Fdb>('fdb', {
    key: fdbKey,
    same: sameFdb,
    check(item) {
      const action = `add ${fdbText(item)}`;
      const isVxlan = ends.get(endKey(item.netns, item.link))?.item?.type === 'vxlan';
      return absence(action, item) ?? (isVxlan ? undefined : kernelFault(action, 'EOPNOTSUPP'));
    },
  });
  const route = kept<Route>('route', {
    key: routeKey,
    same: sameRoute,
    check(item) {
      const action = `add ${routeText(item)}`;
      if (foreignRoutes.has(routeKey(item))) return kernelFault(action, 'EEXIST', 'File exists');
      if (item.via !== undefined && item.link === undefined) return kernelFault(action, 'ENETUNREACH', 'Nexthop has invalid gateway');
      return absence(action, item);
    },
  });
  const sysctl = kept<Sysctl>('sysctl', {
    key: sysctlKey,
    same: (wanted, found) => wanted.value === found.value,
    check(item) {
      const action = `set sysctl ${item.path}${place(item.netns)}`;
      const link = /^net\/ipv[46]\/(?:conf|neigh)\/([^/]+)\//.exec(item.path)?.[1];
      if (link !== undefined && link !== 'all' && link !== 'default') return absence(action, { netns: item.netns, link });
      return absence(action, { netns: item.netns }) ?? (item.path.includes('no_such') ? kernelFault(action, 'ENOENT') : undefined);
    },
  });
  const wireguard = kept<WireguardConfig>('wireguard', {
    key: ({ netns, link }) => endKey(netns, link),
    same: (wanted, found) => JSON.stringify(wanted) === JSON.stringify(found),
    check: (item) => absence(`configure link ${item.link} type wireguard`, item),
  });
  const fast = kept<FastPath>('fast', { key: fastKey, same: sameFast, check: (item) => absence(`add ${fastText(item)}`, item) });
  const shaper = kept<Shaper>('shaper', {
    key: shaperKey,
    same: sameShaper,
    check: (item) => absence(`add ${shaperText(item)}`, item),
  });
  const hanging: readonly Map<string, OnLink>[] = [
    addr.items,
    neigh.items,
    proxy.items,
    fdb.items,
    route.items,
    wireguard.items,
    fast.items,
    shaper.items,
    rule.items,
  ];
  const bird = kept<BirdConfig>('bird', {
    key: ({ netns }) => netns,
    same: (wanted, found) => wanted.text === found.text && wanted.secrets === found.secrets,
    check: () => undefined,
  });

  function dropEnd(key: string): void {
    const end = ends.get(key);
    if (end === undefined) return;
    ends.delete(key);
    for (const items of hanging) {
      for (const [itemKey, { netns, link }] of items) if (link !== undefined && endKey(netns, link) === key) items.delete(itemKey);
    }
    if (end.pair !== undefined) dropEnd(end.pair);
  }

  /** Every end, and everything else, of one namespace. */
  function dropNetns(netns: Netns): void {
    for (const key of ends.keys()) if (key.startsWith(`${netns} `)) dropEnd(key);
    for (const items of [...hanging, sysctl.items]) {
      for (const [key, item] of items) if (item.netns === netns) items.delete(key);
    }
    for (const key of foreignRoutes) if (key.startsWith(`${netns} `)) foreignRoutes.delete(key);
    nft.forget(netns);
  }

  function refusedLink(item: Link): Fault | undefined {
    const action = `add ${linkText(item)}`;
    if (!isOurLinkName(item.name)) return kernelFault(action, 'EPERM', 'not a name of ours');
    if (item.mtu < 68) return kernelFault(action, 'EINVAL', 'mtu less than device minimum');
    if (item.type === 'vxlan') {
      if (item.vni < 0 || item.vni >= 2 ** 24) return kernelFault(action, 'ERANGE');
      const others = [...ends.values()].flatMap((end) =>
        end.item?.type === 'vxlan' && linkKey(end.item) !== linkKey(item) ? end.item : [],
      );
      if (others.some(({ vni, port }) => vni === item.vni && port === item.port)) return kernelFault(action, 'EEXIST');
    }
    return item.type === 'veth' ? absence(action, { netns: item.peer.netns }) : undefined;
  }

  function addLink(item: Link): void {
    refuse('link', linkKey(item));
    const key = linkKey(item);
    const fault = absence('', { netns: item.netns }) ?? refusedLink(item);
    if (fault !== undefined) throw fault;
    const existing = ends.get(key);
    if (existing !== undefined && fits(item, existing)) {
      existing.item = item;
      return;
    }
    dropEnd(key);
    if (item.type !== 'veth') {
      ends.set(key, { item });
      return;
    }
    const pair = endKey(item.peer.netns, item.peer.name);
    if (ends.has(pair)) throw kernelFault(`add ${linkText(item)}`, 'EEXIST', 'File exists');
    ends.set(key, { item, pair });
    ends.set(pair, { pair: key });
  }

  function fits(wanted: Link, { item, pair }: End): boolean {
    if (wanted.type === 'veth') return pair !== undefined;
    if (wanted.type === 'vxlan' && item?.type === 'vxlan') {
      return wanted.vni === item.vni && wanted.port === item.port && wanted.local === item.local && wanted.checksum === item.checksum;
    }
    return wanted.type === item?.type;
  }

  const link: Kind<Link> = {
    name: 'link',
    key: linkKey,
    same: sameLink,
    list: (netns) => [...ends.values()].flatMap(({ item }) => (item?.netns === netns ? item : [])),
    add: (items) => byItem(items, addLink),
    remove(items) {
      for (const item of items) if (isOurLinkName(item.name)) dropEnd(linkKey(item));
      return [];
    },
  };

  const netns: Kind<NetnsItem> = {
    name: 'netns',
    key: ({ name }) => name,
    same: () => true,
    list: (where) => (where === '' ? [...domains.values()] : []),
    add: (items) =>
      byItem(items, (item) => {
        refuse('netns', item.name);
        if (item.name.includes('/')) throw kernelFault(`make network namespace ${item.name}`, 'ENOENT');
        domains.set(item.name, item);
      }),
    remove(items) {
      for (const { name } of items) if (domains.delete(name)) dropNetns(name);
      return [];
    },
  };

  /** nft lives in namespaces too. */
  const inside = <T extends { readonly netns: Netns }>(kind: Kind<T>): Kind<T> => ({
    ...kind,
    add(items) {
      const away = items.flatMap((item) => {
        const fault = absence('', { netns: item.netns });
        return fault === undefined ? [] : [{ item, fault }];
      });
      return [...away, ...kind.add(items.filter((item) => exists(item.netns)))];
    },
  });

  function counted<T>(kind: Kind<T>): Kind<T> {
    return {
      ...kind,
      add(items) {
        writes += items.length;
        return kind.add(items);
      },
      remove(items) {
        writes += items.length;
        return kind.remove(items);
      },
    };
  }

  const lost: Readonly<Record<KindName, (key: string) => void>> = {
    netns: (key) => void netns.remove([{ name: key }]),
    rule: (key) => rule.items.delete(key),
    link: dropEnd,
    sysctl: (key) => sysctl.items.delete(key),
    wireguard: (key) => wireguard.items.delete(key),
    addr: (key) => addr.items.delete(key),
    neigh: (key) => neigh.items.delete(key),
    proxy: (key) => proxy.items.delete(key),
    trunk: (key) => trunk.items.delete(key),
    fdb: (key) => fdb.items.delete(key),
    route: (key) => route.items.delete(key),
    fast: (key) => fast.items.delete(key),
    shaper: (key) => shaper.items.delete(key),
    bird: (key) => bird.items.delete(key),
    table(key) {
      for (const where of ['', ...domains.keys()]) nft.table.remove(nft.table.list(where).filter((item) => nft.table.key(item) === key));
    },
    element(key) {
      for (const where of ['', ...domains.keys()])
        nft.element.remove(nft.element.list(where).filter((item) => nft.element.key(item) === key));
    },
  };

  return {
    netns: counted(netns),
    rule: counted(rule.kind),
    sysctl: counted(sysctl.kind),
    link: counted(link),
    wireguard: counted(wireguard.kind),
    addr: counted(addr.kind),
    neigh: counted(neigh.kind),
    proxy: counted(proxy.kind),
    trunk: counted(trunk.kind),
    fdb: counted(fdb.kind),
    route: counted(route.kind),
    table: counted(inside(nft.table)),
    element: counted(inside(nft.element)),
    fast: counted(fast.kind),
    shaper: counted(shaper.kind),
    bird: counted(bird.kind),
    get writes() {
      return writes;
    },
    putForeign({ netns: where, link: name, destination }) {
      if (destination === undefined) ends.set(endKey(where, name), {});
      else foreignRoutes.add(`${where} ${destination}`);
    },
    lose: (kind, key) => lost[kind](key),
    endSandbox(path) {
      ended.add(path);
      dropNetns(path);
    },
    refuseNext(kind, key, errno) {
      refusals.set(`${kind} ${key}`, errno);
    },
  };
}
