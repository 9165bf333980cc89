// Routing rules that lead marked packets by other tables than the main one. Ours are told by FRA_PROTOCOL 197 and a mark of wayMarks:
// rules of that protocol with others are a trunk's (trunk.ts). A rule is its family and mark; its place and table may change.
import type { Netns, WayRule } from '#model/desired.ts';
import { routeProtocol, wayMarks } from '#model/numbers.ts';
import { byItem, place } from './batch.ts';
import type { Kind } from './kind.ts';
import { decodeRule, encodeRule, encodeRuleDump, type FoundRule } from './netlink/rtnl.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_EXCL, RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE } from './netlink/uapi.ts';
import type { Sockets } from './sockets.ts';

export const ruleKey = ({ netns, family, mark }: WayRule): string => `${netns} IPv${family} 0x${mark.toString(16)}`;
export const sameRule = (wanted: WayRule, found: WayRule): boolean => wanted.table === found.table && wanted.priority === found.priority;
/** In ip-rule(8)'s spelling. */
export const ruleText = ({ netns, mark, table, priority }: WayRule): string =>
  `rule ${priority} fwmark 0x${mark.toString(16)}/0x${mark.toString(16)} lookup ${table}${place(netns)}`;

const encode = ({ family, priority, table, mark }: WayRule): Buffer =>
  encodeRule({ family, priority, table, mark, link: undefined, source: undefined, protocol: routeProtocol });

/** All of the socket's namespace, whoever made them. Fault `kernel`. */
export const dumpRules = (socket: NetlinkSocket): FoundRule[] =>
  socket.dump({ type: RTM_GETRULE, body: encodeRuleDump(), action: 'list routing rules' }).map(({ body }) => decodeRule(body));

/** Whether a rule of ours is of this kind. */
export const isOfWay = ({ mark }: FoundRule): boolean => mark !== undefined && wayMarks.includes(mark);

const rulesOf = (socket: NetlinkSocket, netns: Netns): WayRule[] =>
  dumpRules(socket)
    .filter((rule) => rule.protocol === routeProtocol && isOfWay(rule))
    .map(({ family, mark = 0, table, priority }) => ({ netns, family, mark, table, priority }));

function drop(socket: NetlinkSocket, item: WayRule): void {
  const [outcome] = socket.batch([{ type: RTM_DELRULE, body: encode(item), action: `remove ${ruleText(item)}` }]);
  if (outcome?.fault !== undefined && outcome.fault.errno !== 'ENOENT') throw outcome.fault;
}

export function createRuleKind(sockets: Sockets): Kind<WayRule> {
  /** The new one is there before what was in its place goes. */
  function add(item: WayRule): void {
    const socket = sockets.of(item.netns);
    const before = rulesOf(socket, item.netns).filter((one) => ruleKey(one) === ruleKey(item));
    if (!before.some((one) => sameRule(item, one))) {
      socket.request({ type: RTM_NEWRULE, flags: NLM_F_CREATE | NLM_F_EXCL, body: encode(item), action: `add ${ruleText(item)}` });
    }
    for (const one of before) if (!sameRule(item, one)) drop(socket, one);
  }

  return {
    name: 'rule',
    key: ruleKey,
    same: sameRule,
    list(netns) {
      const socket = sockets.find(netns);
      return socket === undefined ? [] : rulesOf(socket, netns);
    },
    add: (items) => byItem(items, add),
    remove: (items) =>
      byItem(items, (item) => {
        const socket = sockets.find(item.netns);
        if (socket !== undefined) drop(socket, item);
      }),
  };
}
