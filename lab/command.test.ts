import assert from 'node:assert/strict';
import { test } from 'node:test';
import { run } from './command.ts';
import { refOf } from './process.ts';
import { until } from './until.ts';

test('a program that does not end is ended with what it has started, which holds its pipes, and what it said is told', async () => {
  const told = run(['sh', '-c', 'sleep 60 & echo $!; wait'], { timeoutMs: 500 });
  const message = await told.then(
    () => assert.fail('It ended'),
    (error: Error) => error.message,
  );
  const [, said = ''] = /not finished after 500 ms: (\d+)$/.exec(message) ?? assert.fail(message);
  await until('it to have ended', () => refOf(Number(said)) === undefined);
});

test('output of a program that ends in time is whole, and its status told', async () => {
  const output = await run(['sh', '-c', 'cat; echo "€" >&2; exit 3'], { input: 'in', anyStatus: true, timeoutMs: 10_000 });
  assert.deepEqual(output, { stdout: 'in', stderr: '€\n', status: 3 });
  await assert.rejects(run(['sh', '-c', 'echo why >&2; exit 3']), /exit status 3: why/);
  await assert.rejects(run(['no-such-program']), { code: 'unsupported' });
});
