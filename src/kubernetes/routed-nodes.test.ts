// Nodes are told what the router knows of them, by as few writes as possible, and what they were told before is taken back.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault } from '#model/fault.ts';
import { type Cidr, parseCidr } from '#model/ip.ts';
import { readAnnotations } from './annotations.ts';
import { nodeOf } from './cloud-objects.fixture.ts';
import { type RoutedNode, tellRouted } from './routed-nodes.ts';

/** Of as many nodes; a server that takes annotations, but not those of `deaf`. */
function bed(count: number, deaf?: string) {
  const nodes = Array.from({ length: count }, (_, index) => nodeOf(index + 1));
  const written: string[] = [];
  const failures: string[] = [];
  const notesOf = (name: string): Record<string, string> =>
    Object(nodes.find(({ metadata }) => metadata.name === name)?.metadata['annotations']);
  const patch = (path: string, change: { metadata?: { annotations: Record<string, string | null> } }): Promise<unknown> => {
    const [, name = ''] = /^\/api\/v1\/nodes\/([^/]+)\/status$/.exec(path) ?? [];
    written.push(name);
    if (name === deaf) return Promise.reject(new Fault('forbidden', 'no'));
    for (const [key, value] of Object.entries(change.metadata?.annotations ?? {})) {
      if (value === null) delete notesOf(name)[key];
      else notesOf(name)[key] = value;
    }
    return Promise.resolve({});
  };
  const tell = async (found: readonly RoutedNode[] | undefined): Promise<string[]> => {
    written.length = 0;
    await tellRouted({ client: { patch }, failed: (node, { message }) => failures.push(`${node}: ${message}`) }, nodes, found);
    return [...written];
  };
  const told = (name: string) => readAnnotations({ 'causeway.dev/carry': 'routes', ...notesOf(name) }).carrying?.routed;
  return { tell, told, failures, notesOf };
}
const own = (index: number): readonly Cidr[] => [parseCidr(`10.244.${index}.0/24`)];

test('each is told its own ranges or why it has none, once, and nothing is left when nothing is carried so', async () => {
  const { tell, told, notesOf } = bed(3);
  const found = [
    { host: 'node1', to: own(1), problem: 'it is full' },
    { host: 'node2', to: [], problem: 'it is full (request req-1)' },
    { host: 'elsewhere', to: own(9) },
  ];
  assert.deepEqual(await tell(found), ['node1', 'node2']);
  assert.deepEqual(['node1', 'node2', 'node3'].map(told), [{ to: ['10.244.1.0/24'] }, { to: [], problem: 'it is full' }, undefined]);
  const again = found.map((one) => ({ ...one, problem: 'it is full (request req-2)' }));
  assert.deepEqual(await tell(again), [], 'another request is no news');
  assert.deepEqual(await tell([{ host: 'node2', to: own(2) }]), ['node1', 'node2']);
  assert.deepEqual([told('node1'), told('node2')], [undefined, { to: ['10.244.2.0/24'] }]);
  assert.deepEqual(await tell(undefined), ['node2']);
  assert.deepEqual(Object.keys(notesOf('node2')).toSorted(), ['causeway.dev/carry', 'causeway.dev/pod-cidrs']);
});

test('one that cannot be told is named, and keeps no other from being told', async () => {
  const { tell, told, failures } = bed(2, 'node1');
  assert.deepEqual(await tell([1, 2].map((index) => ({ host: `node${index}`, to: own(index) }))), ['node1', 'node2']);
  assert.deepEqual([failures, told('node2')], [['node1: no'], { to: ['10.244.2.0/24'] }]);
});
