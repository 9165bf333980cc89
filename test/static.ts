// What can be checked without running anything: format, lint with types, types, shell scripts, and words that have no
// business in the code: hosts of registries and paths of somebody's machine.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '#lab/command.ts';
import { findForbidden } from './forbidden.ts';

interface Check {
  readonly name: string;
  /** Complaints; none when all is well. */
  run(): Promise<string> | string;
}

/** Runs every check, also after a failure, prints what failed and a closing line, and answers whether all passed. */
export async function checkStatics(root: string): Promise<boolean> {
  const tool = (name: string): string => join(root, 'node_modules', '.bin', name);
  const folders = ['src', 'lab', 'test', 'bench'].filter((folder) => existsSync(join(root, folder)));
  const tracked = await trackedFiles(root);
  const scripts = tracked.filter((file) => /^#!.*\b(ba)?sh\b/.test(firstLine(join(root, file))));
  const command = (name: string, argv: readonly string[]): Check => ({ name, run: () => complaints(argv, root) });
  const checks: Check[] = [
    command('format', [tool('oxfmt'), '--check', ...folders]),
    command('lint', [tool('oxlint'), '--type-aware', '--deny-warnings', ...folders]),
    command('types', [tool('tsc'), '--pretty', 'false']),
    ...scripts.map((script) =>
      command(`syntax of ${script}`, [firstLine(join(root, script)).includes('bash') ? 'bash' : 'sh', '-n', script]),
    ),
    {
      name: 'kernel tests keep off the machine',
      run: () =>
        tracked
          .filter((file) => file.endsWith('.netns.test.ts') && !/^mustBeIsolated\(\);$/m.test(readFileSync(join(root, file), 'utf8')))
          .map((file) => `${file} does not call mustBeIsolated() of test/isolated.ts`)
          .join('\n'),
    },
    {
      name: 'forbidden words',
      run: async () => tracked.flatMap((file) => findForbidden(file, readFileSync(join(root, file), 'utf8'))).join('\n'),
    },
  ];
  let failed = 0;
  for (const check of checks) {
    const complaint = await check.run();
    if (complaint !== '') failed += 1;
    console.log(`${complaint === '' ? 'ok    ' : 'not ok'} ${check.name}`);
    if (complaint !== '') console.log(complaint);
  }
  console.log(`${checks.length - failed} passed, ${failed} failed, 0 skipped`);
  return failed === 0;
}

async function complaints(argv: readonly string[], cwd: string): Promise<string> {
  const { status, stdout, stderr } = await run(argv, { cwd, anyStatus: true });
  return status === 0 ? '' : `${stdout}${stderr}`.trimEnd() || `exit status ${status}`;
}

async function trackedFiles(root: string): Promise<string[]> {
  const { stdout } = await run(['git', '-C', root, 'ls-files', '-z']);
  return stdout.split('\0').filter((file) => file !== '' && existsSync(join(root, file)));
}

function firstLine(path: string): string {
  const content = readFileSync(path, 'utf8');
  return content.slice(0, Math.max(0, content.indexOf('\n')));
}
