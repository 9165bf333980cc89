import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { maxBody, type Method, parseRequest } from './protocol.ts';

const network = 'a'.repeat(64);
const endpoint = 'b'.repeat(64);
const ids = { NetworkID: network, EndpointID: endpoint };
const long = 'x'.repeat(maxBody);

/** Method, what is wrong, body. Each is refused as `invalid`. */
const bad: readonly (readonly [Method, string, unknown])[] = [
  ['NetworkDriver.AllocateNetwork', 'no id', {}],
  ['NetworkDriver.AllocateNetwork', 'options are no strings', { NetworkID: network, Options: { a: 1 } }],
  ['NetworkDriver.AllocateNetwork', 'pools are no list', { NetworkID: network, IPv4Data: 'x' }],
  ['NetworkDriver.FreeNetwork', 'no id', {}],
  ['NetworkDriver.FreeNetwork', 'id with a slash', { NetworkID: '../../../../etc/passwd' }],
  ['NetworkDriver.CreateNetwork', 'no id', { Options: {} }],
  ['NetworkDriver.CreateNetwork', 'id is a number', { NetworkID: 5 }],
  ['NetworkDriver.CreateNetwork', 'id with a newline', { NetworkID: `${'a'.repeat(20)}\n` }],
  ['NetworkDriver.CreateNetwork', 'id of a megabyte', { NetworkID: long.slice(0, -100) }],
  ['NetworkDriver.CreateNetwork', 'generic options are a list', { NetworkID: network, Options: { 'com.docker.network.generic': [1] } }],
  ['NetworkDriver.CreateNetwork', 'an option is a number', { NetworkID: network, Options: { 'com.docker.network.generic': { mtu: 1 } } }],
  [
    'NetworkDriver.CreateNetwork',
    'an option is too long',
    { NetworkID: network, Options: { 'com.docker.network.generic': { mtu: 'x'.repeat(5000) } } },
  ],
  [
    'NetworkDriver.CreateNetwork',
    'too many options',
    {
      NetworkID: network,
      Options: { 'com.docker.network.generic': Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`k${i}`, ''])) },
    },
  ],
  ['NetworkDriver.CreateNetwork', 'internal is text', { NetworkID: network, Options: { 'com.docker.network.internal': 'yes' } }],
  ['NetworkDriver.CreateNetwork', 'pool is no prefix', { NetworkID: network, IPv4Data: [{ Pool: '10.0.0.0' }] }],
  ['NetworkDriver.CreateNetwork', 'pool has host bits', { NetworkID: network, IPv4Data: [{ Pool: '10.0.0.1/24' }] }],
  ['NetworkDriver.CreateNetwork', 'gateway is no prefix', { NetworkID: network, IPv4Data: [{ Pool: '10.0.0.0/24', Gateway: 'x' }] }],
  [
    'NetworkDriver.CreateNetwork',
    'aux address is none',
    { NetworkID: network, IPv4Data: [{ Pool: '10.0.0.0/24', AuxAddresses: { a: 'b' } }] },
  ],
  [
    'NetworkDriver.CreateNetwork',
    'too many pools',
    { NetworkID: network, IPv4Data: Array.from({ length: 33 }, () => ({ Pool: '10.0.0.0/24' })) },
  ],
  [
    'NetworkDriver.CreateNetwork',
    'address space with a control character',
    { NetworkID: network, IPv4Data: [{ AddressSpace: 'a\u0000' }] },
  ],
  ['NetworkDriver.DeleteNetwork', 'no id', {}],
  ['NetworkDriver.DeleteNetwork', 'a list', []],
  ['NetworkDriver.CreateEndpoint', 'no endpoint', { NetworkID: network }],
  ['NetworkDriver.CreateEndpoint', 'endpoint id in capitals', { ...ids, EndpointID: 'B'.repeat(64) }],
  ['NetworkDriver.CreateEndpoint', 'address without a length', { ...ids, Interface: { Address: '10.0.0.1' } }],
  ['NetworkDriver.CreateEndpoint', 'address with a length too great', { ...ids, Interface: { Address: '10.0.0.1/33' } }],
  ['NetworkDriver.CreateEndpoint', 'address is a number', { ...ids, Interface: { Address: 7 } }],
  ['NetworkDriver.CreateEndpoint', 'interface is text', { ...ids, Interface: 'eth0' }],
  ['NetworkDriver.CreateEndpoint', 'MAC of a group', { ...ids, Interface: { MacAddress: '01:00:5e:00:00:01' } }],
  [
    'NetworkDriver.CreateEndpoint',
    'MAC of five bytes, base64',
    { ...ids, Options: { 'com.docker.network.endpoint.macaddress': 'AhEiM0Q=' } },
  ],
  ['NetworkDriver.CreateEndpoint', 'MAC is a list', { ...ids, Options: { 'com.docker.network.endpoint.macaddress': [1, 2] } }],
  ['NetworkDriver.CreateEndpoint', 'a group without a name', { ...ids, Options: { 'causeway.security-groups': 'web,' } }],
  ['NetworkDriver.CreateEndpoint', 'an option that is not known', { ...ids, Options: { 'causeway.security-group': 'web' } }],
  ['NetworkDriver.CreateEndpoint', 'port map is text', { ...ids, Options: { 'com.docker.network.portmap': '80' } }],
  ['NetworkDriver.CreateEndpoint', 'port 0', { ...ids, Options: { 'com.docker.network.portmap': [{ Proto: 6, Port: 0 }] } }],
  ['NetworkDriver.CreateEndpoint', 'port 65536', { ...ids, Options: { 'com.docker.network.portmap': [{ Proto: 6, Port: 65_536 }] } }],
  ['NetworkDriver.CreateEndpoint', 'half a port', { ...ids, Options: { 'com.docker.network.portmap': [{ Proto: 6, Port: 80.5 }] } }],
  [
    'NetworkDriver.CreateEndpoint',
    'negative host port',
    { ...ids, Options: { 'com.docker.network.portmap': [{ Proto: 6, Port: 80, HostPort: -1 }] } },
  ],
  ['NetworkDriver.CreateEndpoint', 'protocol 256', { ...ids, Options: { 'com.docker.network.portmap': [{ Proto: 256, Port: 80 }] } }],
  [
    'NetworkDriver.CreateEndpoint',
    'host address is none',
    { ...ids, Options: { 'com.docker.network.portmap': [{ Proto: 6, Port: 80, HostIP: 'all' }] } },
  ],
  ['NetworkDriver.EndpointOperInfo', 'no ids', {}],
  ['NetworkDriver.DeleteEndpoint', 'null id', { ...ids, EndpointID: null }],
  ['NetworkDriver.Join', 'no sandbox', ids],
  ['NetworkDriver.Join', 'relative sandbox', { ...ids, SandboxKey: 'netns/x' }],
  ['NetworkDriver.Join', 'sandbox that climbs', { ...ids, SandboxKey: '/var/run/docker/netns/../../../proc/1/ns/net' }],
  ['NetworkDriver.Join', 'sandbox with a NUL', { ...ids, SandboxKey: '/var/run/\u0000' }],
  ['NetworkDriver.Join', 'sandbox with a newline', { ...ids, SandboxKey: '/var/run/a\nb' }],
  ['NetworkDriver.Join', 'sandbox too long', { ...ids, SandboxKey: `/${'a'.repeat(2000)}` }],
  ['NetworkDriver.Leave', 'no ids', {}],
  ['NetworkDriver.ProgramExternalConnectivity', 'no ids', {}],
  [
    'NetworkDriver.ProgramExternalConnectivity',
    'too many ports',
    { ...ids, Options: { 'com.docker.network.portmap': Array.from({ length: 4097 }, () => ({ Proto: 6, Port: 80 })) } },
  ],
  ['NetworkDriver.RevokeExternalConnectivity', 'no ids', {}],
  ['NetworkDriver.DiscoverNew', 'no type', {}],
  ['NetworkDriver.DiscoverDelete', 'type is text', { DiscoveryType: 'node' }],
  ['IpamDriver.RequestPool', 'pool is no prefix', { Pool: '10.0.0.0/40' }],
  ['IpamDriver.RequestPool', 'range is no prefix', { Pool: '10.0.0.0/24', SubPool: 'x' }],
  ['IpamDriver.RequestPool', 'options are a list', { Options: ['a'] }],
  ['IpamDriver.RequestPool', 'V6 is text', { V6: 'true' }],
  ['IpamDriver.RequestPool', 'address space too long', { AddressSpace: 'a'.repeat(300) }],
  ['IpamDriver.ReleasePool', 'no id', {}],
  ['IpamDriver.ReleasePool', 'id with a slash', { PoolID: 'a/b' }],
  ['IpamDriver.RequestAddress', 'no id', { Address: '10.0.0.1' }],
  ['IpamDriver.RequestAddress', 'address is none', { PoolID: 'p', Address: '10.0.0.1/24' }],
  ['IpamDriver.RequestAddress', 'option is an object', { PoolID: 'p', Options: { RequestAddressType: {} } }],
  ['IpamDriver.ReleaseAddress', 'no address', { PoolID: 'p' }],
  ['IpamDriver.ReleaseAddress', 'empty address', { PoolID: 'p', Address: '' }],
  ['IpamDriver.ReleaseAddress', 'address is a number', { PoolID: 'p', Address: 1 }],
];

for (const [method, what, body] of bad) {
  test(`${method} refuses: ${what}`, () => {
    assert.throws(
      () => parseRequest(method, JSON.stringify(body)),
      (error) => isFault(error, 'invalid') && error.message.length < 500,
    );
  });
}

const withArguments = [...new Set(bad.map(([method]) => method))];
for (const method of withArguments) {
  test(`${method} refuses no body, half a body, and a body of more than a megabyte`, () => {
    for (const body of ['', '  \n', '{"NetworkID":', 'null', '"text"', JSON.stringify({ long })]) {
      assert.throws(
        () => parseRequest(method, body),
        (error) => isFault(error, 'invalid'),
      );
    }
  });
}

test('calls without arguments arrive with an empty body', () => {
  for (const method of [
    'Plugin.Activate',
    'NetworkDriver.GetCapabilities',
    'IpamDriver.GetCapabilities',
    'IpamDriver.GetDefaultAddressSpaces',
  ] as const) {
    assert.deepEqual(parseRequest(method, ''), {});
    assert.deepEqual(parseRequest(method, '{}'), {});
  }
});

test('keys are read without regard to case, nulls are absent, unknown keys are dropped', () => {
  const body = { networkid: network, options: null, ipv4DATA: null, Extra: { deep: [1] } };
  assert.deepEqual(parseRequest('NetworkDriver.CreateNetwork', JSON.stringify(body)), {
    NetworkID: network,
    Options: { generic: {}, internal: false, ipv6: false },
    IPv4Data: [],
    IPv6Data: [],
  });
});

test('an exact key wins over another spelling', () => {
  const body = `{"networkid":"${'c'.repeat(64)}","NetworkID":"${network}"}`;
  assert.equal(parseRequest('NetworkDriver.FreeNetwork', body).NetworkID, network);
});

test('a prototype cannot be smuggled in', () => {
  const body = `{"NetworkID":"${network}","__proto__":{"polluted":1},"Options":{"com.docker.network.generic":{"__proto__":"x"}}}`;
  const parsed = parseRequest('NetworkDriver.CreateNetwork', body);
  assert.deepEqual(Object.keys(parsed.Options.generic), []);
  assert.equal(Object.hasOwn(Object.prototype, 'polluted'), false);
});

const macOf = (text: string): unknown => {
  const body = { ...ids, Options: { 'com.docker.network.endpoint.macaddress': text } };
  return parseRequest('NetworkDriver.CreateEndpoint', JSON.stringify(body)).Options.mac;
};

test('a MAC comes as base64 or as text', () => {
  assert.equal(macOf('AhEiM0RV'), '02:11:22:33:44:55');
  assert.equal(macOf('02:11:22:33:44:55'), '02:11:22:33:44:55');
});
