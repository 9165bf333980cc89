// What the agent does in and for running containers, on the real kernel: their ends, their names, connections that were cut.
import assert from 'node:assert/strict';
import { after, before, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { embeddedResolver } from '#kernel/name-redirect.ts';
import { bindUdpInNetns, createNetns, inNetns, removeNetns, warmThreadPool } from '#kernel/netns.ts';
import { emptyDesired, type Desired } from '#model/desired.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { endpointLink, endpointPeerLink } from '#model/numbers.ts';
import type { Host, LocalEndpoint } from '#model/resources.ts';
import dnsPacket from 'dns-packet';
import { DnsServer } from './dns.ts';
import { Endpoints } from './endpoints.ts';
import { MemoryJournal } from './journal.ts';
import { clientsOf, companionsOf, Names } from './names.ts';
import { eventually, type NetnsHost, type Place, Wire } from './namespaces.fixture.ts';
import { Openings } from './openings.ts';
import { Sandboxes } from './sandboxes.ts';

mustBeIsolated();

const network = makeNetwork('aaaaaaaaaa');
const pools = [makePool(network.id, parseCidr('10.0.0.0/24'), 27), makePool(network.id, parseCidr('fd00::/64'), 120)];
const blocks = pools.map((pool) => makeBlock(pool, 0, 'host-1'));
const self = makeHost(1);
let wire: Wire;
let host: NetnsHost;
let number = 0;

await warmThreadPool();
before(() => {
  wire = new Wire();
  host = wire.host('host-1', ['10.213.0.1/16']);
});
after(() => wire[Symbol.dispose]());

/** A container that was joined and whose end the engine has put in place, and the agent's parts that look after it. */
function bed(t: TestContext, machine: Host = self) {
  number += 1;
  const endpoints = new Endpoints(new MemoryJournal(), () => undefined);
  const gone: string[] = [];
  const said: string[] = [];
  const sandboxes = new Sandboxes({
    endpoints,
    link: host.kinds.link,
    network: () => network,
    pools: () => pools,
    gone: (id) => gone.push(id),
    log: (_, message) => said.push(message),
  });
  t.after(() => {
    sandboxes[Symbol.dispose]();
    host.apply(emptyDesired);
  });
  const endpoint = makeEndpoint(network.id, 'host-1', number, [parseIp(`10.0.0.${number + 1}`), parseIp(`fd00::${number + 1}`)]);
  const run = (as: Host = machine): Desired => {
    const snapshot = snapshotOf({
      hosts: [as],
      networks: [network],
      pools,
      blocks,
      endpoints: endpoints.all().map((local) => local.endpoint),
    });
    const desired = plan(snapshot, endpoints.all(), as);
    const { remadeLinks } = host.apply(desired);
    inNetns(host.path, () => sandboxes.applied(desired, remadeLinks));
    return desired;
  };
  const local: LocalEndpoint = { endpoint, slot: number, sandbox: '/not/yet', order: 1 };
  endpoints.put(local);
  host.apply(plan(snapshotOf({ hosts: [machine], networks: [network], pools, blocks, endpoints: [endpoint] }), [local], machine));
  const box = wire.container(host, local);
  endpoints.put({ ...local, sandbox: box.path });
  return { endpoints, endpoint, box, gone, said, run, sandboxes, ifname: () => endpoints.get(endpoint.id)?.ifname };
}

const addressesOf = (box: Place): string[] =>
  box
    .run('ip', '-br', 'addr', 'show', 'dev', 'eth0')
    .split(/\s+/)
    .filter((word) => /^(10\.|fd00:)/.test(word));
const mtuOf = (box: Place): string => /mtu (\d+)/.exec(box.run('ip', 'link', 'show', 'dev', 'eth0'))?.[1] ?? '';

test('what the link is called in the container is noted once the engine has put it in place', async (t) => {
  const { run, ifname, box } = bed(t);
  run();
  await eventually(() => ifname() === 'eth0', 'the name is noted');
  assert.ok(box.ping('169.254.1.1'));
});

test('a pair that somebody deletes is made again in place, with addresses and routes', async (t) => {
  const { run, ifname, box, endpoint } = bed(t);
  run();
  await eventually(ifname, 'the name is noted');
  run();
  const addresses = addressesOf(box);
  host.domain(network.id).ip('link', 'del', endpointLink(endpoint.id));
  assert.equal(box.try('ip', 'link', 'show', 'dev', 'eth0').status, 1);
  host.forget();
  run();
  assert.deepEqual(addressesOf(box), addresses);
  for (const family of ['-4', '-6']) assert.match(box.run('ip', family, 'route'), /^default via (169\.254\.1\.1|fe80::1) dev eth0/m);
  await eventually(() => box.ping('169.254.1.1'), 'the gateway answers');
});

test('a default route comes back with its link, also where the engine chose another network than the first by name', (t) => {
  const networks = [network, makeNetwork('bbbbbbbbbb', { vni: 4097 })];
  const both = [...pools, makePool('bbbbbbbbbb', parseCidr('10.1.0.0/24'), 27)];
  const endpoints = new Endpoints(new MemoryJournal(), () => undefined);
  using sandboxes = new Sandboxes({
    endpoints,
    link: host.kinds.link,
    network: (id) => networks.find((one) => one.id === id),
    pools: (id) => both.filter((pool) => pool.network === id),
    gone: (id) => assert.fail(id),
    log: () => undefined,
  });
  t.after(() => host.apply(emptyDesired));
  const run = (): void => {
    const facts = {
      hosts: [self],
      networks,
      pools: both,
      blocks: both.map((pool) => makeBlock(pool, 0, 'host-1')),
      endpoints: endpoints.all().map((local) => local.endpoint),
    };
    const desired = plan(snapshotOf(facts), endpoints.all(), self);
    const { remadeLinks } = host.apply(desired);
    inNetns(host.path, () => sandboxes.applied(desired, remadeLinks));
  };
  const locals = networks.map(({ id }, index): LocalEndpoint => {
    const endpoint = makeEndpoint(id, 'host-1', 50 + index, [parseIp(`10.${index}.0.30`)]);
    return { endpoint, slot: 50 + index, sandbox: '/not/yet', order: index + 1 };
  });
  for (const local of locals) endpoints.put(local);
  run();
  const [first = assert.fail(), second = assert.fail()] = locals;
  const box = wire.container(host, first);
  host.ip('link', 'set', endpointPeerLink(second.endpoint.id), 'netns', box.path, 'name', 'eth1');
  for (const words of [
    'addr add 10.1.0.30/32 dev eth1',
    'link set eth1 up',
    'route add 169.254.1.2 dev eth1',
    'route replace default via 169.254.1.2 dev eth1',
  ])
    box.ip(...words.split(' '));
  for (const [index, local] of locals.entries()) endpoints.put({ ...local, sandbox: box.path, ifname: `eth${index}` });
  run();
  const lose = (...lost: readonly LocalEndpoint[]): string => {
    for (const { endpoint } of lost) host.domain(endpoint.network).ip('link', 'del', endpointLink(endpoint.id));
    host.forget();
    run();
    return /^default via \S+ dev \S+/.exec(box.run('ip', 'route', 'show', 'default'))?.[0] ?? 'none';
  };
  assert.equal(lose(second), 'default via 169.254.1.2 dev eth1');
  assert.equal(lose(first), 'default via 169.254.1.2 dev eth1');
  // Of both the first by name.
  assert.equal(lose(first, second), 'default via 169.254.1.1 dev eth0');
});

test("a change of the MTU reaches the running container, and a user's own changes stay", async (t) => {
  const { run, ifname, box } = bed(t);
  run();
  await eventually(ifname, 'the name is noted');
  run();
  box.ip('addr', 'add', '192.0.2.7/32', 'dev', 'eth0');
  const smaller = { ...self, underlay: self.underlay.map((entry) => ({ ...entry, mtu: 1400 })) };
  run(smaller);
  assert.equal(mtuOf(box), '1350');
  assert.match(box.run('ip', 'addr'), /192\.0\.2\.7/);
});

test('a container that has ended without a word is told', async (t) => {
  const { endpoints, endpoint, run, gone, ifname } = bed(t);
  run();
  await eventually(ifname, 'the name is noted');
  const local = endpoints.get(endpoint.id) ?? assert.fail();
  endpoints.put({ ...local, sandbox: `${local.sandbox}-gone` });
  const desired = plan(snapshotOf({ hosts: [self], networks: [network], pools, blocks, endpoints: [endpoint] }), [local], self);
  const link = desired.link.find(({ name }) => name === endpointLink(endpoint.id)) ?? assert.fail();
  const fresh = new Sandboxes({
    endpoints,
    link: host.kinds.link,
    network: () => network,
    pools: () => pools,
    gone: (id) => gone.push(id),
    log: () => undefined,
  });
  fresh.applied({ ...emptyDesired, link: [link] }, [link]);
  fresh[Symbol.dispose]();
  assert.deepEqual(gone, [endpoint.id]);
});

const asks = async (box: Place, name: string): Promise<unknown> => {
  using peer = await box.udp('127.0.0.1');
  const question = dnsPacket.encode({ type: 'query', id: 77, flags: dnsPacket.RECURSION_DESIRED, questions: [{ name, type: 'A' }] });
  const [record] = dnsPacket.decode(await peer.ask(question, { ip: embeddedResolver, port: 53 })).answers ?? [];
  return record !== undefined && 'data' in record ? record.data : undefined;
};

test("what a container asks of its engine's resolver comes here first where that is wanted, and no longer once it is not", async (t) => {
  const { box, run, endpoint, endpoints, sandboxes, ifname } = bed(t);
  const server = new DnsServer({
    upstream: { servers: [], timeoutMs: 100, attempts: 1 },
    ...clientsOf(() => endpoints.all()),
  });
  const names = new Names({
    server,
    netnsDirectory: host.domain(network.id).path.replace(/\/[^/]+$/, ''),
    log: (_, message) => assert.fail(message),
  });
  // The engine's resolver, which knows of a neighbour on another network of the container.
  const engine = new DnsServer({ upstream: { servers: [], timeoutMs: 100, attempts: 1 } });
  t.after(() => {
    names[Symbol.dispose]();
    server[Symbol.dispose]();
    engine[Symbol.dispose]();
  });
  const neighbour = makeEndpoint('elsewhere', 'host-1', 9, [parseIp('172.18.0.2')]);
  engine.setZone('engine', { name: 'bridge', isInternal: true, pools: [], endpoints: new Map([[neighbour.id, neighbour]]) });
  await engine.listen('engine', [{ fd: bindUdpInNetns(box.path, { ip: embeddedResolver, port: 53 }), protocol: 'udp', family: 4 }]);
  names.update(snapshotOf({ hosts: [self], networks: [network], pools, blocks, endpoints: [endpoint] }), [network]);
  assert.deepEqual([await asks(box, endpoint.name), await asks(box, neighbour.name)], [undefined, '172.18.0.2']);
  const want = (isWanted: boolean): void => {
    const { answersFirst: _, ...rest } = endpoints.get(endpoint.id) ?? assert.fail();
    endpoints.put(isWanted ? { ...rest, answersFirst: true } : rest);
    sandboxes.asked(endpoint.id);
  };
  // At once, as the engine waits with starting the container until it has the answer.
  want(true);
  assert.equal(ifname(), 'eth0');
  assert.deepEqual([await asks(box, endpoint.name), await asks(box, neighbour.name)], [endpoint.addresses[0], '172.18.0.2']);
  run();
  host.domain(network.id).ip('link', 'del', endpointLink(endpoint.id));
  host.forget();
  run();
  await eventually(() => box.ping('169.254.1.1'), 'the gateway answers');
  assert.deepEqual([await asks(box, endpoint.name), await asks(box, neighbour.name)], [endpoint.addresses[0], '172.18.0.2']);
  want(false);
  assert.deepEqual([await asks(box, endpoint.name), await asks(box, neighbour.name)], [undefined, '172.18.0.2']);
  // A container that leaves the network and runs on has its engine's resolver for itself.
  want(true);
  run();
  endpoints.put({ endpoint, slot: endpoints.get(endpoint.id)?.slot ?? assert.fail() });
  run();
  // Not at once, as most such containers end.
  await eventually(() => box.run('nft', 'list', 'tables') === '', 'nothing of ours to be left in the container');
  assert.deepEqual([await asks(box, endpoint.name), await asks(box, neighbour.name)], [undefined, '172.18.0.2']);
});

test('names are answered in the domain, also after the domain was made anew, and not once the network has left', async (t) => {
  const { box, run, endpoint } = bed(t);
  run();
  const server = new DnsServer({ upstream: { servers: [], timeoutMs: 100, attempts: 1 } });
  const folder = host.domain(network.id).path.replace(/\/[^/]+$/, '');
  const problems: string[] = [];
  const names = new Names({ server, netnsDirectory: folder, log: (_, message) => problems.push(message) });
  t.after(() => {
    names[Symbol.dispose]();
    server[Symbol.dispose]();
  });
  const snapshot = snapshotOf({ hosts: [self], networks: [network], pools, blocks, endpoints: [endpoint] });
  names.update(snapshot, [network]);
  names.update(snapshot, [network]);
  assert.equal(await ask(t, box, endpoint.name), endpoint.addresses[0]);
  // As after somebody has removed the namespace: another one of the same name.
  const [, name = ''] = /([^/]+)$/.exec(host.domain(network.id).path) ?? [];
  removeNetns(folder, name);
  createNetns(folder, name, () => undefined);
  names.update(snapshot, [network]);
  assert.deepEqual(problems, []);
  names.update(snapshot, []);
  names.update(snapshot, [network]);
  assert.deepEqual(problems, []);
});

async function ask(t: TestContext, from: Place, name: string): Promise<unknown> {
  const [address] = addressesOf(from);
  const peer = await from.udp(address?.replace(/\/.*/, '') ?? '');
  t.after(() => peer[Symbol.dispose]());
  const question = dnsPacket.encode({ type: 'query', id: 77, flags: dnsPacket.RECURSION_DESIRED, questions: [{ name, type: 'A' }] });
  const reply = await peer.ask(question, { ip: '198.51.100.53', port: 53 });
  const [record] = dnsPacket.decode(reply).answers ?? [];
  return record !== undefined && 'data' in record ? record.data : undefined;
}

const at = (of: { id: string }, slot: number, sandbox?: string): LocalEndpoint => ({
  endpoint: makeEndpoint(of.id, 'host-1', slot, [parseIp('10.0.0.2')]),
  slot,
  ...(sandbox === undefined ? {} : { sandbox }),
});

test('the other networks of a container that asks are its own', () => {
  const [one, two, three] = [makeNetwork('aaaaaaaaaa'), makeNetwork('bbbbbbbbbb'), makeNetwork('cccccccccc')];
  const all = [at(one, 1, '/a'), at(two, 2, '/a'), at(three, 3, '/b'), at(two, 4)];
  assert.deepEqual(companionsOf(all, one.id, '10.0.0.2'), [two.id]);
  assert.deepEqual([companionsOf(all, one.id, '10.0.0.9'), companionsOf(all, three.id, '10.0.0.2')], [[], []]);
});

const element = (hostPort: number, ip: string, port: number): Desired['element'][number] => ({
  netns: '',
  table: 'causeway',
  set: 'published_any4',
  key: `tcp . ${hostPort}`,
  value: `${ip} . ${port}`,
});
const table: Desired['table'][number] = { netns: '', family: 'inet', name: 'causeway', text: '' };

test('connections to what is no longer published are cut, and no others', () => {
  const track = (port: number, target: string, to: number): void => {
    const tuple = ['-s', '10.213.9.9', '-d', '10.213.0.1', '--sport', '4000', '--dport', String(port)];
    const reply = ['-r', target, '-q', '10.213.9.9', '--reply-port-src', String(to), '--reply-port-dst', '4000'];
    host.run('conntrack', '-I', '-p', 'tcp', ...tuple, ...reply, '--state', 'ESTABLISHED', '-t', '100');
  };
  track(8080, '100.127.0.1', 80);
  track(8081, '100.127.0.1', 81);
  track(8082, '100.127.0.2', 80);
  const said: string[] = [];
  inNetns(host.path, () => {
    const openings = new Openings({ sockets: host.kinds.sockets, log: (_, message) => said.push(message), now: () => 0 });
    openings.applied({
      ...emptyDesired,
      table: [table],
      element: [element(8080, '100.127.0.1', 80), element(8081, '100.127.0.1', 81), element(8082, '100.127.0.2', 80)],
    });
    openings.applied({ ...emptyDesired, table: [table], element: [element(8081, '100.127.0.1', 81), element(8082, '100.127.0.2', 80)] });
  });
  const left = host.run('conntrack', '-L', '-p', 'tcp');
  assert.deepEqual(
    [8080, 8081, 8082].map((port) => left.includes(`dport=${port} `)),
    [false, true, true],
  );
  assert.ok(said.includes('cut connections to what has gone'));
});

test('links are let through a firewall that drops, looked at now and then, and no longer once nothing is here', (t) => {
  if (host.try('iptables', '-P', 'FORWARD', 'DROP').status !== 0) {
    t.skip('no iptables here');
    return;
  }
  t.after(() => host.try('iptables', '-P', 'FORWARD', 'ACCEPT'));
  let now = 0;
  const rules = (): number =>
    host
      .run('iptables', '-S')
      .split('\n')
      .filter((line) => line.includes('causeway')).length;
  inNetns(host.path, () => {
    let changes = 0;
    const openings = new Openings({ sockets: host.kinds.sockets, log: () => undefined, now: () => now, changes: () => changes });
    openings.applied({ ...emptyDesired, table: [table] });
    assert.equal(rules(), 2);
    // dockerd starts again.
    host.run('iptables', '-F', 'FORWARD');
    openings.check();
    assert.equal(rules(), 0, 'not at every moment');
    now += 5000;
    openings.check();
    assert.equal(rules(), 0, 'not without news');
    changes += 1;
    openings.check();
    assert.equal(rules(), 2);
    host.run('iptables', '-F', 'FORWARD');
    now += 60_000;
    openings.check();
    assert.equal(rules(), 2, 'now and then without news');
    openings.applied(emptyDesired);
    assert.equal(rules(), 0);
  });
});
