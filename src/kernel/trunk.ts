// Trunks as a kind: on a link of the host's own the two programs of trunk-program.ts, and that what containers send is routed by a
// table of its own, in which this host's containers are behind the link like everybody else: so packets between two of them take the
// way through the cloud, which alone decides what they may. Packets that come in by the link find containers in the main table.
// A subnet that the link is not in has another table, whose number follows from its address: its neighbours are on the link, everything
// else behind its gateway, also what the host could reach itself; but not what the host translates, and so has to answer.
// The rules are written first and removed last: by them a process with no memory finds the rest.
import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import type { Netns, OutsideSubnet, Trunk } from '#model/desired.ts';
import { type Cidr, cidrBase, covers, everything, type Family, familyOf, type Ip, ipToBigint } from '#model/ip.ts';
import { routeProtocol, translatedMark, trunkPriority, trunkTable } from '#model/numbers.ts';
import { byItem, byNetns, linksByIndex, noLink, place } from './batch.ts';
import { addClsact, type Door, filterNames, removeFilter, setFilter } from './bpf.ts';
import type { Kind } from './kind.ts';
import { kernelFault, loadFilterProgram } from './libc.ts';
import { encodeLink, encodeRoute, encodeRule, type FoundLink, type RouteMessage, type RuleMessage } from './netlink/rtnl.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import {
  NLM_F_CREATE,
  NLM_F_EXCL,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_DELRULE,
  RTM_NEWLINK,
  RTM_NEWROUTE,
  RTM_NEWRULE,
  RTN_THROW,
  RTN_UNICAST,
} from './netlink/uapi.ts';
import { dumpRoutes } from './route.ts';
import { dumpRules, isOfWay } from './rule.ts';
import type { Sockets } from './sockets.ts';
import { isTaggable, taggingProgram, untaggingProgram } from './trunk-program.ts';

/** What is listed has no blocks, and tells what there is. */
type Seen = Trunk & { readonly found?: string };

export const trunkKey = ({ netns, link }: Trunk): string => `${netns} ${link}`;
export const trunkText = ({ netns, link }: Trunk): string => `trunk dev ${link}${place(netns)}`;

const families = [4, 6] as const satisfies readonly Family[];
const programs = { exit: taggingProgram, entrance: untaggingProgram } as const;
const doors = ['exit', 'entrance'] as const satisfies readonly Door[];
const prefix = 'cw_';
const nameOf = (program: Uint8Array): string => prefix + createHash('sha256').update(program).digest('hex').slice(0, 32);

type TableRoute = Pick<RouteMessage, 'destination' | 'via' | 'type' | 'table'>;
interface Written {
  readonly rules: readonly RuleMessage[];
  readonly routes: readonly TableRoute[];
}

/**
 * Subnets of IPv4 begin with no number that a table has already, and those of one host with one each; none of them begins in class E,
 * from which those of IPv6 have theirs.
 */
function tableOf({ subnet }: Pick<OutsideSubnet, 'subnet'>): number {
  if (familyOf(subnet) === 4) return Number(ipToBigint(cidrBase(subnet)));
  return (createHash('sha256').update(subnet).digest().readUInt32BE() | 0xf000_0000) >>> 0;
}

const ruleOf = (family: Family, priority: number, more: Partial<RuleMessage>): RuleMessage => ({
  family,
  priority,
  table: RT_TABLE_MAIN,
  link: undefined,
  source: undefined,
  protocol: routeProtocol,
  ...more,
});
const wayOn = (destination: Cidr, table: number, via?: Ip): TableRoute => ({ destination, via, type: RTN_UNICAST, table });

function wantedOf({ link, blocks, gateways = [], outside = [] }: Trunk): Written {
  const used = families.filter((family) => blocks.some(({ cidr }) => familyOf(cidr) === family));
  const own = blocks.map(({ cidr }) => ({ cidr, subnet: outside.find(({ subnet }) => covers(subnet, cidr)) }));
  const rules = own.flatMap(({ cidr: source, subnet }) => [
    ...(subnet === undefined ? [] : [ruleOf(familyOf(source), trunkPriority, { source, mark: translatedMark })]),
    ruleOf(familyOf(source), trunkPriority + 1, { source, table: subnet === undefined ? trunkTable : tableOf(subnet) }),
  ]);
  const near = new Set(own.flatMap(({ cidr, subnet }) => (subnet === undefined ? [familyOf(cidr)] : [])));
  const routes = own.flatMap(({ cidr, subnet }) => {
    if (subnet === undefined) return [wayOn(cidr, trunkTable)];
    const family = familyOf(cidr);
    return near.has(family)
      ? [
          wayOn(
            cidr,
            trunkTable,
            gateways.find((ip) => familyOf(ip) === family),
          ),
        ]
      : [];
  });
  const ways = outside.flatMap((one) => [
    wayOn(one.subnet, tableOf(one)),
    // The subnet's own address is nobody's. An unreachable destination would fail filters of reverse paths for what the host translates.
    wayOn(everything[familyOf(one.subnet)], tableOf(one), one.gateway ?? cidrBase(one.subnet)),
    ...one.beside.map((destination): TableRoute => ({ destination, via: undefined, type: RTN_THROW, table: tableOf(one) })),
  ]);
  return { rules: [...used.map((family) => ruleOf(family, trunkPriority, { link })), ...rules], routes: [...routes, ...ways] };
}

/** What leads nowhere is by IPv6 said to be on `lo`. */
const linkOf = ({ type, index }: RouteMessage): number | undefined => (type === RTN_UNICAST ? index : undefined);

const ruleText = ({ family, priority, table, link, source, mark }: RuleMessage): string =>
  `IPv${family} rule ${priority} ${link === undefined ? `from ${source ?? 'all'}` : `iif ${link}`}${mark === undefined ? '' : ` mark ${mark}`} lookup ${table}`;
const routeText = ({ destination, via, type, table }: TableRoute): string =>
  `route ${type} ${destination}${via === undefined ? '' : ` via ${via}`} table ${table}`;
const stateOf = ({ rules, routes }: Written, names: readonly string[], isPromiscuous: boolean): string =>
  [...rules.map(ruleText), ...routes.map(routeText)]
    .toSorted()
    .concat(names, isPromiscuous ? 'promiscuous' : [])
    .join('\n');

const wantedState = (item: Trunk): string =>
  stateOf(
    wantedOf(item),
    doors.map((door) => nameOf(programs[door](item))),
    true,
  );
const textOf = (item: Seen): string => item.found ?? wantedState(item);
export const sameTrunk = (wanted: Trunk, found: Trunk): boolean => textOf(wanted) === textOf(found);

class Place {
  readonly socket: NetlinkSocket;
  readonly rules: readonly RuleMessage[];
  #links: Map<number, FoundLink> | undefined;
  #routes: readonly RouteMessage[] | undefined;

  constructor(socket: NetlinkSocket) {
    this.socket = socket;
    this.rules = dumpRules(socket).filter((rule) => rule.protocol === routeProtocol && !isOfWay(rule));
  }

  get links(): Map<number, FoundLink> {
    this.#links ??= linksByIndex(this.socket);
    return this.#links;
  }

  link(name: string): FoundLink | undefined {
    return [...this.links.values()].find((link) => link.name === name);
  }

  /** A rule that nothing tells the link of counts for each, so that it is in the way of none being right. */
  of(link: string): Written {
    const tables = new Set([trunkTable, ...this.rules.map(({ table }) => table).filter((table) => table !== RT_TABLE_MAIN)]);
    this.#routes ??= families.flatMap((family) => [...tables].flatMap((table) => dumpRoutes(this.socket, family, routeProtocol, table)));
    const isHere = (route: RouteMessage): boolean => this.links.get(linkOf(route) ?? 0)?.name === link;
    const others = this.#routes.filter((route) => linkOf(route) !== undefined && !isHere(route));
    const elsewhere = new Set<string | number>(others.map(({ destination, table }) => (table === trunkTable ? destination : table)));
    const isElsewhere = ({ source, table }: RuleMessage): boolean =>
      source === undefined || elsewhere.has(table === trunkTable ? source : table);
    const away = new Set(this.rules.filter(isElsewhere).map(({ source }) => source));
    return {
      rules: this.rules.filter((rule) => rule.link === link || !away.has(rule.source)),
      routes: this.#routes.filter((route) => isHere(route) || (linkOf(route) === undefined && !elsewhere.has(route.table))),
    };
  }
}

const removals = ({ rules, routes }: Written, action: string): Request[] => [
  ...routes.map(({ destination, table }) => ({
    type: RTM_DELROUTE,
    body: encodeRoute({ destination, protocol: routeProtocol, table }),
    action,
  })),
  ...rules.map((rule) => ({ type: RTM_DELRULE, body: encodeRule(rule), action })),
];
const without = (from: Written, what: Written): Written => {
  const texts = new Set([...what.rules.map(ruleText), ...what.routes.map(routeText)]);
  return {
    rules: from.rules.filter((rule) => !texts.has(ruleText(rule))),
    routes: from.routes.filter((route) => !texts.has(routeText(route))),
  };
};
const gone = new Set(['ENOENT', 'ESRCH', 'EINVAL', 'ENODEV', 'EAFNOSUPPORT']);

function send(socket: NetlinkSocket, requests: readonly Request[], isFine: (errno: string) => boolean): void {
  for (const { fault } of socket.batch(requests)) if (fault !== undefined && !isFine(fault.errno ?? '')) throw fault;
}

function write(socket: NetlinkSocket, item: Trunk): void {
  const action = `add ${trunkText(item)}`;
  if (!item.blocks.every(isTaggable)) throw kernelFault(action, 'EINVAL', 'a block does not fit into VLANs');
  const there = new Place(socket);
  const link = there.link(item.link);
  if (link === undefined) throw noLink(action, item.link);
  const [wanted, found] = [wantedOf(item), there.of(item.link)];
  send(socket, removals(without(found, wanted), action), (errno) => gone.has(errno));
  const { rules, routes } = without(wanted, found);
  const flags = NLM_F_CREATE | NLM_F_EXCL;
  send(
    socket,
    [
      ...rules.map((rule) => ({ type: RTM_NEWRULE, flags, body: encodeRule(rule), action })),
      ...routes.map((route) => ({
        type: RTM_NEWROUTE,
        flags,
        body: encodeRoute({
          ...route,
          protocol: routeProtocol,
          ...(route.type === RTN_UNICAST ? { index: link.index, onlink: route.via !== undefined } : {}),
        }),
        action,
      })),
    ],
    () => false,
  );
  for (const door of doors) {
    const program = programs[door](item);
    const fd = loadFilterProgram(program, 'cw_trunk');
    try {
      const [qdisc, filter] = socket.batch([
        addClsact(link.index, action),
        setFilter(link.index, { fd, name: nameOf(program), door }, action),
      ]);
      if (filter?.fault !== undefined) throw qdisc?.fault ?? filter.fault;
    } finally {
      closeSync(fd);
    }
  }
  send(socket, [{ type: RTM_NEWLINK, body: encodeLink({ index: link.index, isPromiscuous: true }), action }], () => false);
}

function erase(socket: NetlinkSocket, item: Trunk): void {
  const action = `remove ${trunkText(item)}`;
  const there = new Place(socket);
  if (there.rules.length === 0) return;
  const link = there.link(item.link);
  const found = there.of(item.link);
  if (found.rules.length === 0) return;
  const onLink =
    link === undefined
      ? []
      : [
          ...doors.map((door) => removeFilter(link.index, action, door)),
          { type: RTM_NEWLINK, body: encodeLink({ index: link.index, isPromiscuous: false }), action },
        ];
  send(socket, [...onLink, ...removals(found, action)], (errno) => gone.has(errno));
}

function list(socket: NetlinkSocket, netns: Netns): Seen[] {
  const there = new Place(socket);
  const names = [...new Set(there.rules.flatMap(({ link }) => link ?? []))];
  return names.map((name) => {
    const link = there.link(name);
    const held = link === undefined ? [] : doors.flatMap((door) => filterNames(socket, link.index, door));
    return { netns, link: name, blocks: [], found: stateOf(there.of(name), held, link?.isPromiscuous === true) };
  });
}

export function createTrunkKind(sockets: Sockets): Kind<Trunk> {
  return {
    name: 'trunk',
    key: trunkKey,
    same: sameTrunk,
    list(netns) {
      const socket = sockets.find(netns);
      return socket === undefined ? [] : list(socket, netns);
    },
    add: (items) => byNetns(items, (netns, group) => byItem(group, (item) => write(sockets.of(netns), item))),
    remove: (items) =>
      byNetns(items, (netns, group) => {
        const socket = sockets.find(netns);
        return socket === undefined ? [] : byItem(group, (item) => erase(socket, item));
      }),
  };
}
