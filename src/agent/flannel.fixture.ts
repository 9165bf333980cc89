// A host that follows flannel's documented data path (Documentation/backends.md), made by hand with ip(8), bridge(8) and wg(8):
// its pods on a bridge, its tunnel's end, and its way to each peer, from nothing but what the peer tells of itself.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { eventually, type Place, type Wire } from './namespaces.fixture.ts';
import { inNetns } from '#kernel/netns.ts';
import { generateKeyPair, type KeyPair } from '#kernel/wireguard-keys.ts';

export type Backend = 'vxlan' | 'host-gateway' | 'wireguard';

/** What the tests' host of flannel has, by family. */
export interface Numbers {
  readonly ip: string;
  readonly subnet: string;
  readonly base: string;
  readonly bridge: string;
  readonly pod: string;
  readonly mac: string;
}

export const wireguardKeys: KeyPair = generateKeyPair();
export const wireguardPort = 51_820;
const wireguardLink = 'flannel-wg';

/** What a host of flannel tells others: `type` and `data` of its backend. */
export const tells = (
  backend: Backend,
  { mac, keys = wireguardKeys }: Pick<Numbers, 'mac'> & { readonly keys?: KeyPair },
): { readonly type: string; readonly data: object | null } => {
  if (backend === 'vxlan') return { type: 'vxlan', data: { VNI: 1, VtepMAC: mac } };
  if (backend === 'wireguard') return { type: 'wireguard', data: { PublicKey: keys.publicKey, Port: wireguardPort } };
  return { type: 'host-gw', data: null };
};

const familyFlag = (address: string): string => (address.includes(':') ? '-6' : '-4');
const lengthsOf = (address: string): { readonly wire: number; readonly block: number; readonly one: number } =>
  address.includes(':') ? { wire: 64, block: 64, one: 128 } : { wire: 16, block: 24, one: 32 };
/** An IPv6 address is usable at once. */
const atOnce = (address: string): string[] => (address.includes(':') ? ['nodad'] : []);

/** With a pod on its bridge, as the `bridge` and `host-local` plugins leave it; `all`: its numbers by family. */
export function makeHost(wire: Wire, name: string, all: readonly Numbers[]): { readonly host: Place; readonly pod: Place } {
  const host = wire.place(name, wireAddresses(all));
  return { host, pod: makeBridge(wire, name, { host, all }) };
}

export const wireAddresses = (all: readonly Numbers[]): string[] => all.map(({ ip }) => `${ip}/${lengthsOf(ip).wire}`);

/** The bridge of a host that is there, and its pod. */
export function makeBridge(wire: Wire, name: string, { host, all }: { readonly host: Place; readonly all: readonly Numbers[] }): Place {
  const pod = wire.place(`${name}-pod`, []);
  host.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  host.ip('link', 'add', 'cni0', 'type', 'bridge');
  for (const { bridge } of all) host.ip('addr', 'add', `${bridge}/${lengthsOf(bridge).block}`, 'dev', 'cni0', ...atOnce(bridge));
  host.ip('link', 'set', 'cni0', 'up');
  host.ip('link', 'add', 'veth0', 'type', 'veth', 'peer', 'eth1', 'netns', pod.path);
  host.ip('link', 'set', 'veth0', 'master', 'cni0', 'up');
  pod.ip('link', 'del', 'eth0');
  for (const { pod: address } of all) pod.ip('addr', 'add', `${address}/${lengthsOf(address).block}`, 'dev', 'eth1', ...atOnce(address));
  pod.ip('link', 'set', 'eth1', 'up');
  for (const { bridge } of all) pod.ip(familyFlag(bridge), 'route', 'add', 'default', 'via', bridge);
  return pod;
}

const device = (address: string): string => (address.includes(':') ? 'flannel-v6.1' : 'flannel.1');

export interface TunnelEnd extends Numbers {
  readonly host: Place;
  readonly backend: Backend;
  readonly keys?: KeyPair;
  /** Another name for its WireGuard device: processes that make some share their sockets' folder. */
  readonly wireguard?: string;
}

/** Its own end of the tunnel of one family; the process that makes its WireGuard device ends with the test. */
export async function makeTunnel(t: TestContext, wire: Wire, end: TunnelEnd): Promise<void> {
  const { host, backend, ip, base, mac, keys = wireguardKeys, wireguard = wireguardLink } = end;
  if (backend === 'vxlan') {
    const link = device(ip);
    const tunnel = ['type', 'vxlan', 'id', '1', 'dev', 'eth0', 'local', ip, 'dstport', '8472', 'nolearning'];
    host.ip('link', 'add', link, 'address', mac, 'mtu', ip.includes(':') ? '1380' : '1400', ...tunnel);
    host.ip('addr', 'add', `${base}/${lengthsOf(base).one}`, 'dev', link, ...atOnce(base));
    host.ip('link', 'set', link, 'up');
  }
  if (backend === 'wireguard') {
    await makeWireguard(t, host, { link: wireguard, file: join(wire.folder, `${wireguard}-key`), keys });
    host.ip('addr', 'add', `${base}/32`, 'dev', wireguard);
    host.ip('link', 'set', wireguard, 'up', 'mtu', '1370');
    // To all of flannel's network.
    host.ip('route', 'add', base.replace(/\.\d+\.\d+$/, '.0.0/16'), 'dev', wireguard, 'scope', 'link');
    host.run('wg', 'set', wireguard, 'listen-port', String(wireguardPort));
  }
}

/** The kernel has no WireGuard: a process makes the device. */
async function makeWireguard(
  t: TestContext,
  host: Place,
  { link, file, keys }: { readonly link: string; readonly file: string; readonly keys: KeyPair },
): Promise<void> {
  writeFileSync(file, `${keys.privateKey}\n`, { mode: 0o600 });
  const child: ChildProcess = inNetns(host.path, () => spawn('wireguard-go', ['-f', link], { stdio: 'ignore' }));
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'close');
    child.kill();
    await gone;
  });
  // Not before it listens (flags of /proc/net/unix): wg removes a socket that refuses it, and the device could never be asked again.
  const isListening = new RegExp(` 00010000 .*/${link}\\.sock$`, 'm');
  await eventually(() => isListening.test(host.run('cat', '/proc/net/unix')), "the WireGuard device of flannel's host");
  host.run('wg', 'set', link, 'private-key', file);
}

/** Another host, from what it tells. */
export interface Told {
  readonly subnet: string;
  readonly publicIp: string;
  readonly data: { readonly VtepMAC?: string; readonly PublicKey?: string; readonly Port?: number } | null;
}

/** The way to a peer, step by step in the order of flannel's. */
export function addPeer(host: Place, backend: Backend, { subnet, publicIp, data }: Told, wireguard: string = wireguardLink): void {
  const base = subnet.replace(/\/.*/, '');
  const family = familyFlag(subnet);
  if (backend === 'host-gateway') host.ip(family, 'route', 'add', subnet, 'via', publicIp);
  if (backend === 'vxlan') {
    const link = device(subnet);
    host.ip('neigh', 'add', base, 'lladdr', data?.VtepMAC ?? '', 'dev', link, 'nud', 'permanent');
    host.run('bridge', 'fdb', 'append', data?.VtepMAC ?? '', 'dev', link, 'dst', publicIp);
    host.ip(family, 'route', 'add', subnet, 'via', base, 'dev', link, 'onlink');
  }
  if (backend === 'wireguard') {
    host.run('wg', 'set', wireguard, 'peer', data?.PublicKey ?? '', 'endpoint', `${publicIp}:${data?.Port ?? 0}`, 'allowed-ips', subnet);
  }
}
