import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { openapi } from './openapi.ts';
import { routes } from './routes.ts';

const answer = v.object({ headers: v.optional(v.record(v.string(), v.unknown())) });
const operation = v.object({
  operationId: v.string(),
  parameters: v.array(v.object({ name: v.string(), in: v.string() })),
  responses: v.record(v.string(), answer),
});
const document = v.object({
  openapi: v.literal('3.1.0'),
  paths: v.record(v.string(), v.record(v.string(), operation)),
  components: v.object({ schemas: v.record(v.string(), v.object({ properties: v.optional(v.record(v.string(), v.unknown())) })) }),
});

test('the document has every operation once, its parameters, and every reference leads somewhere', () => {
  const made: unknown = JSON.parse(JSON.stringify(openapi('0.0.0')));
  const { paths, components } = v.parse(document, made);
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => ({ path, method, ...one })),
  );
  assert.deepEqual(operations.map(({ operationId }) => operationId).toSorted(), Object.keys(routes).toSorted());
  for (const { path, parameters } of operations) {
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    assert.deepEqual(
      parameters.filter((one) => one.in === 'path').map(({ name }) => name),
      inPath,
    );
  }
  for (const [, name = ''] of JSON.stringify(made).matchAll(/"#\/components\/schemas\/(\w+)"/g))
    assert.ok(name in components.schemas, name);
  assert.deepEqual(Object.keys(components.schemas['networks']?.properties ?? {}).slice(0, 3), ['id', 'name', 'revision']);
  // Whoever changes a record must know where its revision is found.
  const matching = operations.filter(({ parameters }) => parameters.some((one) => one.name === 'If-Match'));
  for (const { path, method } of matching.filter((one) => one.method === 'put')) {
    assert.ok('ETag' in (paths[path]?.[method]?.responses['200']?.headers ?? {}), path);
  }
});
