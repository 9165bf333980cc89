// Clusters of a cloud's Magnum as a member of the project has them: by `causeway magnum` on the controller's host.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Output } from '#lab/command.ts';
import type { OpenStack } from '#lab/openstack.ts';

const program = join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts');

export interface Template {
  readonly name: string;
  readonly networkDriver: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Of the chart. */
  readonly causeway: { readonly values: Readonly<Record<string, unknown>> };
}
export const made = ['template', 'create'] as const;

export interface MagnumUser {
  /** To whatever end. */
  readonly tryMagnum: (...argv: readonly string[]) => Promise<Output>;
  readonly ask: <T>(...argv: readonly string[]) => Promise<T>;
  /** Answers the exit status of a command that says these words. */
  readonly refused: (words: RegExp, ...argv: readonly string[]) => Promise<number>;
}

/** `cloud`: made by the time that somebody asks. */
export function magnumUser(cloud: () => OpenStack): MagnumUser {
  const tryMagnum = (...argv: readonly string[]): Promise<Output> =>
    cloud().controller.exec([process.execPath, '--disable-warning=ExperimentalWarning', program, 'magnum', ...argv], {
      env: cloud().environment(),
      anyStatus: true,
    });
  return {
    tryMagnum,
    ask: async <T>(...argv: readonly string[]): Promise<T> => {
      const output = await tryMagnum(...argv, '--output', 'json');
      if (output.status !== 0) throw new Error(`causeway magnum ${argv.join(' ')}: ${output.stderr}${output.stdout}`);
      return JSON.parse(output.stdout) as T;
    },
    refused: async (words, ...argv) => {
      const { status, stderr } = await tryMagnum(...argv);
      assert.match(stderr, words);
      return status;
    },
  };
}
