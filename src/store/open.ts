// Which store a controller uses is one URL: `memory:`, `sqlite:/var/lib/causeway/store.db`,
// `etcd:http://10.0.0.1:2379,http://10.0.0.2:2379?prefix=causeway/&ca=…&cert=…&key=…`.
import { readFile } from 'node:fs/promises';
import { Fault } from '#model/fault.ts';
import { type EtcdOptions, openEtcdStore } from './etcd.ts';
import { MemoryStore } from './memory.ts';
import { openSqliteStore } from './sqlite.ts';
import type { Store } from './store.ts';

const hint = 'Write memory:, sqlite:/path/to/file or etcd:http://host:2379,http://host:2379?prefix=causeway/';

/**
 * Faults: `invalid` for a URL that says nothing known, otherwise what opening that store may throw. etcd need not be
 * reachable yet. Parameters of etcd: `prefix`, `ca`, `cert`, `key` (PEM files), `timeoutMs`; of sqlite: `maxBytes`,
 * `historyLength`.
 */
export async function openStore(url: string): Promise<Store> {
  const [, scheme = '', rest = '', query = ''] = /^([a-z]+):([^?]*)(?:\?(.*))?$/.exec(url) ?? [];
  const parameters = new Parameters(query);
  switch (scheme) {
    case 'memory':
      parameters.mustBeEmpty();
      if (rest !== '') throw new Fault('invalid', 'The memory store has no path', { field: 'store', hint });
      return new MemoryStore();
    case 'sqlite': {
      const options = parameters.numbers(['maxBytes', 'historyLength', 'pollMs', 'busyMs']);
      parameters.mustBeEmpty();
      if (!rest.startsWith('/')) throw new Fault('invalid', 'The path of a SQLite store is absolute', { field: 'store', hint });
      return openSqliteStore(rest, options);
    }
    case 'etcd':
      return openEtcdStore(await readEtcdUrl(url));
    default:
      throw new Fault('invalid', `Not a store URL: ${url.slice(0, 80)}`, { field: 'store', hint });
  }
}

/** What `etcd:http://…,http://…?prefix=…&ca=…&cert=…&key=…&timeoutMs=…` says; files are read. Fault `invalid`. */
export async function readEtcdUrl(url: string): Promise<EtcdOptions> {
  const [, rest, query = ''] = /^etcd:([^?]*)(?:\?(.*))?$/.exec(url) ?? [];
  if (rest === undefined) throw new Fault('invalid', `Not a URL of etcd: ${url.slice(0, 80)}`, { field: 'store', hint });
  const parameters = new Parameters(query);
  const [prefix, ca, cert, key] = [parameters.take('prefix'), ...(await parameters.files(['ca', 'cert', 'key']))];
  const options: EtcdOptions = {
    endpoints: rest.split(','),
    ...(prefix === undefined ? {} : { prefix }),
    ...parameters.numbers(['timeoutMs']),
    tls: { ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) },
  };
  parameters.mustBeEmpty();
  return options;
}

class Parameters {
  readonly #left: Map<string, string>;

  constructor(query: string) {
    this.#left = new Map(new URLSearchParams(query));
  }

  take(name: string): string | undefined {
    const value = this.#left.get(name);
    this.#left.delete(name);
    return value;
  }

  numbers<Name extends string>(names: readonly Name[]): Partial<Record<Name, number>> {
    const found: Partial<Record<Name, number>> = {};
    for (const name of names) {
      const text = this.take(name);
      if (text === undefined) continue;
      if (!/^[1-9][0-9]{0,14}$/.test(text)) throw new Fault('invalid', `Store parameter ${name} is not a number`, { field: 'store' });
      found[name] = Number(text);
    }
    return found;
  }

  async files(names: readonly string[]): Promise<(string | undefined)[]> {
    return Promise.all(
      names.map(async (name) => {
        const path = this.take(name);
        if (path === undefined) return undefined;
        return readFile(path, 'utf8').catch((error: unknown) => {
          throw new Fault('invalid', `Cannot read the file of store parameter ${name}`, { field: 'store', cause: error });
        });
      }),
    );
  }

  mustBeEmpty(): void {
    const [name] = this.#left.keys();
    if (name !== undefined) throw new Fault('invalid', `Unknown store parameter ${name}`, { field: 'store', hint });
  }
}
