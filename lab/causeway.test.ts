import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { programOf } from './causeway.ts';

const textOf = (script: string): string => readFileSync(join(import.meta.dirname, '..', script), 'utf8');

test('Node has the same flags for an agent in a checkout, in an image and in a lab', () => {
  const flags = programOf('agent').slice(1, -1);
  assert.deepEqual(
    flags,
    programOf('agent').filter((word) => word.startsWith('--')),
  );
  const [first, ...own] = flags;
  assert.ok(textOf('packaging/image/causeway').includes(`exec node ${flags.join(' ')} $home/src/bin/agent.ts "$@"`));
  assert.ok(textOf('causeway').includes(`if [ "$command" = agent ]; then flags='${own.join(' ')}'; fi`));
  assert.ok(textOf('causeway').includes(`exec "$node" ${first} $flags "$root/$entry" "$@"`));
});
