// `causeway plugin`: the managed plugin of a Swarm, built without a registry.
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { isFault } from '#model/fault.ts';
import { ensurePackages } from './packages.ts';
import { buildPlugin, defaultPluginFolder, pluginNeeds } from './plugin.ts';
import { terminalProgress } from './progress.ts';

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

async function main(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv;
  if (command !== 'build') {
    process.stderr.write(usage);
    return command !== undefined && ['--help', '-h', 'help'].includes(command) ? 0 : 2;
  }
  const { values } = parseArgs({ args: rest, options: { output: { type: 'string' }, help: { type: 'boolean', short: 'h' } } });
  if (values.help === true) {
    process.stdout.write(usage);
    return 0;
  }
  const progress = terminalProgress();
  await ensurePackages(pluginNeeds, progress);
  const { folder, bytes, isUnchanged } = await buildPlugin(resolve(values.output ?? defaultPluginFolder), progress);
  process.stderr.write(`  ${isUnchanged ? 'Nothing has changed' : 'Built'}: ${folder}, ${(bytes / 2 ** 20).toFixed(0)} MiB\n\n`);
  process.stdout.write(next(folder));
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const isUsage = error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
  if (!isUsage && !isFault(error)) throw error;
  const hint = isFault(error) ? (error.hint ?? '') : usage;
  process.stderr.write(`causeway plugin: ${error.message}\n${hint}\n`);
  process.exitCode = isUsage ? 2 : 1;
}
