// Port pools between an agent and a controller, on a server that keeps them and a cloud that makes whatever it is asked for: what is
// wanted is there after a while, with ports before it is told, and goes with whoever wanted it.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, type Ip, parseCidr, parseIp } from '#model/ip.ts';
import type { Block } from '#model/resources.ts';
import { cloudPaths, cloudKinds } from './cloud-facts.ts';
import { nodeOf, plainServing } from './cloud-objects.fixture.ts';
import { CloudSource } from './cloud-source.ts';
import { type OwnNetwork, readOwnNetwork } from './own-network.ts';
import { OwnPorts } from './own-ports.ts';
import { type CloudPorts, PortGranter } from './port-granter.ts';
import { type PortPool, portPoolsPath, readPortPool } from './port-pools.ts';
import { Server } from './stored.fixture.ts';

const networkOf = (config: object = {}): OwnNetwork => {
  const whole = { type: 'causeway', subnets: ['10.20.0.0/24'], neutron: { network: 'hosts' }, ...config };
  const item = { metadata: { creationTimestamp: '2026-01-01T00:00:00Z' }, spec: { config: JSON.stringify(whole) } };
  const network = readOwnNetwork('shop/ports', item);
  assert.ok(network !== undefined);
  return network;
};
const subnet: Cidr = parseCidr('10.20.0.0/24');

class Cloud implements CloudPorts {
  readonly held: string[] = [];
  others: Ip[] = [];
  refuse: Fault | undefined;
  /** Somebody else is faster with these. */
  taken = new Set<Cidr>();
  vlan = 2;

  find(): ReturnType<CloudPorts['find']> {
    return Promise.resolve({ place: { network: 'n', subnet: 's' }, subnets: [{ cidr: subnet, gateway: parseIp('10.20.0.1') }] });
  }
  occupied(): Promise<readonly Ip[]> {
    return Promise.resolve(this.others);
  }
  async hold<T>(block: Block, commit: (block: Block) => Promise<T>): Promise<T> {
    if (this.refuse !== undefined) throw this.refuse;
    if (this.taken.has(block.cidr)) throw new Fault('exists', `Somebody has an address of ${block.cidr}`);
    this.held.push(`${block.host} ${block.cidr}`);
    const vlan = this.vlan;
    this.vlan += 8;
    return await commit({ ...block, vlan });
  }
}

async function until(what: string, isTrue: () => boolean): Promise<void> {
  for (let tries = 0; !isTrue(); tries++) {
    assert.ok(tries < 1000, what);
    await delay(10);
  }
}

const log = { info: () => undefined, warn: () => undefined };

/** Node 1, its agent, and a controller. */
function bed(t: TestContext) {
  const kept = cloudKinds.flatMap((kind) => cloudPaths[kind].paths).map((path) => [path, []] as const);
  const server = new Server(kept);
  const { client } = server;
  server.put('/api/v1/nodes', nodeOf(1));
  const cloud = new Cloud();
  const stop = new AbortController();
  let granter: PortGranter | undefined;
  const source = new CloudSource({
    client,
    log,
    serving: plainServing,
    date: () => new Date('2026-01-01T00:00:00Z'),
    isLeading: () => true,
    changed: () => granter?.kick(),
  });
  granter = new PortGranter({ client, source, cloud, isLeading: () => true, log });
  const { whole } = source;
  const running = [source.run(stop.signal), whole.then(() => granter.run(stop.signal))];
  const without = { count: 0 };
  const agentOf = (host: string): OwnPorts => {
    const told = new Map<string, Block>();
    const ports = new OwnPorts({ client, host, log, known: (id) => told.get(id), portless: () => without.count });
    ports.onChange(() => {
      for (const block of ports.blocksOf(networkOf())) told.set(block.id, block);
    });
    ports.start();
    t.after(() => ports[Symbol.asyncDispose]());
    return ports;
  };
  t.after(async () => {
    stop.abort();
    await Promise.all(running);
  });
  const pools = (): PortPool[] => server.of(portPoolsPath).map(readPortPool);
  return { server, cloud, source, pools, ports: agentOf('node1'), agentOf, without };
}

test('a node has ports as soon as there is the network, more when it asks, and none when it has gone', async (t) => {
  const { cloud, pools, ports, source } = bed(t);
  cloud.others = [parseIp('10.20.0.129')];
  const network = networkOf();
  ports.wish([network]);
  await until('the first block', () => ports.blocksOf(network).length === 1);
  assert.deepEqual(cloud.held, ['node1 10.20.0.136/29']);
  const [first] = ports.blocksOf(network);
  cloud.taken.add(parseCidr('10.20.0.144/29'));
  const second = await ports.claim({ network: network.id, pool: first?.pool ?? '', has: 1 });
  assert.deepEqual([first?.vlan, second.cidr, second.vlan, second.host], [2, '10.20.0.152/29', 10, 'node1']);
  // An answer that was not had.
  assert.equal((await ports.claim({ network: network.id, pool: first?.pool ?? '', has: 1 })).cidr, second.cidr);
  const { networks, pools: ranges, blocks } = source.wish.facts;
  assert.deepEqual(
    [networks.at(-1)?.neutron, networks.at(-1)?.name, ranges.at(-1)?.range, blocks.slice(-2).map(({ cidr }) => cidr)],
    [{ network: 'n', subnet: 's' }, 'shop/ports', '10.20.0.128/25', ['10.20.0.136/29', '10.20.0.152/29']],
  );
  ports.wish([]);
  await until('the pool to be gone', () => pools().length === 0);
  await until('the cloud to be told', () => source.wish.facts.networks.every(({ neutron }) => neutron === undefined));
});

test('a block that is not needed any more is given back, and never the last one', async (t) => {
  const { cloud, pools, ports, source } = bed(t);
  const network = networkOf();
  ports.wish([network]);
  await until('the first block', () => ports.blocksOf(network).length === 1);
  const [first] = ports.blocksOf(network);
  await assert.rejects(ports.release(first?.id ?? '') ?? Promise.resolve(), (error) => isFault(error, 'in-use'));
  const second = await ports.claim({ network: network.id, pool: first?.pool ?? '', has: 1 });
  await ports.release(second.id);
  assert.deepEqual(ports.blocksOf(network), [first]);
  await until('nobody to speak of it', () => pools().every(({ blocks, left }) => blocks.length === 1 && left.length === 0));
  assert.deepEqual(
    source.wish.facts.blocks.filter(({ network: of }) => of === network.id).map(({ cidr }) => cidr),
    ['10.20.0.128/29'],
  );
  assert.equal(ports.release('another'), undefined);
  // It is asked for anew, and is there with ports of its own again.
  assert.equal((await ports.claim({ network: network.id, pool: first?.pool ?? '', has: 1 })).cidr, second.cidr);
  assert.equal(cloud.held.filter((held) => held.endsWith(second.cidr)).length, 2);
});

test('why there are none is told to the pod that waits, and forgotten when there are some', async (t) => {
  const { cloud, pools, ports } = bed(t);
  cloud.refuse = new Fault('exhausted', 'The quota of ports would not do', { hint: 'Raise it' });
  const network = networkOf();
  ports.wish([network]);
  await until('the problem', () => pools()[0]?.problem === 'The quota of ports would not do. Raise it');
  assert.deepEqual(ports.blocksOf(network), []);
  cloud.refuse = undefined;
  await until('the first block', () => ports.blocksOf(network).length === 1);
  await until('the problem to be forgotten', () => pools()[0]?.problem === undefined);
  await assert.rejects(ports.claim({ network: 'another0000', pool: 'p' }), (error) => isFault(error, 'not-found'));
});

test('where pods may do without, one is told soon what is in the way, and how many do without is told', async (t) => {
  const { cloud, pools, ports, source, without } = bed(t);
  const network = networkOf({ neutron: { network: 'hosts', fallback: '10.70.0.0/16' } });
  cloud.refuse = new Fault('exhausted', 'The quota of ports would not do');
  ports.wish([network]);
  await until('the problem', () => pools()[0]?.problem !== undefined);
  assert.deepEqual(ports.placeOf(network), { network: 'n', subnet: 's', gateways: ['10.20.0.1'] });
  const start = performance.now();
  await assert.rejects(
    ports.claim({ network: network.id, pool: `${network.id}p4` }),
    (error) => isFault(error, 'unavailable') && /quota of ports would not do/.test(error.message),
  );
  assert.ok(performance.now() - start < 15_000);
  without.count = 2;
  ports.wish([network]);
  await until('the cloud to be told', () => source.wish.problems.length > 0);
  assert.deepEqual(source.wish.problems, [
    '2 pods of shop/ports on node1 without ports of the cloud, in its overlay 10.70.0.0/16: The quota of ports would not do',
  ]);
  const { networks, pools: ranges } = source.wish.facts;
  assert.deepEqual([networks.at(-1)?.neutron, ranges.at(-2)?.gateway], [{ network: 'n', subnet: 's', fallback: true }, '10.20.0.1']);
  assert.deepEqual([networks.at(-1)?.neutron?.fallback, ranges.at(-1)?.fallback, ranges.at(-1)?.range], [true, true, '10.70.0.0/17']);
  cloud.refuse = undefined;
  without.count = 0;
  ports.wish([network]);
  await until('all to be well', () => source.wish.problems.length === 0 && ports.blocksOf(network).length === 1);
});

test('a subnet that is another in the cloud is refused', async (t) => {
  const { cloud, pools, ports } = bed(t);
  ports.wish([networkOf({ subnets: ['10.21.0.0/24'] })]);
  await until('the problem', () => /says subnets 10\.21\.0\.0\/24, and in Neutron it is 10\.20\.0\.0\/24/.test(pools()[0]?.problem ?? ''));
  assert.deepEqual(cloud.held, []);
});

test('two nodes have no block in common; what a node had goes with it', async (t) => {
  const { server, cloud, source, pools, ports, agentOf } = bed(t);
  const network = networkOf();
  server.put('/api/v1/nodes', nodeOf(2));
  const other = agentOf('node2');
  ports.wish([network]);
  other.wish([network]);
  await until('both to have ports', () => [ports, other].every((one) => one.blocksOf(network).length === 1));
  assert.deepEqual(new Set(cloud.held.map((held) => held.split(' ')[1])), new Set(['10.20.0.128/29', '10.20.0.136/29']));
  await other[Symbol.asyncDispose]();
  server.remove('/api/v1/nodes', 'node2');
  await until('its pool to be gone', () => pools().length === 1);
  assert.deepEqual(
    source.wish.facts.blocks.filter(({ network: of }) => of === network.id).map(({ host }) => host),
    ['node1'],
  );
});
