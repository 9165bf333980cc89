// The managed plugin for Swarm: a folder with `config.json` and `rootfs` as `docker plugin create` takes it. Swarm's managers
// refuse any other sort of plugin (moby libnetwork/cnmallocator/provider.go), so this is the only way to be a driver there.
import { cpSync, existsSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { run } from './command.ts';
import type { Progress } from './progress.ts';
import { home, makeRoot, rootBuild, type RootExtras, textOf } from './root-file-system.ts';

const checkout = join(import.meta.dirname, '..');
const packaging = join(checkout, 'packaging', 'plugin');
export const defaultPluginFolder: string = join(checkout, '.cache', 'plugin');

/** The host's /run is at /host/run. */
const extras: RootExtras = {
  folders: ['/host/run', '/run/docker/plugins'],
  links: {
    '/run/netns': '/host/run/netns',
    '/run/causeway': '/host/run/causeway',
    '/run/docker.sock': '/host/run/docker.sock',
    '/run/docker/netns': '/host/run/docker/netns',
  },
  files: { [`${home}/start.sh`]: join(packaging, 'start.sh') },
};

export interface BuiltPlugin {
  readonly folder: string;
  readonly bytes: number;
  /** Whether the folder held this very build already. */
  readonly isUnchanged: boolean;
}

/** Makes or renews the plugin's folder. Faults: `unsupported` (a program is absent), `exists` (the folder holds something else). */
export async function buildPlugin(folder: string, progress: Progress): Promise<BuiltPlugin> {
  const mark = join(folder, 'rootfs', home, 'build');
  if (existsSync(folder) && !existsSync(mark)) {
    throw new Fault('exists', `Cannot build into ${folder}: it holds something else`, { field: '--output', hint: 'Name an empty place.' });
  }
  const config = join(packaging, 'config.json');
  const build = rootBuild(extras, [config]);
  if (textOf(mark) === build) return { folder, bytes: await sizeOf(folder), isUnchanged: true };
  removeAbandoned(folder);
  const tree = `${folder}.${process.pid}.new`;
  rmSync(tree, { recursive: true, force: true });
  await makeRoot(join(tree, 'rootfs'), extras, progress);
  writeFileSync(join(tree, 'rootfs', home, 'build'), build);
  cpSync(config, join(tree, 'config.json'));
  // Another process may have built the same meanwhile, and its folder may be in use.
  if (textOf(mark) !== build) putInPlace(tree, folder);
  rmSync(tree, { recursive: true, force: true });
  return { folder, bytes: await sizeOf(folder), isUnchanged: false };
}

/** By renames alone, between which another process may put the same there: then `tree` stays where it is. */
function putInPlace(tree: string, folder: string): void {
  const before = `${tree}.before`;
  moveUnless(folder, before, 'ENOENT');
  moveUnless(tree, folder, 'ENOTEMPTY');
  rmSync(before, { recursive: true, force: true });
}

/** Failing with that error is no failure. */
function moveUnless(from: string, to: string, code: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === code)) throw error;
  }
}

/** What processes have left that were interrupted. */
function removeAbandoned(folder: string): void {
  if (!existsSync(dirname(folder))) return;
  for (const name of readdirSync(dirname(folder))) {
    const [, pid] = name.startsWith(`${basename(folder)}.`) ? (/\.(\d+)\.new(?:\.before)?$/.exec(name) ?? []) : [];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(dirname(folder), name), { recursive: true, force: true });
  }
}

async function sizeOf(folder: string): Promise<number> {
  const { stdout } = await run(['du', '--summarize', '--bytes', folder]);
  return Number.parseInt(stdout, 10);
}
