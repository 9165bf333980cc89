// Programs of the machine that a step needs, and the Debian packages that have them. Looked for by program, so any
// distribution will do that has them already; only installing is Debian's way.
import { accessSync, constants, existsSync, rmSync, writeFileSync } from 'node:fs';
import { Fault } from '#model/fault.ts';
import { run } from './command.ts';
import type { Progress } from './progress.ts';

export interface Need {
  /** Of the search path, or the absolute path of any file. */
  readonly program: string;
  readonly package: string;
  readonly why: string;
}

const need = (program: string, debian: string, why: string): Need => ({ program, package: debian, why });

export const labNeeds: readonly Need[] = [
  need('ip', 'iproute2', 'to lay the lab’s wires'),
  need('nft', 'nftables', 'for the agent’s rules'),
  need('dockerd', 'docker.io', 'the engines of the lab’s hosts'),
  need('docker', 'docker-cli', 'to speak to the engines'),
  need('busybox', 'busybox-static', 'for container images that need no registry'),
  need('ping', 'iputils-ping', 'to measure round trips'),
  need('wireguard-go', 'wireguard-go', 'for encrypted networks where the kernel has no WireGuard'),
];

export const demoNeeds: readonly Need[] = [
  ...labNeeds,
  need('redis-cli', 'redis-tools', 'the demonstration’s database'),
  need('iperf3', 'iperf3', 'to measure throughput'),
  need('tcpdump', 'tcpdump', 'to show what crosses the underlay'),
  need('pkill', 'procps', 'to kill an agent'),
];

export const cniNeeds: readonly Need[] = [need('gcc', 'gcc', 'to build causeway-cni'), need('gcc', 'libc6-dev', 'to build causeway-cni')];

/** The kernel itself need not have it. */
export const sctpNeeds: readonly Need[] = [need('/usr/lib/usrsctp/client', 'libusrsctp-examples', 'both ends of SCTP')];

export const testNeeds: readonly Need[] = [
  ...demoNeeds,
  need('etcd', 'etcd-server', 'to test the etcd store'),
  need('etcdctl', 'etcd-client', 'to test the etcd store'),
  need('conntrack', 'conntrack', 'to look at connection tracking'),
  need('wg', 'wireguard-tools', 'to look at tunnels'),
  need('ethtool', 'ethtool', 'to look at links'),
  need('fping', 'fping', 'to send a packet every millisecond'),
  need('jq', 'jq', 'to read what programs print'),
  need('curl', 'curl', 'to ask an agent over its socket'),
  need('socat', 'socat', 'to send single frames'),
  need('strace', 'strace', 'to count system calls'),
  need('faketime', 'faketime', 'to give a program a wrong clock'),
  need('systemctl', 'systemd', 'to boot a host with it'),
  need('openssl', 'openssl', 'to look at certificates'),
  need('docker-compose', 'docker-compose', 'to test Compose files'),
  need('zsh', 'zsh', 'to complete words in it'),
  need('fish', 'fish', 'to complete words in it'),
  need('bird', 'bird2', 'to announce blocks by BGP'),
  need('vtysh', 'frr', 'a router that speaks BGP with BIRD'),
  need('host-local', 'containernetworking-plugins', 'plugins of others for containers'),
  ...cniNeeds,
  ...sctpNeeds,
];

/** Only recommended by what needs it: without it SQLAlchemy does the same in Python, and services take a sixth more of the processor. */
const sqlalchemyInC = '/usr/share/doc/python3-sqlalchemy-ext/copyright';

export const openstackNeeds: readonly Need[] = [
  ...labNeeds,
  need('ethtool', 'ethtool', 'to have whole packets between OVS and the kernel'),
  need('mariadbd', 'mariadb-server', 'the database of Keystone and Neutron'),
  need('ovn-northd', 'ovn-central', 'Neutron’s logical network'),
  need('ovn-controller', 'ovn-host', 'Neutron’s agent of a hypervisor'),
  need('ovs-vswitchd', 'openvswitch-switch', 'the switch of a hypervisor'),
  need('uwsgi-core', 'uwsgi-core', 'to serve Keystone and Neutron'),
  need('/usr/lib/uwsgi/plugins/python3_plugin.so', 'uwsgi-plugin-python3', 'to serve Keystone and Neutron'),
  need('keystone-manage', 'python3-keystone', 'who is who in the cloud'),
  need('/usr/lib/python3/dist-packages/neutron/wsgi/api.py', 'python3-neutron', 'the cloud’s networks'),
  need('/usr/lib/python3/dist-packages/MySQLdb/__init__.py', 'python3-mysqldb', 'Keystone and Neutron speak to the database'),
  need(sqlalchemyInC, 'python3-sqlalchemy-ext', 'services make something of what the database answers'),
];

const folders = [
  '/usr/local/sbin',
  '/usr/local/bin',
  '/usr/sbin',
  '/usr/bin',
  '/sbin',
  '/bin',
  '/usr/libexec/docker/cli-plugins',
  '/usr/lib/cni',
];
const policy = '/usr/sbin/policy-rc.d';

export function hasProgram(program: string): boolean {
  if (program.startsWith('/')) return existsSync(program);
  return folders.some((folder) => {
    try {
      accessSync(`${folder}/${program}`, constants.X_OK);
      return true;
    } catch {
      return false; // not here
    }
  });
}

/** What a test that is skipped says; false when nothing is missing. */
export function missingOf(needs: readonly Need[]): string | false {
  const names = needs.filter(({ program }) => !hasProgram(program)).map((item) => item.package);
  return names.length === 0 ? false : `not installed: ${[...new Set(names)].join(', ')}`;
}

/**
 * Installs what is missing of `needs` and says what and why. No installed service is started: a machine-wide engine would
 * only be in the way. Fault `unsupported` when something is missing and this is not root on Debian.
 */
export async function ensurePackages(needs: readonly Need[], progress: Progress): Promise<void> {
  const missing = needs.filter(({ program }) => !hasProgram(program));
  if (missing.length === 0) return;
  const names = [...new Set(missing.map((item) => item.package))];
  const list = missing.map((item) => `${item.package} (${item.why})`).join(', ');
  const hint = `Install them: apt-get install ${names.join(' ')}`;
  if (!existsSync('/usr/bin/apt-get')) throw new Fault('unsupported', `Cannot go on without ${list}: this is no Debian system`, { hint });
  if (process.getuid?.() !== 0) throw new Fault('unsupported', `Cannot install ${list}: not root`, { hint });
  await progress.step(`Installing ${list}`, async () => {
    const ours = forbidServices();
    try {
      await install(names);
    } finally {
      if (ours) rmSync(policy, { force: true });
    }
  });
}

/** Debian asks this program before it starts a service of a new package; 101 means no. One that is there stays. */
function forbidServices(): boolean {
  if (existsSync(policy)) return false;
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  return true;
}

async function install(names: readonly string[]): Promise<void> {
  const apt = ['apt-get', '-y', '-q', '-o', 'DPkg::Lock::Timeout=300', '-o', 'Dpkg::Options::=--force-confold'];
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const line = [...apt, 'install', '--no-install-recommends', ...names];
  const first = await run(line, { env, anyStatus: true });
  if (first.status === 0) return;
  // the lists may be absent or older than the archive
  await run([...apt, 'update'], { env });
  await run(line, { env });
}
