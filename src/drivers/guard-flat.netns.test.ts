// The guard of networks that the host routes itself, with real packets: containers, hosts and each other reach one another,
// and still nobody speaks as somebody else.
import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { type Ip, parseCidr, parseIp } from '#model/ip.ts';
import type { CarryName, LocalEndpoint } from '#model/resources.ts';
import { makeDualHost, makeFlatCluster, makeNetwork } from './cluster.fixture.ts';
import { resolverPort } from './guard.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const port = 7000;
let words = 0;
const word = (): string => `word ${(words += 1)}`;

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

for (const carry of ['vxlan', 'direct-routing', 'host-gateway'] as const satisfies readonly CarryName[]) {
  describe(`a flat network carried by ${carry}`, { concurrency: false }, () => {
    const network = makeNetwork('aaaaaaaaaa', { model: 'flannel', carry });
    const hosts = [1, 2].map((index) => makeDualHost(index));
    const {
      local: [a, b, c],
      snapshot,
    } = makeFlatCluster(network, hosts, '/run/flat');
    let wire: Wire;
    let [one, two]: [NetnsHost, NetnsHost] = [undefined as never, undefined as never];
    let outside: Place;
    const boxes = new Map<LocalEndpoint, Place>();
    const box = (of: LocalEndpoint): Place => boxes.get(of) ?? assert.fail('no such box');

    before(() => {
      wire = new Wire();
      one = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
      two = wire.host('host-2', ['10.213.0.2/16', 'fd00:213::2/64']);
      outside = wire.place('outside', ['10.213.9.9/16', 'fd00:213::9:9/64']);
      for (const [host, index, here] of [
        [one, 0, [a, b]],
        [two, 1, [c]],
      ] as const) {
        host.apply(plan(snapshot, here, hosts[index] ?? assert.fail()));
        // As a host that has a way to the world.
        host.ip('route', 'add', 'default', 'via', '10.213.9.9');
        placeWitness(host);
        for (const each of here) boxes.set(each, wire.container(host, each));
      }
    });
    after(() => wire[Symbol.dispose]());

    for (const family of [4, 6] as const) {
      const pick = (four: string, six: string): string => (family === 4 ? four : six);
      const at = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses.find((ip) => ip.includes(':') === (family === 6)) ?? assert.fail();

      test(`IPv${family}: containers reach each other on one host and across hosts, and hosts reach containers`, async (t) => {
        const [listenB, listenC, sender] = await listen(t, [box(b), at(b), port], [box(c), at(c), port], [box(a), at(a), 0]);
        for (const [listener, ip] of [
          [listenB, at(b)],
          [listenC, at(c)],
        ] as const) {
          const text = word();
          await sender.send(text, { ip, port });
          assert.equal((await listener.hears(text)).from, at(a));
        }
        assert.ok(one.ping(at(a)), 'the own host');
        assert.ok(two.ping(at(a)), 'another host');
      });

      test(`IPv${family}: nobody speaks with another's address or MAC`, async (t) => {
        const [listener] = await listen(t, [box(c), at(c), port]);
        const stolen = `${at(b)}/${family === 4 ? 32 : 128}`;
        box(a).ip('addr', 'add', stolen, 'dev', 'lo', ...(family === 6 ? ['nodad'] : []));
        t.after(() => box(a).ip('addr', 'del', stolen, 'dev', 'lo'));
        const [thief, own] = await listen(t, [box(a), at(b), 0], [box(a), at(a), 0]);
        const dropped = one.count('members');
        await thief.send('as another', { ip: at(c), port });
        await eventually(() => one.count('members') > dropped, 'the address is refused');
        box(a).ip('link', 'set', 'eth0', 'address', '02:00:00:00:00:99');
        t.after(() => box(a).ip('link', 'set', 'eth0', 'address', a.endpoint.mac));
        const next = one.count('members');
        await own.send('as another', { ip: at(c), port });
        await eventually(() => one.count('members') > next, 'the MAC is refused');
        assert.deepEqual(listener.messages, []);
      });

      test(`IPv${family}: questions for names go to the name server of the range`, async (t) => {
        const [server, asker] = await listen(t, [one, pick('169.254.1.1', 'fd63:7703::1'), resolverPort(network)], [box(a), at(a), 0]);
        const text = word();
        await asker.send(text, { ip: pick('198.51.100.53', '2001:db8::53'), port: 53 });
        const asked = await server.hears(text);
        await server.send(`${text} answer`, { ip: asked.from, port: asked.port });
        assert.equal((await asker.hears(`${text} answer`)).from, pick('198.51.100.53', '2001:db8::53'));
      });

      test(`IPv${family}: what leaves for the world has the address of the host`, async (t) => {
        const ip = pick('10.213.9.9', 'fd00:213::9:9');
        const [server, sender] = await listen(t, [outside, ip, 9000], [box(a), at(a), 0]);
        const text = word();
        await sender.send(text, { ip, port: 9000 });
        assert.equal((await server.hears(text)).from, pick('10.213.0.1', 'fd00:213::1'));
      });

      test(`IPv${family}: where routers outside know the way, what leaves keeps its sender, and what does not leave too`, async (t) => {
        const ip = pick('10.213.9.9', 'fd00:213::9:9');
        const keeping = {
          ...snapshot,
          pools: new Map([...snapshot.pools].map(([id, pool]) => [id, { ...pool, keepsSender: true as const }])),
        };
        one.apply(plan(keeping, [a, b], hosts[0] ?? assert.fail()));
        t.after(() => one.apply(plan(snapshot, [a, b], hosts[0] ?? assert.fail())));
        outside.ip('route', 'replace', at(a), 'via', pick('10.213.0.1', 'fd00:213::1'));
        t.after(() => outside.ip('route', 'del', at(a)));
        const [server, peer, sender] = await listen(t, [outside, ip, 9000], [box(c), at(c), port], [box(a), at(a), 0]);
        for (const [listener, to, number] of [
          [server, ip, 9000],
          [peer, at(c), port],
        ] as const) {
          const [text, answer] = [word(), word()];
          await sender.send(text, { ip: to, port: number });
          const { from, port: back } = await listener.hears(text);
          assert.equal(from, at(a));
          await listener.send(answer, { ip: from, port: back });
          await sender.hears(answer);
        }
      });

      test(`IPv${family}: pools of one network may lie in each other`, () => {
        const [pool] = [...snapshot.pools.values()].filter(({ cidr }) => cidr.includes(':') === (family === 6));
        assert.ok(pool !== undefined);
        const inner = { ...pool, id: 'inner', cidr: parseCidr(pick('10.44.0.0/24', 'fd44::/112')) };
        const twin = { ...pool, id: 'twin' };
        const pools = new Map([...snapshot.pools, ...[inner, twin].map((each) => [each.id, each] as const)]);
        one.apply(plan({ ...snapshot, pools }, [a, b], hosts[0] ?? assert.fail()));
        for (const to of [b, c]) assert.ok(box(a).ping(at(to)));
        one.apply(plan(snapshot, [a, b], hosts[0] ?? assert.fail()));
        assert.ok(box(a).ping(at(c)));
      });

      test(`IPv${family}: what comes for an address of services that none has does not go back, nor is its sender told to`, async (t) => {
        const [range = '', ip = ''] = pick('198.51.100.0/24 198.51.100.7', '2001:db8:7::/64 2001:db8:7::7').split(' ');
        outside.ip('route', 'add', range, 'via', pick('10.213.0.1', 'fd00:213::1'));
        t.after(() => outside.ip('route', 'del', range));
        t.after(() => one.apply(plan(snapshot, [a, b], hosts[0] ?? assert.fail())));
        const redirects = (): number => {
          const [names, values] = (one.run('cat', '/proc/net/snmp').match(/^Icmp: .*$/gm) ?? []).map((line) => line.split(' '));
          return Number(values?.[names?.indexOf('OutRedirects') ?? -1]);
        };
        const [sender] = await listen(t, [outside, pick('10.213.9.9', 'fd00:213::9:9'), 0]);
        const begin = redirects();
        await sender.send('round', { ip, port: 9 });
        // Those of IPv6 name link-local addresses only.
        if (family === 4) await eventually(() => redirects() > begin, 'a redirect, as hosts send them');
        one.apply(plan(snapshot, [a, b], hosts[0] ?? assert.fail(), { services: [], balanced: [parseCidr(range)] }));
        const [dropped, told] = [one.count('drained'), redirects()];
        outside.ip('route', 'flush', 'cache');
        if (family === 6) one.ip('route', 'replace', 'default', 'via', 'fd00:213::9:9');
        await sender.send('round', { ip, port: 9 });
        await eventually(() => one.count('drained') > dropped, 'it to be dropped');
        assert.equal(redirects(), told);

        const empty = { key: 'empty', ip: parseIp(ip), protocol: 'udp', port: 9, backends: [] } as const;
        one.apply(plan(snapshot, [a, b], hosts[0] ?? assert.fail(), { services: [empty], balanced: [parseCidr(range)] }));
        const refused = one.count('unserved');
        await sender.send('round', { ip, port: 9 });
        await eventually(() => one.count('unserved') > refused, 'it to be refused, as its service has no endpoints');
      });

      test(`IPv${family}: an address that nobody has is unreachable and does not leave the host`, () => {
        const until = one.count('left', 'witness');
        for (const free of [pick('10.44.0.200', 'fd44::200'), pick('10.44.77.7', 'fd44::77:7')]) {
          const { status, output } = box(a).try('ping', '-n', '-c', '1', '-W', '1', free);
          assert.notEqual(status, 0);
          assert.match(output, /[Uu]nreachable|No route/);
        }
        assert.equal(one.count('left', 'witness'), until);
        // Lest the witness sleeps.
        assert.ok(one.ping(pick('10.213.0.2', 'fd00:213::2')));
        assert.ok(one.count('left', 'witness') > until);
      });
    }
  });
}

/** Counts packets that leave the host, what neighbours say to each other aside: that goes on by itself. */
const placeWitness = (host: Place): void => {
  const chatter = '{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report }';
  const lines = [
    'add table inet witness',
    'add chain inet witness left { type filter hook postrouting priority 300; }',
    `add rule inet witness left oifname eth0 icmpv6 type ${chatter} accept`,
    'add rule inet witness left oifname eth0 counter',
  ];
  for (const line of lines) host.run('nft', line);
};
