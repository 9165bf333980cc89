// What is read of a JUnit report as ginkgo writes it: how each test went. Tests that were filtered out are in it as skipped.
export interface TestResult {
  readonly name: string;
  readonly seconds: number;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** Why it failed, or was skipped by itself. */
  readonly message: string;
}

export function parseJunit(xml: string): TestResult[] {
  return [...xml.matchAll(/<testcase name="([^"]*)"[^>]* time="([^"]*)"[^>]*?(?:\/>|>(.*?)<\/testcase>)/gs)].map(
    ([, name = '', time, body = '']) => {
      const failure = /<failure[^>]*>(.*?)<\/failure>/s.exec(body)?.[1];
      const skipped = /<skipped[^>]*?(?:\/>|>(.*?)<\/skipped>)/s.exec(body);
      const outcome = failure !== undefined ? 'failed' : skipped === null ? 'passed' : 'skipped';
      return { name: unescape(name), seconds: Number(time), outcome, message: unescape(failure ?? skipped?.[1] ?? '') };
    },
  );
}

const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

/** Entities and references by number (XML 1.0, section 4.1). */
const unescape = (text: string): string =>
  text.replaceAll(/&(?:#(\d+)|#x([\da-f]+)|([a-z]+));/gi, (whole, decimal?: string, hex?: string, entity?: string) => {
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
    return entities[entity ?? ''] ?? whole;
  });
