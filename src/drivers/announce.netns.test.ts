// Addresses of load balancers on a real wire: found by ARP and neighbour discovery, on one host at a time, and found on the
// other as soon as they move.
import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { Announcements } from '#agent/announcements.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { announce } from '#kernel/gratuitous.ts';
import { inNetns } from '#kernel/netns.ts';
import { familyOf, type Ip, parseIp } from '#model/ip.ts';
import type { LocalEndpoint, Service } from '#model/resources.ts';
import { makeDualHost, makeFlatCluster, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const inside = 7000;

const macOf = (place: Place): string => /link\/ether (\S+)/.exec(place.run('ip', 'link', 'show', 'eth0'))?.[1] ?? assert.fail();

for (const family of [4, 6] as const) {
  describe(`an IPv${family} address of a load balancer`, { concurrency: false }, () => {
    const network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel' }), present: 'always' as const };
    const hosts = [1, 2].map((index) => makeDualHost(index));
    const {
      local: [a, b, c],
      snapshot,
    } = makeFlatCluster(network, hosts, '/run/announce');
    const addressOf = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses.find((ip) => familyOf(ip) === family) ?? assert.fail();
    // On the wire's own range, as pools usually are.
    const balanced = parseIp(family === 4 ? '10.213.0.200' : 'fd00:213::200');
    const service = (announcers: Service['announcers']): Service => ({
      key: 'balanced',
      ip: balanced,
      protocol: 'udp',
      port: 80,
      backends: [{ ip: addressOf(b), port: inside }],
      ...(announcers === undefined ? {} : { announcers }),
    });
    let wire: Wire;
    const machines: { readonly host: NetnsHost; readonly said: Announcements }[] = [];
    const machine = (index: number) => machines[index] ?? assert.fail();
    let client: Place;
    let box: Place;

    function apply(announcers: Service['announcers']): number {
      return hosts.reduce((sum, self, index) => {
        const desired = plan(snapshot, index === 0 ? [a, b] : [c], self, { services: [service(announcers)] });
        const { host, said } = machine(index);
        const { changed } = host.apply(desired);
        inNetns(host.path, () => said.applied(desired));
        return sum + changed;
      }, 0);
    }

    before(() => {
      wire = new Wire();
      for (const index of [1, 2]) {
        const host = wire.host(`host-${index}`, [`10.213.0.${index}/16`, `fd00:213::${index}/64`]);
        const said = new Announcements({
          announce: (link, ips) => inNetns(host.path, () => announce(host.kinds.sockets, link, ips)),
          log: (fields, message) => assert.fail(`${message}: ${JSON.stringify(fields)}`),
        });
        machines.push({ host, said });
      }
      client = wire.place('client', ['10.213.0.98/16', 'fd00:213::98/64']);
      apply(undefined);
      box = wire.container(machine(0).host, b);
    });
    after(() => {
      for (const { said } of machines) said[Symbol.dispose]();
      wire[Symbol.dispose]();
    });

    const neighbour = (): string => client.run('ip', 'neigh', 'show', balanced);
    async function isHeard(t: TestContext, text: string, listener: Peer): Promise<void> {
      const sender = await client.udp(family === 4 ? '10.213.0.98' : 'fd00:213::98');
      t.after(() => sender[Symbol.dispose]());
      await eventually(() => {
        void sender.send(text, { ip: balanced, port: 80 });
        return listener.messages.some((message) => message.text === text);
      }, `${text} to be heard`);
    }

    test('is found where it is, moves with its host, and is gone when nobody may have it', async (t) => {
      const listener = await box.udp(addressOf(b), inside);
      t.after(() => listener[Symbol.dispose]());
      assert.ok(client.loses(balanced));
      for (const index of [0, 1]) {
        apply([`host-${index + 1}`]);
        const { host } = machine(index);
        // A neighbour that was known elsewhere is corrected without being asked for: by the frames, not by time.
        if (index === 1) await eventually(() => neighbour().includes(macOf(host)), 'the neighbour to be another');
        await isHeard(t, `by ${host.path}`, listener);
        assert.ok(neighbour().includes(macOf(host)), neighbour());
        assert.ok(client.ping(balanced));
        // Where it is not, nothing of it is left; a run that finds it writes nothing.
        assert.equal(
          machine(1 - index)
            .host.run('ip', 'addr', 'show', 'dev', 'eth0')
            .includes(balanced),
          false,
        );
        host.forget();
        assert.equal(apply([`host-${index + 1}`]), 0);
      }
      apply([]);
      for (const { host } of machines) assert.equal(host.run('ip', 'addr', 'show', 'dev', 'eth0').includes(balanced), false);
    });

    test('lets nobody in but to the ports of its services, and no connection of the host begins from it', async (t) => {
      const { host } = machine(0);
      apply(['host-1']);
      const own = await host.udp(family === 4 ? '0.0.0.0' : '::', 9);
      const sender = await client.udp(family === 4 ? '10.213.0.98' : 'fd00:213::98');
      t.after(() => {
        own[Symbol.dispose]();
        sender[Symbol.dispose]();
      });
      const refused = host.count('to_announced');
      await sender.send('by the balanced address', { ip: balanced, port: 9 });
      await eventually(() => host.count('to_announced') > refused, 'it to be refused');
      await sender.send("by the host's own", { ip: family === 4 ? '10.213.0.1' : 'fd00:213::1', port: 9 });
      await own.hears("by the host's own");
      assert.equal(own.messages.length, 1);
      const route = host.run('ip', 'route', 'get', family === 4 ? '10.213.0.98' : 'fd00:213::98');
      assert.ok(route.includes(family === 4 ? 'src 10.213.0.1 ' : 'src fd00:213::1 '), route);
    });
  });
}
