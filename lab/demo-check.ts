// A claim of a demonstration, with how it is proved and shown.
import type { Screen } from './demo-screen.ts';
import { Witness } from './demo-witness.ts';

export interface CheckOf<S> {
  readonly title: string;
  /** Throws when the claim does not hold; what was seen is in the witness. */
  prove(site: S, witness: Witness): Promise<void>;
}

/** Proves one claim, shows it, and answers whether it holds. */
export async function showCheck<S extends { readonly screen: Screen }>(site: S, check: CheckOf<S>): Promise<boolean> {
  const { title } = check;
  const beganMs = performance.now();
  const witness = new Witness();
  const failure = await site.screen.during(title, () =>
    check.prove(site, witness).then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    ),
  );
  site.screen.verdict({ title, passed: failure === undefined, beganMs, evidence: witness.evidence, failure });
  return failure === undefined;
}

/** Proves and shows one claim after the other; whether all hold. */
export async function showChecks<S extends { readonly screen: Screen }>(site: S, checks: readonly CheckOf<S>[]): Promise<boolean[]> {
  const results: boolean[] = [];
  for (const check of checks) results.push(await showCheck(site, check));
  return results;
}
