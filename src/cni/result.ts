// Results of ADD as CNI has them (CNI 1.1.0, "Success"). One form inside, the newest; older versions are read into it and
// written from it. What the versions differ in: 0.3.1 and 0.4.0 say each address's family, 1.1.0 adds link MTUs, socket and
// PCI addresses, and a route's metrics.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Schema } from '#api/parse.ts';
import { familyOf, type Ip, parseInterface } from '#model/ip.ts';

export const versions = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type Version = (typeof versions)[number];
export const newestVersion: Version = '1.1.0';

export interface ResultInterface {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  readonly sandbox?: string;
  readonly socketPath?: string;
  readonly pciID?: string;
}
export interface ResultAddress {
  /** With prefix length. */
  readonly address: string;
  readonly gateway?: Ip;
  /** Index into `interfaces`. */
  readonly interface?: number;
}
export interface ResultRoute {
  /** A prefix; Go's parser tolerates host bits, so other plugins may write some. */
  readonly dst: string;
  readonly gw?: Ip;
  readonly mtu?: number;
  readonly advmss?: number;
  readonly priority?: number;
  readonly table?: number;
  readonly scope?: number;
}
export interface Dns {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}
export interface Result {
  readonly interfaces: readonly ResultInterface[];
  readonly ips: readonly ResultAddress[];
  readonly routes: readonly ResultRoute[];
  readonly dns: Dns;
}

const optional = v.exactOptional;
const texts = field.listOf(field.line, 64);
const whole = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
/** Go writes an empty list as null where the reader did not leave it out. */
const listOf = <T>(item: Schema<T>): Schema<T[]> =>
  v.pipe(
    v.nullable(field.listOf(item, 1024)),
    v.transform((list) => list ?? []),
  );

export const dns: Schema<Dns> = v.object({
  nameservers: optional(texts),
  domain: optional(field.line),
  search: optional(texts),
  options: optional(texts),
});

const resultInterface: Schema<ResultInterface> = v.object({
  name: field.line,
  mac: optional(field.line),
  mtu: optional(whole),
  sandbox: optional(v.pipe(v.string(), v.maxLength(4096))),
  socketPath: optional(v.pipe(v.string(), v.maxLength(4096))),
  pciID: optional(field.line),
});
const resultAddress: Schema<ResultAddress> = v.object({
  address: field.interfaceAddress,
  gateway: optional(field.ip),
  interface: optional(whole),
});
const resultRoute: Schema<ResultRoute> = v.object({
  dst: field.interfaceAddress,
  gw: optional(field.ip),
  mtu: optional(whole),
  advmss: optional(whole),
  priority: optional(whole),
  table: optional(whole),
  scope: optional(whole),
});

/** A result of any version that we speak; fields that this does not know are dropped. */
export const result: Schema<Result> = v.pipe(
  v.object({
    interfaces: optional(listOf(resultInterface), null),
    ips: optional(listOf(resultAddress), null),
    routes: optional(listOf(resultRoute), null),
    dns: v.nullish(dns, {}),
  }),
  v.check(
    ({ interfaces, ips }) => ips.every((ip) => ip.interface === undefined || ip.interface < interfaces.length),
    'an address names an interface that is not listed',
  ),
);

const familyOfAddress = (address: string): '4' | '6' => (familyOf(parseInterface(address).ip) === 4 ? '4' : '6');

/** The result as a runtime of that version reads it. */
export function writeResult({ interfaces, ips, routes, dns: names }: Result, version: Version): object {
  const isNew = version === '1.1.0';
  const isOld = version === '0.3.1' || version === '0.4.0';
  return {
    cniVersion: version,
    interfaces: interfaces.map(({ name, mac, sandbox, ...newer }) => ({
      name,
      ...(mac === undefined ? {} : { mac }),
      ...(sandbox === undefined ? {} : { sandbox }),
      ...(isNew ? newer : {}),
    })),
    ips: ips.map((ip) => (isOld ? { version: familyOfAddress(ip.address), ...ip } : ip)),
    routes: routes.map(({ dst, gw, ...newer }) => ({ dst, ...(gw === undefined ? {} : { gw }), ...(isNew ? newer : {}) })),
    dns: names,
  };
}

/** What a later plugin of a chain answers: the earlier ones' result and its own behind it. */
export function appendResult(earlier: Result, own: Result): Result {
  const offset = earlier.interfaces.length;
  return {
    interfaces: [...earlier.interfaces, ...own.interfaces],
    ips: [...earlier.ips, ...own.ips.map((ip) => (ip.interface === undefined ? ip : { ...ip, interface: ip.interface + offset }))],
    routes: [...earlier.routes, ...own.routes],
    dns: Object.keys(own.dns).length === 0 ? earlier.dns : own.dns,
  };
}
