// What `causeway cni` and `causeway plugin` have in common: one command, `build`, with one option, where to put it.
import { parseArgs } from 'node:util';
import { isFault } from '#model/fault.ts';

export interface BuildProgram {
  /** As in `causeway NAME build`. */
  readonly name: string;
  readonly usage: string;
  /** `output`: as the user gave it. Faults are printed. */
  readonly build: (output: string | undefined) => Promise<void>;
}

async function main({ usage, build }: BuildProgram, [command, ...rest]: readonly string[]): Promise<number> {
  if (command !== 'build') {
    process.stderr.write(usage);
    return command !== undefined && ['--help', '-h', 'help'].includes(command) ? 0 : 2;
  }
  const { values } = parseArgs({ args: rest, options: { output: { type: 'string' }, help: { type: 'boolean', short: 'h' } } });
  if (values.help === true) {
    process.stdout.write(usage);
    return 0;
  }
  await build(values.output);
  return 0;
}

/** Runs the program with this process's arguments and sets its exit status: 2 for wrong usage, 1 for a Fault. */
export async function runBuild(program: BuildProgram): Promise<void> {
  try {
    process.exitCode = await main(program, process.argv.slice(2));
  } catch (error) {
    const isUsage = error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
    if (!isUsage && !isFault(error)) throw error;
    const hint = isFault(error) ? (error.hint ?? '') : program.usage;
    process.stderr.write(`causeway ${program.name}: ${error.message}\n${hint}\n`);
    process.exitCode = isUsage ? 2 : 1;
  }
}
