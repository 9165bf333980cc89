import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runtimePackages } from './root-file-system.ts';

test('runtime packages are found as Node looks for them; peers and what is not installed are left out', () => {
  const files: Readonly<Record<string, object>> = {
    '/x/package.json': { dependencies: { a: '1', '@s/b': '1' }, devDependencies: { dev: '1' } },
    '/x/node_modules/a/package.json': { dependencies: { c: '1' }, optionalDependencies: { 'other-platform': '1' } },
    '/x/node_modules/a/node_modules/c/package.json': { dependencies: { '@s/b': '1', d: '1', e: '1' } },
    '/x/node_modules/c/package.json': { dependencies: { dev: '1' } },
    '/x/node_modules/@s/b/package.json': { peerDependencies: { dev: '1' }, dependencies: { a: '1' } },
    '/x/node_modules/d/package.json': {},
    '/x/node_modules/a/node_modules/e/package.json': {},
    '/x/node_modules/e/package.json': {},
    '/x/node_modules/dev/package.json': {},
  };
  assert.deepEqual(
    runtimePackages('/x', (path) => (files[path] === undefined ? undefined : JSON.stringify(files[path]))),
    ['node_modules/@s/b', 'node_modules/a', 'node_modules/a/node_modules/c', 'node_modules/a/node_modules/e', 'node_modules/d'],
  );
});
