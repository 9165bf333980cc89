/** Who tells of a part of the cluster; absent: there is no such part. */
type Source = { isSynced(): boolean } | undefined;

/** Whether an agent has heard all that there is to hear, and whether the kernel has had all of it once, as far as that takes it. */
export class Wholeness {
  readonly #sources: readonly Source[];
  #isPlanned = false;
  #isInForce = false;

  constructor(...sources: readonly Source[]) {
    this.#sources = sources;
  }

  get isKnown(): boolean {
    return this.#sources.every((source) => source?.isSynced() !== false);
  }

  get isInForce(): boolean {
    return this.#isInForce;
  }

  /** A plan is made of what is known now. */
  planning(): void {
    this.#isPlanned = this.isKnown;
  }

  /** The kernel has the last one. */
  applied(): void {
    this.#isInForce ||= this.#isPlanned;
  }
}
