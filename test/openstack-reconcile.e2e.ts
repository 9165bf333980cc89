// Networks on instances with port security on: what `causeway cloud apply` allows is what they need, what it does not is dropped, and
// what others have made in the cloud stays as it is. What hosts find out of that by themselves is in openstack-paths.e2e.ts.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { limited, unrouted } from '#lab/openstack.ts';
import { joinSwarm, leaveSwarm } from '#lab/swarm.ts';
import { type CloudBed, makeCloudBed } from '#lab/openstack-bed.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';

const skip = missingOf(openstackNeeds);
// BGP sessions that the cloud has dropped are begun again by TCP later and later.
const patience = { timeoutMs: 240_000, intervalMs: 300 };
/** Where hosts have to tell something, as they do every ten seconds: each question of ours starts a program. */
const unhurried = { timeoutMs: 240_000, intervalMs: 4000 };
let bed: CloudBed;

interface Planned {
  readonly steps: readonly { readonly type: string; readonly object: string; readonly detail: readonly string[] }[];
  readonly needs: readonly { readonly network: string; readonly what: string; readonly without: string; readonly isAllowed: boolean }[];
  readonly quotas: readonly { readonly name: string; readonly before: number; readonly after: number }[];
  readonly problems: readonly string[];
}
interface Group {
  readonly id: string;
  readonly name: string;
  readonly security_group_rules: readonly unknown[];
}

before(async () => {
  if (skip === false) bed = await makeCloudBed({ name: 'os-reconcile', pageLength: 5 });
});
after(async () => bed?.[Symbol.asyncDispose]());

afterEach(async () => (skip === false ? bed.clear() : undefined));

/** Everything of the project that a plan could touch, as it is in Neutron. */
async function counted(): Promise<object> {
  const groups = await bed.member.list<Group>('neutron', '/v2.0/security-groups', 'security_groups');
  const ports = await bed.member.list<Record<string, unknown>>('neutron', '/v2.0/ports?device_owner=compute:nova', 'ports');
  const routers = await bed.member.list<Record<string, unknown>>('neutron', '/v2.0/routers', 'routers');
  return {
    groups: groups.map(({ name, security_group_rules: rules }) => `${name} ${rules.length}`).toSorted(),
    ports: ports
      .map(({ name, security_groups, allowed_address_pairs, tags }) =>
        JSON.stringify({ name, security_groups, allowed_address_pairs, tags }),
      )
      .toSorted(),
    routers: routers.map(({ name, routes, tags }) => ({ name, routes, tags })),
  };
}

interface Case {
  readonly name: string;
  readonly options: readonly string[];
  readonly needs: readonly RegExp[];
  /** Nothing passes as long as nothing is allowed; so unless said otherwise. */
  readonly isDropped?: boolean;
}
const cases: readonly Case[] = [
  { name: 'over', options: ['--subnet', '10.80.0.0/24'], needs: [/^UDP 8472/] },
  // Both ends of WireGuard send from the port that they listen on, so each lets the other in as if it answered.
  { name: 'secret', options: ['--encrypted', '--subnet', '10.83.0.0/24'], needs: [/^UDP 5\d{4}/], isDropped: false },
  { name: 'flat', options: ['--model', 'flannel', '--subnet', '10.81.0.0/16'], needs: [/^UDP 8472/] },
  {
    name: 'plain',
    options: ['--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.82.0.0/16'],
    needs: [/addresses of 10\.82\.0\.0\/16/],
  },
  { name: 'hills', options: ['--model', 'calico', '--subnet', '10.84.0.0/16'], needs: [/^TCP 179/, /addresses of 10\.84\.0\.0\/16/] },
];

for (const { name, options, needs, isDropped = true } of cases) {
  test(`${name} (${options.join(' ')}): nothing passes before, everything after, nothing is left behind`, { skip }, async () => {
    const was = await counted();
    await bed.spread(name, ...options);
    const other = await bed.addressOf(2, name);
    const planned = await bed.json<Planned>('cloud', 'plan');
    assert.deepEqual(planned.problems, []);
    assert.equal(planned.needs.length, needs.length);
    for (const [index, need] of needs.entries()) {
      assert.match(planned.needs[index]?.what ?? '', need);
      assert.equal(planned.needs[index]?.isAllowed, false);
    }
    if (isDropped) assert.equal(await bed.pings(1, `${name}1`, other), false, 'the cloud drops it as long as nothing is allowed');
    assert.deepEqual(await counted(), was, 'a plan changes nothing');

    const applied = await bed.json<Planned>('cloud', 'apply');
    assert.deepEqual(applied.problems, []);
    assert.ok(applied.needs.every(({ isAllowed }) => isAllowed));
    await until('packets to pass', () => bed.pings(1, `${name}1`, other), patience);
    await until('packets to pass', async () => bed.pings(2, `${name}2`, await bed.addressOf(1, name)), patience);
    assert.deepEqual((await bed.json<Planned>('cloud', 'plan')).steps, [], 'a second plan has nothing to do');

    await bed.causeway('cloud', 'destroy', '--yes');
    assert.deepEqual(await counted(), was, 'nothing is left in Neutron');
    if (isDropped) await until('packets to be dropped again', async () => !(await bed.pings(1, `${name}1`, other)), patience);
  });
}

const needOf = async (network: string): Promise<Planned['needs'][number]> =>
  (await bed.json<Planned>('cloud', 'plan')).needs.find((need) => need.network === network) ?? assert.fail(`no need of ${network}`);

test("tenants' networks (contiv's carriage): one range twice, each by VXLAN of its own, by the same two rules", { skip }, async () => {
  for (const tenant of ['red', 'blue']) {
    await bed.causeway('tenant', 'create', tenant);
    await bed.spread(tenant, '--tenant', tenant, '--subnet', '10.87.0.0/24');
  }
  const [red, blue] = [await bed.addressOf(2, 'red'), await bed.addressOf(2, 'blue')];
  assert.equal(await bed.pings(1, 'red1', red), false, 'the cloud drops it as long as nothing is allowed');
  await bed.json<Planned>('cloud', 'apply');
  await until("red's packets to pass", () => bed.pings(1, 'red1', red), patience);
  await until("blue's packets to pass", () => bed.pings(1, 'blue1', blue), patience);
  const [group] = await bed.member.list<Group>('neutron', '/v2.0/security-groups?name=causeway', 'security_groups');
  assert.equal(group?.security_group_rules.length, 2);
  await bed.docker(2, 'rm', '--force', 'blue2');
  assert.equal(await bed.pings(1, 'blue1', blue), false, 'nobody has the address there any more');
  await until('packets to pass', () => bed.pings(1, 'red1', red), patience);
  await bed.causeway('cloud', 'destroy', '--yes');
  await until('packets to be dropped again', async () => !(await bed.pings(1, 'red1', red)), patience);
  const need = await needOf('red');
  assert.deepEqual([need.isAllowed, need.without], [false, 'security groups drop it between hosts']);
  await bed.clear();
  for (const tenant of ['red', 'blue']) await bed.causeway('tenant', 'rm', '--yes', tenant);
});

test("Docker's own Swarm overlay: what the Swarm needs is allowed, and nothing else makes it pass", { skip }, async (t) => {
  const engines = [bed.host(1), bed.host(2)];
  t.after(() => leaveSwarm(engines));
  await joinSwarm(engines.slice(0, 1));
  await bed.causeway('network', 'create', 'built', '--model', 'swarm', '--attachable');
  await bed.untilKnown(1, 'built');
  const { what } = await needOf('built');
  assert.match(what, /^UDP 4789 between hosts \(Docker's VXLAN\)/);
  await bed.json<Planned>('cloud', 'apply');
  await joinSwarm(engines);
  for (const index of [1, 2]) await bed.runFirst(index, `built${index}`, 'built');
  const other = await bed.addressOf(2, 'built');
  await until('packets to pass', () => bed.pings(1, 'built1', other), patience);

  await bed.causeway('cloud', 'destroy', '--yes');
  await until('packets to be dropped', async () => !(await bed.pings(1, 'built1', other)), patience);
  const need = await needOf('built');
  assert.deepEqual([need.isAllowed, need.without], [false, 'security groups drop it between hosts']);
  await bed.json<Planned>('cloud', 'apply');
  await until('packets to pass again', () => bed.pings(1, 'built1', other), patience);
  for (const index of [1, 2]) await bed.docker(index, 'rm', '--force', `built${index}`);
  await bed.causeway('network', 'rm', '--yes', 'built');
});

interface Advised {
  readonly survey: {
    readonly network: { readonly name: string; readonly mtu: number; readonly families: readonly number[]; readonly takesPorts: boolean };
    readonly instances: number;
    readonly unguarded: number;
    readonly extensions: readonly string[];
    readonly quotas: Readonly<Record<string, { readonly limit: number; readonly used: number }>>;
    readonly rights: object;
  };
  readonly recommended: {
    readonly model: string;
    readonly carry: string;
    readonly asks: { readonly rules: number; readonly pairs: number };
  };
  readonly next: readonly string[];
}

/** Of whatever the login's rights are tried on. */
async function revisionsTried(): Promise<Readonly<Record<string, number>>> {
  const both = await Promise.all([
    bed.member.list<Revised>('neutron', '/v2.0/ports?device_owner=compute:nova', 'ports'),
    bed.member.list<Revised>('neutron', '/v2.0/routers', 'routers'),
  ]);
  return Object.fromEntries(both.flat().map(({ id, revision_number: revision }) => [id, revision]));
}
interface Revised {
  readonly id: string;
  readonly revision_number: number;
}

test('advice: what it reads is what the cloud has, and what it counts is what is made', { skip }, async () => {
  const was = await counted();
  const revisions = await revisionsTried();
  const { survey, recommended, next } = await bed.json<Advised>('plan');
  const { name, mtu, families, takesPorts } = survey.network;
  assert.deepEqual([name, mtu, families, takesPorts], ['hosts', 1442, [4], true]);
  assert.deepEqual([survey.instances, survey.unguarded], [2, 0]);
  assert.deepEqual(survey.rights, { pairs: 'yes', portSecurity: 'yes', routes: 'yes' });
  assert.ok(['trunk', 'extraroute', 'allowed-address-pairs'].every((alias) => survey.extensions.includes(alias)));
  const groups = await bed.member.list<Group>('neutron', '/v2.0/security-groups', 'security_groups');
  assert.equal(survey.quotas['security_group']?.used, groups.length);
  assert.equal(`${recommended.model} ${recommended.carry}`, 'flannel host-gateway');

  const other = await bed.tryCauseway(['plan', '--output', 'json'], bed.cloud.environment(limited));
  const less = JSON.parse(other.stdout) as Advised;
  assert.deepEqual(less.survey.rights, { pairs: 'no', portSecurity: 'yes', routes: 'yes' });
  assert.equal(`${less.recommended.model} ${less.recommended.carry}`, 'flannel vxlan');
  await bed.cloud.operator.seedRestricted(unrouted);
  const routeless = await bed.tryCauseway(['plan', '--output', 'json'], bed.cloud.environment(unrouted));
  const { survey: seen } = JSON.parse(routeless.stdout) as Advised;
  assert.deepEqual(seen.rights, { pairs: 'yes', portSecurity: 'yes', routes: 'no' });
  assert.deepEqual(await counted(), was, 'advice changes nothing');
  assert.deepEqual(await revisionsTried(), revisions, 'no port and no router was written');

  const [create = '', apply = ''] = next;
  await bed.causeway(...create.replace('NAME', 'advised').split(' ').slice(1));
  await bed.causeway(...apply.split(' ').slice(1), '--yes');
  const made = await bed.member.list<Group>('neutron', '/v2.0/security-groups?name=causeway', 'security_groups');
  assert.equal(made[0]?.security_group_rules.length, recommended.asks.rules);
  const ports = await bed.member.list<{ allowed_address_pairs: object[] }>('neutron', '/v2.0/ports?device_owner=compute:nova', 'ports');
  for (const { allowed_address_pairs: pairs } of ports) assert.equal(pairs.length, recommended.asks.pairs);
});

const post = <T extends object>(path: string, body: object): Promise<T> => bed.member.send<T>('neutron', 'POST', `/v2.0/${path}`, body);

test('a host that sends larger packets than its network takes is named', { skip }, async () => {
  const { host } = bed.instances[0] ?? assert.fail('no instance');
  await host.exec(['ip', 'link', 'set', 'eth0', 'mtu', '1500'], { netOnly: true });
  const problems = async (): Promise<string> => (await bed.json<Planned>('cloud', 'plan')).problems.join();
  await until(
    'the plan to tell it',
    async () => /node1 sends packets of up to 1500 bytes, but its network hosts takes 1442/.test(await problems()),
    unhurried,
  );
  await host.exec(['ip', 'link', 'set', 'eth0', 'mtu', '1442'], { netOnly: true });
  await until('the plan to be fine', async () => (await problems()) === '', unhurried);
});

test('a router that knows the ways leads from elsewhere to containers, without encapsulation', { skip }, async () => {
  const was = await counted();
  await bed.spread('plain', '--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.86.0.0/16');
  const container = await bed.addressOf(2, 'plain');
  const rule = await post<{ id: string }>('security-group-rules', {
    security_group_rule: { security_group_id: bed.site.group, direction: 'ingress', protocol: 'icmp', remote_ip_prefix: '198.51.100.0/24' },
  });
  const router = await bed.member.get<{ external_gateway_info: { external_fixed_ips: { ip_address: string }[] } }>(
    'neutron',
    `/v2.0/routers/${bed.site.router}`,
    'router',
  );
  const { outside } = bed.cloud.lab;
  const via = router.external_gateway_info.external_fixed_ips[0]?.ip_address ?? '';
  await outside.exec(['ip', 'route', 'add', '10.86.0.0/16', 'via', via, 'src', '198.51.100.10'], { netOnly: true });
  const pings = async (): Promise<boolean> =>
    (await outside.exec(['ping', '-c', '1', '-W', '1', container], { netOnly: true, anyStatus: true })).status === 0;
  await bed.causeway('cloud', 'apply', '--yes');
  assert.equal(await pings(), false);
  await bed.causeway('cloud', 'apply', '--yes', '--routes', 'main');
  await until('the router to lead there', pings, patience);
  await bed.causeway('cloud', 'destroy', '--yes');
  await outside.exec(['ip', 'route', 'delete', '10.86.0.0/16'], { netOnly: true });
  await bed.member.send('neutron', 'DELETE', `/v2.0/security-group-rules/${rule.id}`);
  assert.deepEqual(await counted(), was);
});
