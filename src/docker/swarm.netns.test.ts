// The same plugin with scope `global` in a real Swarm of one node. Swarm takes managed plugins only; dockerd talks to those
// at /run/docker/plugins/<plugin id>/<socket>, so the test's own server can listen there while the plugin's process sleeps.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CallServer } from '#api/call-server.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { type Bed, missing, startBed, wire } from './bed.ts';
import { FakeAgent } from './fake-agent.ts';
import { Ipam } from './ipam.ts';
import { silent } from './log.ts';
import { dockerRecords } from './records.ts';
import { createPlugin, listenPlugin } from './server.ts';
import { Sync } from './sync.ts';

mustBeIsolated();

const driver = 'causeway-swarm:latest';

async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await what()) return;
    await sleep(100);
  }
  assert.fail('it never became true');
}

describe('a real Swarm', { skip: missing() ?? false, timeout: 800_000 }, () => {
  let bed: Bed;
  let server: CallServer;
  const agent = new FakeAgent('host-a', wire);
  const records = dockerRecords(agent.journal);
  const ipam = new Ipam({ agent, records, log: silent });
  const plugin = createPlugin({ agent, records, ipam, log: silent, scope: 'global' });
  const docker = (line: string): Promise<string> => bed.docker(...line.split(' '));

  before(async () => {
    bed = await startBed({ liveRestore: false });
    execFileSync('ip', ['-batch', '-'], {
      input:
        'link add uplink type veth peer name uplinkpeer\naddr add 10.250.0.1/24 dev uplink\nlink set uplink up\nlink set uplinkpeer up\n',
    });
    const folder = `${bed.folder}/plugin`;
    mkdirSync(`${folder}/rootfs/bin`, { recursive: true });
    execFileSync('cp', ['/bin/busybox', `${folder}/rootfs/bin/busybox`]);
    const config = {
      description: 'Causeway',
      documentation: 'none',
      entrypoint: ['/bin/busybox', 'sleep', '100000'],
      interface: { types: ['docker.networkdriver/1.0'], socket: 'causeway.sock' },
      network: { type: 'host' },
    };
    writeFileSync(`${folder}/config.json`, JSON.stringify(config));
    await docker(`plugin create ${driver} ${folder}`);
    const id = await docker(`plugin inspect -f {{.Id}} ${driver}`);
    server = await listenPlugin(plugin, `/run/docker/plugins/${id}/causeway.sock`);
    await docker(`plugin enable ${driver}`);
    await docker('swarm init --advertise-addr 10.250.0.1');
  });
  after(async () => {
    await docker('swarm leave -f').catch(() => undefined);
    await docker(`plugin rm -f ${driver}`).catch(() => undefined);
    await bed[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  test("services get the managers' addresses and find each other by name", async () => {
    await docker(`network create -d ${driver} --attachable -o mtu=1300 shop`);
    await docker('service create -d --name web --endpoint-mode dnsrr --stop-grace-period 1s --replicas 2 --network shop cw/box sleep 1000');
    await until(
      async () => (await docker('service ps -f desired-state=running --format {{.CurrentState}} web')).match(/^Running/gm)?.length === 2,
    );
    const [network] = agent.networks();
    assert.deepEqual([network?.addressing, network?.mtu], ['external', 1300]);
    // A task runs a moment before its name is known.
    const addresses = agent.held().map((line) => line.split(' ')[1] ?? '');
    const looked = 'run --rm --network shop cw/box nslookup tasks.web';
    await until(async () => {
      const found = await docker(looked).catch(() => '');
      return (
        Array.from(found.matchAll(/^Address: (\d.*)$/gm), ([, ip = '']) => ip)
          .toSorted()
          .join() === addresses.toSorted().join()
      );
    });
    await docker('run --rm --network shop cw/box ping -c1 -w30 web');
  });

  test("the network's and the tasks' names are published", async () => {
    const options = {
      scope: 'global' as const,
      agent,
      records,
      endpoints: plugin.endpoints,
      engine: bed.engine,
      log: silent,
      isNetns: existsSync,
      driver,
    };
    await new Sync(options).pass();
    assert.deepEqual(
      agent.networks().map((network) => network.name),
      ['shop'],
    );
    assert.deepEqual(
      agent.localEndpoints().map((endpoint) => endpoint.owner.slice(0, 4)),
      ['web.', 'web.'],
    );
    assert.equal(await docker('network ls -q --filter driver=causeway-swarm'), '', 'no copy is made of it');
  });

  test("another IPAM driver than the managers' is refused", async () => {
    assert.match(await bed.dockerFails('network', 'create', '-d', driver, '--ipam-driver', driver, 'other'), /lookup of plugin/);
  });

  test('removal frees the network', async () => {
    await docker('service rm web');
    await until(() => agent.localEndpoints().length === 0);
    // Swarm counts tasks that end among those that use it.
    await until(() =>
      docker('network rm shop').then(
        () => true,
        () => false,
      ),
    );
    await until(() => agent.networks().length === 0 && agent.journal.list('').length === 0);
  });
});
