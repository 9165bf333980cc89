import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { ensureForwarding, listForwarding, removeForwarding } from './forwarding.ts';

mustBeIsolated();

const programs = ['iptables', 'ip6tables'];
const skip = programs.some((program) => spawnSync(program, ['-S']).status !== 0) ? 'no iptables here' : false;

function run(program: string, ...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}

test('nothing is added where nothing stops us', { skip }, () => {
  assert.deepEqual(ensureForwarding(), []);
  assert.deepEqual(listForwarding(), []);
});

test('a policy of DROP is opened for our links, once, and closed again', { skip }, () => {
  for (const program of programs) run(program, '-P', 'FORWARD', 'DROP');
  assert.equal(ensureForwarding().length, 4);
  assert.deepEqual(ensureForwarding(), []);
  assert.equal(listForwarding().length, 4);
  assert.match(run('iptables', '-S', 'FORWARD'), /-A FORWARD -i cw\+ -m comment --comment causeway -j ACCEPT/);
  run('iptables', '-D', 'FORWARD', '1');
  assert.equal(ensureForwarding().length, 1, 'what somebody took away comes back');
  removeForwarding();
  assert.deepEqual(listForwarding(), []);
  assert.equal(run('ip6tables', '-S', 'FORWARD').trim(), '-P FORWARD DROP');
});

test("with Docker's chains the rules go where Docker leaves them alone", { skip }, () => {
  for (const program of programs) {
    run(program, '-N', 'DOCKER-USER');
    run(program, '-A', 'DOCKER-USER', '-j', 'RETURN');
    run(program, '-I', 'FORWARD', '-j', 'DOCKER-USER');
  }
  assert.deepEqual([...new Set(ensureForwarding().map(({ chain }) => chain))], ['DOCKER-USER']);
  assert.match(run('iptables', '-S', 'DOCKER-USER'), /causeway -j ACCEPT\n-A DOCKER-USER -j RETURN/, 'before what is there');
  assert.deepEqual(ensureForwarding(), []);
  removeForwarding();
  assert.deepEqual(listForwarding(), []);
});

test('among many rules of others ours are found', { skip }, () => {
  const rules = Array.from(
    { length: 20_000 },
    (_, number) => `-A OTHERS -s 10.${number >> 8}.${number & 255}.1/32 -m comment --comment ${'x'.repeat(60)} -j RETURN`,
  );
  const input = ['*filter', ':OTHERS - [0:0]', ...rules, 'COMMIT', ''].join('\n');
  assert.equal(spawnSync('iptables-restore', ['--noflush'], { input }).status, 0);
  assert.equal(ensureForwarding().length, 4);
  assert.deepEqual(ensureForwarding(), []);
});
