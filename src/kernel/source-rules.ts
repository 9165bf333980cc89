// Which tables the host's administrator has answers leave by that have an address of a further interface: rules that look at the sender
// and at nothing else (`ip rule add from ADDRESS lookup TABLE`), as cloud-init, netplan and networkd write them for a second interface.
import { everything, type Family, familyOf } from '#model/ip.ts';
import { routeProtocol } from '#model/numbers.ts';
import type { SourceRule, WaysOut } from '#model/ways-out.ts';
import { linksByIndex } from './batch.ts';
import type { FoundRule } from './netlink/rtnl.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import { RT_TABLE_MAIN, RTN_UNICAST } from './netlink/uapi.ts';
import { dumpRoutes } from './route.ts';
import { dumpRules } from './rule.ts';

/** Other systems have a rule for each container; interfaces are few, and their rules come first. */
const mostRules = 64;
/** Tables of the kernel's own: local, main, default. */
const usualTables = new Set([253, 254, 255]);

function sourceRuleOf({ source, table, priority, link, mark, protocol, isOfMore }: FoundRule): SourceRule[] {
  const isForSource = !isOfMore && link === undefined && mark === undefined && protocol !== routeProtocol;
  return source === undefined || !isForSource || usualTables.has(table) ? [] : [{ source, table, priority }];
}

type Links = ReturnType<typeof linksByIndex>;

/** Names of the links by which the table leads everywhere. */
function exits(socket: NetlinkSocket, family: Family, table: number, links: Links): string[] {
  return dumpRoutes(socket, family, 0, table)
    .filter(({ destination, type, index }) => destination === everything[family] && type === RTN_UNICAST && index !== undefined)
    .flatMap(({ index = 0 }) => links.get(index)?.name ?? []);
}

const wayOf = ({ source, table }: SourceRule): string => `${familyOf(source)} ${table}`;

/** By priority, not more than some; none where there are no such rules, or their tables lead nowhere. Fault `kernel`. */
export function readWaysOut(socket: NetlinkSocket): WaysOut {
  const rules = dumpRules(socket)
    .flatMap(sourceRuleOf)
    .toSorted((a, b) => a.priority - b.priority)
    .slice(0, mostRules);
  if (rules.length === 0) return { rules: [], links: [] };
  const links = linksByIndex(socket);
  const ways = new Map(rules.map((rule) => [wayOf(rule), rule]));
  const exitsOf = new Map([...ways].map(([way, { source, table }]) => [way, exits(socket, familyOf(source), table, links)]));
  const leading = rules.filter((rule) => (exitsOf.get(wayOf(rule)) ?? []).length > 0);
  if (leading.length === 0) return { rules: [], links: [] };
  const main = ([4, 6] as const).flatMap((family) => exits(socket, family, RT_TABLE_MAIN, links));
  return { rules: leading, links: [...new Set([...main, ...[...exitsOf.values()].flat()])].toSorted() };
}
