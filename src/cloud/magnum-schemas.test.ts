import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { certificate, cluster, template } from './magnum-schemas.ts';
import { testRecorded } from './recorded.fixture.ts';

const recorded = testRecorded('Magnum', {
  'listed template': template,
  template,
  'listed cluster': cluster,
  cluster,
  certificate,
});

test('a healthy cluster says where its API is, which machines it has and that they are ready', () => {
  const [made, of] = [v.parse(cluster, recorded['cluster']), v.parse(template, recorded['template'])];
  assert.deepEqual([made.template, made.health, made.healthReason['api']], [of.id, 'HEALTHY', 'ok']);
  assert.match(made.api ?? '', /^https:\/\//);
  assert.deepEqual([made.masterAddresses.length, made.workerAddresses.length], [made.masters, made.workers]);
  assert.ok(Object.entries(made.healthReason).every(([what, is]) => what === 'api' || (what.endsWith('.Ready') && is === 'True')));
});
