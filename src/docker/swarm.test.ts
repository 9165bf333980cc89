import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Fault } from '#model/fault.ts';
import { parseCidr, parseIp, parseMac } from '#model/ip.ts';
import type { Underlay } from '#model/resources.ts';
import type { EngineMember, EngineOverlay, NetworkCreation } from './engine.ts';
import { FakeAgent } from './fake-agent.ts';
import { silent } from './log.ts';
import { dockerLabels, provisionalName } from './networks.ts';
import { networkOption } from './options.ts';
import { dockerRecords } from './records.ts';
import { clusterLabel, leastMtu, SwarmSync } from './swarm.ts';

/** One engine's view of a Swarm: ids and names of networks are unique in it. */
class FakeEngine {
  readonly listing: EngineOverlay[] = [];
  readonly containers: Map<string, readonly EngineMember[]> = new Map();
  swarm: string | undefined = 'swarm1';
  /** Its Swarm does not answer when it is asked for networks, which the engine keeps to itself. */
  isPartial = false;
  #count = 0;

  managedSwarm(): Promise<string | undefined> {
    return Promise.resolve(this.swarm);
  }
  overlays(drivers: readonly string[]): Promise<readonly EngineOverlay[]> {
    return Promise.resolve(this.isPartial ? [] : this.listing.filter(({ driver }) => drivers.includes(driver)));
  }
  members(id: string): Promise<readonly EngineMember[]> {
    return Promise.resolve(this.containers.get(id) ?? []);
  }
  createNetwork({ name, driver, internal, attachable, ipam, options, labels }: NetworkCreation): Promise<string> {
    if (this.listing.some((one) => one.name === name)) return Promise.reject(new Fault('exists', `${name} exists`));
    const id = `overlay${String(++this.#count).padStart(18, '0')}`;
    this.listing.push({ id, name, driver, internal, attachable, pools: ipam.pools, options, labels });
    return Promise.resolve(id);
  }
  removeNetwork(id: string): Promise<void> {
    if ((this.containers.get(id) ?? []).length > 0) return Promise.reject(new Fault('in-use', 'is in use'));
    this.forget(id);
    return Promise.resolve();
  }
  forget(id: string): void {
    this.listing.splice(0, Infinity, ...this.listing.filter((one) => one.id !== id));
  }
}

function start(engine: FakeEngine = new FakeEngine(), agent: FakeAgent = new FakeAgent(), driver?: string, settleMs = 0) {
  const facts: { mtu: number | undefined } = { mtu: 1450 };
  const records = dockerRecords(agent.journal);
  const sync = new SwarmSync({ agent, records, engine, log: silent, driver, settleMs, underlayMtu: () => facts.mtu });
  return { agent, engine, facts, records, sync };
}

const wish = { model: 'swarm', pools: [{ family: 4, cidr: parseCidr('10.9.0.0/24') }] } as const;
const users: EngineOverlay = {
  id: 'usersnetwork0000000000001',
  name: 'users',
  driver: 'overlay',
  internal: false,
  attachable: true,
  pools: [{ subnet: '10.0.5.0/24', gateway: '10.0.5.1' }],
  options: { 'com.docker.network.driver.overlay.vxlanid_list': '4097' },
  labels: {},
};
const member: EngineMember = { endpoint: 'e'.repeat(64), name: 'web.1.abc', mac: '02:42:0a:00:05:05', addresses: ['10.0.5.5/24'] };

describe('networks that Causeway was asked for', () => {
  test('are made in the Swarm with the MTU that Docker counts from, once', async () => {
    const { agent, engine, sync } = start();
    const network = await agent.createNetwork({ ...wish, name: 'plain' });
    assert.deepEqual(await sync.pass(), [{ id: network.id, name: 'plain', state: 'waiting', message: 'Made in the Swarm just now' }]);
    assert.deepEqual(await sync.pass(), [{ id: network.id, name: 'plain', state: 'ok' }]);
    const [made] = engine.listing;
    assert.deepEqual(made?.options, { 'com.docker.network.driver.mtu': '1450' });
    assert.deepEqual(made.pools, [{ subnet: '10.9.0.0/24', range: undefined, gateway: '10.9.0.1' }]);
    assert.equal(made.labels[networkOption], network.id);
    const { labels } = agent.network(network.id) ?? assert.fail();
    assert.deepEqual([labels[dockerLabels.network], labels[clusterLabel]], [made.id, 'swarm1']);
    assert.equal(engine.listing.length, 1);
  });

  const mtus: [string, { mtu?: number; encrypted?: boolean }, string][] = [
    ['a bound is what containers get', { mtu: 1300 }, '1350'],
    ['a bound above what the underlay leaves changes nothing', { mtu: 9000 }, '1450'],
    ['encryption takes 26 bytes more', { mtu: 1300, encrypted: true }, '1376'],
    ['encrypted and unbounded', { encrypted: true }, '1450'],
  ];
  for (const [title, more, expected] of mtus) {
    test(title, async () => {
      const { agent, engine, sync } = start();
      await agent.createNetwork({ ...wish, ...more, name: 'net' });
      await sync.pass();
      assert.equal(engine.listing[0]?.options['com.docker.network.driver.mtu'], expected);
      assert.equal(engine.listing[0]?.options['encrypted'], more.encrypted === true ? '' : undefined);
    });
  }

  test('wait while no MTU is known, and while no manager is here', async () => {
    const { agent, engine, facts, sync } = start();
    await agent.createNetwork({ ...wish, name: 'net' });
    facts.mtu = undefined;
    assert.equal((await sync.pass())[0]?.state, 'waiting');
    facts.mtu = 1450;
    engine.swarm = undefined;
    assert.deepEqual(await sync.pass(), []);
    assert.equal(engine.listing.length, 0);
  });

  test('are made by one of two managers', async () => {
    const engine = new FakeEngine();
    const agent = new FakeAgent();
    const [one, other] = [start(engine, agent), start(engine, agent)];
    await agent.createNetwork({ ...wish, name: 'net' });
    await Promise.all([one.sync.pass(), other.sync.pass()]);
    await one.sync.pass();
    assert.equal((await other.sync.pass())[0]?.state, 'ok');
    assert.equal(engine.listing.length, 1);
  });

  test('go with their record', async () => {
    const { agent, engine, sync } = start();
    const network = await agent.createNetwork({ ...wish, name: 'net' });
    await sync.pass();
    await sync.pass();
    await agent.removeNetwork(network.id);
    await sync.pass();
    assert.deepEqual(engine.listing, []);
  });

  test('take their record with them', async () => {
    const { agent, engine, sync } = start();
    await agent.createNetwork({ ...wish, name: 'net' });
    await sync.pass();
    await sync.pass();
    engine.forget(engine.listing[0]?.id ?? '');
    await sync.pass();
    assert.deepEqual(agent.networks(), []);
  });

  test('stay when a listing lacks them: that of an engine which has just become a manager, or whose leader goes', async () => {
    const { agent, engine, sync } = start(undefined, undefined, undefined, 60_000);
    const network = await agent.createNetwork({ ...wish, name: 'net' });
    await sync.pass();
    await sync.pass();
    for (const isPartial of [true, true, false]) {
      engine.isPartial = isPartial;
      const message = 'The Swarm does not show it';
      const about = { id: network.id, name: 'net' };
      assert.deepEqual(await sync.pass(), [isPartial ? { ...about, state: 'waiting', message } : { ...about, state: 'ok' }]);
    }
    assert.equal(agent.network(network.id)?.deletedAt, undefined);
  });

  test('are taken for removed only when every listing for some time has lacked them, and a manager has made each', async (t) => {
    let now = 0;
    t.mock.method(performance, 'now', () => now);
    const { agent, engine, sync } = start(undefined, undefined, undefined, 10_000);
    await agent.createNetwork({ ...wish, name: 'net' });
    await sync.pass();
    await sync.pass();
    engine.isPartial = true;
    await sync.pass();
    now = 20_000;
    engine.swarm = undefined;
    await sync.pass();
    engine.swarm = 'swarm1';
    await sync.pass();
    assert.equal(agent.networks().length, 1, 'it was no manager in between');
    now = 29_000;
    await sync.pass();
    assert.equal(agent.networks().length, 1);
    now = 30_000;
    await sync.pass();
    assert.deepEqual(agent.networks(), []);
  });

  test('of another Swarm are left alone', async () => {
    const { agent, engine, sync } = start();
    await agent.createNetwork({ ...wish, name: 'net', labels: { [clusterLabel]: 'swarm2', [dockerLabels.network]: 'x'.repeat(25) } });
    assert.deepEqual(await sync.pass(), []);
    assert.deepEqual([engine.listing.length, agent.networks().length], [0, 1]);
  });
});

describe("networks of Docker's that are there", () => {
  test('are recorded, once, and a bad MTU is told', async () => {
    const { agent, engine, facts, sync } = start();
    engine.listing.push(users);
    await sync.pass();
    const [network, ...others] = agent.networks();
    assert.deepEqual(others, []);
    assert.deepEqual([network?.name, network?.model, network?.attachable, network?.encrypted], ['users', 'swarm', true, false]);
    assert.deepEqual(
      agent.pools(network?.id ?? '').map(({ cidr, gateway }) => [cidr, gateway]),
      [['10.0.5.0/24', '10.0.5.1']],
    );
    const [state] = await sync.pass();
    assert.equal(state?.state, 'problem');
    assert.match(state.message ?? '', /MTU of 1500, but 1450/);
    facts.mtu = 1500;
    assert.equal((await sync.pass())[0]?.state, 'ok');
    assert.equal(agent.networks().length, 1);
  });

  test('are told to be encrypted as Docker reads the option', async () => {
    for (const [value, expected] of [
      ['', true],
      ['true', true],
      ['false', false],
    ] as const) {
      const { agent, engine, sync } = start();
      engine.listing.push({ ...users, options: { encrypted: value } });
      await sync.pass();
      assert.equal(agent.networks()[0]?.encrypted, expected);
    }
  });

  test('whose name another network has are a problem until it is free', async () => {
    const { agent, engine, sync } = start();
    const other = await agent.createNetwork({ name: 'users' });
    engine.listing.push(users);
    assert.deepEqual(
      (await sync.pass()).map(({ name, state }) => [name, state]),
      [['users', 'problem']],
    );
    agent.forgetNetwork(other.id);
    assert.equal((await sync.pass())[0]?.state, 'ok');
  });

  test('stay when the record is removed while a container uses them, and go afterwards', async () => {
    const { agent, engine, sync } = start();
    engine.listing.push(users);
    engine.containers.set(users.id, [member]);
    await sync.pass();
    agent.forgetNetwork(agent.networks()[0]?.id ?? '');
    assert.equal((await sync.pass())[0]?.state, 'problem');
    engine.containers.clear();
    await sync.pass();
    assert.deepEqual([engine.listing, agent.networks()], [[], []]);
  });
});

describe("Causeway's own networks where this agent is the Swarm's plugin", () => {
  const driver = 'causeway:latest';
  const plugin = () => start(new FakeEngine(), new FakeAgent(), driver);
  const made: EngineOverlay = { ...users, id: 'madebydocker0000000000001', name: 'web', driver };
  const label = { [dockerLabels.network]: made.id, [dockerLabels.host]: 'host-a' };

  test('are made in the Swarm with our driver, bound to their record', async () => {
    const { agent, engine, sync } = plugin();
    const network = await agent.createNetwork({ name: 'web', pools: wish.pools });
    await sync.pass();
    const [one] = engine.listing;
    assert.deepEqual([one?.name, one?.driver, one?.options], ['web', driver, { [networkOption]: network.id }]);
    assert.deepEqual(await sync.pass(), [{ id: network.id, name: 'web', state: 'ok' }]);
    await agent.removeNetwork(network.id);
    await sync.pass();
    assert.deepEqual(engine.listing, []);
  });

  test('that were made by Docker get their name', async () => {
    const { agent, engine, sync } = plugin();
    const network = await agent.createNetwork({ name: provisionalName(made.id), labels: label });
    engine.listing.push(made);
    await sync.pass();
    assert.equal(agent.network(network.id)?.name, 'web');
    engine.forget(made.id);
    await sync.pass();
    assert.deepEqual(agent.networks(), []);
  });

  test('whose creation was given up are dropped by the host where that was', async () => {
    const { agent, sync } = plugin();
    await agent.createNetwork({ name: provisionalName(made.id), labels: label });
    const other = await agent.createNetwork({ name: 'docker-other', labels: { ...label, [dockerLabels.host]: 'host-b' } });
    await sync.pass();
    assert.deepEqual(agent.networks(), [other]);
  });

  test('that a Swarm has again after a restore from a backup, and that were removed since, are told with what to do', async () => {
    const { agent, engine, sync } = plugin();
    engine.listing.push(made);
    const [state] = await sync.pass();
    assert.deepEqual([state?.name, state?.state], ['web', 'problem']);
    assert.match(state?.message ?? '', /no task of it starts.*docker network rm web/);
    await agent.createNetwork({ name: 'web', labels: label });
    assert.deepEqual(
      (await sync.pass()).map((one) => one.state),
      ['ok'],
    );
  });

  test('whose record is on its way are waited for', async () => {
    const { engine, sync } = start(new FakeEngine(), new FakeAgent(), driver, 60_000);
    engine.listing.push(made);
    assert.deepEqual(
      (await sync.pass()).map((one) => one.state),
      ['waiting'],
    );
  });

  test('are left alone by an agent that is not the plugin', async () => {
    const { agent, engine, sync } = start();
    await agent.createNetwork({ name: 'web', pools: wish.pools });
    engine.listing.push(made);
    assert.deepEqual(await sync.pass(), []);
    assert.deepEqual([engine.listing.length, agent.networks().length], [1, 1]);
  });
});

describe('members', () => {
  test('are recorded on the host that runs them, also a worker, and forgotten when they end', async () => {
    const { agent, engine, sync } = start();
    engine.listing.push(users);
    await sync.pass();
    engine.swarm = undefined;
    engine.containers.set(users.id, [member]);
    await sync.pass();
    const [endpoint] = agent.localEndpoints();
    assert.deepEqual([endpoint?.name, endpoint?.mac, endpoint?.addresses], ['web.1.abc', parseMac(member.mac), [parseIp('10.0.5.5')]]);
    const calls = agent.calls.length;
    await sync.pass();
    assert.equal(agent.calls.length, calls, 'the same listing again writes nothing');
    engine.listing.splice(0);
    await sync.pass();
    assert.deepEqual(agent.localEndpoints(), []);
  });

  test('an address that nobody knows a pool for is told', async () => {
    const { agent, engine, sync } = start();
    engine.listing.push(users);
    engine.containers.set(users.id, [{ ...member, addresses: ['192.168.7.7/24'] }]);
    const states = await sync.pass();
    assert.deepEqual(
      states.map(({ state }) => state),
      ['ok', 'waiting'],
    );
    assert.deepEqual(agent.localEndpoints(), []);
  });

  test("endpoints of Causeway's own networks are none of its business", async () => {
    const { agent, engine, sync } = start();
    const network = await agent.createNetwork({ name: 'own' });
    await agent.attach({ network: network.id, id: 'f'.repeat(64), owner: 'c', addresses: [], ports: [] });
    engine.listing.push(users);
    await sync.pass();
    assert.equal(agent.localEndpoints().length, 1);
  });
});

test('nothing is done before the agent knows everything', async () => {
  const { agent, engine, sync } = start();
  engine.listing.push(users);
  agent.hasSynced = false;
  assert.deepEqual(await sync.pass(), []);
  assert.deepEqual(agent.networks(), []);
});

const underlay = (ip: string, mtu: number): Underlay => ({ interface: 'eth0', ip: parseIp(ip), subnet: parseCidr('10.0.0.0/8'), mtu });

test('the least MTU is that of the IPv4 underlay of any host', () => {
  assert.equal(
    leastMtu([{ underlay: [underlay('fd00::1', 1280), underlay('10.0.0.1', 1500)] }, { underlay: [underlay('10.0.0.2', 1450)] }]),
    1450,
  );
  assert.equal(leastMtu([{ underlay: [] }]), undefined);
});
