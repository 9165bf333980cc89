// What each kind is tried with by the suite of contract.ts: things that are and that are not to be had.
import type {
  Addr,
  Desired,
  FastPath,
  Fdb,
  KindName,
  Neigh,
  Netns,
  Proxy,
  Route,
  Shaper,
  Sysctl,
  Trunk,
  VethLink,
  VxlanLink,
  WayRule,
} from '#model/desired.ts';
import { type Family, type Ip, type Mac, parseCidr, parseIp, parseMac } from '#model/ip.ts';

export type Item = Desired[KindName][number];

export interface Case {
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

export const netns: Netns = 'cw-contract';
export const mac = (text: string): Mac => parseMac(text);
export const ip = (text: string): Ip => parseIp(text);

export const veth = (name: string, more: Partial<VethLink> = {}): VethLink => ({
  type: 'veth',
  netns,
  name: `cwe${name}`,
  mtu: 1400,
  mac: mac('02:63:77:ff:ff:01'),
  alias: `causeway contract ${name}`,
  peer: { netns: '', name: `cwt${name}`, mac: mac('0a:63:0a:00:00:05'), mtu: 1400, up: false },
  ...more,
});
export const vxlan = (vni: number, more: Partial<VxlanLink> = {}): VxlanLink => ({
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
export const addr = (address: string, link = 'cwea'): Addr => ({ netns, link, address });
export const neigh = (address: string, link = 'cwea', lladdr = '0a:63:0a:00:00:05'): Neigh => ({
  netns,
  link,
  ip: ip(address),
  mac: mac(lladdr),
});
const rule = (family: Family, more: Partial<WayRule> = {}): WayRule => ({
  netns,
  family,
  mark: 0x0100_0000,
  table: 101,
  priority: 32_765,
  ...more,
});
const proxy = (address: string, link = 'cwea'): Proxy => ({ netns, link, ip: ip(address) });
const trunk = (link: string, ...blocks: readonly (readonly [string, number])[]): Trunk => ({
  netns,
  link,
  blocks: blocks.map(([cidr, vlan]) => ({ cidr: parseCidr(cidr), vlan })),
});
const outside = (link: string, gateway?: string): Trunk => ({
  ...trunk(link, ['10.30.0.128/29', 100], ['10.0.0.0/29', 108]),
  gateways: [ip('10.0.0.1')],
  outside: [
    {
      subnet: parseCidr('10.30.0.0/24'),
      asker: ip('10.30.0.128'),
      beside: [parseCidr('10.64.0.0/16')],
      ...(gateway === undefined ? {} : { gateway: ip(gateway) }),
    },
  ],
});
const outside6 = (gateway: string): Trunk => ({
  ...trunk('cwea', ['fd00:30::8/125', 100], ['fd00::8/125', 108]),
  gateways: [ip('fd00::1')],
  outside: [{ subnet: parseCidr('fd00:30::/64'), asker: ip('fd00:30::8'), beside: [parseCidr('fd00:64::/64')], gateway: ip(gateway) }],
});
export const fdb = (last: number, remote: string, link = 'cwx7'): Fdb => ({
  netns,
  link,
  mac: mac(`02:63:77:00:00:0${last}`),
  remote: ip(remote),
});
export const route = (destination: string, more: Partial<Route>): Route => ({
  netns,
  destination: parseCidr(destination),
  onlink: false,
  type: 'unicast',
  ...more,
});
const sysctl = (path: string, value: string): Sysctl => ({ netns, path, value });
export const fast = (link: string, more: Partial<FastPath> = {}): FastPath => ({
  netns,
  link,
  networks: [[parseCidr('10.0.0.0/16'), parseCidr('fd00::/56')]],
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
export const over: Pick<Route, 'link' | 'via' | 'onlink'> = { link: 'cwx7', via: ip('100.126.0.2'), onlink: true };
const over6 = { link: 'cwx7', via: ip('fe80::63:77ff:fe00:2'), onlink: true } as const;

export const cases: readonly Case[] = [
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
    kind: 'rule',
    about: 'a rule of IPv4 for marked packets',
    item: rule(4),
    changed: rule(4, { table: 102, priority: 30_000 }),
    bad: rule(4, { netns: 'cw-absent' }),
    other: rule(4, { mark: 0x0200_0000 }),
  },
  {
    kind: 'rule',
    about: 'a rule of IPv6 for marked packets, to a table with a large number',
    item: rule(6, { table: 4_000_000_000 }),
    changed: rule(6),
    bad: rule(6, { netns: 'cw-absent' }),
    other: rule(4),
  },
  {
    kind: 'trunk',
    about: 'a trunk of both families',
    item: trunk('cwea', ['10.0.0.0/29', 100], ['fd00::8/125', 108]),
    changed: trunk('cwea', ['10.0.0.0/29', 200], ['10.0.0.8/29', 108]),
    bad: trunk('cwenone', ['10.0.1.0/29', 100]),
    other: trunk('cwx7', ['10.0.2.0/28', 4000]),
  },
  {
    kind: 'trunk',
    about: 'a trunk of a subnet that the link is not in',
    item: outside('cwea', '10.30.0.1'),
    changed: outside('cwea', '10.30.0.2'),
    bad: outside('cwenone'),
    other: trunk('cwx7', ['10.0.2.0/28', 4000]),
  },
  {
    kind: 'trunk',
    about: 'the same of IPv6',
    item: outside6('fd00:30::1'),
    changed: outside6('fd00:30::2'),
    bad: { ...outside6('fd00:30::1'), link: 'cwenone' },
    other: trunk('cwx7', ['10.0.2.0/28', 4000]),
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
    changed: fast('cwea', { networks: [[parseCidr('10.0.0.0/16')]] }),
    bad: fast('cwenone'),
    other: { netns, link: 'cwx7', networks: [[parseCidr('10.0.0.0/16')]] },
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
