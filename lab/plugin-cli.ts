// `causeway plugin`: the managed plugin of a Swarm, built without a registry.
import { resolve } from 'node:path';
import { runBuild } from './build-cli.ts';
import { ensurePackages } from './packages.ts';
import { buildPlugin, defaultPluginFolder } from './plugin.ts';
import { terminalProgress } from './progress.ts';
import { rootNeeds } from './root-file-system.ts';

const usage = `Usage: causeway plugin build [--output DIR]

Makes the folder that "docker plugin create causeway DIR" takes, from this checkout and programs of this machine; nothing is
fetched from a registry. Without --output it is ${defaultPluginFolder}.
`;

function next(folder: string): string {
  return [
    'On every node of the Swarm (docs/swarm.md):',
    `  docker plugin create causeway ${folder}`,
    '  docker plugin set causeway CAUSEWAY_CONTROLLER=https://CONTROLLER:7480 CAUSEWAY_JOIN=TOKEN',
    '  docker plugin enable causeway',
    '',
  ].join('\n');
}

await runBuild({
  name: 'plugin',
  usage,
  async build(output = defaultPluginFolder) {
    const progress = terminalProgress();
    await ensurePackages(rootNeeds, progress);
    const { folder, bytes, isUnchanged } = await buildPlugin(resolve(output), progress);
    process.stderr.write(`  ${isUnchanged ? 'Nothing has changed' : 'Built'}: ${folder}, ${(bytes / 2 ** 20).toFixed(0)} MiB\n\n`);
    process.stdout.write(next(folder));
  },
});
