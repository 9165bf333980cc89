import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';
import { certificate, cluster, template } from './magnum-schemas.ts';

/** Answers of a real Magnum (bench/record-magnum.ts). */
const recorded = v.parse(
  v.record(v.string(), v.record(v.string(), v.unknown())),
  JSON.parse(readFileSync(new URL('../../bench/recorded/magnum.json', import.meta.url), 'utf8')),
);
const schemas: Readonly<Record<string, Schema<unknown>>> = {
  'listed template': template,
  template,
  'listed cluster': cluster,
  cluster,
  certificate,
};

for (const [kind, schema] of Object.entries(schemas)) {
  test(`what is read of a ${kind} a real Magnum sends`, () => {
    assert.deepEqual(v.safeParse(schema, recorded[kind]).issues, undefined);
  });
}

test('a healthy cluster says where its API is, which machines it has and that they are ready', () => {
  const [made, of] = [v.parse(cluster, recorded['cluster']), v.parse(template, recorded['template'])];
  assert.deepEqual([made.template, made.health, made.healthReason['api']], [of.id, 'HEALTHY', 'ok']);
  assert.match(made.api ?? '', /^https:\/\//);
  assert.deepEqual([made.masterAddresses.length, made.workerAddresses.length], [made.masters, made.workers]);
  assert.ok(Object.entries(made.healthReason).every(([what, is]) => what === 'api' || (what.endsWith('.Ready') && is === 'True')));
});
