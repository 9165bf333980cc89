// The OpenAPI 3.1 document, from the route table and its schemas. Kinds of resources become components; the rest stands where
// it is used.
import { toJsonSchema } from '@valibot/to-json-schema';
import type { Schema } from './parse.ts';
import { problem } from './answers.ts';
import { apiVersion } from './protocol.ts';
import { noBody, type Route, routes } from './routes.ts';
import { schemas } from './schemas.ts';

type Json = Readonly<Record<string, unknown>>;

/** Not every language's expressions know Unicode's classes. */
const control = String.raw`\u0000-\u001f\u007f-\u009f`;

function schemaOf(schema: Schema<unknown>): Json {
  // What a pipeline transforms is described as it is written down: addresses are strings.
  const { $schema: _, ...json } = toJsonSchema(schema, {
    typeMode: 'input',
    errorMode: 'ignore',
    target: 'draft-2020-12',
    overrideAction: ({ jsonSchema }) =>
      jsonSchema.pattern === undefined ? undefined : { ...jsonSchema, pattern: jsonSchema.pattern.replaceAll(String.raw`\p{Cc}`, control) },
  });
  return json;
}

const reference = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });
const content = (json: Json, type = 'application/json'): Json => ({ [type]: { schema: json } });
const components = Object.entries(schemas);

function described(schema: Schema<unknown>): Json {
  const known = components.find(([, component]) => component === schema);
  return known === undefined ? schemaOf(schema) : reference(known[0]);
}

function parametersOf(route: Route<unknown, unknown>): Json[] {
  const inPath = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const { properties, required } = schemaOf(route.query);
  const needed = Array.isArray(required) ? required : [];
  const inQuery = Object.entries(typeof properties === 'object' && properties !== null ? properties : {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: needed.includes(name),
    schema,
  }));
  const match =
    route.ifMatch === undefined
      ? []
      : [{ name: 'If-Match', in: 'header', required: route.ifMatch === 'required', schema: { type: 'string' } }];
  return [...inPath, ...inQuery, ...match];
}

const line = (type: string, properties: Json): Json => ({
  type: 'object',
  properties: { type: { const: type }, ...properties, revision: { type: 'integer' } },
  required: ['type', ...Object.keys(properties), 'revision'],
});

const epoch: Json = { type: 'string' };

/** One line of a watch, as answers.ts reads it. Readers pass over types and kinds that they do not know. */
const watchLine: Json = {
  description:
    'Puts and deletes may come twice, never out of order. `bookmark`: its revision may be used as `since`, with its epoch; after a restore of the store the watch begins anew.',
  oneOf: [
    ...components.map(([kind]) => line('put', { kind: { const: kind }, item: reference(kind) })),
    line('delete', { kind: { enum: components.map(([kind]) => kind) }, id: { type: 'string' } }),
    line('synced', {
      epoch,
      whole: { type: 'boolean', description: 'What came before is all there is; anything else is to be forgotten.' },
    }),
    line('bookmark', { epoch }),
  ],
};

const etag: Json = { ETag: { description: "The record's revision, for If-Match", schema: { type: 'string' } } };

function operationOf(name: string, route: Route<unknown, unknown>): Json {
  const isRecord = components.some(([, component]) => component === route.answer);
  const answer: Json = {
    description: route.summary,
    ...(isRecord ? { headers: etag } : {}),
    ...(route.stream === true ? { content: content(reference('watchLine'), 'application/x-ndjson') } : {}),
    ...(route.answer === undefined ? {} : { content: content(described(route.answer)) }),
  };
  return {
    operationId: name,
    summary: route.summary,
    description: `Allowed for: ${route.access.join(', ')}`,
    security: route.access.includes('anyone')
      ? []
      : [
          ...(route.access.some((one) => one !== 'host') ? [{ token: [] }] : []),
          ...(route.access.includes('host') ? [{ certificate: [] }] : []),
        ],
    parameters: parametersOf(route),
    ...(route.body === noBody ? {} : { requestBody: { required: true, content: content(described(route.body)) } }),
    responses: {
      [route.status]: answer,
      default: { description: 'A problem (RFC 9457)', content: content(reference('problem'), 'application/problem+json') },
    },
  };
}

/** `version` is the program's. */
export function openapi(version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const [name, route] of Object.entries(routes)) {
    (paths[route.path] ??= {})[route.method.toLowerCase()] = operationOf(name, route);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Causeway controller', version, description: `Version ${apiVersion} of the protocol` },
    paths,
    components: {
      schemas: {
        ...Object.fromEntries(components.map(([name, schema]) => [name, schemaOf(schema)])),
        problem: schemaOf(problem),
        watchLine,
      },
      securitySchemes: { token: { type: 'http', scheme: 'bearer' }, certificate: { type: 'mutualTLS' } },
    },
  };
}
