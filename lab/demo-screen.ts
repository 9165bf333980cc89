// What the demonstration shows, on standard output: headings, steps with the time they took, checks with their evidence,
// tables. On a terminal the running step counts seconds in place; into a file or pipe only whole lines go, and a step that
// takes long says so now and then. Colour follows NO_COLOR and the terminal (util.styleText).
import { styleText } from 'node:util';
import type { Progress } from './progress.ts';

/** One thing that was looked at: where, by which command, and the decisive part of what it said. */
export interface Evidence {
  readonly where: string;
  readonly command: string;
  readonly seen: string;
}

export interface Screen extends Progress {
  heading(text: string): void;
  line(text?: string): void;
  /** A command to copy: never broken into lines. */
  command(text: string): void;
  /** Shows that something is going on while `work` runs, and leaves no line of it. */
  during<T>(title: string, work: () => Promise<T>): Promise<T>;
  /** Shows that something is true, or not, and what was seen. */
  verdict(result: {
    readonly title: string;
    readonly passed: boolean;
    readonly beganMs: number;
    readonly evidence: readonly Evidence[];
    /** What is wrong, when it has not passed. */
    readonly failure?: string | undefined;
  }): void;
  table(rows: readonly (readonly string[])[]): void;
}

export type Look = Parameters<typeof styleText>[0];

/** Longest line, on a terminal that is not narrower. */
const widest = 108;
const quietMs = 10_000;

export function openScreen(out: NodeJS.WriteStream = process.stdout): Screen {
  // whoever reads may go away (`| head`): the work goes on
  out.on('error', () => {});
  const running: { readonly title: string; readonly beganMs: number }[] = [];
  let ticking: NodeJS.Timeout | undefined;
  const paint = (look: Look, text: string): string => styleText(look, text, { stream: out });
  const tick = process.env['TERM'] === 'linux' ? { passed: 'ok', failed: 'FAILED' } : { passed: '✓', failed: '✗' };
  const mark = (passed: boolean): string => (passed ? paint('green', tick.passed) : paint(['red', 'bold'], tick.failed));
  const width = (): number => Math.min(widest, out.isTTY ? out.columns : widest);
  const clear = (): void => {
    if (out.isTTY) out.write('\r\u001b[K');
  };
  const write = (text: string): void => {
    clear();
    out.write(`${text.trimEnd()}\n`);
  };
  const draw = (): void => {
    const last = running.at(-1);
    if (last === undefined) return;
    if (!out.isTTY) write(`  … ${last.title} (${seconds(last.beganMs)} so far)`);
    else out.write(`\r\u001b[K  … ${last.title.slice(0, out.columns - 16)}  ${seconds(last.beganMs)}`);
  };
  const finished = (title: string, passed: boolean, beganMs: number): void => {
    write(`  ${mark(passed)} ${title}  ${paint('dim', seconds(beganMs))}`);
  };
  const during = async <T>(title: string, work: () => Promise<T>): Promise<T> => {
    const entry = { title, beganMs: performance.now() };
    running.push(entry);
    if (out.isTTY) draw();
    ticking ??= setInterval(draw, out.isTTY ? 200 : quietMs).unref();
    try {
      return await work();
    } finally {
      running.splice(running.indexOf(entry), 1);
      if (running.length === 0) {
        clearInterval(ticking);
        ticking = undefined;
      }
    }
  };
  return {
    heading: (text) => write(`\n${paint('bold', text)}`),
    line: (text = '') => {
      const indent = /^ */.exec(text)?.[0] ?? '';
      for (const part of folded(text.trim(), width() - indent.length)) write(indent + part);
    },
    command: (text) => write(`  ${paint('cyan', text)}`),
    during,
    async step(title, work) {
      const beganMs = performance.now();
      let passed = false;
      try {
        const result = await during(title, work);
        passed = true;
        return result;
      } finally {
        finished(title, passed, beganMs);
      }
    },
    verdict({ title, passed, beganMs, evidence, failure }) {
      finished(title, passed, beganMs);
      for (const { command, seen } of shownEvidence(evidence, width() - 6)) write(`      ${paint('dim', command)}  ${seen}`);
      if (failure !== undefined) write(`      ${paint('red', failure)}`);
    },
    table: (rows) => {
      for (const text of columns(rows)) write(`  ${text}`);
    },
  };
}

/** A command and what it said: side by side in columns, or one below the other where that would be too wide. */
export function shownEvidence(evidence: readonly Evidence[], widthLeft: number): { readonly command: string; readonly seen: string }[] {
  const commands = evidence.map(({ where, command }) => `${where}${command === '' ? '' : ` $ ${command}`}`);
  const width = Math.max(0, ...commands.map((text) => text.length));
  const isNarrow = evidence.every(({ seen }) => width + seen.length + 2 <= widthLeft);
  return evidence.flatMap(({ seen }, index) => {
    const command = commands[index] ?? '';
    if (isNarrow) return [{ command: command.padEnd(width), seen }];
    return [{ command, seen: '' }, ...folded(seen, widthLeft - 4).map((line) => ({ command: '  ', seen: line }))];
  });
}

/** Breaks at spaces into lines of at most `width` where the words allow it. */
export function folded(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

export function columns(rows: readonly (readonly string[])[]): string[] {
  const count = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

export const seconds = (sinceMs: number): string => `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;
