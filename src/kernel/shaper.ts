// Bandwidth limits as a kind. What goes to an endpoint waits in a token bucket (tc-tbf(8)) at the exit of our end of its
// link. What comes from it arrives at that same end, and there is no queue on arrival: a filter sends it through an
// intermediate device (net/ifb) with a bucket of its own, from where it goes on as if it had just arrived. The container's own
// end would be simpler, but whoever is root in the container could take the limit away there.
import type { Netns, Shaper } from '#model/desired.ts';
import { byNetns, deleteLinks, dumpLinks, noLink, place } from './batch.ts';
import { addClsact, redirectFilter, redirects, removeRedirect } from './bpf.ts';
import type { Failure, Kind } from './kind.ts';
import { kernelFault } from './libc.ts';
import { encodeLink, type FoundLink, plainInfo } from './netlink/rtnl.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_EXCL, RTM_NEWLINK } from './netlink/uapi.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';
import { buckets, removeBucket, setBucket } from './tbf.ts';

const endPrefix = 'cwe';
const middlePrefix = 'cwi';
/** The intermediate device of an endpoint's link. */
const middleOf = (link: string): string => middlePrefix + link.slice(endPrefix.length);
const carrier = ({ link, direction }: Shaper): string => (direction === 'to' ? link : middleOf(link));

export const shaperKey = ({ netns, link, direction }: Shaper): string => `${netns} ${link} ${direction}`;
export const shaperText = ({ netns, link, direction }: Shaper): string => `bandwidth ${direction} dev ${link}${place(netns)}`;
/** The kernel keeps a bucket's size as the time that filling it takes, in steps of 64 ns. */
export const sameShaper = (wanted: Shaper, found: Shaper): boolean =>
  wanted.rate === found.rate && Math.abs(wanted.burst - found.burst) <= Math.max(wanted.burst / 100, 2);

const absent = new Set(['ENOENT', 'EINVAL', 'ENODEV']);

/** Makes the intermediate device unless it is there. */
function makeMiddle(socket: NetlinkSocket, link: string): void {
  const name = middleOf(link);
  const action = `add link ${name} type ifb`;
  const [made, raised] = socket.batch([
    { type: RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL, body: encodeLink({ name, info: plainInfo('ifb') }), action },
    { type: RTM_NEWLINK, body: encodeLink({ name, up: true }), action: `set link ${name} up` },
  ]);
  if (made?.fault !== undefined && made.fault.errno !== 'EEXIST') throw made.fault;
  if (raised?.fault !== undefined) throw raised.fault;
}

const byName = (socket: NetlinkSocket): Map<string, FoundLink> => new Map(dumpLinks(socket).map((link) => [link.name, link]));

function requestsFor(item: Shaper, links: ReadonlyMap<string, FoundLink>): Request[] {
  const action = `add ${shaperText(item)}`;
  const end = links.get(item.link);
  const carried = links.get(carrier(item));
  if (end === undefined || carried === undefined) throw noLink(action, item.link);
  const bucket = setBucket(carried.index, item, action);
  if (item.direction === 'to') return [bucket];
  // Whatever was there leads to a device that may have been made again.
  return [bucket, addClsact(end.index, action), removeRedirect(end.index, action), redirectFilter(end.index, carried.index, action)];
}

function add(socket: NetlinkSocket, items: readonly Shaper[]): Failure<Shaper>[] {
  const before = byName(socket);
  for (const { link, direction } of items) if (direction === 'from' && before.has(link)) makeMiddle(socket, link);
  const links = byName(socket);
  return items.flatMap((item): Failure<Shaper>[] => {
    if (!isOurLinkName(item.link)) return [{ item, fault: kernelFault(`add ${shaperText(item)}`, 'EPERM', 'not a name of ours') }];
    if (!links.has(item.link)) return [{ item, fault: noLink(`add ${shaperText(item)}`, item.link) }];
    const faults = socket.batch(requestsFor(item, links)).flatMap(({ fault }) => fault ?? []);
    const fault = faults.find(({ errno }) => !absent.has(errno ?? ''));
    return fault === undefined ? [] : [{ item, fault }];
  });
}

function remove(socket: NetlinkSocket, items: readonly Shaper[]): Failure<Shaper>[] {
  const links = byName(socket);
  return items.flatMap((item): Failure<Shaper>[] => {
    const action = `remove ${shaperText(item)}`;
    const end = links.get(item.link);
    const carried = links.get(carrier(item));
    const requests: Request[] = [];
    if (end !== undefined && item.direction === 'to') requests.push(removeBucket(end.index, action));
    if (end !== undefined && item.direction === 'from') requests.push(removeRedirect(end.index, action));
    const faults = socket.batch(requests).map(({ fault }) => fault);
    if (item.direction === 'from' && carried !== undefined) faults.push(...deleteLinks(socket, [carried]));
    const fault = faults.find((one) => one !== undefined && !absent.has(one.errno ?? ''));
    return fault === undefined ? [] : [{ item, fault }];
  });
}

/** What is half there is listed with no rate, so that it is never as wanted. */
function list(socket: NetlinkSocket, netns: Netns): Shaper[] {
  const found = buckets(socket);
  const links = byName(socket);
  const middles = [...links.values()].filter(({ name, kind }) => kind === 'ifb' && name.startsWith(middlePrefix));
  if (found.size === 0 && middles.length === 0) return [];
  const to = [...links.values()].flatMap(({ name: link, index }): Shaper[] => {
    const bucket = found.get(index);
    return bucket === undefined || !link.startsWith(endPrefix) ? [] : [{ netns, link, direction: 'to', ...bucket }];
  });
  const from = middles.map(({ name, index, up }): Shaper => {
    const link = endPrefix + name.slice(middlePrefix.length);
    const end = links.get(link);
    const isWhole = up && end !== undefined && redirects(socket, end.index).includes(index);
    return { netns, link, direction: 'from', ...((isWhole ? found.get(index) : undefined) ?? { rate: 0, burst: 0 }) };
  });
  return [...to, ...from];
}

export function createShaperKind(sockets: Sockets): Kind<Shaper> {
  return {
    name: 'shaper',
    key: shaperKey,
    same: sameShaper,
    list(netns) {
      const socket = sockets.find(netns);
      return socket === undefined ? [] : list(socket, netns);
    },
    add: (items) => byNetns(items, (netns, group) => add(sockets.of(netns), group)),
    remove: (items) =>
      byNetns(
        items.filter(({ link }) => isOurLinkName(link)),
        (netns, group) => {
          const socket = sockets.find(netns);
          return socket === undefined ? [] : remove(socket, group);
        },
      ),
  };
}
