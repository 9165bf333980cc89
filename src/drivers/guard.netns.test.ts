// The guard with real packets: what an endpoint may do and what it may not, in both families, on two hosts. A packet that
// must not arrive is followed to the rule that drops it, by that rule's counter.
import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { type Ip, parseCidr, parseIp } from '#model/ip.ts';
import type { Exposure, LocalEndpoint, PublishedPort } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const web = makeNetwork('aaaaaaaaaa');
/** The same ranges as `web`, another network. */
const other = makeNetwork('bbbbbbbbbb', { vni: 4097 });
const inner = makeNetwork('cccccccccc', { vni: 4098, internal: true });
const networks = [web, other, inner];
const pools = networks.flatMap(({ id }) => [makePool(id, parseCidr('10.0.0.0/24'), 27), makePool(id, parseCidr('fd00::/64'), 120)]);
const blocks = pools.flatMap((pool) => [makeBlock(pool, 0, 'host-1'), makeBlock(pool, 1, 'host-2')]);
const underlay = (index: number) => [`10.213.0.${index}/16`, `fd00:213::${index}/64`];
const hosts = [1, 2].map((index) => makeHost(index));

let slots = 0;
function local(network: string, host: string, addresses: readonly string[], ports: readonly PublishedPort[] = []): LocalEndpoint {
  slots += 1;
  const endpoint = {
    ...makeEndpoint(
      network,
      host,
      slots,
      addresses.map((ip) => parseIp(ip)),
    ),
    ports,
  };
  return { endpoint, slot: slots, sandbox: `/run/guard/${slots}`, order: 1 };
}
const udp = (hostPort: number, port: number): PublishedPort => ({ protocol: 'udp', hostPort, port });

const a = local(web.id, 'host-1', ['10.0.0.2', 'fd00::2'], [udp(8080, 7000)]);
const b = local(web.id, 'host-1', ['10.0.0.3', 'fd00::3']);
const c = local(web.id, 'host-2', ['10.0.0.34', 'fd00::102']);
const x = local(other.id, 'host-1', ['10.0.0.3', 'fd00::3']);
const i = local(inner.id, 'host-1', ['10.0.0.2', 'fd00::2'], [udp(8090, 7000)]);
const j = local(inner.id, 'host-2', ['10.0.0.34', 'fd00::102']);
const locals = [a, b, c, x, i, j];
const exposure: Exposure = {
  id: 'exposure01',
  name: 'exposure01',
  revision: 1,
  createdAt: '2026-01-01T00:00:00.000Z',
  labels: {},
  network: web.id,
  endpoint: b.endpoint.name,
  protocol: 'udp',
  port: 7000,
  hostPort: 8443,
  sources: [parseCidr('10.213.9.8/32'), parseCidr('fd00:213::9:8/128')],
};
/** The same port of one address, open to others. */
const [ofAddress4, ofAddress6] = ([4, 6] as const).map((family): Exposure => ({
  ...exposure,
  id: `exposure1${family}`,
  endpoint: a.endpoint.name,
  hostIp: parseIp(family === 4 ? '10.213.0.1' : 'fd00:213::1'),
  hostPort: 8444,
  sources: [parseCidr(family === 4 ? '10.213.9.9/32' : 'fd00:213::9:9/128')],
}));
const everywhere: Exposure = { ...exposure, id: 'exposure20', hostPort: 8444 };
const exposures = [exposure, ofAddress4, ofAddress6, everywhere].flatMap((one) => one ?? []);
const snapshot = {
  ...snapshotOf({ hosts, networks, pools, blocks, endpoints: locals.map(({ endpoint }) => endpoint) }),
  exposures: new Map(exposures.map((one) => [one.id, one])),
};

let wire: Wire;
let [one, two]: [NetnsHost, NetnsHost] = [undefined as never, undefined as never];
let outside: Place;
const boxes = new Map<LocalEndpoint, Place>();
const box = (of: LocalEndpoint): Place => boxes.get(of) ?? assert.fail('no such box');

before(() => {
  wire = new Wire();
  one = wire.host('host-1', underlay(1));
  two = wire.host('host-2', underlay(2));
  outside = wire.place('outside', ['10.213.9.9/16', '10.213.9.8/16', 'fd00:213::9:9/64', 'fd00:213::9:8/64']);
  for (const [host, index] of [
    [one, 0],
    [two, 1],
  ] as const) {
    const self = hosts[index] ?? assert.fail();
    const here = locals.filter(({ endpoint }) => endpoint.host === self.id);
    host.apply(plan(snapshot, here, self));
    for (const each of here) boxes.set(each, wire.container(host, each));
  }
});
after(() => wire[Symbol.dispose]());

/** Packets that the domain has let through to somewhere; what its kernel says by itself, as to IPv6's groups, is none of them. */
const forwarded = (family: 4 | 6): number => {
  const [path, counter] = family === 4 ? ['snmp', /^Ip:(?: \d+){5} (\d+)/m] : ['snmp6', /^Ip6OutForwDatagrams\s+(\d+)/m];
  return Number(counter.exec(one.domain(web.id).run('cat', `/proc/net/${path}`))?.[1] ?? assert.fail('no counter'));
};

let words = 0;
const word = (): string => `word ${(words += 1)}`;
const port = 7000;

for (const family of [4, 6] as const) {
  const at = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses.find((ip) => ip.includes(':') === (family === 6)) ?? assert.fail();
  const pick = (four: string, six: string): string => (family === 4 ? four : six);
  const prefix = family === 4 ? 32 : 128;

  /** What `sender` says to `target` does not arrive at `listener`, because `chain` of `where` drops it. */
  async function isDropped(
    say: (text: string) => Promise<void>,
    { by, where, listener }: { by: string; where: Place; listener?: { messages: readonly { text: string }[] } },
  ): Promise<void> {
    const text = word();
    const dropped = where.count(by);
    await say(text);
    await eventually(() => where.count(by) > dropped, `a packet dropped by ${by}`);
    if (listener !== undefined) assert.ok(!listener.messages.some((message) => message.text === text), 'and it has not arrived');
  }

  describe(`IPv${family}`, { concurrency: false }, () => {
    test('endpoints of one network reach each other, on one host and across hosts', async (t) => {
      const [listenB, listenC, sender] = await listen(t, [box(b), at(b), port], [box(c), at(c), port], [box(a), at(a), 0]);
      for (const [listener, ip] of [
        [listenB, at(b)],
        [listenC, at(c)],
      ] as const) {
        const text = word();
        await sender.send(text, { ip, port });
        const heard = await listener.hears(text);
        assert.equal(heard.from, at(a));
        await listener.send(`${text} back`, { ip: heard.from, port: heard.port });
        assert.equal((await sender.hears(`${text} back`)).from, ip);
      }
    });

    test('their conversations are not tracked, neither in the domains nor on the way between the hosts', () => {
      for (const host of [one, two]) {
        const domain = host.domain(web.id);
        assert.doesNotMatch(
          domain.run('conntrack', '-L', '-f', pick('ipv4', 'ipv6'), '-p', 'udp', '--dport', String(port)),
          new RegExp(`dst=${at(b)}|dst=${at(c)}`),
        );
        assert.doesNotMatch(host.run('conntrack', '-L', '-f', 'ipv4'), /dport=8472/);
      }
    });

    test('a network with the same range is another network', async (t) => {
      const [mine, theirs, sender] = await listen(t, [box(b), at(b), port], [box(x), at(x), port], [box(a), at(a), 0]);
      const text = word();
      await sender.send(text, { ip: at(b), port });
      await mine.hears(text);
      assert.deepEqual([at(b) === at(x), theirs.messages], [true, []]);
    });

    test("nobody can speak with another endpoint's address", async (t) => {
      borrow(t, box(a), at(b));
      const [listener, sender] = await listen(t, [box(c), at(c), port], [box(a), at(b), 0]);
      await isDropped((text) => sender.send(text, { ip: at(c), port }), { by: 'entry', where: one.domain(web.id), listener });
    });

    test("nobody can speak with another endpoint's address and MAC from a link of his own", async (t) => {
      borrow(t, box(a), at(b));
      disguise(t, a, b.endpoint.mac);
      const [listener, sender] = await listen(t, [box(c), at(c), port], [box(a), at(b), 0]);
      await isDropped((text) => sender.send(text, { ip: at(c), port }), { by: 'entry', where: one.domain(web.id), listener });
    });

    test('nobody can speak with a MAC that is not his', async (t) => {
      disguise(t, a, '02:00:00:00:00:99');
      const [listener, sender] = await listen(t, [box(c), at(c), port], [box(a), at(a), 0]);
      await isDropped((text) => sender.send(text, { ip: at(c), port }), { by: 'entry', where: one.domain(web.id), listener });
      box(a).ip('link', 'set', 'eth0', 'address', a.endpoint.mac);
      const text = word();
      await sender.send(text, { ip: at(c), port });
      await listener.hears(text);
    });

    test('nobody can speak with an address that nobody has', async (t) => {
      const free = pick('10.0.0.9', 'fd00::9');
      borrow(t, box(a), free);
      const [listener, sender] = await listen(t, [box(c), at(c), port], [box(a), free, 0]);
      await isDropped((text) => sender.send(text, { ip: at(c), port }), { by: 'entry', where: one.domain(web.id), listener });
    });

    test('the gateway answers a ping', async () => {
      // One answer may be late, as its address is asked for first.
      await eventually(() => box(a).ping(pick('169.254.1.1', 'fe80::1%eth0'), { from: at(a) }), 'an answer of the gateway');
      await eventually(() => box(a).ping(pick('169.254.1.1', 'fd63:7703::1')), 'an answer of its other address');
    });

    test('names are asked of the domain, whatever server is asked', async (t) => {
      const [server, asker] = await listen(t, [one.domain(web.id), pick('169.254.1.1', 'fd63:7703::1'), 53], [box(a), at(a), 0]);
      for (const ip of [pick('169.254.1.1', 'fd63:7703::1'), pick('198.51.100.53', '2001:db8::53'), at(b)]) {
        const text = word();
        await asker.send(text, { ip, port: 53 });
        const asked = await server.hears(text);
        assert.equal(asked.from, at(a));
        await server.send(`${text} answer`, { ip: asked.from, port: asked.port });
        assert.equal((await asker.hears(`${text} answer`)).from, ip, 'the answer comes from whom was asked');
      }
    });

    test('every other port of the domain is closed', async (t) => {
      const gateway = pick('169.254.1.1', 'fd63:7703::1');
      const [listener, sender] = await listen(t, [one.domain(web.id), gateway, 5000], [box(a), at(a), 0]);
      await isDropped((text) => sender.send(text, { ip: gateway, port: 5000 }), { by: 'to_agent', where: one.domain(web.id), listener });
    });

    test('an address of the range that nobody has is unreachable, and does not leave by the uplink', () => {
      const until = forwarded(family);
      for (const free of [pick('10.0.0.29', 'fd00::29'), pick('10.0.0.200', 'fd00::1:200')]) {
        const { status, output } = box(a).try('ping', '-n', '-c', '1', '-W', '1', free);
        assert.notEqual(status, 0);
        assert.match(output, /[Uu]nreachable|No route/);
      }
      assert.equal(forwarded(family), until);
      assert.ok(box(a).ping(pick('10.213.9.9', 'fd00:213::9:9')) && forwarded(family) > until, 'what leaves is counted');
    });

    test('the full size passes, on one host and across hosts, and one byte more does not', () => {
      for (const target of [b, c]) {
        assert.ok(box(a).ping(at(target), { size: 1400 }), `1400 to ${at(target)}`);
        assert.ok(box(a).loses(at(target), { size: 1401 }), `1401 to ${at(target)}`);
      }
    });

    test('outgoing traffic has the address of the host, and answers come back', async (t) => {
      const ip = pick('10.213.9.9', 'fd00:213::9:9');
      const [server, sender] = await listen(t, [outside, ip, 9000], [box(a), at(a), 0]);
      const text = word();
      await sender.send(text, { ip, port: 9000 });
      const heard = await server.hears(text);
      assert.equal(heard.from, pick('10.213.0.1', 'fd00:213::1'));
      await server.send(`${text} back`, { ip: heard.from, port: heard.port });
      assert.equal((await sender.hears(`${text} back`)).from, ip);
    });

    test('a published port is reached from outside, and sees the client', async (t) => {
      const client = pick('10.213.9.9', 'fd00:213::9:9');
      const [server, caller] = await listen(t, [box(a), at(a), port], [outside, client, 0]);
      const host = pick('10.213.0.1', 'fd00:213::1');
      const text = word();
      await caller.send(text, { ip: host, port: 8080 });
      const heard = await server.hears(text);
      assert.equal(heard.from, client);
      await server.send(`${text} back`, { ip: heard.from, port: heard.port });
      assert.deepEqual([(await caller.hears(`${text} back`)).from, (await caller.hears(`${text} back`)).port], [host, 8080]);
    });

    test('a container reaches a published port of its own host, its own one too', async (t) => {
      const [server, own, neighbour] = await listen(t, [box(a), at(a), port], [box(a), at(a), 0], [box(b), at(b), 0]);
      for (const caller of [neighbour, own]) {
        const text = word();
        await caller.send(text, { ip: pick('10.213.0.1', 'fd00:213::1'), port: 8080 });
        const heard = await server.hears(text);
        await server.send(`${text} back`, { ip: heard.from, port: heard.port });
        await caller.hears(`${text} back`);
      }
    });

    test('what is too large for the network is told to who sends it to a published port', async (t) => {
      const [server, caller] = await listen(t, [box(a), at(a), port], [outside, pick('10.213.9.9', 'fd00:213::9:9'), 0]);
      const text = word().padEnd(1450 - (family === 4 ? 28 : 48), '.');
      // The first is refused on the way; once the sender has been told, the kernel divides it.
      await eventually(() => {
        void caller.send(text, { ip: pick('10.213.0.1', 'fd00:213::1'), port: 8080 });
        return server.messages.some((message) => message.text === text);
      }, 'the large message arrives');
    });

    test('an exposure admits the clients it names and no others', async (t) => {
      const host = pick('10.213.0.1', 'fd00:213::1');
      const [server, named, unnamed] = await listen(
        t,
        [box(b), at(b), port],
        [outside, pick('10.213.9.8', 'fd00:213::9:8'), 0],
        [outside, pick('10.213.9.9', 'fd00:213::9:9'), 0],
      );
      const text = word();
      await named.send(text, { ip: host, port: 8443 });
      assert.equal((await server.hears(text)).from, pick('10.213.9.8', 'fd00:213::9:8'));
      await isDropped((said) => unnamed.send(said, { ip: host, port: 8443 }), { by: 'restricted_clients', where: one, listener: server });
    });

    test('a port of one address admits its own clients, not those of the same port of every address', async (t) => {
      const host = pick('10.213.0.1', 'fd00:213::1');
      const [server, named, unnamed] = await listen(
        t,
        [box(a), at(a), port],
        [outside, pick('10.213.9.9', 'fd00:213::9:9'), 0],
        [outside, pick('10.213.9.8', 'fd00:213::9:8'), 0],
      );
      const text = word();
      await named.send(text, { ip: host, port: 8444 });
      assert.equal((await server.hears(text)).from, pick('10.213.9.9', 'fd00:213::9:9'));
      await isDropped((said) => unnamed.send(said, { ip: host, port: 8444 }), { by: 'clients_of_address', where: one, listener: server });
    });

    test('nobody outside reaches an endpoint but by a published port', async (t) => {
      const transit = pick('100.127.0.1', 'fd63:7701::1');
      const host = pick('10.213.0.1', 'fd00:213::1');
      outside.ip('route', 'add', `${transit}/${prefix}`, 'via', host);
      const [server, caller] = await listen(t, [box(a), at(a), port], [outside, pick('10.213.9.9', 'fd00:213::9:9'), 0]);
      await isDropped((text) => caller.send(text, { ip: transit, port }), { by: 'forward', where: one, listener: server });
      outside.ip('route', 'del', `${transit}/${prefix}`);
      outside.ip('route', 'add', `${at(a)}/${prefix}`, 'via', host);
      await caller.send('to the container itself', { ip: at(a), port });
      outside.ip('route', 'del', `${at(a)}/${prefix}`);
      assert.deepEqual(server.messages, []);
    });

    test("another network's endpoint does not reach one by its transit address", async (t) => {
      const [server, sender] = await listen(t, [box(a), at(a), port], [box(x), at(x), 0]);
      const transit = pick('100.127.0.1', 'fd63:7701::1');
      await isDropped((text) => sender.send(text, { ip: transit, port }), { by: 'forward', where: one, listener: server });
    });

    test('from a domain only transit addresses leave', async (t) => {
      const ip = pick('10.213.9.9', 'fd00:213::9:9');
      const [server, sender] = await listen(t, [outside, ip, 9000], [one.domain(web.id), pick('169.254.1.1', 'fd63:7703::1'), 0]);
      await isDropped((text) => sender.send(text, { ip, port: 9000 }), { by: 'forward', where: one, listener: server });
    });

    test('from another host only addresses of the network are let in', async (t) => {
      const [server, sender] = await listen(t, [box(a), at(a), port], [two.domain(web.id), pick('169.254.1.1', 'fd63:7703::1'), 0]);
      await isDropped((text) => sender.send(text, { ip: at(a), port }), { by: 'carried', where: one.domain(web.id), listener: server });
    });

    test('nothing comes in by the tunnel to go out by the uplink', async (t) => {
      const ip = pick('10.213.9.9', 'fd00:213::9:9');
      // A host that has been taken over sends with an address of the network.
      const domain = two.domain(web.id);
      domain.ip(
        'route',
        'add',
        `${ip}/${prefix}`,
        'via',
        pick('100.126.0.1', 'fe80::63:77ff:fe00:1'),
        'dev',
        'cwx4096',
        ...(family === 4 ? ['onlink'] : []),
      );
      borrow(t, domain, pick('10.0.0.60', 'fd00::160'));
      const [server, sender] = await listen(t, [outside, ip, 9000], [domain, pick('10.0.0.60', 'fd00::160'), 0]);
      await isDropped((text) => sender.send(text, { ip, port: 9000 }), { by: 'carried', where: one.domain(web.id), listener: server });
      domain.ip('route', 'del', `${ip}/${prefix}`);
    });

    test('an internal network spans hosts, asks names, and has no way out or in', async (t) => {
      const ip = pick('10.213.9.9', 'fd00:213::9:9');
      const [there, names, world, caller, sender] = await listen(
        t,
        [box(j), at(j), port],
        [one.domain(inner.id), pick('169.254.1.1', 'fd63:7703::1'), 53],
        [outside, ip, 9000],
        [outside, ip, 0],
        [box(i), at(i), 0],
      );
      const text = word();
      await sender.send(text, { ip: at(j), port });
      await there.hears(text);
      await sender.send(text, { ip: pick('169.254.1.1', 'fd63:7703::1'), port: 53 });
      await names.hears(text);
      await sender.send('out', { ip, port: 9000 });
      await caller.send('in', { ip: pick('10.213.0.1', 'fd00:213::1'), port: 8090 });
      assert.match(box(i).try('ping', '-n', '-c', '1', '-W', '1', ip).output, /[Uu]nreachable|No route/);
      assert.deepEqual(world.messages, []);
    });
  });
}

/** One more address here until the test has ended. */
function borrow(t: TestContext, place: Place, ip: string): void {
  const address = `${ip}/${ip.includes(':') ? 128 : 32}`;
  place.ip('addr', 'add', address, 'dev', 'lo', ...(ip.includes(':') ? ['nodad'] : []));
  t.after(() => place.ip('addr', 'del', address, 'dev', 'lo'));
}

/** Another MAC on the container's link until the test has ended. */
function disguise(t: TestContext, of: LocalEndpoint, mac: string): void {
  box(of).ip('link', 'set', 'eth0', 'address', mac);
  t.after(() => box(of).ip('link', 'set', 'eth0', 'address', of.endpoint.mac));
}

/** Sockets that are closed with the test. */
async function listen<const T extends readonly (readonly [Place, string, number])[]>(
  t: TestContext,
  ...wanted: T
): Promise<{ readonly [K in keyof T]: Peer }> {
  const peers = await Promise.all(wanted.map(async ([place, ip, at]) => await place.udp(ip, at)));
  t.after(() => {
    for (const peer of peers) peer[Symbol.dispose]();
  });
  return peers as { readonly [K in keyof T]: Peer };
}
