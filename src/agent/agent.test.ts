// Whole agents, on kernels in memory, beside a real controller on loopback.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Client } from '#api/client.ts';
import { joinCluster } from '#api/join-cluster.ts';
import { openController } from '#controller/controller.ts';
import { silentLog } from '#controller/log.ts';
import { startServer } from '#controller/server.ts';
import { createToken } from '#controller/tokens.ts';
import { createFakeKinds, type FakeKinds } from '#kernel/fake.ts';
import { kernelFault } from '#kernel/libc.ts';
import { Fault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Host, Snapshot, Underlay } from '#model/resources.ts';
import { MemoryStore } from '#store/memory.ts';
import type { Operation } from '#store/store.ts';
import { Agent, type AgentOptions, beginRecovery, type Log } from './agent.ts';
import { controllerOf } from './controller.ts';
import { MemoryJournal } from './journal.ts';

async function eventually<T>(look: () => T | undefined | false, what: string): Promise<T> {
  for (const end = performance.now() + 10_000; performance.now() < end; await setTimeout(5)) {
    const seen = look();
    if (seen !== undefined && seen !== false) return seen;
  }
  return assert.fail(`Not within ten seconds: ${what}`);
}

/** A controller that can go away and come back at the same address. */
class Cluster {
  store = new MemoryStore();
  #running: AsyncDisposableStack | undefined;
  port = 0;

  async up(): Promise<void> {
    const stack = new AsyncDisposableStack();
    this.#running = stack;
    const controller = stack.use(await openController({ store: this.store, log: silentLog, version: '0.0.0' }));
    const server = stack.use(await startServer(controller, { host: '127.0.0.1', port: this.port, names: [] }));
    this.port = server.port;
    this.token = async () => (await createToken(controller.control, { type: 'join' })).token;
  }

  async down(): Promise<void> {
    await this.#running?.disposeAsync();
    this.#running = undefined;
  }

  /** What a backup would hold. */
  async backUp(): Promise<Operation[]> {
    const { entries } = await this.store.list('');
    return entries.map(({ key, value }) => ({ type: 'put', key, value }));
  }

  /** Comes back with nothing but what the backup holds, and with an older revision. */
  async restore(backup: readonly Operation[]): Promise<void> {
    await this.down();
    this.store = new MemoryStore();
    await this.store.commit(backup);
    await this.up();
  }

  token: () => Promise<string> = () => Promise.reject(new Error('down'));

  get urls(): string[] {
    return [`https://127.0.0.1:${this.port}`];
  }
}

/** What outlives an agent: its disk, its kernel, who it is. */
class Machine {
  readonly journal = new MemoryJournal();
  readonly kinds: FakeKinds = createFakeKinds();
  readonly client: Client;
  readonly host: Host;
  readonly underlay: Underlay;
  readonly said: string[] = [];
  boot = 'first';
  agent: Agent | undefined;

  constructor(client: Client, host: Host, index: number) {
    this.client = client;
    this.host = host;
    this.underlay = { interface: 'eth0', ip: parseIp(`10.213.0.${index}`), subnet: parseCidr('10.213.0.0/16'), mtu: 1450 };
  }

  static async join(cluster: Cluster, name: string, index: number): Promise<Machine> {
    const joined = await joinCluster({ urls: cluster.urls, token: await cluster.token(), host: name, version: '0.0.0' });
    const credentials = { type: 'certificate', certificate: joined.certificate, key: joined.key } as const;
    return new Machine(new Client({ urls: cluster.urls, ca: joined.ca, credentials }), joined.host, index);
  }

  start(options: Partial<AgentOptions> = {}): Agent {
    let ids = 0;
    const say = (_: object, message: string): void => void this.said.push(message);
    const log: Log = { debug: () => undefined, info: say, warn: say, error: say };
    const agent: Agent = new Agent({
      host: this.host.name,
      generation: this.host.generation,
      version: '0.0.0',
      journal: this.journal,
      kinds: this.kinds,
      controller: controllerOf(this.client, this.host.name, (id) => agent.local.network(id)),
      clock: { now: () => Date.now(), after: () => () => undefined },
      log,
      newId: () => `${this.host.name}${process.pid}${(ids += 1)}${Date.now()}`,
      underlay: () => [this.underlay],
      hostRoutes: () => ({ routes: [], bridges: [] }),
      features: {},
      boot: this.boot,
      ...options,
    });
    this.agent = agent;
    agent.start();
    return agent;
  }

  async stop(): Promise<void> {
    await this.agent?.[Symbol.asyncDispose]();
    this.agent = undefined;
  }
}

async function bed(t: TestContext, names: readonly string[] = ['a', 'b']) {
  const cluster = new Cluster();
  await cluster.up();
  const machines: Machine[] = [];
  for (const [index, name] of names.entries()) machines.push(await Machine.join(cluster, name, index + 1));
  t.after(async () => {
    for (const machine of machines) {
      await machine.stop();
      await machine.client[Symbol.asyncDispose]();
    }
    await cluster.down();
  });
  const [a, b] = machines;
  assert.ok(a !== undefined);
  return { cluster, machines, a, b: b ?? a };
}

const id = (number: number): string => number.toString(16).padStart(2, '0').repeat(32);
async function run(agent: Agent, network: string, number: number): Promise<string> {
  const { addresses } = await agent.local.attach({ network, id: id(number), owner: `box-${number}`, addresses: [], ports: [] });
  await agent.local.join(id(number), `/run/sandbox/${number}`);
  return addresses[0] ?? assert.fail('no address');
}
const isReady = (agent: Agent): boolean =>
  agent.status().synced && agent.view.snapshot.hosts.get(agent.status().host)?.status.ready === true;
/** An agent that is ready, with a network of that id and one endpoint in it that the cluster knows. */
async function startWithOne(machine: Machine): Promise<{ agent: Agent; network: string }> {
  const agent = machine.start();
  await eventually(() => isReady(agent), 'ready');
  const { id: network } = await agent.local.createNetwork({ name: 'web' });
  await run(agent, network, 1);
  await eventually(() => agent.view.snapshot.endpoints.size === 1, 'published');
  return { agent, network };
}
const routesOf = ({ kinds }: Machine, network: string): string[] => kinds.route.list(`cw-${network}`).map(({ destination }) => destination);

test('agents become ready, know of each other, and carry to the blocks of each other', async (t) => {
  const { a, b } = await bed(t);
  const [one, two] = [a.start(), b.start()];
  await eventually(() => isReady(one) && isReady(two), 'both are ready');
  const { id: network } = await one.local.createNetwork({ name: 'web' });
  await eventually(() => two.local.network(network), 'the other knows the network');
  await run(one, network, 1);
  await run(two, network, 2);
  const [blockOne, blockTwo] = await eventually(() => {
    const blocks = [...one.view.snapshot.blocks.values()];
    return blocks.length >= 2 && ['a', 'b'].map((host) => blocks.find((block) => block.host === host)?.cidr ?? '');
  }, 'two blocks');
  await eventually(() => routesOf(a, network).includes(blockTwo ?? ''), 'a reaches the block of b');
  await eventually(() => routesOf(b, network).includes(blockOne ?? ''), 'b reaches the block of a');
  await eventually(() => two.view.snapshot.endpoints.size === 2 && one.view.snapshot.endpoints.size === 2, 'both know both endpoints');
  assert.deepEqual([one.status().failing, one.status().refused], [[], []]);
  await one.local.detach(id(1));
  await two.local.detach(id(2));
  await eventually(() => a.kinds.netns.list('').length === 0 && b.kinds.netns.list('').length === 0, 'nothing is left in the kernels');
  await eventually(() => one.view.snapshot.endpoints.size === 0, 'nor in the cluster');
});

test('an agent is ready only after each sort of packet to other hosts was tried, and says so at once then', async (t) => {
  const { a } = await bed(t, ['a']);
  const prober = {
    hasTriedAll: false,
    paths: () => ({ tried: 0, passing: 0, lost: [], narrow: [] }),
    narrowed: (facts: Snapshot) => facts,
  };
  const agent = a.start({ prober });
  const self = (): Host | undefined => agent.view.snapshot.hosts.get('a');
  await eventually(() => agent.status().synced && self()?.status.paths !== undefined, 'it to have reported');
  assert.equal(self()?.status.ready, false);
  prober.hasTriedAll = true;
  agent.loop.kick();
  await eventually(() => isReady(agent), 'ready');
});

test('another agent on the same host writes nothing, and nothing is removed before it knows everything', async (t) => {
  const { a } = await bed(t, ['a']);
  await startWithOne(a);
  await a.stop();
  const before = a.kinds.writes;
  const second = a.start();
  await eventually(() => isReady(second), 'ready again');
  second.loop.suspectAll();
  const { runs } = second.status();
  await eventually(() => second.status().runs > runs, 'another run');
  assert.equal(a.kinds.writes, before);
  assert.ok(second.status().inForce);
});

test('with the controller away containers come and go; afterwards the cluster knows', async (t) => {
  const { cluster, a } = await bed(t, ['a']);
  const { agent: one, network } = await startWithOne(a);
  await cluster.down();
  await eventually(() => !one.status().connected, 'the agent has noticed');
  const ip = await run(one, network, 2);
  assert.ok(routesOf(a, network).includes(`${ip}/32`));
  await one.local.detach(id(1));
  await assert.rejects(one.local.createNetwork({ name: 'other' }), { code: 'unavailable' });
  await cluster.up();
  await eventually(() => [...one.view.snapshot.endpoints.keys()].join(' ') === id(2), 'the cluster knows what happened');
});

test('an agent that starts while no controller answers knows what it knew, keeps everything and takes containers', async (t) => {
  const { cluster, a } = await bed(t, ['a']);
  const { network } = await startWithOne(a);
  await a.stop();
  await cluster.down();
  const before = a.kinds.writes;
  const second = a.start();
  await eventually(() => second.status().runs > 0, 'a run');
  assert.equal(second.status().inForce, false);
  assert.deepEqual([a.kinds.writes - before, second.status().synced, second.local.networks().map(({ name }) => name)], [0, false, ['web']]);
  const ip = await run(second, network, 2);
  assert.ok(routesOf(a, network).includes(`${ip}/32`));
});

test('after the machine was off no container of before has an endpoint, and their addresses are free', async (t) => {
  const { a } = await bed(t, ['a']);
  await startWithOne(a);
  await a.stop();
  a.boot = 'second';
  const second = a.start();
  assert.deepEqual(second.local.localEndpoints(), []);
  await eventually(() => isReady(second) && second.view.snapshot.endpoints.size === 0, 'the cluster knows');
  assert.deepEqual(a.kinds.netns.list(''), []);
});

test('a damaged view is told, and made good by the controller; nothing is removed meanwhile', async (t) => {
  const { a } = await bed(t, ['a']);
  const { network } = await startWithOne(a);
  await a.stop();
  a.journal.put(`view/networks/${network}`, { id: network });
  const before = a.kinds.writes;
  a.said.length = 0;
  const second = a.start();
  assert.ok(a.said.some((message) => message.startsWith('cannot read what was kept of the cluster')));
  await eventually(() => isReady(second), 'ready again');
  assert.deepEqual([a.kinds.writes - before, routesOf(a, network).length > 0], [0, true]);
});

test('a refusal of the kernel is reported to the controller at once, with what is refused, and withdrawn', async (t) => {
  const { a } = await bed(t, ['a']);
  const refusing = { is: true };
  const link: FakeKinds['link'] = {
    ...a.kinds.link,
    add: (items) => (refusing.is ? items.map((item) => ({ item, fault: kernelFault('add link', 'ENOBUFS') })) : a.kinds.link.add(items)),
  };
  const agent = a.start({ kinds: { ...a.kinds, link } });
  await eventually(() => isReady(agent), 'ready');
  const { id: network } = await agent.local.createNetwork({ name: 'web' });
  const { addresses } = await agent.local.attach({ network, id: id(1), owner: 'box-1', addresses: [], ports: [] });
  assert.equal(addresses.length, 1);
  agent.endpoints.put({ ...(agent.endpoints.get(id(1)) ?? assert.fail()), sandbox: '/run/sandbox/1' });
  const told = await untilTold(a, ({ ready }) => !ready);
  assert.match(told.failing.join(), /ENOBUFS/);
  refusing.is = false;
  await untilTold(a, ({ ready }) => ready);
  assert.deepEqual(agent.status().failing, []);
});

/** What the controller has been told of the host, as soon as it is so. */
async function untilTold({ client }: Machine, fits: (status: Host['status']) => boolean): Promise<Host['status']> {
  for (let tries = 0; tries < 200; tries++) {
    const { status } = await client.get('hosts', 'a');
    if (fits(status)) return status;
    await setTimeout(20);
  }
  return assert.fail('not told');
}

test('a changed underlay is reported, and planned with', async (t) => {
  const { a } = await bed(t, ['a']);
  let mtu = 1450;
  const agent = a.start({ underlay: () => [{ ...a.underlay, mtu }] });
  await eventually(() => isReady(agent), 'ready');
  const { id: network } = await agent.local.createNetwork({ name: 'web' });
  await run(agent, network, 1);
  const mtus = () => a.kinds.link.list(`cw-${network}`).flatMap(({ name, mtu: size }) => (name.startsWith('cwe') ? [size] : []));
  assert.deepEqual(mtus(), [1400]);
  mtu = 1400;
  await a.stop();
  a.start({ underlay: () => [{ ...a.underlay, mtu }] });
  await eventually(() => mtus().join(' ') === '1350', 'the smaller packets');
});

test('a disk that is full stops nothing that runs; what could not be taken in is taken in later', async (t) => {
  const { a } = await bed(t, ['a']);
  const agent = a.start();
  await eventually(() => isReady(agent), 'ready');
  const { id: network } = await agent.local.createNetwork({ name: 'web' });
  const [pool] = agent.local.pools(network);
  assert.ok(pool !== undefined);
  const full = t.mock.method(a.journal, 'put', () => {
    throw new Fault('unavailable', 'The disk is full');
  });
  const block = await a.client.claimBlock({ network, pool: pool.id, host: 'a' });
  await eventually(() => a.said.some((message) => message.startsWith('cannot take in the address blocks')), 'told');
  await assert.rejects(agent.local.attach({ network, id: id(1), owner: 'box-1', addresses: [], ports: [] }), { code: 'unavailable' });
  assert.deepEqual([agent.local.localEndpoints(), agent.status().connected], [[], true]);
  full.mock.restore();
  await eventually(() => a.journal.get(`address-block/${block.id}`) !== undefined, 'the block is taken in');
  await run(agent, network, 1);
});

test('an interface that loses its address for a moment takes no tunnel down, and is told to nobody', async (t) => {
  const { a, b } = await bed(t);
  let isUp = true;
  const agent = a.start({ underlay: () => (isUp ? [a.underlay] : []) });
  const other = b.start();
  await eventually(() => isReady(agent) && isReady(other), 'ready');
  const { id: network } = await agent.local.createNetwork({ name: 'web' });
  await eventually(() => other.local.network(network), 'the other knows the network');
  await run(agent, network, 1);
  await run(other, network, 2);
  await eventually(() => routesOf(a, network).some((route) => route.endsWith('/27')), 'the other block is routed');
  const routes = routesOf(a, network);
  isUp = false;
  await a.stop();
  const before = a.kinds.writes;
  const second = a.start({ underlay: () => (isUp ? [a.underlay] : []) });
  await eventually(() => isReady(second), 'ready again');
  assert.deepEqual([a.kinds.writes - before, routesOf(a, network)], [0, routes]);
  assert.ok(a.said.some((message) => message.startsWith('the underlay has lost its address')));
  assert.deepEqual((await a.client.get('hosts', 'a')).underlay, [a.underlay]);
});

test('a network whose records are lost is kept while a container is in it, over a restart too, and told; then it goes', async (t) => {
  const { cluster, a } = await bed(t, ['a']);
  const { agent, network } = await startWithOne(a);
  const { entries } = await cluster.store.list('');
  const lost = entries.filter(({ key, value }) => key.includes(network) || JSON.stringify(value).includes(network));
  const before = a.kinds.writes;
  await cluster.store.commit(lost.map(({ key }) => ({ type: 'delete', key })));
  await eventually(() => agent.status().failing.some((line) => line.includes('knows network web')), 'told');
  assert.deepEqual([a.kinds.writes - before, agent.view.snapshot.networks.size], [0, 0]);
  await a.stop();
  const second = a.start();
  await eventually(() => second.status().synced && second.status().runs > 0, 'a run that may remove');
  assert.deepEqual([a.kinds.writes - before, second.facts.networks.get(network)?.name], [0, 'web']);
  await untilTold(a, ({ failing }) => failing.some((line) => line.includes('knows network web')));
  await second.local.detach(id(1));
  await eventually(() => a.kinds.netns.list('').length === 0, 'it has gone with its last container');
  assert.deepEqual([second.status().failing, a.journal.list('kept/')], [[], []]);
});

test('a clock that is wrong is told here and to the controller, and withdrawn when it is right', async (t) => {
  const { a } = await bed(t, ['a']);
  let skewMs = 0;
  const agent: Agent = a.start({
    controller: { ...controllerOf(a.client, 'a', (name) => agent.local.network(name)), skewMs: () => skewMs },
  });
  await eventually(() => isReady(agent), 'ready');
  assert.deepEqual(agent.status().failing, []);
  await a.stop();
  skewMs = -7_200_000;
  const second: Agent = a.start({
    controller: { ...controllerOf(a.client, 'a', (name) => second.local.network(name)), skewMs: () => skewMs },
  });
  const told = await untilTold(a, ({ failing }) => failing.length > 0);
  assert.match(told.failing.join(), /clock of this host is 2 h behind the controller's/);
  assert.ok(a.said.includes('the clock is wrong'));
  assert.equal(told.applied, told.desired);
  skewMs = 30_000;
  assert.deepEqual(second.status().failing, []);
});

test('after its journal was lost an agent removes nothing before the rest of what runs has been taken up', async (t) => {
  const { a } = await bed(t, ['a']);
  const agent = a.start();
  await eventually(() => isReady(agent), 'ready');
  const { id: network } = await agent.local.createNetwork({ name: 'web' });
  const ip = await run(agent, network, 1);
  await eventually(() => agent.view.snapshot.endpoints.size === 1, 'published');
  await a.stop();
  for (const { key } of a.journal.list('')) a.journal.delete(key);
  beginRecovery(a.journal);
  const links = a.kinds.link.list(`cw-${network}`).length;
  const second = a.start();
  await eventually(() => isReady(second), 'ready again');
  assert.deepEqual([second.isRecovering, a.kinds.link.list(`cw-${network}`).length], [true, links]);
  const pool = await eventually(() => second.local.pools(network)[0], 'the range of the network is known again');
  await second.local.requestAddress(pool.id, parseIp(ip), id(1));
  await second.local.attach({ network, id: id(1), owner: 'box-1', addresses: [parseIp(ip)], ports: [] });
  await second.local.join(id(1), '/run/sandbox/1');
  second.recovered();
  await eventually(() => second.view.snapshot.endpoints.get(id(1))?.sequence === second.local.localEndpoint(id(1))?.sequence, 'published');
  assert.deepEqual(
    [second.isRecovering, a.kinds.link.list(`cw-${network}`).length, second.local.localEndpoints().length],
    [false, links, 1],
  );
  await second.local.detach(id(1));
  await eventually(() => a.kinds.netns.list('').length === 0 && second.view.snapshot.endpoints.size === 0, 'it can go');
});

/** Two hosts of one network, of which the backup lacks the block of the other. */
async function backedUp(t: TestContext) {
  const { cluster, a, b } = await bed(t);
  const [one, two] = [a.start(), b.start()];
  await eventually(() => isReady(one) && isReady(two), 'both are ready');
  const { id: network } = await one.local.createNetwork({ name: 'web' });
  await eventually(() => two.local.network(network), 'the other knows the network');
  const backup = await cluster.backUp();
  const held = await run(two, network, 2);
  await eventually(() => two.view.snapshot.endpoints.size === 1, 'published');
  const cidr = [...two.view.snapshot.blocks.values()].find(({ host }) => host === 'b')?.cidr;
  return { cluster, b, one, two, network, backup, held, cidr };
}

test('a host that was off while the store was restored, and comes to a later revision, claims its block again, too', async (t) => {
  const { cluster, b, two, network, backup, held, cidr } = await backedUp(t);
  const { revision } = two.view;
  await two[Symbol.asyncDispose]();
  await cluster.restore(backup);
  for (let more = 0; more <= revision; more++) await cluster.store.commit([{ type: 'put', key: 'guards/more', value: more }]);
  const again = b.start();
  await eventually(() => again.view.isSynced && again.view.revision > revision, 'the later state');
  await eventually(() => again.view.snapshot.endpoints.size === 1, 'published again');
  assert.deepEqual(
    [...again.view.snapshot.blocks.values()].map((block) => [block.host, block.cidr]),
    [['b', cidr]],
  );
  assert.notEqual(await run(again, network, 3), held);
  assert.deepEqual(again.status().refused, []);
});

test('a store restored from a backup that lacks a block: it is claimed again, and no other host gives its addresses', async (t) => {
  const { cluster, one, two, network, backup, held, cidr } = await backedUp(t);
  for (let more = 0; more < 100; more++) await cluster.store.commit([{ type: 'put', key: 'guards/more', value: more }]);
  await one.local.createNetwork({ name: 'later' });
  await eventually(() => [one, two].every(({ view }) => view.revision > 100), 'the newest revision');
  await cluster.restore(backup);
  await eventually(() => [one, two].every(({ view }) => view.revision < 100), 'the older state');
  await eventually(() => two.view.snapshot.endpoints.size === 1, 'published again');
  assert.deepEqual(
    [...two.view.snapshot.blocks.values()].map((block) => [block.host, block.cidr]),
    [['b', cidr]],
  );
  assert.notEqual(await run(one, network, 1), held);
  assert.notEqual(await run(two, network, 3), held);
  await eventually(() => one.view.snapshot.endpoints.size === 3, 'all are known');
  assert.deepEqual([one.status().refused, two.status().refused], [[], []]);
});
