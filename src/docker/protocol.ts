// The requests of libnetwork's remote driver and remote IPAM protocols as dockerd sends them, parsed once at the border.
// Facts relied on (moby v26.1.5, libnetwork/drivers/remote/api and libnetwork/ipams/remote/api): keys are Go field names and
// Go reads them without regard to case, so we do too; nil maps and slices arrive as `null`; calls without arguments arrive
// with an empty body, while an empty body anywhere else is a retry whose reader was consumed and must not be guessed at.
import * as v from 'valibot';
import { type Cidr, type Ip, type Mac, parseCidr, parseInterface, parseIp, parseMac } from '#model/ip.ts';
import { Fault } from '#model/fault.ts';
import { disablesIpv6, groupsIn, groupsOption, ifnameOption, prefixIn, sysctlsOption } from './options.ts';

export const maxBody: number = 1024 * 1024;

/** One address with the prefix length that it came with. */
export interface Interface {
  readonly ip: Ip;
  readonly length: number;
}

export interface IpamData {
  readonly AddressSpace: string;
  readonly Pool?: Cidr | undefined;
  readonly Gateway?: Interface | undefined;
  readonly AuxAddresses: Readonly<Record<string, Interface>>;
}

export interface PortBinding {
  readonly Proto: number;
  readonly IP?: Ip | undefined;
  readonly Port: number;
  readonly HostIP?: Ip | undefined;
  readonly HostPort: number;
  readonly HostPortEnd: number;
}

type Unknowns = Readonly<Record<string, unknown>>;
type Strings = Readonly<Record<string, string>>;
type None = Readonly<Record<string, never>>;
interface NetworkRef {
  readonly NetworkID: string;
}
interface EndpointRef extends NetworkRef {
  readonly EndpointID: string;
}
interface NodeDiscovery {
  readonly DiscoveryType: number;
}

export interface NetworkOptions {
  readonly generic: Strings;
  readonly internal: boolean;
  readonly ipv6: boolean;
}

export interface EndpointOptions {
  readonly mac?: Mac | undefined;
  readonly ports: readonly PortBinding[];
  /** Another endpoint of the container is its way out by IPv6. */
  readonly isIpv6Elsewhere: boolean;
  /** As the user gives them with --driver-opt. */
  readonly groups?: readonly string[] | undefined;
  /** Of the link's name in the container. */
  readonly prefix?: string | undefined;
  readonly disablesIpv6: boolean;
}

/** Method name to parsed request. */
export interface Requests {
  readonly 'Plugin.Activate': None;
  readonly 'NetworkDriver.GetCapabilities': None;
  readonly 'NetworkDriver.AllocateNetwork': NetworkRef & {
    readonly Options: Strings;
    readonly IPv4Data: readonly IpamData[];
    readonly IPv6Data: readonly IpamData[];
  };
  readonly 'NetworkDriver.FreeNetwork': NetworkRef;
  readonly 'NetworkDriver.CreateNetwork': NetworkRef & {
    readonly Options: NetworkOptions;
    readonly IPv4Data: readonly IpamData[];
    readonly IPv6Data: readonly IpamData[];
  };
  readonly 'NetworkDriver.DeleteNetwork': NetworkRef;
  readonly 'NetworkDriver.CreateEndpoint': EndpointRef & {
    readonly Interface: {
      readonly Address?: Interface | undefined;
      readonly AddressIPv6?: Interface | undefined;
      readonly MacAddress?: Mac | undefined;
    };
    readonly Options: EndpointOptions;
  };
  readonly 'NetworkDriver.EndpointOperInfo': EndpointRef;
  readonly 'NetworkDriver.DeleteEndpoint': EndpointRef;
  readonly 'NetworkDriver.Join': EndpointRef & { readonly SandboxKey: string };
  readonly 'NetworkDriver.Leave': EndpointRef;
  readonly 'NetworkDriver.ProgramExternalConnectivity': EndpointRef & { readonly Options: EndpointOptions };
  readonly 'NetworkDriver.RevokeExternalConnectivity': EndpointRef;
  readonly 'NetworkDriver.DiscoverNew': NodeDiscovery;
  readonly 'NetworkDriver.DiscoverDelete': NodeDiscovery;
  readonly 'IpamDriver.GetCapabilities': None;
  readonly 'IpamDriver.GetDefaultAddressSpaces': None;
  readonly 'IpamDriver.RequestPool': {
    readonly AddressSpace: string;
    readonly Pool?: Cidr | undefined;
    readonly SubPool?: Cidr | undefined;
    readonly Options: Strings;
    readonly V6: boolean;
  };
  readonly 'IpamDriver.ReleasePool': { readonly PoolID: string };
  readonly 'IpamDriver.RequestAddress': { readonly PoolID: string; readonly Address?: Ip | undefined; readonly Options: Strings };
  readonly 'IpamDriver.ReleaseAddress': { readonly PoolID: string; readonly Address: Ip };
}
export type Method = keyof Requests;

/** Object schema whose keys are found without regard to case; an exact match wins. Unknown keys are dropped. */
function message<E extends v.ObjectEntries>(
  entries: E,
): v.SchemaWithPipe<
  readonly [
    v.RecordSchema<v.StringSchema<undefined>, v.UnknownSchema, undefined>,
    v.TransformAction<Record<string, unknown>, Unknowns>,
    v.ObjectSchema<E, undefined>,
  ]
> {
  const pick = (input: Record<string, unknown>): Unknowns => {
    const byLower = new Map(Object.keys(input).map((key) => [key.toLowerCase(), key]));
    return Object.fromEntries(
      Object.keys(entries).flatMap((key) => {
        const found = Object.hasOwn(input, key) ? key : byLower.get(key.toLowerCase());
        return found === undefined ? [] : [[key, input[found]]];
      }),
    );
  };
  return v.pipe(v.record(v.string(), v.unknown()), v.transform(pick), v.object(entries));
}

/** valibot's record takes a list as well. */
const plain = v.custom<Record<string, unknown>>(
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  'must be an object',
);

/** Text of a parsed value; '' and null count as absent, as Go's zero values do. */
function optionalText<T>(parse: (text: string) => T, most = 256): v.GenericSchema<unknown, T | undefined> {
  return v.pipe(
    v.nullish(v.pipe(v.string(), v.maxLength(most))),
    v.transform((text) => (text === undefined || text === null || text === '' ? undefined : parse(text))),
  );
}

const id = v.pipe(v.string(), v.regex(/^[0-9a-z]{10,64}$/, 'must be 10 to 64 lower-case letters and digits'));
const poolId = v.pipe(v.string(), v.regex(/^[0-9a-z]{1,64}$/, 'is not the id of one of our pools'));
const word = v.pipe(v.nullish(v.string(), ''), v.maxLength(256), v.regex(/^[^\p{Cc}]*$/u, 'must not contain control characters'));
const flag = v.nullish(v.boolean(), false);
const portNumber = v.pipe(v.nullish(v.number(), 0), v.integer(), v.minValue(0), v.maxValue(65535));

function bounded<T>(schema: v.GenericSchema<unknown, T>): v.GenericSchema<unknown, Record<string, T>> {
  return v.pipe(
    v.nullish(v.pipe(plain, v.record(v.pipe(v.string(), v.maxLength(256)), schema)), {}),
    v.check((record) => Object.keys(record).length <= 256, 'must not have more than 256 entries'),
  );
}

function list<T>(schema: v.GenericSchema<unknown, T>, most: number): v.GenericSchema<unknown, T[]> {
  return v.pipe(v.nullish(v.array(schema), []), v.maxLength(most));
}

const strings = bounded(v.pipe(v.string(), v.maxLength(4096)));
const anInterface = (field: string): v.GenericSchema<unknown, Interface | undefined> => optionalText((text) => parseInterface(text, field));
const anIp = (field: string): v.GenericSchema<unknown, Ip | undefined> => optionalText((text) => parseIp(text, field));

/** An aux address is documented as CIDR; a bare address is taken as a host prefix. */
const auxAddress = v.pipe(
  v.string(),
  v.maxLength(256),
  v.transform((text): Interface => {
    if (text.includes('/')) return parseInterface(text, 'AuxAddresses');
    const ip = parseIp(text, 'AuxAddresses');
    return { ip, length: ip.includes(':') ? 128 : 32 };
  }),
);

const ipamData = message({
  AddressSpace: word,
  Pool: optionalText((text) => parseCidr(text, 'Pool')),
  Gateway: anInterface('Gateway'),
  AuxAddresses: bounded(auxAddress),
});
const ipamList = list<IpamData>(ipamData, 32);

/** Go's net.HardwareAddr inside interface{} is a byte slice, so JSON carries it as base64; text form is read as well. */
function macOf(text: string): Mac {
  if (text.includes(':') || text.includes('-')) return parseMac(text, 'MacAddress');
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length !== 6) throw new Fault('invalid', `Not a MAC address: ${JSON.stringify(text).slice(0, 80)}`, { field: 'MacAddress' });
  return parseMac(bytes.toString('hex').replaceAll(/(..)(?=.)/g, '$1:'), 'MacAddress');
}

const portBinding = message({
  Proto: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255)),
  IP: anIp('IP'),
  Port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
  HostIP: anIp('HostIP'),
  HostPort: portNumber,
  HostPortEnd: portNumber,
});

const networkOptions = v.pipe(
  v.nullish(
    message({
      'com.docker.network.generic': strings,
      'com.docker.network.internal': flag,
      'com.docker.network.enable_ipv6': flag,
    }),
    {},
  ),
  v.transform((options): NetworkOptions => ({
    generic: options['com.docker.network.generic'],
    internal: options['com.docker.network.internal'],
    ipv6: options['com.docker.network.enable_ipv6'],
  })),
);

/** Sent from dockerd 28 on (libnetwork/netlabel, NoProxy6To4). */
const ipv6Elsewhere = 'com.docker.network.driver.private.no_proxy_6to4';

const endpointOptions = v.pipe(
  v.nullish(plain, {}),
  v.check(
    (options) => Object.keys(options).every((key) => !key.startsWith('causeway.') || key === groupsOption),
    `an option of Causeway's is not known; known is ${groupsOption}`,
  ),
  message({
    'com.docker.network.endpoint.macaddress': optionalText(macOf),
    'com.docker.network.portmap': list<PortBinding>(portBinding, 4096),
    [ipv6Elsewhere]: flag,
    [groupsOption]: optionalText((text) => groupsIn(text, groupsOption), 8192),
    [ifnameOption]: optionalText((text) => prefixIn(text, ifnameOption)),
    [sysctlsOption]: optionalText(disablesIpv6, 4096),
  }),
  v.transform((options): EndpointOptions => ({
    mac: options['com.docker.network.endpoint.macaddress'],
    ports: options['com.docker.network.portmap'],
    isIpv6Elsewhere: options[ipv6Elsewhere],
    groups: options[groupsOption],
    prefix: options[ifnameOption],
    disablesIpv6: options[sysctlsOption] === true,
  })),
);

const sandboxKey = v.pipe(
  v.string(),
  v.maxLength(1024),
  v.regex(/^\/[^\p{Cc}]+$/u, 'must be an absolute path'),
  v.check((path) => !path.split('/').includes('..'), 'must not contain ..'),
);

const networkRef = { NetworkID: id };
const endpointRef = { NetworkID: id, EndpointID: id };
const none: v.GenericSchema<unknown, None> = v.pipe(
  v.unknown(),
  v.transform(() => ({})),
);
const discovery = message({ DiscoveryType: v.pipe(v.number(), v.integer()) });

const schemas: { readonly [M in Method]: v.GenericSchema<unknown, Requests[M]> } = {
  'Plugin.Activate': none,
  'NetworkDriver.GetCapabilities': none,
  'NetworkDriver.AllocateNetwork': message({ ...networkRef, Options: strings, IPv4Data: ipamList, IPv6Data: ipamList }),
  'NetworkDriver.FreeNetwork': message(networkRef),
  'NetworkDriver.CreateNetwork': message({ ...networkRef, Options: networkOptions, IPv4Data: ipamList, IPv6Data: ipamList }),
  'NetworkDriver.DeleteNetwork': message(networkRef),
  'NetworkDriver.CreateEndpoint': message({
    ...endpointRef,
    Interface: v.nullish(
      message({ Address: anInterface('Address'), AddressIPv6: anInterface('AddressIPv6'), MacAddress: optionalText(macOf) }),
      {},
    ),
    Options: endpointOptions,
  }),
  'NetworkDriver.EndpointOperInfo': message(endpointRef),
  'NetworkDriver.DeleteEndpoint': message(endpointRef),
  'NetworkDriver.Join': message({ ...endpointRef, SandboxKey: sandboxKey }),
  'NetworkDriver.Leave': message(endpointRef),
  'NetworkDriver.ProgramExternalConnectivity': message({ ...endpointRef, Options: endpointOptions }),
  'NetworkDriver.RevokeExternalConnectivity': message(endpointRef),
  'NetworkDriver.DiscoverNew': discovery,
  'NetworkDriver.DiscoverDelete': discovery,
  'IpamDriver.GetCapabilities': none,
  'IpamDriver.GetDefaultAddressSpaces': none,
  'IpamDriver.RequestPool': message({
    AddressSpace: word,
    Pool: optionalText((text) => parseCidr(text, 'Pool')),
    SubPool: optionalText((text) => parseCidr(text, 'SubPool')),
    Options: strings,
    V6: flag,
  }),
  'IpamDriver.ReleasePool': message({ PoolID: poolId }),
  'IpamDriver.RequestAddress': message({ PoolID: poolId, Address: anIp('Address'), Options: strings }),
  'IpamDriver.ReleaseAddress': message({
    PoolID: poolId,
    Address: v.pipe(
      v.string(),
      v.maxLength(256),
      v.transform((text) => parseIp(text, 'Address')),
    ),
  }),
};

export const isMethod = (name: string): name is Method => Object.hasOwn(schemas, name);

/** Methods that dockerd calls with no body at all (`args == nil` in pkg/plugins/client.go). */
const withoutArguments: ReadonlySet<Method> = new Set<Method>([
  'Plugin.Activate',
  'NetworkDriver.GetCapabilities',
  'IpamDriver.GetCapabilities',
  'IpamDriver.GetDefaultAddressSpaces',
]);

/** Parses one request body. Fault `invalid` naming the field that does not fit. */
export function parseRequest<M extends Method>(method: M, body: string): Requests[M] {
  if (body.length > maxBody) throw new Fault('invalid', `The request is longer than ${maxBody} bytes`);
  const schema: v.GenericSchema<unknown, Requests[M]> = schemas[method];
  const result = v.safeParse(schema, jsonOf(method, body), { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  const field = v.getDotPath(issue) ?? undefined;
  throw new Fault('invalid', `${field === undefined ? 'The request' : `Field ${field}`} is wrong: ${issue.message.slice(0, 200)}`, {
    field,
  });
}

function jsonOf(method: Method, body: string): unknown {
  if (body.trim() === '') {
    if (withoutArguments.has(method)) return {};
    throw new Fault('invalid', 'The request has no body', {
      hint: 'The engine lost it while retrying; the command can be given again',
    });
  }
  try {
    const value: unknown = JSON.parse(body);
    return value;
  } catch (cause) {
    throw new Fault('invalid', 'The request is not JSON', { cause });
  }
}
