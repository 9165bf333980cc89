// Services with real packets, from outside of the cluster and over time: node ports, addresses of load balancers, clients that
// stay with a backend, and what the kernel remembers of backends that have gone.
import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { listen as socket } from '#agent/conversation.fixture.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { Openings } from '#agent/openings.ts';
import { inNetns } from '#kernel/netns.ts';
import { type Cidr, type Family, familyOf, hostPrefix, type Ip, parseCidr, parseIp } from '#model/ip.ts';
import { tunnelAddress } from '#model/numbers.ts';
import type { Backend, LocalEndpoint, Service } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeDualHost, makeFlatCluster, makeNetwork, makePool } from './cluster.fixture.ts';
import { plan } from './plan.ts';
import { everyAddress } from './services.ts';

mustBeIsolated();

const inside = 7000;
let words = 0;
const word = (): string => `word ${(words += 1)}`;
const pick = (family: Family, four: string, six: string): Ip => parseIp(family === 4 ? four : six);

type Rest = Partial<Service> & Pick<Service, 'backends'>;
const service = (ip: Ip, port: number, rest: Rest): Service => ({
  key: `${ip} ${port}`,
  ip,
  protocol: 'udp',
  port,
  ...rest,
});

/** Which of the listeners hears the next word; it answers, and the answer arrives from where the word was sent to. */
async function conversation(sender: Peer, target: { ip: Ip; port: number }, listeners: readonly Peer[]) {
  const text = word();
  await sender.send(text, target);
  const { index, message } = await eventually(() => {
    const found = listeners.flatMap((peer, place) =>
      peer.messages.filter((heard) => heard.text === text).map((heard) => ({ index: place, message: heard })),
    );
    return found[0];
  }, `${text} to be heard`);
  const answer = word();
  await listeners[index]?.send(answer, { ip: message.from, port: message.port });
  const { from, port } = await sender.hears(answer);
  assert.deepEqual([from, port], [target.ip, target.port]);
  return { index, from: message.from };
}

interface Talk {
  readonly target: { readonly ip: Ip; readonly port: number };
  readonly listeners: readonly Peer[];
}

/** Conversations from ever new ports, until each of the listeners had one: what they saw as the sender. */
async function share(t: TestContext, from: { place: Place; ip: Ip }, { target, listeners }: Talk): Promise<Map<number, string>> {
  const seen = new Map<number, string>();
  for (let tries = 0; tries < 60 && seen.size < listeners.length; tries++) {
    const { index, from: sender } = await conversation(await socket(t, from.place, from.ip), target, listeners);
    seen.set(index, sender);
  }
  assert.equal(seen.size, listeners.length);
  return seen;
}

for (const family of [4, 6] as const) {
  describe(`IPv${family} at the edge`, { concurrency: false }, () => {
    const network = makeNetwork('aaaaaaaaaa', { model: 'flannel' });
    const hosts = [1, 2].map((index) => makeDualHost(index));
    const {
      local: [a, b, c],
      snapshot,
    } = makeFlatCluster(network, hosts, '/run/edge');
    const nodeAddress = (index: number): Ip => pick(family, `10.213.0.${index}`, `fd00:213::${index}`);
    const clientAddress = pick(family, '10.213.0.98', 'fd00:213::98');
    const otherAddress = pick(family, '10.213.0.99', 'fd00:213::99');
    const addressOf = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses.find((ip) => familyOf(ip) === family) ?? assert.fail();
    const behind = (...of: readonly LocalEndpoint[]): Backend[] => of.map((one) => ({ ip: addressOf(one), port: inside }));
    const balanced = pick(family, '203.0.113.1', '2001:db8:1::1');
    const virtual = pick(family, '10.96.0.5', 'fd96::5');
    const any = pick(family, '0.0.0.0', '::');
    const places = new Map<LocalEndpoint, Place>();
    const boxOf = (of: LocalEndpoint): Place => places.get(of) ?? assert.fail('no such box');
    let wire: Wire;
    let one: NetnsHost;
    let two: NetnsHost;
    let client: Place;
    let openings: Openings;

    /** What the agent does in one run, on both hosts; the first forgets what has gone. */
    function apply(services: readonly Service[], facts = snapshot): number {
      const desired = plan(facts, [a, b], hosts[0] ?? assert.fail(), { services });
      const outcome = one.apply(desired);
      two.apply(plan(facts, [c], hosts[1] ?? assert.fail(), { services }));
      inNetns(one.path, () => openings.applied(desired, outcome));
      return outcome.changed;
    }
    const freshOpenings = (): Openings => new Openings({ sockets: one.kinds.sockets, log: () => undefined, now: () => 0 });

    before(() => {
      wire = new Wire();
      one = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
      two = wire.host('host-2', ['10.213.0.2/16', 'fd00:213::2/64']);
      client = wire.place('client', ['10.213.0.98/16', '10.213.0.99/16', 'fd00:213::98/64', 'fd00:213::99/64']);
      openings = freshOpenings();
      apply([]);
      for (const host of [one, two]) {
        host.ip('route', 'add', 'default', 'via', '10.213.9.9');
        host.ip('-6', 'route', 'add', 'default', 'via', 'fd00:213::9:9');
        host.ip('neigh', 'add', '10.213.9.9', 'lladdr', '02:00:00:00:99:99', 'dev', 'eth0', 'nud', 'permanent');
        host.ip('neigh', 'add', 'fd00:213::9:9', 'lladdr', '02:00:00:00:99:99', 'dev', 'eth0', 'nud', 'permanent');
      }
      client.ip('route', 'add', hostPrefix(balanced), 'via', nodeAddress(1));
      for (const [each, host] of [
        [a, one],
        [b, one],
        [c, two],
      ] as const)
        places.set(each, wire.container(host, each));
    });
    after(() => wire[Symbol.dispose]());

    const listen = async (t: TestContext, ...of: readonly LocalEndpoint[]): Promise<Peer[]> => {
      const peers = await Promise.all(of.map((each) => boxOf(each).udp(addressOf(each), inside)));
      t.after(() => peers.forEach((peer) => peer[Symbol.dispose]()));
      return peers;
    };

    test('a node port leads from outside to every backend: its own see the client, others this host', async (t) => {
      apply([service(everyAddress[family], 30_080, { backends: behind(b, c) })]);
      const seen = await share(
        t,
        { place: client, ip: clientAddress },
        { target: { ip: nodeAddress(1), port: 30_080 }, listeners: await listen(t, b, c) },
      );
      assert.deepEqual([seen.get(0), seen.get(1)], [clientAddress, nodeAddress(1)]);
    });

    test('a node port is reached from containers, the node itself and by the other node, too', async (t) => {
      apply([service(everyAddress[family], 30_080, { backends: behind(b, c) })]);
      const peers = await listen(t, b, c);
      const target = { ip: nodeAddress(1), port: 30_080 };
      const fromBox = await share(t, { place: boxOf(a), ip: addressOf(a) }, { target, listeners: peers });
      assert.deepEqual([...fromBox.values()], [addressOf(a), addressOf(a)]);
      await share(t, { place: one, ip: any }, { target, listeners: peers });
      await share(t, { place: two, ip: any }, { target, listeners: peers });
    });

    test('with other backends for outside the client is seen there, and dropped where there is none', async (t) => {
      const port = service(everyAddress[family], 30_080, { backends: behind(b, c), outer: behind(b) });
      const peers = await listen(t, b, c);
      apply([port]);
      two.apply(plan(snapshot, [c], hosts[1] ?? assert.fail(), { services: [{ ...port, outer: [] }] }));
      for (let tries = 0; tries < 12; tries++) {
        const { index, from } = await conversation(await socket(t, client, clientAddress), { ip: nodeAddress(1), port: 30_080 }, peers);
        assert.deepEqual([index, from], [0, clientAddress]);
      }
      const lost = await socket(t, client, clientAddress);
      const said = words;
      for (let tries = 0; tries < 5; tries++) await lost.send(word(), { ip: nodeAddress(2), port: 30_080 });
      await conversation(await socket(t, client, clientAddress), { ip: nodeAddress(1), port: 30_080 }, peers);
      const lostWords = Array.from({ length: 5 }, (_, index) => `word ${said + index + 1}`);
      assert.ok(peers.every(({ messages }) => messages.every(({ text }) => !lostWords.includes(text))));
      // Clients on the host itself are led to all, wherever they are.
      await share(t, { place: boxOf(a), ip: addressOf(a) }, { target: { ip: nodeAddress(1), port: 30_080 }, listeners: peers });
    });

    test('an address of a load balancer lets in who is in its source ranges', async (t) => {
      apply([
        service(balanced, 80, {
          backends: behind(b),
          sources: [hostPrefix(clientAddress), `${addressOf(a)}/${family === 4 ? 32 : 128}` as Cidr],
        }),
      ]);
      const peers = await listen(t, b);
      const target = { ip: balanced, port: 80 };
      const { from } = await conversation(await socket(t, client, clientAddress), target, peers);
      assert.equal(from, clientAddress);
      await conversation(await socket(t, boxOf(a), addressOf(a)), target, peers);
      const dropped = one.count('guarded');
      const refused = await socket(t, client, otherAddress);
      await refused.send(word(), target);
      await eventually(() => one.count('guarded') > dropped, 'a packet of another client to be dropped');
      assert.equal(peers[0]?.messages.length, 2);
    });

    test('a client that is to stay comes to one backend, across restarts and new rules, until that is gone', async (t) => {
      const stay = (backends: readonly Backend[]): Service => service(virtual, 80, { backends, affinitySeconds: 600 });
      openings = freshOpenings();
      apply([stay(behind(b, c))]);
      const peers = await listen(t, b, c);
      const target = { ip: virtual, port: 80 };
      const next = async (): Promise<number> => (await conversation(await socket(t, boxOf(a), addressOf(a)), target, peers)).index;
      const first = await next();
      for (let tries = 0; tries < 8; tries++) assert.equal(await next(), first);
      one.forget();
      openings = freshOpenings();
      assert.equal(apply([stay(behind(b, c))]), 0);
      assert.equal(await next(), first);
      // More backends than any service had: other rules.
      const many = Array.from({ length: 65 }, (_, index): Backend => ({
        ip: pick(family, `192.0.2.${index + 1}`, `2001:db8::${index + 1}`),
        port: 9,
      }));
      const another = service(pick(family, '10.96.0.9', 'fd96::9'), 80, { backends: many });
      apply([stay(behind(b, c)), another]);
      for (let tries = 0; tries < 4; tries++) assert.equal(await next(), first);
      const [gone, left] = first === 0 ? [b, c] : [c, b];
      apply([stay(behind(left))]);
      assert.notEqual(await next(), first);
      apply([stay(behind(left, gone))]);
      for (let tries = 0; tries < 8; tries++) assert.notEqual(await next(), first);
    });

    test('a UDP conversation moves on when its backend is gone, others stay, and one that began before the service is led', async (t) => {
      const target = { ip: virtual, port: 123 };
      apply([]);
      const peers = await listen(t, b, c);
      const early = await socket(t, boxOf(a), addressOf(a));
      await early.send(word(), target);
      apply([service(virtual, 123, { backends: behind(b) })]);
      assert.equal((await conversation(early, target, peers)).index, 0);
      const other = await socket(t, boxOf(a), addressOf(a));
      apply([service(virtual, 123, { backends: behind(b, c) })]);
      for (let tries = 0; tries < 5; tries++) assert.equal((await conversation(early, target, peers)).index, 0, 'tracked still');
      apply([service(virtual, 123, { backends: behind(c) })]);
      assert.equal((await conversation(early, target, peers)).index, 1);
      assert.equal((await conversation(other, target, peers)).index, 1);
    });

    test('a UDP client that a node port refuses, again and again, is led as soon as there is a backend, here or elsewhere', async (t) => {
      const peers = await listen(t, b, c);
      const target = { ip: nodeAddress(1), port: 30_080 };
      const sender = await socket(t, client, clientAddress);
      for (const [index, backend] of [b, c].entries()) {
        apply([service(everyAddress[family], 30_080, { backends: [] })]);
        for (let tries = 0; tries < 3; tries++) await sender.send(word(), target);
        apply([service(everyAddress[family], 30_080, { backends: behind(backend) })]);
        assert.equal((await conversation(sender, target, peers)).index, index);
      }
    });

    test('a UDP client that spoke to a port of the host before that led anywhere is led as soon as it does, and comes anew to who takes it over', async (t) => {
      apply([]);
      const target = { ip: nodeAddress(1), port: 5300 };
      const sender = await socket(t, client, clientAddress);
      await sender.send(word(), target);
      const peers = await listen(t, a, b);
      const publishing = (each: LocalEndpoint): LocalEndpoint => ({
        ...each,
        endpoint: { ...each.endpoint, ports: [{ protocol: 'udp', hostPort: target.port, port: inside }] },
      });
      for (const [index, local] of [
        [publishing(a), b],
        [a, publishing(b)],
      ].entries()) {
        const desired = plan(snapshot, local, hosts[0] ?? assert.fail(), { services: [service(virtual, 80, { backends: behind(c) })] });
        const outcome = one.apply(desired);
        inNetns(one.path, () => openings.applied(desired, outcome));
        assert.equal((await conversation(sender, target, peers)).index, index);
      }
      const other = await socket(t, client, clientAddress);
      assert.equal((await conversation(other, target, peers)).index, 1);
      // Its neighbour is seen as itself there, and it meets itself.
      const neighbour = await conversation(await socket(t, boxOf(a), addressOf(a)), target, peers);
      assert.deepEqual([neighbour.index, neighbour.from], [1, addressOf(a)]);
      assert.equal((await conversation(await socket(t, boxOf(b), addressOf(b)), target, peers)).index, 1);
      apply([]);
    });

    test('while the last service that keeps its clients gives that up, the others stay as they are', async (t) => {
      const other = service(everyAddress[family], 30_080, { backends: behind(b) });
      apply([service(virtual, 80, { backends: behind(c), affinitySeconds: 600 }), other]);
      const peers = await listen(t, b, c);
      const target = { ip: nodeAddress(1), port: 30_080 };
      apply([service(virtual, 80, { backends: behind(c) }), other]);
      assert.equal((await conversation(await socket(t, client, clientAddress), target, peers)).index, 0);
      assert.equal((await conversation(await socket(t, boxOf(a), addressOf(a)), { ip: virtual, port: 80 }, peers)).index, 1);
    });

    test('a UDP conversation that began while somebody had emptied a map is led once that is filled again', async (t) => {
      const port = service(everyAddress[family], 30_080, { backends: behind(b) });
      apply([port]);
      const peers = await listen(t, b);
      const target = { ip: nodeAddress(1), port: 30_080 };
      const sender = await socket(t, client, clientAddress);
      one.run('nft', 'flush', 'map', 'inet', 'causeway', `services${family}`);
      await sender.send(word(), target);
      one.forget();
      apply([port]);
      assert.equal((await conversation(sender, target, peers)).index, 0);
    });

    test('a node whose way to services is by another link speaks to endpoints of others as the address of the link that leads there', async (t) => {
      const plain = new Map([[network.id, makeNetwork(network.id, { model: 'flannel', carry: 'host-gateway' })]]);
      apply([service(virtual, 80, { backends: behind(c) })], { ...snapshot, networks: plain });
      t.after(() => apply([]));
      one.ip('link', 'add', 'extra', 'type', 'veth', 'peer', 'name', 'other');
      t.after(() => one.ip('link', 'del', 'extra'));
      for (const link of ['extra', 'other']) one.ip('link', 'set', link, 'up');
      one.ip('addr', 'add', family === 4 ? '198.18.0.1/24' : '2001:db8:2::1/64', 'dev', 'extra', ...(family === 6 ? ['nodad'] : []));
      one.ip('route', 'add', hostPrefix(virtual), 'dev', 'extra');
      const { from } = await conversation(await socket(t, one, any), { ip: virtual, port: 80 }, await listen(t, c));
      assert.equal(from, nodeAddress(1));
    });

    test('a connection of which one side has ended is remembered for an hour', () => {
      assert.equal(one.run('cat', '/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait').trim(), '3600');
    });

    test('what is served elsewhere but not for clients here is dropped', async (t) => {
      apply([service(virtual, 80, { backends: [], servedElsewhere: true })]);
      const lost = await socket(t, boxOf(a), addressOf(a));
      await lost.send(word(), { ip: virtual, port: 80 });
      assert.ok(one.run('nft', 'list', 'map', 'inet', 'causeway', `services${family}`).includes(': drop'));
      assert.equal(one.count('unserved'), 0);
    });

    test("who is on the hosts' own network goes to pods of other nodes as this node's address inside, and to its own as itself", async (t) => {
      const carried = { ...makeNetwork(network.id, { model: 'flannel', carry: 'vxlan' }), present: 'always' as const };
      const ports = makeNetwork('bbbbbbbbbb', { model: 'neutron' });
      const pools = [makePool(ports.id, parseCidr('10.213.0.0/16'), 29), makePool(ports.id, parseCidr('fd00:213::/64'), 125)];
      const addresses = [parseIp('10.213.1.2'), parseIp('fd00:213::102')];
      const guest: LocalEndpoint = {
        endpoint: makeEndpoint(ports.id, 'host-1', 9, addresses),
        slot: 9,
        sandbox: '/run/edge/9',
        order: 1,
      };
      const cluster = {
        ...snapshot,
        networks: new Map([carried, ports].map((each) => [each.id, each])),
        pools: new Map([...snapshot.pools, ...pools.map((pool) => [pool.id, pool] as const)]),
        blocks: new Map([
          ...snapshot.blocks,
          ...pools.map((pool) => makeBlock(pool, 32, 'host-1')).map((block) => [block.id, block] as const),
        ]),
      };
      const services = [service(virtual, 80, { backends: behind(c) })];
      apply(services, cluster);
      const desired = plan(cluster, [a, b, guest], hosts[0] ?? assert.fail(), { services });
      one.apply(desired);
      assert.equal(one.apply(desired).changed, 0);
      const box = wire.container(one, guest);
      const peers = await listen(t, b, c);
      const [own, within] = [addressOf(guest), pick(family, '10.44.0.0', 'fd44::')];
      for (const [ip, port, heard] of [
        [addressOf(b), inside, [0, own]],
        [addressOf(c), inside, [1, within]],
        [virtual, 80, [1, within]],
      ] as const) {
        const { index, from } = await conversation(await socket(t, box, own), { ip, port }, peers);
        assert.deepEqual([index, from], heard, ip);
      }
    });

    // Last, as with a link's only address its routes go.
    for (const model of ['flannel', 'calico'] as const) {
      test(`${model}: through a tunnel a node speaks as its address inside, and is answered by the tunnel`, async (t) => {
        const carried = { ...makeNetwork(network.id, { model, carry: 'vxlan' }), present: 'always' as const };
        const cluster = { ...snapshot, networks: new Map([[network.id, carried]]) };
        apply([service(everyAddress[family], 30_080, { backends: behind(b, c) }), service(virtual, 80, { backends: behind(c) })], cluster);
        // As Neutron's port security.
        const drop = 'oifname eth0 ip saddr 10.44.0.0/16 counter drop; oifname eth0 ip6 saddr fd44::/64 counter drop';
        two.run('nft', `table inet cloud { chain leaving { type filter hook postrouting priority 200; ${drop}; }; }`);
        t.after(() => two.run('nft', 'delete table inet cloud'));
        for (const host of [one, two]) host.run('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=1');
        const [inside4, inside6] =
          model === 'flannel' ? (['10.44.0.0', 'fd44::'] as const) : ([tunnelAddress(1, 4), tunnelAddress(1, 6)] as const);
        const own = pick(family, inside4, inside6);
        const peers = await listen(t, b, c);
        const outside = { ip: nodeAddress(1), port: 30_080 };
        const seen = await share(t, { place: client, ip: clientAddress }, { target: outside, listeners: peers });
        assert.deepEqual([seen.get(0), seen.get(1)], [clientAddress, own]);
        for (const target of [
          { ip: addressOf(c), port: inside },
          { ip: virtual, port: 80 },
        ]) {
          const { index, from } = await conversation(await socket(t, one, any), target, peers);
          assert.deepEqual([index, from], [1, own], target.ip);
        }
        assert.equal(two.count('leaving', 'cloud'), 0);
      });
    }
  });
}
