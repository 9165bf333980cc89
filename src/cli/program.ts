// The tree of commands for commander: the root with its options and a stub per group; only groups that are asked for are
// complete, so that no command pays for loading the others.
import { Command, Option } from 'commander';
import type { Act, Group } from './command.ts';
import { groups, otherPrograms } from './groups.ts';

const formats = ['table', 'json', 'yaml'] as const;
export type Format = (typeof formats)[number];
export interface GlobalOptions {
  readonly output: Format;
  readonly context?: string;
  readonly quiet?: true;
}

const rootExamples = `
Examples:
  causeway status
  causeway network create web --encrypted
  causeway explain network web

Every command has its own --help.`;

/** The root command with a stub per group; groups in `loaded` are complete. */
export function buildProgram(loaded: ReadonlyMap<string, Group>, act: Act): Command {
  const program = new Command('causeway')
    .description('Container networks that span Docker hosts.')
    .usage('[options] <command>')
    .addOption(new Option('-o, --output <format>', 'how to print').choices([...formats]).default('table'))
    .option('--context <name>', 'which controller to use (see "causeway context ls")')
    .option('-q, --quiet', 'print names only')
    .helpOption('-h, --help', 'show help')
    .helpCommand(false)
    .configureHelp({ showGlobalOptions: true })
    .exitOverride();
  for (const { name, summary, section } of groups) {
    const command = program.command(name).description(summary).helpCommand(false).helpGroup(section);
    loaded.get(name)?.build(command, act);
  }
  const others = otherPrograms.map(({ name, summary }) => `  ${name.padEnd(21)}  ${summary}`).join('\n');
  program.addHelpText('after', `\nOther programs, each with its own --help:\n${others}\n${rootExamples}`);
  return program;
}

/** The first word that is not an option: the group's name. Values of the root's options are skipped. */
export function groupName(argv: readonly string[]): string | undefined {
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? '';
    if (/^-q*o$/.test(word) || word === '--output' || word === '--context') index++;
    else if (!word.startsWith('-')) return word;
  }
  return undefined;
}

/** Loads the groups that are named; unknown names load nothing. */
export async function loadGroups(names: readonly string[]): Promise<ReadonlyMap<string, Group>> {
  const wanted = groups.filter(({ name }) => names.includes(name));
  return new Map(await Promise.all(wanted.map(async ({ name, load }) => [name, await load()] as const)));
}
