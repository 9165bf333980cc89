// A host that follows flannel's documented data path (Documentation/backends.md), made by hand with ip(8), bridge(8) and wg(8):
// its pods on a bridge, its tunnel's end, and its way to each peer, from nothing but what the peer tells of itself.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { eventually, type Place, type Wire } from './namespaces.fixture.ts';
import { inNetns } from '#kernel/netns.ts';
import { generateKeyPair } from '#kernel/wireguard-keys.ts';

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

export const wireguardKeys: { readonly publicKey: string; readonly privateKey: string } = generateKeyPair();
export const wireguardPort = 51_820;

/** What a host of flannel tells others: `type` and `data` of its backend. */
export const tells = (backend: Backend, { mac }: Pick<Numbers, 'mac'>): { readonly type: string; readonly data: object | null } => {
  if (backend === 'vxlan') return { type: 'vxlan', data: { VNI: 1, VtepMAC: mac } };
  if (backend === 'wireguard') return { type: 'wireguard', data: { PublicKey: wireguardKeys.publicKey, Port: wireguardPort } };
  return { type: 'host-gw', data: null };
};

const familyFlag = (address: string): string => (address.includes(':') ? '-6' : '-4');
const lengthsOf = (address: string): { readonly wire: number; readonly block: number; readonly one: number } =>
  address.includes(':') ? { wire: 64, block: 64, one: 128 } : { wire: 16, block: 24, one: 32 };
/** An IPv6 address is usable at once. */
const atOnce = (address: string): string[] => (address.includes(':') ? ['nodad'] : []);

/** With a pod on its bridge, as the `bridge` and `host-local` plugins leave it; `all`: its numbers by family. */
export function makeHost(wire: Wire, name: string, all: readonly Numbers[]): { readonly host: Place; readonly pod: Place } {
  const host = wire.place(
    name,
    all.map(({ ip }) => `${ip}/${lengthsOf(ip).wire}`),
  );
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
  return { host, pod };
}

const device = (address: string): string => (address.includes(':') ? 'flannel-v6.1' : 'flannel.1');

/** Its own end of the tunnel of one family; the process that makes its WireGuard device ends with the test. */
export async function makeTunnel(
  t: TestContext,
  wire: Wire,
  end: { readonly host: Place; readonly backend: Backend } & Numbers,
): Promise<void> {
  const { host, backend, ip, base, mac } = end;
  if (backend === 'vxlan') {
    const link = device(ip);
    const tunnel = ['type', 'vxlan', 'id', '1', 'dev', 'eth0', 'local', ip, 'dstport', '8472', 'nolearning'];
    host.ip('link', 'add', link, 'address', mac, 'mtu', ip.includes(':') ? '1380' : '1400', ...tunnel);
    host.ip('addr', 'add', `${base}/${lengthsOf(base).one}`, 'dev', link, ...atOnce(base));
    host.ip('link', 'set', link, 'up');
  }
  if (backend === 'wireguard') {
    await makeWireguard(t, wire, host);
    host.ip('addr', 'add', `${base}/32`, 'dev', 'flannel-wg');
    host.ip('link', 'set', 'flannel-wg', 'up', 'mtu', '1370');
    host.run('wg', 'set', 'flannel-wg', 'listen-port', String(wireguardPort));
  }
}

/** The kernel has no WireGuard: a process makes the device. */
async function makeWireguard(t: TestContext, wire: Wire, host: Place): Promise<void> {
  const file = join(wire.folder, 'flannel-key');
  writeFileSync(file, `${wireguardKeys.privateKey}\n`, { mode: 0o600 });
  const child: ChildProcess = inNetns(host.path, () => spawn('wireguard-go', ['-f', 'flannel-wg'], { stdio: 'ignore' }));
  t.after(async () => {
    const gone = once(child, 'close');
    child.kill();
    await gone;
  });
  await eventually(() => host.try('wg', 'set', 'flannel-wg', 'private-key', file).status === 0, "the WireGuard device of flannel's host");
}

/** Another host, from what it tells. */
export interface Told {
  readonly subnet: string;
  readonly publicIp: string;
  readonly data: { readonly VtepMAC?: string; readonly PublicKey?: string; readonly Port?: number } | null;
}

/** The way to a peer, step by step in the order of flannel's. */
export function addPeer(host: Place, backend: Backend, { subnet, publicIp, data }: Told): void {
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
    host.run('wg', 'set', 'flannel-wg', 'peer', data?.PublicKey ?? '', 'endpoint', `${publicIp}:${data?.Port ?? 0}`, 'allowed-ips', subnet);
    host.ip('route', 'add', subnet, 'dev', 'flannel-wg');
  }
}
