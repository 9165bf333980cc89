// The container image of Causeway: agent, controller, CLI and the programs that a container runtime starts for every pod, on the
// root file system that lab/root-file-system.ts makes. The same content is the same image, bit for bit.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';
import { buildCni } from './cni.ts';
import { run } from './command.ts';
import { type OciImage, reproducibly, writeOciArchive, writeOciLayout } from './oci-archive.ts';
import { cniNeeds, type Need } from './packages.ts';
import type { Progress } from './progress.ts';
import { home, makeRoot, rootBuild, type RootExtras, rootNeeds } from './root-file-system.ts';

const checkout = join(import.meta.dirname, '..');
const cache = join(checkout, '.cache', 'image');
const scripts = join(checkout, 'packaging', 'image');

export const imageNeeds: readonly Need[] = [...rootNeeds, ...cniNeeds];

const { version } = v.parse(v.object({ version: v.string() }), JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8')));
/** Where nobody says otherwise, here and in the Helm chart. `localhost`: it comes from no registry. */
export const imageRepository = 'localhost/causeway';
export const defaultImage: string = `${imageRepository}:${version}`;

/** NAME:TAG as engines and runtimes accept it (github.com/distribution/reference), with a host or without. */
export function checkImageName(name: string): string {
  if (/^(?:[a-z0-9.-]+(?::\d+)?\/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*:[\w][\w.-]{0,127}$/.test(name)) return name;
  throw new Fault('invalid', `Not the name of an image: ${name}`, { field: '--tag', hint: `Write it with its tag, as ${defaultImage}` });
}

export interface BuiltImage {
  readonly path: string;
  readonly name: string;
  readonly digest: string;
}

/** Whether it is to be a tar file. Fault `exists`: something is there that would have to go. */
function isArchiveAt(output: string): boolean {
  const isArchive = output.endsWith('.tar');
  const found = statSync(output, { throwIfNoEntry: false });
  const inTheWay = found === undefined || found.isDirectory() !== isArchive ? undefined : isArchive ? 'it is a folder' : 'it is a file';
  const isFull = !isArchive && found?.isDirectory() === true && readdirSync(output).length > 0;
  const problem = inTheWay ?? (isFull ? 'it holds something' : undefined);
  if (problem === undefined) return isArchive;
  throw new Fault('exists', `Cannot build into ${output}: ${problem}`, { field: '--output', hint: 'Name an empty place.' });
}

/**
 * Writes the image to `output`, a tar file where it is called so, or else a folder that is absent or empty. Faults, before anything is
 * made: `unsupported` (a program is absent), `exists` (something is in the way), `invalid` (the name).
 */
export async function buildImageOf(output: string, name: string, progress: Progress): Promise<BuiltImage> {
  checkImageName(name);
  const isArchive = isArchiveAt(output);
  const image: OciImage = {
    layer: await layerOf(progress),
    name,
    entrypoint: [`${home}/causeway`],
    command: ['--help'],
    env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'NODE_COMPILE_CACHE=/var/cache/causeway'],
  };
  const digest = await progress.step(`Writing ${output}`, async () => {
    mkdirSync(dirname(output), { recursive: true });
    if (!isArchive) return writeOciLayout(image, output);
    const unfinished = `${output}.${process.pid}`;
    const written = await writeOciArchive(image, unfinished, dirname(output));
    renameSync(unfinished, output);
    return written;
  });
  return { path: output, name, digest };
}

/** Layers of before, and what builders have left that died. One that is at work beside this one keeps its own. */
function removeOthers(layer: string): void {
  for (const name of readdirSync(cache)) {
    const [, builder] = /^tree-(\d+)-/.exec(name) ?? [];
    const isNeeded = builder === undefined ? name === basename(layer) : existsSync(`/proc/${builder}`);
    if (!isNeeded) rmSync(join(cache, name), { recursive: true, force: true });
  }
}

/** The image's only layer, of this state of the checkout and the machine. Several processes may build it side by side. */
async function layerOf(progress: Progress): Promise<string> {
  const extras: RootExtras = {
    files: {
      [`${home}/cni/causeway`]: await buildCni('causeway'),
      [`${home}/cni/loopback`]: await buildCni('loopback'),
      [`${home}/install-cni`]: join(scripts, 'install-cni'),
      [`${home}/uninstall`]: join(scripts, 'uninstall'),
      [`${home}/wireguard`]: join(scripts, 'wireguard'),
    },
  };
  const layer = join(cache, `${rootBuild(extras).slice(0, 24)}.tar`);
  if (existsSync(layer)) return layer;
  mkdirSync(cache, { recursive: true });
  removeOthers(layer);
  const tree = mkdtempSync(join(cache, `tree-${process.pid}-`));
  try {
    await makeRoot(tree, extras, progress);
    await progress.step('Packing the layer', async () => {
      await run(['tar', '--create', '--file', `${tree}.tar`, ...reproducibly, '--directory', tree, '.']);
      renameSync(`${tree}.tar`, layer);
    });
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
  return layer;
}
