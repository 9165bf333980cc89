// What an object said when it could be read last. One that is edited to something that cannot be read, past its schema, says nothing that
// could be followed, and is not gone either: pods and services have addresses of it. So it is taken as it was, also by an agent that
// starts while it is like that, until it can be read again or is deleted; its condition tells what is wrong with it.
import * as v from 'valibot';
import type { Journal } from '#api/local.ts';
import { isFault } from '#model/fault.ts';

const part = v.object({
  metadata: v.object({ name: v.nullish(v.string()), creationTimestamp: v.nullish(v.string()) }),
  spec: v.optional(v.unknown()),
});
type Part = v.InferOutput<typeof part>;

export class LastReadable {
  readonly #journal: Pick<Journal, 'get' | 'put' | 'delete' | 'keys'>;
  readonly #prefix: string;
  readonly #known = new Map<string, Part>();

  /** `sort`: unlike that of any other. */
  constructor(journal: Pick<Journal, 'get' | 'put' | 'delete' | 'keys'>, sort: string) {
    this.#journal = journal;
    this.#prefix = `kubernetes/readable/${sort}/`;
  }

  /** `read` answers undefined for what cannot be read, and may be asked twice: of the object, and of it as it was. */
  read<T>(name: string, item: unknown, read: (item: unknown) => T | undefined): T | undefined {
    const value = read(item);
    if (value === undefined) {
      const before = this.#known.get(name) ?? this.#journal.get(this.#prefix + name);
      return before === undefined ? undefined : read(before);
    }
    const kept = v.safeParse(part, item);
    if (kept.success) this.#keep(name, kept.output);
    return value;
  }

  #keep(name: string, kept: Part): void {
    const key = this.#prefix + name;
    const before = this.#known.get(name) ?? this.#journal.get(key);
    this.#known.set(name, kept);
    if (JSON.stringify(before) !== JSON.stringify(kept)) this.#write(() => this.#journal.put(key, kept));
  }

  delete(name: string): void {
    this.#known.delete(name);
    this.#write(() => this.#journal.delete(this.#prefix + name));
  }

  /** Those are all there are. */
  listed(names: Iterable<string>): void {
    const here = new Set(names);
    for (const key of this.#journal.keys(this.#prefix)) {
      const name = key.slice(this.#prefix.length);
      if (!here.has(name)) this.delete(name);
    }
  }

  /** What the disk refuses is known for as long as the agent runs. */
  #write(write: () => void): void {
    try {
      write();
    } catch (error) {
      if (!isFault(error)) throw error;
    }
  }
}
