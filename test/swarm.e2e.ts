// A Swarm of three real nodes with Causeway as its managed plugin: what `docker service create --network` promises, across
// nodes. Service names are answered by the engines themselves, from Swarm's gossip; packets take our path.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { docker, killDockerd, startDockerd } from '#lab/engine.ts';
import { boxImage } from '#lab/images.ts';
import { joinSwarm, leaveSwarm, pluginName, removePlugin, untilManagers } from '#lab/swarm.ts';
import { until } from '#lab/until.ts';
import { agentStatus } from './bed.ts';
import { addresses, inside, leftovers, makeSwarmBed, pageOf, patient, reaches, reachesAll, resolved, type SwarmBed } from './swarm-bed.ts';

let bed: SwarmBed;

before(async () => {
  bed = await makeSwarmBed('e2e-swarm');
});
after(() => bed[Symbol.asyncDispose]());

test('tasks on different nodes reach each other by address and by name', async () => {
  await bed.network('red', '--attachable');
  await bed.service('web', '--endpoint-mode', 'dnsrr', '--network', 'red', '--replicas', '3', '--replicas-max-per-node', '1');
  const list = await bed.running('web', 'red', 3);
  assert.equal(new Set(list.map(({ host }) => host.name)).size, 3);
  for (const from of list) {
    await reachesAll(from, list);
    for (const title of ['web', 'tasks.web']) {
      await until(`${title} in ${from.name}`, async () => (await resolved(from, title)).join() === addresses(list).join(), patient);
    }
  }
  const [from] = list;
  assert.ok(from !== undefined);
  const pages = await Promise.all(['web', ...addresses(list)].map((target) => pageOf(from, target)));
  assert.equal(new Set(pages.slice(1)).size, 3);
  assert.ok(pages.slice(1).includes(pages[0] ?? ''));
});

test('a full-size packet fits the path, whose size the containers know', async () => {
  const [from, to] = await bed.running('web', 'red', 3);
  assert.ok(from !== undefined && to !== undefined);
  const mtu = Number(await inside(from, 'cat', '/sys/class/net/eth0/mtu'));
  assert.equal(mtu, 1400, '1450 less 50 of VXLAN');
  await until('it to pass', () => reaches(from, to.address, '-s', String(mtu - 28)), patient);
});

test('network and tasks have their names in Causeway', async () => {
  const list = await bed.running('web', 'red', 3);
  await until('the network’s name', async () => /^red\s/m.test(await bed.causeway('network', 'ls')), patient);
  await until(
    'the endpoints’ names',
    async () => {
      const table = await bed.causeway('endpoint', 'ls', '--network', 'red');
      return list.every((task) => table.includes(task.name));
    },
    patient,
  );
});

test('domains are visible to the host as named namespaces', async () => {
  for (const host of bed.lab.hosts) {
    const domains = (await host.ask(['ip', 'netns'])).match(/^cw-\S+/gm) ?? [];
    assert.equal(domains.length, 1);
    assert.match(await host.ask(['ip', 'netns', 'exec', domains[0] ?? '', 'ip', '-br', 'link']), /^cwx\d+/m);
  }
});

test('a container started by hand on a worker joins an attachable network', async () => {
  const [, second] = bed.lab.hosts;
  assert.ok(second !== undefined);
  const ask = ['run', '--rm', '--network', 'red', boxImage.name, 'wget', '-T', '10', '-qO-', 'http://tasks.web/'];
  assert.match(await until('a page', () => docker(second, ask), patient), /^[0-9a-f]{12}$/);
});

test('networks cannot see each other', async () => {
  await bed.network('blue');
  await bed.service('spy', '--endpoint-mode', 'dnsrr', '--network', 'blue', '--mode', 'global');
  const spies = await bed.running('spy', 'blue', 3);
  const targets = await bed.running('web', 'red', 3);
  for (const spy of spies) {
    await reachesAll(spy, spies.slice(0, 1));
    assert.deepEqual(await resolved(spy, 'tasks.web'), []);
    const hits = await Promise.all(targets.map((target) => reaches(spy, target.address)));
    assert.deepEqual(hits, [false, false, false]);
  }
});

test('a service in virtual IP mode is found by tasks.NAME', async () => {
  await bed.service('vip', '--network', 'red', '--replicas', '2');
  const list = await bed.running('vip', 'red', 2);
  const [from] = await bed.running('web', 'red', 3);
  assert.ok(from !== undefined);
  await until('tasks.vip', async () => (await resolved(from, 'tasks.vip')).join() === addresses(list).join(), patient);
});

test('a port published in host mode leads to the node’s own task', async () => {
  await bed.service(
    'door',
    '--network',
    'red',
    '--endpoint-mode',
    'dnsrr',
    '--mode',
    'global',
    '--publish',
    'mode=host,target=80,published=8088',
  );
  const list = await bed.running('door', 'red', 3);
  for (const task of list) {
    const ask = ['busybox', 'wget', '-qO-', `http://${task.host.address}:8088/`];
    const page = await until('the port to answer', () => bed.lab.outside.ask(ask), patient);
    assert.equal(page, task.container.slice(0, 12));
  }
  await docker(bed.manager, ['service', 'rm', 'door']);
});

test('a virtual IP answers', async (t) => {
  if (!existsSync('/proc/net/ip_vs')) t.skip('no ip_vs in this kernel, and dockerd 26 serves virtual IPs on its own overlay driver only');
  else t.skip('dockerd 26 serves virtual IPs on its own overlay driver only');
  await docker(bed.manager, ['service', 'rm', 'vip']);
});

test('packets pass while the plugin is away', async () => {
  const [from, to] = await bed.running('web', 'red', 3);
  assert.ok(from !== undefined && to !== undefined);
  const pings = inside(from, 'ping', '-i', '0.01', '-c', '500', to.address);
  await docker(from.host, ['plugin', 'disable', '--force', pluginName]);
  await docker(from.host, ['plugin', 'enable', pluginName]);
  assert.match(await pings, /500 packets transmitted, 500 packets received/);
});

test('an encrypted network carries full-size packets, also after the plugin was away', async () => {
  await bed.network('sealed', '--opt', 'encrypted');
  await bed.service('vault', '--endpoint-mode', 'dnsrr', '--network', 'sealed', '--mode', 'global');
  const [from, to] = await bed.running('vault', 'sealed', 3);
  assert.ok(from !== undefined && to !== undefined);
  const mtu = Number(await inside(from, 'cat', '/sys/class/net/eth0/mtu'));
  const isFull = (): Promise<boolean> => reaches(from, to.address, '-s', String(mtu - 28));
  await until('the tunnel', isFull, patient);
  await docker(from.host, ['plugin', 'disable', '--force', pluginName]);
  await docker(from.host, ['plugin', 'enable', pluginName]);
  await until('the tunnel to be back', isFull, patient);
  await bed.remove(['vault'], ['sealed']);
});

test('scaling up and down changes what the name means', async () => {
  await docker(bed.manager, ['service', 'update', '--replicas-max-per-node', '3', 'web']);
  await docker(bed.manager, ['service', 'scale', 'web=6']);
  const six = await bed.running('web', 'red', 6);
  const [from] = six;
  assert.ok(from !== undefined);
  assert.equal(new Set(addresses(six)).size, 6);
  await until('six addresses', async () => (await resolved(from, 'tasks.web')).join() === addresses(six).join(), patient);
  await reachesAll(from, six);
  await docker(bed.manager, ['service', 'scale', 'web=3']);
  await until('three endpoints', async () => (await bed.endpoints('red')) === 3, patient);
});

test('a drained node loses its tasks to the others, and nothing of the network stays there', async () => {
  const drained = bed.lab.host('host3');
  await docker(bed.manager, ['service', 'rm', 'spy']);
  await docker(bed.manager, ['node', 'update', '--availability', 'drain', 'host3']);
  const list = await until(
    'three tasks elsewhere',
    async () => {
      const all = await bed.tasks('web', 'red');
      return all.length === 3 && all.every(({ host }) => host.name !== 'host3') ? all : undefined;
    },
    patient,
  );
  await reachesAll(list[0] ?? assert.fail(), list);
  await until('the domain to go', async () => !/^cw-/m.test(await drained.ask(['ip', 'netns'])), patient);
  await docker(bed.manager, ['node', 'update', '--availability', 'active', 'host3']);
});

test('after a reboot a node has its plugin again and takes tasks', async () => {
  const host = bed.lab.host('host3');
  await docker(host, ['run', '--detach', '--name', 'left', '--network', 'red', boxImage.name, 'sleep', '600']);
  await until('its name', async () => /^left\s/m.test(await bed.causeway('endpoint', 'ls')), patient);
  await bed.lab.reboot(host);
  await joinSwarm(bed.lab.hosts);
  await docker(bed.manager, ['service', 'update', '--quiet', '--force', '--replicas-max-per-node', '1', 'web']);
  const [back, list] = await until('a task there', async () => {
    const now = await bed.running('web', 'red', 3);
    const there = now.find((task) => task.host === host);
    return there !== undefined && ([there, now] as const);
  });
  await reachesAll(back, list);
  // A container that nobody starts again has given its address back, and is no problem.
  assert.match(await docker(host, ['ps', '--all', '--filter', 'name=left', '--format', '{{.Status}}']), /^Exited/);
  await until('what it had to go', async () => !/^left\s/m.test(await bed.causeway('endpoint', 'ls')), patient);
  await until('nothing to be amiss', async () => (await agentStatus(host)).docker?.problems.length === 0, patient);
  await docker(host, ['rm', 'left']);
});

test('a network made by Causeway is the Swarm’s too, and goes from either side', async () => {
  await bed.causeway('network', 'create', 'green', '--subnet', '10.88.0.0/24');
  await bed.inSwarm('green', pluginName);
  await bed.service('leaf', '--endpoint-mode', 'dnsrr', '--network', 'green', '--mode', 'global');
  const list = await bed.running('leaf', 'green', 3);
  await reachesAll(list[0] ?? assert.fail(), list);
  assert.ok(list.every(({ address }) => address.startsWith('10.88.0.')));
  await bed.remove(['leaf'], ['green']);
  await bed.causeway('network', 'create', 'grey');
  await bed.inSwarm('grey', pluginName);
  await bed.causeway('network', 'rm', '--yes', 'grey');
  await bed.inSwarm('grey', '');
});

test('networks with one range live side by side, apart', async () => {
  const range = ['--subnet', '10.88.0.0/24'];
  await bed.causeway('network', 'create', 'mint', ...range, '--gateway', '10.88.0.1');
  await bed.inSwarm('mint', pluginName);
  await bed.network('lime', '--ipam-driver', pluginName, ...range);
  for (const title of ['mint', 'lime']) {
    await bed.service(`in-${title}`, '--endpoint-mode', 'dnsrr', '--network', title, '--mode', 'global');
  }
  const [mint, lime] = [await bed.running('in-mint', 'mint', 3), await bed.running('in-lime', 'lime', 3)];
  assert.deepEqual(addresses(mint), addresses(lime));
  for (const [list, title] of [
    [mint, 'mint'],
    [lime, 'lime'],
  ] as const) {
    const [from] = list;
    assert.ok(from !== undefined);
    const own = list.map(({ container }) => container.slice(0, 12));
    const seen = await Promise.all(list.map(({ address }) => pageOf(from, address)));
    assert.deepEqual(seen.toSorted(), own.toSorted(), `in ${title} only its own answer`);
  }
  await bed.remove(['in-mint', 'in-lime'], ['mint', 'lime']);
});

test('a new leader gives addresses on, and nobody’s', async () => {
  const [, second] = bed.lab.hosts;
  assert.ok(second !== undefined);
  await docker(bed.manager, ['node', 'promote', 'host2', 'host3']);
  await untilManagers(bed.manager, 3);
  await bed.network('kept', '--ipam-driver', pluginName, '--subnet', '10.99.0.0/24');
  await bed.service('crew', '--endpoint-mode', 'dnsrr', '--network', 'kept', '--replicas', '3', '--constraint', 'node.hostname!=host1');
  const first = await bed.running('crew', 'kept', 3);
  await killDockerd(bed.manager);
  await until('another leader', async () => /Leader/.test(await docker(second, ['node', 'ls', '--format', '{{.ManagerStatus}}'])), patient);
  await until('it to scale', () => docker(second, ['service', 'scale', '--detach', 'crew=6']).then(() => true), patient);
  await startDockerd(bed.manager);
  const six = await bed.running('crew', 'kept', 6);
  assert.equal(new Set(addresses(six)).size, 6);
  assert.ok(first.every(({ address }) => addresses(six).includes(address)));
  await reachesAll(six[0] ?? assert.fail(), six);
  await until('the service to go', () => docker(bed.manager, ['service', 'rm', 'crew']).then(() => true), patient);
  await bed.remove([], ['kept']);
});

test('the model swarm makes a network of Docker’s own driver, with the right MTU', async () => {
  await bed.causeway('network', 'create', 'built', '--model', 'swarm', '--attachable');
  await bed.causeway('network', 'create', 'sealed', '--model', 'swarm', '--encrypted');
  await bed.inSwarm('built', 'overlay');
  await bed.inSwarm('sealed', 'overlay');
  const format = '{{json .Options}}';
  assert.match(await docker(bed.manager, ['network', 'inspect', '--format', format, 'sealed']), /"encrypted":""/);
  await bed.causeway('network', 'rm', '--yes', 'sealed');
  await bed.inSwarm('sealed', '');
  await bed.service('brick', '--endpoint-mode', 'dnsrr', '--network', 'built', '--mode', 'global');
  const [from, to] = await bed.running('brick', 'built', 3);
  assert.ok(from !== undefined && to !== undefined);
  assert.equal(await inside(from, 'cat', '/sys/class/net/eth0/mtu'), '1400');
  await until('a packet of full size to pass', () => reaches(from, to.address, '-s', '1372'), patient);
});

test('networks and members of Docker’s own driver are listed beside ours', async () => {
  await docker(bed.manager, ['network', 'create', '--driver', 'overlay', '--attachable', 'found']);
  await docker(bed.lab.host('host2'), ['run', '--detach', '--name', 'alone', '--network', 'found', boxImage.name, 'sleep', '600']);
  const listed = async (): Promise<boolean> => /^found\s+swarm/m.test(await bed.causeway('network', 'ls'));
  await until('the network to be listed', listed, patient);
  await until('its member', async () => /^alone\s+host2/m.test(await bed.causeway('network', 'show', 'found')), patient);
  await until('the members of the other', async () => (await bed.endpoints('built')) === 3, patient);
  const isTold = async (): Promise<boolean> => {
    const told = (await agentStatus(bed.manager)).docker?.networks.find((one) => one.name === 'found');
    return told?.state === 'problem' && /MTU of 1500, but 1450/.test(told.message ?? '');
  };
  await until('its MTU to be told', isTold, patient);
  await docker(bed.lab.host('host2'), ['rm', '--force', 'alone']);
  await until('the member to be forgotten', async () => (await bed.endpoints('found')) === 0, patient);
  await bed.causeway('network', 'rm', '--yes', 'found');
  await bed.inSwarm('found', '');
  await docker(bed.manager, ['service', 'rm', 'brick']);
  await until('the members to be forgotten', async () => (await bed.endpoints('built')) === 0, patient);
  await bed.remove([], ['built']);
});

test('removed networks leave nothing on any host', async () => {
  await bed.remove(['web'], ['red', 'blue']);
  for (const host of bed.lab.hosts) {
    await until(`${host.name} to be clean`, async () => (await leftovers(host)) === '', patient);
  }
});

test('plugin and Swarm go without a trace', async () => {
  await leaveSwarm(bed.lab.hosts);
  for (const host of bed.lab.hosts) {
    await removePlugin(host);
    assert.equal(await docker(host, ['plugin', 'ls', '--quiet']), '');
    await until(`${host.name} to be clean`, async () => (await leftovers(host)) === '', patient);
  }
});
