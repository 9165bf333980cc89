// How commands are declared: a Group per first word, loaded only when that word is used. A command's handler returns an
// Answer; main.ts prints it.
import { type Argument, type Command, InvalidArgumentError, type Option } from 'commander';
import type { ResourceKind } from '#model/resources.ts';
import { Fault, isFault } from '#model/fault.ts';
import type { Answer, Session } from './session.ts';
import { type Column, type Look, table } from './table.ts';

export type Handler<Options> = (session: Session, args: readonly string[], options: Options) => Promise<Answer>;
/** Makes `handler` what the command does. */
export type Act = <Options extends object>(command: Command, handler: Handler<Options>) => void;

export interface Group {
  readonly build: (command: Command, act: Act) => void;
}

/** Appends examples to a command's help. Every command has some. */
export function examples(command: Command, ...lines: readonly string[]): Command {
  return command.addHelpText('after', `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`);
}

/** What completion offers for an argument or an option's value: names of a kind, or other words. */
export type Candidates = ResourceKind | 'contexts' | 'tokens' | 'certificates' | 'templates' | 'clusters';
const candidates = new WeakMap<Argument | Option, Candidates>();

/** Says that the first argument of `command`, or its option of that long name, takes names of that sort. */
export function completes(command: Command, what: Candidates, option?: string): Command {
  const place = option === undefined ? command.registeredArguments[0] : command.options.find((one) => one.long === option);
  if (place === undefined) throw new TypeError(`${command.name()} has no ${option ?? 'argument'}`);
  candidates.set(place, what);
  return command;
}
export const candidatesOf = (place: Argument | Option): Candidates | undefined => candidates.get(place);

/** Rows as a table, their names for --quiet, and the rows themselves for programs. */
export function listing<T extends { readonly name: string }>(rows: readonly T[], columns: readonly Column<T>[], empty: string): Answer {
  return { data: rows, names: rows.map(({ name }) => name), text: (look: Look) => table(look, rows, columns, empty) };
}

/** One sentence for people, the record for programs. */
export const done = (data: unknown, name: string, sentence: string): Answer => ({ data, names: [name], text: () => `${sentence}\n` });

export const nothingDone: Answer = { data: null, names: [], text: () => 'Nothing was changed.\n', status: 130 };

/** Does `work` to one after the other. Its Fault then says, too, what was done before. */
export async function each<T>(items: readonly T[], nameOf: (item: T) => string, work: (item: T) => Promise<void>): Promise<void> {
  for (const [index, item] of items.entries()) {
    try {
      await work(item);
    } catch (error) {
      if (!isFault(error) || index === 0) throw error;
      const { code, message, field, hint } = error;
      const before = items.slice(0, index).map(nameOf).join(', ');
      throw new Fault(code, `${nameOf(item)}: ${message} (done before: ${before})`, { field, hint, cause: error });
    }
  }
}

/** Collects a repeatable option. */
export const collect = (value: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), value];

/** A whole number within bounds, for options. */
export function integer(least: number, most: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^[0-9]+$/.test(value) || number < least || number > most) {
      throw new InvalidArgumentError(`Not a whole number from ${least} to ${most}.`);
    }
    return number;
  };
}

/** `30s`, `15m`, `2h`, `7d` in seconds. Fault `invalid` naming `field`. */
export function seconds(text: string, field: string): number {
  const match = /^([1-9][0-9]{0,8})(s|m|h|d)$/.exec(text);
  if (match === null) throw new Fault('invalid', `Not a duration: ${text}`, { field, hint: 'Write 30s, 15m, 2h or 7d.' });
  const unit = { s: 1, m: 60, h: 3600, d: 86_400 }[match[2] ?? 's'] ?? 1;
  return Number(match[1]) * unit;
}

/** `key=value` pairs, repeated. Fault `invalid` naming `field`. */
export function pairs(given: readonly string[] | undefined, field: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    (given ?? []).map((text) => {
      const at = text.indexOf('=');
      if (at < 1) throw new Fault('invalid', `Not of the form name=value: ${text}`, { field });
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}
