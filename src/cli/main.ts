// Runs one command line: finds the group of its first word, loads that one only, runs the command and prints its answer.
// This is the only place that prints; it returns the exit status.
import { inspect } from 'node:util';
import { type Command, CommanderError } from 'commander';
import { Fault } from '#model/fault.ts';
import type { Act } from './command.ts';
import { exitOf, faultJson, faultTable, faultText, toFault } from './faults.ts';
import { buildProgram, type GlobalOptions, groupName, loadGroups } from './program.ts';
import { type Answer, Session, type Surroundings } from './session.ts';
import { plain } from './table.ts';

async function render(answer: Answer, { output, quiet }: GlobalOptions, surroundings: Surroundings): Promise<string> {
  if (quiet === true) return answer.names.map((name) => `${name}\n`).join('');
  if (output === 'json') return `${JSON.stringify(answer.data, null, 2)}\n`;
  if (output === 'yaml') return (await import('yaml')).stringify(answer.data, { aliasDuplicateObjects: false });
  return answer.text({ color: !surroundings.plain && surroundings.stdout.isTTY === true, now: surroundings.now() });
}

/** Says once after a while, and then after five times as long again and again, that the command is still at work. */
function patience({ stderr, patienceMs }: Pick<Surroundings, 'stderr' | 'patienceMs'>, what: () => string): Disposable {
  const started = performance.now();
  const say = (): void => {
    stderr.write(`Waiting for ${plain(what())} (${Math.round((performance.now() - started) / 1000)} s)\n`);
    timer = setTimeout(say, 5 * patienceMs).unref();
  };
  let timer = setTimeout(say, patienceMs).unref();
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

/** `causeway network create`: as far as the words name commands. */
function commandPath(program: Command, argv: readonly string[]): string {
  let command = program;
  for (const word of argv) command = command.commands.find((one) => one.name() === word) ?? command;
  const parents: string[] = [];
  for (let one: Command | null = command; one !== null; one = one.parent) parents.unshift(one.name());
  return parents.join(' ');
}

/** A line that commander does not understand, with what it suggests. */
function usageFault(error: CommanderError, path: string): Fault {
  const [first = '', suggestion] = error.message.replace(/^error: /, '').split('\n');
  const hint = /^\(Did you mean (.*)\?\)$/.exec(suggestion ?? '')?.[1];
  return new Fault('invalid', first, { hint: hint === undefined ? `${path} --help` : `Did you mean ${hint}?`, cause: error });
}

/** YAML, too: JSON is a part of it. */
const wantsJson = (argv: readonly string[]): boolean =>
  argv.some(
    (word, index) =>
      /^(--output=|-q*o)(json|yaml)$/.test(word) || (/^(json|yaml)$/.test(word) && /^(-q*o|--output)$/.test(argv[index - 1] ?? '')),
  );

/** What people type from habit, as this program spells it. */
function inFull([first, ...rest]: readonly string[]): string[] {
  if (first === 'help') return [...rest, '--help'];
  if (first === '--version') return ['version', '--client', ...rest];
  return first === undefined ? [] : [first, ...rest];
}

/** Runs a command line (without interpreter and script) and returns the exit status. Never throws. */
export async function main(words: readonly string[], surroundings: Surroundings): Promise<number> {
  const argv = inFull(words);
  try {
    if (argv[0] !== '__complete') return await runCommand(argv, surroundings);
    const { complete } = await import('./complete.ts');
    surroundings.stdout.write(await complete(argv.slice(1), new Session(surroundings)));
    return 0;
  } catch (error) {
    const fault = toFault(error);
    surroundings.stderr.write(wantsJson(argv) ? faultJson(fault) : faultText(fault));
    if (surroundings.debug) surroundings.stderr.write(`${inspect(fault)}\n`);
    return exitOf(fault);
  }
}

async function runCommand(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  let status = 0;
  const act: Act = (command, handler) => {
    command.action(async () => {
      const options: GlobalOptions = command.optsWithGlobals();
      const session = new Session(surroundings, options.context);
      const waiting = patience(surroundings, () => session.waitingFor);
      const answer = await handler(session, command.args, command.opts()).finally(() => waiting[Symbol.dispose]());
      surroundings.stdout.write(await render(answer, options, surroundings));
      status = answer.status ?? 0;
    });
  };
  const name = groupName(argv);
  const program = buildProgram(await loadGroups(name === undefined ? [] : [name]), act);
  quietly(program, surroundings);
  try {
    await program.parseAsync(argv, { from: 'user' });
    return status;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    // A group without a subcommand: its help has been printed on standard error.
    if (error.code === 'commander.help') return faultTable.invalid.exit;
    throw usageFault(error, commandPath(program, argv));
  }
}

/** Help goes where it was asked for; commander's own error lines are dropped, as main prints them in our form. */
function quietly(command: Command, surroundings: Surroundings): void {
  command.configureOutput({
    writeOut: (text) => surroundings.stdout.write(text),
    writeErr: (text) => (/^(error:|\()/.test(text) ? undefined : surroundings.stderr.write(text)),
  });
  for (const child of command.commands) quietly(child, surroundings);
}
