// A link between hosts that takes smaller packets than their interfaces: once the plan knows, containers that run are told so by their own
// host, and send what passes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { Wire } from '#agent/namespaces.fixture.ts';
import type { CarryName, Host } from '#model/resources.ts';
import { makeDualHost, makeFlatCluster, makeNetwork } from './cluster.fixture.ts';
import { mtuSum } from './mtu.ts';
import { plan } from './plan.ts';

mustBeIsolated();

/** IPv6 needs 1280 bytes beside what VXLAN adds. */
const narrow = 1350;
const hostOf = (index: number, mtu = 1450): Host => makeDualHost(index, { mtu });

for (const carry of ['vxlan', 'direct-routing', 'host-gateway'] as const satisfies readonly CarryName[]) {
  test(`of a network carried by ${carry} containers are told what passes, and only towards that host`, () => {
    const network = makeNetwork('aaaaaaaaaa', { model: 'flannel', carry });
    const hosts = [hostOf(1), hostOf(2)];
    const {
      local: [a, b, c],
      snapshot,
    } = makeFlatCluster(network, hosts, '/run/narrow');
    using wire = new Wire();
    const one = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
    const two = wire.host('host-2', ['10.213.0.2/16', 'fd00:213::2/64']);
    const self = hosts[0] ?? assert.fail();
    one.apply(plan(snapshot, [a, b], self));
    two.apply(plan(snapshot, [c], hosts[1] ?? assert.fail()));
    const [box, beside] = [wire.container(one, a), wire.container(one, b)];
    wire.container(two, c);
    const [there = '', there6 = ''] = c.endpoint.addresses;
    const [here = ''] = b.endpoint.addresses;
    const full = carry === 'host-gateway' ? 1450 : mtuSum(network, self).mtu;
    assert.ok(box.ping(there, { size: full }));
    assert.ok(box.ping(there6, { size: full }));

    two.ip('link', 'set', 'eth0', 'mtu', String(narrow));
    assert.ok(box.loses(there, { size: full }), 'nobody says why');
    const known = { ...snapshot, hosts: new Map([...snapshot.hosts, ['host-2', hostOf(2, narrow)]]) };
    one.apply(plan(known, [a, b], self));
    const left = carry === 'vxlan' ? full - (1450 - narrow) : narrow;
    for (const ip of [there, there6]) {
      // The first one that is too large is answered by the host, and from then on the container knows.
      box.ping(ip, { size: full });
      assert.match(box.try('ip', 'route', 'get', ip).output, new RegExp(`mtu ${left}`));
      assert.ok(box.ping(ip, { size: left }));
    }
    assert.ok(box.ping(here, { size: full }), 'on the same host all is as it was');
    assert.ok(beside.ping(there, { size: left }));
    one.apply(plan(snapshot, [a, b], self));
    two.ip('link', 'set', 'eth0', 'mtu', '1450');
    assert.ok(beside.ping(there, { size: full }), 'and so it is when full size passes again');
  });
}
