// A network of one family alone: nothing of the other is needed for its containers to reach each other, also where it is not the
// family that its packets are carried by.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { Wire } from '#agent/namespaces.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Host, LocalEndpoint } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeDualHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const hostOf = (index: number): Host => makeDualHost(index, { mtu: 1500 });

for (const [family, cidr, prefix] of [
  ['IPv6', 'fd44::/64', 'fd44::'],
  ['IPv4', '10.44.0.0/24', '10.44.0.'],
] as const) {
  test(`containers of a network of ${family} alone reach each other over hosts, and their ports are reached from outside`, async () => {
    const network = makeNetwork('aaaaaaaaaa');
    const pool = makePool(network.id, parseCidr(cidr), family === 'IPv6' ? 120 : 26);
    const hosts = [hostOf(1), hostOf(2)] as const;
    const onHost = (index: number): LocalEndpoint => {
      const address = family === 'IPv6' ? `${prefix}${index - 1}02` : `${prefix}${(index - 1) * 64 + 2}`;
      const endpoint = makeEndpoint(network.id, `host-${index}`, index, [parseIp(address)]);
      const ports = [{ protocol: 'udp' as const, port: 53_000, hostPort: 8080 }];
      return { endpoint: { ...endpoint, ports }, slot: index, sandbox: `/run/one-family/${index}`, order: 1 };
    };
    const locals = [onHost(1), onHost(2)] as const;
    const snapshot = snapshotOf({
      hosts,
      networks: [network],
      pools: [pool],
      blocks: [makeBlock(pool, 0, 'host-1'), makeBlock(pool, 1, 'host-2')],
      endpoints: locals.map(({ endpoint }) => endpoint),
    });
    using wire = new Wire();
    const places = hosts.map((host, index) => {
      const own = locals[index] ?? assert.fail();
      const place = wire.host(host.id, [`10.213.0.${index + 1}/16`, `fd00:213::${index + 1}/64`]);
      place.apply(plan(snapshot, [own], host));
      return { place, box: wire.container(place, own), address: own.endpoint.addresses[0] ?? assert.fail() };
    });
    const [one = assert.fail(), two = assert.fail()] = places;
    assert.ok(one.box.ping(two.address) && two.box.ping(one.address));
    using server = await one.box.udp(one.address, 53_000);
    const [from, to] = family === 'IPv6' ? ['fd00:213::2', 'fd00:213::1'] : ['10.213.0.2', '10.213.0.1'];
    using client = await two.place.udp(from);
    await client.send('hello', { ip: to, port: 8080 });
    assert.equal((await server.hears('hello')).from, from);
  });
}
