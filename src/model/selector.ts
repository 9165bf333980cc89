// Calico's selectors: conditions over labels, as its users write them into pools, peers and policies
// (libcalico-go/lib/selector: tokenizer and parser). Parsed once at the border, then evaluated as often as wanted.
import { assertNever, Fault } from './fault.ts';

export type Labels = Readonly<Record<string, string>>;

export type Comparison = 'equals' | 'contains' | 'starts-with' | 'ends-with';

/** `!=` and `not in` are `not` of their opposites: both are true where the label is absent. */
export type Selector =
  | { readonly type: 'all' }
  | { readonly type: 'global' }
  | { readonly type: 'has'; readonly label: string }
  | { readonly type: 'compare'; readonly how: Comparison; readonly label: string; readonly value: string }
  | { readonly type: 'in'; readonly label: string; readonly values: readonly string[] }
  | { readonly type: 'not'; readonly of: Selector }
  | { readonly type: 'and' | 'or'; readonly of: readonly Selector[] };

/** The label by which Calico tells objects of a namespace from those of the whole cluster. */
export const namespaceLabel = 'projectcalico.org/namespace';

const longest = 16_384;
const deepest = 100;

const label = '[A-Za-z0-9_./-]{1,512}';
const patterns = {
  label: new RegExp(`${label}(?![A-Za-z0-9_./-])`, 'y'),
  has: new RegExp(String.raw`has\([ \t]*(${label})[ \t]*\)`, 'y'),
  all: /all\([ \t]*\)/y,
  global: /global\([ \t]*\)/y,
  space: /[ \t]*/y,
  string: /'([^']*)'|"([^"]*)"/y,
  or: /\|\|/y,
  and: /&&/y,
  not: /!/y,
  open: /\(/y,
  close: /\)/y,
  openSet: /\{/y,
  closeSet: /\}/y,
  comma: /,/y,
  equal: /==/y,
  unequal: /!=/y,
  contains: /contains/y,
  startsWith: /starts[ \t]*with/y,
  endsWith: /ends[ \t]*with/y,
  in: /in(?![A-Za-z0-9_./-])/y,
  notIn: /not[ \t]*in(?![A-Za-z0-9_./-])/y,
} as const;

type Token = keyof typeof patterns;

const comparisons: readonly (readonly [Token, Comparison, boolean])[] = [
  ['equal', 'equals', false],
  ['unequal', 'equals', true],
  ['contains', 'contains', false],
  ['startsWith', 'starts-with', false],
  ['endsWith', 'ends-with', false],
];

class Parser {
  readonly #text: string;
  readonly #field: string | undefined;
  #at = 0;
  #depth = 0;

  constructor(text: string, field: string | undefined) {
    this.#text = text;
    this.#field = field;
  }

  whole(): Selector {
    if (this.#text.length > longest) throw this.#fault(`is longer than ${longest} characters`);
    this.#take('space');
    if (this.#at === this.#text.length) return { type: 'all' };
    const found = this.#or();
    if (this.#at < this.#text.length) throw this.#fault(`has something unexpected at character ${this.#at + 1}`);
    return found;
  }

  #fault(problem: string): Fault {
    const shown = this.#text.length > 80 ? `${this.#text.slice(0, 80)}…` : this.#text;
    return new Fault('invalid', `The selector ${JSON.stringify(shown)} ${problem}`, {
      ...(this.#field === undefined ? {} : { field: this.#field }),
      hint: "Write for instance: app == 'web' && has(tier)",
    });
  }

  /** The token's text if it is next, with the white space behind it taken too. */
  #take(token: Token): RegExpExecArray | undefined {
    const pattern = patterns[token];
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found === null) return undefined;
    this.#at += found[0].length;
    if (token !== 'space') this.#take('space');
    return found;
  }

  #need(token: Token, what: string): RegExpExecArray {
    const found = this.#take(token);
    if (found === undefined) throw this.#fault(`lacks ${what} at character ${this.#at + 1}`);
    return found;
  }

  #chain(type: 'and' | 'or', next: () => Selector): Selector {
    const first = next();
    const of = [first];
    while (this.#take(type) !== undefined) of.push(next());
    return of.length === 1 ? first : { type, of };
  }

  #or(): Selector {
    return this.#chain('or', () => this.#chain('and', () => this.#unary()));
  }

  #unary(): Selector {
    if (this.#depth >= deepest) throw this.#fault(`is nested deeper than ${deepest}`);
    this.#depth += 1;
    try {
      if (this.#take('not') !== undefined) return { type: 'not', of: this.#unary() };
      return this.#primary();
    } finally {
      this.#depth -= 1;
    }
  }

  #primary(): Selector {
    if (this.#take('open') !== undefined) {
      const inner = this.#or();
      this.#need('close', 'a closing parenthesis');
      return inner;
    }
    if (this.#take('all') !== undefined) return { type: 'all' };
    if (this.#take('global') !== undefined) return { type: 'global' };
    const has = this.#take('has');
    if (has !== undefined) return { type: 'has', label: has[1] ?? '' };
    return this.#condition(this.#need('label', 'a label, a function or a parenthesis')[0]);
  }

  #condition(name: string): Selector {
    for (const [token, how, isNegated] of comparisons) {
      if (this.#take(token) === undefined) continue;
      const comparison: Selector = { type: 'compare', how, label: name, value: this.#string() };
      return isNegated ? { type: 'not', of: comparison } : comparison;
    }
    if (this.#take('in') !== undefined) return { type: 'in', label: name, values: this.#set() };
    if (this.#take('notIn') !== undefined) return { type: 'not', of: { type: 'in', label: name, values: this.#set() } };
    throw this.#fault(`lacks an operator at character ${this.#at + 1}`);
  }

  #string(): string {
    const found = this.#need('string', 'a quoted string');
    return found[1] ?? found[2] ?? '';
  }

  #set(): string[] {
    this.#need('openSet', 'an opening brace');
    const values = new Set<string>();
    if (this.#take('closeSet') !== undefined) return [];
    do values.add(this.#string());
    while (this.#take('comma') !== undefined);
    this.#need('closeSet', 'a closing brace');
    return [...values].toSorted();
  }
}

/**
 * The condition that `text` writes; the empty text is `all()`. Sets are sorted and hold each value once. Fault `invalid`
 * with `field`, saying at which character.
 */
export const parseSelector = (text: string, field?: string): Selector => new Parser(text, field).whole();

const compare: Readonly<Record<Comparison, (found: string, value: string) => boolean>> = {
  equals: (found, value) => found === value,
  contains: (found, value) => found.includes(value),
  'starts-with': (found, value) => found.startsWith(value),
  'ends-with': (found, value) => found.endsWith(value),
};

const valueOf = (labels: Labels, name: string): string | undefined => (Object.hasOwn(labels, name) ? labels[name] : undefined);

/** Whether labels meet the condition. `global()` holds for what is in no namespace. */
export function selects(selector: Selector, labels: Labels): boolean {
  switch (selector.type) {
    case 'all':
      return true;
    case 'global':
      return valueOf(labels, namespaceLabel) === undefined;
    case 'has':
      return valueOf(labels, selector.label) !== undefined;
    case 'in': {
      const found = valueOf(labels, selector.label);
      return found !== undefined && selector.values.includes(found);
    }
    case 'not':
      return !selects(selector.of, labels);
    case 'and':
      return selector.of.every((one) => selects(one, labels));
    case 'or':
      return selector.of.some((one) => selects(one, labels));
    case 'compare': {
      const found = valueOf(labels, selector.label);
      return found !== undefined && compare[selector.how](found, selector.value);
    }
    default:
      return assertNever(selector);
  }
}

const quoted = (value: string): string => (value.includes("'") ? `"${value}"` : `'${value}'`);
const operators: Readonly<Record<Comparison, string>> = {
  equals: '==',
  contains: 'contains',
  'starts-with': 'starts with',
  'ends-with': 'ends with',
};

/** A text that parses to the same condition. */
export function selectorText(selector: Selector): string {
  switch (selector.type) {
    case 'all':
    case 'global':
      return `${selector.type}()`;
    case 'has':
      return `has(${selector.label})`;
    case 'in':
      return `${selector.label} in {${selector.values.map(quoted).join(', ')}}`;
    case 'not':
      return `!${selectorText(selector.of)}`;
    case 'and':
    case 'or':
      return `(${selector.of.map(selectorText).join(selector.type === 'and' ? ' && ' : ' || ')})`;
    case 'compare':
      return `${selector.label} ${operators[selector.how]} ${quoted(selector.value)}`;
    default:
      return assertNever(selector);
  }
}
