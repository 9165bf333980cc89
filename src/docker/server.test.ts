// The plugin without a socket: calls in dockerd's order, repeated, lost and interleaved, on a FakeAgent.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Agent, request } from 'undici';
import { Fault } from '#model/fault.ts';
import { parseCidr } from '#model/ip.ts';
import { FakeAgent, fakeEndpoint } from './fake-agent.ts';
import { Ipam } from './ipam.ts';
import { silent } from './log.ts';
import { maxBody } from './protocol.ts';
import { dockerRecords } from './records.ts';
import { EngineResolver } from './resolver.ts';
import { createPlugin, listenPlugin } from './server.ts';

const net = (digit: string): string => digit.repeat(64);
const space = 'CausewayLocal';

type Json = Record<string, unknown>;
const creation = (id: string, cidr: string, gateway: string, generic: Json = {}): Json => ({
  NetworkID: id,
  Options: { 'com.docker.network.enable_ipv6': false, 'com.docker.network.generic': generic },
  IPv4Data: [{ AddressSpace: space, Pool: cidr, Gateway: gateway }],
  IPv6Data: [],
});

function start(scope: 'local' | 'global' = 'local', agent = new FakeAgent()) {
  const records = dockerRecords(agent.journal);
  const ipam = new Ipam({ agent, records, log: silent });
  const plugin = createPlugin({ agent, records, ipam, log: silent, scope });
  const post = async (method: string, body?: unknown): Promise<{ status: number; body: Json }> => {
    const answer = await plugin.call(method, body === undefined ? '' : JSON.stringify(body));
    return { status: answer.status, body: structuredClone(answer.body) as Json };
  };
  const ok = async (method: string, body?: unknown): Promise<Json> => {
    const answer = await post(method, body);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body;
  };
  const refused = async (method: string, body?: unknown): Promise<string> => {
    const answer = await post(method, body);
    assert.notEqual(answer.status, 200);
    assert.notEqual(answer.status, 404);
    assert.equal(answer.body['Err'], answer.body['Error']);
    return /\(([a-z-]+)\)/.exec(String(answer.body['Err']))?.[1] ?? '';
  };
  /** What `docker network create --ipam-driver causeway --subnet` does. */
  const create = async (id: string, cidr: string, generic: Json = {}): Promise<string> => {
    const { PoolID: pool } = await ok('IpamDriver.RequestPool', { AddressSpace: space, Pool: cidr, Options: {}, V6: false });
    const { Address: gateway } = await ok('IpamDriver.RequestAddress', {
      PoolID: pool,
      Address: '',
      Options: { RequestAddressType: 'com.docker.network.gateway' },
    });
    await ok('NetworkDriver.CreateNetwork', creation(id, cidr, String(gateway), generic));
    return String(pool);
  };
  return { agent, records, plugin, ok, post, refused, create };
}

const ep = 'e'.repeat(64);
const ids = { NetworkID: net('a'), EndpointID: ep };

test('the handshake says what it is', async () => {
  const { ok } = start();
  assert.deepEqual(await ok('Plugin.Activate'), { Implements: ['NetworkDriver', 'IpamDriver'] });
  assert.deepEqual(await ok('NetworkDriver.GetCapabilities'), { Scope: 'local', ConnectivityScope: 'global' });
  assert.deepEqual(await start('global').ok('NetworkDriver.GetCapabilities'), { Scope: 'global', ConnectivityScope: 'global' });
  assert.deepEqual(await ok('IpamDriver.GetCapabilities'), { RequiresMACAddress: false, RequiresRequestReplay: false });
  assert.deepEqual(await ok('IpamDriver.GetDefaultAddressSpaces'), {
    LocalDefaultAddressSpace: 'CausewayLocal',
    GlobalDefaultAddressSpace: 'CausewayGlobal',
  });
});

test('unknown methods are 404', async () => {
  const { post } = start();
  for (const method of ['NetworkDriver.Nothing', 'toString', '__proto__', 'VolumeDriver.List'])
    assert.equal((await post(method, {})).status, 404);
});

test('a life of a network and an endpoint leaves nothing', async () => {
  const { agent, ok, create } = start();
  const pool = await create(net('a'), '10.1.0.0/24', { mtu: '1400' });
  const { Address: address } = await ok('IpamDriver.RequestAddress', { PoolID: pool, Address: '', Options: null });
  assert.equal(address, '10.1.0.2/32');
  const made = await ok('NetworkDriver.CreateEndpoint', {
    ...ids,
    Interface: { Address: address, AddressIPv6: '', MacAddress: '' },
    Options: {},
  });
  assert.deepEqual(made, { Interface: { MacAddress: '0a:63:0a:01:00:02' } });
  const joined = await ok('NetworkDriver.Join', { ...ids, SandboxKey: '/var/run/docker/netns/1', Options: {} });
  assert.deepEqual(joined, {
    InterfaceName: { SrcName: 'cwteeeeeeeeeee', DstPrefix: 'eth' },
    Gateway: '169.254.1.1',
    StaticRoutes: [
      { Destination: '169.254.1.1/32', RouteType: 1 },
      { Destination: '10.1.0.0/24', RouteType: 0, NextHop: '169.254.1.1' },
    ],
    DisableGatewayService: true,
  });
  const ports = { 'com.docker.network.portmap': [{ Proto: 6, Port: 80, HostPort: 8080, HostPortEnd: 8080 }] };
  await ok('NetworkDriver.ProgramExternalConnectivity', { ...ids, Options: ports });
  const info = await ok('NetworkDriver.EndpointOperInfo', ids);
  assert.match(JSON.stringify(info), /\*:8080->80\/tcp/);
  for (const method of ['RevokeExternalConnectivity', 'Leave', 'DeleteEndpoint']) await ok(`NetworkDriver.${method}`, ids);
  await ok('IpamDriver.ReleaseAddress', { PoolID: pool, Address: '10.1.0.2' });
  await ok('IpamDriver.ReleaseAddress', { PoolID: pool, Address: '10.1.0.1' });
  await ok('IpamDriver.ReleasePool', { PoolID: pool });
  await ok('NetworkDriver.DeleteNetwork', { NetworkID: net('a') });
  assert.deepEqual([agent.networks(), agent.held(), agent.journal.list('')], [[], [], []]);
});

test('a container with a way out of each family over different networks publishes by either what is of its family', async () => {
  const { agent, records, ok } = start();
  const four = { NetworkID: net('a'), EndpointID: '4'.repeat(64) };
  const both = { NetworkID: net('b'), EndpointID: '6'.repeat(64) };
  for (const [{ NetworkID: id }, cidrs] of [
    [four, ['10.1.0.0/24']],
    [both, ['10.2.0.0/24', 'fd00:2::/64']],
  ] as const) {
    const pools = cidrs.map((cidr) => ({ family: cidr.includes(':') ? (6 as const) : (4 as const), cidr: parseCidr(cidr) }));
    const network = await agent.createNetwork({ name: id, pools });
    records.bindings.put(id, { network: network.id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
  }
  await ok('NetworkDriver.CreateEndpoint', { ...four, Interface: { Address: '10.1.0.9/32' }, Options: {} });
  await ok('NetworkDriver.CreateEndpoint', { ...both, Interface: { Address: '10.2.0.9/32', AddressIPv6: 'fd00:2::9/128' }, Options: {} });
  // As dockerd 29 sends it: what the sandbox was made with, and when IPv6 goes elsewhere a word on that.
  const options = {
    'com.docker.network.endpoint.exposedports': [{ Proto: 6, Port: 80 }],
    'com.docker.network.portmap': [{ Proto: 6, IP: '', Port: 80, HostIP: '', HostPort: 8080, HostPortEnd: 8080 }],
  };
  const elsewhere = { ...options, 'com.docker.network.driver.private.no_proxy_6to4': true };
  for (const endpoint of [four, both])
    await ok('NetworkDriver.Join', { ...endpoint, SandboxKey: '/var/run/docker/netns/1', Options: options });
  const program = (endpoint: typeof four, Options: Json): Promise<Json> =>
    ok('NetworkDriver.ProgramExternalConnectivity', { ...endpoint, Options });
  const published = (): unknown[] =>
    [four, both].map(({ EndpointID: id }) => agent.localEndpoint(id)?.ports.map(({ hostIp }) => hostIp ?? 'all'));
  await program(four, options);
  assert.deepEqual(published(), [['all'], []]);
  await program(both, options);
  assert.deepEqual(published(), [['0.0.0.0'], ['::']]);
  await ok('NetworkDriver.RevokeExternalConnectivity', four);
  await program(both, options);
  assert.deepEqual(published(), [[], ['all']]);
  // The network of IPv4 comes second, with a higher priority.
  await program(both, options);
  await program(four, elsewhere);
  assert.deepEqual(published(), [['0.0.0.0'], ['::']]);
  await ok('NetworkDriver.RevokeExternalConnectivity', both);
  await program(four, options);
  assert.deepEqual(published(), [['all'], []]);
});

test('a link is called as the user wants where the engine can do it, and has no routes of IPv6 where that is switched off', async () => {
  const { agent, records, ok, post } = start();
  const pools = [
    { family: 4 as const, cidr: parseCidr('10.1.0.0/24') },
    { family: 6 as const, cidr: parseCidr('fd00:1::/64') },
  ];
  const network = await agent.createNetwork({ name: 'net', pools });
  records.bindings.put(net('a'), { network: network.id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
  const made = async (id: string, last: number, options: Json): Promise<Json> => {
    const one = { NetworkID: net('a'), EndpointID: id.repeat(64) };
    const Interface = { Address: `10.1.0.${last}/32`, AddressIPv6: `fd00:1::${last}/128`, MacAddress: '' };
    await ok('NetworkDriver.CreateEndpoint', { ...one, Interface, Options: options });
    return ok('NetworkDriver.Join', { ...one, SandboxKey: `/var/run/docker/netns/${id}`, Options: {} });
  };
  const ifname = 'com.docker.network.endpoint.ifname';
  const named = await made('1', 11, { [ifname]: 'lan0' });
  assert.deepEqual(named['InterfaceName'], { SrcName: 'cwt11111111111', DstPrefix: 'lan' });
  assert.equal(named['GatewayIPv6'], 'fe80::1');
  for (const wrong of ['lan1', 'lan', '0', 'a/0', 'much-too-long-it0']) {
    const { status, body } = await post('NetworkDriver.CreateEndpoint', {
      ...ids,
      Interface: { Address: '10.1.0.12/32' },
      Options: { [ifname]: wrong },
    });
    assert.deepEqual([status, String(body['Err']).includes(ifname)], [400, true], wrong);
  }
  const sysctls = 'net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.disable_ipv6=1';
  const without = await made('2', 12, { 'com.docker.network.endpoint.sysctls': sysctls });
  assert.deepEqual([without['Gateway'], without['GatewayIPv6']], ['169.254.1.1', undefined]);
  assert.deepEqual(
    (without['StaticRoutes'] as { Destination: string }[]).map(({ Destination: to }) => to),
    ['169.254.1.1/32', '10.1.0.0/24'],
  );
  // IPv6 may be off in the whole of a container: dockerd 28 then asks for no address of it.
  await ok('NetworkDriver.CreateEndpoint', {
    ...ids,
    Interface: { Address: '10.1.0.13/32', AddressIPv6: '', MacAddress: '' },
    Options: {},
  });
  const four = await ok('NetworkDriver.Join', { ...ids, SandboxKey: '/var/run/docker/netns/3', Options: {} });
  assert.deepEqual([agent.localEndpoint(ep)?.addresses, four['GatewayIPv6']], [['10.1.0.13'], undefined]);
});

test('networks of IPv6 alone, and subnets of which only the length is asked for, as dockerd 28 and 29 ask for them', async () => {
  const { agent, ok, refused } = start();
  const { PoolID: pool, Pool: cidr } = await ok('IpamDriver.RequestPool', {
    AddressSpace: space,
    Pool: '',
    SubPool: '',
    Options: {},
    V6: true,
  });
  const gatewayOptions = { RequestAddressType: 'com.docker.network.gateway' };
  const { Address: gateway } = await ok('IpamDriver.RequestAddress', { PoolID: pool, Address: '', Options: gatewayOptions });
  await ok('NetworkDriver.CreateNetwork', {
    NetworkID: net('a'),
    Options: {
      'com.docker.network.enable_ipv4': false,
      'com.docker.network.enable_ipv6': true,
      'com.docker.network.generic': { 'com.docker.network.enable_ipv4': 'false' },
    },
    IPv4Data: null,
    IPv6Data: [{ AddressSpace: space, Pool: cidr, Gateway: gateway }],
  });
  assert.deepEqual(
    agent.pools(agent.networks()[0]?.id ?? '').map((one) => one.cidr),
    [cidr],
  );
  const { Address: address } = await ok('IpamDriver.RequestAddress', { PoolID: pool, Address: '', Options: null });
  await ok('NetworkDriver.CreateEndpoint', { ...ids, Interface: { Address: '', AddressIPv6: address, MacAddress: '' }, Options: null });
  const joined = await ok('NetworkDriver.Join', { ...ids, SandboxKey: '/var/run/docker/netns/1', Options: null });
  assert.deepEqual([joined['Gateway'], joined['GatewayIPv6']], [undefined, 'fe80::1']);
  for (const [asked, v6] of [
    ['0.0.0.0/26', false],
    ['::/96', true],
  ] as const) {
    const { Pool: given } = await ok('IpamDriver.RequestPool', { AddressSpace: space, Pool: asked, Options: {}, V6: v6 });
    assert.ok(String(given).endsWith(asked.slice(asked.indexOf('/'))) && given !== asked, String(given));
  }
  assert.equal(await refused('IpamDriver.RequestPool', { AddressSpace: space, Pool: '0.0.0.0/2', Options: {}, V6: false }), 'invalid');
});

test("pools are asked for with kuryr-libnetwork's subnet pools as well, and with no other option of Neutron", async () => {
  const { ok, refused } = start('local');
  const asked = { AddressSpace: space, Pool: '10.4.0.0/24', V6: false };
  assert.equal((await ok('IpamDriver.RequestPool', { ...asked, Options: { 'neutron.pool.name': 'any' } }))['Pool'], '10.4.0.0/24');
  assert.equal(await refused('IpamDriver.RequestPool', { ...asked, Options: { 'neutron.subnet.name': 'any' } }), 'invalid');
});

test('where the engine asks for names past the networks the agent answers first, before anything runs', async () => {
  for (const [scope, version, wanted] of [
    ['local', '29.1.3', [['answerFirst', ep, true]]],
    ['local', '26.1.5', []],
    ['global', '29.1.3', []],
  ] as const) {
    const { agent, records, ok } = start(scope);
    new EngineResolver(records).began(version);
    const network = await agent.createNetwork({ name: 'net', pools: [{ family: 4, cidr: parseCidr('10.1.0.0/24') }] });
    records.bindings.put(net('a'), { network: network.id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
    await ok('NetworkDriver.CreateEndpoint', { ...ids, Interface: { Address: '10.1.0.9/32' }, Options: {} });
    await ok('NetworkDriver.Join', { ...ids, SandboxKey: '/var/run/docker/netns/1', Options: {} });
    await ok('NetworkDriver.ProgramExternalConnectivity', { ...ids, Options: {} });
    assert.deepEqual(
      agent.calls.filter(([name]) => name === 'answerFirst'),
      wanted,
      `${scope} ${version}`,
    );
  }
});

test('everything may be repeated', async () => {
  const { agent, ok, create } = start();
  const pool = await create(net('a'), '10.1.0.0/24');
  await ok('NetworkDriver.CreateNetwork', creation(net('a'), '10.1.0.0/24', '10.1.0.1/24'));
  assert.equal(agent.networks().length, 1);
  const { Address: address } = await ok('IpamDriver.RequestAddress', { PoolID: pool, Address: '10.1.0.9' });
  const body = { ...ids, Interface: { Address: address }, Options: {} };
  const first = await ok('NetworkDriver.CreateEndpoint', body);
  assert.deepEqual(await ok('NetworkDriver.CreateEndpoint', body), first);
  const joining = { ...ids, SandboxKey: '/var/run/docker/netns/1' };
  const joined = await ok('NetworkDriver.Join', joining);
  assert.deepEqual(await ok('NetworkDriver.Join', joining), joined);
  for (const method of ['RevokeExternalConnectivity', 'Leave', 'DeleteEndpoint']) {
    await ok(`NetworkDriver.${method}`, ids);
    await ok(`NetworkDriver.${method}`, ids);
  }
  await ok('IpamDriver.ReleaseAddress', { PoolID: pool, Address: '10.1.0.9' });
  await ok('IpamDriver.ReleaseAddress', { PoolID: pool, Address: '10.1.0.9' });
  await ok('NetworkDriver.DeleteNetwork', { NetworkID: net('a') });
  await ok('NetworkDriver.DeleteNetwork', { NetworkID: net('a') });
  await ok('IpamDriver.ReleasePool', { PoolID: pool });
  await ok('IpamDriver.ReleasePool', { PoolID: 'never' });
  await ok('IpamDriver.ReleaseAddress', { PoolID: 'never', Address: '10.1.0.9' });
});

test('a network whose creation was answered but lost is found again', async () => {
  const { agent, records, ok, create } = start();
  await create(net('a'), '10.1.0.0/24');
  records.bindings.delete(net('a'));
  await ok('NetworkDriver.CreateNetwork', creation(net('a'), '10.1.0.0/24', '10.1.0.1/24'));
  assert.deepEqual([agent.networks().length, records.bindings.get(net('a'))?.network], [1, agent.networks()[0]?.id]);
});

test('a network that cannot be made leaves nothing but the draft, which Docker releases', async () => {
  const { agent, records, ok, refused } = start();
  const { PoolID: pool } = await ok('IpamDriver.RequestPool', { AddressSpace: space, Pool: '10.1.0.0/24' });
  for (const [generic, code] of [
    [{ mtuu: '1' }, 'invalid'],
    [{ mtu: '100' }, 'invalid'],
    [{ vni: '0' }, 'invalid'],
    [{ vni: '16777216' }, 'invalid'],
    [{ encrypted: 'maybe' }, 'invalid'],
    [{ tenant: 'a/b' }, 'invalid'],
    [{ tenant: 'a\nb' }, 'invalid'],
    [{ model: 'weave' }, 'invalid'],
    [{ carry: 'pigeon' }, 'invalid'],
    [{ 'causeway.network': 'a/../b' }, 'invalid'],
  ] as const) {
    assert.equal(
      await refused('NetworkDriver.CreateNetwork', creation(net('a'), '10.1.0.0/24', '10.1.0.1/24', generic)),
      code,
      JSON.stringify(generic),
    );
  }
  assert.equal(await refused('NetworkDriver.CreateNetwork', creation(net('a'), '10.2.0.0/24', '10.2.0.1/24')), 'not-found');
  agent.isControllerAway = true;
  assert.equal(await refused('NetworkDriver.CreateNetwork', creation(net('a'), '10.1.0.0/24', '10.1.0.1/24')), 'unavailable');
  await ok('IpamDriver.ReleasePool', { PoolID: pool });
  assert.deepEqual([agent.networks(), records.bindings.list(), records.drafts.list()], [[], [], []]);
});

test("two creations of the same prefix at once do not get each other's pool", async () => {
  const { agent, ok } = start();
  const both = ['a', 'b'].map(async (digit) => {
    const { PoolID: pool } = await ok('IpamDriver.RequestPool', { AddressSpace: space, Pool: '10.1.0.0/24' });
    await ok('IpamDriver.RequestAddress', { PoolID: pool, Options: { RequestAddressType: 'com.docker.network.gateway' } });
    await ok('NetworkDriver.CreateNetwork', creation(net(digit), '10.1.0.0/24', '10.1.0.1/24'));
    const own = agent.networks().find((network) => network.labels['causeway.docker.network'] === net(digit));
    assert.equal(agent.pools(own?.id ?? '')[0]?.id, pool);
  });
  await Promise.all(both);
});

test('drafts keep gateway, range and aux addresses', async () => {
  const { agent, ok, refused } = start();
  const { PoolID: pool } = await ok('IpamDriver.RequestPool', {
    AddressSpace: space,
    Pool: 'fd00:1::/64',
    SubPool: 'fd00:1::8000/113',
    V6: true,
  });
  assert.deepEqual(
    await ok('IpamDriver.RequestAddress', {
      PoolID: pool,
      Address: 'fd00:1::fe',
      Options: { RequestAddressType: 'com.docker.network.gateway' },
    }),
    {
      Address: 'fd00:1::fe/64',
      Data: {},
    },
  );
  await ok('IpamDriver.RequestAddress', { PoolID: pool, Address: 'fd00:1::5', Options: null });
  assert.equal(await refused('IpamDriver.RequestAddress', { PoolID: pool, Address: 'fd00:1::fe' }), 'exists');
  assert.equal(await refused('IpamDriver.RequestAddress', { PoolID: pool, Address: 'fd00:2::1' }), 'invalid');
  assert.equal(await refused('IpamDriver.RequestAddress', { PoolID: pool }), 'invalid');
  await ok('NetworkDriver.CreateNetwork', {
    NetworkID: net('a'),
    IPv6Data: [{ AddressSpace: space, Pool: 'fd00:1::/64', Gateway: 'fd00:1::fe/64', AuxAddresses: { dns: 'fd00:1::5/64' } }],
  });
  const [made] = agent.pools(agent.networks()[0]?.id ?? '');
  assert.deepEqual([made?.id, made?.range, made?.gateway, made?.reserved], [pool, 'fd00:1::8000/113', 'fd00:1::fe', { dns: 'fd00:1::5' }]);
});

test('pools that make no sense are refused', async () => {
  const { refused } = start();
  for (const body of [
    { AddressSpace: 'LocalDefault' },
    { AddressSpace: space, Pool: '10.1.0.0/24', V6: true },
    { AddressSpace: space, SubPool: '10.1.0.0/26' },
    { AddressSpace: space, Pool: '10.1.0.0/24', SubPool: '10.2.0.0/26' },
    { AddressSpace: space, Pool: '10.1.0.0/24', Options: { colour: 'red' } },
  ]) {
    assert.equal(await refused('IpamDriver.RequestPool', body), 'invalid', JSON.stringify(body));
  }
  assert.equal(await refused('IpamDriver.RequestPool', { AddressSpace: space, Options: { 'causeway.network': 'none' } }), 'not-found');
  assert.equal(await refused('IpamDriver.RequestAddress', { PoolID: 'none' }), 'not-found');
});

test('pools are proposed besides each other', async () => {
  const { ok } = start();
  const pools = await Promise.all([1, 2, 3].map(() => ok('IpamDriver.RequestPool', { AddressSpace: space })));
  assert.equal(new Set(pools.map((pool) => pool['Pool'])).size, 3);
});

async function existing() {
  const bed = start();
  const made = await bed.agent.createNetwork({ name: 'shared', pools: [{ family: 4, cidr: parseCidr('10.3.0.0/24') }] });
  const option = { 'causeway.network': made.id };
  const { PoolID: pool } = await bed.ok('IpamDriver.RequestPool', { AddressSpace: space, Pool: '10.3.0.0/24', Options: option });
  await bed.ok('IpamDriver.RequestAddress', {
    PoolID: pool,
    Address: '10.3.0.1',
    Options: { RequestAddressType: 'com.docker.network.gateway' },
  });
  await bed.ok('NetworkDriver.CreateNetwork', creation(net('a'), '10.3.0.0/24', '10.3.0.1/24', option));
  return { ...bed, made, pool: String(pool) };
}

test('an existing network is bound, and a creation that is rolled back does not remove it', async () => {
  const { agent, made, pool, ok, refused } = await existing();
  assert.deepEqual([pool, agent.held()], [agent.pools(made.id)[0]?.id, []]);
  assert.equal(
    await refused('IpamDriver.RequestAddress', {
      PoolID: pool,
      Address: '10.3.0.7',
      Options: { RequestAddressType: 'com.docker.network.gateway' },
    }),
    'invalid',
  );
  assert.equal(
    await refused('IpamDriver.RequestPool', { AddressSpace: space, Pool: '10.4.0.0/24', Options: { 'causeway.network': 'shared' } }),
    'invalid',
  );
  await ok('NetworkDriver.DeleteNetwork', { NetworkID: net('a') });
  assert.notEqual(agent.network(made.id), undefined);
});

test('a confirmed copy takes the network with it, unless it is in use or gone already', async () => {
  const { agent, made, records, ok, refused } = await existing();
  const bound = records.bindings.get(net('a'));
  assert.ok(bound);
  records.bindings.put(net('a'), { ...bound, confirmed: true });
  agent.addEndpoint(fakeEndpoint({ id: 'far0000000', network: made.id }));
  assert.equal(await refused('NetworkDriver.DeleteNetwork', { NetworkID: net('a') }), 'in-use');
  await agent.detach('far0000000');
  records.bindings.put(net('b'), { ...bound, confirmed: true });
  agent.forgetNetwork(made.id);
  await ok('NetworkDriver.DeleteNetwork', { NetworkID: net('b') });
  assert.equal(agent.calls.filter(([name]) => name === 'removeNetwork').length, 1);
});

test('a late release does not take the address of an attached endpoint', async () => {
  const { agent, pool, ok } = await existing();
  await ok('IpamDriver.RequestAddress', { PoolID: pool, Address: '10.3.0.9' });
  await ok('NetworkDriver.CreateEndpoint', { ...ids, Interface: { Address: '10.3.0.9/32' } });
  await ok('IpamDriver.ReleaseAddress', { PoolID: pool, Address: '10.3.0.9' });
  assert.equal(agent.held().length, 1);
});

test('endpoints are refused where they do not fit', async () => {
  const { agent, made, pool, ok, refused } = await existing();
  const at = (address: string, more: Json = {}): Json => ({ ...ids, Interface: { Address: address }, ...more });
  assert.equal(await refused('NetworkDriver.CreateEndpoint', at('10.4.0.9/32')), 'invalid');
  assert.equal(await refused('NetworkDriver.CreateEndpoint', at('10.3.0.9/32', { NetworkID: net('f') })), 'not-found');
  assert.equal(await refused('NetworkDriver.Join', { ...ids, SandboxKey: '/x' }), 'not-found');
  assert.equal(await refused('NetworkDriver.ProgramExternalConnectivity', ids), 'not-found');
  await ok('IpamDriver.RequestAddress', { PoolID: pool, Address: '10.3.0.9' });
  await ok('NetworkDriver.CreateEndpoint', at('10.3.0.9/32'));
  assert.equal(await refused('NetworkDriver.CreateEndpoint', at('10.3.0.10/32')), 'exists');
  assert.deepEqual(agent.localEndpoints()[0]?.addresses, ['10.3.0.9']);
  agent.forgetNetwork(made.id);
  assert.equal(await refused('NetworkDriver.CreateEndpoint', at('10.3.0.11/32', { EndpointID: 'd'.repeat(64) })), 'not-found');
  await ok('NetworkDriver.DeleteEndpoint', ids);
});

test('addresses of another IPAM are claimed once and given back', async () => {
  const { agent, records, ok, refused } = start();
  await ok('NetworkDriver.CreateNetwork', {
    NetworkID: net('a'),
    IPv4Data: [{ AddressSpace: 'LocalDefault', Pool: '172.18.0.0/16', Gateway: '172.18.0.1/16' }],
  });
  const body = { ...ids, Interface: { Address: '172.18.0.2/16', MacAddress: '02:00:00:00:00:07' } };
  assert.deepEqual(await ok('NetworkDriver.CreateEndpoint', body), { Interface: {} });
  await ok('NetworkDriver.CreateEndpoint', body);
  assert.deepEqual(
    agent.held().map((line) => line.split(' ')[1]),
    ['172.18.0.2'],
  );
  assert.equal(await refused('NetworkDriver.CreateEndpoint', { ...body, EndpointID: 'd'.repeat(64) }), 'exists');
  await ok('NetworkDriver.DeleteEndpoint', { ...ids, EndpointID: 'd'.repeat(64) });
  assert.equal(agent.held().length, 1, 'the refused one took nothing with it');
  await ok('NetworkDriver.DeleteEndpoint', ids);
  assert.deepEqual([agent.held(), records.attachments.list()], [[], []]);
});

test('an endpoint without addresses is given one', async () => {
  const { ok } = start();
  await ok('NetworkDriver.CreateNetwork', { NetworkID: net('a'), IPv4Data: [{ AddressSpace: 'null', Pool: '0.0.0.0/0' }] });
  assert.deepEqual(await ok('NetworkDriver.CreateEndpoint', ids), {
    Interface: { MacAddress: '0a:63:0a:c8:00:02', Address: '10.200.0.2/32' },
  });
});

test('a Swarm: the manager allocates, engines bind, freeing removes', async () => {
  const { agent, ok } = start('global');
  const ipams = { IPv4Data: [{ AddressSpace: '', Pool: '10.0.1.0/24', Gateway: '10.0.1.1/24' }] };
  const id = 'abcdefghijklmnopqrstuvwxy';
  const allocated = await ok('NetworkDriver.AllocateNetwork', {
    NetworkID: id,
    Options: { mtu: '1300', 'com.docker.stack': 'x' },
    ...ipams,
  });
  assert.deepEqual(
    await ok('NetworkDriver.AllocateNetwork', { NetworkID: id, Options: { mtu: '1300', 'com.docker.stack': 'x' }, ...ipams }),
    allocated,
  );
  const [network] = agent.networks();
  assert.deepEqual([network?.addressing, network?.mtu, agent.networks().length], ['external', 1300, 1]);
  await ok('NetworkDriver.CreateNetwork', { NetworkID: id, Options: { 'com.docker.network.generic': allocated['Options'] }, ...ipams });
  await ok('NetworkDriver.CreateEndpoint', { NetworkID: id, EndpointID: ep, Interface: { Address: '10.0.1.5/24' } });
  assert.equal(agent.held().length, 1, 'what the manager gave is claimed here');
  await ok('NetworkDriver.DeleteEndpoint', { NetworkID: id, EndpointID: ep });
  await ok('NetworkDriver.DeleteNetwork', { NetworkID: id });
  assert.equal(agent.networks().length, 1, 'an engine that leaves does not remove it');
  await ok('NetworkDriver.FreeNetwork', { NetworkID: id });
  await ok('NetworkDriver.FreeNetwork', { NetworkID: id });
  assert.deepEqual(agent.networks(), []);
});

test('unexpected errors are not shown', async () => {
  const agent = new FakeAgent();
  agent.proposePool = () => Promise.reject(new Error('secret'));
  const { post } = start('local', agent);
  const answer = await post('IpamDriver.RequestPool', { AddressSpace: space });
  assert.equal(answer.status, 500);
  assert.doesNotMatch(JSON.stringify(answer.body), /secret/);
  agent.proposePool = () => Promise.reject(new Fault('exhausted', 'Nothing left', { hint: 'Add some' }));
  assert.equal((await post('IpamDriver.RequestPool', { AddressSpace: space })).body['Err'], 'Nothing left (exhausted). Add some');
});

test('a corrupt journal record is said to be so', async () => {
  const { agent, refused } = start();
  agent.journal.put(`docker/networks/${net('a')}`, { nonsense: true });
  assert.equal(await refused('NetworkDriver.CreateEndpoint', ids), 'corrupt');
});

test("the socket is root's, replaces a dead one, and is not taken from a successor", async (t) => {
  const folder = mkdtempSync(`${tmpdir()}/causeway-plugin-`);
  t.after(() => rmSync(folder, { recursive: true }));
  const path = `${folder}/plugins/causeway.sock`;
  const { plugin } = start();
  const first = await listenPlugin(plugin, path);
  const second = await listenPlugin(plugin, path);
  await first[Symbol.asyncDispose]();
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const dispatcher = new Agent({ connect: { socketPath: path } });
  const ask = async (method: 'GET' | 'POST', called: string, sent?: string) => {
    const { statusCode, headers, body } = await request(`http://plugin/${called}`, { method, dispatcher, body: sent ?? null });
    assert.equal(headers['content-type'], 'application/vnd.docker.plugins.v1.2+json');
    assert.equal(headers['keep-alive'], undefined, 'no end of an idle connection is announced');
    return [statusCode, await body.json()];
  };
  assert.deepEqual(await ask('POST', 'Plugin.Activate'), [200, { Implements: ['NetworkDriver', 'IpamDriver'] }]);
  assert.deepEqual(await ask('GET', 'Plugin.Activate'), [404, { Err: 'Not found' }]);
  assert.deepEqual(await ask('POST', 'NetworkDriver.DeleteNetwork', 'x'.repeat(maxBody + 1)), [
    413,
    { Err: `The request is longer than ${maxBody} bytes` },
  ]);
  assert.equal((await ask('POST', 'Plugin.Activate'))[0], 200);
  await dispatcher.close();
  await second[Symbol.asyncDispose]();
  assert.equal(statSync(path, { throwIfNoEntry: false }), undefined);
  writeFileSync(path, 'stale');
  const third = await listenPlugin(plugin, path);
  assert.ok(statSync(path).isSocket());
  await third[Symbol.asyncDispose]();
});
