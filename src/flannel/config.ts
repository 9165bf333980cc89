// The network that all hosts of flannel share, as its operator writes it into etcd: JSON at `<prefix>/config`, keys in any
// case as Go reads them (pkg/subnet/config.go, Documentation/configuration.md). What would make this host carry packets in
// another way than its neighbours is refused, not guessed.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { parse, type Schema } from '#api/parse.ts';
import { Fault } from '#model/fault.ts';
import {
  bitsOf,
  type Cidr,
  cidrBase,
  cidrLast,
  cidrLength,
  cidrOf,
  contains,
  type Family,
  familyOf,
  type Ip,
  ipToBigint,
  subnetAt,
} from '#model/ip.ts';
import { portRange, vxlanPort, wireguardBasePort } from '#model/numbers.ts';
import type { CarryName } from '#model/resources.ts';
import { carryOf } from './backend.ts';

/** The range of one family, in parts of one length; a host gets one part, between the first and the last. */
export interface Range {
  readonly cidr: Cidr;
  readonly length: number;
  readonly first: Ip;
  readonly last: Ip;
}

export interface FlannelConfig {
  /** First IPv4. */
  readonly ranges: readonly Range[];
  readonly carry: CarryName;
  readonly vni: number;
}

const lengthUpTo = (most: number): Schema<number> => v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(most));
const flag: Schema<boolean> = v.boolean();
const optional = <T>(schema: Schema<T>) => v.nullish(schema);

const config = v.object({
  enableipv4: v.nullish(flag, true),
  enableipv6: v.nullish(flag, false),
  network: optional(field.cidr),
  ipv6network: optional(field.cidr),
  subnetlen: optional(lengthUpTo(30)),
  subnetmin: optional(field.ip),
  subnetmax: optional(field.ip),
  ipv6subnetlen: optional(lengthUpTo(126)),
  ipv6subnetmin: optional(field.ip),
  ipv6subnetmax: optional(field.ip),
  backend: optional(v.record(v.string(), v.unknown())),
});

const backend = v.object({
  type: v.string(),
  vni: v.nullish(field.vni, 1),
  port: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535)), 0),
  directrouting: v.nullish(flag, false),
  listenport: v.nullish(field.port, wireguardBasePort),
  psk: optional(v.string()),
});
type Backend = v.InferOutput<typeof backend>;

const lowerKeys = (value: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(value).map(([key, item]) => [key.toLowerCase(), item as unknown]));

const what = "flannel's configuration";

const unsupported = (place: string, sentence: string, hint: string): Fault =>
  new Fault('unsupported', `${what}: ${sentence}`, { field: place, hint });

/** Faults: `invalid`, `unsupported` (a backend or a setting that this host could not follow); the field is flannel's. */
export function readConfig(text: string): FlannelConfig {
  const read = parse(config, lowerKeys(objectIn(text)), what);
  if (!read.enableipv4)
    throw unsupported('EnableIPv4', 'leases in etcd always have an IPv4 subnet', 'Leave EnableIPv4 out, or use Kubernetes as the store');
  const { carry, vni } = carriageOf(parse(backend, lowerKeys(read.backend ?? {}), `${what}, Backend`), read.enableipv6);
  const four = { cidr: read.network, length: read.subnetlen, first: read.subnetmin, last: read.subnetmax };
  const six = { cidr: read.ipv6network, length: read.ipv6subnetlen, first: read.ipv6subnetmin, last: read.ipv6subnetmax };
  return { ranges: [rangeOf(four, 4), ...(read.enableipv6 ? [rangeOf(six, 6)] : [])], carry, vni };
}

function objectIn(text: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Fault('invalid', `${what} is not JSON`, { field: 'config', cause: error });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw new Fault('invalid', `${what} is not a JSON object`, { field: 'config' });
}

function carriageOf({ type, vni, port, directrouting, listenport, psk }: Backend, hasIpv6: boolean): Omit<FlannelConfig, 'ranges'> {
  const carry = carryOf[type];
  if (carry === undefined)
    throw unsupported('Backend.Type', `backend ${type} is not spoken here`, `Use one of: ${Object.keys(carryOf).join(', ')}`);
  if (carry === 'wireguard' && hasIpv6)
    throw unsupported('EnableIPv6', 'by WireGuard only IPv4 is spoken here', 'Leave EnableIPv6 out, or set Backend.Type to vxlan');
  if (carry === 'wireguard') return { carry, vni: wireguardVni({ listenport, psk }) };
  if (carry === 'vxlan' && port !== 0 && port !== vxlanPort)
    throw unsupported('Backend.Port', `VXLAN is spoken on UDP ${vxlanPort} here, not ${port}`, `Leave Port out, or set it to ${vxlanPort}`);
  return { carry: carry === 'vxlan' && directrouting ? 'direct-routing' : carry, vni };
}

/** A WireGuard device has no VNI; our device's port follows from one, so the one that gives flannel's port is taken. */
function wireguardVni({ listenport, psk }: Pick<Backend, 'listenport' | 'psk'>): number {
  if (typeof psk === 'string' && psk !== '')
    throw unsupported('Backend.PSK', 'pre-shared keys are not spoken here', 'Leave PSK out: keys alone authenticate hosts');
  const offset = listenport - wireguardBasePort;
  if (offset < 0 || offset >= portRange) {
    const last = wireguardBasePort + portRange - 1;
    throw unsupported('Backend.ListenPort', `port ${listenport} cannot be had here`, `Use one of ${wireguardBasePort} to ${last}`);
  }
  return portRange + offset;
}

interface Words {
  readonly cidr: Cidr | null | undefined;
  readonly length: number | null | undefined;
  readonly first: Ip | null | undefined;
  readonly last: Ip | null | undefined;
}

const names = {
  4: { network: 'Network', length: 'SubnetLen', first: 'SubnetMin', last: 'SubnetMax', usual: 24 },
  6: { network: 'IPv6Network', length: 'IPv6SubnetLen', first: 'IPv6SubnetMin', last: 'IPv6SubnetMax', usual: 64 },
} as const;

const invalid = (place: string, sentence: string): Fault => new Fault('invalid', `${what}: ${place} ${sentence}`, { field: place });

function rangeOf({ cidr, length: asked, first, last }: Words, family: Family): Range {
  const name = names[family];
  if (cidr === null || cidr === undefined || familyOf(cidr) !== family) throw invalid(name.network, `is no IPv${family} range`);
  const own = cidrLength(cidr);
  if (own > bitsOf(family) - 4) throw invalid(name.network, `${cidr} is too small for four hosts`);
  const length = asked === null || asked === undefined || asked === 0 ? Math.max(name.usual, own + 2) : asked;
  if (length < own + 2) throw invalid(name.length, `${length} leaves fewer than four subnets of ${cidr}`);
  const end = (place: string, ip: Ip): Ip => {
    if (!contains(cidr, ip)) throw invalid(place, `${ip} is outside of ${cidr}`);
    if (cidrBase(cidrOf(ip, length)) !== ip) throw invalid(place, `${ip} is not the first address of a /${length}`);
    return ip;
  };
  const second = subnetAt(cidr, length, 1n) ?? cidr;
  return {
    cidr,
    length,
    first: end(name.first, first ?? cidrBase(second)),
    last: end(name.last, last ?? cidrBase(cidrOf(cidrLast(cidr), length))),
  };
}

/** Whether a host may have that part of the range. */
export const isPart = ({ length, first, last }: Range, subnet: Cidr): boolean => {
  if (cidrLength(subnet) !== length || familyOf(subnet) !== familyOf(first)) return false;
  const base = ipToBigint(cidrBase(subnet));
  return base >= ipToBigint(first) && base <= ipToBigint(last);
};

/** Parts that are not taken, from the first on, as flannel looks for them: at most a hundred. */
export function freeParts({ cidr, length, first, last }: Range, isTaken: (subnet: Cidr) => boolean): Cidr[] {
  const size = BigInt(bitsOf(familyOf(cidr)) - length);
  const place = (ip: Ip): bigint => (ipToBigint(ip) - ipToBigint(cidrBase(cidr))) >> size;
  const found: Cidr[] = [];
  for (let index = place(first); index <= place(last) && found.length < 100; index++) {
    const subnet = subnetAt(cidr, length, index);
    if (subnet !== undefined && !isTaken(subnet)) found.push(subnet);
  }
  return found;
}
