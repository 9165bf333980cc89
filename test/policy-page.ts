// Pages of docs/rules that say how policy lies in a kernel: its own table, read back, under a title and an explanation.
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export interface PolicyPage {
  /** In docs/rules. */
  readonly file: string;
  readonly title: string;
  /** Lines of Markdown above the rules. */
  readonly about: readonly string[];
}

/** Whether the page says what nft(8) `listed` of that table, counters and the name of the state aside. */
export function checkPolicyPage(t: TestContext, listed: string, { file, title, about }: PolicyPage): void {
  const rules = listed
    .replaceAll(/packets \d+ bytes \d+/g, 'packets 0 bytes 0')
    .replace(/\n\tchain [^\n]* \{\n\t\tcomment "[0-9a-f]+"\n\t\}/, '');
  const page = [`# ${title}`, '', ...about, '', '```', rules.trim().replaceAll('\t', '  '), '```', ''].join('\n');
  t.assert.fileSnapshot(page, join(import.meta.dirname, '..', 'docs', 'rules', file), { serializers: [String] });
}
