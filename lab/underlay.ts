// The wire between lab hosts: a bridge in a namespace of its own with one veth pair per host, at the MTU of an OpenStack
// tenant network. Nothing of it touches the machine's own namespace, so labs cannot disturb the machine or each other and
// may all use the same addresses.
import { type Host, outsideResolver } from './host.ts';
import type { HostRecord } from './state.ts';

const bridge = 'wire';
export const subnet = '10.213.0.0/24';
export const subnet6 = 'fd13:213::/64';
/** The outside client and server: reached through the gateway, as the internet is. */
export const outsideAddress = '198.51.100.10';
export const outsideAddress6 = '2001:db8:100::10';
const gateway = '10.213.0.1';
const gateway6 = 'fd13:213::1';

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
/** The `index`-th host from 1: 10.213.0.11, fd13:213::11 and so on. */
export const hostPlace = (index: number, mtu: number): Place => ({
  name: `host${index}`,
  address: `10.213.0.${10 + index}`,
  address6: `fd13:213::${10 + index}`,
  also: [],
  mtu,
});

/** Makes the bridge in a freshly started underlay host. */
export async function layWire(underlay: Host): Promise<void> {
  await batch(underlay, [
    `link add ${bridge} mtu ${underlay.record.mtu} type bridge forward_delay 0 mcast_snooping 0`,
    `link set ${bridge} addrgenmode none`,
    `link set ${bridge} up`,
  ]);
}

/** Joins a freshly started host to the bridge as its eth0 and configures it; a leftover of its earlier life is replaced. */
export async function plugIn(underlay: Host, host: Host): Promise<void> {
  const port = `p-${host.name}`.slice(0, 15);
  const { mtu, address, address6, also } = host.record;
  // A dead host's end goes with its namespace, which the kernel frees a moment after the last process.
  await underlay.exec(['ip', 'link', 'delete', port], { netOnly: true, anyStatus: true });
  await batch(underlay, [
    `link add ${port} mtu ${mtu} type veth peer name eth0 address ${portMac(address)} mtu ${mtu} netns ${host.pid}`,
    `link set ${port} addrgenmode none`,
    `link set ${port} master ${bridge} up`,
  ]);
  const isOutside = address === gateway;
  await batch(host, [
    'link set lo up',
    ...also.map((own) => `address add ${own} dev lo${own.includes(':') ? ' nodad' : ''}`),
    `address add ${address}/24 dev eth0`,
    `address add ${address6}/64 dev eth0 nodad`,
    'link set eth0 up',
    // The outside world speaks from beyond the gateway, never from an address of the underlay.
    ...(isOutside
      ? [`route replace ${subnet} dev eth0 src ${outsideAddress}`, `route replace ${subnet6} dev eth0 src ${outsideAddress6}`]
      : [`route add default via ${gateway}`, `route add default via ${gateway6}`]),
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
