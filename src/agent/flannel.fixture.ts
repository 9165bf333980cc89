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

/** With a pod on its bridge, as the `bridge` and `host-local` plugins leave it. */
export function makeHost(wire: Wire, name: string, { ip, bridge, pod: address }: Numbers): { readonly host: Place; readonly pod: Place } {
  const host = wire.place(name, [`${ip}/16`]);
  const pod = wire.place(`${name}-pod`, []);
  host.run('sysctl', '-qw', 'net.ipv4.ip_forward=1');
  host.ip('link', 'add', 'cni0', 'type', 'bridge');
  host.ip('addr', 'add', `${bridge}/24`, 'dev', 'cni0');
  host.ip('link', 'set', 'cni0', 'up');
  host.ip('link', 'add', 'veth0', 'type', 'veth', 'peer', 'eth1', 'netns', pod.path);
  host.ip('link', 'set', 'veth0', 'master', 'cni0', 'up');
  pod.ip('link', 'del', 'eth0');
  pod.ip('addr', 'add', `${address}/24`, 'dev', 'eth1');
  pod.ip('link', 'set', 'eth1', 'up');
  pod.ip('route', 'add', 'default', 'via', bridge);
  return { host, pod };
}

/** Its own end of the tunnel; the process that makes its WireGuard device ends with the test. */
export async function makeTunnel(
  t: TestContext,
  wire: Wire,
  end: { readonly host: Place; readonly backend: Backend } & Numbers,
): Promise<void> {
  const { host, backend, ip, base, mac } = end;
  if (backend === 'vxlan') {
    const tunnel = ['type', 'vxlan', 'id', '1', 'dev', 'eth0', 'local', ip, 'dstport', '8472', 'nolearning'];
    host.ip('link', 'add', 'flannel.1', 'address', mac, 'mtu', '1400', ...tunnel);
    host.ip('addr', 'add', `${base}/32`, 'dev', 'flannel.1');
    host.ip('link', 'set', 'flannel.1', 'up');
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
  if (backend === 'host-gateway') host.ip('route', 'add', subnet, 'via', publicIp);
  if (backend === 'vxlan') {
    host.ip('neigh', 'add', base, 'lladdr', data?.VtepMAC ?? '', 'dev', 'flannel.1', 'nud', 'permanent');
    host.run('bridge', 'fdb', 'append', data?.VtepMAC ?? '', 'dev', 'flannel.1', 'dst', publicIp);
    host.ip('route', 'add', subnet, 'via', base, 'dev', 'flannel.1', 'onlink');
  }
  if (backend === 'wireguard') {
    host.run('wg', 'set', 'flannel-wg', 'peer', data?.PublicKey ?? '', 'endpoint', `${publicIp}:${data?.Port ?? 0}`, 'allowed-ips', subnet);
    host.ip('route', 'add', subnet, 'dev', 'flannel-wg');
  }
}
