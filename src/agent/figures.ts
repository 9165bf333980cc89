// What an agent counts of itself, in Prometheus' text format. Its library is a quarter of all that an agent loads, and most are never
// asked: it is loaded (server.ts) with the first question.
import { Gauge, Registry } from 'prom-client';
import { figuresWith } from '#api/process-figures.ts';
import type { AgentStatus } from './status.ts';

export interface Figures {
  readonly contentType: string;
  text(): Promise<string>;
}

export function createFigures(status: () => AgentStatus): Figures {
  const registry = new Registry();
  const gauge = (name: string, help: string, read: () => number): void => {
    const metric: Gauge = new Gauge({ name: `causeway_agent_${name}`, help, registers: [registry], collect: () => metric.set(read()) });
  };
  gauge('connected', 'Whether a controller is being followed', () => Number(status().connected));
  gauge('desired_objects', 'Kernel objects that this host should hold', () => status().desired);
  gauge('failing_objects', 'Kernel objects that the kernel refuses', () => status().failing.length);
  gauge('held_addresses', 'Addresses that are held on this host', () => status().addresses);
  gauge('runs_total', 'Completed runs of the loop', () => status().runs);
  return { contentType: registry.contentType, text: figuresWith(registry, 'causeway_agent_') };
}
