// How the daemons end when they cannot begin or go on: with the words and the exit status that docs/errors.md promises.
import { CommanderError } from 'commander';
import { exitOf, faultText } from '#cli/faults.ts';
import { Fault } from '#model/fault.ts';

/** Prints it and answers the exit status. */
export function say(fault: Fault): number {
  process.stderr.write(faultText(fault));
  return exitOf(fault);
}

/** Prints what went wrong and answers the exit status. `program`: for the user who has to ask it for help. Throws what is an error of ours. */
export function failed(error: unknown, program: string): number {
  if (error instanceof Fault) return say(error);
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    return say(new Fault('invalid', error.message.replace(/^error: /, ''), { hint: `${program} --help`, cause: error }));
  }
  // What the operating system refuses (no room, no access) is no mistake of the program: where it happened helps nobody.
  if (!(error instanceof Error && 'syscall' in error)) throw error;
  process.stderr.write(`Error: ${error.message}\n`);
  return 1;
}
