// Services with real packets: containers and hosts reach backends on this host and the other by a virtual address.
import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { type Family, familyOf, type Ip, parseIp } from '#model/ip.ts';
import type { Backend, LocalEndpoint, Service } from '#model/resources.ts';
import { makeFlatCluster, makeHost, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const inside = 7000;
const outside = 80;
let words = 0;
const word = (): string => `word ${(words += 1)}`;

const pick = (family: Family, four: string, six: string): Ip => parseIp(family === 4 ? four : six);
const virtual = (family: Family, last: number): Ip => pick(family, `10.96.0.${last}`, `fd96::${last}`);
const addressOf = ({ endpoint }: LocalEndpoint, family: Family): Ip =>
  endpoint.addresses.find((ip) => familyOf(ip) === family) ?? assert.fail();

/** Sends words to the service, each from another port, until every listener has heard one. */
async function share(from: Place, own: string, target: Ip, listeners: readonly Peer[]): Promise<void> {
  for (let tries = 0; tries < 60 && listeners.some(({ messages }) => messages.length === 0); tries++) {
    using sender = await from.udp(own);
    await sender.send(word(), { ip: target, port: outside });
    await eventually(() => listeners.some(({ messages }) => messages.some(({ text }) => text === `word ${words}`)), 'a word to be heard');
  }
  assert.deepEqual(
    listeners.map(({ messages }) => messages.length > 0),
    listeners.map(() => true),
  );
}
const behind = (family: Family, ...of: readonly LocalEndpoint[]): Backend[] =>
  of.map((one) => ({ ip: addressOf(one, family), port: inside }));
const serviceOf = (family: Family, last: number, backends: readonly Backend[]): Service => ({
  key: `s${last}`,
  ip: virtual(family, last),
  protocol: 'udp',
  port: outside,
  backends,
});

for (const family of [4, 6] as const) {
  describe(`IPv${family} services`, { concurrency: false }, () => {
    const network = makeNetwork('aaaaaaaaaa', { model: 'flannel' });
    const hosts = [1, 2].map((index) => makeHost(index));
    const {
      local: [a, b, c],
      snapshot,
    } = makeFlatCluster(network, hosts, '/run/service');
    // The last one has more backends than the chains that are always there.
    const strangers = Array.from({ length: 65 }, (_, index): Backend => ({
      ip: pick(family, `192.0.2.${index + 1}`, `2001:db8::${index + 1}`),
      port: 9,
    }));
    const services = [
      serviceOf(family, 5, behind(family, b, c)),
      serviceOf(family, 6, behind(family, a)),
      serviceOf(family, 7, []),
      serviceOf(family, 8, strangers),
    ];
    let wire: Wire;
    let one: NetnsHost;
    let two: NetnsHost;
    const boxes = new Map<LocalEndpoint, Place>();
    const box = (of: LocalEndpoint): Place => boxes.get(of) ?? assert.fail('no such box');
    const apply = (host: NetnsHost, index: number, now: readonly Service[]) =>
      host.apply(plan(snapshot, index === 0 ? [a, b] : [c], hosts[index] ?? assert.fail(), { services: now }));

    before(() => {
      wire = new Wire();
      one = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
      two = wire.host('host-2', ['10.213.0.2/16', 'fd00:213::2/64']);
      for (const [host, index, here] of [
        [one, 0, [a, b]],
        [two, 1, [c]],
      ] as const) {
        apply(host, index, services);
        host.ip('route', 'add', 'default', 'via', '10.213.9.9');
        host.ip('-6', 'route', 'add', 'default', 'via', 'fd00:213::9:9');
        for (const each of here) boxes.set(each, wire.container(host, each));
      }
    });
    after(() => wire[Symbol.dispose]());

    const listen = async (t: TestContext, ...of: readonly LocalEndpoint[]): Promise<Peer[]> => {
      const peers = await Promise.all(of.map((each) => box(each).udp(addressOf(each, family), inside)));
      t.after(() => peers.forEach((peer) => peer[Symbol.dispose]()));
      return peers;
    };

    test('a container reaches every backend, and they see its own address', async (t) => {
      const peers = await listen(t, b, c);
      await share(box(a), addressOf(a, family), virtual(family, 5), peers);
      assert.deepEqual(new Set(peers.flatMap(({ messages }) => messages.map(({ from }) => from))), new Set([addressOf(a, family)]));
    });

    test('a host reaches every backend', async (t) => {
      await share(one, pick(family, '0.0.0.0', '::'), virtual(family, 5), await listen(t, b, c));
    });

    test('a container that is the backend itself gets an answer from another address than its own', async (t) => {
      const peers = await listen(t, a);
      await share(box(a), addressOf(a, family), virtual(family, 6), peers);
      assert.notEqual(peers[0]?.messages[0]?.from, addressOf(a, family));
    });

    test('a service without backends refuses', async () => {
      box(a).try('bash', '-c', `echo x >/dev/udp/${virtual(family, 7)}/${outside}`);
      await eventually(() => one.count('unserved') > 0, 'it to be counted');
    });

    test('a port of its address that no service has is refused', () => {
      const own = { ...serviceOf(family, 7, []), refusesOthers: true as const };
      apply(one, 0, [...services.filter(({ key }) => key !== own.key), own]);
      for (const place of [box(a), one]) {
        const counted = one.count('unserved');
        const { output } = place.try('timeout', '30', 'bash', '-c', `exec 3<>/dev/tcp/${virtual(family, 7)}/81`);
        assert.match(output, /Connection refused/);
        assert.ok(one.count('unserved') > counted);
      }
      apply(one, 0, services);
    });

    test('a second run finds everything as it should be; a change of backends is a change of elements', () => {
      one.forget();
      assert.equal(apply(one, 0, services).changed, 0);
      // Two elements of the service that is gone from, one that makes room for another number, and the loop of c.
      const changed = [serviceOf(family, 5, behind(family, b)), ...services.slice(1)];
      assert.ok(apply(one, 0, changed).changed <= 6);
      one.forget();
      assert.equal(apply(one, 0, changed).changed, 0);
      apply(one, 0, services);
    });
  });
}
