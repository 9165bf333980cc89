// Builds causeway-cni, the one program of ours that is no TypeScript: a container runtime starts it for every container, so
// it is static C that does nothing but ask the agent. A compiler is needed once for each change of its source.
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './command.ts';

const checkout = join(import.meta.dirname, '..');
const source = join(checkout, 'packaging', 'cni', 'causeway-cni.c');
const cache = join(checkout, '.cache', 'cni');
const flags = ['-static', '-Os', '-s', '-std=gnu17', '-Wall', '-Wextra', '-Werror'];

/** What a container runtime looks for: the `type` of its configuration. */
export const cniProgram = 'causeway';
export const cniFolder = '/opt/cni/bin';

/** Path of the program, built unless it is in the cache. Faults: `unsupported` (no compiler), `internal`. */
export async function buildCni(): Promise<string> {
  const build = createHash('sha256')
    .update(JSON.stringify([readFileSync(source, 'utf8'), flags, process.arch]))
    .digest('hex');
  const path = join(cache, `causeway-cni-${build.slice(0, 16)}`);
  if (existsSync(path)) return path;
  mkdirSync(cache, { recursive: true });
  const unfinished = `${path}.${process.pid}`;
  await run(['gcc', ...flags, '-o', unfinished, source]);
  renameSync(unfinished, path);
  return path;
}

/** Puts the program at `target` in one step, so that a runtime never executes half of it. */
export async function installCni(target: string): Promise<void> {
  const program = await buildCni();
  mkdirSync(dirname(target), { recursive: true, mode: 0o755 });
  copyFileSync(program, `${target}.new`);
  renameSync(`${target}.new`, target);
}
