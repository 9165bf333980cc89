// What becomes of a Swarm while it runs: services are changed and changed back, nodes leave, come and are demoted, networks are
// removed while tasks are going.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { docker } from '#lab/engine.ts';
import { boxImage } from '#lab/images.ts';
import { joinSwarm, pluginName, untilManagers } from '#lab/swarm.ts';
import { until } from '#lab/until.ts';
import { addresses, leftovers, makeSwarmBed, patient, reachesAll, resolved, type SwarmBed } from './swarm-bed.ts';

let bed: SwarmBed;

before(async () => {
  bed = await makeSwarmBed('e2e-swarm-changes');
  await bed.network('red');
  await bed.service('web', '--endpoint-mode', 'dnsrr', '--network', 'red', '--replicas', '3');
  await bed.running('web', 'red', 3);
});
after(() => bed[Symbol.asyncDispose]());

test('a rolling update and its rollback leave one endpoint a task, and names that lead to those that run', async () => {
  for (const change of [
    ['service', 'update', '--quiet', '--env-add', 'STAGE=two', '--update-parallelism', '1', '--update-order', 'start-first', 'web'],
    ['service', 'rollback', '--quiet', 'web'],
  ]) {
    const replaced = await bed.running('web', 'red', 3);
    await docker(bed.manager, change);
    const list = await until('other tasks', async () => {
      const now = await bed.running('web', 'red', 3);
      return now.every(({ container }) => !replaced.some((one) => one.container === container)) && now;
    });
    for (const from of list) {
      await until(`tasks.web in ${from.name}`, async () => (await resolved(from, 'tasks.web')).join() === addresses(list).join(), patient);
      await reachesAll(from, list);
    }
    await until('three endpoints', async () => (await bed.endpoints('red')) === 3, patient);
  }
});

test('a network that tasks use is removed by nobody, and goes on', async () => {
  assert.match(await docker(bed.manager, ['network', 'rm', 'red'], { anyStatus: true }), /^$/);
  await assert.rejects(bed.causeway('network', 'rm', '--yes', 'red'), /in-use/);
  const list = await bed.running('web', 'red', 3);
  await reachesAll(list[0] ?? assert.fail(), list);
  assert.match(await docker(bed.manager, ['network', 'ls', '--format', '{{.Name}}']), /^red$/m);
});

test('a network whose tasks take their time to end goes after them, though it was removed before', async () => {
  await bed.network('tan');
  const stubborn = "trap '' TERM; while :; do sleep 1; done";
  const options = ['--name', 'slow', '--stop-grace-period', '25s', '--endpoint-mode', 'dnsrr', '--network', 'tan', '--mode', 'global'];
  await docker(bed.manager, ['service', 'create', '--quiet', ...options, boxImage.name, 'sh', '-c', stubborn]);
  await bed.running('slow', 'tan', 3);
  await bed.remove(['slow'], ['tan']);
  assert.equal(await docker(bed.manager, ['network', 'ls', '--quiet', '--filter', 'name=tan']), '');
});

test('a node that leaves the Swarm keeps nothing of its networks, and may come back', async () => {
  const leaver = bed.lab.host('host3');
  await docker(leaver, ['swarm', 'leave']);
  const isElsewhere = async (): Promise<boolean> => {
    const all = await bed.tasks('web', 'red');
    return all.length === 3 && all.every(({ host }) => host.name !== leaver.name);
  };
  await until('three tasks elsewhere', isElsewhere, patient);
  await until('the domain to go', async () => !/^cw-/m.test(await leaver.ask(['ip', 'netns'])), patient);
  await until('its endpoints to go', async () => !/host3/.test(await bed.causeway('endpoint', 'ls')), patient);
  await until('the node to be forgotten', () => docker(bed.manager, ['node', 'rm', 'host3']).then(() => true), patient);
  await joinSwarm(bed.lab.hosts);
  await docker(bed.manager, ['service', 'update', '--quiet', '--force', 'web']);
  const list = await bed.running('web', 'red', 3);
  await reachesAll(list[0] ?? assert.fail(), list);
});

test('a manager that is demoted runs tasks on, of networks that were made before and after', async () => {
  await docker(bed.manager, ['node', 'promote', 'host2', 'host3']);
  await untilManagers(bed.manager, 3);
  await bed.network('made-before', '--ipam-driver', pluginName, '--subnet', '10.97.0.0/24');
  await until('host3 to be a worker', () => docker(bed.manager, ['node', 'demote', 'host3']).then(() => true), patient);
  await untilManagers(bed.manager, 2);
  await bed.network('made-after', '--ipam-driver', pluginName, '--subnet', '10.97.0.0/24');
  for (const title of ['made-before', 'made-after']) {
    await bed.service(`on-${title}`, '--endpoint-mode', 'dnsrr', '--network', title, '--mode', 'global');
    const list = await bed.running(`on-${title}`, title, 3);
    assert.equal(new Set(addresses(list)).size, 3);
    await reachesAll(list[0] ?? assert.fail(), list);
  }
  await bed.remove(['on-made-before', 'on-made-after'], ['made-before', 'made-after']);
});

test('in the end nothing of it is left on any host', async () => {
  await bed.remove(['web'], ['red']);
  for (const host of bed.lab.hosts) await until(`${host.name} to be clean`, async () => (await leftovers(host)) === '', patient);
});
