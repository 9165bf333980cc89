// Schemas of single values: addresses, names, identifiers, numbers with their ranges. Everything that resources and requests
// are made of. Sizes are bounded, because each of these ends up in a key, a log line or a kernel object.
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';
import { type Cidr, type Ip, type Mac, parseCidr, parseInterface, parseIp, parseMac } from '#model/ip.ts';
import type { Schema } from './parse.ts';

/** A string that `read` turns into its canonical form or refuses with a Fault, whose sentence is kept. */
const spelt = <T extends string>(read: (text: string) => T, description: string): Schema<T> =>
  v.pipe(
    v.string(),
    v.maxLength(64, `expected ${description}, got a longer text`),
    v.description(description),
    v.rawTransform<string, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return read(dataset.value);
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        addIssue({ message: error.hint === undefined ? error.message : `${error.message}. ${error.hint}` });
        return NEVER;
      }
    }),
  );

export const ip: Schema<Ip> = spelt(parseIp, 'an IP address');
export const cidr: Schema<Cidr> = spelt(parseCidr, 'a prefix such as 10.0.0.0/24');
export const mac: Schema<Mac> = spelt(parseMac, 'a MAC address');
export const ipOrCidr: Schema<Ip | Cidr> = spelt<Ip | Cidr>(
  (text) => (text.includes('/') ? parseCidr(text) : parseIp(text)),
  'an IP address or a prefix',
);
/** `address/length` where host bits may be set; kept as written but canonical. */
export const interfaceAddress: Schema<string> = spelt((written) => {
  const { ip: address, length } = parseInterface(written);
  return `${address}/${length}`;
}, 'an address with prefix length');

const text = (pattern: RegExp, description: string): Schema<string> =>
  v.pipe(v.string(), v.regex(pattern, `expected ${description}`), v.description(description));

/** Docker's rule for names, limited to what a DNS label can hold. */
export const namePattern: RegExp = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;
export const name: Schema<string> = text(namePattern, '1 to 63 letters, digits, "_", "." or "-", beginning with a letter or digit');
/** Names of containers and their aliases may be longer than one DNS label. Empty: not known yet. */
export const endpointName: Schema<string> = text(/^([a-zA-Z0-9_][a-zA-Z0-9_.-]{0,252})?$/, 'at most 253 letters, digits, "_", "." or "-"');
export const alias: Schema<string> = text(/^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,252}$/, '1 to 253 letters, digits, "_", "." or "-"');
export const id: Schema<string> = text(/^[0-9a-z]{10,64}$/, '10 to 64 lower-case letters and digits');
/** Hosts and tenants are their own identifiers. */
export const anyId: Schema<string> = text(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/, 'an identifier or a name');
/** `auto`, an IPv4 address, or name or id of a network of Neutron, which may be any text. */
export const floatingIp: Schema<string> = text(/^[^\p{Cc}\u2028\u2029]{1,255}$/u, 'auto, an address or an external network');
/** For people: one line, no control characters. */
export const line: Schema<string> = text(/^[^\p{Cc}\u2028\u2029]{0,256}$/u, 'one line of at most 256 characters');
export const timestamp: Schema<string> = v.pipe(v.string(), v.isoTimestamp('expected a time such as 2026-01-31T10:00:00Z'));
/** Linux: at most 15 bytes, no slash, no white space. */
export const linkName: Schema<string> = text(/^[^\s/:\p{Cc}]{1,15}$/u, 'a network interface name');
export const publicKey: Schema<string> = text(/^[A-Za-z0-9+/]{43}=$/, '32 bytes in base64');

const whole = (from: number, to: number): Schema<number> =>
  v.pipe(
    v.number(),
    v.integer('expected a whole number'),
    v.minValue(from, `expected ${from} to ${to}`),
    v.maxValue(to, `expected ${from} to ${to}`),
  );
export const port: Schema<number> = whole(1, 65535);
export const vni: Schema<number> = whole(1, 0xffffff);
export const vlan: Schema<number> = whole(1, 4094);
export const mtu: Schema<number> = whole(576, 65535);
export const hostIndex: Schema<number> = whole(1, 65535);
export const count: Schema<number> = whole(0, Number.MAX_SAFE_INTEGER);
export const blockLength4: Schema<number> = whole(8, 32);
export const blockLength6: Schema<number> = whole(32, 128);
export const blockLength: Schema<number> = whole(8, 128);
export const seconds: Schema<number> = whole(1, 10 * 366 * 86_400);
export const flag: Schema<boolean> = v.boolean();

/** What valibot leaves out of a record, without a word. */
const leftOut = ['constructor', 'prototype'] as const;

/** As valibot's record, with every key: people call networks and labels `prototype`, and a selector of it must not choose everything. */
export function dictionary<T>(key: v.GenericSchema<string>, value: Schema<T>): Schema<Record<string, T>> {
  const all = v.record(key, value);
  return {
    ...all,
    '~run'(dataset, config) {
      const { value: input } = dataset;
      const most = all['~run'](dataset, config);
      const names = typeof input === 'object' && input !== null ? leftOut.filter((one) => Object.hasOwn(input, one)) : [];
      if (names.length === 0 || most.issues !== undefined || !most.typed) return most;
      const rest = v.object(Object.fromEntries(names.map((one) => [one, value])))['~run']({ value: input }, config);
      if (rest.issues !== undefined) return { typed: false, value: input, issues: rest.issues };
      return { typed: true, value: { ...most.value, ...rest.value } };
    },
  };
}
export const texts: Schema<Record<string, string>> = dictionary(v.string(), v.string());

/** Any JSON object, and no list. */
export const object: Schema<Record<string, unknown>> = v.pipe(
  v.unknown(),
  v.check((value) => !Array.isArray(value), 'expected an object, got a list'),
  v.record(v.string(), v.unknown()),
);

const bytes256 = (what: string): Schema<string> => v.pipe(v.string(), v.maxBytes(256, `${what} holds at most 256 bytes`));
const entryLimit = 64;

/** At most 64 entries with keys of 1 to 256 bytes. */
export const recordOf = <T>(value: Schema<T>): Schema<Record<string, T>> =>
  v.pipe(
    dictionary(v.pipe(v.string(), v.minLength(1, 'expected a key'), v.maxBytes(256, 'a key holds at most 256 bytes')), value),
    v.maxEntries(entryLimit, `expected at most ${entryLimit} entries`),
  );
export const labels: Schema<Record<string, string>> = recordOf(bytes256('a value'));

export const listOf = <T>(item: Schema<T>, most: number): Schema<T[]> =>
  v.pipe(v.array(item), v.maxLength(most, `expected at most ${most} entries`));

/** `tenant:NAME` or one of the three that see every tenant. */
export const role: Schema<string> = text(
  /^(admin|operator|viewer|tenant:[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62})$/,
  'admin, operator, viewer or tenant:NAME',
);
