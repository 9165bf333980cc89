// Trunks as a kind: on a link of the host's own the two programs of trunk-program.ts, and that what containers send is routed by a
// table of its own, in which this host's containers are behind the link like everybody else: so packets between two of them take the
// way through the cloud, which alone decides what they may. Packets that come in by the link find containers in the main table.
// The rules are written first and removed last: by them a process with no memory finds the rest.
import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import type { Netns, Trunk } from '#model/desired.ts';
import { type Family, familyOf } from '#model/ip.ts';
import { routeProtocol, trunkPriority, trunkTable } from '#model/numbers.ts';
import { byItem, byNetns, linksByIndex, noLink, place } from './batch.ts';
import { addClsact, type Door, filterNames, removeFilter, setFilter } from './bpf.ts';
import type { Kind } from './kind.ts';
import { kernelFault, loadFilterProgram } from './libc.ts';
import {
  decodeRule,
  encodeLink,
  encodeRoute,
  encodeRule,
  encodeRuleDump,
  type FoundLink,
  type RouteMessage,
  type RuleMessage,
} from './netlink/rtnl.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import {
  NLM_F_CREATE,
  NLM_F_EXCL,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_DELRULE,
  RTM_GETRULE,
  RTM_NEWLINK,
  RTM_NEWROUTE,
  RTM_NEWRULE,
  RTN_UNICAST,
} from './netlink/uapi.ts';
import { dumpRoutes } from './route.ts';
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

interface Written {
  readonly rules: readonly RuleMessage[];
  readonly routes: readonly Pick<RouteMessage, 'destination'>[];
}

function wantedOf({ link, blocks }: Trunk): Written {
  const used = families.filter((family) => blocks.some(({ cidr }) => familyOf(cidr) === family));
  const entry = used.map((family): RuleMessage => ({
    family,
    priority: trunkPriority,
    table: RT_TABLE_MAIN,
    link,
    source: undefined,
    protocol: routeProtocol,
  }));
  const own = blocks.map(({ cidr }): RuleMessage => ({
    family: familyOf(cidr),
    priority: trunkPriority + 1,
    table: trunkTable,
    link: undefined,
    source: cidr,
    protocol: routeProtocol,
  }));
  return { rules: [...entry, ...own], routes: blocks.map(({ cidr }) => ({ destination: cidr })) };
}

const ruleText = ({ family, priority, table, link, source }: RuleMessage): string =>
  `IPv${family} rule ${priority} ${link === undefined ? `from ${source ?? 'all'}` : `iif ${link}`} lookup ${table}`;
const routeText = ({ destination }: Pick<RouteMessage, 'destination'>): string => `route ${destination} table ${trunkTable}`;
const stateOf = ({ rules, routes }: Written, names: readonly string[], isPromiscuous: boolean): string =>
  [...rules.map(ruleText), ...routes.map(routeText)]
    .toSorted()
    .concat(names, isPromiscuous ? 'promiscuous' : [])
    .join('\n');

const wantedState = (item: Trunk): string =>
  stateOf(
    wantedOf(item),
    doors.map((door) => nameOf(programs[door](item.blocks))),
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
    this.rules = socket
      .dump({ type: RTM_GETRULE, body: encodeRuleDump(), action: 'list routing rules' })
      .map(({ body }) => decodeRule(body))
      .filter(({ protocol }) => protocol === routeProtocol);
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
    this.#routes ??= families.flatMap((family) => dumpRoutes(this.socket, family, routeProtocol, trunkTable));
    const nameOfLink = ({ index }: RouteMessage): string | undefined => (index === undefined ? undefined : this.links.get(index)?.name);
    const others = new Set<string>(this.#routes.filter((route) => nameOfLink(route) !== link).map(({ destination }) => destination));
    return {
      rules: this.rules.filter((rule) => rule.link === link || (rule.source !== undefined && !others.has(rule.source))),
      routes: this.#routes.filter((route) => nameOfLink(route) === link),
    };
  }
}

const removals = ({ rules, routes }: Written, action: string): Request[] => [
  ...routes.map(({ destination }) => ({
    type: RTM_DELROUTE,
    body: encodeRoute({ destination, protocol: routeProtocol, table: trunkTable }),
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
      ...routes.map(({ destination }) => ({
        type: RTM_NEWROUTE,
        flags,
        body: encodeRoute({ destination, protocol: routeProtocol, table: trunkTable, type: RTN_UNICAST, index: link.index }),
        action,
      })),
    ],
    () => false,
  );
  for (const door of doors) {
    const program = programs[door](item.blocks);
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
