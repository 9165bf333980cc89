// What Octavia's compute driver of the lab hands out (octavia-driver/): hosts of the lab that boot with systemd, as an amphora's image
// does, and run Octavia's own agent and haproxy. Their ports are Neutron's, on a hypervisor of the cloud. The agent's scripts are those
// of Debian's package, which is unpacked in the machine only: to install it would bring half a server's worth of programs to this one.
import { chmodSync, copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './command.ts';
import type { Host } from './host.ts';
import type { OpenStack } from './openstack.ts';
import { type Machine, Orders } from './orders.ts';
import { bootSystemd } from './systemd.ts';
import { until } from './until.ts';

/** As octavia-driver/ has it. */
export const machinesRoot = '/var/lib/causeway-octavia/machines';
const cache = '/var/cache/causeway-octavia';
const agentPort = 9443;

interface Order {
  readonly generation: number;
  readonly wish: 'run' | 'end';
  /** By path. */
  readonly files: Readonly<Record<string, string>>;
  /** Ids. */
  readonly ports: readonly string[];
}

/** What the image of an amphora has beside Debian's packages. */
const image: Readonly<Record<string, string>> = {
  '/var/lib/octavia/haproxy-default-user-group.conf': 'global\n\tgroup nogroup\n',
  // Of every load balancer: what haproxy keeps of TLS it would let grow to whatever memory it is told that there is.
  '/etc/systemd/system/haproxy-.service.d/memory.conf': '[Service]\nLimitAS=1G\n',
  '/etc/systemd/system/amphora-agent.service': [
    '[Service]',
    'ExecStartPre=/bin/mkdir -p /run/rsyslog/octavia /var/lib/octavia/certs /etc/octavia/interfaces',
    // It wants to tell a socket of syslog, and does not start without.
    'ExecStartPre=/bin/ln -sf /run/systemd/journal/dev-log /run/rsyslog/octavia/log',
    'ExecStart=/usr/bin/amphora-agent --config-file /etc/octavia/amphora-agent.conf',
    '',
  ].join('\n'),
};

/**
 * In KiB: what the kernel says of the whole machine is not what a load balancer has. Octavia gives haproxy's cache of TLS sessions half
 * of what is free (common/jinja/haproxy/combined_listeners/jinja_cfg.py).
 */
export const memory = { MemTotal: 262_144, MemFree: 98_304, Buffers: 0, Cached: 32_768, SwapCached: 0, Shmem: 0, Slab: 16_384 } as const;
const memoryFile = '/etc/octavia/meminfo';

export class Amphorae implements AsyncDisposable {
  readonly #cloud: OpenStack;
  readonly #hypervisor: Host;
  readonly #orders: Orders<Order>;
  /** Ports that a machine has by now, by its id. */
  readonly #ports = new Map<string, Set<string>>();

  /** Hands out `hosts` from now on, until it is disposed of, with ports on `hypervisor`. */
  constructor(cloud: OpenStack, hosts: readonly Host[], hypervisor: Host) {
    this.#cloud = cloud;
    this.#hypervisor = hypervisor;
    const { controller } = cloud;
    this.#orders = new Orders({ controller, root: machinesRoot, kind: 'taken', hosts, carryOut: (id, order) => this.#carryOut(id, order) });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#orders[Symbol.asyncDispose]();
  }

  /** Names of machines that are no amphora. */
  get free(): string[] {
    return this.#orders.free;
  }

  async #carryOut(id: string, order: Order): Promise<object | undefined> {
    const machine = this.#orders.read(id, 'machine') as Machine | undefined;
    if (machine === undefined) return undefined;
    await this.#does(id, order, this.#cloud.lab.host(machine.name));
    return {};
  }

  async #does(id: string, { wish, files, ports }: Order, host: Host): Promise<void> {
    const known = this.#ports.get(id);
    if (wish === 'end') {
      for (const port of known ?? []) await this.#unplug(port);
      this.#ports.delete(id);
      // The machine forgets what its agent has said.
      const words = await host.ask(['journalctl', '--unit=amphora-agent', '--no-pager', '--output=cat'], { anyStatus: true });
      writeFileSync(join(host.folder, 'logs', 'amphora-agent.log'), words);
      // As it was: a plain host that nobody uses.
      await host.powerOff();
      await this.#cloud.lab.powerOn(host);
      return;
    }
    if (known === undefined) {
      await start(this.#cloud, host, files);
      this.#ports.set(id, new Set());
    }
    const has = this.#ports.get(id) ?? new Set<string>();
    for (const port of has) if (!ports.includes(port)) await this.#unplug(port);
    for (const port of ports) if (!has.has(port)) await this.#plug(id, port, host);
    this.#ports.set(id, new Set(ports));
  }

  /** As Nova: bound to the hypervisor, then connected to its integration bridge. The agent in the machine does the rest. */
  async #plug(id: string, portId: string, host: Host): Promise<void> {
    const { operator } = this.#cloud;
    const binding = { 'binding:host_id': this.#hypervisor.name, device_id: id };
    const port = await operator.send<{ mac_address: string; network_id: string }>('neutron', 'PUT', `/v2.0/ports/${portId}`, {
      port: binding,
    });
    const { mtu } = await operator.get<{ mtu: number }>('neutron', `/v2.0/networks/${port.network_id}`, 'network');
    const [tap, link] = [tapOf(portId), `e${portId.slice(0, 8)}`];
    const lines = [
      `link add ${tap} mtu ${mtu} type veth peer name ${link} address ${port.mac_address} mtu ${mtu} netns ${host.pid}`,
      `link set ${tap} up`,
    ];
    await this.#hypervisor.exec(['ip', '-batch', '-'], { netOnly: true, input: `${lines.join('\n')}\n` });
    await host.exec(['ethtool', '-K', link, 'tx', 'off'], { netOnly: true });
    const ids = [`external_ids:iface-id=${portId}`, `external_ids:attached-mac="${port.mac_address}"`];
    await this.#hypervisor.exec(['ovs-vsctl', '--timeout=30', 'add-port', 'br-int', tap, '--', 'set', 'interface', tap, ...ids]);
  }

  async #unplug(portId: string): Promise<void> {
    const tap = tapOf(portId);
    await this.#hypervisor.exec(['ovs-vsctl', '--timeout=30', '--if-exists', 'del-port', 'br-int', tap]);
    await this.#hypervisor.exec(['ip', 'link', 'delete', tap], { netOnly: true, anyStatus: true });
    // As Nova, for which Octavia waits; a port that has gone has nobody.
    const { operator } = this.#cloud;
    const [found] = await operator.get<{ id: string }[]>('neutron', `/v2.0/ports?id=${portId}&fields=id`, 'ports');
    const nobody = { 'binding:host_id': '', device_id: '' };
    if (found !== undefined) await operator.send('neutron', 'PUT', `/v2.0/ports/${portId}`, { port: nobody });
  }
}

const tapOf = (portId: string): string => `tap${portId.slice(0, 11)}`;

async function start({ lab }: OpenStack, host: Host, files: Readonly<Record<string, string>>): Promise<void> {
  await bootSystemd(lab, host);
  // Caches of this machine are not seen there.
  const unpacked = '/tmp/octavia-agent.deb';
  copyFileSync(await agentPackage(), host.file(unpacked));
  await host.exec(['dpkg-deb', '--extract', unpacked, '/']);
  const told = Object.entries(memory).map(([name, size]) => `${name}: ${size} kB\n`);
  for (const [path, text] of Object.entries({ ...image, [memoryFile]: told.join(''), ...files })) {
    mkdirSync(host.file(dirname(path)), { recursive: true });
    writeFileSync(host.file(path), text);
    chmodSync(host.file(path), 0o600);
  }
  await host.exec(['mount', '--bind', memoryFile, '/proc/meminfo']);
  await host.exec(['systemctl', 'daemon-reload']);
  await host.exec(['systemctl', 'start', 'amphora-agent']);
  const probe = ['bash', '-c', `</dev/tcp/${host.address}/${agentPort}`];
  await until('the amphora’s agent to listen', async () => (await lab.controller.exec(probe, { anyStatus: true })).status === 0, {
    timeoutMs: 90_000,
  });
}

/** Debian's package of the agent, fetched once. */
async function agentPackage(): Promise<string> {
  mkdirSync(cache, { recursive: true });
  const there = (): string | undefined => readdirSync(cache).find((name) => name.startsWith('octavia-agent_') && name.endsWith('.deb'));
  if (there() === undefined) await run(['apt-get', '-q', 'download', 'octavia-agent'], { cwd: cache });
  const name = there();
  if (name === undefined) throw new TypeError(`apt-get has left no package in ${cache}`);
  return join(cache, name);
}
