// Names of chains and sets for what may be long or hold any character. A name follows from what it means alone, so that it
// stays when others come and go; two meanings of one fingerprint are told apart.

/** 64 bits as 16 hexadecimal digits: FNV-1a over the characters, from two different beginnings. */
export function fingerprint(text: string): string {
  let [first, second] = [0x811c9dc5, 0x9747b28c];
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    first = Math.imul(first ^ code, 0x01000193);
    second = Math.imul(second ^ code, 0x01000193) ^ (second >>> 13);
  }
  return [first, second].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
}

export class ChainNames {
  readonly #meanings = new Map<string, string>();

  /** The same for the same prefix and meaning. */
  of(prefix: string, meaning: string): string {
    for (let turn = 0; ; turn++) {
      const name = `${prefix}_${fingerprint(meaning)}${turn === 0 ? '' : `_${turn}`}`;
      const taken = this.#meanings.get(name);
      if (taken === undefined) this.#meanings.set(name, meaning);
      if (taken === undefined || taken === meaning) return name;
    }
  }
}
