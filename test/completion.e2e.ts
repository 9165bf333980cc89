// Words completed by the shells themselves: each loads its script as a user would and is given the beginning of a line.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { run } from '#lab/command.ts';

const checkout = join(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'causeway-completion-'));
after(() => rmSync(folder, { recursive: true }));
writeFileSync(join(folder, 'wanted.yaml'), '');

/** What a shell prints that runs the script in a folder with one file, `wanted.yaml`. */
async function output(argv: readonly string[], script: string): Promise<string> {
  const env = { PATH: `${checkout}:${process.env['PATH'] ?? ''}`, HOME: folder, TERM: 'xterm' };
  return (await run([...argv, `cd ${folder}; ${script}`], { env })).stdout;
}

/** The beginning of a line, and a word that comes of it. */
const cases: readonly (readonly [line: string, word: string])[] = [
  ['causeway netw', 'network'],
  ['causeway network ', 'create'],
  ['causeway network create x --mod', '--model'],
  ['causeway network create x --model ', 'overlay'],
  ['causeway network ls --output ', 'yaml'],
  ['causeway apply -f want', 'wanted.yaml'],
];

test('bash completes them', async () => {
  for (const [line, word] of cases) {
    const words = line.split(' ');
    const quoted = words.map((one) => `'${one}'`).join(' ');
    const script = `source <(causeway completion bash); COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _causeway; echo "\${COMPREPLY[@]}"; complete -p causeway`;
    const [found = '', how = ''] = (await output(['bash', '-c'], script)).split('\n');
    // Of files bash takes care itself, where there is nothing else.
    if (word.includes('.')) assert.deepEqual([found, / -o default /.test(how)], ['', true]);
    else assert.ok(found.split(/\s+/).includes(word), `${line}: ${found}`);
  }
});

test('fish completes them', async () => {
  for (const [line, word] of cases) {
    const found = await output(['fish', '--no-config', '-c'], `causeway completion fish | source; complete -C '${line}'`);
    assert.ok(
      found.split('\n').some((one) => one.split('\t')[0] === word),
      `${line}: ${found}`,
    );
  }
});

/** A shell on a terminal, to which the line and a tab are typed; what it shows until the word is there, or for half a minute. */
const typed = (line: string, word: string): string => `
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -Uz compinit; compinit -u -D; source <(causeway completion zsh); cd ${folder}; print REA""DY'
shown=
await() {
  local piece until=$(( SECONDS + 30 ))
  while [[ $shown != *$1* ]] && (( SECONDS < until )); do
    if zpty -r -t shell piece; then shown+=$piece; else sleep 0.05; fi
  done
}
await READY
shown=
zpty -w -n shell '${line}'$'\t'
await '${word}'
zpty -d shell
print -r -- $shown`;

test('zsh completes them', async () => {
  for (const [line, word] of cases) {
    const shown = await output(['zsh', '-f', '-c'], typed(line, word));
    assert.ok(shown.includes(word), `${line}: ${JSON.stringify(shown)}`);
  }
});
