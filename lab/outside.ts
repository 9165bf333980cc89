// The world beyond the underlay's gateway: a web server that answers with the address its client came from, and a name
// server. Started here as a service of the outside host; outside-world.ts is the program.
import { join } from 'node:path';
import type { Host } from './host.ts';

export const outsideService = 'outside-world';

export function startOutside(outside: Host): Promise<void> {
  return outside.startService({
    name: outsideService,
    argv: [process.execPath, join(import.meta.dirname, 'outside-world.ts')],
    env: {},
    ready: { socket: '/run/outside.sock' },
  });
}
