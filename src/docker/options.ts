// The options of `docker network create -d causeway -o key=value`. Docker passes all of them as strings and passes labels
// and the network's name not at all.
import type { NetworkRequest, NeutronRequest } from '#api/local.ts';
import { mostGroups } from '#api/schemas.ts';
import { Fault } from '#model/fault.ts';
import { parseCidr } from '#model/ip.ts';

/** Names the Causeway network that an engine's network shows; set by our own sync, or by hand to bind one. */
export const networkOption = 'causeway.network';

/** Of a container in a network, where --driver-opt gives it. */
export const groupsOption = 'causeway.security-groups';

/** As Docker and Compose (`interface_name`) call it; the engine's own drivers know it from dockerd 28 on. */
export const ifnameOption = 'com.docker.network.endpoint.ifname';

/** What the engine sets for the container's link, `net.ipv6.conf.IFNAME.disable_ipv6=1`, with commas between. */
export const sysctlsOption = 'com.docker.network.endpoint.sysctls';

/** From which subnet pools kuryr-libnetwork makes subnets where there are none. */
export const kuryrPools: readonly string[] = ['neutron.pool.name', 'neutron.pool.uuid', 'neutron.pool.v6.name', 'neutron.pool.v6.uuid'];

type Choices = Pick<NetworkRequest, 'mtu' | 'encrypted' | 'vni' | 'tenant' | 'model' | 'carry'>;
export interface ParsedOptions extends Choices {
  readonly network?: string;
  /** Of the cloud's, for the model `neutron`. */
  readonly neutron?: Partial<NeutronRequest>;
}

const models = ['overlay', 'flannel', 'calico', 'neutron', 'routes'] as const;
const carries = ['vxlan', 'direct-routing', 'host-gateway', 'bgp', 'bgp-cross-subnet', 'routes', 'wireguard'] as const;

const readers: Readonly<Record<string, (value: string, key: string) => ParsedOptions>> = {
  [networkOption]: (value, key) => ({ network: nameIn(value, key) }),
  mtu: (value, key) => ({ mtu: numberIn(value, key, 576, 65_535) }),
  'com.docker.network.driver.mtu': (value, key) => ({ mtu: numberIn(value, key, 576, 65_535) }),
  encrypted: (value, key) => ({ encrypted: flagIn(value, key) }),
  vni: (value, key) => ({ vni: numberIn(value, key, 1, 16_777_215) }),
  tenant: (value, key) => ({ tenant: nameIn(value, key) }),
  model: (value, key) => ({ model: oneOf(models, value, key) }),
  'neutron.network': inCloud('network'),
  'neutron.subnet': inCloud('subnet'),
  'neutron.subnet6': inCloud('subnet6'),
  'neutron.security-groups': groupsInCloud,
  'neutron.fallback': (value, key) => ({
    model: 'neutron',
    neutron: { fallback: value === 'overlay' ? 'overlay' : parseCidr(value, key) },
  }),
  // As kuryr-libnetwork calls them.
  'neutron.net.name': inCloud('network'),
  'neutron.net.uuid': inCloud('network'),
  'neutron.subnet.name': inCloud('subnet'),
  'neutron.subnet.uuid': inCloud('subnet'),
  'neutron.subnet.v6.name': inCloud('subnet6'),
  'neutron.subnet.v6.uuid': inCloud('subnet6'),
  ...Object.fromEntries(kuryrPools.map((key) => [key, ofNoneMade])),
  'neutron.net.shared': (value, key) => ofNoneMade(String(flagIn(value.toLowerCase(), key)), key),
  carry: (value, key) => ({ carry: oneOf(carries, value, key) }),
};

/** Fault `invalid` naming the option. Unknown options are errors: a typing mistake must not be silently ignored. */
export function parseNetworkOptions(options: Readonly<Record<string, string>>): ParsedOptions {
  let parsed: ParsedOptions = {};
  for (const [key, value] of Object.entries(options)) {
    const reader = Object.hasOwn(readers, key) ? readers[key] : undefined;
    if (reader === undefined) {
      throw new Fault('invalid', `Unknown network option ${quoted(key)}`, {
        field: key,
        hint: `Known options: ${Object.keys(readers).join(', ')}`,
      });
    }
    const { neutron, ...read } = reader(value, key);
    parsed = { ...parsed, ...read, ...(neutron === undefined ? {} : { neutron: { ...parsed.neutron, ...neutron } }) };
  }
  return parsed;
}

/** Networks and subnets are there already, from whichever pool, and shared or not: neither is for us to choose. */
function ofNoneMade(value: string, key: string): ParsedOptions {
  inCloud('subnet')(value, key);
  return { model: 'neutron', neutron: {} };
}

/** Neutron's names may be anything. Whoever speaks of its networks means the model. */
function inCloud(field: 'network' | 'subnet' | 'subnet6'): (value: string, key: string) => ParsedOptions {
  return (value, key) => {
    if (value === '' || value.length > 255) throw wrong(value, key, 'a name or an id');
    return { model: 'neutron', neutron: { [field]: value } };
  };
}

function groupsInCloud(value: string, key: string): ParsedOptions {
  return { model: 'neutron', neutron: { groups: groupsIn(value, key) } };
}

/** Fault `invalid` naming the option. */
export function groupsIn(value: string, key: string): readonly string[] {
  const groups = value.split(',').map((name) => name.trim());
  if (groups.some((name) => name === '' || name.length > 255) || groups.length > mostGroups)
    throw wrong(value, key, `at most ${mostGroups} names or ids with commas between them`);
  return groups;
}

/**
 * The engine numbers the links of one prefix from 0 and takes no whole name from a driver that is a plugin (moby,
 * libnetwork/drivers/remote/driver.go). Fault `invalid` naming the option.
 */
export function prefixIn(value: string, key: string): string {
  const [, prefix] = /^([A-Za-z0-9_.-]{0,12}[A-Za-z_.-])0$/.exec(value) ?? [];
  if (prefix === undefined)
    throw new Fault('invalid', `Option ${key} is ${quoted(value)}, expected a name with 0 behind it, as in lan0`, {
      field: key,
      hint: 'Docker numbers the links of drivers that are plugins by itself, from 0',
    });
  return prefix;
}

/** Whether the link is to have no IPv6. */
export const disablesIpv6 = (value: string): boolean =>
  value.split(',').some((one) => /^net\.ipv6\.conf\.IFNAME\.disable_ipv6=[1-9]/.test(one.trim()));

const quoted = (text: string): string => JSON.stringify(text.slice(0, 80));

function wrong(value: string, key: string, expected: string): Fault {
  return new Fault('invalid', `Option ${key} is ${quoted(value)}, expected ${expected}`, { field: key });
}

function numberIn(value: string, key: string, least: number, most: number): number {
  const number = /^[0-9]{1,8}$/.test(value) ? Number(value) : -1;
  if (number < least || number > most) throw wrong(value, key, `a number from ${least} to ${most}`);
  return number;
}

/** `-o encrypted` without a value arrives as the empty string and means yes, as with Docker's own overlay driver. */
function flagIn(value: string, key: string): boolean {
  if (['', 'true', '1', 'yes'].includes(value)) return true;
  if (['false', '0', 'no'].includes(value)) return false;
  throw wrong(value, key, 'true or false');
}

/** Names end up in store keys and paths, so they are held to what a resource name may be. */
function nameIn(value: string, key: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(value)) throw wrong(value, key, 'a name of letters, digits, and _ . -');
  return value;
}

function oneOf<const T extends readonly string[]>(known: T, value: string, key: string): T[number] {
  const found = known.find((name) => name === value);
  if (found === undefined) throw wrong(value, key, known.join(' or '));
  return found;
}
