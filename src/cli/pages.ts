// The pages of docs/ that are made from the program itself: docs/cli.md from the commands, docs/errors.md from the table of
// faults. Tests compare; `node --test --test-update-snapshots src/cli/*.test.ts` writes them again.
import type { Command } from 'commander';
import { faultCodes } from '#model/fault.ts';
import { cancelledExit, degradedExit, faultTable } from './faults.ts';
import { groups } from './groups.ts';
import { buildProgram, loadGroups } from './program.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');

/** docs/errors.md */
export function errorsPage(): string {
  const rows = faultCodes.map((code) => {
    const { exit, meaning, advice } = faultTable[code];
    return `| \`${code}\` | ${exit} | ${cell(meaning)} | ${cell(advice)} |`;
  });
  return `# Errors

Made from src/cli/faults.ts; do not edit by hand.

Every error has a code that never changes, a sentence that may, and a line that says what to try:

    Error (overlap): Subnet 10.0.0.0/16 overlaps the underlay of host node-a
    Field: pools[0].cidr
    Try: Choose another range, or leave the range out and let the controller propose one.

With \`--output json\` the same is one JSON document on standard error: \`{"error": {"code", "message", "field", "hint", "exit"}}\`.
The REST API answers \`application/problem+json\` with the same \`code\`. Programs should decide by the code or by the exit status,
never by the sentence. \`CAUSEWAY_DEBUG=1\` prints where in the program an error arose.

| code | exit status | what it means | what to do |
| --- | --- | --- | --- |
${rows.join('\n')}

Other exit statuses: 0, it worked; ${degradedExit}, it worked, and something is not as it should be (\`causeway status\`, \`causeway cloud\`) or could
not be seen (\`causeway exposure ls --cloud\`); ${cancelledExit}, a question was answered with no, or the command was interrupted.
`;
}

function commandText(command: Command, path: string, depth: number): string {
  const children = command.commands.map((child) => commandText(child, `${path} ${child.name()}`, depth + 1));
  if (command.commands.length > 0) return `${'#'.repeat(depth)} ${path}\n\n${command.description()}.\n\n${children.join('')}`;
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part), getOutHelpWidth: () => 100 }).configureHelp({ showGlobalOptions: false });
  command.outputHelp();
  const sentence = command.description().endsWith('.') ? command.description() : `${command.description()}.`;
  return `${'#'.repeat(depth)} ${path}\n\n${sentence}\n\n\`\`\`text\n${text.replace(`${command.description()}\n\n`, '').trimEnd()}\n\`\`\`\n\n`;
}

/** docs/cli.md */
export async function cliPage(): Promise<string> {
  const loaded = await loadGroups(groups.map(({ name }) => name));
  const program = buildProgram(loaded, () => undefined);
  const sections = [...new Set(groups.map(({ section }) => section))].map((section) => {
    const within = program.commands.filter((command) => command.helpGroup() === section);
    return `## ${section.replace(/:$/, '')}\n\n${within.map((command) => commandText(command, `causeway ${command.name()}`, 3)).join('')}`;
  });
  return `# Commands

Made from the commands themselves; do not edit by hand.

These options stand anywhere on the line:

| option | what it does |
| --- | --- |
${program.options.map(({ flags, description, argChoices }) => `| \`${flags}\` | ${cell([description, argChoices?.join(', ')].filter((part) => part !== undefined).join(': '))} |`).join('\n')}
| \`-h, --help\` | show help, with examples, for any command |

\`--output json\` and \`yaml\` print the whole records, also where the table is short; errors are then JSON too. \`--quiet\` prints
one name or id a line, and commands that take several names read them from standard input when \`-\` is given, so that commands
can be joined with a pipe. Colour is left out with \`NO_COLOR\` or when the output is not a terminal. What removes something asks
first on a terminal, unless \`--yes\` is given; elsewhere it does not ask.

| variable | what it does |
| --- | --- |
| \`CAUSEWAY_CONTEXT\` | name of the context to use, instead of the file's \`current\` |
| \`CAUSEWAY_URL\`, \`CAUSEWAY_TOKEN\`, \`CAUSEWAY_CA\` | replace these fields of the context; the address alone (several controllers: separated by commas) needs no context |
| \`CAUSEWAY_CONTEXTS\` | file to use instead of the two below |
| \`CAUSEWAY_DEBUG\` | print where in the program an error arose |

Contexts are read from \`$XDG_CONFIG_HOME/causeway/contexts.yaml\` (\`~/.config/…\`), then \`/etc/causeway/contexts.yaml\`, which the
controller writes when it first starts. \`--context\` wins over the environment, the environment over the files. Where there is none,
root on a host that has joined speaks with the host's own certificate.

Exit statuses are listed in [errors.md](errors.md).

${sections.join('').trimEnd()}
`;
}
