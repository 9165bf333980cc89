// Addresses of exposures that move between hosts, on a real wire: usable at once where they come, neighbours turn to the host that has
// it by what the wire is told, and the container sees its client's own address.
import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { Announcements } from '#agent/announcements.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { announce } from '#kernel/gratuitous.ts';
import { inNetns } from '#kernel/netns.ts';
import { familyOf, type Ip, parseCidr, parseIp } from '#model/ip.ts';
import type { Exposure, Host, LocalEndpoint, Snapshot } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeDualHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';
import { virtualAddresses } from './virtual.ts';

mustBeIsolated();

const inside = 7000;
const macOf = (place: Place): string => /link\/ether (\S+)/.exec(place.run('ip', 'link', 'show', 'eth0'))?.[1] ?? assert.fail();

interface Machine {
  readonly self: Host;
  readonly host: NetnsHost;
  readonly local: LocalEndpoint;
  said: Announcements;
  box: Place;
}

const announcements = ({ path, kinds }: NetnsHost): Announcements =>
  new Announcements({
    announce: (link, ips) => inNetns(path, () => announce(kinds.sockets, link, ips)),
    log: (fields, message) => assert.fail(`${message}: ${JSON.stringify(fields)}`),
  });

for (const family of [4, 6] as const) {
  describe(`a virtual address of IPv${family}`, { concurrency: false }, () => {
    // An isolated network, whose containers are behind their hosts' transit addresses.
    const network = makeNetwork('aaaaaaaaaa');
    const pools = [makePool(network.id, parseCidr('10.44.0.0/16'), 24), makePool(network.id, parseCidr('fd44::/64'), 112)];
    const hosts = [1, 2].map((index) => makeDualHost(index));
    const local = [1, 2].map((index): LocalEndpoint => {
      const addresses = [parseIp(`10.44.${index}.2`), parseIp(`fd44::${index}:2`)];
      const endpoint = { ...makeEndpoint(network.id, `host-${index}`, index, addresses), names: ['web'] };
      return { endpoint, slot: 1, sandbox: `/run/virtual/${index}`, order: 1 };
    });
    const ip = parseIp(family === 4 ? '10.213.0.200' : 'fd00:213::200');
    const client = family === 4 ? '10.213.0.98' : 'fd00:213::98';
    const exposure: Exposure = {
      id: 'web',
      name: 'web',
      revision: 1,
      createdAt: '',
      labels: {},
      network: network.id,
      endpoint: 'web',
      protocol: 'udp',
      port: inside,
      hostPort: 80,
      sources: [],
      virtualIp: { ip, hosts: ['host-1', 'host-2'] },
      ...(family === 6 ? { family } : {}),
    };
    const facts: Snapshot = {
      ...snapshotOf({
        hosts,
        networks: [network],
        pools,
        blocks: pools.flatMap((pool) => [makeBlock(pool, 1, 'host-1'), makeBlock(pool, 2, 'host-2')]),
        endpoints: local.map(({ endpoint }) => endpoint),
      }),
      exposures: new Map([['web', exposure]]),
    };
    let wire: Wire;
    const machines: Machine[] = [];
    const machine = (index: number): Machine => machines[index - 1] ?? assert.fail();
    let visitor: Place;

    function apply(index: number, carried: readonly Ip[]): number {
      const { self, host, local: own, said } = machine(index);
      const desired = plan(facts, [own], self, { carried: new Set(carried) });
      const { changed } = host.apply(desired);
      inNetns(host.path, () => said.applied(desired));
      return changed;
    }
    /** The other host has died and come back: it has said nothing. */
    function move(to: number): void {
      const other = machine(3 - to);
      other.said[Symbol.dispose]();
      other.said = announcements(other.host);
      other.host.ip('addr', 'flush', 'to', ip, 'dev', 'eth0');
      other.host.forget();
      apply(to, [ip]);
    }

    before(() => {
      wire = new Wire();
      for (const [at, self] of hosts.entries()) {
        const host = wire.host(self.id, [`10.213.0.${self.index}/16`, `fd00:213::${self.index}/64`]);
        const own = local[at] ?? assert.fail();
        machines.push({ self, host, local: own, said: announcements(host), box: host });
        apply(self.index, []);
        machine(self.index).box = wire.container(host, own);
      }
      visitor = wire.place('visitor', ['10.213.0.98/16', 'fd00:213::98/64']);
    });
    after(() => {
      for (const { said } of machines) said[Symbol.dispose]();
      wire[Symbol.dispose]();
    });

    /** Only what somebody has said unasked changes it so soon: nobody probes a neighbour that answered a moment ago. */
    const neighbour = (): string => visitor.run('ip', 'neigh', 'show', ip);

    async function isHeard(t: TestContext, text: string, listener: Peer): Promise<void> {
      const sender = await visitor.udp(client);
      t.after(() => sender[Symbol.dispose]());
      await eventually(() => {
        void sender.send(text, { ip, port: 80 });
        return listener.messages.some((message) => message.text === text);
      }, `${text} to be heard`);
      assert.deepEqual([...new Set(listener.messages.map(({ from }) => from))], [client], "the client's own address");
    }

    test('both hosts could have it, each knowing the other by the address that it prefers', () => {
      const [own, other] = [1, 2].map((index) => virtualAddresses(facts, [machine(index).local], machine(index).self));
      assert.deepEqual(own, [{ ip, network: network.id, others: new Map([['host-2', '10.213.0.2']]) }]);
      assert.deepEqual(other, [{ ip, network: network.id, others: new Map([['host-1', '10.213.0.1']]) }]);
      const { self, local: mine } = machine(1);
      const lost = { ...self, underlay: self.underlay.filter((one) => familyOf(one.ip) !== family) };
      assert.deepEqual(virtualAddresses(facts, [mine], lost), [], 'one without an address of the family could not');
    });

    test('is usable at once where it comes, and neighbours that knew it elsewhere turn when it moves', async (t) => {
      for (const [round, to] of [1, 2, 1].entries()) {
        const { host, box } = machine(to);
        using listener = await box.udp(family === 4 ? `10.44.${to}.2` : `fd44::${to}:2`, inside);
        move(to);
        const there = host.run('ip', '-o', 'addr', 'show', 'dev', 'eth0', 'to', ip);
        assert.ok(!there.includes('tentative'), there);
        assert.equal(there.includes('nodad'), family === 6, there);
        // Nobody has asked yet.
        if (round > 0) await eventually(() => neighbour().includes(macOf(host)), 'the neighbour to be the other host', 4000);
        await isHeard(t, `by host ${to}`, listener);
        assert.ok(neighbour().includes(macOf(host)), neighbour());
        host.forget();
        assert.equal(apply(to, [ip]), 0, 'a run that finds it writes nothing');
      }
      apply(1, []);
      assert.equal(machine(1).host.run('ip', 'addr', 'show', 'dev', 'eth0').includes(ip), false);
    });
  });
}
