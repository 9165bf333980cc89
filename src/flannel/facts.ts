// What flannel's records say, in our words: each lease is a host with one block per family, and all of them hold one network, of
// the model `flannel`. What a host of ours says of itself is no more than flannel has words for.
import { choicesFor } from '#drivers/models.ts';
import { compactOf, indexIn } from '#model/block.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, covers, type Family, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import { unknownInterface, vtepMac, wireguardPortOf } from '#model/numbers.ts';
import type { Block, CarryName, Host, Network, Pool } from '#model/resources.ts';
import { backendData, backendOf, carryOf, readBackendData } from './backend.ts';
import type { FlannelConfig } from './config.ts';
import type { Attributes, Lease } from './lease.ts';

export const flannelNetwork = { id: 'flannelnetwork', name: 'flannel' } as const;
const epoch = '1970-01-01T00:00:00Z';
/** MTU of a peer's underlay: a lease does not say it, so it is taken to be no smaller than ours. */
const peerMtu = 65_535;

const meta = (id: string, revision: number) => ({ id, name: id, revision, createdAt: epoch, labels: {} });
const poolId = (family: Family): string => `flannelpool${family}`;

/** Name of the host that has the lease, where nobody says another. */
export const hostName = ({ name }: Pick<Lease, 'name'>): string => name.replaceAll('&', '_').replaceAll(':', '.').slice(0, 63);

export function networkOf({ ranges, carry, vni }: FlannelConfig, reserved: readonly Ip[]): { network: Network; pools: Pool[] } {
  const lengthOf = (family: Family) => ranges.find(({ cidr }) => familyOf(cidr) === family)?.length;
  const choices = choicesFor('flannel', { carry, blockLength4: lengthOf(4), blockLength6: lengthOf(6) });
  const network: Network = {
    ...meta(flannelNetwork.id, 1),
    name: flannelNetwork.name,
    model: 'flannel',
    tenant: 'default',
    choices,
    encrypted: choices.carry === 'wireguard',
    internal: false,
    vni,
    attachable: true,
    addressing: 'blocks',
    present: 'always',
  };
  const pools = ranges.map(({ cidr, length }): Pool => ({
    ...meta(poolId(familyOf(cidr)), 1),
    network: flannelNetwork.id,
    cidr,
    reserved: Object.fromEntries(
      reserved.filter((ip) => familyOf(ip) === familyOf(cidr)).map((ip) => [`host-${ip.replaceAll(':', '-')}`, ip]),
    ),
    blockLength: length,
  }));
  return { network, pools };
}

const rangeOf = ({ ranges }: FlannelConfig, subnet: Cidr): Cidr | undefined => ranges.find(({ cidr }) => covers(cidr, subnet))?.cidr;

/** Faults: `unsupported` (a backend of flannel's that is not spoken here, the last of 65536 subnets), `invalid` (outside of the network's range). */
export function factsOf(lease: Lease, config: FlannelConfig, id: string): { readonly host: Host; readonly blocks: readonly Block[] } {
  const { subnets, revision } = lease;
  const [first] = subnets;
  const range = first === undefined ? undefined : rangeOf(config, first);
  const outside = subnets.find((subnet) => !config.ranges.some(({ cidr }) => covers(cidr, subnet)));
  if (first === undefined || range === undefined || outside !== undefined) {
    const ranges = config.ranges.map(({ cidr }) => cidr).join(', ');
    throw new Fault('invalid', `${outside ?? 'Nothing'} is outside of flannel's network ${ranges}`);
  }
  const { vtepMac: mac, wireguard } = readBackendData(lease.backendData);
  const { vtepMac: mac6 } = readBackendData(lease.backendV6Data);
  const addresses = [lease.publicIp, ...(lease.publicIpv6 === undefined ? [] : [lease.publicIpv6])];
  const host: Host = {
    ...meta(id, revision),
    index: indexIn(range, first),
    generation: 0,
    carrying: {
      wants: wantsOf(lease, config),
      ...(mac === undefined ? {} : { vtepMac: mac }),
      ...(mac6 === undefined ? {} : { vtepMac6: mac6 }),
    },
    ...(wireguard === undefined ? {} : { wireguard: { port: wireguardPortOf(config.vni), ...wireguard } }),
    underlay: addresses.map((ip) => ({ interface: unknownInterface, ip, subnet: hostPrefix(ip), mtu: peerMtu })),
    agentVersion: '',
    status: { ready: true, seenAt: epoch, desired: 0, applied: 0, failing: [], features: {} },
  };
  return { host, blocks: subnets.map((cidr) => blockOf(cidr, id, revision)) };
}

const blockOf = (cidr: Cidr, host: string, revision: number): Block => ({
  ...meta(`lease${compactOf(cidr)}`, revision),
  network: flannelNetwork.id,
  pool: poolId(familyOf(cidr)),
  cidr,
  host,
  loans: [],
});

/** Hosts take neighbours' packets as they are where the configuration has all send so; the lease only says `vxlan`. */
function wantsOf({ backendType }: Lease, { carry }: FlannelConfig): CarryName {
  const told = carryOf[backendType];
  if (told === undefined) throw new Fault('unsupported', `Backend ${backendType || 'udp'} is not spoken here`);
  return told === 'vxlan' && carry === 'direct-routing' ? carry : told;
}

export interface Own {
  readonly config: FlannelConfig;
  readonly underlay: readonly Ip[];
  readonly publicKey: string | undefined;
}

/** What this host's lease shall say; of the one that is there the tunnel's MAC stays, as others send to it. */
export function ownAttributes({ config, underlay, publicKey }: Own, subnets: readonly Cidr[], found?: Lease): Attributes {
  const { carry, vni } = config;
  const [first] = subnets;
  const publicIp = publicIpOf(underlay);
  const usual = vtepMac(first === undefined ? 0 : indexIn(rangeOf(config, first) ?? first, first));
  const dataOf = (before: object | undefined): object | null =>
    backendData({ carry, vni, vtepMac: readBackendData(before).vtepMac ?? usual, publicKey });
  const [data, data6] = [dataOf(found?.backendData), dataOf(found?.backendV6Data)];
  const publicIpv6 = subnets.some((subnet) => familyOf(subnet) === 6) ? ipv6Of(underlay) : undefined;
  return {
    publicIp,
    backendType: backendOf[carry] ?? carry,
    ...(data === null ? {} : { backendData: data }),
    ...(publicIpv6 === undefined ? {} : { publicIpv6 }),
    ...(publicIpv6 === undefined || data6 === null ? {} : { backendV6Data: data6 }),
  };
}

/** Fault `unavailable`: without it, no other host could send to the IPv6 subnet. */
function ipv6Of(underlay: readonly Ip[]): Ip {
  const ip = underlay.find((one) => familyOf(one) === 6);
  if (ip !== undefined) return ip;
  throw new Fault('unavailable', "flannel's network has IPv6, and this host has no IPv6 address that reaches the others", {
    field: '--underlay',
  });
}

/** Fault `unavailable`: leases in etcd are known by it. */
export function publicIpOf(underlay: readonly Ip[]): Ip {
  const ip = underlay.find((one) => familyOf(one) === 4);
  if (ip !== undefined) return ip;
  throw new Fault('unavailable', 'This host has no IPv4 address that reaches the others', { field: '--underlay' });
}
