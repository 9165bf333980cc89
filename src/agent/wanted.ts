/** What of one kind has been wanted. There may be a hundred thousand items, and mostly nobody asks: then no key is made. */
export class Wanted<T> {
  readonly #key: (item: T) => string;
  readonly #keys = new Set<string>();
  /** Those whose keys are not among `#keys`. */
  #items: readonly T[] = [];

  constructor(key: (item: T) => string) {
    this.#key = key;
  }

  /** How many it remembers. */
  get size(): number {
    return this.#keys.size + this.#items.length;
  }

  has(item: T): boolean {
    this.#gather();
    return this.#keys.has(this.#key(item));
  }

  /** Whether each of them has its key in `keys`. */
  isWithin(keys: { has(key: string): boolean }): boolean {
    this.#gather();
    for (const key of this.#keys) if (!keys.has(key)) return false;
    return true;
  }

  /** These as well. */
  add(items: readonly T[]): void {
    this.#gather();
    for (const item of items) this.#keys.add(this.#key(item));
  }

  /** These and no others. */
  replace(items: readonly T[]): void {
    this.#keys.clear();
    this.#items = items;
  }

  #gather(): void {
    for (const item of this.#items) this.#keys.add(this.#key(item));
    this.#items = [];
  }
}
