// The demonstration of a cloud as a newcomer runs it: through ./causeway, into a pipe. Every claim must be there and true, a second
// run must find the cloud and use it, and removal must leave no trace.
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { processesOf } from '#lab/cgroup.ts';
import { type Output, run } from '#lab/command.ts';
import { firstChecks, lastingChecks } from '#lab/demo-cloud-checks.ts';
import { leftOf } from '#lab/demo-down.ts';
import { openLab } from '#lab/lab.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { isAlive } from '#lab/process.ts';
import { labGroup } from '#lab/state.ts';

const skip = missingOf(openstackNeeds);
const name = 'cloud-demo';
const causeway = resolve(import.meta.dirname, '../causeway');

const demo = (...argv: readonly string[]): Promise<Output> =>
  run([causeway, 'demo', '--openstack', '--name', name, ...argv], { anyStatus: true, timeoutMs: 900_000 });

before(async () => {
  if (skip === false) await demo('--down');
});
after(async () => {
  if (skip === false) await demo('--down');
});

/** Titles of the checks with their marks, once they have one: how long a check has been going on may be said before. */
const verdicts = (said: string, titles: readonly string[]): string[] =>
  said
    .split('\n')
    .filter((line) => !line.includes('…'))
    .flatMap((line) => titles.flatMap((title) => (line.includes(` ${title} `) ? [`${line.trim()[0]} ${title}`] : [])));
const titlesOf = (isQuick: boolean): string[] => [...firstChecks(isQuick), ...lastingChecks(isQuick)].map(({ title }) => title);

async function allTrue(isQuick: boolean): Promise<void> {
  const titles = titlesOf(isQuick);
  const { stdout, stderr, status } = await demo(...(isQuick ? ['--quick'] : []));
  assert.deepEqual(
    verdicts(stdout, titlesOf(false)),
    titles.map((title) => `✓ ${title}`),
    `${stdout}${stderr}`,
  );
  assert.equal(status, 0);
}

test('the demonstration builds a cloud and every claim is true', { skip }, () => allTrue(false));

const instances = (): unknown => openLab(name)?.instances.map(({ pid }) => pid);

test('a second run finds the cloud, begins anew in it, and every claim is true', { skip }, async () => {
  const found = instances();
  await allTrue(true);
  assert.deepEqual(instances(), found);
});

test('removal leaves no trace', { skip }, async () => {
  const members = processesOf(labGroup(name));
  assert.ok(members.length > 20);
  assert.equal((await demo('--down')).status, 0);
  assert.deepEqual([leftOf(name), members.filter(isAlive)], [[], []]);
});
