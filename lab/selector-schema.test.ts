// What the definitions of Calico's resources let the API server take as a selector: everything that can be read, so that no policy of
// Calico's users is refused, and of what cannot all but brackets that are no pairs, which no pattern can count.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { parse } from 'yaml';
import { renderChart } from '#cli/helm-chart.ts';
import { parseSelector } from '#model/selector.ts';
import { placeholder } from './helm-chart.ts';

/** Patterns of all fields that are selectors, by their paths. */
function patternsIn(value: unknown, path: string): [string, unknown][] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]: [string, unknown]): [string, unknown][] => {
    const isText = typeof inner === 'object' && inner !== null && 'type' in inner && inner.type === 'string';
    const at = `${path}.${key}`;
    return isText && /selector$/i.test(key) ? [[at, 'pattern' in inner ? inner.pattern : undefined]] : patternsIn(inner, at);
  });
}
const found = renderChart({ apiServer: placeholder, model: 'calico' })
  .filter((document) => /^kind: CustomResourceDefinition$/m.test(document))
  .flatMap((document) => patternsIn(parse(document), /(?<=^ {2}name: ).*/m.exec(document)?.[0] ?? ''));
const pattern = new RegExp(String(found[0]?.[1]));

test('every selector of every definition has the same pattern', () => {
  assert.ok(found.length > 30);
  for (const [path, text] of found) assert.equal(text, pattern.source, path);
});

function isRead(text: string): boolean {
  try {
    parseSelector(text);
    return true;
  } catch {
    return false; // which is what is asked
  }
}

const word = fc.constantFrom('a', 'in', 'not', 'x.y/z', 'all', 'has', 'contains');
const string = fc.constantFrom("''", '"it\'s"', "'a b'", '"}"');
const gap = fc.constantFrom('', ' ', '\t');
const condition = fc.oneof(
  fc.constantFrom('all()', 'all( )', 'global()'),
  fc.tuple(gap, word).map(([space, label]) => `has(${space}${label}${space})`),
  fc
    .tuple(word, fc.constantFrom('==', '!=', ' contains', ' starts with', ' endswith'), gap, string)
    .map(([label, how, space, value]) => `${label}${how}${space}${value}`),
  fc
    .tuple(word, fc.constantFrom('in', 'not in', 'notin'), gap, fc.array(string, { maxLength: 3 }))
    .map(([label, how, space, values]) => `${label} ${how}${space}{${space}${values.join(`${space},${space}`)}${space}}`),
);
const { expression } = fc.letrec<{ expression: string }>((tie) => ({
  expression: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    condition,
    fc.tuple(gap, tie('expression')).map(([space, inner]) => `!${space}${inner}`),
    fc.tuple(gap, tie('expression')).map(([space, inner]) => `(${space}${inner}${space})`),
    fc
      .tuple(tie('expression'), gap, fc.constantFrom('&&', '||'), tie('expression'))
      .map(([one, space, and, other]) => `${one}${space}${and}${space}${other}`),
  ),
}));

test('what can be read may be said', () => {
  fc.assert(
    fc.property(expression, (text) => {
      assert.ok(isRead(text), text);
      assert.match(text, pattern);
    }),
    { numRuns: 1000 },
  );
  for (const text of ['', ' ', '\n', "  app == 'web'\t"]) assert.match(text, pattern);
});

test('what cannot be read is refused with its field, but for brackets that are no pairs', () => {
  for (const text of ['app', 'app = "web"', "app == 'web", 'app == web', "== 'web'", "app == 'web' &&", "app in 'web'", "app in {'web',}"])
    assert.doesNotMatch(text, pattern);
  for (const text of [
    "appin {'web'}",
    'ain{}',
    "acontains 'x'",
    'has()',
    'has(a b)',
    'all',
    '!',
    "a$b == 'x'",
    "app == 'web' has(x)",
    "app == 'web'\n",
    'app in [web]',
    '()',
  ])
    assert.doesNotMatch(text, pattern);
  const piece = fc.constantFrom('a', ' ', "'x'", '==', '!', '(', ')', '{', '}', ',', '&&', 'in', 'not', 'has(', 'all()', '"');
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const text = pieces.join('');
      const opened = text.split('').reduce((depth, sign) => (depth < 0 ? depth : depth + (sign === '(' ? 1 : sign === ')' ? -1 : 0)), 0);
      if (opened === 0) assert.equal(pattern.test(text), isRead(text), text);
    }),
    { numRuns: 5000 },
  );
});
