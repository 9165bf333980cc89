// `causeway cni`: the programs that container runtimes execute, built from their source.
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { isFault } from '#model/fault.ts';
import { cniFolder, installCni } from './cni.ts';
import { cniNeeds, ensurePackages } from './packages.ts';
import { terminalProgress } from './progress.ts';

const usage = `Usage: causeway cni build [--output DIR]

Builds the programs that container runtimes execute to attach a container, static, from packaging/cni, and puts them where they
are looked for. Without --output that is ${cniFolder}.
`;

async function main(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv;
  if (command !== 'build') {
    process.stderr.write(usage);
    return command === '--help' || command === 'help' ? 0 : 2;
  }
  const { values } = parseArgs({ args: rest, options: { output: { type: 'string' }, help: { type: 'boolean', short: 'h' } } });
  if (values.help === true) {
    process.stdout.write(usage);
    return 0;
  }
  await ensurePackages(cniNeeds, terminalProgress());
  for (const path of await installCni(resolve(values.output ?? cniFolder))) process.stdout.write(`${path}\n`);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const isUsage = error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
  if (!isUsage && !isFault(error)) throw error;
  const hint = isFault(error) ? (error.hint ?? '') : usage;
  process.stderr.write(`causeway cni: ${error.message}\n${hint}\n`);
  process.exitCode = isUsage ? 2 : 1;
}
