// A limit that many share, of whom none can keep the others from theirs: whoever has less than its equal part gets more, also
// while somebody else, who came when there was room, has more than that. So it may be exceeded for the while that such a one takes.

export class FairShare {
  readonly #limit: number;
  readonly #held = new Map<string, number>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether `who` may have one more; it is given back by `release`. */
  take(who: string): boolean {
    const held = this.#held.get(who) ?? 0;
    const sharing = this.#held.size + (held === 0 ? 1 : 0);
    if (held >= Math.max(1, Math.floor(this.#limit / sharing))) return false;
    this.#held.set(who, held + 1);
    return true;
  }

  release(who: string): void {
    const held = this.#held.get(who) ?? 0;
    if (held > 1) this.#held.set(who, held - 1);
    else this.#held.delete(who);
  }
}
