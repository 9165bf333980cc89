// This host's own endpoints, kept in the journal: the one thing about the network that no other place knows first. The
// journal is written before anybody acts on a record, and whoever tells of a new one waits for the disk (Journal.durable):
// what changes afterwards ends with the power, or is told again by the engine.
import * as v from 'valibot';
import type { Journal } from '#api/local.ts';
import { Fault } from '#model/fault.ts';
import type { LocalEndpoint } from '#model/resources.ts';
import type { Changed } from './news.ts';

const prefix = 'endpoint/';
/** Transit addresses are 100.127.0.1 to 100.127.127.254. */
const lastSlot = 32_766;

/** What this file wrote is trusted to be what it wrote; only its outline is checked, so that a foreign file is noticed. */
const outline = v.looseObject({
  slot: v.pipe(v.number(), v.integer(), v.minValue(1)),
  endpoint: v.looseObject({ id: v.string(), network: v.string(), sequence: v.number(), addresses: v.array(v.string()) }),
});

export class Endpoints {
  readonly #journal: Journal;
  readonly #changed: (change: Changed<LocalEndpoint>) => void;
  readonly #byId = new Map<string, LocalEndpoint>();
  readonly #slots = new Set<number>();
  #nextSlot = 1;

  /** Reads the journal. Fault `corrupt` when a record is not one of ours. */
  constructor(journal: Journal, changed: (change: Changed<LocalEndpoint>) => void) {
    this.#journal = journal;
    this.#changed = changed;
    for (const { key, value } of journal.list(prefix)) {
      if (!v.is(outline, value))
        throw new Fault('corrupt', `Journal record ${key} is not an endpoint`, {
          hint: 'Start the agent with --recover to set the journal aside',
        });
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by put() below
      const local = value as unknown as LocalEndpoint;
      this.#byId.set(local.endpoint.id, local);
      this.#slots.add(local.slot);
    }
  }

  all(): readonly LocalEndpoint[] {
    return [...this.#byId.values()];
  }

  get(id: string): LocalEndpoint | undefined {
    return this.#byId.get(id);
  }

  /** A slot that no endpoint here has; goes round, so that a transit address is not reused at once. */
  freeSlot(): number {
    for (let tries = 0; tries < lastSlot; tries++) {
      const slot = this.#nextSlot;
      this.#nextSlot = (slot % lastSlot) + 1;
      if (!this.#slots.has(slot)) return slot;
    }
    throw new Fault('exhausted', `This host already has ${lastSlot} endpoints`);
  }

  /** Outlives the process on return. */
  put(local: LocalEndpoint): void {
    const before = this.#byId.get(local.endpoint.id);
    this.#journal.soon(() => this.#journal.put(`${prefix}${local.endpoint.id}`, local));
    this.#byId.set(local.endpoint.id, local);
    this.#slots.add(local.slot);
    this.#changed({ before, after: local });
  }

  /** Absent already is success. Outlives the process on return. */
  delete(id: string): void {
    const local = this.#byId.get(id);
    if (local === undefined) return;
    this.#journal.soon(() => this.#journal.delete(`${prefix}${id}`));
    this.#byId.delete(id);
    this.#slots.delete(local.slot);
    this.#changed({ before: local, after: undefined });
  }
}
