// The conversation of a manager's host with its plugin, as swarmkit's allocator and the host's own engine lead it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '#model/ip.ts';
import { FakeAgent, FakeJournal } from './fake-agent.ts';
import { Ipam } from './ipam.ts';
import { silent } from './log.ts';
import { dockerRecords } from './records.ts';
import { createPlugin } from './server.ts';

const space = 'CausewayGlobal';
const gatewayRequest = { RequestAddressType: 'com.docker.network.gateway' };
const cidr = '10.7.0.0/29';
const [red, blue] = ['rednetwork000000000000001', 'bluenetwork00000000000001'];

type Json = Record<string, unknown>;

function start(agent: FakeAgent = new FakeAgent(), journal: FakeJournal = agent.journal) {
  const records = dockerRecords(journal);
  const ipam = new Ipam({ agent, records, log: silent });
  const { call } = createPlugin({ agent, records, ipam, log: silent, scope: 'global' });
  const post = async (method: string, body: Json): Promise<Json> => {
    return structuredClone((await call(method, JSON.stringify(body))).body) as Json;
  };
  const ok = async (method: string, body: Json): Promise<Json> => {
    const answer = await post(method, body);
    assert.equal(answer['Err'], undefined);
    return answer;
  };
  const pool = async (): Promise<string> => {
    const { PoolID: id } = await ok('IpamDriver.RequestPool', { AddressSpace: space, Pool: cidr, Options: null });
    assert.deepEqual(await ok('IpamDriver.RequestAddress', { PoolID: id, Address: '10.7.0.1', Options: gatewayRequest }), {
      Address: '10.7.0.1/29',
      Data: {},
    });
    return String(id);
  };
  /** As the allocator does: it passes no address space on. */
  const allocate = async (network: string, options: Json = {}): Promise<{ manager: string; options: Json }> => {
    const manager = await pool();
    const data = [{ AddressSpace: '', Pool: cidr, Gateway: '10.7.0.1/29' }];
    const { Options } = await ok('NetworkDriver.AllocateNetwork', { NetworkID: network, Options: options, IPv4Data: data, IPv6Data: null });
    return { manager, options: Options as Json };
  };
  /** As an engine does when the first task of a network comes. */
  const create = async (network: string, options: Json): Promise<string> => {
    const engine = await pool();
    await ok('NetworkDriver.CreateNetwork', {
      NetworkID: network,
      Options: { 'com.docker.network.generic': options },
      IPv4Data: [{ AddressSpace: space, Pool: cidr, Gateway: '10.7.0.1/29' }],
    });
    return engine;
  };
  const address = async (id: string, wanted = ''): Promise<unknown> => {
    const answer = await post('IpamDriver.RequestAddress', { PoolID: id, Address: wanted, Options: {} });
    return answer['Address'] ?? /\(([a-z-]+)\)/.exec(String(answer['Err']))?.[1];
  };
  const release = (id: string, ip: string): Promise<Json> => ok('IpamDriver.ReleaseAddress', { PoolID: id, Address: ip });
  return { agent, records, ok, post, allocate, create, address, release };
}

test('networks with one range get addresses of their own, and engines take what was decided', async () => {
  const { agent, allocate, create, address } = start();
  const [one, other] = [await allocate(red), await allocate(blue)];
  assert.deepEqual(
    [await address(one.manager), await address(other.manager), await address(one.manager)],
    ['10.7.0.2/32', '10.7.0.2/32', '10.7.0.3/32'],
  );
  const [first, second] = [await create(red, one.options), await create(blue, other.options)];
  assert.deepEqual([await address(first, '10.7.0.2'), await address(second, '10.7.0.2')], ['10.7.0.2/32', '10.7.0.2/32']);
  assert.equal(agent.networks().length, 2);
  assert.equal(agent.held().length, 2);
});

test('an engine gets addresses of a network that a pass over the Swarm has bound before, also when another of its range comes', async () => {
  const { agent, records, allocate, create, address } = start();
  const [one, other] = [await allocate(red), await allocate(blue)];
  const [network] = agent.networks();
  assert.ok(network !== undefined);
  records.bindings.put(red, { network: network.id, ipam: 'other', origin: 'swarm', confirmed: true, unbinding: false });
  const first = await create(red, one.options);
  assert.equal(records.bindings.get(red)?.ipam, 'causeway');
  await create(blue, other.options);
  assert.equal(await address(first, '10.7.0.2'), '10.7.0.2/32');
});

test('an engine that lets go of an address does not free it for others; the allocator does, and the next one is behind it', async () => {
  const { allocate, create, address, release } = start();
  const { manager, options } = await allocate(red);
  const engine = await create(red, options);
  await address(manager);
  await address(engine, '10.7.0.2');
  await release(engine, '10.7.0.2');
  const rest = [await address(manager), await address(manager), await address(manager), await address(manager)];
  assert.deepEqual(rest, ['10.7.0.3/32', '10.7.0.4/32', '10.7.0.5/32', '10.7.0.6/32']);
  assert.equal(await address(manager), 'exhausted');
  await release(manager, '10.7.0.4');
  assert.equal(await address(manager), '10.7.0.4/32');
});

test('an address that an endpoint anywhere has is not given', async () => {
  const { agent, allocate, create, address, ok } = start();
  const { manager, options } = await allocate(red);
  await create(red, options);
  await ok('NetworkDriver.CreateEndpoint', { NetworkID: red, EndpointID: 'e'.repeat(64), Interface: { Address: '10.7.0.2/32' } });
  assert.equal(agent.localEndpoints().length, 1);
  assert.equal(await address(manager), '10.7.0.3/32');
});

test('a new leader is told everything again, and one that leads again starts from that', async () => {
  const old = start();
  const { options } = await old.allocate(red);
  const leader = start(old.agent, new FakeJournal());
  const again = await leader.allocate(red, options);
  assert.equal(await leader.address(again.manager, '10.7.0.2'), '10.7.0.2/32');
  assert.equal(await leader.address(again.manager), '10.7.0.3/32');
  assert.equal(old.agent.networks().length, 1);
  const back = await old.allocate(red, options);
  assert.equal(await old.address(back.manager, '10.7.0.3'), '10.7.0.3/32');
  assert.equal(await old.address(back.manager), '10.7.0.2/32', 'given before the change of leader, and free since');
});

test('what an engine adds on its own is refused, as every other engine would add the same', async () => {
  const { agent, allocate, create, address, post } = start();
  const { manager, options } = await allocate(red);
  const engine = await create(red, options);
  assert.equal(await address(engine), 'unsupported');
  await address(manager);
  const both = { Address: '10.7.0.2/32', AddressIPv6: 'fd73::2/64' };
  const { Err } = await post('NetworkDriver.CreateEndpoint', { NetworkID: red, EndpointID: 'e'.repeat(64), Interface: both });
  assert.match(String(Err), /both families.*without --ipv6/);
  assert.deepEqual(agent.localEndpoints(), []);
});

test('a task whose address another one still has is refused, and nobody is told of another IPAM driver', async () => {
  const { agent, allocate, ok, post } = start();
  await ok('NetworkDriver.CreateNetwork', {
    NetworkID: red,
    Options: { 'com.docker.network.generic': (await allocate(red)).options },
    IPv4Data: [{ AddressSpace: 'default', Pool: cidr, Gateway: '10.7.0.1/29' }],
  });
  const [{ id } = assert.fail()] = agent.networks();
  await agent.requestAddress(agent.pools(id)[0]?.id ?? '', parseIp('10.7.0.2'), 'f'.repeat(64));
  const { Err } = await post('NetworkDriver.CreateEndpoint', {
    NetworkID: red,
    EndpointID: 'e'.repeat(64),
    Interface: { Address: '10.7.0.2/29' },
  });
  assert.match(String(Err), /10\.7\.0\.2 of network .* is used on another host.*Its task there has ended/);
});

test('a removed network leaves nothing', async () => {
  const { agent, records, allocate, create, address, ok } = start();
  const { manager, options } = await allocate(red);
  const engine = await create(red, options);
  await address(manager);
  await ok('NetworkDriver.DeleteNetwork', { NetworkID: red });
  await ok('IpamDriver.ReleasePool', { PoolID: engine });
  await ok('NetworkDriver.FreeNetwork', { NetworkID: red });
  await ok('IpamDriver.ReleaseAddress', { PoolID: manager, Address: '10.7.0.1' });
  await ok('IpamDriver.ReleasePool', { PoolID: manager });
  await ok('IpamDriver.ReleasePool', { PoolID: manager });
  assert.deepEqual([agent.networks(), records.swarmPools.list(), records.given.list(), records.drafts.list()], [[], [], [], []]);
  assert.equal(await address(manager), 'not-found');
});

test('bad requests are refused', async () => {
  const { allocate, address, post } = start();
  const { manager } = await allocate(red);
  assert.equal(await address(manager, '10.8.0.1'), 'invalid');
  const named = await post('IpamDriver.RequestPool', { AddressSpace: space, Pool: cidr, Options: { 'causeway.network': 'x' } });
  assert.match(String(named['Err']), /\(invalid\)/);
});

test('several pools of one network are asked for with what was said of the first one’s gateway', async () => {
  const { ok } = start();
  const { PoolID: id } = await ok('IpamDriver.RequestPool', { AddressSpace: space, Pool: cidr, Options: gatewayRequest });
  assert.notEqual(id, undefined);
});
