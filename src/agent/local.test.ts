import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { AttachRequest } from '#api/local.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { createFakeKinds } from '#kernel/fake.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { endpointLink, endpointPeerLink, transitAddress } from '#model/numbers.ts';
import type { Network, Pool, PublishedPort } from '#model/resources.ts';
import { AddressBook } from './address-book.ts';
import type { ClusterAddresses } from './address-cluster.ts';
import { Endpoints } from './endpoints.ts';
import { MemoryJournal } from './journal.ts';
import { type ClusterNetworks, HostAgent } from './local.ts';
import { Loop } from './loop.ts';
import { Reconciler } from './reconcile.ts';
import { View } from './view.ts';

const self = makeHost(1);
const web = makeNetwork('aaaaaaaaaa');
const db = makeNetwork('bbbbbbbbbb', { vni: 4097 });
const pools: readonly Pool[] = [
  makePool(web.id, parseCidr('10.0.0.0/24'), 27),
  makePool(web.id, parseCidr('fd00::/64'), 120),
  makePool(db.id, parseCidr('10.0.0.0/24'), 29),
];
const [web4 = '', web6 = ''] = pools.map(({ id }) => id);
const sandbox = '/run/docker/netns/one';
const id = (number: number): string => number.toString(16).padStart(2, '0').repeat(32);
const request = (number: number, more: Partial<AttachRequest> = {}): AttachRequest => ({
  network: web.id,
  id: id(number),
  owner: `box-${number}`,
  addresses: [],
  ports: [],
  ...more,
});
const port = (hostPort: number, more: Partial<PublishedPort> = {}): PublishedPort => ({ protocol: 'tcp', hostPort, port: 80, ...more });

class Journal extends MemoryJournal {
  /** Writes that are still possible. */
  room = Infinity;
  #spend(): void {
    if (this.room-- <= 0) throw new Fault('unavailable', 'The disk is full');
  }
  override put(key: string, value: unknown): void {
    this.#spend();
    super.put(key, value);
  }
  override delete(key: string): void {
    this.#spend();
    super.delete(key);
  }
}

/** A host that knows two networks, on a kernel and a disk in memory; the cluster gives it every block it asks for. */
function bed(
  t: TestContext,
  options: { readonly journal?: Journal; readonly kinds?: ReturnType<typeof createFakeKinds>; readonly blind?: boolean } = {},
) {
  const { journal = new Journal(), kinds = createFakeKinds() } = options;
  let [ids, blocks, millis] = [0, 0, 1_000_000];
  const asked: string[] = [];
  const newId = () => `new${(ids += 1)}`;
  const view = new View({ journal, changed: () => undefined });
  const endpoints = new Endpoints(journal, () => undefined);
  const away: Partial<ClusterAddresses> = {
    async claimBlock({ pool, ip }) {
      const found = pools.find((item) => item.id === pool);
      if (found === undefined) throw new Fault('not-found', 'No such pool');
      const block = { ...makeBlock(found, ip === undefined ? (blocks += 1) : Number(ip.split('.')[3]) >> 5, self.id), revision: 5 };
      return await Promise.resolve(block);
    },
  };
  const addresses = new AddressBook({
    journal,
    cluster: away as ClusterAddresses,
    clock: { now: () => millis, after: () => () => undefined },
    host: self.id,
    newId,
    onFault: () => undefined,
  });
  const networks: ClusterNetworks = {
    async create({ name }) {
      asked.push(`create ${name}`);
      return await Promise.resolve({ network: { ...db, name, revision: 9 }, pools: [] });
    },
    async rename(network, name, labels) {
      asked.push(`rename ${name}`);
      return await Promise.resolve({ ...web, id: network, name, labels, revision: 9 });
    },
    async remove(network) {
      asked.push(`remove ${network}`);
      await Promise.resolve();
    },
    proposePool: (family) => Promise.resolve(parseCidr(family === 4 ? '10.64.0.0/24' : 'fd01::/64')),
  };
  const loop = new Loop({
    reconciler: new Reconciler(kinds),
    plan: () => (options.blind === true ? undefined : plan(view.snapshot, endpoints.all(), self)),
    maySweep: () => true,
    done: () => undefined,
    failed(error) {
      throw error;
    },
  });
  view.begin();
  for (const item of [web, db]) view.apply({ type: 'put', kind: 'networks', item, revision: 1 });
  for (const item of pools) view.apply({ type: 'put', kind: 'pools', item, revision: 1 });
  view.apply({ type: 'put', kind: 'hosts', item: self, revision: 1 });
  view.apply({ type: 'synced', revision: 1, whole: true });
  addresses.blocksChanged({ snapshot: view.snapshot, revision: 1, live: true });
  const agent = new HostAgent({
    host: self.id,
    journal,
    view,
    endpoints,
    addresses,
    cluster: { networks, addresses: away },
    loop,
    ports: { isFree: () => true, take: () => undefined, keep: () => undefined },
    now: () => new Date((millis += 1)),
    newId,
  });
  t.after(() => loop[Symbol.dispose]());
  const pass = (ms: number): void => {
    millis += ms;
  };
  return { pass, agent, journal, kinds, view, endpoints, addresses, loop, asked };
}

const noFault = async (work: Promise<unknown>): Promise<string> => {
  try {
    await work;
    return 'done';
  } catch (error) {
    if (error instanceof Fault) return error.code;
    throw error;
  }
};

test('attach records the endpoint with an address of each family, and writes nothing to the kernel', async (t) => {
  const { agent, kinds, endpoints, addresses } = bed(t);
  const endpoint = await agent.attach(request(1, { name: 'web-1', ports: [port(8080)] }));
  const { addresses: ips, mac, name, network, host, owner, ports } = endpoint;
  assert.deepEqual(
    [ips.map((ip) => ip.includes(':')), name, network, host, owner, ports],
    [[false, true], 'web-1', web.id, self.id, 'box-1', [port(8080)]],
  );
  assert.equal(parseMac(mac), mac);
  assert.deepEqual([agent.localEndpoint(id(1)), endpoints.get(id(1))?.slot, kinds.writes], [endpoint, 1, 0]);
  for (const [index, pool] of [web4, web6].entries()) {
    const ip = ips[index];
    assert.ok(ip !== undefined);
    assert.equal(addresses.held(pool, ip)?.endpoint, id(1));
  }
});

test('an underlay that leaves too little for the network is told before anything is held', async (t) => {
  const { agent, view, journal } = bed(t);
  const underlay = self.underlay.map((one) => ({ ...one, mtu: 1320 }));
  view.apply({ type: 'put', kind: 'hosts', item: { ...self, underlay, revision: 2 }, revision: 2 });
  await assert.rejects(agent.attach(request(1)), { code: 'invalid', field: 'mtu' });
  assert.deepEqual([journal.list('address/'), journal.list('endpoint/')], [[], []]);
});

test('every call may be repeated and gives the same answer', async (t) => {
  const { agent, kinds } = bed(t);
  const twice = async <T>(call: () => Promise<T>): Promise<T> => {
    const first = await call();
    const { writes } = kinds;
    assert.deepEqual(await call(), first);
    assert.equal(kinds.writes, writes, 'the second writes nothing');
    return first;
  };
  await twice(() => agent.attach(request(1, { ports: [port(8080)] })));
  await twice(() => agent.join(id(1), sandbox));
  await twice(() => agent.publish(id(1), [port(8081)]));
  await twice(() => agent.rename(id(1), 'shop', ['shop', 'www']));
  const renamed = agent.localEndpoint(id(1));
  assert.deepEqual([renamed?.name, renamed?.owner, renamed?.names], ['shop', 'shop', ['www']]);
  await twice(() => agent.leave(id(1)));
  await twice(() => agent.detach(id(1)));
  for (const nothing of [() => agent.leave(id(7)), () => agent.detach(id(7)), () => agent.rename(id(7), 'x', [])]) await twice(nothing);
  assert.deepEqual(agent.localEndpoints(), []);
});

test('on return from join link, route, neighbour and guard are in the kernel', async (t) => {
  const { agent, kinds } = bed(t);
  const { addresses } = await agent.attach(request(1));
  const answer = await agent.join(id(1), sandbox);
  assert.deepEqual(answer, {
    link: endpointPeerLink(id(1)),
    gateways: { 4: '169.254.1.1', 6: 'fe80::1' },
    routes: [{ destination: '169.254.1.1/32' }, { destination: 'fe80::1/128' }],
  });
  const netns = `cw-${web.id}`;
  const link = endpointLink(id(1));
  assert.ok(kinds.link.list(netns).some(({ name }) => name === link));
  for (const ip of addresses) {
    assert.ok(kinds.neigh.list(netns).some((neigh) => neigh.ip === ip && neigh.link === link));
    assert.ok(kinds.route.list(netns).some((route) => route.destination.startsWith(`${ip}/`) && route.link === link));
    assert.ok(kinds.element.list(netns).some(({ set, key }) => set.startsWith('members') && key.endsWith(ip)));
  }
  await agent.detach(id(1));
});

test('what leaves and is detached leaves nothing behind, in kernel, journal and address book', async (t) => {
  const { agent, kinds, journal, loop, addresses } = bed(t);
  const { addresses: ips } = await agent.attach(request(1, { ports: [port(8080)] }));
  await agent.join(id(1), sandbox);
  await agent.leave(id(1));
  loop.run();
  assert.deepEqual([kinds.netns.list(''), kinds.link.list(''), kinds.table.list('')], [[], [], []]);
  assert.equal(agent.localEndpoint(id(1))?.owner, 'box-1', 'address and record stay until detach');
  await agent.detach(id(1));
  assert.deepEqual(
    [journal.list('endpoint/'), ips.map((ip) => addresses.held(ip.includes(':') ? web6 : web4, ip))],
    [[], [undefined, undefined]],
  );
});

test('whose container was found to have ended while it was attached has no link once it has left now', async (t) => {
  const { agent, kinds, loop } = bed(t);
  await agent.attach(request(1));
  await agent.join(id(1), sandbox);
  await agent.detach(id(1));
  assert.notDeepEqual(kinds.link.list(`cw-${web.id}`), [], 'it goes soon');
  await agent.leave(id(1), 'now');
  assert.deepEqual(kinds.link.list(`cw-${web.id}`), []);
  const { runs } = loop;
  await agent.leave(id(1), 'now');
  assert.equal(loop.runs, runs, 'nothing is left to do');
});

test('an address that was given before is taken; one of another network, or of another endpoint, is refused', async (t) => {
  const { agent } = bed(t);
  const ip = await agent.requestAddress(web4, parseIp('10.0.0.77'));
  assert.equal(await agent.requestAddress(web4, parseIp('10.0.0.77')), ip, 'a repeated call is answered again');
  assert.deepEqual((await agent.attach(request(1, { addresses: [ip] }))).addresses, [ip]);
  const bad: [Partial<AttachRequest>, string, string][] = [
    [{ addresses: [ip] }, 'exists', 'addresses'],
    [{ addresses: [parseIp('192.0.2.1')] }, 'invalid', 'addresses'],
    [{ network: 'cccccccccc' }, 'not-found', 'network'],
  ];
  for (const [more, code, field] of bad) await assert.rejects(agent.attach(request(2, more)), { code, field });
  await assert.rejects(agent.requestAddress(web4, ip), { code: 'exists' });
  assert.equal(await agent.requestAddress(web4, ip, id(1)), ip, 'its own endpoint is given it again');
  assert.deepEqual(agent.localEndpoints().length, 1);
});

test('an address of which an endpoint has need is not released, whoever says so', async (t) => {
  const { agent, addresses } = bed(t);
  const ip = await agent.requestAddress(web4);
  await agent.attach(request(1, { addresses: [ip] }));
  await agent.releaseAddress(web4, ip);
  assert.equal(addresses.held(web4, ip)?.endpoint, id(1));
  await agent.detach(id(1));
  assert.equal(addresses.held(web4, ip), undefined);
  await agent.releaseAddress(web4, ip);
  const loose = await agent.requestAddress(web4);
  await agent.releaseAddress(web4, loose);
  assert.equal(addresses.held(web4, loose), undefined);
});

test('the same id with other addresses, another network or another MAC is refused', async (t) => {
  const { agent } = bed(t);
  const first = await agent.attach(request(1, { mac: parseMac('0a:00:00:00:00:01') }));
  for (const more of [{ network: db.id }, { addresses: [parseIp('10.0.0.99')] }, { mac: parseMac('0a:00:00:00:00:02') }])
    await assert.rejects(agent.attach(request(1, more)), { code: 'exists', field: 'id' });
  assert.deepEqual(await agent.attach(request(1, { addresses: first.addresses })), first);
});

test('a MAC that an endpoint of the network has, on whichever host, is refused', async (t) => {
  const { agent, view } = bed(t);
  view.learn('endpoints', {
    ...makeEndpoint(web.id, 'host-2', 9, [parseIp('10.0.0.200')]),
    mac: parseMac('0a:00:00:00:00:09'),
    revision: 3,
  });
  await assert.rejects(agent.attach(request(1, { mac: parseMac('0a:00:00:00:00:09') })), { code: 'exists', field: 'mac' });
  assert.equal((await agent.attach(request(2, { network: db.id, mac: parseMac('0a:00:00:00:00:09') }))).mac, '0a:00:00:00:00:09');
});

const clashing: readonly [string, PublishedPort, PublishedPort, string][] = [
  ['the same port', port(80), port(80), 'exists'],
  ['the same port of two protocols', port(80), port(80, { protocol: 'udp' }), 'done'],
  ['two ports', port(80), port(81), 'done'],
  ['the same port of two addresses', port(80, { hostIp: parseIp('10.0.0.1') }), port(80, { hostIp: parseIp('10.0.0.2') }), 'done'],
  ['the same port of one address', port(80, { hostIp: parseIp('10.0.0.1') }), port(80, { hostIp: parseIp('10.0.0.1') }), 'exists'],
  ['one of every address, one of one', port(80), port(80, { hostIp: parseIp('10.0.0.1') }), 'exists'],
  ['one of one address, one of 0.0.0.0', port(80, { hostIp: parseIp('10.0.0.1') }), port(80, { hostIp: parseIp('0.0.0.0') }), 'exists'],
  ['one of 0.0.0.0, one of ::', port(80, { hostIp: parseIp('0.0.0.0') }), port(80, { hostIp: parseIp('::') }), 'done'],
  ['one of ::, one of an IPv4 address', port(80, { hostIp: parseIp('::') }), port(80, { hostIp: parseIp('10.0.0.1') }), 'done'],
  ['one of ::, one of an IPv6 address', port(80, { hostIp: parseIp('::') }), port(80, { hostIp: parseIp('fd00::1') }), 'exists'],
];
for (const [what, first, second, expected] of clashing) {
  test(`two endpoints that publish ${what}: ${expected}`, async (t) => {
    const { agent } = bed(t);
    await agent.attach(request(1, { ports: [first] }));
    assert.equal(await noFault(agent.attach(request(2, { ports: [second] }))), expected);
    assert.equal(agent.localEndpoints().length, expected === 'done' ? 2 : 1);
    await agent.detach(id(1));
    assert.equal(await noFault(agent.attach(request(2, { ports: [second] }))), 'done', 'free after the other has gone');
  });
}

test('of two that attach with one port at the same time one is refused, and leaves neither address nor port behind', async (t) => {
  const { agent, addresses } = bed(t);
  const said = await Promise.all([1, 2].map((number) => noFault(agent.attach(request(number, { ports: [port(8080)] })))));
  assert.deepEqual(said.toSorted(), ['done', 'exists']);
  assert.equal(addresses.count, agent.localEndpoints().flatMap((endpoint) => endpoint.addresses).length);
});

test('ports that are published later are in force on return, and clash as at first', async (t) => {
  const { agent, kinds } = bed(t);
  const published = () => kinds.element.list('').flatMap(({ set, key, value }) => (set === 'published_any4' ? [`${key} -> ${value}`] : []));
  await agent.attach(request(1, { ports: [port(8080)] }));
  await agent.attach(request(2));
  await agent.join(id(1), sandbox);
  await agent.join(id(2), '/run/docker/netns/two');
  await assert.rejects(agent.publish(id(2), [port(8080)]), { code: 'exists', field: 'ports' });
  await assert.rejects(agent.publish(id(7), []), { code: 'not-found' });
  await agent.publish(id(2), [port(8081)]);
  assert.deepEqual(published(), [`tcp . 8080 -> ${transitAddress(1, 4)} . 80`, `tcp . 8081 -> ${transitAddress(2, 4)} . 80`]);
  const before = agent.localEndpoint(id(1))?.sequence ?? 0;
  await agent.publish(id(1), []);
  assert.deepEqual(published(), [`tcp . 8081 -> ${transitAddress(2, 4)} . 80`]);
  assert.equal(agent.localEndpoint(id(1))?.sequence, before + 1);
});

test('networks of one container get different gateways, which they keep, and a number that is free is used again', async (t) => {
  const { agent } = bed(t);
  await agent.attach(request(1));
  await agent.attach(request(2, { network: db.id }));
  await agent.attach(request(3));
  const gateways = async (number: number, where: string) => (await agent.join(id(number), where)).gateways[4];
  assert.deepEqual(
    [await gateways(1, sandbox), await gateways(2, sandbox), await gateways(3, '/other')],
    ['169.254.1.1', '169.254.1.2', '169.254.1.1'],
  );
  await agent.leave(id(1));
  assert.deepEqual([await gateways(2, sandbox), await gateways(3, sandbox)], ['169.254.1.2', '169.254.1.1']);
});

test('a container that is moved to a new sandbox is joined there', async (t) => {
  const { agent, endpoints } = bed(t);
  await agent.attach(request(1));
  await agent.join(id(1), sandbox);
  endpoints.put({ ...(endpoints.get(id(1)) ?? assert.fail()), ifname: 'eth0' });
  await agent.join(id(1), '/run/docker/netns/two');
  assert.deepEqual([endpoints.get(id(1))?.sandbox, endpoints.get(id(1))?.ifname], ['/run/docker/netns/two', undefined]);
});

const netns = `cw-${web.id}`;
const refusals = [
  ['netns', netns],
  ['link', `${netns} ${endpointLink(id(1))}`],
  ['route', `${netns} 10.0.0.77/32`],
  ['neigh', `${netns} ${endpointLink(id(1))} 10.0.0.77`],
] as const;
for (const [kind, key] of refusals) {
  test(`join fails when the kernel refuses what the endpoint needs (${kind}), and leaves it as it was`, async (t) => {
    const { agent, kinds, endpoints } = bed(t);
    await agent.attach(request(1, { addresses: [await agent.requestAddress(web4, parseIp('10.0.0.77'))] }));
    kinds.refuseNext(kind, key, 'ENOBUFS');
    await assert.rejects(agent.join(id(1), sandbox), { code: 'kernel' });
    assert.equal(endpoints.get(id(1))?.sandbox, undefined);
    assert.deepEqual([kinds.netns.list(''), kinds.link.list('')], [[], []]);
    assert.equal((await agent.join(id(1), sandbox)).link, endpointPeerLink(id(1)), 'the next one succeeds');
  });
}

test("join does not fail for what another network's endpoint is refused", async (t) => {
  const { agent, kinds } = bed(t);
  await agent.attach(request(1));
  await agent.attach(request(2, { network: db.id }));
  kinds.refuseNext('netns', `cw-${db.id}`, 'ENOSPC');
  await assert.rejects(agent.join(id(2), sandbox), { code: 'kernel' });
  kinds.refuseNext('netns', `cw-${db.id}`, 'ENOSPC');
  assert.equal(await noFault(agent.join(id(1), sandbox)), 'done');
});

test('join does not fail for want of a short cut', async (t) => {
  const { agent, kinds } = bed(t);
  await agent.attach(request(1));
  kinds.refuseNext('fast', `${netns} ${endpointLink(id(1))}`, 'EPERM');
  assert.equal(await noFault(agent.join(id(1), sandbox)), 'done');
});

test('before the host knows itself join is unavailable, with a hint, and leaves nothing', async (t) => {
  const { agent, kinds, endpoints } = bed(t, { blind: true });
  await agent.attach(request(1));
  await assert.rejects(
    agent.join(id(1), sandbox),
    (error) => error instanceof Fault && error.code === 'unavailable' && error.hint !== undefined,
  );
  assert.deepEqual([endpoints.get(id(1))?.sandbox, kinds.writes], [undefined, 0]);
  await assert.rejects(agent.join(id(7), sandbox), { code: 'not-found', field: 'id' });
});

test('when a pool of the second family is exhausted the address of the first is given back', async (t) => {
  const { agent, addresses } = bed(t);
  const request6 = t.mock.method(addresses, 'request', async (pool: string, owner: string) => {
    if (pool === web6) throw new Fault('exhausted', 'No address left');
    return await AddressBook.prototype.request.call(addresses, pool, owner);
  });
  await assert.rejects(agent.attach(request(1)), { code: 'exhausted' });
  const [given] = await Promise.all(
    request6.mock.calls.flatMap(({ result }) => (result === undefined ? [] : [result.catch(() => undefined)])),
  );
  assert.ok(given !== undefined);
  assert.deepEqual([addresses.held(web4, given), agent.localEndpoints()], [undefined, []]);
});

test('whichever write a full disk refuses, the call fails as unavailable, is repeated with success, and nothing is given twice', async (t) => {
  for (let room = 0; room < 12; room++) {
    const { agent, journal, endpoints, addresses, pass } = bed(t);
    const ip = await agent.requestAddress(web4, parseIp('10.0.0.77'));
    await agent.requestAddress(web6);
    journal.room = room;
    const steps = [
      () => agent.attach(request(1, { addresses: [ip] })),
      () => agent.join(id(1), sandbox),
      () => agent.publish(id(1), [port(80)]),
      () => agent.leave(id(1)),
      () => agent.detach(id(1)),
    ];
    for (const step of steps) {
      if ((await noFault(step())) === 'done') continue;
      const written = journal.list('endpoint/').map(({ value }) => value);
      assert.deepEqual(endpoints.all(), written, `room ${room}: memory says what the journal says`);
      journal.room = Infinity;
      assert.equal(await noFault(step()), 'done', `room ${room}`);
    }
    journal.room = Infinity;
    // What a refused release has left is an orphan, seen twice and then freed.
    for (let round = 0; round < 2; round++) {
      await addresses.reconcile([]);
      pass(24 * 3600_000);
    }
    await addresses.reconcile([]);
    assert.deepEqual([agent.localEndpoints(), journal.list('endpoint/'), addresses.held(web4, ip)], [[], [], undefined], `room ${room}`);
  }
});

test('an endpoint that is made again has a later sequence than the cluster knows', async (t) => {
  const { agent, view } = bed(t);
  const { sequence } = await agent.attach(request(1));
  await agent.detach(id(1));
  assert.ok((await agent.attach(request(1))).sequence > sequence);
  view.learn('endpoints', { ...makeEndpoint(web.id, self.id, 2, [parseIp('10.0.0.9')]), id: id(2), sequence: 9e12, revision: 4 });
  assert.equal((await agent.attach(request(2))).sequence, 9e12 + 1);
});

test('another process finds the endpoints of before, and slots are not given twice', async (t) => {
  const first = bed(t);
  for (const number of [1, 2, 3]) await first.agent.attach(request(number));
  await first.agent.detach(id(2));
  const second = bed(t, { journal: first.journal, kinds: first.kinds });
  assert.deepEqual(second.agent.localEndpoints(), first.agent.localEndpoints());
  await second.agent.attach(request(4));
  assert.equal(new Set(second.endpoints.all().map(({ slot }) => slot)).size, 3);
});

test('networks are made, renamed and removed through the controller, and known at once', async (t) => {
  const { agent, view, asked } = bed(t);
  await agent.createNetwork({ name: 'new' });
  assert.equal(agent.network(db.id)?.name, 'new');
  await agent.renameNetwork(web.id, 'shop', { a: '1' });
  await agent.renameNetwork(web.id, 'shop', { a: '1' });
  assert.equal(agent.network(web.id)?.name, 'shop');
  await agent.removeNetwork(web.id);
  assert.deepEqual([agent.network(web.id), agent.pools(web.id), asked], [undefined, [], ['create new', 'rename shop', `remove ${web.id}`]]);
  assert.equal(view.snapshot.networks.size, 1);
  const proposed: Cidr = await agent.proposePool(6, []);
  assert.equal(proposed, 'fd01::/64');
  assert.deepEqual([agent.isSynced(), agent.networks().map(({ name }: Network) => name)], [true, ['new']]);
});

test('a network without a pool, or one that has gone, takes no endpoint', async (t) => {
  const { agent, view } = bed(t);
  view.learn('networks', { ...makeNetwork('cccccccccc'), revision: 3 });
  await assert.rejects(agent.attach(request(1, { network: 'cccccccccc' })), { code: 'invalid', field: 'network' });
  assert.deepEqual(agent.localEndpoints(), []);
});
