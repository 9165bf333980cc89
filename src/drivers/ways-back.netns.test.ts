// A host with a second interface to the outside, with real packets: who comes to a published port by it gets answers by it, of networks
// of either sort, and nothing else leaves by it. The rules and tables are those that cloud-init and netplan write.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { asked, listen } from '#agent/conversation.fixture.ts';
import { type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { inNetns } from '#kernel/netns.ts';
import { readWaysOut } from '#kernel/source-rules.ts';
import type { Desired } from '#model/desired.ts';
import { type Ip, parseIp } from '#model/ip.ts';
import type { LocalEndpoint, PublishedPort, Service } from '#model/resources.ts';
import type { WaysOut } from '#model/ways-out.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { makeBlock, makeDualHost, makeDualLocal, makeDualPools, makeNetwork, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const port = 7000;
const flat = makeNetwork('aaaaaaaaaa', { model: 'flannel', carry: 'host-gateway' });
const isolated = makeNetwork('bbbbbbbbbb', { vni: 4097 });
const networks = [flat, isolated];
const pools = makeDualPools(networks);
const hosts = [1, 2].map((index) => makeDualHost(index));

function local(number: number, of: number, host: number): LocalEndpoint {
  const ports: PublishedPort[] = [{ protocol: 'udp', hostPort: 5000 + number, port }];
  return makeDualLocal(networks, { number, of, host, ports, sandboxes: '/run/ways-back' });
}
const [a, b, c, far] = [local(1, 0, 1), local(2, 1, 1), local(3, 0, 1), local(4, 0, 2)];
const snapshot = snapshotOf({
  hosts,
  networks,
  pools,
  blocks: pools.flatMap((pool) => [makeBlock(pool, 0, 'host-1'), makeBlock(pool, 1, 'host-2')]),
  endpoints: [a, b, c, far].map(({ endpoint }) => endpoint),
});

let wire: Wire;
let [one, two]: [NetnsHost, NetnsHost] = [undefined as never, undefined as never];
let inner: Place;
let outer: Place;
const boxes = new Map<LocalEndpoint, Place>();
const box = (of: LocalEndpoint): Place => boxes.get(of) ?? assert.fail('no such box');

const waysOf = (host: NetnsHost): WaysOut => inNetns(host.path, () => readWaysOut(host.kinds.sockets.of('')));
/** In front of the first container, and of the one on the other host. */
const services = [a, far].flatMap(({ endpoint }, index) =>
  endpoint.addresses.map((ip): Service => ({
    key: `service ${ip}`,
    ip: parseIp(ip.includes(':') ? 'fd03::11' : '203.0.113.11'),
    protocol: 'udp',
    port: 6001 + index,
    backends: [{ ip, port }],
  })),
);
const wanted = (): Desired => plan(snapshot, [a, b, c], hosts[0] ?? assert.fail(), { services, ways: waysOf(one) });
const apply = (): void => void one.apply(wanted());
const rules = (): string => one.run('ip', 'rule') + one.run('ip', '-6', 'rule');

before(() => {
  wire = new Wire();
  one = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
  two = wire.host('host-2', ['10.213.0.2/16', 'fd00:213::2/64']);
  // Where everything leaves by default: it forwards nothing and knows none of the clients.
  inner = wire.place('inner', ['10.213.9.9/16', 'fd00:213::9:9/64']);
  outer = wire.place('outer', []);
  one.ip('link', 'add', 'eth1', 'type', 'veth', 'peer', 'pub', 'netns', outer.path);
  for (const [place, link, last] of [
    [one, 'eth1', '11'],
    [outer, 'pub', '1'],
  ] as const) {
    place.ip('addr', 'add', `203.0.113.${last}/24`, 'dev', link);
    place.ip('addr', 'add', `fd03::${last}/64`, 'dev', link, 'nodad');
    place.ip('link', 'set', link, 'up');
  }
  for (const address of ['198.51.100.7/32', 'fd51::7/128']) outer.ip('addr', 'add', address, 'dev', 'lo');
  for (const [gateway, inside, own] of [
    ['203.0.113.1', '10.213.9.9', '203.0.113.11'],
    ['fd03::1', 'fd00:213::9:9', 'fd03::11'],
  ] as const) {
    const family = own.includes(':') ? '-6' : '-4';
    one.ip('route', 'add', 'default', 'via', inside);
    one.ip('route', 'add', 'default', 'via', gateway, 'dev', 'eth1', 'table', '101');
    one.ip(family, 'rule', 'add', 'from', own, 'lookup', '101', 'priority', '32000');
  }
  two.apply(plan(snapshot, [far], hosts[1] ?? assert.fail()));
  apply();
  for (const each of [a, b, c]) boxes.set(each, wire.container(one, each));
  boxes.set(far, wire.container(two, far));
});
after(() => wire[Symbol.dispose]());

for (const family of [4, 6] as const) {
  const pick = (four: string, six: string): string => (family === 4 ? four : six);
  const at = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses.find((ip) => ip.includes(':') === (family === 6)) ?? assert.fail();
  describe(`IPv${family}`, { concurrency: false }, () => {
    const second = pick('203.0.113.11', 'fd03::11');

    for (const [what, server, hostPort] of [
      ['that the host routes itself', a, 5001],
      ['that is isolated', b, 5002],
    ] as const) {
      test(`who comes by the second interface to a container of a network ${what} gets the answer by it`, async (t) => {
        const client = await listen(t, outer, pick('198.51.100.7', 'fd51::7'));
        const near = await listen(t, outer, pick('203.0.113.1', 'fd03::1'));
        const served = await listen(t, box(server), at(server), port);
        for (const from of [client, near]) await asked(from, served, { ip: second, port: hostPort });
      });

      test(`neighbours, other hosts and the host itself reach it by the second interface's address, ${what}`, async (t) => {
        const served = await listen(t, box(server), at(server), port);
        for (const [place, ip] of [
          [box(c), at(c)],
          [one, pick('10.213.0.1', 'fd00:213::1')],
        ] as const)
          await asked(await listen(t, place, ip), served, { ip: second, port: hostPort });
      });
    }

    test('who comes by it to a service gets the answer by it, from a container here and from one of another host', async (t) => {
      const client = await listen(t, outer, pick('198.51.100.7', 'fd51::7'));
      for (const [server, servicePort] of [
        [a, 6001],
        [far, 6002],
      ] as const)
        await asked(client, await listen(t, box(server), at(server), port), { ip: second, port: servicePort });
    });

    test('who comes by the first interface gets answers by that, and containers reach each other as ever', async (t) => {
      const served = await listen(t, box(a), at(a), port);
      await asked(await listen(t, inner, pick('10.213.9.9', 'fd00:213::9:9')), served, {
        ip: pick('10.213.0.1', 'fd00:213::1'),
        port: 5001,
      });
      await asked(await listen(t, box(far), at(far)), served, { ip: at(a), port });
      await asked(await listen(t, box(c), at(c)), served, { ip: at(a), port });
    });
  });
}

test('rules follow those of the administrator and go with them', () => {
  assert.match(rules(), /^32000:\s+from all fwmark 0x1000000\/0x1000000 lookup 101 proto openfabric$/m);
  assert.equal(one.apply(wanted()).changed, 0);
  one.ip('rule', 'add', 'from', '203.0.113.12', 'fwmark', '7', 'lookup', '102');
  one.ip('rule', 'add', 'from', '203.0.113.13', 'lookup', '103');
  assert.deepEqual(
    [...new Set(waysOf(one).rules.map(({ table }) => table))],
    [101],
    'of a rule that looks at more, or a table without a way, nothing',
  );
  assert.deepEqual(waysOf(one).links, ['eth0', 'eth1']);
  one.ip('rule', 'del', 'from', '203.0.113.11', 'lookup', '101');
  one.ip('-6', 'rule', 'del', 'from', 'fd03::11', 'lookup', '101');
  apply();
  assert.doesNotMatch(rules(), /fwmark 0x1000000/);
  assert.doesNotMatch(one.run('nft', 'list', 'table', 'inet', 'causeway'), /way_back/);
});
