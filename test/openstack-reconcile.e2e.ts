// Networks on instances with port security on: what `causeway cloud apply` allows is what they need, what it does not is dropped,
// and what others have made in the cloud stays as it is.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';
import { type CloudBed, makeCloudBed } from './openstack-bed.ts';

const skip = missingOf(openstackNeeds);
const patience = { timeoutMs: 60_000, intervalMs: 300 };
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
  if (skip === false) bed = await makeCloudBed({ name: 'os-reconcile' });
});
after(async () => bed?.[Symbol.asyncDispose]());

async function network(name: string, ...options: readonly string[]): Promise<void> {
  await bed.causeway('network', 'create', name, ...options);
  for (const index of [1, 2]) {
    await until(
      `network ${name} on node${index}`,
      async () => (await bed.docker(index, 'network', 'ls', '--format', '{{.Name}}')).split('\n').includes(name),
      patience,
    );
    await bed.run(index, `${name}${index}`, name);
  }
}

const addressOf = (index: number, name: string): Promise<string> =>
  bed.docker(index, 'inspect', '--format', `{{(index .NetworkSettings.Networks "${name}").IPAddress}}`, `${name}${index}`);

async function clear(name: string): Promise<void> {
  for (const index of [1, 2]) await bed.docker(index, 'rm', '--force', `${name}${index}`);
  await until(
    `network ${name} to be removed`,
    async () => (await bed.tryCauseway(['network', 'rm', '--yes', name])).status === 0,
    patience,
  );
}

/** Everything of the project that a plan could touch, as it is in Neutron. */
async function counted(): Promise<object> {
  const groups = await bed.member.get<Group[]>('neutron', '/v2.0/security-groups', 'security_groups');
  const ports = await bed.member.get<Record<string, unknown>[]>('neutron', '/v2.0/ports?device_owner=compute:nova', 'ports');
  const routers = await bed.member.get<Record<string, unknown>[]>('neutron', '/v2.0/routers', 'routers');
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

for (const { name, options, need } of [
  { name: 'over', options: ['--subnet', '10.80.0.0/24'], need: /^UDP 8472/ },
  { name: 'flat', options: ['--model', 'flannel', '--subnet', '10.81.0.0/16'], need: /^UDP 8472/ },
  { name: 'plain', options: ['--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.82.0.0/16'], need: /10\.82\.0\.0\/16/ },
] as const) {
  test(`${name} (${options.join(' ')}): nothing passes before, everything after, nothing is left behind`, { skip }, async () => {
    const was = await counted();
    await network(name, ...options);
    const other = await addressOf(2, name);
    const planned = await bed.json<Planned>('cloud', 'plan');
    assert.deepEqual(planned.problems, []);
    assert.equal(planned.needs.length, 1);
    assert.match(planned.needs[0]?.what ?? '', need);
    assert.equal(planned.needs[0]?.isAllowed, false);
    assert.equal(await bed.pings(1, `${name}1`, other), false, 'the cloud drops it as long as nothing is allowed');
    assert.deepEqual(await counted(), was, 'a plan changes nothing');

    const applied = await bed.json<Planned>('cloud', 'apply');
    assert.deepEqual(applied.problems, []);
    assert.ok(applied.needs.every(({ isAllowed }) => isAllowed));
    await until('packets to pass', () => bed.pings(1, `${name}1`, other), patience);
    assert.ok(await bed.pings(2, `${name}2`, await addressOf(1, name)));
    assert.deepEqual((await bed.json<Planned>('cloud', 'plan')).steps, [], 'a second plan has nothing to do');

    await bed.causeway('cloud', 'destroy', '--yes');
    assert.deepEqual(await counted(), was, 'nothing is left in Neutron');
    await until('packets to be dropped again', async () => !(await bed.pings(1, `${name}1`, other)), patience);
    await clear(name);
  });
}
