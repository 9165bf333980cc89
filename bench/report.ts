// How every benchmark reports: medians, ratios against the peer measured in the same run, and whether the target is met.

export interface Row {
  readonly measure: string;
  readonly ours: string;
  readonly against: string;
  readonly ratio?: number;
  readonly target: string;
  /** Undefined: stated only, there is no target to meet; `unclear`: what was measured is below what can be. */
  readonly met?: boolean | 'unclear';
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** The value below which `share` (0..1) of the values lie. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

const number = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));
const verdicts: ReadonlyMap<Row['met'], string> = new Map<Row['met'], string>([
  [true, 'met'],
  [false, 'missed'],
  ['unclear', 'unclear'],
]);

/**
 * A ratio row that is met when `ours / theirs` is at most (or at least) the target; without one it is only stated. Differences of two
 * readings can come out as nothing or less: these are no measure to divide by.
 */
export function compare(
  measure: string,
  ours: number,
  theirs: number,
  { unit, peer, atMost, atLeast }: { unit: string; peer: string; atMost?: number; atLeast?: number },
): Row {
  const isUnclear = ours < 0 || theirs <= 0;
  const ratio = ours / theirs;
  const sides = { measure, ours: `${number(ours)} ${unit}`, against: `${number(theirs)} ${unit} (${peer})` };
  const row = isUnclear ? sides : { ...sides, ratio };
  if (atMost !== undefined) return { ...row, target: `<= ${atMost}`, met: isUnclear ? 'unclear' : ratio <= atMost };
  if (atLeast !== undefined) return { ...row, target: `>= ${atLeast}`, met: isUnclear ? 'unclear' : ratio >= atLeast };
  return { ...row, target: 'stated' };
}

/** Prints the table; returns whether every target was met. */
export function print(rows: readonly Row[]): boolean {
  const cells = rows.map(({ measure, ours, against, ratio, target, met }) => [
    measure,
    ours,
    against,
    ratio?.toFixed(2) ?? '',
    target,
    verdicts.get(met) ?? '',
  ]);
  const table = [['measure', 'ours', 'against', 'ratio', 'target', ''], ...cells];
  const widths = [0, 1, 2, 3, 4, 5].map((column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  for (const row of table)
    process.stdout.write(
      `${row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    );
  return rows.every(({ met }) => met === undefined || met === true);
}
