// What services' migrations make of an empty database, kept on this machine: some hundred steps in Python take half a minute of
// processor in each new cloud, what they come to is read back in a second. A service of another version makes its own, and one whose
// first rows name something of the lab (an address) one for each of it.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';
import type { Host } from './host.ts';

const cache = '/var/cache/causeway-openstack';

/** MariaDB's client programs, on the host whose database it is. */
export const databaseSocket = '/run/mysql.sock';
const client = (program: 'mariadb' | 'mariadb-dump'): string[] => [program, '--no-defaults', '--user=root', `--socket=${databaseSocket}`];

/** Runs statements. Faults as `run`. */
export async function sql(host: Host, statements: string, database: readonly string[] = []): Promise<void> {
  await host.exec([...client('mariadb'), ...database], { input: statements });
}

/**
 * Fills the empty databases of the service `name`, by default the one of that name: by `migrate` once, and from what that made ever
 * after. `about`: what of the lab they depend on. Faults as `run`, and those of `migrate`.
 */
export async function makeTables(
  host: Host,
  { name, databases = [name], about = '' }: { readonly name: string; readonly databases?: readonly string[]; readonly about?: string },
  migrate: () => Promise<unknown>,
): Promise<void> {
  const { stdout: version } = await run(['dpkg-query', '--show', '--showformat=${Version}', `python3-${name}`]);
  const words = [name, version, about].filter((word) => word !== '');
  const file = join(cache, `${words.join('-').replaceAll(/[^\w.+~-]/g, '_')}.sql`);
  if (existsSync(file)) {
    await sql(host, readFileSync(file, 'utf8'), [name]);
    return;
  }
  await migrate();
  const { stdout: tables } = await host.exec([...client('mariadb-dump'), '--databases', ...databases]);
  mkdirSync(cache, { recursive: true });
  // In one step: another cloud may be made at the same time.
  const own = `${file}.${process.pid}`;
  writeFileSync(own, tables);
  renameSync(own, file);
}
