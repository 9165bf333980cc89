// Builds what is no TypeScript of ours: the programs that a container runtime starts for every container, static C that does
// nothing but ask the agent. A compiler is needed once for each change of their source.
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './command.ts';

const checkout = join(import.meta.dirname, '..');
const sources = join(checkout, 'packaging', 'cni');
const cache = join(checkout, '.cache', 'cni');
const flags = ['-static', '-Os', '-s', '-std=gnu17', '-Wall', '-Wextra', '-Werror'];

/** By the name that runtimes look for, the `type` of a configuration; with the source. */
const programs = { causeway: 'causeway-cni.c', loopback: 'loopback.c' } as const;
type Program = keyof typeof programs;
export const cniFolder = '/opt/cni/bin';

const building = new Map<string, Promise<string>>();

/** Path of the program, built unless it is in the cache. Faults: `unsupported` (no compiler), `internal`. */
export function buildCni(program: Program = 'causeway'): Promise<string> {
  const texts = readdirSync(sources).map((file) => readFileSync(join(sources, file), 'utf8'));
  const build = createHash('sha256')
    .update(JSON.stringify([texts, flags, process.arch]))
    .digest('hex');
  const path = join(cache, `${program}-${build.slice(0, 16)}`);
  if (existsSync(path)) return Promise.resolve(path);
  const begun = building.get(path) ?? compile(join(sources, programs[program]), path);
  building.set(path, begun);
  return begun;
}

/** One file of C into a program that needs nothing. Answers its path, where it is whole from the first moment. Faults as buildCni. */
export async function compile(source: string, path: string): Promise<string> {
  mkdirSync(dirname(path), { recursive: true });
  const unfinished = `${path}.${process.pid}`;
  await run(['gcc', ...flags, '-o', unfinished, source]);
  renameSync(unfinished, path);
  return path;
}

/** Puts the programs into `folder`, each in one step, so that a runtime never executes half of one. Their paths. */
export async function installCni(folder: string): Promise<string[]> {
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  const paths: string[] = [];
  for (const name of ['causeway', 'loopback'] as const) {
    const path = join(folder, name);
    copyFileSync(await buildCni(name), `${path}.new`);
    renameSync(`${path}.new`, path);
    paths.push(path);
  }
  return paths;
}
