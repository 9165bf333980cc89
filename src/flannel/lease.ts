// One host's lease in etcd: the key names its subnets, the value where and how it is reached (pkg/subnet/subnet.go,
// pkg/lease/lease.go). `10.5.34.0-24`, or with a second family `10.5.34.0-24&fc00:0:0:5::-64`.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, cidrBase, cidrLength, familyOf, type Ip, parseCidr } from '#model/ip.ts';
import type { Pair } from '#store/etcd-pairs.ts';

export interface Attributes {
  readonly publicIp: Ip;
  readonly publicIpv6?: Ip;
  readonly backendType: string;
  /** Absent: the backend tells nothing. */
  readonly backendData?: object;
  readonly backendV6Data?: object;
}

export interface Lease extends Attributes {
  /** Last part of the key in etcd. */
  readonly name: string;
  /** First the IPv4 one. */
  readonly subnets: readonly Cidr[];
  readonly revision: number;
  /** Of the etcd lease; `0`: it never ends, what flannel calls a reservation. */
  readonly lease: string;
}

const keyPattern = /^(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$/;

/** Fault `invalid`. */
export function readName(name: string): Cidr[] {
  const [, ip4, length4, ip6, length6] = keyPattern.exec(name) ?? [];
  if (ip4 === undefined) throw new Fault('invalid', `${name.slice(0, 100)} is no name of a lease`);
  return [parseCidr(`${ip4}/${length4}`), ...(ip6 === undefined ? [] : [parseCidr(`${ip6}/${length6}`)])];
}

/** Canonical spelling, as flannel's own: IPv4 first. */
export const nameOf = (subnets: readonly Cidr[]): string =>
  subnets
    .toSorted((a, b) => familyOf(a) - familyOf(b))
    .map((cidr) => `${cidrBase(cidr)}-${cidrLength(cidr)}`)
    .join('&');

const data = v.nullish(v.record(v.string(), v.unknown()));
const value = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({
    PublicIP: field.ip,
    PublicIPv6: v.nullish(field.ip),
    BackendType: v.nullish(v.string(), ''),
    BackendData: data,
    BackendV6Data: data,
  }),
);

/** Fault `invalid`: not a lease of flannel's. */
export function readLease(name: string, { text, revision, lease }: Pair): Lease {
  const subnets = readName(name);
  const read = v.safeParse(value, text);
  if (!read.success) throw new Fault('invalid', `The value cannot be read: ${read.issues[0].message}`);
  const { PublicIP, PublicIPv6, BackendType, BackendData, BackendV6Data } = read.output;
  return {
    name,
    subnets,
    revision,
    lease,
    publicIp: PublicIP,
    ...(PublicIPv6 === null || PublicIPv6 === undefined ? {} : { publicIpv6: PublicIPv6 }),
    backendType: BackendType,
    ...(BackendData === null || BackendData === undefined ? {} : { backendData: BackendData }),
    ...(BackendV6Data === null || BackendV6Data === undefined ? {} : { backendV6Data: BackendV6Data }),
  };
}

/** As flannel's encoder writes it. */
export const valueText = ({ publicIp, publicIpv6, backendType, backendData, backendV6Data }: Attributes): string =>
  JSON.stringify({
    PublicIP: publicIp,
    PublicIPv6: publicIpv6 ?? null,
    BackendType: backendType,
    ...(backendData === undefined ? {} : { BackendData: backendData }),
    ...(backendV6Data === undefined ? {} : { BackendV6Data: backendV6Data }),
  });
