// The wire between lab hosts: a bridge in a namespace of its own with one veth pair per host, at the MTU of an OpenStack
// tenant network; where some hosts lie in a subnet of their own a second one, with the outside host as the router between. Nothing of it touches the machine's own namespace, so labs cannot disturb the machine or each other and
// may all use the same addresses.
import { type Host, outsideResolver } from './host.ts';
import type { HostRecord } from './state.ts';

interface Segment {
  readonly bridge: string;
  readonly subnet: string;
  readonly subnet6: string;
  readonly gateway: string;
  readonly gateway6: string;
}
const segment = (bridge: string, number: number): Segment => ({
  bridge,
  subnet: `10.${number}.0.0/24`,
  subnet6: `fd13:${number}::/64`,
  gateway: `10.${number}.0.1`,
  gateway6: `fd13:${number}::1`,
});
const near = segment('wire', 213);
const beyond = segment('wire2', 214);
export const subnet: string = near.subnet;
export const subnet6: string = near.subnet6;
/** The outside client and server: reached through the gateway, as the internet is. */
export const outsideAddress = '198.51.100.10';
export const outsideAddress6 = '2001:db8:100::10';
const { gateway, gateway6 } = near;

type Place = Pick<HostRecord, 'name' | 'address' | 'address6' | 'also' | 'mtu'>;

export const underlayPlace = (mtu: number): Place => ({ name: 'underlay', address: '', address6: '', also: [], mtu });
export const outsidePlace = (mtu: number): Place => ({
  name: 'outside',
  address: gateway,
  address6: gateway6,
  also: [`${outsideAddress}/32`, `${outsideResolver}/32`, `${outsideAddress6}/128`],
  mtu,
});
export const controllerPlace = (mtu: number): Place => ({
  name: 'controller',
  address: '10.213.0.2',
  address6: 'fd13:213::2',
  also: [],
  mtu,
});
/** The `index`-th host from 1: 10.213.0.11, fd13:213::11 and so on; beyond the router 10.214.0.11, fd13:214::11. */
export const hostPlace = (index: number, mtu: number, side: 'near' | 'beyond' = 'near'): Place => {
  const number = side === 'near' ? 213 : 214;
  return { name: `host${index}`, address: `10.${number}.0.${10 + index}`, address6: `fd13:${number}::${10 + index}`, also: [], mtu };
};
const segmentOf = ({ address }: Pick<HostRecord, 'address'>): Segment => (address.startsWith('10.214.') ? beyond : near);

/** Makes the bridges in a freshly started underlay host: the second one when hosts lie beyond the router. */
export async function layWire(underlay: Host, hosts: readonly Pick<HostRecord, 'address'>[]): Promise<void> {
  const bridges = new Set([near, ...hosts.map(segmentOf)].map((one) => one.bridge));
  for (const bridge of bridges) {
    await batch(underlay, [
      `link add ${bridge} mtu ${underlay.record.mtu} type bridge forward_delay 0 mcast_snooping 0`,
      `link set ${bridge} addrgenmode none`,
      `link set ${bridge} up`,
    ]);
  }
}

/** Joins a freshly started host to its bridge as its eth0 and configures it; a leftover of its earlier life is replaced. */
export async function plugIn(underlay: Host, host: Host): Promise<void> {
  const { address, address6, also } = host.record;
  const own = segmentOf(host.record);
  await connect(underlay, host, { link: 'eth0', port: `p-${host.name}`.slice(0, 15), bridge: own.bridge });
  const isOutside = address === gateway;
  await batch(host, [
    'link set lo up',
    ...also.map((one) => `address add ${one} dev lo${one.includes(':') ? ' nodad' : ''}`),
    // With its broadcast address, as DHCP clients give it: systemd-networkd would take away one without, and the underlay with it.
    `address add ${address}/24 broadcast + dev eth0`,
    `address add ${address6}/64 dev eth0 nodad`,
    'link set eth0 up',
    // The outside world speaks from beyond the gateway, never from an address of the underlay.
    ...(isOutside
      ? [`route replace ${subnet} dev eth0 src ${outsideAddress}`, `route replace ${subnet6} dev eth0 src ${outsideAddress6}`]
      : [`route add default via ${own.gateway}`, `route add default via ${own.gateway6}`]),
  ]);
  if (isOutside) await routeBetween(underlay, host);
}

/** The outside host as the router between both wires, where there are two. */
async function routeBetween(underlay: Host, outside: Host): Promise<void> {
  const { status } = await underlay.exec(['ip', 'link', 'show', beyond.bridge], { netOnly: true, anyStatus: true });
  if (status !== 0) return;
  await connect(underlay, outside, { link: 'eth1', port: 'p-router', bridge: beyond.bridge });
  await batch(outside, [
    `address add ${beyond.gateway}/24 dev eth1`,
    `address add ${beyond.gateway6}/64 dev eth1 nodad`,
    'link set eth1 up',
    `route replace ${beyond.subnet} dev eth1 src ${outsideAddress}`,
    `route replace ${beyond.subnet6} dev eth1 src ${outsideAddress6}`,
  ]);
  await outside.exec(['sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
}

interface Cable {
  readonly link: string;
  readonly port: string;
  readonly bridge: string;
}

async function connect(underlay: Host, host: Host, { link, port, bridge }: Cable): Promise<void> {
  const { mtu, address } = host.record;
  // A dead host's end goes with its namespace, which the kernel frees a moment after the last process.
  await underlay.exec(['ip', 'link', 'delete', port], { netOnly: true, anyStatus: true });
  await batch(underlay, [
    `link add ${port} mtu ${mtu} type veth peer name ${link} address ${portMac(address)} mtu ${mtu} netns ${host.pid}`,
    `link set ${port} addrgenmode none`,
    `link set ${port} master ${bridge} up`,
  ]);
}

/** A virtual machine keeps its port's MAC over a reboot, so others' neighbour entries stay right. Neutron's prefix. */
const portMac = (address: string): string => {
  const last = Number(address.split('.').at(-1));
  return `fa:16:3e:d5:00:${last.toString(16).padStart(2, '0')}`;
};

/** Pulls the cable: the host's port leaves the bridge and loses its carrier. `plug` puts it back. */
export async function setCable(underlay: Host, host: Host, state: 'plugged' | 'pulled'): Promise<void> {
  const port = `p-${host.name}`.slice(0, 15);
  await underlay.exec(['ip', 'link', 'set', port, state === 'plugged' ? 'up' : 'down'], { netOnly: true });
}

async function batch(host: Host, lines: readonly string[]): Promise<void> {
  await host.exec(['ip', '-batch', '-'], { netOnly: true, input: `${lines.join('\n')}\n` });
}
