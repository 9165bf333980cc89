// Kernel tests change addresses, routes and rules of the namespace they find themselves in. `causeway test kernel` gives each
// file one of its own (test/isolated-node); started in any other way they must not touch the machine's.
import { readlinkSync } from 'node:fs';

/** To be called first in every `*.netns.test.ts`. Throws in the network namespace of the machine's first process. */
export function mustBeIsolated(): void {
  if (readlinkSync('/proc/self/ns/net') !== readlinkSync('/proc/1/ns/net')) return;
  throw new Error('This test changes the network of the machine it runs on; run it with: ./causeway test kernel PART-OF-ITS-NAME');
}
