// Container images as containerd imports them: an OCI image layout in a tar file, with one layer, made without a registry
// (github.com/opencontainers/image-spec, image-layout.md).
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';

export interface OciImage {
  /** Tar of the root file system. */
  readonly layer: string;
  /** With a tag, as pods name it. */
  readonly name: string;
  readonly command: readonly string[];
  readonly entrypoint?: readonly string[];
}

const mediaType = (what: string): string => `application/vnd.oci.image.${what}`;

/** Writes the image to `target`, a tar file; `folder` is a place for the pieces. */
export async function writeOciArchive(image: OciImage, target: string, folder: string): Promise<void> {
  const { layer, name, command, entrypoint = [] } = image;
  const tree = mkdtempSync(join(folder, 'oci-'));
  try {
    const blobs = join(tree, 'blobs', 'sha256');
    mkdirSync(blobs, { recursive: true });
    const bytes = readFileSync(layer);
    const layerDigest = digestOf(bytes);
    copyFileSync(layer, join(blobs, layerDigest));
    const blob = (type: string, content: object) => {
      const text = Buffer.from(JSON.stringify(content));
      const digest = digestOf(text);
      writeFileSync(join(blobs, digest), text);
      return { mediaType: mediaType(type), digest: `sha256:${digest}`, size: text.length };
    };
    const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
    const config = blob('config.v1+json', {
      architecture,
      os: 'linux',
      config: { Entrypoint: entrypoint, Cmd: command, Env: ['PATH=/usr/bin:/bin'] },
      rootfs: { type: 'layers', diff_ids: [`sha256:${layerDigest}`] },
    });
    const layers = [{ mediaType: mediaType('layer.v1.tar'), digest: `sha256:${layerDigest}`, size: bytes.length }];
    const manifest = blob('manifest.v1+json', { schemaVersion: 2, mediaType: mediaType('manifest.v1+json'), config, layers });
    const annotations = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name.split(':').at(-1) };
    writeFileSync(join(tree, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }));
    writeFileSync(join(tree, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    await run(['tar', '--create', '--file', target, '--directory', tree, 'oci-layout', 'index.json', 'blobs']);
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

const digestOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
