// Outside input becomes model types here and nowhere else: a schema either gives a value or a Fault `invalid` that names the
// place (`pools[0].cidr`) and says what was expected. Requests are strict; answers of a newer peer may hold more than we know.
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';

export type Schema<T> = v.GenericSchema<unknown, T>;
type Issue = v.BaseIssue<unknown>;

/** One schema per field of `T`, so that a field added to the model cannot be forgotten here. */
export type EntriesOf<T> = { readonly [K in keyof T]-?: v.GenericSchema<unknown, Exclude<T[K], undefined>> };

const shown = (text: string): string => (text.length > 80 ? `${text.slice(0, 80)}…` : text);

/** `pools[0].cidr`; '' for the whole value. Long or odd keys are shown shortened and quoted. */
function fieldOf(issue: Issue): string {
  let field = '';
  for (const { key } of issue.path ?? []) {
    if (typeof key === 'number') field += `[${key}]`;
    else if (/^[\w-]{1,64}$/.test(String(key))) field += field === '' ? String(key) : `.${String(key)}`;
    else field += `[${JSON.stringify(shown(String(key)))}]`;
  }
  return field;
}

const isUnknownField = (issue: Issue): boolean => issue.type === 'strict_object' && issue.expected === 'never';
const isMissingField = (issue: Issue): boolean =>
  issue.kind === 'schema' && issue.received === 'undefined' && issue.path?.at(-1)?.value === undefined;

function toFault(issue: Issue, what: string): Fault {
  const field = fieldOf(issue);
  const place = field === '' ? what : field;
  if (isUnknownField(issue)) return new Fault('invalid', `${what} has no field ${place}`, { field, hint: 'Remove it or correct its name' });
  if (isMissingField(issue)) {
    const expected = issue.expected?.startsWith('"') === true ? '' : `: expected ${issue.expected ?? 'a value'}`;
    return new Fault('invalid', `${what} lacks ${place}${expected}`, { field });
  }
  // Messages of our own checks are sentences already; those of the library's begin with `Invalid`.
  const message = issue.message.startsWith('Invalid ')
    ? `expected ${shown(issue.expected ?? 'something else')}, got ${shown(issue.received)}`
    : issue.message;
  return new Fault('invalid', `${place}: ${message}`, { field });
}

/** Faults: `invalid`, naming the first offending field. `what` names the whole in messages: `Network request`. */
export function parse<T>(schema: Schema<T>, input: unknown, what: string): T {
  const result = v.safeParse(schema, input, { abortPipeEarly: true });
  if (result.success) return result.output;
  // An unknown field is usually a misspelt one; say so rather than that the right one is missing.
  throw toFault(result.issues.find(isUnknownField) ?? result.issues[0], what);
}

/**
 * As parse, for what a peer or the store says: fields that we do not know are dropped from `input` first, because a newer
 * version may have written them. Fault `corrupt` otherwise.
 */
export function parseAnswer<T>(schema: Schema<T>, input: unknown, what: string): T {
  for (let round = 0; ; round++) {
    const result = v.safeParse(schema, input, { abortPipeEarly: true });
    if (result.success) return result.output;
    const unknown = result.issues.filter(isUnknownField);
    if (unknown.length === 0 || round === 8) {
      throw new Fault('corrupt', `Cannot read ${what}`, { cause: toFault(result.issues[0], what) });
    }
    for (const issue of unknown) drop(issue);
  }
}

function drop(issue: Issue): void {
  const last = issue.path?.at(-1);
  if (last !== undefined && typeof last.input === 'object' && last.input !== null) Reflect.deleteProperty(last.input, String(last.key));
}
