// Which tables the host's administrator has answers leave by that have an address of a further interface: rules that look at the sender
// and at nothing else (`ip rule add from ADDRESS lookup TABLE`), as cloud-init, netplan and networkd write them for a second interface.
import { everything, type Family } from '#model/ip.ts';
import { routeProtocol } from '#model/numbers.ts';
import type { SourceRule, WaysOut } from '#model/ways-out.ts';
import { linksByIndex } from './batch.ts';
import { attributeList, decodeAttributes } from './netlink/codec.ts';
import { decodeRule, encodeRuleDump } from './netlink/rtnl.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import {
  FR_ACT_TO_TBL,
  FRA_PRIORITY,
  FRA_PROTOCOL,
  FRA_SRC,
  FRA_SUPPRESS_PREFIXLEN,
  FRA_TABLE,
  RT_TABLE_MAIN,
  RTM_GETRULE,
  RTN_UNICAST,
} from './netlink/uapi.ts';
import { dumpRoutes } from './route.ts';

const families = [4, 6] as const;
const mayHave = new Set([FRA_PRIORITY, FRA_PROTOCOL, FRA_SRC, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE]);
const noPrefix = 0xffff_ffff;
/** Other systems have a rule for each container; interfaces are few, and their rules come first. */
const mostRules = 64;
/** Tables of the kernel's own: local, main, default. */
const usualTables = new Set([253, 254, 255]);

function sourceRuleOf(body: Buffer): (SourceRule & { readonly family: Family }) | undefined {
  const attributes = decodeAttributes(body.subarray(12));
  const { family, source, table, priority, protocol } = decodeRule(body);
  const suppressed = attributes.get(FRA_SUPPRESS_PREFIXLEN)?.readUInt32LE(0) ?? noPrefix;
  // struct fib_rule_hdr: destination's length, type of service, action, flags (inverted).
  const isPlain = body[1] === 0 && body[3] === 0 && body[7] === FR_ACT_TO_TBL && (body.readUInt32LE(8) & 2) === 0;
  const looksAtMore = attributeList(body.subarray(12)).some(([type]) => !mayHave.has(type));
  if (!isPlain || looksAtMore || suppressed !== noPrefix || protocol === routeProtocol) return undefined;
  return source === undefined || usualTables.has(table) ? undefined : { family, source, table, priority };
}

/** Names of the links by which the table leads everywhere. */
function exits(socket: NetlinkSocket, family: Family, table: number, links: ReturnType<typeof linksByIndex>): string[] {
  return dumpRoutes(socket, family, 0, table)
    .filter(({ destination, type, index }) => destination === everything[family] && type === RTN_UNICAST && index !== undefined)
    .flatMap(({ index = 0 }) => links.get(index)?.name ?? []);
}

/** By priority, not more than some; none where there are no such rules, or their tables lead nowhere. Fault `kernel`. */
export function readWaysOut(socket: NetlinkSocket): WaysOut {
  const rules = socket
    .dump({ type: RTM_GETRULE, body: encodeRuleDump(), action: 'list routing rules' })
    .flatMap(({ body }) => sourceRuleOf(body) ?? [])
    .toSorted((a, b) => a.priority - b.priority)
    .slice(0, mostRules);
  if (rules.length === 0) return { rules: [], links: [] };
  const links = linksByIndex(socket);
  const found = families.flatMap((family) =>
    [...new Set(rules.filter((rule) => rule.family === family).map(({ table }) => table))].map((table) => ({
      family,
      table,
      links: exits(socket, family, table, links),
    })),
  );
  const leading = rules.filter((rule) =>
    found.some((one) => one.family === rule.family && one.table === rule.table && one.links.length > 0),
  );
  const main = families.flatMap((family) => exits(socket, family, RT_TABLE_MAIN, links));
  return {
    rules: leading.map(({ source, table, priority }) => ({ source, table, priority })),
    links: leading.length === 0 ? [] : [...new Set([...main, ...found.flatMap((one) => one.links)])].toSorted(),
  };
}
