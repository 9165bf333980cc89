// A hypervisor's network as ML2/OVN has it: Open vSwitch with OVN's agent. The switch runs in userspace (datapath type netdev),
// which needs no kernel module; its tunnels are sent by itself, so the host's card is a port of a bridge and the host's address
// is that bridge's (docs.openvswitch.org, "Userspace tunneling"). The same bridge is the physical network of external addresses.
import type { Host } from './host.ts';

const socket = '/run/openvswitch/db.sock';
const database = '/var/lib/openvswitch/lab.db';

/** `isGateway`: routers' external addresses live there. */
export async function startChassis(host: Host, controller: Host, { isGateway }: { readonly isGateway: boolean }): Promise<void> {
  await host.exec(['mkdir', '-p', '/run/openvswitch', '/run/ovn', '/var/lib/openvswitch']);
  await host.exec(['ovsdb-tool', 'create', database, '/usr/share/openvswitch/vswitch.ovsschema']);
  await host.startService({
    name: 'ovsdb',
    argv: ['ovsdb-server', `--remote=punix:${socket}`, '--unixctl=/run/openvswitch/ovsdb.ctl', database],
    env: {},
    ready: { socket },
  });
  await vsctl(host, '--no-wait', 'init');
  await vsctl(
    host,
    '--no-wait',
    'set',
    'open',
    '.',
    `external_ids:system-id=${host.name}`,
    `external_ids:hostname=${host.name}`,
    `external_ids:ovn-remote=tcp:${controller.address}:6642`,
    'external_ids:ovn-encap-type=geneve',
    `external_ids:ovn-encap-ip=${host.address}`,
    'external_ids:ovn-bridge-datapath-type=netdev',
    'external_ids:ovn-bridge-mappings=physical:br-phy',
    ...(isGateway ? ['external_ids:ovn-cms-options=enable-chassis-as-gw'] : []),
  );
  await host.startService({
    name: 'ovs-vswitchd',
    // Packets wait for it as they would not in the kernel, so it goes before others, of its own session and of others (sched(7)).
    argv: [
      'sh',
      '-c',
      `(echo -20 >/proc/self/autogroup) 2>/dev/null; exec nice -n -20 ovs-vswitchd --unixctl=/run/openvswitch/vswitchd.ctl unix:${socket}`,
    ],
    env: {},
    ready: { socket: '/run/openvswitch/vswitchd.ctl' },
  });
  await vsctl(host, 'add-br', 'br-phy', '--', 'set', 'bridge', 'br-phy', 'datapath_type=netdev', '--', 'add-port', 'br-phy', 'eth0');
  await vsctl(host, 'add-br', 'br-int', '--', 'set', 'bridge', 'br-int', 'datapath_type=netdev', 'fail_mode=secure');
  const lines = ['address flush dev eth0', `address add ${host.address}/24 dev br-phy`, 'link set br-phy up', 'link set br-int up'];
  await host.exec(['ip', '-batch', '-'], { netOnly: true, input: `${lines.join('\n')}\n` });
  await host.startService({
    name: 'ovn-controller',
    argv: ['ovn-controller', '--unixctl=/run/ovn/controller.ctl', `unix:${socket}`],
    env: {},
    ready: { socket: '/run/ovn/controller.ctl' },
  });
}

const vsctl = (host: Host, ...argv: readonly string[]) => host.exec(['ovs-vsctl', `--db=unix:${socket}`, '--timeout=60', ...argv]);
