// What every kind promises (kind.ts), as one suite: run against the kernel (kinds.netns.test.ts) and the fake
// (fake.test.ts). nft's kinds have more to promise, in nft-contract.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type {
  Addr,
  Desired,
  FastPath,
  Fdb,
  KindName,
  Link,
  Neigh,
  Netns,
  Proxy,
  Route,
  Shaper,
  Sysctl,
  VethLink,
  VxlanLink,
} from '#model/desired.ts';
import { type Cidr, type Ip, type Mac, parseCidr, parseIp, parseMac } from '#model/ip.ts';
import type { Kinds } from './kind.ts';

/** Something in the kernel that is not ours. */
export type Foreign =
  | { readonly what: 'link'; readonly netns: Netns; readonly name: string }
  | { readonly what: 'route'; readonly netns: Netns; readonly destination: Cidr; readonly link: string }
  | { readonly what: 'addr'; readonly netns: Netns; readonly link: string; readonly address: string };

export interface Subject {
  /** A host without anything of ours. */
  open(): Kinds;
  /** Puts it there behind the kinds' back. */
  put(foreign: Foreign): void;
  /** Whether it is still there. */
  has(foreign: Foreign): boolean;
}

type Item = Desired[KindName][number];

interface Case {
  readonly kind: KindName;
  readonly about: string;
  readonly item: Item;
  /** Same key, other content. */
  readonly changed?: Item;
  /** Refused by the kernel. */
  readonly bad: Item;
  /** Another good one. */
  readonly other: Item;
  /** A setting has no state to go back to. */
  readonly stays?: boolean;
}

const netns = 'cw-contract';
const mac = (text: string): Mac => parseMac(text);
const ip = (text: string): Ip => parseIp(text);

const veth = (name: string, more: Partial<VethLink> = {}): VethLink => ({
  type: 'veth',
  netns,
  name: `cwe${name}`,
  mtu: 1400,
  mac: mac('02:63:77:ff:ff:01'),
  alias: `causeway contract ${name}`,
  peer: { netns: '', name: `cwt${name}`, mac: mac('0a:63:0a:00:00:05'), mtu: 1400, up: false },
  ...more,
});
const vxlan = (vni: number, more: Partial<VxlanLink> = {}): VxlanLink => ({
  type: 'vxlan',
  netns,
  name: `cwx${vni}`,
  mtu: 1350,
  mac: mac('02:63:77:00:00:01'),
  alias: 'causeway contract',
  vni,
  port: 8472,
  local: ip('192.0.2.1'),
  checksum: false,
  ...more,
});
const addr = (address: string, link = 'cwea'): Addr => ({ netns, link, address });
const neigh = (address: string, link = 'cwea', lladdr = '0a:63:0a:00:00:05'): Neigh => ({ netns, link, ip: ip(address), mac: mac(lladdr) });
const proxy = (address: string, link = 'cwea'): Proxy => ({ netns, link, ip: ip(address) });
const fdb = (last: number, remote: string, link = 'cwx7'): Fdb => ({
  netns,
  link,
  mac: mac(`02:63:77:00:00:0${last}`),
  remote: ip(remote),
});
const route = (destination: string, more: Partial<Route>): Route => ({
  netns,
  destination: parseCidr(destination),
  onlink: false,
  type: 'unicast',
  ...more,
});
const sysctl = (path: string, value: string): Sysctl => ({ netns, path, value });
const fast = (link: string, more: Partial<FastPath> = {}): FastPath => ({
  netns,
  link,
  ranges: [parseCidr('10.0.0.0/16'), parseCidr('fd00::/56')],
  member: { mac: mac('0a:63:0a:00:00:05'), addresses: [ip('10.0.0.5'), ip('fd00::5')] },
  tunnel: { mac: mac('02:63:77:00:00:01'), mtu: 1400 },
  ...more,
});
const shaper = (direction: Shaper['direction'], more: Partial<Shaper> = {}): Shaper => ({
  netns,
  link: 'cwea',
  direction,
  rate: 125_000,
  burst: 64_000,
  ...more,
});
const over = { link: 'cwx7', via: ip('100.126.0.2'), onlink: true } as const;
const over6 = { link: 'cwx7', via: ip('fe80::63:77ff:fe00:2'), onlink: true } as const;

const cases: readonly Case[] = [
  { kind: 'netns', about: 'a domain', item: { name: 'cw-one' }, bad: { name: 'cw-a/b/c' }, other: { name: 'cw-two' } },
  {
    kind: 'sysctl',
    about: 'a setting',
    item: sysctl('net/ipv4/ip_forward', '1'),
    changed: sysctl('net/ipv4/ip_forward', '0'),
    bad: sysctl('net/ipv4/no_such_thing', '1'),
    other: sysctl('net/ipv4/conf/default/rp_filter', '2'),
    stays: true,
  },
  {
    kind: 'link',
    about: 'a veth pair',
    item: veth('b'),
    changed: veth('b', { mtu: 1300, alias: 'causeway contract changed', mac: mac('02:63:77:ff:ff:02') }),
    bad: veth('c', { mtu: 7 }),
    other: veth('d'),
  },
  {
    kind: 'link',
    about: 'a vxlan that changes in place',
    item: vxlan(8),
    changed: vxlan(8, { mtu: 1340, mac: mac('02:63:77:00:00:07') }),
    bad: vxlan(7, { name: 'cwx-same-vni' }),
    other: vxlan(9),
  },
  {
    kind: 'link',
    about: 'a vxlan that has to be made again',
    item: vxlan(8),
    changed: vxlan(8, { local: ip('2001:db8::1'), port: 8473, checksum: true }),
    bad: vxlan(0, { vni: 2 ** 24 }),
    other: vxlan(9),
  },
  {
    kind: 'addr',
    about: 'an IPv4 address',
    item: addr('169.254.1.1/32', 'lo'),
    bad: addr('10.0.0.1/32', 'cwenone'),
    other: addr('10.0.0.1/24'),
  },
  {
    kind: 'addr',
    about: 'an IPv6 address',
    item: addr('fe80::1/64'),
    bad: addr('fd00::1/64', 'cwenone'),
    other: addr('fd00::1/128', 'lo'),
  },
  {
    kind: 'neigh',
    about: 'an IPv4 neighbour',
    item: neigh('10.0.0.5'),
    changed: neigh('10.0.0.5', 'cwea', '0a:63:0a:00:00:06'),
    bad: neigh('10.0.0.5', 'cwenone'),
    other: neigh('10.0.0.6'),
  },
  {
    kind: 'neigh',
    about: 'an IPv6 neighbour',
    item: neigh('fd00::5'),
    changed: neigh('fd00::5', 'cwea', '0a:63:0a:00:00:06'),
    bad: neigh('fd00::5', 'cwenone'),
    other: neigh('fd00::6'),
  },
  {
    kind: 'proxy',
    about: 'an IPv4 address that is answered for',
    item: proxy('10.0.0.5'),
    bad: proxy('10.0.0.5', 'cwenone'),
    other: proxy('10.0.0.6'),
  },
  {
    kind: 'proxy',
    about: 'an IPv6 address that is answered for',
    item: proxy('fd00::5'),
    bad: proxy('fd00::5', 'cwenone'),
    other: proxy('fd00::6'),
  },
  {
    kind: 'fdb',
    about: 'a forwarding entry',
    item: fdb(2, '192.0.2.2'),
    changed: fdb(2, '192.0.2.3'),
    bad: fdb(2, '192.0.2.2', 'cwx99'),
    other: fdb(3, '192.0.2.3'),
  },
  {
    kind: 'route',
    about: 'an IPv4 route to a block',
    item: route('10.7.0.0/24', over),
    changed: route('10.7.0.0/24', { ...over, mtu: 1300, via: ip('100.126.0.3') }),
    bad: route('10.8.0.0/24', { via: ip('203.0.113.9') }),
    other: route('10.9.0.0/24', over),
  },
  {
    kind: 'route',
    about: 'an IPv4 route to an endpoint',
    item: route('10.0.0.5/32', { link: 'cwea' }),
    changed: route('10.0.0.5/32', { type: 'unreachable' }),
    bad: route('10.0.0.6/32', { link: 'cwenone' }),
    other: route('10.0.0.0/16', { type: 'blackhole' }),
  },
  {
    kind: 'route',
    about: 'an IPv6 route to a block',
    item: route('fd01::/64', over6),
    changed: route('fd01::/64', { ...over6, mtu: 1290 }),
    bad: route('fd02::/64', { via: ip('2001:db8::9') }),
    other: route('::/0', over6),
  },
  {
    kind: 'route',
    about: 'an IPv6 route to an endpoint',
    item: route('fd00::5/128', { link: 'cwea' }),
    changed: route('fd00::5/128', { type: 'unreachable' }),
    bad: route('fd00::6/128', { link: 'cwenone' }),
    other: route('fd00::/16', { type: 'blackhole' }),
  },
  {
    kind: 'fast',
    about: 'a short cut',
    item: fast('cwea'),
    changed: fast('cwea', { ranges: [parseCidr('10.0.0.0/16')] }),
    bad: fast('cwenone'),
    other: { netns, link: 'cwx7', ranges: [parseCidr('10.0.0.0/16')] },
  },
  {
    kind: 'shaper',
    about: 'a limit on what goes to an endpoint',
    item: shaper('to'),
    changed: shaper('to', { rate: 8_000_000_000, burst: 4_000_000 }),
    bad: shaper('to', { link: 'cwenone' }),
    other: shaper('from'),
  },
  {
    kind: 'shaper',
    about: 'a limit on what comes from an endpoint',
    item: shaper('from'),
    changed: shaper('from', { rate: 1_000_000, burst: 70_000 }),
    bad: shaper('from', { link: 'cwenone' }),
    other: shaper('to'),
  },
];

/** One kind without its item's type: each case gives it items of its own. */
interface AnyKind {
  key(item: Item): string;
  same(wanted: Item, found: Item): boolean;
  list(netns: Netns): Item[];
  add(items: readonly Item[]): readonly { readonly item: Item; readonly fault: { readonly code: string } }[];
  remove(items: readonly Item[]): readonly unknown[];
}

const at = (item: Item): Netns => ('netns' in item ? item.netns : '');

export function kindContract(name: string, subject: Subject): void {
  /** A host with one domain that has a veth and a vxlan in it. */
  function prepared(): Kinds {
    const kinds = subject.open();
    assert.deepEqual(kinds.netns.add([{ name: netns }]), []);
    assert.deepEqual(kinds.link.add([veth('a'), vxlan(7)]), []);
    return kinds;
  }

  for (const { kind: kindName, about, item, changed, bad, other, stays } of cases) {
    const title = `${name}: ${kindName}, ${about}`;
    const find = (kind: AnyKind, wanted: Item) => kind.list(at(wanted)).filter((found) => kind.key(found) === kind.key(wanted));
    const isThere = (kind: AnyKind, wanted: Item) => {
      const found = find(kind, wanted);
      assert.equal(found.length, 1, `${kind.key(wanted)} is listed once`);
      assert.ok(kind.same(wanted, found[0] as Item), `${JSON.stringify(found[0])} is as wanted`);
    };

    test(`${title}: is listed as it was added, and adding it again is fine`, () => {
      const kind = prepared()[kindName] as unknown as AnyKind;
      assert.deepEqual(kind.add([item]), []);
      isThere(kind, item);
      assert.deepEqual(kind.add([item]), []);
      isThere(kind, item);
    });

    test(`${title}: is gone after removal, and removing what is absent is success`, () => {
      const kind = prepared()[kindName] as unknown as AnyKind;
      assert.deepEqual(kind.remove([item]), []);
      kind.add([item]);
      assert.deepEqual(kind.remove([item]), []);
      if (stays !== true) assert.deepEqual(find(kind, item), []);
      assert.deepEqual(kind.remove([item]), []);
    });

    if (changed !== undefined) {
      test(`${title}: adding it with other content changes it`, () => {
        const kind = prepared()[kindName] as unknown as AnyKind;
        kind.add([item]);
        assert.ok(!kind.same(changed, find(kind, item)[0] as Item));
        assert.deepEqual(kind.add([changed]), []);
        isThere(kind, changed);
        assert.deepEqual(kind.add([item]), []);
        isThere(kind, item);
      });
    }

    test(`${title}: one bad item of a batch is reported, the others are done`, () => {
      const kind = prepared()[kindName] as unknown as AnyKind;
      const failures = kind.add([item, bad, other]);
      assert.deepEqual(
        failures.map((failure) => [failure.item, failure.fault.code]),
        [[bad, 'kernel']],
      );
      isThere(kind, item);
      isThere(kind, other);
      assert.deepEqual(kind.remove([item, bad, other]), []);
      if (stays !== true) assert.deepEqual([...find(kind, item), ...find(kind, other)], []);
    });

    if ('netns' in item) {
      test(`${title}: an absent namespace holds nothing, refuses additions and takes removals`, () => {
        const kind = prepared()[kindName] as unknown as AnyKind;
        const away = { ...item, netns: 'cw-absent' };
        assert.deepEqual(kind.list('cw-absent'), []);
        assert.deepEqual(
          kind.add([away]).map((failure) => failure.fault.code),
          ['kernel'],
        );
        assert.deepEqual(kind.remove([away]), []);
      });
    }
  }

  test(`${name}: removing a namespace removes what is in it, and its links' far ends`, () => {
    const kinds = prepared();
    kinds.addr.add([addr('169.254.1.1/32', 'lo')]);
    kinds.route.add([route('10.7.0.0/24', over)]);
    kinds.link.add([
      veth('h', { netns: '', name: 'cwuh', peer: { netns, name: 'cwup', mac: mac('02:63:77:ff:fe:02'), mtu: 1400, up: true } }),
    ]);
    assert.deepEqual(kinds.netns.remove([{ name: netns }]), []);
    assert.deepEqual(kinds.netns.list(''), []);
    assert.deepEqual([...kinds.link.list(''), ...kinds.link.list(netns), ...kinds.addr.list(netns), ...kinds.route.list(netns)], []);
    kinds.netns.add([{ name: netns }]);
    assert.deepEqual([...kinds.link.list(netns), ...kinds.addr.list(netns), ...kinds.route.list(netns)], []);
    assert.deepEqual(kinds.link.add([veth('a'), vxlan(7)]), [], 'names and VNI are free again');
  });

  test(`${name}: removing a link removes what hangs on it`, () => {
    const kinds = prepared();
    kinds.addr.add([addr('fe80::1/64'), addr('10.0.0.1/32')]);
    kinds.neigh.add([neigh('10.0.0.5'), neigh('fd00::5')]);
    kinds.fdb.add([fdb(2, '192.0.2.2')]);
    kinds.route.add([route('10.0.0.5/32', { link: 'cwea' }), route('10.7.0.0/24', over), route('fd00::5/128', { link: 'cwea' })]);
    kinds.fast.add([fast('cwea')]);
    assert.deepEqual(kinds.link.remove([veth('a'), vxlan(7)]), []);
    const left = (['link', 'addr', 'neigh', 'fdb', 'route', 'fast'] as const).flatMap((kind): readonly Item[] => kinds[kind].list(netns));
    assert.deepEqual(left, []);
  });

  test(`${name}: both ends of a pair may be items, and either removes both`, () => {
    const kinds = prepared();
    const inner = veth('p', { name: 'cwup', peer: { netns: '', name: 'cwup9', mac: mac('02:63:77:ff:fe:01'), mtu: 1400, up: false } });
    const outer = veth('p', {
      netns: '',
      name: 'cwup9',
      mac: inner.peer.mac,
      peer: { ...inner.peer, netns, name: 'cwup', mac: inner.mac },
    });
    const both: readonly Link[] = [inner, outer];
    assert.deepEqual(kinds.link.add(both), []);
    assert.deepEqual(kinds.link.add(both), []);
    for (const end of both) {
      const found = kinds.link.list(end.netns).find((link) => kinds.link.key(link) === kinds.link.key(end));
      assert.ok(found !== undefined && kinds.link.same(end, found));
    }
    assert.deepEqual(kinds.link.remove([outer]), []);
    assert.ok(!kinds.link.list(netns).some(({ name: link }) => link === 'cwup'));
    assert.deepEqual(kinds.link.remove(both), []);
  });

  test(`${name}: what is not ours is neither listed nor replaced nor removed`, () => {
    const kinds = prepared();
    const foreign: readonly Foreign[] = [
      { what: 'link', netns, name: 'foreign0' },
      { what: 'addr', netns, link: 'foreign0', address: '198.51.100.1/24' },
      { what: 'route', netns, destination: parseCidr('203.0.113.0/24'), link: 'foreign0' },
    ];
    for (const object of foreign) subject.put(object);
    assert.deepEqual(
      kinds.link.list(netns).map(({ name: link }) => link),
      ['cwea', 'cwx7'],
    );
    assert.deepEqual([...kinds.addr.list(netns), ...kinds.route.list(netns)], []);

    const refused = kinds.route.add([route('203.0.113.0/24', over)]);
    assert.deepEqual(
      refused.map(({ fault }) => fault.errno),
      ['EEXIST'],
    );
    kinds.link.add([veth('x', { name: 'foreign0' })]);
    kinds.link.remove([veth('x', { name: 'foreign0' })]);
    kinds.addr.remove([addr('198.51.100.1/24', 'foreign0')]);
    kinds.route.remove([route('203.0.113.0/24', over)]);
    assert.deepEqual(
      foreign.filter((object) => !subject.has(object)),
      [],
    );
  });

  test(`${name}: a link that changes in place keeps what hangs on it`, () => {
    const kinds = prepared();
    kinds.route.add([route('10.0.0.5/32', { link: 'cwea' })]);
    assert.deepEqual(kinds.link.add([veth('a', { mtu: 1280 })]), []);
    assert.equal(kinds.route.list(netns).length, 1);
  });
}
