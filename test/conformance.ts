// Reads docs/kubernetes-conformance.md, which says for each of upstream's network tests whether it is run and what is to come
// of it. The page is what the test goes by, so it cannot be older than the code.
export interface Conformance {
  /** Names of tests that must pass, in every run and in those that are asked for in addition. */
  readonly always: readonly string[];
  readonly asked: readonly string[];
  readonly failing: readonly string[];
  readonly left: readonly string[];
}

const sections = { always: 'Pass in every run', asked: 'Pass when asked for', failing: 'Fail', left: 'Not run' } as const;

/** Names are list items in backticks below their section's heading. A section that is absent has none. */
export function readConformance(page: string): Conformance {
  const parts = new Map(
    page.split(/^## /m).map((part): [string, string[]] => {
      const [title = '', ...lines] = part.split('\n');
      return [title.trim(), lines.flatMap((line) => /^- `([^`]+)`/.exec(line)?.[1] ?? [])];
    }),
  );
  const of = (section: keyof typeof sections): string[] => parts.get(sections[section]) ?? [];
  return { always: of('always'), asked: of('asked'), failing: of('failing'), left: of('left') };
}

/** A pattern of Go's that matches these names and no longer ones. */
export const patternOf = (names: readonly string[]): string =>
  `^(${names.map((name) => `.*${name.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)}`).join('|')})$`;
