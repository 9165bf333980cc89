// `causeway cni`: the programs that container runtimes execute, built from their source.
import { resolve } from 'node:path';
import { runBuild } from './build-cli.ts';
import { cniFolder, installCni } from './cni.ts';
import { cniNeeds, ensurePackages } from './packages.ts';
import { terminalProgress } from './progress.ts';

const usage = `Usage: causeway cni build [--output DIR]

Builds the programs that container runtimes execute to attach a container, static, from packaging/cni, and puts them where they
are looked for. Without --output that is ${cniFolder}.
`;

await runBuild({
  name: 'cni',
  usage,
  async build(output = cniFolder) {
    await ensurePackages(cniNeeds, terminalProgress());
    for (const path of await installCni(resolve(output))) process.stdout.write(`${path}\n`);
  },
});
