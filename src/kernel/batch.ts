// How a Kind turns a batch of items into few writes: items are grouped by namespace, one namespace's requests go out
// together, and one refusal does not stop the others.
import type { Netns } from '#model/desired.ts';
import { isFault, type Fault } from '#model/fault.ts';
import type { Failure } from './kind.ts';
import { kernelFault } from './libc.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import { decodeLink, encodeLink, encodeLinkQuery, type FoundLink, type LinkChange } from './netlink/rtnl.ts';
import { RTM_DELLINK, RTM_GETLINK, RTM_SETLINK } from './netlink/uapi.ts';

/** Rethrows what is not a Fault: that is a bug, not an answer of the kernel. */
export function faultOf(error: unknown): Fault {
  if (!isFault(error)) throw error;
  return error;
}

/** ` in cw-…` for the end of an action; nothing for the host's own namespace. */
export const place = (netns: Netns): string => (netns === '' ? '' : ` in ${netns}`);

/** Runs `each` once per namespace with its items in order. What it throws counts for all items of that namespace. */
export function byNetns<T extends { readonly netns: Netns }>(
  items: readonly T[],
  each: (netns: Netns, items: readonly T[]) => Failure<T>[],
): Failure<T>[] {
  const failures: Failure<T>[] = [];
  for (const [netns, group] of Map.groupBy(items, (item) => item.netns)) {
    try {
      for (const failure of each(netns, group)) failures.push(failure);
    } catch (error) {
      const fault = faultOf(error);
      for (const item of group) failures.push({ item, fault });
    }
  }
  return failures;
}

/** Runs `each` once per item; what it throws counts for that item alone. */
export function byItem<T>(items: readonly T[], each: (item: T) => void): Failure<T>[] {
  const failures: Failure<T>[] = [];
  for (const item of items) {
    try {
      each(item);
    } catch (error) {
      failures.push({ item, fault: faultOf(error) });
    }
  }
  return failures;
}

/** Sends one request per item and tells which were refused. `undefined` requests count as done. */
export function sendAll<T>(socket: NetlinkSocket, items: readonly T[], request: (item: T) => Request | Fault | undefined): Failure<T>[] {
  const failures: Failure<T>[] = [];
  const sent: T[] = [];
  const requests: Request[] = [];
  for (const item of items) {
    const next = request(item);
    if (next instanceof Error) failures.push({ item, fault: next });
    else if (next !== undefined) {
      sent.push(item);
      requests.push(next);
    }
  }
  for (const [index, outcome] of socket.batch(requests).entries()) {
    const item = sent[index];
    if (outcome.fault !== undefined && item !== undefined) failures.push({ item, fault: outcome.fault });
  }
  return failures;
}

/** Every link of the socket's namespace. */
export const dumpLinks = (socket: NetlinkSocket): FoundLink[] =>
  socket.dump({ type: RTM_GETLINK, body: encodeLinkQuery(), action: 'list links' }).map((message) => decodeLink(message.body));

// Links on their way out are gathered in this group (the letters cw); no other link is ever in it.
export const doomedGroup = 0x6377;

type LinkName = { readonly name: string; readonly index?: number };
const about = ({ name, index }: LinkName): LinkChange => (index === undefined ? { name } : { index });

/**
 * Deletes links by name or index; outcomes in order, that of an absent one being ENODEV. Several are deleted as one group:
 * each deletion waits for every reader of the old state (some ten milliseconds), which the kernel then does once for all.
 */
export function deleteLinks(socket: NetlinkSocket, links: readonly LinkName[]): (Fault | undefined)[] {
  const action = 'remove link ';
  if (links.length === 0) return [];
  if (links.length === 1) {
    return socket
      .batch(links.map((link) => ({ type: RTM_DELLINK, body: encodeLink(about(link)), action: action + link.name })))
      .map(({ fault }) => fault);
  }
  const outcomes = socket.batch([
    ...links.map((link) => ({ type: RTM_SETLINK, body: encodeLink({ ...about(link), group: doomedGroup }), action: action + link.name })),
    { type: RTM_DELLINK, body: encodeLink({ group: doomedGroup }), action: `${action}group` },
  ]);
  const together = outcomes.pop()?.fault;
  // ENODEV: nothing was in the group.
  return outcomes.map(({ fault }) => fault ?? (together?.errno === 'ENODEV' ? undefined : together));
}

// Above this many names one dump is cheaper than asking one by one.
const askOneByOne = 16;

/** Each named link that exists, by its name; perhaps also others. */
export function findLinks(socket: NetlinkSocket, names: readonly string[]): ReadonlyMap<string, FoundLink> {
  const found = names.length > askOneByOne ? dumpLinks(socket) : askFor(socket, names);
  return new Map(found.map((link) => [link.name, link]));
}

const askFor = (socket: NetlinkSocket, names: readonly string[]): FoundLink[] =>
  socket
    .batch(names.map((name) => ({ type: RTM_GETLINK, body: encodeLinkQuery(name), action: `find link ${name}` })))
    .flatMap(({ replies }) => replies.map(({ body }) => decodeLink(body)));

/** Index of each named link that exists. */
export const linkIndexes = (socket: NetlinkSocket, names: Iterable<string>): ReadonlyMap<string, number> =>
  new Map(
    [...new Set(names)].flatMap((name): [string, number][] => {
      const index = socket.indexOf(name);
      return index === undefined ? [] : [[name, index]];
    }),
  );

/** The fault for an item whose link is not there. */
export const noLink = (action: string, link: string): Fault => kernelFault(action, 'ENODEV', `no link ${link}`);

/** Sends one request per item about its link, whose index is looked up first; an item without its link is refused. */
export function sendAboutLinks<T extends { readonly link: string }>(
  socket: NetlinkSocket,
  items: readonly T[],
  request: (item: T, index: number) => Request,
): Failure<T>[] {
  const indexes = linkIndexes(
    socket,
    items.map(({ link }) => link),
  );
  return sendAll(socket, items, (item) => {
    const index = indexes.get(item.link);
    return index === undefined ? noLink(request(item, 0).action, item.link) : request(item, index);
  });
}

/** Every link by its index. */
export const linksByIndex = (socket: NetlinkSocket): Map<number, FoundLink> => new Map(dumpLinks(socket).map((link) => [link.index, link]));
