// What `causeway cni`, `plugin` and `image` have in common: one command, `build`, with the options where to put it and, of an
// image, what to call it.
import { parseArgs } from 'node:util';
import { isFault } from '#model/fault.ts';
import { isMisuse } from './command.ts';

export interface BuildProgram {
  /** As in `causeway NAME build`. */
  readonly name: string;
  readonly usage: string;
  /** As the user gave them. Faults are printed. */
  readonly build: (output: string | undefined, tag: string | undefined) => Promise<void>;
}

async function main({ usage, build }: BuildProgram, [command, ...rest]: readonly string[]): Promise<number> {
  if (command !== 'build') {
    process.stderr.write(usage);
    return command !== undefined && ['--help', '-h', 'help'].includes(command) ? 0 : 2;
  }
  const options = { output: { type: 'string' }, tag: { type: 'string' }, help: { type: 'boolean', short: 'h' } } as const;
  const { values } = parseArgs({ args: rest, options });
  if (values.help === true) {
    process.stdout.write(usage);
    return 0;
  }
  if (values.tag !== undefined && !usage.includes('--tag')) {
    process.stderr.write(usage);
    return 2;
  }
  await build(values.output, values.tag);
  return 0;
}

/** Runs the program with this process's arguments and sets its exit status: 2 for wrong usage, 1 for a Fault. */
export async function runBuild(program: BuildProgram): Promise<void> {
  try {
    process.exitCode = await main(program, process.argv.slice(2));
  } catch (error) {
    const isUsage = isMisuse(error);
    if (!isUsage && !isFault(error)) throw error;
    const hint = isFault(error) ? (error.hint ?? '') : program.usage;
    process.stderr.write(`causeway ${program.name}: ${error.message}\n${hint}\n`);
    process.exitCode = isUsage ? 2 : 1;
  }
}
