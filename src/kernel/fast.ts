// Fast paths as a kind: a program per link (fast-program.ts), held by a tc filter of ours (bpf.ts). A program cannot be read
// back, so the filter's name carries a digest of what it is made from: a process with no memory, or a newer version of the agent, can tell
// whether what is there is what it wants.
import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import type { FastPath, Netns } from '#model/desired.ts';
import type { Cidr, Ip } from '#model/ip.ts';
import { gatewayMac } from '#model/numbers.ts';
import { byNetns, dumpLinks, faultOf, linkIndexes, noLink, place } from './batch.ts';
import { addClsact, filterNames, removeFilter, setFilter } from './bpf.ts';
import { fastProgram } from './fast-program.ts';
import type { Failure, Kind } from './kind.ts';
import { loadFilterProgram } from './libc.ts';
import type { NetlinkSocket, Request } from './netlink/socket.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';

/** What is listed has a name and no facts. */
type Seen = FastPath & { readonly found?: string };

const prefix = 'cw_';

export const fastKey = ({ netns, link }: FastPath): string => `${netns} ${link}`;
export const fastText = ({ netns, link }: FastPath): string => `fast path dev ${link}${place(netns)}`;
const digest = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex').slice(0, 32);
/** A path with everything in it. */
const complete: FastPath = {
  netns: '',
  link: '',
  ranges: ['10.0.0.0/20' as Cidr, 'fd00::/60' as Cidr],
  member: { mac: gatewayMac, addresses: ['10.0.0.1' as Ip, 'fd00::1' as Ip] },
  tunnel: { mac: gatewayMac, mtu: 1400 },
};
/** Changes whenever the programs do. */
const version = digest(fastProgram(complete));
const nameOf = ({ found, ranges, member, tunnel }: Seen): string =>
  found ?? prefix + digest(JSON.stringify([version, ranges, member?.mac, member?.addresses, tunnel?.mac, tunnel?.mtu]));
export const sameFast = (wanted: FastPath, found: FastPath): boolean => nameOf(wanted) === nameOf(found);

/** Whether this kernel takes such programs and this process may load them. Fault: none, whatever the reason. */
export function probeFast(): boolean {
  try {
    closeSync(loadFilterProgram(fastProgram(complete), 'cw_probe'));
    return true;
  } catch {
    return false;
  }
}

function write(socket: NetlinkSocket, items: readonly FastPath[]): Failure<FastPath>[] {
  const indexes = linkIndexes(
    socket,
    items.map(({ link }) => link),
  );
  const failures: Failure<FastPath>[] = [];
  for (const item of items) {
    const action = `add ${fastText(item)}`;
    const index = indexes.get(item.link);
    if (index === undefined) {
      failures.push({ item, fault: noLink(action, item.link) });
      continue;
    }
    try {
      const fd = loadFilterProgram(fastProgram(item), 'cw_fast');
      try {
        const [qdisc, filter] = socket.batch([addClsact(index, action), setFilter(index, { fd, name: nameOf(item) }, action)]);
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
  const requests: Request[] = there.map((item) => removeFilter(indexes.get(item.link) ?? 0, `remove ${fastText(item)}`));
  return socket.batch(requests).flatMap(({ fault }, position) => {
    const item = there[position];
    return fault === undefined || item === undefined || gone.has(fault.errno ?? '') ? [] : [{ item, fault }];
  });
}

export function createFastKind(sockets: Sockets): Kind<FastPath> {
  function list(netns: Netns): Seen[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    return dumpLinks(socket)
      .filter(({ name }) => isOurLinkName(name))
      .flatMap(({ name: link, index }) =>
        filterNames(socket, index)
          .filter((name) => name.startsWith(prefix))
          .map((found) => ({ netns, link, ranges: [], found })),
      );
  }

  return {
    name: 'fast',
    key: fastKey,
    same: sameFast,
    list,
    add: (items) => byNetns(items, (netns, group) => write(sockets.of(netns), group)),
    remove: (items) =>
      byNetns(
        items.filter(({ link }) => isOurLinkName(link)),
        (netns, group) => {
          const socket = sockets.find(netns);
          return socket === undefined ? [] : erase(socket, group);
        },
      ),
  };
}
