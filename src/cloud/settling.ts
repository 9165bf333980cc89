// Load balancers for which machines start are busy for minutes, and what they lack follows when they are settled. Whoever has time waits
// for that; whoever looks again all the while does not ask again for what the cloud has refused.
import { setTimeout as delay } from 'node:timers/promises';
import { type Applied, applyWish } from './apply.ts';
import type { ReadState } from './reading.ts';
import type { Neutron } from './neutron.ts';
import type { LoadBalancer } from './octavia-schemas.ts';
import type { Wish, WishedBalancer } from './wish.ts';

export interface Patience {
  /** Nova has ten minutes for a machine (octavia.conf, amp_active_retries and amp_active_wait_sec). */
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
  /** What is being waited for. */
  readonly told: (words: string) => void;
}

/** What is told of those that Octavia has been at work on for longer than it should. */
export const stillBusy = (busy: readonly LoadBalancer[], forMs: number): string =>
  `Octavia is still at work on load balancers after ${Math.floor(forMs / 60_000)} min: ${wordsOf(busy)}. It may go on by itself; if it does not, ask the operator of the cloud`;

const wordsOf = (busy: readonly LoadBalancer[]): string => busy.map(({ name, provisioning }) => `${name} (${provisioning})`).join(', ');

/** As applyWish, until nothing is busy any more; what is after the time is a problem. Faults as applyWish's. */
export async function applyWhole(
  neutron: Neutron,
  wish: Wish,
  { read, told, timeoutMs = 660_000, intervalMs = 2_000 }: Patience & { readonly read: ReadState },
): Promise<Applied> {
  const deadline = performance.now() + timeoutMs;
  let done = await applyWish(neutron, wish, read);
  while (done.plan.busy.length > 0) {
    const { busy, problems } = done.plan;
    if (performance.now() > deadline)
      return { ...done, plan: { ...done.plan, problems: [...problems, `${stillBusy(busy, timeoutMs)}, and repeat the command`] } };
    told(`Octavia, which is at work on load balancers: ${wordsOf(busy)}`);
    await delay(intervalMs);
    const next = await applyWish(neutron, done.wish, read);
    done = { ...next, steps: [...done.steps, ...next.steps] };
  }
  return done;
}

/** What the cloud has refused of load balancers, with what was wished for. */
export class Refusals {
  readonly #known = new Map<string, { readonly wished: string; readonly why: string }>();

  /** From a wish as applyWish leaves it. */
  note({ balancers }: Wish): void {
    this.#known.clear();
    for (const { refused, ...wished } of balancers)
      if (refused !== undefined) this.#known.set(wished.id, { wished: JSON.stringify(wished), why: refused });
  }

  /** The wish without what was refused, where nothing else is wished for now. */
  heeded(wish: Wish): Wish {
    const heeded = (one: WishedBalancer): WishedBalancer => {
      const known = this.#known.get(one.id);
      return known?.wished === JSON.stringify(one) ? { ...one, refused: known.why } : one;
    };
    return this.#known.size === 0 ? wish : { ...wish, balancers: wish.balancers.map(heeded) };
  }
}
