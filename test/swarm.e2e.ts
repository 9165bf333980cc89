// A Swarm of three real nodes with Causeway as its managed plugin: what `docker service create --network` promises, across
// nodes. Service names are answered by the engines themselves, from Swarm's gossip; packets take our path.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startController } from '#lab/causeway.ts';
import { docker, killDockerd, startDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, importImages } from '#lab/images.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { buildPlugin, defaultPluginFolder } from '#lab/plugin.ts';
import { silentProgress } from '#lab/progress.ts';
import { installPlugin, joinSwarm, leaveSwarm, pluginName, removePlugin } from '#lab/swarm.ts';
import { until } from '#lab/until.ts';

const name = 'e2e-swarm';
const cli = join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts');
const patient = { timeoutMs: 90_000, intervalMs: 300 };
let lab: Lab;
let manager: Host;

const causeway = (...argv: string[]): Promise<string> =>
  lab.controller.ask([process.execPath, '--disable-warning=ExperimentalWarning', cli, ...argv]);

interface Task {
  readonly host: Host;
  readonly container: string;
  readonly name: string;
  readonly address: string;
}

before(async () => {
  await destroyLab(name);
  const built = buildPlugin(defaultPluginFolder, silentProgress);
  lab = await createLab({ name, hosts: 3 });
  manager = lab.host('host1');
  await startController(lab.controller, { arguments: ['--san', lab.controller.address] });
  await until('the controller to answer', () => causeway('status'), patient);
  await Promise.all(lab.hosts.map((host) => startDockerd(host)));
  const { folder } = await built;
  for (const host of lab.hosts) {
    await importImages(host, [boxImage]);
    const { token } = JSON.parse(await causeway('token', 'create', '--join', '--output', 'json')) as { token: string };
    await installPlugin(host, folder, { CAUSEWAY_CONTROLLER: `https://${lab.controller.address}:7480`, CAUSEWAY_JOIN: token });
  }
  await joinSwarm(lab.hosts);
});

after(() => destroyLab(name));

/** Makes a Swarm network of our driver. */
const network = (title: string, ...options: string[]): Promise<string> =>
  docker(manager, ['network', 'create', '--driver', pluginName, ...options, title]);

/** Makes a service of idle tasks, spread over the nodes, and waits until it runs. */
const service = (title: string, ...options: string[]): Promise<string> => {
  const serve = 'mkdir -p /srv && hostname >/srv/index.html && exec httpd -f -p 80 -h /srv';
  const quick = ['--stop-grace-period', '1s', '--restart-delay', '500ms'];
  return docker(manager, ['service', 'create', '--name', title, ...quick, ...options, boxImage.name, 'sh', '-c', serve]);
};

/** The running tasks of a service with their addresses in `title`'s network. */
async function tasks(title: string, net: string): Promise<Task[]> {
  const found = lab.hosts.map(async (host) => {
    const ids = (await docker(host, ['ps', '--quiet', '--filter', `label=com.docker.swarm.service.name=${title}`])).split('\n');
    const format = `{{.Name}} {{(index .NetworkSettings.Networks "${net}").IPAddress}}`;
    return Promise.all(
      ids
        .filter((id) => id !== '')
        .map(async (container) => {
          const [full = '', address = ''] = (await docker(host, ['inspect', '--format', format, container])).slice(1).split(' ');
          return { host, container, name: full, address };
        }),
    );
  });
  return (await Promise.all(found)).flat();
}

const running = (title: string, net: string, count: number): Promise<Task[]> =>
  until(
    `${count} tasks of ${title}`,
    async () => {
      const list = await tasks(title, net);
      return list.length === count && list.every(({ address }) => address !== '') ? list : undefined;
    },
    patient,
  );

const inside = (task: Task, ...argv: string[]): Promise<string> => docker(task.host, ['exec', task.container, ...argv]);

async function reaches(task: Task, target: string): Promise<boolean> {
  const argv = ['exec', task.container, 'ping', '-c1', '-W1', target];
  return /1 packets received/.test(await docker(task.host, argv, { anyStatus: true }));
}

/** Addresses that a name has inside a task. */
async function resolved(task: Task, title: string): Promise<string[]> {
  const answer = await docker(task.host, ['exec', task.container, 'nslookup', title], { anyStatus: true });
  return [...answer.matchAll(/^Address: (\d+\.\d+\.\d+\.\d+)$/gm)].map(([, address = '']) => address).sort();
}

const addresses = (list: readonly Task[]): string[] => list.map(({ address }) => address).sort();

test('tasks on different nodes reach each other by address and by name', async () => {
  await network('red', '--attachable');
  await service('web', '--endpoint-mode', 'dnsrr', '--network', 'red', '--replicas', '3', '--replicas-max-per-node', '1');
  const list = await running('web', 'red', 3);
  assert.equal(new Set(list.map(({ host }) => host.name)).size, 3);
  for (const from of list) {
    for (const to of list) await inside(from, 'ping', '-c1', '-W2', to.address);
    for (const title of ['web', 'tasks.web']) {
      await until(`${title} in ${from.name}`, async () => (await resolved(from, title)).join() === addresses(list).join(), patient);
    }
  }
  const [from] = list;
  assert.ok(from !== undefined);
  const pages = await Promise.all(['web', ...addresses(list)].map((target) => inside(from, 'wget', '-qO-', `http://${target}/`)));
  assert.equal(new Set(pages.slice(1)).size, 3);
  assert.ok(pages.slice(1).includes(pages[0] ?? ''));
});

test('a full-size packet fits the path, whose size the containers know', async () => {
  const [from, to] = await running('web', 'red', 3);
  assert.ok(from !== undefined && to !== undefined);
  const mtu = Number(await inside(from, 'cat', '/sys/class/net/eth0/mtu'));
  assert.equal(mtu, 1400, '1450 less 50 of VXLAN');
  await inside(from, 'ping', '-c1', '-W2', '-s', String(mtu - 28), to.address);
});

test('network and tasks have their names in Causeway', async () => {
  const list = await running('web', 'red', 3);
  await until('the network’s name', async () => /^red\s/m.test(await causeway('network', 'ls')), patient);
  await until(
    'the endpoints’ names',
    async () => {
      const table = await causeway('endpoint', 'ls', '--network', 'red');
      return list.every((task) => table.includes(task.name));
    },
    patient,
  );
});

test('domains are visible to the host as named namespaces', async () => {
  for (const host of lab.hosts) {
    const domains = (await host.ask(['ip', 'netns'])).match(/^cw-\S+/gm) ?? [];
    assert.equal(domains.length, 1);
    assert.match(await host.ask(['ip', 'netns', 'exec', domains[0] ?? '', 'ip', '-br', 'link']), /^cwx\d+/m);
  }
});

test('a container started by hand on a worker joins an attachable network', async () => {
  const [, second] = lab.hosts;
  assert.ok(second !== undefined);
  const page = await docker(second, ['run', '--rm', '--network', 'red', boxImage.name, 'wget', '-qO-', 'http://tasks.web/']);
  assert.match(page, /^[0-9a-f]{12}$/);
});

test('networks cannot see each other', async () => {
  await network('blue');
  await service('spy', '--endpoint-mode', 'dnsrr', '--network', 'blue', '--mode', 'global');
  const spies = await running('spy', 'blue', 3);
  const targets = await running('web', 'red', 3);
  for (const spy of spies) {
    assert.ok(await reaches(spy, spies[0]?.address ?? ''));
    assert.deepEqual(await resolved(spy, 'tasks.web'), []);
    const hits = await Promise.all(targets.map((target) => reaches(spy, target.address)));
    assert.deepEqual(hits, [false, false, false]);
  }
});

test('a service in virtual IP mode is found by tasks.NAME', async () => {
  await service('vip', '--network', 'red', '--replicas', '2');
  const list = await running('vip', 'red', 2);
  const [from] = await running('web', 'red', 3);
  assert.ok(from !== undefined);
  await until('tasks.vip', async () => (await resolved(from, 'tasks.vip')).join() === addresses(list).join(), patient);
});

test('a port published in host mode leads to the node’s own task', async () => {
  await service(
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
  const list = await running('door', 'red', 3);
  for (const task of list) {
    const ask = ['busybox', 'wget', '-qO-', `http://${task.host.address}:8088/`];
    const page = await until('the port to answer', () => lab.outside.ask(ask), patient);
    assert.equal(page, task.container.slice(0, 12));
  }
  await docker(manager, ['service', 'rm', 'door']);
});

test('a virtual IP answers', async (t) => {
  if (!existsSync('/proc/net/ip_vs')) t.skip('no ip_vs in this kernel, and dockerd 26 serves virtual IPs on its own overlay driver only');
  else t.skip('dockerd 26 serves virtual IPs on its own overlay driver only');
  await docker(manager, ['service', 'rm', 'vip']);
});

test('packets pass while the plugin is away', async () => {
  const [from, to] = await running('web', 'red', 3);
  assert.ok(from !== undefined && to !== undefined);
  const pings = inside(from, 'ping', '-i', '0.01', '-c', '500', to.address);
  await docker(from.host, ['plugin', 'disable', '--force', pluginName]);
  await docker(from.host, ['plugin', 'enable', pluginName]);
  assert.match(await pings, /500 packets transmitted, 500 packets received/);
});

test('an encrypted network carries full-size packets, also after the plugin was away', async () => {
  await network('sealed', '--opt', 'encrypted');
  await service('vault', '--endpoint-mode', 'dnsrr', '--network', 'sealed', '--mode', 'global');
  const [from, to] = await running('vault', 'sealed', 3);
  assert.ok(from !== undefined && to !== undefined);
  const mtu = Number(await inside(from, 'cat', '/sys/class/net/eth0/mtu'));
  const full = ['ping', '-c1', '-W2', '-s', String(mtu - 28), to.address];
  await inside(from, ...full);
  await docker(from.host, ['plugin', 'disable', '--force', pluginName]);
  await docker(from.host, ['plugin', 'enable', pluginName]);
  await until('the tunnel to be back', () => inside(from, ...full).then(() => true), patient);
  await docker(manager, ['service', 'rm', 'vault']);
  await until('the network to be removable', () => docker(manager, ['network', 'rm', 'sealed']).then(() => true), patient);
  await until('its record to go', async () => !(await causeway('network', 'ls')).includes('sealed'), patient);
});

test('scaling up and down changes what the name means', async () => {
  await docker(manager, ['service', 'update', '--replicas-max-per-node', '3', 'web']);
  await docker(manager, ['service', 'scale', 'web=6']);
  const six = await running('web', 'red', 6);
  const [from] = six;
  assert.ok(from !== undefined);
  assert.equal(new Set(addresses(six)).size, 6);
  await until('six addresses', async () => (await resolved(from, 'tasks.web')).join() === addresses(six).join(), patient);
  for (const to of six) await inside(from, 'ping', '-c1', '-W2', to.address);
  await docker(manager, ['service', 'scale', 'web=3']);
  await until('three endpoints', async () => (await endpoints('red')) === 3, patient);
});

test('a drained node loses its tasks to the others, and nothing of the network stays there', async () => {
  const drained = lab.host('host3');
  await docker(manager, ['service', 'rm', 'spy']);
  await docker(manager, ['node', 'update', '--availability', 'drain', 'host3']);
  const list = await until(
    'three tasks elsewhere',
    async () => {
      const all = await tasks('web', 'red');
      return all.length === 3 && all.every(({ host }) => host.name !== 'host3') ? all : undefined;
    },
    patient,
  );
  for (const to of list) await inside(list[0] ?? assert.fail(), 'ping', '-c1', '-W2', to.address);
  await until('the domain to go', async () => !/^cw-/m.test(await drained.ask(['ip', 'netns'])), patient);
  await docker(manager, ['node', 'update', '--availability', 'active', 'host3']);
});

test('after a reboot a node has its plugin again and takes tasks', async () => {
  await lab.reboot(lab.host('host3'));
  await joinSwarm(lab.hosts);
  await docker(manager, ['service', 'update', '--quiet', '--force', '--replicas-max-per-node', '1', 'web']);
  const list = await running('web', 'red', 3);
  const back = list.find(({ host }) => host.name === 'host3');
  assert.ok(back !== undefined);
  for (const to of list) await until(`the path to ${to.host.name}`, () => reaches(back, to.address), patient);
});

test('a network made by Causeway is the Swarm’s too, and goes from either side', async () => {
  await causeway('network', 'create', 'green', '--subnet', '10.88.0.0/24');
  await inSwarm('green', pluginName);
  await service('leaf', '--endpoint-mode', 'dnsrr', '--network', 'green', '--mode', 'global');
  const list = await running('leaf', 'green', 3);
  for (const to of list) await inside(list[0] ?? assert.fail(), 'ping', '-c1', '-W2', to.address);
  assert.ok(list.every(({ address }) => address.startsWith('10.88.0.')));
  await docker(manager, ['service', 'rm', 'leaf']);
  await until('green to be removable', () => docker(manager, ['network', 'rm', 'green']).then(() => true), patient);
  await until('its record to go', async () => !/green/.test(await causeway('network', 'ls')), patient);
  await causeway('network', 'create', 'grey');
  await inSwarm('grey', pluginName);
  await causeway('network', 'rm', '--yes', 'grey');
  await inSwarm('grey', '');
});

test('networks with one range live side by side, apart', async () => {
  const range = ['--subnet', '10.88.0.0/24'];
  await causeway('network', 'create', 'mint', ...range, '--gateway', '10.88.0.1');
  await inSwarm('mint', pluginName);
  await network('lime', '--ipam-driver', pluginName, ...range);
  for (const title of ['mint', 'lime']) {
    await service(`in-${title}`, '--endpoint-mode', 'dnsrr', '--network', title, '--mode', 'global');
  }
  const [mint, lime] = [await running('in-mint', 'mint', 3), await running('in-lime', 'lime', 3)];
  assert.deepEqual(addresses(mint), addresses(lime));
  for (const [list, title] of [
    [mint, 'mint'],
    [lime, 'lime'],
  ] as const) {
    const [from] = list;
    assert.ok(from !== undefined);
    const own = list.map(({ container }) => container.slice(0, 12));
    const seen = await Promise.all(list.map(({ address }) => inside(from, 'wget', '-qO-', `http://${address}/`)));
    assert.deepEqual(seen.toSorted(), own.toSorted(), `in ${title} only its own answer`);
  }
  await docker(manager, ['service', 'rm', 'in-mint', 'in-lime']);
  for (const title of ['mint', 'lime']) {
    await until(`${title} to be removable`, () => docker(manager, ['network', 'rm', title]).then(() => true), patient);
    await until('its record to go', async () => !(await causeway('network', 'ls')).includes(title), patient);
  }
});

test('a new leader gives addresses on, and nobody’s', async () => {
  const [, second] = lab.hosts;
  assert.ok(second !== undefined);
  await docker(manager, ['node', 'promote', 'host2', 'host3']);
  await network('kept', '--ipam-driver', pluginName, '--subnet', '10.99.0.0/24');
  await service('crew', '--endpoint-mode', 'dnsrr', '--network', 'kept', '--replicas', '3', '--constraint', 'node.hostname!=host1');
  const first = await running('crew', 'kept', 3);
  await killDockerd(manager);
  await until('another leader', async () => /Leader/.test(await docker(second, ['node', 'ls', '--format', '{{.ManagerStatus}}'])), patient);
  await until('it to scale', () => docker(second, ['service', 'scale', '--detach', 'crew=6']).then(() => true), patient);
  await startDockerd(manager);
  const six = await running('crew', 'kept', 6);
  assert.equal(new Set(addresses(six)).size, 6);
  assert.ok(first.every(({ address }) => addresses(six).includes(address)));
  for (const to of six) await until(`the path to ${to.address}`, () => reaches(six[0] ?? assert.fail(), to.address), patient);
  await until('the service to go', () => docker(manager, ['service', 'rm', 'crew']).then(() => true), patient);
  await until('the network to be removable', () => docker(manager, ['network', 'rm', 'kept']).then(() => true), patient);
  await until('its record to go', async () => !(await causeway('network', 'ls')).includes('kept'), patient);
});

test('the model swarm makes a network of Docker’s own driver, with the right MTU', async () => {
  await causeway('network', 'create', 'built', '--model', 'swarm', '--attachable');
  await causeway('network', 'create', 'sealed', '--model', 'swarm', '--encrypted');
  await inSwarm('built', 'overlay');
  await inSwarm('sealed', 'overlay');
  const format = '{{json .Options}}';
  assert.match(await docker(manager, ['network', 'inspect', '--format', format, 'sealed']), /"encrypted":""/);
  await causeway('network', 'rm', '--yes', 'sealed');
  await inSwarm('sealed', '');
  await service('brick', '--endpoint-mode', 'dnsrr', '--network', 'built', '--mode', 'global');
  const [from, to] = await running('brick', 'built', 3);
  assert.ok(from !== undefined && to !== undefined);
  assert.equal(await inside(from, 'cat', '/sys/class/net/eth0/mtu'), '1400');
  await inside(from, 'ping', '-c1', '-W2', '-s', '1372', to.address);
});

test('networks and members of Docker’s own driver are listed beside ours', async () => {
  await docker(manager, ['network', 'create', '--driver', 'overlay', '--attachable', 'found']);
  await docker(lab.host('host2'), ['run', '--detach', '--name', 'alone', '--network', 'found', boxImage.name, 'sleep', '600']);
  const listed = async (): Promise<boolean> => /^found\s+swarm/m.test(await causeway('network', 'ls'));
  await until('the network to be listed', listed, patient);
  await until('its member', async () => /^alone\s+host2/m.test(await causeway('network', 'show', 'found')), patient);
  await until('the members of the other', async () => (await endpoints('built')) === 3, patient);
  const status = JSON.parse(await manager.ask(['curl', '-s', '--unix-socket', '/run/causeway/agent.sock', 'http://agent/status'])) as {
    docker: { networks: { name: string; state: string; message?: string }[] };
  };
  const told = status.docker.networks.find((one) => one.name === 'found');
  assert.deepEqual([told?.state, /MTU of 1500, but 1450/.test(told?.message ?? '')], ['problem', true]);
  await docker(lab.host('host2'), ['rm', '--force', 'alone']);
  await until('the member to be forgotten', async () => (await endpoints('found')) === 0, patient);
  await causeway('network', 'rm', '--yes', 'found');
  await inSwarm('found', '');
  await docker(manager, ['service', 'rm', 'brick']);
  await until('the members to be forgotten', async () => (await endpoints('built')) === 0, patient);
  await docker(manager, ['network', 'rm', 'built']);
  await until('the record to go', async () => !/built/.test(await causeway('network', 'ls')), patient);
});

test('removed networks leave nothing on any host', async () => {
  await docker(manager, ['service', 'rm', 'web']);
  for (const title of ['red', 'blue']) {
    await until(`${title} to be removable`, () => docker(manager, ['network', 'rm', title]).then(() => true), patient);
  }
  await until('the networks to be gone', async () => !/red|blue/.test(await causeway('network', 'ls')), patient);
  for (const host of lab.hosts) {
    await until(`${host.name} to be clean`, async () => (await leftovers(host)) === '', patient);
  }
});

test('plugin and Swarm go without a trace', async () => {
  await leaveSwarm(lab.hosts);
  for (const host of lab.hosts) {
    await removePlugin(host);
    assert.equal(await docker(host, ['plugin', 'ls', '--quiet']), '');
    assert.equal(await leftovers(host), '');
  }
});

/** Waits until the Swarm has the network with this driver; '' for having none of that name. */
async function inSwarm(title: string, driver: string): Promise<void> {
  const look = async (): Promise<string> => {
    const lines = (await docker(manager, ['network', 'ls', '--format', '{{.Name}} {{.Driver}}'])).split('\n');
    return lines.find((line) => line.startsWith(`${title} `))?.slice(title.length + 1) ?? '';
  };
  await until(`${title} in the Swarm`, async () => (await look()) === driver, patient);
}

async function endpoints(net: string): Promise<number> {
  const list: unknown = JSON.parse(await causeway('endpoint', 'ls', '--network', net, '--output', 'json'));
  return Array.isArray(list) ? list.length : -1;
}

/** Links and namespaces of ours on a host. */
async function leftovers(host: Host): Promise<string> {
  const links = (await host.ask(['ip', '-o', 'link'])).split('\n').filter((line) => /: cw/.test(line));
  const domains = (await host.ask(['ip', 'netns'])).split('\n').filter((line) => line.startsWith('cw-'));
  return [...links, ...domains].join('\n');
}
