// Runs the sides of a comparison in turn, so that whatever else the machine does meets all of them alike.
import { median } from './report.ts';

/** Calls every side once a round and answers what each gave, by side. Progress goes to stderr. */
export async function alternate<Side extends string>(
  what: string,
  rounds: number,
  sides: Readonly<Record<Side, () => Promise<number>>>,
): Promise<Record<Side, number[]>> {
  const names = Object.keys(sides) as Side[];
  const results = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Side, number[]>;
  for (let round = 1; round <= rounds; round++) {
    // The order turns round by round: nobody always comes after the same neighbour.
    const order = names.map((_, index) => names[(index + round) % names.length] as Side);
    for (const name of order) results[name].push(await sides[name]());
    const shown = names.map((name) => `${name} ${(results[name].at(-1) ?? Number.NaN).toPrecision(4)}`).join(', ');
    process.stderr.write(`  ${what} ${round}/${rounds}: ${shown}\n`);
  }
  return results;
}

/** Medians by side. */
export const medians = <Side extends string>(results: Readonly<Record<Side, readonly number[]>>): Record<Side, number> =>
  Object.fromEntries(Object.entries<readonly number[]>(results).map(([side, values]) => [side, median(values)])) as Record<Side, number>;
