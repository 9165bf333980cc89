// A controller that keeps the cloud as the networks need it: what comes is allowed and what goes is closed without anybody's doing,
// what is changed by hand comes back, what others make stays, and neither an absent Neutron nor a second controller does harm.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { killController, startController, stopController } from '#lab/causeway.ts';
import { inspectContainer } from '#lab/engine-api.ts';
import { etcdUrlOf } from '#lab/etcd.ts';
import type { Host } from '#lab/host.ts';
import { NeutronCalls } from '#lab/neutron-calls.ts';
import { demo, limited, unrouted } from '#lab/openstack.ts';
import { type CloudBed, makeCloudBed } from '#lab/openstack-bed.ts';
import type { Account } from '#lab/openstack-operator.ts';
import { apiPorts, restartKeystone, startNeutron } from '#lab/openstack-services.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';
import { Capture, tcpdump } from './capture.ts';
import { pingingFrom } from './carriage-streams.ts';

const skip = missingOf(openstackNeeds);
/** Looking takes processor time that what is waited for needs, too: a program's start, or an answer of Neutron's. */
const patience = { timeoutMs: 240_000, intervalMs: 1000 };
let bed: CloudBed;

interface Status {
  readonly cloud?: {
    readonly place: string;
    readonly changes: readonly string[];
    readonly problems: readonly string[];
    readonly addresses?: Readonly<Record<string, string>>;
    readonly failure?: { readonly code: string; readonly message: string; readonly since: string };
  };
}
interface Rule {
  readonly id: string;
  readonly direction: string;
  readonly description: string;
  readonly protocol: string | null;
  readonly port_range_min: number | null;
  readonly remote_ip_prefix: string | null;
  readonly remote_group_id: string | null;
}
interface Group {
  readonly id: string;
  readonly name: string;
  readonly security_group_rules: readonly Rule[];
}
interface Port {
  readonly id: string;
  readonly name: string;
  readonly allowed_address_pairs: readonly { readonly ip_address: string }[];
  readonly tags: readonly string[];
}

/** By both families, of a network that has both. */
async function passesBoth(name: string): Promise<boolean> {
  const format = `{{(index .NetworkSettings.Networks "${name}").GlobalIPv6Address}}`;
  return (await passes(name)) && bed.pings(1, `${name}1`, await bed.docker(2, 'inspect', '--format', format, `${name}2`));
}

const keeping = (host: Host, interval: number): string[] => {
  const store = `etcd:${etcdUrlOf(bed.cloud.controller)}`;
  return ['--san', host.address, '--store', store, '--cloud', '--cloud-interval', String(interval)];
};

/** The controller again, keeping the cloud as `account`, and looking at it every so many seconds. */
async function keepAs(account: Account, interval = 5, ...more: readonly string[]): Promise<void> {
  const { cloud } = bed;
  await stopController(cloud.controller);
  await startController(cloud.controller, {
    arguments: [...keeping(cloud.controller, interval), ...more],
    env: cloud.environment(account),
  });
  await until('the controller to answer', () => status().catch(() => undefined), patience);
}

const status = (): Promise<Status> => bed.json<Status>('status');
const groups = (): Promise<Group[]> => bed.member.list<Group>('neutron', '/v2.0/security-groups', 'security_groups');
const ports = (): Promise<Port[]> => bed.member.list<Port>('neutron', '/v2.0/ports?device_owner=compute:nova', 'ports');
const ours = async (): Promise<Group | undefined> => (await groups()).find(({ name }) => name === 'causeway');
const rulesOf = async (): Promise<readonly Rule[]> => (await ours())?.security_group_rules ?? [];
const pairsOf = async (): Promise<string[]> =>
  (await ports()).flatMap((port) => port.allowed_address_pairs.map(({ ip_address: ip }) => `${port.name} ${ip}`)).toSorted();

before(async () => {
  if (skip !== false) return;
  bed = await makeCloudBed({ name: 'os-auto', isInEtcd: true });
  await keepAs(demo);
});
after(async () => bed?.[Symbol.asyncDispose]());

const passes = async (name: string): Promise<boolean> => bed.pings(1, `${name}1`, await bed.addressOf(2, name));

async function removeNetwork(name: string): Promise<void> {
  for (const index of [1, 2]) await bed.docker(index, 'rm', '--force', `${name}${index}`);
  await until(
    `network ${name} to be removed`,
    async () => (await bed.tryCauseway(['network', 'rm', '--yes', name])).status === 0,
    patience,
  );
}

test('networks that come are allowed, networks that go are closed, and nobody has to do anything', { skip }, async () => {
  await bed.spread('over', '--subnet', '10.80.0.0/24');
  await until('packets by VXLAN to pass', () => passes('over'), patience);
  await bed.spread('plain', '--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.82.0.0/16');
  await until('packets as they are to pass', () => passes('plain'), patience);
  assert.deepEqual(await pairsOf(), ['node1 10.82.0.0/16', 'node2 10.82.0.0/16']);
  await until('the state to be told', async () => (await status()).cloud?.failure === undefined, patience);
  const { cloud } = await status();
  assert.match(cloud?.place ?? '', /^project demo of http:/);
  assert.deepEqual(cloud?.problems, []);
  await removeNetwork('plain');
  await until('its pairs to be gone', async () => (await pairsOf()).length === 0, patience);
  await until('its rules to be gone', async () => (await rulesOf()).length === 2, patience);
  await until('packets of over to pass', () => passes('over'), patience);
});

test('a rule that was removed by hand comes back, and what a neighbour has made stays', { skip }, async () => {
  const group = (await ours()) ?? assert.fail('no group of ours');
  const [first] = group.security_group_rules;
  const ssh = { security_group_id: group.id, direction: 'ingress', protocol: 'tcp', port_range_min: 22, port_range_max: 22 };
  const theirs = await bed.member.send<Rule>('neutron', 'POST', '/v2.0/security-group-rules', { security_group_rule: ssh });
  const [port] = await ports();
  await bed.member.send('neutron', 'PUT', `/v2.0/ports/${port?.id}`, { port: { allowed_address_pairs: [{ ip_address: '10.90.0.0/16' }] } });
  await bed.member.send('neutron', 'DELETE', `/v2.0/security-group-rules/${first?.id}`);
  await until('the rule to come back', async () => (await rulesOf()).filter(({ id }) => id !== theirs.id).length === 2, patience);
  await until('packets to pass again', () => passes('over'), patience);
  // While ours come and go.
  await bed.spread('plain', '--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.82.0.0/16');
  await until('packets as they are to pass', () => passes('plain'), patience);
  await removeNetwork('plain');
  await until('only their pair to be left', async () => (await pairsOf()).join() === `${port?.name} 10.90.0.0/16`, patience);
  assert.ok((await rulesOf()).some(({ id }) => id === theirs.id));
  await bed.member.send('neutron', 'PUT', `/v2.0/ports/${port?.id}`, { port: { allowed_address_pairs: [] } });
  await bed.member.send('neutron', 'DELETE', `/v2.0/security-group-rules/${theirs.id}`);
});

const floatingIps = () => bed.member.list<{ readonly tags: readonly string[] }>('neutron', '/v2.0/floatingips', 'floatingips');

test(
  'while the cloud is away, for longer than tokens live, that is told and containers go on; afterwards what has changed meanwhile is made so',
  { skip },
  async () => {
    const { controller } = bed.cloud;
    await bed.causeway('expose', 'over', 'over1', '80', '--name', 'stays', '--floating-ip');
    await bed.causeway('expose', 'over', 'over2', '80', '--name', 'goes', '--floating-ip');
    await until('both to have an address', async () => Object.keys((await status()).cloud?.addresses ?? {}).length === 2, patience);
    await controller.stopService('neutron', 'SIGKILL');
    await restartKeystone(controller);
    for (const account of [bed.member, bed.cloud.operator]) account.forgetToken();
    await bed.spread('late', '--encrypted', '--subnet', '10.83.0.0/24');
    await bed.causeway('exposure', 'rm', '--yes', 'goes');
    const told = await until('the absence to be told', async () => (await status()).cloud?.failure, patience);
    assert.equal(told.code, 'unavailable');
    await until('packets of over to pass', () => passes('over'), patience);

    // A controller that starts meanwhile knows what the one before it knew.
    const failures = (): number => controller.log('controller').split('The cloud cannot be made as it should be').length;
    const earlier = failures();
    await keepAs(demo);
    await until('it to have tried', () => failures() > earlier, patience);
    const { addresses, failure } = (await status()).cloud ?? {};
    assert.deepEqual([failure?.since, Object.keys(addresses ?? {}).toSorted()], [told.since, ['goes', 'stays']]);

    await using requests = await Capture.start(controller.spawn(tcpdump('-A', '-i', 'lo', 'tcp', 'dst', 'port', String(apiPorts.neutron))));
    await startNeutron(controller);
    await until('the rules of the late network', async () => (await rulesOf()).length === 4, patience);
    await until('that all is well to be told', async () => (await status()).cloud?.failure === undefined, patience);
    await until('packets of late to pass', () => passes('late'), patience);
    assert.equal((await floatingIps()).length, 1);
    const [first, ...more] = [...requests.text.matchAll(/(?:POST|PUT|DELETE) \/v2\.0\/([a-z-]+)/g)].map(([, what]) => what);
    assert.deepEqual([first, more.includes('security-group-rules')], ['floatingips', true], 'what nobody needs is closed first');
    await bed.causeway('exposure', 'rm', '--yes', 'stays');
    await removeNetwork('late');
    await until('its rules to be gone', async () => (await rulesOf()).length === 2, patience);
    await until('no floating IP to be left', async () => (await floatingIps()).length === 0, patience);
  },
);

const ranges = (part: number): string[] => ['--subnet', `10.${part}.0.0/16`, '--subnet', `fd${part}::/64`];

interface Shown {
  readonly choices: { readonly carry: string };
  readonly instead?: { readonly carry: string; readonly because: string };
}
const shown = (name: string): Promise<Shown> => bed.json<Shown>('network', 'show', name);

test(
  'who may not write address pairs gets networks by VXLAN, containers run on, and with the right all is as it was wanted',
  { skip },
  async () => {
    await bed.giveIpv6();
    await keepAs(limited);
    const options = {
      hall: ['--model', 'flannel', '--carry', 'host-gateway', ...ranges(84)],
      hill: ['--model', 'calico', ...ranges(85)],
    };
    for (const [name, [...more]] of Object.entries(options)) {
      await bed.spread(name, ...more);
      await until(`${name} to be carried by VXLAN`, async () => (await shown(name)).choices.carry === 'vxlan', patience);
      assert.match((await shown(name)).instead?.because ?? '', /may not write allowed address pairs/);
      assert.match(await bed.causeway('network', 'show', name), /Instead of: +(host-gateway|bgp), as the login/);
      await until(`packets of ${name} to pass`, () => passesBoth(name), patience);
    }
    // Encrypted ones need one UDP port and no pair, so they are carried as they were wanted at once.
    for (const [name, model, part] of [
      ['vault', 'overlay', 87],
      ['safe', 'flannel', 88],
    ] as const) {
      await bed.spread(name, '--model', model, '--encrypted', ...ranges(part));
      await until(`packets of ${name} to pass`, () => passesBoth(name), patience);
      assert.deepEqual([(await shown(name)).choices.carry, (await shown(name)).instead], ['wireguard', undefined]);
    }
    assert.deepEqual(await pairsOf(), []);
    for (const name of ['vault', 'safe']) await removeNetwork(name);
    const started = await bed.docker(1, 'inspect', '--format', '{{.State.StartedAt}}', 'hall1', 'hill1');

    await keepAs(demo);
    for (const [name, carry] of [
      ['hall', 'host-gateway'],
      ['hill', 'bgp'],
    ] as const) {
      await until(`${name} to be carried as it was wanted`, async () => (await shown(name)).choices.carry === carry, patience);
      assert.equal((await shown(name)).instead, undefined);
      await until(`packets of ${name} to pass`, () => passesBoth(name), patience);
    }
    assert.equal((await pairsOf()).length, 8, 'a range of each family, of two networks on two ports');
    assert.equal(await bed.docker(1, 'inspect', '--format', '{{.State.StartedAt}}', 'hall1', 'hill1'), started);
    for (const name of Object.keys(options)) await removeNetwork(name);
    await until('all pairs to be gone', async () => (await pairsOf()).length === 0, patience);
  },
);

const routesOf = async (): Promise<readonly { readonly destination: string }[]> =>
  (await bed.member.get<{ routes: { destination: string }[] }>('neutron', `/v2.0/routers/${bed.site.router}`, 'router')).routes;

test('who may not write a router has its networks by VXLAN, containers run on, and with the right they go over', { skip }, async (t) => {
  await bed.cloud.operator.seedRestricted(unrouted);
  const byRouter = ['--cloud-routes', 'main'];
  await keepAs(unrouted, 5, ...byRouter);
  await bed.spread('wide', '--model', 'routes', '--subnet', '10.86.0.0/16');
  await until('it to be carried by VXLAN', async () => (await shown('wide')).choices.carry === 'vxlan', patience);
  assert.match(await bed.causeway('network', 'show', 'wide'), /Instead of: +routes, as the login .* may not write routes of router main/);
  await until('its packets to pass', () => passes('wide'), patience);
  assert.deepEqual(await routesOf(), []);
  const started = await bed.docker(1, 'inspect', '--format', '{{.State.StartedAt}}', 'wide1');
  const { pid } = await inspectContainer(bed.host(1), 'wide1');
  const enter = (line: string): string[] => ['nsenter', `--target=${pid}`, '--net', '--', 'sh', '-c', line];
  const stop = pingingFrom(bed.host(1), enter, await bed.addressOf(2, 'wide'));
  await keepAs(demo, 5, ...byRouter);
  await until('it to be carried as it was wanted', async () => (await shown('wide')).choices.carry === 'routes', patience);
  await until(
    'both hosts to send by the router',
    async () => {
      const ways = await Promise.all([1, 2].map((index) => bed.host(index).ask(['ip', 'route'], { netOnly: true })));
      return ways.every((way) => !/10\.86\.\S+ via/.test(way));
    },
    patience,
  );
  const packets = await stop();
  assert.ok(packets.sent > 1000 && packets.lost < packets.sent / 2, `${packets.lost} of ${packets.sent} packets lost`);
  // Those of the moment that the cloud takes to do what its API has said already.
  t.diagnostic(`lost packets, one a millisecond: ${packets.lost} of ${packets.sent}, ${packets.inRow} in a row`);
  assert.deepEqual((await routesOf()).length, 2);
  await until('packets of wide to pass', () => passes('wide'), patience);
  assert.equal(await bed.docker(1, 'inspect', '--format', '{{.State.StartedAt}}', 'wide1'), started);
  await removeNetwork('wide');
  await until('the router to be told of nothing', async () => (await routesOf()).length === 0, patience);
});

test('a container start makes no call to Neutron, whichever the model', { skip }, async (t) => {
  await keepAs(demo, 3600);
  const calls = await NeutronCalls.count(bed.cloud.controller);
  t.after(() => calls.stop());
  const models = { overlay: '10.90.0.0/24', flannel: '10.91.0.0/16', calico: '10.92.0.0/16' };
  for (const [model, subnet] of Object.entries(models)) {
    await bed.spread(model, '--model', model, '--subnet', subnet);
    await until(`packets of ${model} to pass`, () => passes(model), patience);
  }
  const quiet = await calls.calm(patience.timeoutMs);
  for (const model of Object.keys(models)) {
    const other = await bed.addressOf(2, model);
    for (let index = 1; index <= 5; index++) await bed.run(1, `${model}-more${index}`, model);
    await until(`packets of ${model} to pass`, () => bed.pings(1, `${model}-more5`, other), patience);
    assert.equal(await calls.made(), quiet, `calls of ${model}`);
  }
  await bed.causeway('network', 'create', 'secret', '--encrypted');
  await until('a network that needs a rule to be seen by the count', async () => (await calls.made()) > quiet, patience);
});

test(
  'of two controllers one writes; when it is killed as it writes the other goes on, and nothing is doubled or lost',
  { skip },
  async (t) => {
    const { cloud } = bed;
    await keepAs(demo, 3600);
    const second = cloud.lab.host('host1');
    const calls = await NeutronCalls.count(cloud.controller, second.address);
    t.after(() => calls.stop());
    await startController(second, { arguments: keeping(second, 3600), env: cloud.environment() });
    await until('the second controller to keep the cloud', () => /The cloud is kept/.test(second.log('controller')), patience);
    const known = await rulesOf();

    await bed.causeway('network', 'create', 'other', '--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.94.0.0/16');
    await bed.causeway('expose', 'calico', 'calico1', '80', '--name', 'shop', '--floating-ip');
    await until('the floating IP', async () => (await floatingIps()).length > 0, { ...patience, intervalMs: 10 });
    await killController(cloud.controller);
    assert.equal(await calls.made(), 0, 'calls of the controller whose turn it is not');
    const [left] = await floatingIps();
    const began = performance.now();
    await until('the other to take over', () => /The lease is ours/.test(second.log('controller')), patience);
    t.diagnostic(
      `the other takes over after ${Math.round((performance.now() - began) / 1000)} s; the floating IP had ${left?.tags.length} tags`,
    );
    const nodes = ['node1', 'node2'];
    const wanted = nodes.flatMap((node) => ['10.92.0.0/16', '10.94.0.0/16'].map((range) => `${node} ${range}`));
    await until('it to have written', async () => (await calls.made()) > 0, patience);
    await calls.calm(patience.timeoutMs);
    assert.deepEqual(await pairsOf(), wanted);
    const [rules, made] = [await rulesOf(), await floatingIps()];
    const keys = rules.map((rule) =>
      [rule.direction, rule.protocol, rule.port_range_min, rule.remote_ip_prefix, rule.remote_group_id].join(),
    );
    assert.equal(new Set(keys).size, rules.length);
    assert.deepEqual(
      known.filter(({ id }) => rules.every((rule) => rule.id !== id)),
      [],
    );
    assert.ok(rules.some((rule) => rule.remote_ip_prefix === '10.94.0.0/16'));
    assert.deepEqual(
      (await groups())
        .filter(({ name }) => name.startsWith('causeway'))
        .map(({ name }) => name)
        .toSorted(),
      ['causeway', 'causeway-exposed-1'],
    );
    assert.deepEqual([made.length, made[0]?.tags.length !== 0], [1, true]);
    await until('packets of calico to pass', () => passes('calico'), patience);
  },
);
