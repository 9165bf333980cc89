// What real services have answered, for tests of what is read of it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';

type Answer = Readonly<Record<string, unknown>>;
const answers = v.record(v.string(), v.record(v.string(), v.unknown()));

/** Tests that each schema reads the answer of its name, and returns the answers. Of bench/record-octavia.ts or bench/record-magnum.ts. */
export function testRecorded(
  service: 'Octavia' | 'Magnum',
  schemas: Readonly<Record<string, Schema<unknown>>>,
): Readonly<Record<string, Answer>> {
  const file = new URL(`../../bench/recorded/${service.toLowerCase()}.json`, import.meta.url);
  const recorded = v.parse(answers, JSON.parse(readFileSync(file, 'utf8')));
  for (const [kind, schema] of Object.entries(schemas)) {
    test(`what is read of a ${kind} a real ${service} sends`, () => {
      assert.deepEqual(v.safeParse(schema, recorded[kind]).issues, undefined);
    });
  }
  return recorded;
}
