// The cloud that `causeway demo --openstack` shows: a real OpenStack, a project with two Docker hosts as instances, and what of the
// project is open in Neutron at any moment, read from Neutron itself. A cloud that is found is used again.
import { mkdirSync, writeFileSync } from 'node:fs';
import { Fault } from '#model/fault.ts';
import { startController, stopController } from './causeway.ts';
import type { Output } from './command.ts';
import type { Screen } from './demo-screen.ts';
import { destroyLab, openLab } from './lab.ts';
import { demo, limited, publicNetwork } from './openstack.ts';
import { type CloudBed, findCloudBed, makeCloudBed } from './openstack-bed.ts';
import type { Account } from './openstack-operator.ts';
import { until } from './until.ts';

/** Networks that the demonstration makes, and removes again when it runs once more. */
export const ownNetworks = [
  'overlay',
  'encrypted',
  'flannel',
  'gateway',
  'calico',
  'routed',
  'red',
  'blue',
  'built',
  'ports',
  'shop',
  'plain',
] as const;
export type OwnNetwork = (typeof ownNetworks)[number];
/** Each of a tenant of that name. */
export const tenantNetworks: readonly ['red', 'blue'] = ['red', 'blue'];

/** A web server in network shop. */
export const frontName = 'front';

/** In clouds.yaml of the controller's host. */
export const cloudName = 'demo';
const installation = 'causeway';
const patience = { timeoutMs: 180_000, intervalMs: 200 };

/** What Causeway has opened, as Neutron tells it. */
export interface Opened {
  /** Of its security groups, each with the group's name first when it is not the hosts' own. */
  readonly rules: readonly string[];
  /** Of the instances' ports, by instance. */
  readonly pairs: readonly (readonly string[])[];
  /** How many security groups, rules, pairs, tags and routes the project has, whoever made them. */
  readonly counts: string;
}

interface Rule {
  readonly direction: 'ingress' | 'egress';
  readonly protocol: string | null;
  readonly port_range_min: number | null;
  readonly remote_group_id: string | null;
  readonly remote_ip_prefix: string | null;
}
interface Group {
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly security_group_rules: readonly Rule[];
}
interface Port {
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly allowed_address_pairs: readonly { readonly ip_address: string }[];
}

export class CloudDemo {
  readonly bed: CloudBed;
  readonly screen: Screen;
  /** Before anything is allowed for networks; known once the demonstration has begun. */
  before = '';

  constructor(bed: CloudBed, screen: Screen) {
    this.bed = bed;
    this.screen = screen;
  }

  /** `causeway` as on the controller's host, to whatever end; what is about the cloud logs in by its clouds.yaml. */
  causeway(...argv: readonly string[]): Promise<Output> {
    return this.bed.tryCauseway(argv, {});
  }

  /** Makes a network and on each instance a container, `NETWORK1` and `NETWORK2`. */
  async makeNetwork(name: OwnNetwork, options: readonly string[]): Promise<void> {
    await this.bed.causeway('network', 'create', name, ...options);
    // One after the other: networks with one range then give the same addresses.
    for (const index of [1, 2]) await this.#attach(index, name);
  }

  async #attach(index: number, name: string): Promise<void> {
    await this.bed.untilKnown(index, name);
    await this.bed.run(index, `${name}${index}`, name);
  }

  /** With the demonstration's containers in it; absent is success. What the cloud allowed for it is another matter. */
  async removeNetwork(name: OwnNetwork): Promise<void> {
    const own = [`${name}1`, `${name}2`, ...(name === 'shop' ? [frontName] : [])];
    for (const index of [1, 2]) {
      const found = await this.bed.docker(index, 'ps', '--all', '--quiet', '--filter', `name=^(${own.join('|')})$`);
      if (found !== '') await this.bed.docker(index, 'rm', '--force', ...found.split('\n'));
    }
    const isThere = async (): Promise<boolean> =>
      (await this.bed.json<{ name: string }[]>('network', 'ls')).some((network) => network.name === name);
    await until(
      `network ${name} to be removed`,
      async () => {
        if (!(await isThere())) return true;
        const { status, stderr } = await this.bed.tryCauseway(['network', 'rm', '--yes', name]);
        if (status !== 0) throw new Error(stderr.trim());
        return false;
      },
      patience,
    );
  }

  /** Absent is success. */
  async removeTenant(name: string): Promise<void> {
    const found = await this.bed.json<{ name: string }[]>('tenant', 'ls');
    if (found.some((tenant) => tenant.name === name)) await this.bed.causeway('tenant', 'rm', '--yes', name);
  }

  /** Starts the controller anew; `keeping`: such that it keeps the cloud by itself. */
  async restartController(keeping: boolean): Promise<void> {
    const { controller } = this.bed.cloud;
    await stopController(controller);
    const more = keeping ? ['--cloud', cloudName] : [];
    await startController(controller, { arguments: ['--san', controller.address, ...more] });
    await until('the controller to answer', () => this.bed.causeway('status').catch(() => undefined), patience);
  }

  /** Ports of Neutron that stand for containers: their addresses. */
  async containerPorts(): Promise<string[]> {
    const ports = await this.bed.portsBy<{ id: string; fixed_ips: { ip_address: string }[] }>('device_owner=causeway:container');
    return ports.flatMap((port) => port.fixed_ips.map((fixed) => fixed.ip_address));
  }

  /** Extra routes of the project's router. */
  async routes(): Promise<string[]> {
    const path = `/v2.0/routers/${this.bed.site.router}`;
    const { routes } = await this.bed.member.get<{ routes: { destination: string; nexthop: string }[] }>('neutron', path, 'router');
    return routes.map(({ destination, nexthop }) => `${destination} via ${nexthop}`);
  }

  async opened(): Promise<Opened> {
    const groups = await this.bed.member.list<Group>('neutron', '/v2.0/security-groups', 'security_groups');
    const ports = await this.bed.member.list<Port>('neutron', '/v2.0/ports', 'ports');
    const ours = groups.filter(({ tags }) => tags.includes(`causeway.${installation}`));
    const nameOf = (id: string): string => groups.find((group) => group.id === id)?.name ?? id;
    const rules = ours.flatMap((group) =>
      group.security_group_rules.map((rule) => `${group.name === installation ? '' : `${group.name}: `}${ruleText(rule, nameOf)}`),
    );
    const count = {
      'security groups': groups.length,
      rules: total(groups.map((group) => group.security_group_rules.length)),
      'address pairs': total(ports.map((port) => port.allowed_address_pairs.length)),
      tags: total([...groups, ...ports].map(({ tags }) => tags.length)),
      routes: (await this.routes()).length,
    };
    return {
      rules: rules.toSorted(),
      pairs: this.bed.instances.map(({ host }) =>
        ports.filter(({ name }) => name === host.name).flatMap((port) => port.allowed_address_pairs.map(({ ip_address: ip }) => ip)),
      ),
      counts: Object.entries(count)
        .map(([what, number]) => `${number} ${what}`)
        .join(', '),
    };
  }

  /** A floating IP on the first instance's port, made once. */
  async floatingIp(): Promise<string> {
    const { member, instances } = this.bed;
    const port = instances[0]?.port.id;
    const [found] = await member.get<{ floating_ip_address: string }[]>('neutron', `/v2.0/floatingips?port_id=${port}`, 'floatingips');
    if (found !== undefined) return found.floating_ip_address;
    const [outside] = await member.get<{ id: string }[]>('neutron', `/v2.0/networks?name=${publicNetwork}`, 'networks');
    const made = await member.send<{ floating_ip_address: string }>('neutron', 'POST', '/v2.0/floatingips', {
      floatingip: { floating_network_id: outside?.id, port_id: port },
    });
    return made.floating_ip_address;
  }

  /** As whoever may write ports would do it in Neutron. */
  async setPairs(index: number, pairs: readonly string[]): Promise<void> {
    const port = this.bed.instances[index - 1]?.port.id;
    const body = { port: { allowed_address_pairs: pairs.map((range) => ({ ip_address: range })) } };
    await this.bed.member.send('neutron', 'PUT', `/v2.0/ports/${port}`, body);
  }
}

const total = (numbers: readonly number[]): number => numbers.reduce((sum, one) => sum + one, 0);

const protocolNames: Readonly<Record<string, string>> = { '1': 'ICMP', '6': 'TCP', '17': 'UDP', tcp: 'TCP', udp: 'UDP' };

function ruleText(
  { direction, protocol, port_range_min: port, remote_group_id: group, remote_ip_prefix: prefix }: Rule,
  nameOf: (id: string) => string,
): string {
  const what =
    protocol === null ? 'every protocol' : `${protocolNames[protocol] ?? `protocol ${protocol}`}${port === null ? '' : ` ${port}`}`;
  const whom = group === null ? (prefix ?? 'anybody') : `members of ${nameOf(group)}`;
  return direction === 'ingress' ? `${what} in from ${whom}` : `${what} out to ${whom}`;
}

/** Builds the cloud or finds it. Faults as `createOpenStack`, `run`, `timeout`; `in-use` for networks of somebody else. */
export async function openCloud(name: string, screen: Screen): Promise<CloudDemo> {
  const bed = (await findCloud(name, screen)) ?? (await makeCloudBed({ name, progress: screen }));
  const site = new CloudDemo(bed, screen);
  writeLogins(bed);
  // One that keeps the cloud is left by a run that was killed.
  if (bed.cloud.controller.services().some(({ argv }) => argv.includes('--cloud'))) await site.restartController(false);
  await screen.step('the project’s own security group: out by TCP and to name servers, in nothing', () => narrow(bed));
  await screen.step('no network yet, and nothing of Causeway in Neutron', () => clear(site));
  return site;
}

async function findCloud(name: string, screen: Screen): Promise<CloudBed | undefined> {
  if (openLab(name) === undefined) return undefined;
  const found = await screen.step(`cloud of lab ${name}: looked for`, () => findCloudBed(name));
  if (found === undefined) await screen.step(`removing what is left of lab ${name}`, () => destroyLab(name));
  return found;
}

/** Where `causeway cloud --cloud demo` finds them, on the controller's host. */
function writeLogins({ cloud }: CloudBed): void {
  const folder = cloud.controller.file('/etc/openstack');
  mkdirSync(folder, { recursive: true });
  const entry = ({ user, password, project }: Account): object => ({
    auth: {
      auth_url: cloud.authUrl,
      username: user,
      password,
      project_name: project,
      user_domain_name: 'Default',
      project_domain_name: 'Default',
    },
    region_name: 'RegionOne',
  });
  const clouds = { [cloudName]: entry(demo), limited: entry(limited) };
  // JSON is YAML.
  writeFileSync(`${folder}/clouds.yaml`, `${JSON.stringify({ clouds }, undefined, 1)}\n`, { mode: 0o600 });
}

/** Neutron lets everything out of a new group. With less, what passes later passes because of Causeway. */
async function narrow({ member, site }: CloudBed): Promise<void> {
  const path = `/v2.0/security-groups/${site.group}`;
  const { security_group_rules: rules } = await member.get<{ security_group_rules: (Rule & { id: string })[] }>(
    'neutron',
    path,
    'security_group',
  );
  for (const { id, protocol } of rules) if (protocol === null) await member.send('neutron', 'DELETE', `/v2.0/security-group-rules/${id}`);
  if (rules.some(({ protocol }) => protocol !== null)) return;
  for (const ports of [{ protocol: 'tcp' }, { protocol: 'udp', port_range_min: 53, port_range_max: 53 }])
    await member.send('neutron', 'POST', '/v2.0/security-group-rules', {
      security_group_rule: { security_group_id: site.group, direction: 'egress', ...ports },
    });
}

async function clear(site: CloudDemo): Promise<void> {
  const { bed } = site;
  const networks = (await bed.json<{ name: string }[]>('network', 'ls')).map(({ name }) => name);
  const others = networks.filter((name) => !ownNetworks.some((own) => own === name));
  if (others.length > 0) {
    throw new Fault(
      'in-use',
      `There are networks that the demonstration did not make: ${others.join(', ')}. What they need would be allowed, too`,
      {
        hint: `Remove them: ./causeway lab exec ${bed.cloud.lab.name} controller causeway network rm ${others.join(' ')}`,
      },
    );
  }
  const exposures = (await bed.json<{ name: string }[]>('exposure', 'ls')).map(({ name }) => name);
  if (exposures.length > 0) await bed.causeway('exposure', 'rm', '--yes', ...exposures);
  for (const name of ownNetworks) if (networks.includes(name)) await site.removeNetwork(name);
  for (const name of tenantNetworks) await site.removeTenant(name);
  await bed.causeway('cloud', 'destroy', '--yes');
  site.before = (await site.opened()).counts;
}
