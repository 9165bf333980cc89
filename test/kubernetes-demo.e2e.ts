// The demonstration of a cluster as a newcomer runs it: through ./causeway, into a pipe. Every claim must be there and true, a
// second run must change nothing, and removal must leave no trace.
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { processesOf } from '#lab/cgroup.ts';
import { run } from '#lab/command.ts';
import { clusterChecks } from '#lab/demo-cluster-checks.ts';
import { leftOf } from '#lab/demo-down.ts';
import { isAlive } from '#lab/process.ts';
import { labGroup } from '#lab/state.ts';

const name = 'cluster-demo';
const causeway = resolve(import.meta.dirname, '../causeway');

const demo = (...argv: readonly string[]) =>
  run([causeway, 'demo', '--kubernetes', '--name', name, ...argv], { anyStatus: true, timeoutMs: 900_000 });

before(() => demo('--down'));
after(() => demo('--down'));

/** Titles of the checks with their marks, once they have one: how long a check has been going on may be said before. */
const verdicts = (said: string): string[] =>
  said
    .split('\n')
    .filter((line) => !line.includes('…'))
    .flatMap((line) => clusterChecks.flatMap(({ title }) => (line.includes(` ${title} `) ? [`${line.trim()[0]} ${title}`] : [])));
const allTrue = clusterChecks.map(({ title }) => `✓ ${title}`);

const pods = async (): Promise<string> => {
  const field = '--output=jsonpath={.items[*].metadata.uid}';
  return (await run([causeway, 'lab', 'kubectl', name, 'get', 'pods', '--all-namespaces', field])).stdout;
};

test('the demonstration builds a cluster and every claim is true', async () => {
  const { stdout, stderr, status } = await demo();
  assert.deepEqual(verdicts(stdout), allTrue, `${stdout}${stderr}`);
  assert.equal(status, 0);
});

test('a second run finds it and changes nothing', async () => {
  const running = await pods();
  const { stdout, status } = await demo();
  assert.deepEqual(verdicts(stdout), allTrue, stdout);
  assert.equal(status, 0);
  assert.equal(await pods(), running);
});

test('removal leaves no trace', async () => {
  const members = processesOf(labGroup(name));
  assert.ok(members.length > 10);
  assert.equal((await demo('--down')).status, 0);
  assert.deepEqual([leftOf(name), members.filter(isAlive)], [[], []]);
});
