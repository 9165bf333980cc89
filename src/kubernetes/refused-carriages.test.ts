// Nodes whose cloud does not let be what they were told to carry by are told so, once, and told again when it does; what the cloud has to
// allow follows from what they were told, whatever they do meanwhile.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Carrying, CarryName } from '#model/resources.ts';
import { readAnnotations, writeOwn } from './annotations.ts';
import { clusterWish, noObjects } from './cloud-facts.ts';
import { type Item, keyed, nodeOf, plainServing } from './cloud-objects.fixture.ts';
import { allowCarriages, carriedBy, refuseCarriages, wantedOf } from './refused-carriages.ts';

const because = 'the login to the cloud may not write allowed address pairs';
type Notes = Record<string, string>;

/** A cluster of nodes that were told to carry so; a server that takes annotations. */
function bed(...told: readonly CarryName[]) {
  const configured = new Map(told.map((carry, index) => [`node${index + 1}`, carry]));
  const nodes = told.map((carry, index) =>
    nodeOf(index + 1, { annotations: { 'causeway.dev/carry': carry, 'causeway.dev/pod-cidrs': '10.244.0.0/16' } }),
  );
  const written: string[] = [];
  const learnt: unknown[] = [];
  const itemOf = (name: string): Item => nodes.find(({ metadata }) => metadata.name === name) ?? assert.fail(name);
  const notesOf = (name: string): Notes => Object(itemOf(name).metadata['annotations']);
  const write = (name: string, annotations: Readonly<Record<string, string | null>>): void => {
    for (const [key, value] of Object.entries(annotations)) {
      if (value === null) delete notesOf(name)[key];
      else notesOf(name)[key] = value;
    }
  };
  const patch = (path: string, { metadata }: { metadata?: { annotations: Record<string, string | null> } }): Promise<unknown> => {
    const [, name = ''] = /^\/api\/v1\/nodes\/([^/]+)\/status$/.exec(path) ?? [];
    written.push(name);
    write(name, metadata?.annotations ?? {});
    return Promise.resolve(itemOf(name));
  };
  const carryingOf = (name: string): Carrying => readAnnotations(notesOf(name)).carrying ?? assert.fail(name);
  return {
    options: { client: { patch }, nodes, learn: (item: unknown) => void learnt.push(item) },
    written,
    learnt,
    notesOf,
    networks: () => clusterWish({ ...noObjects(), nodes: keyed(...nodes) }, plainServing).facts.networks,
    /** As its agent writes it. */
    agent: (name: string, sends: readonly CarryName[], carry = configured.get(name) ?? 'vxlan'): Carrying => {
      write(name, writeOwn({ carrying: { ...wantedOf(carry, carryingOf(name)), sends, receives: sends } }));
      return carryingOf(name);
    },
  };
}
const words = (networks: ReturnType<ReturnType<typeof bed>['networks']>): string[] =>
  networks.map(({ choices, instead }) => `${choices.carry}${instead === undefined ? '' : ` instead of ${instead.carry}`}`);

test('nodes that want it are told, need VXLAN from then on, go over, and back when they are told that it may be', async () => {
  const { options, networks, written, learnt, agent, notesOf } = bed('host-gateway', 'wireguard', 'host-gateway');
  assert.deepEqual(words(networks()), ['host-gateway', 'wireguard']);
  const before = networks();
  await refuseCarriages(options, before, because);
  assert.deepEqual([written, learnt.length], [['node1', 'node3'], 2]);
  assert.equal(notesOf('node1')['causeway.dev/not-allowed'], `host-gateway: ${because}`);
  assert.deepEqual(words(networks()), ['vxlan instead of host-gateway', 'wireguard'], 'before any agent has done anything');
  assert.equal(networks()[0]?.instead?.because, because);
  await refuseCarriages(options, before, `${because}, again`);
  assert.equal(written.length, 2, 'who was told is not told again');

  const { wants, insteadOf } = agent('node1', ['vxlan']);
  assert.deepEqual([wants, insteadOf], ['vxlan', 'host-gateway']);
  assert.deepEqual(words(networks()), ['vxlan instead of host-gateway', 'wireguard']);

  await allowCarriages(options, networks());
  assert.equal(notesOf('node1')['causeway.dev/not-allowed'], undefined);
  assert.deepEqual(words(networks()), ['host-gateway', 'vxlan', 'wireguard'], 'until it sends by nothing else');
  assert.equal(agent('node1', ['host-gateway']).insteadOf, undefined);
  assert.deepEqual(words(networks()), ['host-gateway', 'wireguard']);
});

test('a node that is told otherwise by its user takes back what it was told, and one that comes is told for itself', async () => {
  const { options, networks, written, agent, notesOf } = bed('bgp', 'bgp');
  await refuseCarriages(options, networks(), because);
  agent('node1', ['vxlan'], 'vxlan');
  assert.equal(notesOf('node1')['causeway.dev/not-allowed'], undefined);
  agent('node2', ['vxlan']);
  assert.equal(notesOf('node2')['causeway.dev/not-allowed'], `bgp: ${because}`);
  agent('node1', ['vxlan'], 'direct-routing');
  assert.deepEqual(words(networks()), ['direct-routing', 'vxlan', 'vxlan instead of bgp']);
  written.length = 0;
  await refuseCarriages(options, networks(), because);
  assert.deepEqual(written, ['node1']);
  assert.deepEqual(words(networks()), ['vxlan instead of bgp', 'vxlan instead of direct-routing']);
});

test('what a node sends by and may not is not needed, and what nobody can read was not said', () => {
  const refused = { carries: ['routes'], because } as const;
  assert.deepEqual(carriedBy({ wants: 'routes', sends: ['routes', 'wireguard'], refused }), [
    { carry: 'wireguard' },
    { carry: 'vxlan', instead: { carry: 'routes', because } },
  ]);
  assert.deepEqual(carriedBy({ wants: 'wireguard', sends: ['routes'], refused }), [{ carry: 'wireguard' }]);
  for (const text of ['', 'routes', ': why', 'some-day: why', 'routes:'])
    assert.equal(readAnnotations({ 'causeway.dev/carry': 'vxlan', 'causeway.dev/not-allowed': text }).carrying?.refused, undefined, text);
});
