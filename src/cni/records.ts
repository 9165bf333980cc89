// What this front end notes of each attachment in the host's journal: by which names the runtime knows it. GC and DEL go by
// these, since an endpoint's own record does not say them.
import * as v from 'valibot';
import type { Journal } from '#api/local.ts';
import { Fault } from '#model/fault.ts';
import { type Ipam, ipam } from './ipam.ts';
import type { AttachmentName } from './request.ts';

export interface AttachmentRecord extends AttachmentName {
  readonly netns: string;
  /** Of the pod, when a runtime of Kubernetes has said it. */
  readonly podUid?: string;
  /** It was not the runtime that asked for it: it goes with another attachment of the container. */
  readonly isFurther?: boolean;
  /** Who gave the addresses, when it was not the agent. */
  readonly ipam?: Ipam;
}
const record: v.GenericSchema<unknown, AttachmentRecord> = v.object({
  name: v.string(),
  containerId: v.string(),
  ifname: v.string(),
  netns: v.string(),
  podUid: v.exactOptional(v.string()),
  isFurther: v.exactOptional(v.boolean()),
  ipam: v.exactOptional(ipam),
});
const prefix = 'cni/';

export class AttachmentRecords {
  readonly #journal: Journal;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  /** By endpoint. Fault `corrupt`. */
  get(endpoint: string): AttachmentRecord | undefined {
    const value = this.#journal.get(prefix + endpoint);
    return value === undefined ? undefined : read(prefix + endpoint, value);
  }

  list(): { readonly endpoint: string; readonly record: AttachmentRecord }[] {
    return this.#journal.list(prefix).map(({ key, value }) => ({ endpoint: key.slice(prefix.length), record: read(key, value) }));
  }

  /** Before anything is given out. Another's plugin keeps its own books of what it gives; ours are written first. */
  put(endpoint: string, value: AttachmentRecord): void {
    const write = (): void => this.#journal.put(prefix + endpoint, value);
    if (value.ipam === undefined) this.#journal.soon(write);
    else write();
  }

  /** After all else. Absent already is success; one that a power cut brings back names a container that is gone. */
  delete(endpoint: string): void {
    this.#journal.soon(() => this.#journal.delete(prefix + endpoint));
  }
}

function read(key: string, value: unknown): AttachmentRecord {
  const result = v.safeParse(record, value);
  if (result.success) return result.output;
  throw new Fault('corrupt', `Cannot read journal record ${key}`, { hint: 'Start the agent with --recover to set the journal aside' });
}
