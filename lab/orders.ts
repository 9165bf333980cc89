// How the lab's drivers in services of a cloud (magnum-driver/, octavia-driver/) have the lab do what they are asked for: below a folder of
// the cloud's controller, where those services run, `free` has the machines that nobody has taken, and another folder an entry for each
// thing that is asked for, with an `order` in it. The lab answers each generation of an order by a `report` beside it.
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from './host.ts';
import { readJson, writeJson } from './state.ts';

export interface Machine {
  readonly name: string;
  readonly address: string;
}

export interface OrderFolder<Order> {
  readonly controller: Host;
  /** Path on the controller. */
  readonly root: string;
  /** Folder of the entries. */
  readonly kind: string;
  /** Machines that are free at first. */
  readonly hosts: readonly Host[];
  /** Answers what the report says beside that it is done; undefined: it is not time to report yet. What it throws is reported. */
  readonly carryOut: (id: string, order: Order) => Promise<object | undefined>;
}

const intervalMs = 100;

export class Orders<Order extends { readonly generation: number }> implements AsyncDisposable {
  readonly #folder: OrderFolder<Order>;
  readonly #end = new AbortController();
  readonly #work: Promise<void>;

  /** Follows them from now on, until it is disposed of. */
  constructor(folder: OrderFolder<Order>) {
    this.#folder = folder;
    for (const one of ['free', folder.kind]) mkdirSync(this.#file(one), { recursive: true, mode: 0o700 });
    for (const { name, address } of folder.hosts) writeJson(this.#file('free', name), { name, address } satisfies Machine);
    this.#work = this.#follow();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await this.#work;
  }

  /** Names of machines that nobody has. */
  get free(): string[] {
    return readdirSync(this.#file('free')).toSorted();
  }

  /** Of an entry; undefined: there is none. */
  read(id: string, name: string): unknown {
    return readJson(this.#file(this.#folder.kind, id, name));
  }

  #file(...path: readonly string[]): string {
    return join(this.#folder.controller.file(this.#folder.root), ...path);
  }

  async #follow(): Promise<void> {
    while (!this.#end.signal.aborted) {
      for (const id of readdirSync(this.#file(this.#folder.kind))) await this.#carryOut(id);
      await sleep(intervalMs);
    }
  }

  async #carryOut(id: string): Promise<void> {
    const order = this.read(id, 'order') as Order | undefined;
    const before = this.read(id, 'report') as { readonly generation: number } | undefined;
    if (order === undefined || before?.generation === order.generation) return;
    const { generation } = order;
    let report: object;
    try {
      const done = await this.#folder.carryOut(id, order);
      if (done === undefined) return;
      report = { generation, status: 'COMPLETE', ...done };
    } catch (error) {
      report = { generation, status: 'FAILED', reason: error instanceof Error ? error.message : String(error) };
    }
    const path = this.#file(this.#folder.kind, id, 'report');
    if (existsSync(dirname(path))) writeJson(path, report);
  }
}
