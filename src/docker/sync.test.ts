// What sync does with listings that a real engine gives only in bad moments (dockerd.netns.test.ts has the rest).
import assert from 'node:assert/strict';
import { mkdtempDisposableSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { NetworkRequest, PoolRequest } from '#api/local.ts';
import { Fault, isFault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { Endpoints } from './endpoints.ts';
import type { EngineContainer, EngineNetwork, NetworkCreation } from './engine.ts';
import { FakeAgent } from './fake-agent.ts';
import { Ipam } from './ipam.ts';
import { silent } from './log.ts';
import { dockerLabels, provisionalName } from './networks.ts';
import { dockerRecords } from './records.ts';
import { EngineResolver } from './resolver.ts';
import { EndpointSync } from './sync-endpoints.ts';
import { NetworkSync } from './sync-networks.ts';

class FakeEngine {
  readonly listing: EngineNetwork[] = [];
  readonly running: { id: string; endpoints: readonly string[] }[] = [];
  readonly busy: Set<string> = new Set();
  /** Of each network that was made. */
  readonly families: number[][] = [];
  readonly details: Map<string, EngineContainer> = new Map();

  networks(): Promise<readonly EngineNetwork[]> {
    return Promise.resolve([...this.listing]);
  }
  createNetwork({ name, driver, options, labels, ipv4, ipv6 }: NetworkCreation): Promise<string> {
    this.families.push([...(ipv4 ? [4] : []), ...(ipv6 ? [6] : [])]);
    const id = String(this.listing.length).repeat(64);
    this.listing.push({ id, name, driver, scope: 'local', internal: false, ipamDriver: driver, options, labels });
    return Promise.resolve(id);
  }
  removeNetwork(id: string): Promise<void> {
    if (this.busy.has(id)) return Promise.reject(new Fault('in-use', 'has active endpoints'));
    const index = this.listing.findIndex((network) => network.id === id);
    if (index >= 0) this.listing.splice(index, 1);
    return Promise.resolve();
  }
  containers(): Promise<readonly { id: string; endpoints: readonly string[] }[]> {
    return Promise.resolve(this.running);
  }
  container(id: string): Promise<EngineContainer | undefined> {
    return Promise.resolve(this.details.get(id));
  }
}

const living = '/run/docker/netns/living';

function start(times: { settleMs?: number; lostMs?: number } = {}) {
  const agent = new FakeAgent();
  const records = dockerRecords(agent.journal);
  const engine = new FakeEngine();
  const ipam = new Ipam({ agent, records, log: silent });
  const endpoints = new Endpoints({ agent, records, ipam, log: silent, scope: 'local' });
  const { settleMs = 0, lostMs = 0 } = times;
  const networks = new NetworkSync({ agent, records, engine, log: silent, driver: 'causeway', settleMs });
  const plugin = endpoints;
  const attached = new EndpointSync({ agent, records, endpoints, engine, log: silent, isNetns: (path) => path === living, lostMs });
  return { agent, records, engine, networks, attached, plugin };
}

const pools = [{ family: 4 as const, cidr: parseCidr('10.1.0.0/24') }];
const dockerId = 'd'.repeat(64);
const ours = (more: Partial<EngineNetwork>): EngineNetwork => ({
  id: dockerId,
  name: 'net',
  driver: 'causeway',
  scope: 'local',
  internal: false,
  ipamDriver: 'causeway',
  labels: {},
  options: {},
  ...more,
});

test('nothing is removed before the view is whole', async () => {
  const { agent, engine, networks } = start();
  engine.listing.push(ours({ options: { 'causeway.network': 'network000009' } }));
  agent.hasSynced = false;
  await networks.pass();
  assert.equal(engine.listing.length, 1);
  agent.hasSynced = true;
  await networks.pass();
  assert.equal(engine.listing.length, 0);
});

test('networks of other drivers, and those that live in Docker, are left alone', async () => {
  const { agent, engine, networks } = start();
  engine.listing.push(ours({ driver: 'bridge' }), ours({ driver: 'overlay', scope: 'swarm', id: 'o'.repeat(64) }));
  await agent.createNetwork({ name: 'a', model: 'swarm', pools });
  await agent.createNetwork({ name: 'b', addressing: 'external', pools });
  await networks.pass();
  assert.equal(engine.listing.length, 2);
});

test('another pass changes nothing', async () => {
  const { agent, engine, networks } = start();
  await agent.createNetwork({ name: 'one', pools });
  await networks.pass();
  // This engine does not call the plugin, so the binding is made by the next pass.
  await networks.pass();
  const after = structuredClone([engine.listing, agent.journal.list('')]);
  assert.deepEqual(await networks.pass(), [{ id: 'network000001', name: 'one', state: 'ok' }]);
  assert.deepEqual([engine.listing, agent.journal.list('')], after);
});

test('engines are asked for the families that a network has', async () => {
  const { agent, engine, networks } = start();
  const six = { family: 6 as const, cidr: parseCidr('fd00:1::/64') };
  await agent.createNetwork({ name: 'one', pools });
  await agent.createNetwork({ name: 'two', pools: [...pools, six] });
  await agent.createNetwork({ name: 'three', pools: [six] });
  await networks.pass();
  assert.deepEqual(engine.families, [[4], [4, 6], [6]]);
});

test('a lost journal is made again from labels and options', async () => {
  const { agent, engine, networks, records } = start();
  const mine = await agent.createNetwork({ name: 'net', pools, labels: { [dockerLabels.network]: dockerId } });
  engine.listing.push(ours({}));
  await networks.pass();
  assert.deepEqual(records.bindings.get(dockerId), {
    network: mine.id,
    ipam: 'causeway',
    origin: 'user',
    confirmed: true,
    unbinding: false,
  });
});

test('a creation under way is waited for, one that was given up is removed', async () => {
  const labels = { [dockerLabels.network]: dockerId, [dockerLabels.host]: 'host-a' };
  const waiting = start({ settleMs: 60_000 });
  const made = await waiting.agent.createNetwork({ name: provisionalName(dockerId), pools, labels });
  waiting.records.bindings.put(dockerId, { network: made.id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
  await waiting.networks.pass();
  assert.deepEqual([waiting.engine.listing.length, waiting.agent.networks().length, waiting.records.bindings.list().length], [0, 1, 1]);
  const settled = start();
  await settled.agent.createNetwork({ name: provisionalName(dockerId), pools, labels });
  await settled.networks.pass();
  assert.deepEqual([settled.engine.listing, settled.agent.networks()], [[], []]);
});

test('a copy whose binding outlived its removal in the engine is made again at once; a creation that is under way is told', async () => {
  const { agent, engine, networks, records } = start({ settleMs: 60_000 });
  const { id } = await agent.createNetwork({ name: 'net', pools });
  await networks.pass();
  await networks.pass();
  assert.equal(records.bindings.list()[0]?.record.network, id);
  engine.listing.length = 0;
  await networks.pass();
  assert.deepEqual(
    engine.listing.map(({ name }) => name),
    ['net'],
  );

  const other = await agent.createNetwork({ name: 'other', pools });
  records.bindings.put(dockerId, { network: other.id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
  const states = await networks.pass();
  assert.deepEqual(
    states.map(({ name, state }) => [name, state]),
    [
      ['net', 'ok'],
      ['other', 'waiting'],
    ],
  );
});

test("another host's network is made once its name is known", async () => {
  const { agent, engine, networks } = start({ settleMs: 60_000 });
  const labels = { [dockerLabels.network]: dockerId, [dockerLabels.host]: 'host-b', colour: 'red' };
  const made = await agent.createNetwork({ name: provisionalName(dockerId), pools, labels });
  assert.equal((await networks.pass())[0]?.state, 'waiting');
  await agent.renameNetwork(made.id, 'shop');
  await networks.pass();
  assert.deepEqual(
    engine.listing.map(({ name, labels: shown }) => [name, shown]),
    [['shop', { colour: 'red' }]],
  );
});

test('a copy follows a new name when nobody uses it', async () => {
  const { agent, engine, networks, records } = start();
  const made = await agent.createNetwork({ name: 'old', pools });
  await networks.pass();
  const id = engine.listing[0]?.id ?? '';
  records.bindings.put(id, { network: made.id, ipam: 'causeway', origin: 'sync', confirmed: true, unbinding: false });
  await agent.renameNetwork(made.id, 'new');
  engine.busy.add(id);
  assert.equal((await networks.pass())[0]?.state, 'problem');
  assert.equal(records.bindings.get(id)?.unbinding, false);
  engine.busy.clear();
  await networks.pass();
  assert.deepEqual(
    engine.listing.map(({ name }) => name),
    ['new'],
  );
});

test('two engine networks for one network are reported', async () => {
  const { agent, engine, networks } = start();
  const made = await agent.createNetwork({ name: 'net', pools });
  const options = { 'causeway.network': made.id };
  engine.listing.push(ours({ options }), ours({ options, id: 'e'.repeat(64) }));
  assert.deepEqual((await networks.pass()).map(({ state }) => state).sort(), ['ok', 'problem']);
});

/** With one endpoint, which the engine lists nowhere. */
async function startAttached(sandbox: string, lostMs: number): Promise<ReturnType<typeof start>> {
  const started = start({ lostMs });
  const { agent, records } = started;
  const { id: network } = await agent.createNetwork({ name: 'net', pools });
  const ip = await agent.requestAddress(agent.pools(network)[0]?.id ?? '');
  await agent.attach({ network, id: 'e'.repeat(64), owner: 'c', addresses: [ip], ports: [] });
  records.attachments.put('e'.repeat(64), { claims: [], lengths: [{ ip: parseIp('10.1.0.2'), length: 32 }], sandbox });
  return started;
}

test('a lost endpoint is detached with its address, a listed or fresh one is not', async () => {
  for (const [lostMs, listed, left] of [
    [0, false, 0],
    [0, true, 1],
    [60_000, false, 1],
  ] as const) {
    const { agent, records, engine, attached } = await startAttached('/run/no/such/sandbox', lostMs);
    if (listed) engine.running.push({ id: 'c'.repeat(64), endpoints: ['e'.repeat(64)] });
    await attached.pass();
    assert.deepEqual([agent.localEndpoints().length, agent.held().length, records.attachments.list().length], [left, left, left]);
  }
});

test('a lost endpoint is waited for while its namespace is there, which a file that an engine has left is not', async (t) => {
  const clock = t.mock.method(performance, 'now', () => 0);
  for (const [sandbox, left] of [
    ['/run/docker/netns/leftover', 0],
    [living, 1],
  ] as const) {
    const { agent, attached } = await startAttached(sandbox, 30_000);
    for (const ms of [0, 30_000]) {
      clock.mock.mockImplementation(() => ms);
      await attached.pass();
    }
    assert.deepEqual([agent.localEndpoints().length, agent.held().length], [left, left]);
  }
});

test('what a container had whose namespace is gone is free again seconds after the engine has lost it, what one had that is started is not', async (t) => {
  const clock = t.mock.method(performance, 'now', () => 0);
  for (const [sandbox, left] of [
    ['/run/docker/netns/gone', 0],
    [undefined, 1],
    [living, 1],
  ] as const) {
    const { agent, records, attached } = await startAttached('', 30_000);
    records.attachments.put('e'.repeat(64), { claims: [], lengths: [], sandbox });
    for (const ms of [0, 2_000]) {
      clock.mock.mockImplementation(() => ms);
      await attached.pass();
    }
    assert.deepEqual([agent.localEndpoints().length, agent.held().length], [left, left]);
  }
});

for (const [servers, ips, told] of [
  ['host(127.0.0.1) host(127.0.0.53)', ['10.1.0.9'], 'answered first'],
  ['host(192.0.2.1)', ['10.1.0.9', 'fd00:1::9'], 'answered first'],
  ['host(192.0.2.1)', ['fd00:1::9'], 'told, until it is gone'],
  ['192.0.2.1', ['10.1.0.9'], 'well'],
] as const) {
  test(`a container with ${ips.join(' ')} whose questions go to ${servers} is ${told}`, async (t) => {
    const folder = mkdtempDisposableSync(join(tmpdir(), 'causeway-sync-'));
    t.after(() => folder.remove());
    const resolvConf = join(folder.path, 'resolv.conf');
    writeFileSync(resolvConf, `nameserver 127.0.0.11\n\n# ExtServers: [${servers}]\n# Overrides: []\n`);
    const { agent, engine, attached } = start({ lostMs: 60_000 });
    const made = await agent.createNetwork({ name: 'net', pools: [...pools, { family: 6, cidr: parseCidr('fd00:1::/64') }] });
    const endpoint = 'e'.repeat(64);
    await agent.attach({ network: made.id, id: endpoint, owner: 'c', addresses: ips.map((ip) => parseIp(ip)), ports: [] });
    await agent.join(endpoint, '/netns/1');
    const id = 'c'.repeat(64);
    engine.running.push({ id, endpoints: [endpoint] });
    engine.details.set(id, { id, name: 'box', isRunning: true, resolvConf, endpoints: [{ id: endpoint, network: dockerId, names: [] }] });
    for (const _ of [1, 2]) {
      assert.deepEqual(await attached.pass(), []);
      assert.deepEqual(
        attached.notices.map((text) => text.split(' ')[0]),
        told.startsWith('told') ? ['box'] : [],
      );
    }
    assert.deepEqual(
      agent.calls.filter(([name]) => name === 'answerFirst'),
      [['answerFirst', endpoint, servers.startsWith('host')]],
    );
    engine.running.pop();
    await attached.pass();
    assert.deepEqual(attached.notices, []);
  });
}

test("where the engine's files are not seen, what its version does by itself is taken for true", async () => {
  for (const [version, isPast] of [
    ['26.1.5', false],
    ['28.3.0', true],
  ] as const) {
    const { agent, engine, records, attached } = start({ lostMs: 60_000 });
    new EngineResolver(records).began(version);
    const made = await agent.createNetwork({ name: 'net', pools });
    const [endpoint, id] = ['e'.repeat(64), 'c'.repeat(64)];
    await agent.attach({ network: made.id, id: endpoint, owner: 'c', addresses: [parseIp('10.1.0.9')], ports: [] });
    await agent.join(endpoint, '/netns/1');
    engine.running.push({ id, endpoints: [endpoint] });
    const resolvConf = '/nowhere/resolv.conf';
    engine.details.set(id, { id, name: 'box', isRunning: true, resolvConf, endpoints: [{ id: endpoint, network: dockerId, names: [] }] });
    await attached.pass();
    assert.deepEqual(
      agent.calls.filter(([name]) => name === 'answerFirst'),
      [['answerFirst', endpoint, isPast]],
    );
    assert.equal(new EngineResolver(records).asksPast(), isPast);
  }
});

test('endpoints of other front ends are not ours to detach', async () => {
  const { agent, attached } = start();
  const made = await agent.createNetwork({ name: 'net', pools });
  await agent.attach({ network: made.id, id: 'f'.repeat(64), owner: 'pod', addresses: [], ports: [] });
  await attached.pass();
  assert.equal(agent.localEndpoints().length, 1);
});

const makeBoth = async (there: Partial<NetworkRequest>, here: Partial<NetworkRequest>) => {
  const made = start();
  const { agent, engine, records } = made;
  const first = await agent.createNetwork({ name: 'net', pools, ...there });
  const late = await agent.createNetwork({ name: provisionalName(dockerId), pools, ...here });
  engine.listing.push(ours({}));
  records.bindings.put(dockerId, { network: late.id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
  return { ...made, first, late };
};
const chosen = (cidr: string, more: Partial<PoolRequest> = {}): Partial<NetworkRequest> => ({
  pools: [{ family: 4, cidr: parseCidr(cidr), ...more }],
  labels: { [dockerLabels.subnets]: cidr },
});

const differing: readonly (readonly [what: string, there: Partial<NetworkRequest>, here: Partial<NetworkRequest>, told: RegExp])[] = [
  ['subnet', {}, chosen('10.2.0.0/24'), /subnet: 10\.1\.0\.0\/24 there, 10\.2\.0\.0\/24 here/],
  ['gateway', {}, chosen('10.1.0.0/24', { gateway: parseIp('10.1.0.254') }), /subnet: .* there, .*gateway 10\.1\.0\.254 here/],
  ['range', {}, chosen('10.1.0.0/24', { range: parseCidr('10.1.0.128/25') }), /ip-range 10\.1\.0\.128\/25, .*here/],
  ['reserved', {}, chosen('10.1.0.0/24', { reserved: { router: parseIp('10.1.0.9') } }), /aux-address router=10\.1\.0\.9 here/],
  ['IPv6', {}, { pools: [...pools, { family: 6, cidr: parseCidr('fd00:1::/64') }] }, /IPv6: no there, yes here/],
  ['internal', { internal: true }, {}, /internal: yes there, no here/],
  ['mtu', {}, { mtu: 1300 }, /mtu: automatic there, 1300 here/],
  ['tenant', { tenant: 'red' }, {}, /tenant: red there, default here/],
  ['carriage', {}, { carry: 'wireguard' }, /carry: vxlan there, wireguard here/],
  ['labels', { labels: { team: 'red' } }, {}, /labels: team=red there, none here/],
];
for (const [what, there, here, told] of differing) {
  test(`of two networks made under one name, with different ${what}, both stay, it is told, and no container joins the wrong one`, async () => {
    const { agent, records, networks, plugin, first, late } = await makeBoth(there, here);
    const [state] = await networks.pass();
    assert.equal(state?.state, 'problem');
    assert.match(state?.message ?? '', told);
    assert.equal(agent.networks().filter(({ deletedAt }) => deletedAt === undefined).length, 2);
    await assert.rejects(
      plugin.create({
        NetworkID: dockerId,
        EndpointID: 'e'.repeat(64),
        Interface: {},
        Options: { ports: [], isIpv6Elsewhere: false, disablesIpv6: false },
      }),
      (error) => isFault(error, 'exists') && told.test(error.message),
    );
    assert.deepEqual(agent.localEndpoints(), []);
    // It becomes the network of its name when the other one goes.
    await agent.removeNetwork(first.id);
    await networks.pass();
    assert.equal(agent.network(late.id)?.name, 'net');
    assert.equal(records.bindings.get(dockerId)?.conflict, undefined);
  });
}

test('a name that another network has is no conflict before this host knows which network that is', async () => {
  const { agent, records, networks, first } = await makeBoth({}, chosen('10.2.0.0/24'));
  const known = agent.networks.bind(agent);
  const rename = agent.renameNetwork.bind(agent);
  // The controller's refusal is quicker than its news.
  agent.networks = () => known().filter(({ id }) => id !== first.id);
  agent.renameNetwork = () => Promise.reject(new Fault('exists', 'Network net exists'));
  const [state] = (await networks.pass()).filter(({ id }) => id !== first.id);
  assert.equal(state?.state, 'waiting');
  assert.equal(records.bindings.get(dockerId)?.conflict, undefined);
  Object.assign(agent, { networks: known, renameNetwork: rename });
  assert.match((await networks.pass())[0]?.message ?? '', /subnet: 10\.1\.0\.0\/24 there, 10\.2\.0\.0\/24 here/);
});

test('of two networks made under one name, with what nobody chose different, the late one gives way', async () => {
  for (const here of [{}, { pools: [{ family: 4 as const, cidr: parseCidr('10.2.0.0/24') }] }, chosen('10.1.0.0/24')]) {
    const { engine, networks } = await makeBoth({}, here);
    await networks.pass();
    assert.deepEqual(
      engine.listing.filter(({ id }) => id === dockerId),
      [],
    );
  }
});
