// Links: veth pairs and vxlan by rtnetlink, wireguard through whoever can make them. Attributes that every link has (MTU,
// MAC, alias, up) change in place; a link is only made again when what makes its type differs. A link and its alias go to
// the kernel in one write, so that no crash leaves a link that cannot be told to be ours.
import { assertNever, Fault } from '#model/fault.ts';
import type { Link, Netns, VethLink, VxlanLink, WireguardLink } from '#model/desired.ts';
import { familyOf, type Ip, type Mac } from '#model/ip.ts';
import { byNetns, deleteLinks, dumpLinks, faultOf, findLinks, place } from './batch.ts';
import type { Failure, Kind } from './kind.ts';
import { kernelFault } from './libc.ts';
import { removeLinks } from './link-removal.ts';
import { inNetns, isAbsent } from './netns.ts';
import { encodeLink, type FoundLink, type LinkChange, vethInfo, vxlanInfo } from './netlink/rtnl.ts';
import { NetlinkSocket, type Request } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_EXCL, RTM_NEWLINK, RTM_SETLINK } from './netlink/uapi.ts';
import { isOurLink, isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';

/** Makes and lists wireguard links: kernel devices or wireguard-go processes. Methods throw a Fault. */
export interface WireguardDevices {
  list(netns: Netns): WireguardLink[];
  /** Makes the link exist with that MTU and alias, up; what is there already is brought in line. */
  add(link: WireguardLink): void;
  /** Absent already is success. */
  remove(link: WireguardLink): void;
}

/** What list() knows beyond the item: an administratively down link is never the same as a wanted one. */
type Seen = Link & { readonly up?: boolean };

export const withoutWireguard = (link: string): Fault =>
  new Fault('unsupported', `Cannot add link ${link} type wireguard: neither the kernel nor wireguard-go is there`, {
    hint: 'Install the package wireguard-go, or use a kernel with WireGuard',
  });

export const linkKey = (link: Link): string => `${link.netns} ${link.name}`;
export const linkText = (link: Link): string => `link ${link.name} type ${link.type}${place(link.netns)}`;

/** One that was taken over may compute a checksum that is not asked for: everybody takes it. */
const sameVxlan = (wanted: VxlanLink, found: VxlanLink): boolean =>
  wanted.vni === found.vni &&
  wanted.port === found.port &&
  wanted.local === found.local &&
  (outerChecksum(found) || !outerChecksum(wanted));

// UDP over IPv6 always has a checksum here, whatever is asked for.
const outerChecksum = (link: VxlanLink): boolean => link.checksum || familyOf(link.local) === 6;

/** The far end of a veth is not compared: what is in a container is attachment.ts's, and in a domain an item of its own. */
export function sameLink(wanted: Link, found: Seen): boolean {
  if (wanted.mtu !== found.mtu || wanted.alias !== found.alias || found.up === false) return false;
  if (wanted.type === 'veth') return found.type === 'veth' && wanted.mac === found.mac;
  if (wanted.type === 'vxlan') return found.type === 'vxlan' && wanted.mac === found.mac && sameVxlan(wanted, found);
  return found.type === 'wireguard';
}

function toLink(netns: Netns, link: FoundLink): Seen {
  const { name, mtu, mac, alias, up } = link;
  if (link.vxlan !== undefined) {
    const { vni, port, local, checksum } = link.vxlan;
    // Learning is never wanted; a link that learns gets a VNI that nobody wants.
    return {
      type: 'vxlan',
      netns,
      name,
      mtu,
      mac,
      alias,
      up,
      vni: link.vxlan.learning ? 0 : vni,
      port,
      local: local ?? ('0.0.0.0' as Ip),
      checksum,
    };
  }
  return { type: 'veth', netns, name, mtu, mac, alias, up, peer: { netns: '', name: '', mac: '' as Mac, mtu: 0, up: link.carrier } };
}

/** Sends whole groups of requests, several groups in one write; one fault or none per group. */
function sendGroups(socket: NetlinkSocket, groups: readonly (readonly Request[])[]): (Fault | undefined)[] {
  const outcomes = socket.batch(groups.flat());
  let start = 0;
  return groups.map((group) => {
    const faults = outcomes.slice(start, start + group.length).flatMap(({ fault }) => fault ?? []);
    start += group.length;
    return faults[0];
  });
}

/** A veth is asked for where our end shall be, and names the far end's namespace. */
function vethRequests(link: VethLink, peerFd: number): Request[] {
  const { name, mac, mtu } = link.peer;
  const peer: LinkChange = { name, mac, mtu, netnsFd: peerFd };
  return [
    {
      type: RTM_NEWLINK,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      body: encodeLink({ name: link.name, mtu: link.mtu, mac: link.mac, up: true, info: vethInfo(peer) }),
      action: `add ${linkText(link)}`,
    },
    settle(link),
  ];
}

/**
 * Sets what every link has, in place. A MAC that is right is not written again: on any write of one, the same too, the kernel
 * forgets all neighbours of the link, permanent ones included (net/core/neighbour.c, neigh_changeaddr). `has` is the
 * link's; one that was just made has what was asked for. With an index the link of that number gets the name, too.
 */
function settle(link: VethLink | VxlanLink, has: Mac = link.mac, index = 0): Request {
  const { name, mtu, mac, alias } = link;
  const change: LinkChange = { index, name, mtu, ...(mac === has ? {} : { mac }), alias, up: true };
  return { type: RTM_SETLINK, body: encodeLink(change), action: `set ${linkText(link)}` };
}

/**
 * Those that took the place of another system's link. Renamed while it is up (Linux 6.2 and later) it keeps routes, neighbours and
 * forwarding entries, so that no packet is lost; one that is of another kind or cannot be renamed is only out of the way
 * afterwards, as two tunnels of one number cannot be.
 */
function adopt(socket: NetlinkSocket, links: readonly VxlanLink[]): ReadonlySet<VxlanLink> {
  const wanted = links.filter(({ adopts }) => adopts !== undefined);
  const taken = new Set<VxlanLink>();
  if (wanted.length === 0) return taken;
  const found = new Map(dumpLinks(socket).map((link) => [link.name, link]));
  for (const link of wanted) {
    const old = found.get(link.adopts ?? '');
    if (old?.vxlan?.vni !== link.vni || old.vxlan.port !== link.port || found.has(link.name)) continue;
    const [outcome] = fits(link, toLink(link.netns, old)) ? socket.batch([settle(link, old.mac, old.index)]) : [];
    if (outcome !== undefined && outcome.fault === undefined) taken.add(link);
    else deleteLinks(socket, [{ name: old.name }]);
  }
  return taken;
}

export function createLinkKind(sockets: Sockets, devices: WireguardDevices | undefined): Kind<Link> {
  function list(netns: Netns): Link[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    const found = dumpLinks(socket).filter(isOurLink);
    return [...found.map((link) => toLink(netns, link)), ...(devices?.list(netns) ?? [])];
  }

  function createVeths(socket: NetlinkSocket, links: readonly VethLink[]): Failure<Link>[] {
    return [...Map.groupBy(links, (link) => link.peer.netns)].flatMap(([peerNetns, group]) => {
      try {
        const faults = sockets.withFd(peerNetns, (fd) =>
          sendGroups(
            socket,
            group.map((link) => vethRequests(link, fd)),
          ),
        );
        return [
          ...failuresOf(group, faults),
          ...raiseFarEnds(
            peerNetns,
            group.filter((_, index) => faults[index] === undefined),
          ),
        ];
      } catch (error) {
        const fault = faultOf(error);
        return group.map((item) => ({ item, fault }));
      }
    });
  }

  /** The kernel cannot create a far end up: the pair is not yet joined then (drivers/net/veth.c, veth_open: ENOTCONN). */
  function raiseFarEnds(peerNetns: Netns, links: readonly VethLink[]): Failure<Link>[] {
    const raised = links.filter(({ peer }) => peer.up);
    if (raised.length === 0) return [];
    // A container's namespace must not be kept alive by a socket of ours.
    using own = peerNetns.startsWith('/') ? inNetns(peerNetns, () => new NetlinkSocket()) : undefined;
    const outcomes = (own ?? sockets.of(peerNetns)).batch(
      raised.map(({ peer: { name } }) => ({
        type: RTM_SETLINK,
        body: encodeLink({ name, up: true }),
        action: `set link ${name} up${place(peerNetns)}`,
      })),
    );
    return failuresOf(
      raised,
      outcomes.map(({ fault }) => fault),
    );
  }

  /** A vxlan's UDP socket belongs to the namespace that asks for it: the host's. */
  function createVxlans(netns: Netns, socket: NetlinkSocket, all: readonly VxlanLink[]): Failure<Link>[] {
    const adopted = adopt(socket, all);
    const links = all.filter((link) => !adopted.has(link));
    if (links.length === 0) return [];
    const made = sockets.withFd(netns, (netnsFd) =>
      sockets.of('').batch(
        links.map((link) => ({
          type: RTM_NEWLINK,
          flags: NLM_F_CREATE | NLM_F_EXCL,
          body: encodeLink({
            name: link.name,
            mtu: link.mtu,
            mac: link.mac,
            netnsFd,
            info: vxlanInfo({ vni: link.vni, port: link.port, local: link.local, checksum: outerChecksum(link), learning: false }),
          }),
          action: `add ${linkText(link)}`,
        })),
      ),
    );
    const set = socket.batch(links.map((link) => settle(link)));
    return failuresOf(
      links,
      made.map(({ fault }, index) => fault ?? set[index]?.fault),
    );
  }

  function create(netns: Netns, socket: NetlinkSocket, links: readonly Link[]): Failure<Link>[] {
    return [
      ...createVeths(
        socket,
        links.filter((link) => link.type === 'veth'),
      ),
      ...createVxlans(
        netns,
        socket,
        links.filter((link) => link.type === 'vxlan'),
      ),
    ];
  }

  function addDevice(item: WireguardLink): Failure<Link>[] {
    try {
      if (devices === undefined) throw withoutWireguard(item.name);
      devices.add(item);
      return [];
    } catch (error) {
      return [{ item, fault: faultOf(error) }];
    }
  }

  /** The link is there: keep it if its type's own attributes fit, else make it again. */
  function adjust(netns: Netns, socket: NetlinkSocket, links: readonly Link[]): Failure<Link>[] {
    const found = findLinks(
      socket,
      links.map(({ name }) => name),
    );
    const settled: (VethLink | VxlanLink)[] = [];
    const again: Link[] = [];
    for (const link of links) {
      const existing = found.get(link.name);
      if (link.type !== 'wireguard' && existing !== undefined && fits(link, toLink(netns, existing))) {
        settled.push(link);
      } else again.push(link);
    }
    const set = socket.batch(settled.map((link) => settle(link, found.get(link.name)?.mac))).map(({ fault }) => fault);
    return [...failuresOf(settled, set), ...removeNamed(socket, again), ...create(netns, socket, again)];
  }

  /** Of what is there already, as far as the caller knows, no try is made to make it. */
  function add(items: readonly Link[], changed: ReadonlyMap<Link, Link | undefined> = new Map()): Failure<Link>[] {
    const plain = byNetns<Link>(
      items.filter((item) => item.type !== 'wireguard'),
      (netns, group) => {
        const socket = sockets.of(netns);
        const ours = group.filter(({ name }) => isOurLinkName(name));
        const failures = create(
          netns,
          socket,
          ours.filter((link) => !changed.has(link)),
        );
        for (const item of group) {
          if (!isOurLinkName(item.name))
            failures.push({ item, fault: kernelFault(`add ${linkText(item)}`, 'EPERM', 'not a name of ours') });
        }
        const refused = failures.filter(({ fault }) => fault.errno === 'EEXIST').map(({ item }) => item);
        const others = failures.filter(({ fault }) => fault.errno !== 'EEXIST');
        const taken = [...ours.filter((link) => changed.has(link)), ...refused];
        return taken.length === 0 ? others : [...others, ...adjust(netns, socket, taken)];
      },
    );
    return [...plain, ...items.filter((item) => item.type === 'wireguard').flatMap(addDevice)];
  }

  function removeDevice(item: WireguardLink): Failure<Link>[] {
    try {
      devices?.remove(item);
      return [];
    } catch (error) {
      return [{ item, fault: faultOf(error) }];
    }
  }

  return {
    name: 'link',
    key: linkKey,
    same: sameLink,
    list,
    add,
    remove: (items) => [
      ...byNetns<Link>(
        items.filter((item) => item.type !== 'wireguard'),
        (netns, group) => {
          const socket = sockets.find(netns);
          const ours = group.filter(({ name }) => isOurLinkName(name));
          if (socket === undefined) return [];
          const pairs = ours.filter(({ type }) => type === 'veth');
          const others = ours.filter(({ type }) => type !== 'veth');
          const faults = removeLinks(
            sockets,
            netns,
            pairs.map(({ name }) => name),
          );
          return [...failuresOf(pairs, faults.map(unlessAbsent)), ...removeNamed(socket, others)];
        },
      ),
      ...items.filter((item) => item.type === 'wireguard').flatMap(removeDevice),
    ],
  };
}

function fits(wanted: VethLink | VxlanLink, found: Link): boolean {
  if (wanted.type === 'veth') return found.type === 'veth';
  if (wanted.type === 'vxlan') return found.type === 'vxlan' && sameVxlan(wanted, found);
  return assertNever(wanted);
}

const unlessAbsent = (fault: Fault | undefined): Fault | undefined => (isAbsent(fault) ? undefined : fault);

const removeNamed = (socket: NetlinkSocket, links: readonly Link[]): Failure<Link>[] =>
  failuresOf(links, deleteLinks(socket, links).map(unlessAbsent));

const failuresOf = (items: readonly Link[], faults: readonly (Fault | undefined)[]): Failure<Link>[] =>
  items.flatMap((item, index) => {
    const fault = faults[index];
    return fault === undefined ? [] : [{ item, fault }];
  });
