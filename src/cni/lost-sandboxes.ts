// Attachments whose sandbox the runtime no longer has: a runtime that was killed, or that lost its state, sends no DEL for them, and
// containerd sends no GC either. What is unlisted at every look for some minutes is removed as by DEL. In doubt nothing is: only pods of a
// Kubernetes runtime count (others, which also execute the plugin, have lists of their own), the list must show one of ours, so that
// it is the list of the runtime that attached them, and after a look that failed all is to be seen missing anew.
import type { AttachmentRecord } from './records.ts';

export interface LostOptions {
  readonly records: () => readonly { readonly endpoint: string; readonly record: AttachmentRecord }[];
  /** Of every runtime of Kubernetes here; rejects when one cannot be asked. */
  readonly listed: () => Promise<ReadonlySet<string>>;
  /** As by DEL. */
  readonly remove: (endpoint: string, record: AttachmentRecord) => Promise<void>;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** For how long a sandbox has to be missing. */
  readonly missingMs: number;
  readonly log: (fields: object, message: string) => void;
}

export class LostSandboxes {
  readonly #options: LostOptions;
  /** Since when an endpoint's sandbox has been missing at every look. */
  #missing = new Map<string, number>();
  #isLooking = false;
  #complaint = '';

  constructor(options: LostOptions) {
    this.#options = options;
  }

  /** To be called every now and then. Never rejects. */
  async look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      await this.#look();
      this.#complaint = '';
    } catch (error) {
      this.#missing.clear();
      const message = error instanceof Error ? error.message : String(error);
      if (message !== this.#complaint)
        this.#options.log({ error: message }, 'cannot compare attachments with the sandboxes of the runtime');
      this.#complaint = message;
    } finally {
      this.#isLooking = false;
    }
  }

  async #look(): Promise<void> {
    const { records, listed, remove, now, missingMs, log } = this.#options;
    // What is attached while the runtime is being asked is not in its list yet.
    const before = records().filter(({ record }) => record.podUid !== undefined);
    const sandboxes = await listed();
    const isTheirs = before.some(({ record }) => sandboxes.has(record.containerId));
    const unlisted = isTheirs ? before.filter(({ record }) => !sandboxes.has(record.containerId)) : [];
    this.#missing = new Map(unlisted.map(({ endpoint }) => [endpoint, this.#missing.get(endpoint) ?? now()]));
    for (const { endpoint, record } of unlisted) {
      if (now() - (this.#missing.get(endpoint) ?? now()) < missingMs) continue;
      log({ endpoint, container: record.containerId }, 'the runtime has lost this sandbox: removing what was attached to it');
      await remove(endpoint, record);
      this.#missing.delete(endpoint);
    }
  }
}
