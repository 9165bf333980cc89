import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isFault } from './fault.ts';
import { type Labels, namespaceLabel, parseSelector, type Selector, selects, selectorText } from './selector.ts';

const web: Labels = { app: 'web', 'example.org/tier': 'front', empty: '' };

const table: readonly (readonly [text: string, expected: boolean, labels?: Labels])[] = [
  ['', true],
  [' \t ', true],
  ['all()', true],
  ['all( )', true],
  ['!all()', false],
  ['global()', true],
  ['global()', false, { [namespaceLabel]: 'default' }],
  ['has(app)', true],
  ['has( app )', true],
  ['has(example.org/tier)', true],
  ['has(empty)', true],
  ['has(other)', false],
  ['has(constructor)', false],
  ["constructor != 'x'", true],
  ["app == 'web'", true],
  ['app == "web"', true],
  ["app=='web'", true],
  ["app == 'Web'", false],
  ["other == ''", false],
  ["empty == ''", true],
  ["app != 'web'", false],
  ["app != 'db'", true],
  ["other != 'db'", true],
  ["app contains 'e'", true],
  ["app contains ''", true],
  ["other contains ''", false],
  ["app starts with 'we'", true],
  ["app startswith 'we'", true],
  ["app starts with 'eb'", false],
  ["app ends with 'eb'", true],
  ["app ends with 'we'", false],
  ["app in {'db', 'web'}", true],
  ['app in {}', false],
  ["app in {'db'}", false],
  ["other in {'db'}", false],
  ["app not in {'db'}", true],
  ["app notin {'web'}", false],
  ["other not in {'db'}", true],
  ['app not in {}', true],
  ["!app == 'web'", false],
  ["!!app == 'web'", true],
  ['!has(other)', true],
  ["app == 'db' || has(empty)", true],
  ["app == 'db' && has(empty) || has(app)", true],
  ["app == 'db' && (has(empty) || has(app))", false],
  ["((app == 'web'))", true],
  ["in in {'x'}", true, { in: 'x' }],
  ["all == 'x'", true, { all: 'x' }],
  ["has == 'x'", true, { has: 'x' }],
  ["not == 'x'", true, { not: 'x' }],
];

for (const [text, expected, labels = web] of table) {
  test(`${JSON.stringify(text)} is ${expected} of ${JSON.stringify(labels)}`, () => {
    assert.equal(selects(parseSelector(text), labels), expected);
  });
}

const refused: readonly string[] = [
  'app',
  'app ==',
  'app == web',
  "app == 'web",
  "app = 'web'",
  "== 'web'",
  "app == 'web' &&",
  "&& app == 'web'",
  "app == 'web' has(x)",
  "(app == 'web'",
  "app == 'web')",
  "app in 'web'",
  "app in {'web'",
  "app in {'web',}",
  'has()',
  'has(a b)',
  'all',
  'all(x)',
  '!',
  "app == 'web'\n",
  "app ==\n'web'",
  "a$b == 'x'",
  `has(${'a'.repeat(513)})`,
  `${'a'.repeat(513)} == 'x'`,
  `${'('.repeat(101)}all()${')'.repeat(101)}`,
  `${'!'.repeat(101)}all()`,
  `has(${' '.repeat(20_000)}a)`,
];

for (const text of refused) {
  test(`${JSON.stringify(text.slice(0, 40))} is refused, with the field named`, () => {
    assert.throws(
      () => parseSelector(text, 'spec.selector'),
      (error) => isFault(error, 'invalid') && error.field === 'spec.selector' && error.message.length < 250,
    );
  });
}

test('sets of values are sorted and without repetition, so that equal selectors are equal', () => {
  assert.deepEqual(parseSelector("a in {'y', 'x', \"y\"}"), { type: 'in', label: 'a', values: ['x', 'y'] });
});

const name = fc.constantFrom('a', 'b', 'in', 'not', 'x.y/z');
const value = fc.constantFrom('', 'u', 'uv', 'vu', "it's");
const { selector } = fc.letrec<{ selector: Selector }>((tie) => ({
  selector: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.record({ type: fc.constantFrom('all', 'global') }),
    fc.record({ type: fc.constant('has' as const), label: name }),
    fc.record({
      type: fc.constant('compare' as const),
      how: fc.constantFrom('equals', 'contains', 'starts-with', 'ends-with'),
      label: name,
      value,
    }),
    fc.record({ type: fc.constant('in' as const), label: name, values: fc.uniqueArray(value).map((list) => list.toSorted()) }),
    fc.record({ type: fc.constant('not' as const), of: tie('selector') }),
    fc.record({ type: fc.constantFrom('and', 'or'), of: fc.array(tie('selector'), { minLength: 2, maxLength: 3 }) }),
  ),
}));
const labelled: fc.Arbitrary<Labels> = fc.dictionary(name, value);

test('whatever is written is read as what it was', () => {
  fc.assert(fc.property(selector, (one) => assert.equal(JSON.stringify(parseSelector(selectorText(one))), JSON.stringify(one))));
});

test('negation negates, and De Morgan is right', () => {
  fc.assert(
    fc.property(selector, selector, labelled, (a, b, labels) => {
      const [left, right] = [selectorText(a), selectorText(b)];
      const is = (text: string): boolean => selects(parseSelector(text), labels);
      assert.equal(is(`!${left}`), !is(left));
      assert.equal(is(`${left} && ${right}`), !is(`!${left} || !${right}`));
      assert.equal(is(`${left} && ${right} || ${left}`), is(left));
    }),
  );
});

test('no text fails other than by being refused', () => {
  const piece = fc.constantFrom('a', ' ', "'x'", '==', '!=', '!', '(', ')', '{', '}', ',', '&&', '||', 'in', 'not', 'has(', 'all()', '"');
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      try {
        parseSelector(pieces.join(''));
      } catch (error) {
        assert.ok(isFault(error, 'invalid'));
      }
    }),
  );
});
