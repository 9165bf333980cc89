// One connection that watches: lines wait here until the connection takes them. A reader that falls too far behind is cut; it
// comes back with the revision it has seen and is served from there.
import type { Principal } from './access.ts';

/** About a quarter of a megabyte at once keeps other connections going while a large snapshot is sent. */
const chunkLines = 512;
/** Changes that may wait beyond the first snapshot. */
const mostWaiting = 50_000;

export interface Interest {
  readonly principal: Principal;
  /** Only what this host needs; absent: everything the principal may see. */
  readonly host?: string;
}

export class Watcher {
  readonly interest: Interest;
  readonly #texts: TextMemo;
  #lines: string[] = [];
  #next = 0;
  #limit = mostWaiting;
  #isClosed = false;
  /** Called when lines wait and when the watch has ended. */
  wake: () => void = () => undefined;
  onClose: () => void = () => undefined;

  constructor(interest: Interest, texts: TextMemo) {
    this.interest = interest;
    this.#texts = texts;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get hasLines(): boolean {
    return this.#next < this.#lines.length;
  }

  push(line: string): void {
    if (this.#isClosed) return;
    this.#lines.push(line);
    if (this.#lines.length - this.#next > this.#limit) this.close();
  }

  /** As push, for what was asked for: it does not count as falling behind. */
  pushSnapshot(lines: readonly string[]): void {
    for (const line of lines) this.#lines.push(line);
    this.#limit = this.#lines.length - this.#next + mostWaiting;
  }

  /** The next piece to send; undefined when nothing waits. */
  take(): Buffer | undefined {
    if (!this.hasLines) return undefined;
    const piece = this.#lines.slice(this.#next, this.#next + chunkLines);
    this.#next += piece.length;
    if (!this.hasLines) {
      this.#lines = [];
      this.#next = 0;
      this.#limit = mostWaiting;
    }
    return this.#texts.join(piece);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#lines = [];
    this.#next = 0;
    this.onClose();
    this.wake();
  }
}

/** A thousand hosts of one network get the same lines: they are put together and encoded once. */
export class TextMemo {
  #lines: readonly string[] = [];
  #text: Buffer = Buffer.alloc(0);

  join(lines: readonly string[]): Buffer {
    const known = this.#lines;
    if (known.length === lines.length && known.every((line, index) => line === lines[index])) return this.#text;
    this.#lines = lines;
    this.#text = Buffer.from(lines.join(''));
    return this.#text;
  }
}
