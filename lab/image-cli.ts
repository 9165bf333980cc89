// `causeway image`: the container image, built without a registry or an engine.
import { resolve } from 'node:path';
import { runBuild } from './build-cli.ts';
import { buildImageOf, defaultImage, imageNeeds } from './image.ts';
import { ensurePackages } from './packages.ts';
import { terminalProgress } from './progress.ts';

const defaultOutput = 'causeway-image.tar';
const usage = `Usage: causeway image build [--output FILE.tar | --output DIR] [--tag NAME:TAG]

Makes the container image of Causeway from this checkout and programs of this machine; nothing is fetched from a registry and no
engine is needed. The tar file is for "ctr --namespace k8s.io images import" and "docker load"; a folder gets an OCI image
layout. The same input gives the same image. Without --output it is ${defaultOutput} here, without --tag ${defaultImage}.
`;

await runBuild({
  name: 'image',
  usage,
  async build(output = defaultOutput, tag = defaultImage) {
    const progress = terminalProgress();
    await ensurePackages(imageNeeds, progress);
    const { path, name, digest } = await buildImageOf(resolve(output), tag, progress);
    process.stdout.write(`${path}\n${name}\n${digest}\n`);
  },
});
