// Fast paths as a kind: a program per link (fast-program.ts), held by a tc filter of ours (bpf.ts). A program cannot be read
// back, so the filter's name carries a digest of what it is made from: a process with no memory, or a newer version of the agent, can tell
// whether what is there is what it wants.
import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import type { FastPath, Netns } from '#model/desired.ts';
import type { Cidr, Ip } from '#model/ip.ts';
import { gatewayMac } from '#model/numbers.ts';
import { byNetns, dumpLinks, faultOf, linkIndexes, noLink, place } from './batch.ts';
import { addClsact, type Door, filterNames, removeFilter, setFilter } from './bpf.ts';
import { type Compiled, fastProgram } from './fast-program.ts';
import type { Failure, Kind } from './kind.ts';
import { kernelFault, loadFilterProgram } from './libc.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';

type Indexes = ReadonlyMap<string, number>;
/** What is listed has a name and no facts, and tells the numbers of links there. */
type Seen = FastPath & { readonly found?: string; readonly indexes?: Indexes };

const prefix = 'cw_';
/** On the host's own links others of ours may have their place (trunk.ts): what is tagged is untagged first. */
const doorOf = (link: string): Door => (isOurLinkName(link) ? 'entrance' : 'second entrance');

export const fastKey = ({ netns, link }: FastPath): string => `${netns} ${link}`;
export const fastText = ({ netns, link }: FastPath): string => `fast path dev ${link}${place(netns)}`;
const digest = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex').slice(0, 32);
const own = { netns: '', link: '', networks: [['10.0.0.0/20' as Cidr, 'fd00::/60' as Cidr]] };
const member = { mac: gatewayMac, addresses: ['10.0.0.1' as Ip, 'fd00::1' as Ip] };
/** Paths with everything in them. */
const complete: readonly Compiled[] = [
  { ...own, member, tunnel: { mac: gatewayMac, mtu: 1400 }, indexes: [] },
  { ...own, member, outward: { links: ['eth0'], mtu: 1400 }, indexes: [1] },
  { ...own, networks: [...own.networks, ...own.networks], strict: true, indexes: [] },
];
/** Changes whenever the programs do. */
const version = digest(Buffer.concat(complete.map(fastProgram)));
const compiled = (path: FastPath, indexes: Indexes): Compiled => ({
  ...path,
  indexes: (path.outward?.links ?? []).flatMap((link) => indexes.get(link) ?? []),
});
const nameOf = ({ networks, member: whose, tunnel, outward, strict, indexes }: Compiled): string =>
  prefix +
  digest(
    JSON.stringify([
      version,
      networks,
      whose?.mac,
      whose?.addresses,
      tunnel?.mac,
      tunnel?.mtu,
      outward?.links,
      outward?.mtu,
      strict,
      indexes,
    ]),
  );
const nameIn = (path: Seen, indexes: Indexes): string => path.found ?? nameOf(compiled(path, indexes));

/** Links have other numbers once they have been made again. */
export function sameFast(wanted: Seen, found: Seen): boolean {
  const indexes = found.indexes ?? wanted.indexes ?? new Map<string, number>();
  return nameIn(wanted, indexes) === nameIn(found, indexes);
}

/** Whether this kernel takes such programs and this process may load them. Fault: none, whatever the reason. */
export function probeFast(): boolean {
  try {
    for (const path of complete) closeSync(loadFilterProgram(fastProgram(path), 'cw_probe'));
    return true;
  } catch {
    return false;
  }
}

function write(socket: NetlinkSocket, items: readonly FastPath[]): Failure<FastPath>[] {
  const indexes = linkIndexes(
    socket,
    items.flatMap(({ link, outward }) => [link, ...(outward?.links ?? [])]),
  );
  const failures: Failure<FastPath>[] = [];
  for (const item of items) {
    const action = `add ${fastText(item)}`;
    const index = indexes.get(item.link);
    if (index === undefined) {
      failures.push({ item, fault: noLink(action, item.link) });
      continue;
    }
    const door = doorOf(item.link);
    if (filterNames(socket, index, door).some((name) => !name.startsWith(prefix))) {
      failures.push({ item, fault: kernelFault(`${action}, where somebody else has a filter`, 'EEXIST') });
      continue;
    }
    try {
      const path = compiled(item, indexes);
      const fd = loadFilterProgram(fastProgram(path), 'cw_fast');
      try {
        const program = { fd, name: nameOf(path), door };
        const [qdisc, filter] = socket.batch([addClsact(index, action), setFilter(index, program, action)]);
        const fault = filter?.fault === undefined ? undefined : (qdisc?.fault ?? filter.fault);
        if (fault !== undefined) failures.push({ item, fault });
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      failures.push({ item, fault: faultOf(error) });
    }
  }
  return failures;
}

/** The kernel says ENOENT or EINVAL where there is no filter, no qdisc; ENODEV where there is no link. */
const gone = new Set(['ENOENT', 'EINVAL', 'ENODEV', 'ESRCH']);

function erase(socket: NetlinkSocket, items: readonly FastPath[]): Failure<FastPath>[] {
  const indexes = linkIndexes(
    socket,
    items.map(({ link }) => link),
  );
  const there = items.filter(({ link }) => indexes.has(link));
  const requests: Request[] = there.map((item) => removeFilter(indexes.get(item.link) ?? 0, `remove ${fastText(item)}`, doorOf(item.link)));
  return socket.batch(requests).flatMap(({ fault }, position) => {
    const item = there[position];
    return fault === undefined || item === undefined || gone.has(fault.errno ?? '') ? [] : [{ item, fault }];
  });
}

export function createFastKind(sockets: Sockets): Kind<FastPath> {
  function list(netns: Netns): Seen[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    const links = dumpLinks(socket);
    const indexes = new Map(links.map(({ name, index }) => [name, index]));
    // In a domain there are no links of others.
    return links
      .filter(({ name }) => netns === '' || isOurLinkName(name))
      .flatMap(({ name: link, index }) =>
        filterNames(socket, index, doorOf(link))
          .filter((name) => name.startsWith(prefix))
          .map((found) => ({ netns, link, networks: [], found, indexes })),
      );
  }

  return {
    name: 'fast',
    key: fastKey,
    same: sameFast,
    list,
    add: (items) => byNetns(items, (netns, group) => write(sockets.of(netns), group)),
    remove: (items) =>
      byNetns(items, (netns, group) => {
        const socket = sockets.find(netns);
        return socket === undefined ? [] : erase(socket, group);
      }),
  };
}
