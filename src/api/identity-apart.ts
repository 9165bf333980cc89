// makeIdentity() in a process of its own. The library that writes certificate requests takes 17 MB, which an agent on every
// host would keep for one call a month; the process takes them with it when it ends.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import * as v from 'valibot';
import { type KeyAndRequest, makeIdentity } from './identity.ts';

const made = v.pipe(v.string(), v.parseJson(), v.object({ key: v.string(), csr: v.string() }));

/** As makeIdentity(). */
export async function makeIdentityApart(host: string): Promise<KeyAndRequest> {
  const argv = ['--disable-warning=ExperimentalWarning', import.meta.filename, host];
  const { stdout } = await promisify(execFile)(process.execPath, argv, { timeout: 60_000 });
  return v.parse(made, stdout);
}

const [, , host] = process.argv;
if (import.meta.main && host !== undefined) process.stdout.write(JSON.stringify(await makeIdentity(host)));
