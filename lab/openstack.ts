// A real OpenStack in a lab: Keystone and Neutron with ML2/OVN on the controller's host, Open vSwitch in userspace (no kernel
// module) and OVN's agent on the lab's other hosts, which are the hypervisors. Its instances are further hosts of the same lab,
// plugged into Neutron ports as Nova does it: bind the port, then connect its interface to the integration bridge. Neutron's
// port security and security groups are in force for them, and nothing of the lab is outside its namespaces.
import { Host } from './host.ts';
import { createLab, destroyLab, type Lab } from './lab.ts';
import { type Account, admin, Operator } from './openstack-operator.ts';
import { startChassis } from './openstack-chassis.ts';
import {
  apiPorts,
  type FurtherService,
  prepareNeutron,
  startDatabase,
  startKeystone,
  startNeutron,
  startOvn,
  unroutedRole,
} from './openstack-services.ts';
import type { Progress } from './progress.ts';
import { subnet } from './underlay.ts';
import { until } from './until.ts';

export interface OpenStackOptions {
  /** The lab's name on this machine. */
  readonly name: string;
  readonly hypervisors?: number;
  /** Further hosts beside the hypervisors, which nobody uses yet. */
  readonly machines?: number;
  /** How much of a list Neutron tells at once; two hundred unless told. With five whoever lists things meets several pages. */
  readonly pageLength?: number;
  /** Beyond Keystone and Neutron. */
  readonly services?: readonly FurtherService[];
}

/** What a port is, as far as plugging it needs. */
interface Port {
  readonly id: string;
  readonly mac_address: string;
  readonly network_id: string;
  readonly status: string;
  readonly fixed_ips: readonly { readonly ip_address: string; readonly subnet_id: string }[];
}

export interface Instance {
  readonly host: Host;
  readonly port: Port;
  readonly hypervisor: Host;
}

/** Who uses the cloud: a project's ordinary member. */
export const demo: Account = { user: 'demo', password: 'secret', project: 'demo' };
/** Another member of the same project, who may not write allowed address pairs. */
export const limited: Account = { user: 'limited', password: 'secret', project: 'demo' };
/** The same of routers; who needs it has it made (OpenStackOperator.seedRestricted). */
export const unrouted: Account = { user: unroutedRole, password: 'secret', project: 'demo' };
/** The external network. Its addresses are the lab's own underlay, whose gateway leads to the outside. */
export const publicNetwork = 'public';

export class OpenStack implements AsyncDisposable {
  readonly lab: Lab;
  readonly operator: Operator;

  constructor(lab: Lab) {
    this.lab = lab;
    this.operator = new Operator(lab.controller, admin);
  }

  /** Where Keystone, Neutron and OVN's databases run. */
  get controller(): Host {
    return this.lab.controller;
  }

  /** As every host of the lab, instances included, reaches Keystone. */
  get authUrl(): string {
    return `http://${this.controller.address}:${apiPorts.keystone}/v3`;
  }

  /** Environment of a client: `OS_AUTH_URL` and so on. */
  environment({ user, password, project }: Account = demo): Readonly<Record<string, string>> {
    return {
      OS_AUTH_URL: this.authUrl,
      OS_USERNAME: user,
      OS_PASSWORD: password,
      OS_PROJECT_NAME: project,
      OS_USER_DOMAIN_NAME: 'Default',
      OS_PROJECT_DOMAIN_NAME: 'Default',
      OS_REGION_NAME: 'RegionOne',
    };
  }

  /** Starts an instance on a port, on the `index`-th hypervisor from 1, and waits until Neutron calls the port active. */
  async boot(name: string, portId: string, index: number): Promise<Instance> {
    const hypervisor = this.lab.host(`host${index}`);
    const port = await this.#bind(portId, name, hypervisor);
    const [fixed] = port.fixed_ips.filter(({ ip_address: ip }) => !ip.includes(':'));
    const [fixed6] = port.fixed_ips.filter((one) => one !== fixed);
    if (fixed === undefined) throw new TypeError(`Port ${portId} has no address`);
    const { mtu } = await this.operator.get<{ mtu: number }>('neutron', `/v2.0/networks/${port.network_id}`, 'network');
    const range = await this.operator.get<{ cidr: string; gateway_ip: string | null }>(
      'neutron',
      `/v2.0/subnets/${fixed.subnet_id}`,
      'subnet',
    );
    const host = new Host(this.lab.name, { name, address: fixed.ip_address, address6: fixed6?.ip_address ?? '', also: [], mtu });
    await host.powerOn();
    this.lab.addInstance(host);
    await plug({ host, port, hypervisor }, range, mtu);
    await until(`port ${portId} to be active`, async () => (await this.port(portId)).status === 'ACTIVE', {
      timeoutMs: 180_000,
      intervalMs: 200,
    });
    return { host, port, hypervisor };
  }

  /** One that `demo` makes of itself, with all its roles. */
  applicationCredential(name: string): Promise<{ readonly id: string; readonly secret: string }> {
    return this.operator.as(demo).applicationCredential(name);
  }

  port(id: string): Promise<Port> {
    return this.operator.get('neutron', `/v2.0/ports/${id}`, 'port');
  }

  /** As Nova: a binding names the hypervisor and whom the port serves. */
  async #bind(id: string, name: string, hypervisor: Host): Promise<Port> {
    const port = { 'binding:host_id': hypervisor.name, device_owner: 'compute:nova', device_id: name };
    return this.operator.send('neutron', 'PUT', `/v2.0/ports/${id}`, { port });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await destroyLab(this.lab.name);
  }
}

/** Connects the instance's eth0 to the hypervisor's integration bridge and configures it, as DHCP would. */
async function plug(
  { host, port, hypervisor }: Instance,
  range: { readonly cidr: string; readonly gateway_ip: string | null },
  mtu: number,
): Promise<void> {
  const tap = `tap${port.id.slice(0, 11)}`;
  const length = range.cidr.split('/')[1];
  const lines = [
    `link add ${tap} mtu ${mtu} type veth peer name eth0 address ${port.mac_address} mtu ${mtu} netns ${host.pid}`,
    `link set ${tap} up`,
  ];
  await hypervisor.exec(['ip', '-batch', '-'], { netOnly: true, input: `${lines.join('\n')}\n` });
  await host.exec(['ethtool', '-K', 'eth0', 'tx', 'off'], { netOnly: true });
  const inside = [
    `address add ${host.address}/${length} dev eth0`,
    'link set eth0 up',
    ...(host.address6 === '' ? [] : [`address add ${host.address6}/64 dev eth0 nodad`]),
    ...(range.gateway_ip === null ? [] : [`route add default via ${range.gateway_ip}`]),
  ];
  await host.exec(['ip', '-batch', '-'], { netOnly: true, input: `${inside.join('\n')}\n` });
  const ids = [`external_ids:iface-id=${port.id}`, `external_ids:attached-mac="${port.mac_address}"`];
  await hypervisor.exec(['ovs-vsctl', '--timeout=30', 'add-port', 'br-int', tap, '--', 'set', 'interface', tap, ...ids]);
}

/** Builds the cloud. A lab of that name is removed first. Faults as `createLab` and `run`; `timeout`. */
export async function createOpenStack(options: OpenStackOptions, progress: Progress): Promise<OpenStack> {
  const { name, hypervisors = 2, machines = 0, pageLength = 200, services = [] } = options;
  await destroyLab(name);
  const lab = await progress.step('Laying the wires of the cloud', () => createLab({ name, hosts: hypervisors + machines, mtu: 1500 }));
  await using undo = new AsyncDisposableStack();
  const cloud = undo.use(new OpenStack(lab));
  const { controller } = lab;
  // OVS passes half-made packets of the kernel on: ping works then, and TCP does not.
  for (const host of [controller, lab.outside]) await host.exec(['ethtool', '-K', 'eth0', 'tx', 'off'], { netOnly: true });
  await progress.step('Starting the database and OVN', () =>
    Promise.all([startDatabase(controller, ['keystone', 'neutron', ...services.map((service) => service.name)]), startOvn(controller)]),
  );
  await progress.step('Starting Keystone and the hypervisors', async () => {
    const hosts = lab.hosts.slice(0, hypervisors).map((host, index) => startChassis(host, controller, { isGateway: index === 0 }));
    await Promise.all([startKeystone(controller), prepareNeutron(controller, pageLength), ...hosts]);
  });
  await progress.step('Starting Neutron', async () => {
    await Promise.all([startNeutron(controller), cloud.operator.seed([demo, limited], services)]);
    await until('the hypervisors to be known', async () => (await chassisNames(controller)).length === hypervisors, { timeoutMs: 180_000 });
    await seedPublicNetwork(cloud.operator);
  });
  for (const service of services) await progress.step(`Starting ${service.name}`, () => service.start(controller, cloud.operator));
  undo.move();
  return cloud;
}

async function chassisNames(controller: Host): Promise<string[]> {
  const said = await controller.ask(['ovn-sbctl', '--db=unix:/run/ovn/sb.sock', '--bare', '--columns=name', 'list', 'chassis']);
  return said.split('\n').filter((line) => line !== '');
}

async function seedPublicNetwork(operator: Operator): Promise<void> {
  const network = await operator.send<{ id: string }>('neutron', 'POST', '/v2.0/networks', {
    network: {
      name: publicNetwork,
      'router:external': true,
      'provider:network_type': 'flat',
      'provider:physical_network': 'physical',
    },
  });
  const prefix = subnet.replace(/\.0\/24$/, '');
  await operator.send('neutron', 'POST', '/v2.0/subnets', {
    subnet: {
      name: publicNetwork,
      network_id: network.id,
      ip_version: 4,
      cidr: subnet,
      gateway_ip: `${prefix}.1`,
      enable_dhcp: false,
      allocation_pools: [{ start: `${prefix}.100`, end: `${prefix}.249` }],
    },
  });
}
