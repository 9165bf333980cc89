// Container images without a registry: an OCI image layout with one layer (github.com/opencontainers/image-spec,
// image-layout.md), as a folder or as a tar file. The tar file is also what `docker load` takes, which looks for
// manifest.json (moby image/tarexport/load.go). Nothing of it says when or by whom it was made, so that the same content is
// the same image.
import { createHash } from 'node:crypto';
import { copyFileSync, createReadStream, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { run } from './command.ts';

export interface OciImage {
  /** Tar of the root file system. */
  readonly layer: string;
  /** With a tag, as pods name it. */
  readonly name: string;
  readonly entrypoint?: readonly string[];
  readonly command: readonly string[];
  readonly env?: readonly string[];
}

const mediaType = (what: string): string => `application/vnd.oci.image.${what}`;

/** Arguments of tar(1) under which the same tree gives the same bytes, whoever packs it. */
export const reproducibly: readonly string[] = [
  '--format=gnu',
  '--sort=name',
  '--mtime=@0',
  '--owner=0',
  '--group=0',
  '--numeric-owner',
  '--mode=u=rwX,go=rX',
];

/** Writes the image to `target`, a tar file; `folder` is a place for the pieces. Its digest. */
export async function writeOciArchive(image: OciImage, target: string, folder: string): Promise<string> {
  const tree = mkdtempSync(join(folder, 'oci-'));
  try {
    const digest = await writeOciLayout(image, tree);
    const parts = ['oci-layout', 'index.json', 'manifest.json', 'blobs'];
    await run(['tar', '--create', '--file', target, ...reproducibly, '--directory', tree, ...parts]);
    return digest;
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

/** Writes the image's parts into `tree`, an empty folder. Its digest, which is the manifest's. */
export async function writeOciLayout({ layer, name, entrypoint, command, env }: OciImage, tree: string): Promise<string> {
  const blobs = join(tree, 'blobs', 'sha256');
  mkdirSync(blobs, { recursive: true });
  const layerDigest = await digestOf(layer);
  copyFileSync(layer, join(blobs, layerDigest));
  const blob = (type: string, content: object) => {
    const text = Buffer.from(JSON.stringify(content));
    const digest = createHash('sha256').update(text).digest('hex');
    writeFileSync(join(blobs, digest), text);
    return { mediaType: mediaType(type), digest: `sha256:${digest}`, size: text.length };
  };
  const config = blob('config.v1+json', {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: { ...(entrypoint === undefined ? {} : { Entrypoint: entrypoint }), Cmd: command, Env: env ?? ['PATH=/usr/bin:/bin'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${layerDigest}`] },
  });
  const layers = [{ mediaType: mediaType('layer.v1.tar'), digest: `sha256:${layerDigest}`, size: statSync(layer).size }];
  const manifest = blob('manifest.v1+json', { schemaVersion: 2, mediaType: mediaType('manifest.v1+json'), config, layers });
  const annotations = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name.split(':').at(-1) };
  writeFileSync(join(tree, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }));
  writeFileSync(join(tree, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  const forDocker = [{ Config: blobPath(config.digest), RepoTags: [name], Layers: [blobPath(layerDigest)] }];
  writeFileSync(join(tree, 'manifest.json'), JSON.stringify(forDocker));
  return manifest.digest;
}

const blobPath = (digest: string): string => `blobs/sha256/${digest.replace(/^sha256:/, '')}`;

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}
