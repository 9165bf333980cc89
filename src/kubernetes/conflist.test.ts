import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { installConflist } from './conflist.ts';

const folder = mkdtempSync(join(tmpdir(), 'causeway-conflist-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('the configuration is written once, in a folder that it makes, and nothing is left beside it', () => {
  const path = join(folder, 'net.d', '10-causeway.conflist');
  installConflist(path);
  const { mtimeMs, ino } = statSync(path);
  installConflist(path);
  assert.deepEqual(
    [statSync(path).mtimeMs, statSync(path).ino, readdirSync(join(folder, 'net.d'))],
    [mtimeMs, ino, ['10-causeway.conflist']],
  );
  const { name, plugins, cniVersion }: Record<string, unknown> = JSON.parse(readFileSync(path, 'utf8'));
  const capabilities = { portMappings: true, bandwidth: true, 'io.kubernetes.cri.pod-annotations': true };
  assert.deepEqual([name, cniVersion, plugins], ['pods', '1.0.0', [{ type: 'causeway', capabilities }]]);
});
