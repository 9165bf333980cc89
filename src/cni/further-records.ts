// What is noted in the host's journal of a container's further networks: all that it takes to undo them, whatever has become of
// their definitions and of the pod. Written before each plugin is asked, so that a process that ends in between leaves nothing
// unknown behind.
import * as v from 'valibot';
import type { Journal } from '#api/local.ts';
import { Fault } from '#model/fault.ts';
import * as field from '#api/fields.ts';
import type { Ip } from '#model/ip.ts';
import type { Chain, Reached } from './chain.ts';

export interface FurtherAttachment extends Reached {
  readonly place: string;
  readonly name: string;
  readonly ifname: string;
  readonly chain: Chain;
  readonly capabilities: Readonly<Record<string, unknown>>;
  /** CNI_ARGS */
  readonly args: string;
  readonly gateways: readonly Ip[];
}

export interface FurtherRecord {
  readonly containerId: string;
  readonly netns: string;
  /** CNI_PATH */
  readonly path: string;
  /** All is attached and told. */
  readonly isWhole: boolean;
  /** In the order in which they were attached. */
  readonly networks: readonly FurtherAttachment[];
}

const chain: v.GenericSchema<unknown, Chain> = v.object({
  name: v.string(),
  version: v.string(),
  plugins: v.array(v.record(v.string(), v.unknown())),
  hasCheck: v.boolean(),
});
const attachment: v.GenericSchema<unknown, FurtherAttachment> = v.object({
  place: v.string(),
  name: v.string(),
  ifname: v.string(),
  chain,
  capabilities: v.record(v.string(), v.unknown()),
  args: v.string(),
  gateways: v.array(field.ip),
  reached: v.number(),
  result: v.exactOptional(v.unknown()),
  isRefused: v.exactOptional(v.boolean()),
});
const record: v.GenericSchema<unknown, FurtherRecord> = v.object({
  containerId: v.string(),
  netns: v.string(),
  path: v.string(),
  isWhole: v.boolean(),
  networks: v.array(attachment),
});
const prefix = 'cni-further/';

/** By the endpoint that the runtime's own attachment is. */
export class FurtherRecords {
  readonly #journal: Journal;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  /** Fault `corrupt`. */
  get(endpoint: string): FurtherRecord | undefined {
    const value = this.#journal.get(prefix + endpoint);
    if (value === undefined) return undefined;
    const read = v.safeParse(record, value);
    if (read.success) return read.output;
    throw new Fault('corrupt', `Cannot read journal record ${prefix}${endpoint}`, {
      hint: 'Start the agent with --recover to set the journal aside',
    });
  }

  /** On the disk on return: what other plugins do next is not ours to find out later. */
  put(endpoint: string, value: FurtherRecord): void {
    this.#journal.put(prefix + endpoint, value);
  }

  delete(endpoint: string): void {
    this.#journal.delete(prefix + endpoint);
  }
}
