// What a process counts of itself beside its own work: processor, memory, event loop. How late the event loop is can only be told
// by a timer that wakes it, by default a hundred times a second for ever, and every collection of garbage is reported to
// whoever watches; so all of this begins with the first who asks, and the timer is slower.
import { collectDefaultMetrics, type Registry } from 'prom-client';

/** Delays of the event loop below this are not told. */
const wakeMs = 100;

/** The text of all figures of `registry`, the process's own among them. */
export function figuresWith(registry: Registry, prefix: string): () => Promise<string> {
  let hasBegun = false;
  return () => {
    if (!hasBegun) collectDefaultMetrics({ register: registry, prefix, eventLoopMonitoringPrecision: wakeMs });
    hasBegun = true;
    return registry.metrics();
  };
}
