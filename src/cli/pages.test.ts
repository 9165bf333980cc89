import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Command } from 'commander';
import { groups } from './groups.ts';
import { modelsPage } from './models-page.ts';
import { cliPage } from './pages.ts';
import { buildProgram, loadGroups } from './program.ts';

test('docs/cli.md is what the commands say', async (t) => {
  const file = join(import.meta.dirname, '../../docs/cli.md');
  t.assert.fileSnapshot(await cliPage(), file, { serializers: [String] });
});

test('docs/openstack-models.md is what advice is given by', (t) => {
  const file = join(import.meta.dirname, '../../docs/openstack-models.md');
  t.assert.fileSnapshot(modelsPage(), file, { serializers: [String] });
});

test('every command has a description and examples', async () => {
  const program = buildProgram(await loadGroups(groups.map(({ name }) => name)), () => undefined);
  const leaves = (command: Command): readonly Command[] =>
    command.commands.length === 0 ? [command] : command.commands.flatMap((one) => leaves(one));
  for (const leaf of leaves(program)) {
    let text = '';
    leaf.configureOutput({ writeOut: (part) => (text += part) }).outputHelp();
    assert.match(text, /\nExamples:\n {2}\S/, leaf.name());
    assert.notEqual(leaf.description(), '', leaf.name());
  }
});
