// Tables for terminals: left-aligned columns two spaces apart, no frame, so that they read well and survive cut and awk.
import { styleText } from 'node:util';

export type Style = 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'cyan';

/** What the printer knows of the place where the text will be read. */
export interface Look {
  readonly color: boolean;
  readonly now: Date;
}

export interface Column<T> {
  readonly title: string;
  readonly value: (row: T) => string;
  readonly style?: (row: T) => Style | undefined;
}

export const paint = (look: Look, style: Style, text: string): string =>
  look.color ? styleText(style, text, { validateStream: false }) : text;

// oxlint-disable-next-line no-control-regex -- names from elsewhere must not steer the terminal
export const plain = (text: string): string => text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, '?');

/** One line per row under a line of titles; `-` stands for an empty cell. No rows: `empty` on a line of its own. */
export function table<T>(look: Look, rows: readonly T[], columns: readonly Column<T>[], empty = 'Nothing here.'): string {
  if (rows.length === 0) return `${empty}\n`;
  const cells = rows.map((row) => columns.map((column) => plain(column.value(row)) || '-'));
  const widths = columns.map((column, index) => Math.max(column.title.length, ...cells.map((line) => line[index]?.length ?? 0)));
  const pad = (text: string, index: number): string => (index === columns.length - 1 ? text : text.padEnd((widths[index] ?? 0) + 2));
  const head = columns.map((column, index) => paint(look, 'bold', pad(column.title, index))).join('');
  const body = rows.map((row, line) =>
    columns
      .map((column, index) => {
        const text = pad(cells[line]?.[index] ?? '', index);
        const style = column.style?.(row);
        return style === undefined ? text : paint(look, style, text);
      })
      .join(''),
  );
  return [head, ...body].map((line) => `${line}\n`).join('');
}

/** `Title:  value` lines, aligned; entries without a value are left out. */
export function facts(look: Look, entries: readonly (readonly [string, string | undefined])[]): string {
  const shown = entries.filter((entry): entry is readonly [string, string] => entry[1] !== undefined && entry[1] !== '');
  const width = Math.max(0, ...shown.map(([title]) => title.length)) + 3;
  return shown.map(([title, value]) => `${paint(look, 'bold', `${title}:`.padEnd(width))}${plain(value)}\n`).join('');
}

/** Time since an RFC 3339 moment in the largest unit that fits: `5s`, `3m`, `2h`, `4d`; `unknown` when it is no moment. */
export function age(look: Look, since: string): string {
  const seconds = Math.round((look.now.getTime() - Date.parse(since)) / 1000);
  if (Number.isNaN(seconds)) return 'unknown';
  if (seconds < 0) return '0s';
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
