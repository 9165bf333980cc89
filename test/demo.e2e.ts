// The demonstration as a newcomer runs it: through ./causeway, into a pipe. Every check line must be there and true, a second
// run must change nothing, a fault must be shown, and removal must leave no trace, also of a run that was killed half-way.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { processesOf } from '#lab/cgroup.ts';
import { ending, run, start } from '#lab/command.ts';
import { checks } from '#lab/demo-checks.ts';
import { leftOf } from '#lab/demo-down.ts';
import { docker } from '#lab/engine.ts';
import { openLab, type Lab } from '#lab/lab.ts';
import { isAlive } from '#lab/process.ts';
import { labGroup } from '#lab/state.ts';
import { until } from '#lab/until.ts';

const name = 'demo-test';
const half = 'demo-half';
const causeway = resolve(import.meta.dirname, '../causeway');

const demo = (...argv: readonly string[]) => run([causeway, 'demo', ...argv], { anyStatus: true, timeoutMs: 900_000 });

/** Titles of the checks with their marks. */
const verdicts = (said: string): string[] =>
  said.split('\n').flatMap((line) => checks.flatMap(({ title }) => (line.includes(` ${title} `) ? [`${line.trim()[0]} ${title}`] : [])));

const allTrue = checks.map(({ title }) => `✓ ${title}`);

function site(): Lab {
  const lab = openLab(name);
  assert.ok(lab !== undefined);
  return lab;
}

/** Which containers run since when, on all hosts. */
const containers = (): Promise<string[]> =>
  Promise.all(site().hosts.map((host) => docker(host, ['ps', '--no-trunc', '--format', '{{.ID}} {{.Names}} {{.CreatedAt}}'])));

before(async () => {
  await demo('--down', '--name', name);
  await demo('--down', '--name', half);
});
after(async () => {
  await demo('--down', '--name', name);
  await demo('--down', '--name', half);
});

test('the demonstration builds everything and every check is true', async () => {
  const { stdout, stderr, status } = await demo('--quick', '--name', name);
  assert.deepEqual(verdicts(stdout), allTrue, `${stdout}${stderr}`);
  assert.ok(!stdout.includes('✗') && !stdout.includes('\u001b'));
  assert.equal(status, 0);
});

test('a second run finds it, checks again and changes nothing', async () => {
  const running = await containers();
  const { stdout, status } = await demo('--quick', '--name', name);
  assert.deepEqual(verdicts(stdout), allTrue, stdout);
  assert.equal(status, 0);
  assert.deepEqual(await containers(), running);
});

test('a check that fails is shown with what was seen, and the exit status tells', async () => {
  const host = site().host('host3');
  await docker(host, ['exec', 'green-database', 'redis-cli', 'config', 'set', 'requirepass', 'forgotten']);
  const { stdout, status } = await demo('--quick', '--name', name);
  assert.equal(status, 1);
  assert.ok(verdicts(stdout).includes('✗ containers reach each other across hosts by name'), stdout);
  assert.match(stdout, /NOAUTH/);
  assert.match(stdout, /checks FAILED/);
  await docker(host, ['restart', '--time', '0', 'green-database']);
});

test('a run brings back what was stopped', async () => {
  await docker(site().host('host2'), ['rm', '--force', 'blue-client']);
  await site().host('host1').stopService('agent', 'SIGKILL');
  const { stdout, status } = await demo('--quick', '--name', name);
  assert.deepEqual(verdicts(stdout), allTrue, stdout);
  assert.equal(status, 0);
});

test('removal leaves no trace and may be repeated', async () => {
  const members = processesOf(labGroup(name));
  assert.ok(members.length > 20);
  assert.equal((await demo('--down', '--name', name)).status, 0);
  assert.deepEqual(leftOf(name), []);
  assert.deepEqual(members.filter(isAlive), []);
  assert.equal((await demo('--down', '--name', name)).status, 0);
});

for (const signal of ['SIGKILL', 'SIGINT'] as const) {
  test(`a run that ${signal} ends half-way leaves what removal removes`, async () => {
    const argv = [causeway, 'demo', '--quick', '--name', half];
    const child = start(argv, { stdio: ['ignore', 'pipe', 'ignore'] });
    const ended = ending(child, argv);
    let said = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    await until('engines to start', () => said.includes('controller at'), { timeoutMs: 180_000 });
    child.kill(signal);
    const { status } = await ended;
    assert.equal(status, signal === 'SIGINT' ? 130 : 137);
    assert.ok(processesOf(labGroup(half)).length > 3);
    assert.equal((await demo('--down', '--name', half)).status, 0);
    assert.deepEqual(leftOf(half), []);
    assert.deepEqual(processesOf(labGroup(half)), []);
  });
}

test('removal waits for nobody: it says who is at work', async () => {
  const child = start([causeway, 'demo', '--quick', '--name', half], { stdio: 'ignore' });
  await until('the lab to have processes', () => processesOf(labGroup(half)).length > 2);
  const { status, stderr } = await demo('--down', '--name', half);
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.equal(status, 1);
  assert.match(stderr, new RegExp(`process ${child.pid}`));
});

test('wrong options are refused and help is given', async () => {
  assert.equal((await demo('--nonsense')).status, 2);
  const { stdout, status } = await demo('--help');
  assert.match(stdout, /Usage: causeway demo/);
  assert.equal(status, 0);
});
