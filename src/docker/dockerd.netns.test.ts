// Every method and order as a real dockerd calls them, with a FakeAgent behind the plugin.
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { mustBeIsolated } from '#test/isolated.ts';
import { parseCidr } from '#model/ip.ts';
import { type Bed, missing, startBed } from './bed.ts';
import { fakeEndpoint } from './fake-agent.ts';
import { silent } from './log.ts';
import { Sync } from './sync.ts';

mustBeIsolated();

const reason = missing();

const until = async (what: () => boolean): Promise<void> => {
  for (let tries = 0; !what() && tries < 1200; tries++) await sleep(50);
  assert.ok(what());
};

describe('a real dockerd', { skip: reason ?? false, timeout: 800_000 }, () => {
  let bed: Bed;
  let sync: Sync;
  before(async () => {
    bed = await startBed();
    sync = newSync();
  });
  after(() => bed[Symbol.asyncDispose]());

  const newSync = (settleMs = 10_000, lostMs = 0): Sync =>
    new Sync({
      agent: bed.agent,
      records: bed.records,
      endpoints: bed.plugin.endpoints,
      engine: bed.engine,
      log: silent,
      isNetns: existsSync,
      settleMs,
      lostMs,
    });
  const published = (): string[] =>
    bed.agent.localEndpoints().flatMap((one) => one.ports.map((port) => `${port.hostPort}>${port.port}/${port.protocol}`));
  const docker = (line: string): Promise<string> => bed.docker(...line.split(' '));
  const fails = (line: string): Promise<string> => bed.dockerFails(...line.split(' '));
  const run = (words: string): Promise<string> => docker(`run -d ${words} cw/box sleep 1000`);
  const pings = (from: string, to: string): Promise<string> => docker(`exec ${from} ping -c1 -w30 ${to}`);
  const network = (name: string): ReturnType<typeof bed.agent.network> => bed.agent.networks().find((one) => one.name === name);
  const inspect = async (name: string, format: string): Promise<string> => bed.docker('inspect', '-f', format, name);
  /** Nothing of an endpoint or address is left. */
  const assertEmpty = (): void => {
    assert.deepEqual(
      { held: bed.agent.held(), endpoints: bed.agent.localEndpoints(), records: bed.records.attachments.list() },
      { held: [], endpoints: [], records: [] },
    );
  };

  test('a network with every flag keeps what was asked', async () => {
    await docker(
      'network create -d causeway --ipam-driver causeway --subnet 10.9.0.0/24 --ip-range 10.9.0.64/26 --gateway 10.9.0.9 --aux-address router=10.9.0.5 --attachable --label team=blue -o mtu=1300 -o encrypted -o vni=77 full',
    );
    await sync.pass();
    const made = network('full');
    const [pool] = bed.agent.pools(made?.id ?? '');
    assert.deepEqual(
      [made?.mtu, made?.encrypted, made?.vni, made?.labels['team'], pool?.cidr, pool?.range, pool?.gateway, pool?.reserved],
      [1300, true, 77, 'blue', '10.9.0.0/24', '10.9.0.64/26', '10.9.0.9', { router: '10.9.0.5' }],
    );
  });

  test('containers get the addresses and MACs that were asked for, and reach each other', async () => {
    await run('--name c1 --network full --network-alias web');
    await run('--name c2 --network full --ip 10.9.0.10 --mac-address 02:11:22:33:44:55');
    assert.equal(
      await inspect('c1', '{{.NetworkSettings.Networks.full.IPAddress}}/{{.NetworkSettings.Networks.full.IPPrefixLen}}'),
      '10.9.0.64/32',
    );
    assert.match(await docker('exec c2 ip a'), /link\/ether 02:11:22:33:44:55.*\n.*inet 10\.9\.0\.10\/32/);
    assert.match(
      await docker('exec c1 ip r'),
      /^default via 169\.254\.1\.1 dev eth0 \n10\.9\.0\.0\/24 via 169\.254\.1\.1 dev eth0 \n169\.254\.1\.1 dev eth0 scope link/,
    );
    await pings('c1', 'c2');
    assert.match(await fails('run --rm --network full --ip 10.9.0.10 cw/box true'), /10\.9\.0\.10 is taken \(exists\)/);
    assert.match(await fails('run --rm --network full --ip 10.10.0.10 cw/box true'), /outside of 10\.9\.0\.0\/24|no configured subnet/);
  });

  test('a link has the name that is asked for, where the engine can give it', async () => {
    const option = 'driver-opt=com.docker.network.endpoint.ifname';
    assert.match(await docker(`run --rm --network name=full,${option}=lan0 cw/box ip r`), /^default via 169\.254\.1\.1 dev lan0/);
    assert.match(await fails(`run --rm --network name=full,${option}=lan7 cw/box true`), /endpoint\.ifname is "lan7".*as in lan0/);
  });

  test('names and aliases are published', async () => {
    await sync.pass();
    const endpoint = bed.agent.localEndpoints().find((one) => one.owner === 'c1');
    const id = (await inspect('c1', '{{.Id}}')).slice(0, 12);
    assert.deepEqual(endpoint?.names, ['c1', 'web', id]);
    const calls = bed.agent.calls.length;
    await sync.pass();
    assert.equal(bed.agent.calls.length, calls, 'a second pass changes nothing');
    await docker('rename c1 c9');
    sync = newSync();
    await sync.pass();
    assert.equal(bed.agent.localEndpoint(endpoint?.id ?? '')?.owner, 'c9');
    await docker('rename c9 c1');
  });

  test('a second network, of both families, is connected and disconnected live', async () => {
    await docker('network create -d causeway --ipam-driver causeway --ipv6 --subnet 10.8.0.0/24 --subnet fd00:8::/64 dual');
    await docker('network connect dual c1');
    await docker('network connect --ip6 fd00:8::99 dual c2');
    await pings('c1', 'fd00:8::99');
    await pings('c1', '10.9.0.10');
    assert.match(await docker('exec c1 ip -6 r'), /fd00:8::\/64 via fe80::2 dev eth1/);
    await docker('network disconnect dual c1');
    await pings('c1', '10.9.0.10');
    await docker('network disconnect dual c2');
  });

  test('one container is not put on two networks whose addresses overlap', async () => {
    await docker('network create -d causeway --ipam-driver causeway --subnet 10.9.0.0/16 twin');
    assert.match(await fails('network connect twin c1'), /\(overlap\)/);
    // dockerd remembers a connection that failed, whatever the driver's reason, and tries it again at the next start; only
    // while the container is stopped does it let go of it.
    await docker('stop -t 0 c1');
    await docker('network disconnect twin c1');
    await docker('start c1');
    await docker('network rm twin');
  });

  test('published ports follow the way out', async () => {
    await run('--name p1 --network full -p 8080:80 -p 9000-9005:90/udp -p 70');
    assert.deepEqual(published().sort(), ['49153>70/tcp', '8080>80/tcp', '9000>90/udp']);
    assert.match(await fails('run --rm --network full -p 8080:81 cw/box true'), /8080\/tcp .*\(exists\)/);
    await docker('network connect dual p1');
    assert.deepEqual(published().sort(), ['49153>70/tcp', '8080>80/tcp', '9000>90/udp'], 'once, on one of its networks');
    await docker('rm -f p1');
    assert.deepEqual(published(), []);
  });

  test('everything is given back', async () => {
    await docker('stop -t 0 c1');
    await docker('start c1');
    await pings('c1', 'c2');
    await docker('rm -f c1 c2');
    assertEmpty();
  });

  test('an internal network has routes but no way out', async () => {
    await docker('network create -d causeway --ipam-driver causeway --internal inside');
    await run('--name i1 --network inside');
    await run('--name i2 --network inside');
    assert.doesNotMatch(await docker('exec i1 ip r'), /default/);
    await pings('i1', 'i2');
    await docker('rm -f i1 i2');
    await docker('network rm inside');
  });

  test("addresses of Docker's own IPAM are claimed, and peers are not looked up on the link", async () => {
    await docker('network create -d causeway --subnet 172.30.0.0/16 plain');
    await run('--name d1 --network plain');
    await run('--name d2 --network plain');
    await pings('d1', 'd2');
    assert.doesNotMatch(await docker('exec d1 ip neigh'), /172\.30/);
    assert.deepEqual(
      bed.agent.held().map((line) => line.split(' ')[1]),
      ['172.30.0.2', '172.30.0.3'],
    );
    const [pool] = bed.agent.pools(bed.agent.localEndpoints()[0]?.network ?? '');
    await bed.agent.requestAddress(pool?.id ?? '', '172.30.0.4' as never, 'elsewhere');
    assert.match(await fails('run --rm --network plain cw/box true'), /172\.30\.0\.4 .* another host \(exists\).*--ipam-driver causeway/);
    await bed.agent.releaseAddress(pool?.id ?? '', '172.30.0.4' as never);
    await docker('rm -f d1 d2');
    assertEmpty();
    await docker('network rm plain');
  });

  test('wrong options are named', async () => {
    assert.match(await fails('network create -d causeway -o mtuu=7 wrong'), /Unknown network option "mtuu" \(invalid\).*Known options: /);
    assert.match(await fails('network create -d causeway -o mtu=no wrong'), /Option mtu is "no", expected a number/);
    assert.match(await fails('network create -d causeway --ipam-driver causeway --ipam-opt x=y wrong'), /Unknown IPAM option "x"/);
    assert.match(
      await fails('network create -d causeway --ipam-driver causeway --ipam-opt causeway.network=none wrong'),
      /No network "none"/,
    );
    assert.deepEqual(bed.records.drafts.list(), []);
  });

  test('a network of another host appears, works and goes', async () => {
    const made = await bed.agent.createNetwork({
      name: 'shared',
      labels: { colour: 'red' },
      pools: [
        { family: 4, cidr: parseCidr('10.9.0.0/24') },
        { family: 6, cidr: parseCidr('fd00:9::/64') },
      ],
    });
    await sync.pass();
    assert.deepEqual(
      sync.status().networks.filter((one) => one.state !== 'ok'),
      [],
    );
    assert.equal(await docker('network ls --filter driver=causeway --filter label=colour=red --format {{.Name}}'), 'shared');
    assert.match(
      await docker('run --rm --network shared cw/box ip a'),
      /inet 10\.9\.0\.2\/32[^]*inet6 fd00:9::1\/128|inet 10\.9\.0\.2\/32[^]*inet6 fd00:9::2\/128/,
    );
    await run('--name left --network shared');
    bed.agent.forgetNetwork(made.id);
    await sync.pass();
    const [state] = sync.status().networks.filter((one) => one.name === 'shared');
    assert.equal(state?.state, 'problem', "containers keep the engine's network");
    assert.match(await fails('run --rm --network shared cw/box true'), /was removed|not-found/);
    await docker('rm -f left');
    await sync.pass();
    assert.equal(await docker('network ls -q --filter name=shared'), '');
    await bed.plugin.endpoints.removeLost('none');
  });

  test('docker network rm removes it everywhere, or it comes back', async () => {
    const made = await bed.agent.createNetwork({ name: 'keep', pools: [{ family: 4, cidr: parseCidr('10.7.0.0/24') }] });
    await sync.pass();
    bed.agent.addEndpoint(fakeEndpoint({ id: 'remote0000000', network: made.id }));
    await docker('network rm keep');
    assert.notEqual(network('keep'), undefined);
    await sync.pass();
    assert.equal(await docker('network ls --filter name=keep --format {{.Name}}'), 'keep');
    await bed.agent.detach('remote0000000');
    await docker('network rm keep');
    assert.equal(network('keep'), undefined);
  });

  test('names that are taken are reported, and nobody ends up in the wrong network', async () => {
    await docker('network create -d bridge local');
    await bed.agent.createNetwork({ name: 'local', pools: [{ family: 4, cidr: parseCidr('10.6.0.0/24') }] });
    await docker('network create -d causeway --ipam-driver causeway -o mtu=1300 mine');
    await bed.agent.createNetwork({ name: 'mine', pools: [{ family: 4, cidr: parseCidr('10.5.0.0/24') }] });
    await sync.pass();
    const problems = sync
      .status()
      .networks.filter((one) => one.state === 'problem')
      .map((one) => one.name);
    assert.deepEqual(problems.sort(), ['local', 'mine', 'mine']);
    // Whoever starts a container means the network that has the name everywhere else.
    await assert.rejects(
      docker('run --rm --network mine cw/box ip r'),
      /Another network is named mine \(mtu: automatic there, 1300 here\)/,
    );
    for (const name of ['local', 'mine']) bed.agent.forgetNetwork(network(name)?.id ?? '');
    await sync.pass();
    assert.notEqual(network('mine'), undefined, 'the name is published once it is free');
    assert.match(await docker('run --rm --network mine cw/box ip r'), /default/);
    await docker('network rm mine local');
  });

  test('a Compose file that names the driver works unchanged', async (t) => {
    if ((await bed.docker('compose', 'version').catch(() => '')) === '') return t.skip('no docker compose');
    const file = `${bed.folder}/compose.yaml`;
    writeFileSync(
      file,
      `services:
  web: { image: cw/box, command: sleep 1000, networks: [front] }
  client: { image: cw/box, command: sleep 1000, networks: { front: { aliases: [c] } } }
networks:
  front:
    driver: causeway
    driver_opts: { mtu: "1280" }
    ipam: { config: [{ subnet: 10.66.0.0/24 }] }
`,
    );
    const compose = (line: string): Promise<string> => bed.docker('compose', '-p', 'demo', '-f', file, ...line.split(' '));
    await compose('up -d');
    await compose('exec -T client ping -c1 -w30 web');
    await sync.pass();
    assert.equal(network('demo_front')?.mtu, 1280);
    assert.ok(bed.agent.localEndpoints().some((one) => one.names.includes('web')));
    await compose('down -t 0');
    assert.equal(network('demo_front'), undefined);
    assertEmpty();
  });

  test('endpoints lost in a crash of dockerd are detached', async () => {
    await run('--name x1 --network full');
    await bed.stopEngine('SIGKILL');
    await bed.startEngine();
    assert.equal((await docker('ps -q')).length, 12, 'live-restore kept the container');
    await sync.pass();
    assert.equal(bed.agent.localEndpoints().length, 1);
    // A DeleteEndpoint that never came: known here, not to the engine.
    bed.records.attachments.put('f'.repeat(64), { claims: [], lengths: [] });
    await sync.pass();
    assert.equal(bed.records.attachments.list().length, 1);
    await docker('rm -f x1');
    assertEmpty();
  });

  test("the loop follows events and survives the engine's absence", async (t) => {
    const stop = new AbortController();
    t.after(() => stop.abort());
    const looping = newSync(10_000, 30_000);
    const running = looping.run(stop.signal);
    await until(() => looping.status().engine === 'connected');
    await docker('network create -d causeway --ipam-driver causeway followed');
    await until(() => network('followed') !== undefined);
    await run('--name e1 --network followed');
    await until(() => bed.agent.localEndpoints().some((one) => one.owner === 'e1'));
    await bed.stopEngine();
    await until(() => looping.status().engine === 'away');
    await bed.startEngine();
    await until(() => looping.status().engine === 'connected');
    await docker('rm -f e1');
    await docker('network rm followed full dual');
    stop.abort();
    await running;
    assert.deepEqual(bed.agent.networks(), []);
    assert.deepEqual(
      bed.agent.journal.list('').map(({ key }) => key),
      ['docker/engine/resolver'],
    );
  });
});
