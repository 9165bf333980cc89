// Nodes of a lab's cluster as flannel has made them: its device or routes, its rules, the plugins `bridge`, `host-local` and `portmap`.
// flannel itself is not at hand; what it would have done is done here by its documentation (Documentation/backends.md, pkg/backend), with
// ip(8), bridge(8), wg(8), iptables(8) and the Node's annotations. Nodes are named by the number of their host.
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { addPeer, type Backend, tells, type Told, wireguardPort } from '#agent/flannel.fixture.ts';
import { Place } from '#agent/namespaces.fixture.ts';
import { generateKeyPair, type KeyPair } from '#kernel/wireguard-keys.ts';
import { podRange, podRanges } from '#lab/kubernetes-control-plane.ts';
import type { Host } from '#lab/host.ts';
import type { Family } from '#model/ip.ts';
import type { KubernetesBed } from './kubernetes-bed.ts';

export const families = [4, 6] as const;
const plugins = ['bridge', 'host-local', 'portmap', 'loopback'];
const words = 'flannel.alpha.coreos.com/';
const annotations = ['kube-subnet-manager', 'backend-type', 'backend-data', 'backend-v6-data', 'public-ip', 'public-ipv6'];
const ours = ['carry', 'sends', 'receives', 'vtep-mac', 'wireguard-public-key'];

/** What a node of flannel has of one family. */
export interface End {
  readonly subnet: string;
  readonly ip: string;
  readonly link: string;
  readonly mac: string;
}

export class FlannelNodes {
  readonly #bed: KubernetesBed;
  readonly #keys = new Map<number, KeyPair>();

  constructor(bed: KubernetesBed) {
    this.#bed = bed;
  }

  host(index: number): Host {
    return this.#bed.lab.host(`host${index}`);
  }

  /** All nodes. */
  get indexes(): readonly number[] {
    return this.#bed.lab.hosts.map((_, place) => place + 1);
  }

  end(index: number, family: Family): End {
    const { address, address6 } = this.host(index);
    return family === 4
      ? { subnet: `10.244.${index}.0/24`, ip: address, link: 'flannel.1', mac: `6a:01:02:03:04:0${index}` }
      : { subnet: `fd00:10:244:${index}::/64`, ip: address6, link: 'flannel-v6.1', mac: `6a:01:02:03:06:0${index}` };
  }

  /** Plugins, their configuration and the rules, which all backends have alike. */
  install(index: number): void {
    const [node, place] = [this.host(index), this.#place(index)];
    place.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
    writeRules(place, this.end(index, 4).subnet);
    mkdirSync(node.file('/opt/cni/bin'), { recursive: true });
    for (const plugin of plugins) copyFileSync(join('/usr/lib/cni', plugin), node.file(`/opt/cni/bin/${plugin}`));
    mkdirSync(node.file('/etc/cni/net.d'), { recursive: true });
    writeFileSync(node.file('/etc/cni/net.d/10-flannel.conflist'), JSON.stringify(this.#conflist(index)));
  }

  /** All nodes carry by that backend; of WireGuard IPv4 only. Nothing of ours may be there. */
  async carryBy(backend: Backend): Promise<void> {
    for (const index of this.indexes) {
      await this.#annotate(index, backend);
      if (backend === 'wireguard') await this.#makeWireguard(index);
      if (backend === 'vxlan') for (const family of families) this.#makeVxlan(index, family);
    }
    for (const index of this.indexes) for (const other of this.indexes) if (other !== index) await this.#addPeer(index, other, backend);
  }

  /** What flannel does on the nodes `on` when `other` tells something else of itself. */
  async hear(on: readonly number[], other: number): Promise<void> {
    const data = await this.#annotation(other, 'backend-data');
    for (const index of on) await this.#addWireguardPeer(index, other, JSON.parse(data) as WireguardData);
  }

  #place(index: number): Place {
    return new Place(this.host(index).netns);
  }

  #annotation(index: number, name: string): Promise<string> {
    const path = `{.metadata.annotations.flannel\\.alpha\\.coreos\\.com/${name}}`;
    return this.#bed.cluster.kubectl('get', 'node', `host${index}`, `--output=jsonpath=${path}`);
  }

  /** As flannel writes them, and none of ours. */
  async #annotate(index: number, backend: Backend): Promise<void> {
    const [four, six] = [this.end(index, 4), this.end(index, 6)];
    const { type, data } = tells(backend, four);
    const told: Readonly<Record<string, string>> = {
      'kube-subnet-manager': 'true',
      'backend-type': type,
      'backend-data': JSON.stringify(backend === 'wireguard' ? this.#wireguardData(index) : data),
      'public-ip': four.ip,
      ...(backend === 'wireguard' ? {} : { 'backend-v6-data': JSON.stringify(tells(backend, six).data), 'public-ipv6': six.ip }),
    };
    const all = [
      ...annotations.map((key) => `${words}${key}${told[key] === undefined ? '-' : `=${told[key]}`}`),
      ...ours.map((key) => `causeway.dev/${key}-`),
    ];
    await this.#bed.cluster.kubectl('annotate', '--overwrite', 'node', `host${index}`, ...all);
  }

  #makeVxlan(index: number, family: Family): void {
    const place = this.#place(index);
    const { subnet, ip, link, mac } = this.end(index, family);
    const [mtu, one] = family === 4 ? ['1400', '/32'] : ['1380', '/128'];
    const device = ['type', 'vxlan', 'id', '1', 'local', ip, 'dstport', '8472', 'nolearning'];
    place.ip('link', 'add', link, 'address', mac, 'mtu', mtu, ...device);
    place.ip('addr', 'add', subnet.replace(/\/.*/, one), 'dev', link, ...(family === 6 ? ['nodad'] : []));
    place.ip('link', 'set', link, 'up');
  }

  #keysOf(index: number): KeyPair {
    const keys = this.#keys.get(index) ?? generateKeyPair();
    this.#keys.set(index, keys);
    return keys;
  }

  #wireguardData(index: number): WireguardData {
    return { PublicKey: this.#keysOf(index).publicKey, Port: wireguardPort };
  }

  /** Where the kernel has none a process makes the device. */
  async #makeWireguard(index: number): Promise<void> {
    const host = this.host(index);
    mkdirSync(host.file('/run/flannel'), { recursive: true });
    writeFileSync(host.file('/run/flannel/wgkey'), this.#keysOf(index).privateKey, { mode: 0o400 });
    const { status } = await host.exec(['ip', 'link', 'add', 'flannel-wg', 'type', 'wireguard'], { anyStatus: true });
    // wg removes a socket that does not listen yet.
    const ready = { socket: '/run/wireguard/flannel-wg.sock' };
    if (status !== 0) await host.startService({ name: 'flannel-wg', argv: ['wireguard-go', '-f', 'flannel-wg'], env: {}, ready });
    await host.exec(['wg', 'set', 'flannel-wg', 'listen-port', `${wireguardPort}`, 'private-key', '/run/flannel/wgkey']);
    const place = this.#place(index);
    place.ip('addr', 'add', this.end(index, 4).subnet.replace(/\/.*/, '/32'), 'dev', 'flannel-wg');
    place.ip('link', 'set', 'flannel-wg', 'up', 'mtu', '1370');
    place.ip('route', 'add', podRange, 'dev', 'flannel-wg', 'scope', 'link');
  }

  async #addPeer(index: number, other: number, backend: Backend): Promise<void> {
    if (backend === 'wireguard') {
      await this.#addWireguardPeer(index, other, this.#wireguardData(other));
      return;
    }
    for (const family of families) {
      const end = this.end(other, family);
      const told: Told = { subnet: end.subnet, publicIp: end.ip, data: { VtepMAC: end.mac } };
      addPeer(this.#place(index), backend, told);
    }
  }

  async #addWireguardPeer(index: number, other: number, { PublicKey, Port }: WireguardData): Promise<void> {
    const { ip, subnet } = this.end(other, 4);
    await this.host(index).exec(['wg', 'set', 'flannel-wg', 'peer', PublicKey, 'endpoint', `${ip}:${Port}`, 'allowed-ips', subnet]);
  }

  /** What the `flannel` plugin would have the others do. */
  #conflist(index: number): object {
    return {
      name: 'cbr0',
      cniVersion: '0.3.1',
      plugins: [
        {
          type: 'bridge',
          bridge: 'cni0',
          hairpinMode: true,
          isDefaultGateway: true,
          mtu: 1370,
          ipam: {
            type: 'host-local',
            ranges: families.map((family) => [{ subnet: this.end(index, family).subnet }]),
            routes: families.map((family) => ({ dst: podRanges[family] })),
          },
        },
        { type: 'portmap', capabilities: { portMappings: true } },
      ],
    };
  }
}

interface WireguardData {
  readonly PublicKey: string;
  readonly Port: number;
}

/** Its masquerading and forwarding rules (pkg/trafficmngr/iptables). */
function writeRules(place: Place, own: string): void {
  const nat = (...rule: readonly string[]): string => place.run('iptables', '-t', 'nat', ...rule);
  nat('-N', 'FLANNEL-POSTRTG');
  nat('-A', 'POSTROUTING', '-j', 'FLANNEL-POSTRTG');
  const post = ['-A', 'FLANNEL-POSTRTG'];
  nat(...post, '-s', own, '-d', podRange, '-j', 'RETURN');
  nat(...post, '-s', podRange, '-d', own, '-j', 'RETURN');
  nat(...post, '!', '-s', podRange, '-d', own, '-j', 'RETURN');
  nat(...post, '-s', podRange, '!', '-d', '224.0.0.0/4', '-j', 'MASQUERADE', '--random-fully');
  nat(...post, '!', '-s', podRange, '-d', podRange, '-j', 'MASQUERADE', '--random-fully');
  place.run('iptables', '-N', 'FLANNEL-FWD');
  place.run('iptables', '-A', 'FORWARD', '-j', 'FLANNEL-FWD');
  for (const side of ['-s', '-d']) place.run('iptables', '-A', 'FLANNEL-FWD', side, podRange, '-j', 'ACCEPT');
}
