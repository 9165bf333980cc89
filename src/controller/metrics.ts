// What the controller counts of itself, in Prometheus' text format.
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { figuresWith } from '#api/process-figures.ts';
import type { Hub } from './hub.ts';
import type { Mirror } from './mirror.ts';

export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
  /** Call the result with method and status once the request has been answered. */
  startRequest(): (method: string, status: number) => void;
}

export function createMetrics({ hub, mirror }: { hub: Hub; mirror: Mirror }): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const requests = new Histogram({
    name: 'causeway_controller_request_seconds',
    help: 'Time to answer a request; of a watch, to begin it',
    labelNames: ['method', 'status'],
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2],
    registers,
  });
  const gauge = (name: string, help: string, read: () => number): void => {
    registry.registerMetric(
      new Gauge({
        name,
        help,
        registers: [],
        collect() {
          this.set(read());
        },
      }),
    );
  };
  gauge('causeway_controller_watchers', 'Connections that watch', () => hub.watchers);
  gauge('causeway_controller_revision', 'Revision of the store that has been seen', () => mirror.revision);
  for (const kind of ['hosts', 'networks', 'blocks', 'endpoints', 'exposures'] as const) {
    gauge(`causeway_controller_${kind}`, `Number of ${kind}`, () => mirror.all(kind).size);
  }
  registry.registerMetric(
    new Counter({
      name: 'causeway_controller_watchers_cut_total',
      help: 'Connections that were cut because they read too slowly or might not go on',
      registers: [],
      collect() {
        this.reset();
        this.inc(hub.cut);
      },
    }),
  );
  return {
    contentType: registry.contentType,
    text: figuresWith(registry, 'causeway_controller_'),
    startRequest: () => {
      const begun = performance.now();
      return (method, status) => requests.observe({ method, status }, (performance.now() - begun) / 1000);
    },
  };
}
