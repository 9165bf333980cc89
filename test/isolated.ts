// Kernel tests change addresses, routes and rules of the namespace they find themselves in. test/isolated-node gives each file
// one of its own and tells which one it left; started in any other way they must not touch the machine's.
import { readlinkSync } from 'node:fs';

/** To be called first in every `*.netns.test.ts`. Throws when this is the network namespace that the test was started from. */
export function mustBeIsolated(): void {
  const outer = process.env['CAUSEWAY_OUTER_NETNS'];
  if (outer !== undefined && outer !== readlinkSync('/proc/self/ns/net')) return;
  throw new Error('This test changes the network of the machine it runs on; run it with: ./causeway test kernel PART-OF-ITS-NAME');
}
