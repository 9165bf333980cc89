// Container images without a registry: programs of the machine with the libraries that ldd names, on top of a static
// busybox, packed once as a tar file and given to each engine with `docker import`. An image is a description here; a
// change of it or of the machine's programs makes a new tar.
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { run } from './command.ts';
import { docker } from './engine.ts';
import type { Host } from './host.ts';

export interface ImageRecipe {
  readonly name: string;
  /** Programs of the machine: path there → path in the image. Their libraries come along. */
  readonly programs: Readonly<Record<string, string>>;
  /** Executable text files: path in the image → content. */
  readonly scripts: Readonly<Record<string, string>>;
  /** Dockerfile instructions that `docker import --change` takes. */
  readonly changes: readonly string[];
}

/** sh, httpd, wget, nc, ping, ip, nslookup and the rest of busybox. */
export const boxImage: ImageRecipe = { name: 'causeway/box', programs: {}, scripts: {}, changes: ['CMD ["sh"]'] };

/** Both ends of SCTP, with a stack of their own (sctpNeeds in packages.ts): `echo_server`, which listens on port 7, and `client`. */
export const sctpImage: ImageRecipe = {
  name: 'causeway/sctp',
  programs: { '/usr/lib/usrsctp/echo_server': '/usr/bin/echo_server', '/usr/lib/usrsctp/client': '/usr/bin/client' },
  scripts: {},
  changes: [],
};

/** A line of shell by which `client` says `word` to the echo server at `place`, address and port, and prints what comes back. */
export const sctpLine = (place: string, client = 'client'): string => `(sleep 1; echo word; sleep 1) | timeout 5 ${client} ${place}`;

/** A counter's page: each request asks the database named `database` and says who answered. */
export const webImage: ImageRecipe = {
  name: 'causeway/web',
  programs: { '/usr/bin/redis-cli': '/usr/bin/redis-cli' },
  scripts: {
    '/srv/cgi-bin/index.cgi': [
      '#!/bin/sh',
      'visits=$(redis-cli -h database -t 2 incr visits 2>&1)',
      'printf "Content-Type: text/plain\\r\\n\\r\\n"',
      'echo "shop: ${SHOP:-none}"',
      'echo "web: $(hostname)"',
      'echo "visits: $visits"',
      'client=${REMOTE_ADDR#[}; client=${client%]}',
      'echo "client: ${client#::ffff:}"',
      '',
    ].join('\n'),
  },
  changes: ['CMD ["httpd", "-f", "-p", "80", "-h", "/srv"]'],
};

/** A real Redis. Debian keeps server and tools in one program that goes by the name it is called. */
export const databaseImage: ImageRecipe = {
  name: 'causeway/database',
  programs: { '/usr/bin/redis-check-rdb': '/usr/bin/redis-server', '/usr/bin/redis-cli': '/usr/bin/redis-cli' },
  scripts: {},
  changes: ['CMD ["redis-server", "--protected-mode", "no", "--bind", "*", "-::*", "--save", "", "--loglevel", "warning"]'],
};

const cache = join(import.meta.dirname, '..', '.cache', 'images');
const busybox = '/bin/busybox';
const buildLabel = 'causeway.build';

/** Imports the images into the host's engine; those that it has already in this build are left alone. */
export async function importImages(host: Host, recipes: readonly ImageRecipe[]): Promise<void> {
  for (const recipe of recipes) {
    const build = buildOf(recipe);
    const format = `{{index .Config.Labels "${buildLabel}"}}`;
    const found = await docker(host, ['image', 'inspect', '--format', format, recipe.name], { anyStatus: true });
    if (found === build) continue;
    const path = await buildImage(recipe);
    const changes = [...recipe.changes, 'ENV PATH=/usr/bin:/bin', `LABEL ${buildLabel}=${build}`].flatMap((line) => ['--change', line]);
    await docker(host, ['import', ...changes, path, recipe.name]);
  }
}

/** Names the build by everything that goes into it. */
function buildOf(recipe: ImageRecipe): string {
  const sources = [busybox, ...Object.keys(recipe.programs)].map((path) => {
    const { size, mtimeMs } = statSync(path);
    return [path, size, mtimeMs];
  });
  return createHash('sha256')
    .update(JSON.stringify([recipe, sources]))
    .digest('hex')
    .slice(0, 16);
}

const building = new Map<string, Promise<string>>();

/** Path of the image's tar, built unless it is in the cache. */
export function buildImage(recipe: ImageRecipe): Promise<string> {
  const path = join(cache, `${recipe.name.replace('/', '-')}-${buildOf(recipe)}.tar`);
  if (existsSync(path)) return Promise.resolve(path);
  const begun = building.get(path) ?? pack(recipe, path);
  building.set(path, begun);
  return begun;
}

async function pack(recipe: ImageRecipe, path: string): Promise<string> {
  mkdirSync(cache, { recursive: true });
  const tree = mkdtempSync(join(cache, 'tree-'));
  try {
    const place = (source: string, target: string): void => {
      mkdirSync(dirname(join(tree, target)), { recursive: true });
      rmSync(join(tree, target), { force: true }); // rather than what a link of that name leads to
      copyFileSync(source, join(tree, target));
      chmodSync(join(tree, target), 0o755);
    };
    for (const folder of ['bin', 'usr/bin', 'etc', 'tmp', 'var', 'root']) mkdirSync(join(tree, folder), { recursive: true });
    chmodSync(tree, 0o755);
    place(busybox, '/bin/busybox');
    const { stdout } = await run([busybox, '--list']);
    for (const applet of stdout.trim().split('\n')) {
      if (applet !== 'busybox') symlinkSync('busybox', join(tree, 'bin', applet));
    }
    for (const [source, target] of Object.entries(recipe.programs)) {
      place(source, target);
      for (const library of await librariesOf(source)) place(library, library);
    }
    for (const [target, content] of Object.entries(recipe.scripts)) {
      mkdirSync(dirname(join(tree, target)), { recursive: true });
      writeFileSync(join(tree, target), content, { mode: 0o755 });
    }
    writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
    writeFileSync(join(tree, 'etc/group'), 'root:x:0:\n');
    await run(['tar', '--create', '--file', `${tree}.tar`, '--owner=0', '--group=0', '--directory', tree, '.']);
    renameSync(`${tree}.tar`, path);
    return path;
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

/** Paths of the shared libraries and the loader that a program needs, from ldd(1). */
export function parseLdd(output: string): string[] {
  return output.split('\n').flatMap((line) => /(?:=>\s*|^\s*)(\/\S+)\s+\(0x/.exec(line)?.[1] ?? []);
}

/** None for a static program. Fault `unsupported`. */
export async function librariesOf(program: string): Promise<string[]> {
  const { stdout, stderr, status } = await run(['ldd', program], { anyStatus: true });
  if (status !== 0 && !stderr.includes('not a dynamic executable')) {
    throw new Fault('unsupported', `Cannot tell the libraries of ${program}: ${stderr}`);
  }
  return parseLdd(stdout);
}
