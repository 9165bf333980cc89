// Writes the status of objects that others change as well.
import { createHash } from 'node:crypto';
import { isFault } from '#model/fault.ts';
import type { KubernetesClient } from './client.ts';
import { inOrder, isAlike } from './conditions.ts';

export interface StatusWriterOptions {
  readonly client: Pick<KubernetesClient, 'replace'>;
  readonly log: { warn(fields: object, message: string): void };
}

const withoutTimes = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(inOrder(value) ?? null, (key, inner: unknown) => (key === 'lastTransitionTime' ? undefined : inner)));

export class StatusWriter {
  readonly #options: StatusWriterOptions;
  /** By path: what was last written there, so that a server that drops it is not asked for ever. */
  readonly #written = new Map<string, string>();

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  /** Whether it was written: not when it is so already, or was written before and the server has dropped a part. */
  async put(path: string, object: { readonly status?: object | null | undefined }, status: object): Promise<boolean> {
    if (isAlike(object.status, status)) return false;
    const digest = createHash('sha256')
      .update(JSON.stringify([withoutTimes(object.status), withoutTimes(status)]))
      .digest('hex');
    if (this.#written.get(path) === digest) return false;
    try {
      await this.#options.client.replace(path, { ...object, status });
      this.#written.set(path, digest);
      return true;
    } catch (error) {
      // Changed or deleted meanwhile: the watch tells, and it is looked at again.
      if (isFault(error, 'conflict') || isFault(error, 'not-found')) return false;
      this.#options.log.warn({ error, path }, 'cannot write a status');
      return false;
    }
  }
}
