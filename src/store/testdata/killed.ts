// Starts a script of ours that prints a number for everything it has finished, kills it in the middle, and says what it had
// printed. SIGKILL leaves no time for anything, as a crash does.
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

/** Numbers that were printed, in order. The kill comes at a random moment, at most `withinMs` after the first of them. */
export async function killInTheMiddle(script: string, args: readonly string[], withinMs = 60): Promise<number[]> {
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise((resolve) => child.once('close', resolve));
  let text = '';
  const first = Promise.withResolvers<void>();
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    text += part;
    first.resolve();
  });
  await Promise.race([first.promise, exited]);
  await sleep(Math.random() * withinMs);
  child.kill('SIGKILL');
  await exited;
  return text.split('\n').slice(0, -1).map(Number);
}
