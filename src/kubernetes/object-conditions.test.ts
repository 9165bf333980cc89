// What is said in the conditions of Calico's resources: each that cannot be followed by the name of its field, and of host endpoints
// whether their node has them.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { ObjectConditions } from './object-conditions.ts';
import { type Item, Server } from './stored.fixture.ts';

const group = '/apis/projectcalico.org/v3';
const hosts = '/apis/causeway.dev/v1alpha1/hostpolicies';
const object = (name: string, spec: unknown, namespace?: string): Item => ({
  metadata: { name, ...(namespace === undefined ? {} : { namespace }), resourceVersion: '1', generation: 2 },
  spec,
});
const cases: readonly (readonly [resource: string, item: Item, said: RegExp])[] = [
  ['tiers', object('fine', { order: 5 }), /^Accepted /],
  ['tiers', object('default', { order: 5 }), /^Unsupported spec: stays as it always is/],
  ['networksets', object('threats', { nets: ['198.51.100.300'] }, 'shop'), /^Invalid spec\.nets\[0\]: expected/],
  ['globalnetworksets', object('threats', { nets: ['everywhere'] }), /^Invalid spec\.nets\[0\]: expected/],
  [
    'felixconfigurations',
    object('default', { failsafeInboundHostPorts: [{ port: 1, net: '192.0.2.0/40' }] }),
    /^Invalid spec\.failsafeInboundHostPorts\.0\.net: /,
  ],
  ['kubecontrollersconfigurations', object('other', {}), /^Unsupported metadata\.name: /],
  [
    'ippools',
    object('small', { cidr: '10.0.0.0/24', blockSize: 20 }),
    /^Invalid spec\.blockSize: 20 is not between 24 and 32; it counts as it was when it could be read, if it ever could/,
  ],
  ['ippools', object('odd', { cidr: '10.0.0.0/33' }), /^Invalid spec\.cidr: .*; it counts as it was/],
  ['ippools', object('whole', { cidr: '10.7.0.0/16' }), /^Accepted /],
  [
    'ippools',
    object('within', { cidr: '10.7.9.0/24' }),
    /^Invalid spec\.cidr: overlaps 10\.7\.0\.0\/16 of IPPool whole, which is older; no pod gets an address of it/,
  ],
  ['ipreservations', object('odd', { reservedCIDRs: ['x'] }), /^Invalid spec\.reservedCIDRs\.0: /],
  ['ipamconfigurations', object('default', { maxBlocksPerHost: -1 }), /^Invalid spec\.maxBlocksPerHost: /],
  ['bgpconfigurations', object('node.a', {}), /^Invalid name: .*only the one named default/],
  ['bgppeers', object('both', { peerIP: '192.0.2.1', peerSelector: 'all()' }), /^Invalid /],
  ['bgpfilters', object('odd', { importV4: [{ action: 'Perhaps' }] }), /^Invalid spec\.importV4\.0\.action: /],
];

async function eventually(look: () => boolean): Promise<void> {
  for (const until = performance.now() + 10_000; !look(); await setTimeout(2))
    assert.ok(performance.now() < until, 'not within ten seconds');
}
function start(t: TestContext, server: Server): void {
  const stop = new AbortController();
  const conditions = new ObjectConditions({
    client: server.client,
    log: { warn: (_, message) => assert.fail(message) },
    isLeading: () => true,
    date: () => new Date('2026-01-01T00:00:00.500Z'),
    pace: { passMs: 1, writeMs: 1 },
  });
  const running = conditions.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
  });
}
interface Shown {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration: number;
}
const shown = (server: Server, resource: string, name: string): readonly Shown[] => {
  const { status } = server.of(`${group}/${resource}`).find(({ metadata }) => metadata.name === name) ?? {};
  return (status as { readonly conditions: readonly Shown[] } | undefined)?.conditions ?? [];
};

test('each resource that cannot be followed says so by the name of its field', async (t) => {
  const byResource = Map.groupBy(cases, ([resource]) => resource);
  const server = new Server([...byResource].map(([resource, some]) => [`${group}/${resource}`, some.map(([, item]) => item)] as const));
  start(t, server);
  for (const [resource, item, said] of cases) {
    await eventually(() => shown(server, resource, item.metadata.name).length === 1);
    const [{ type, reason, message, observedGeneration } = assert.fail()] = shown(server, resource, item.metadata.name);
    assert.equal(type, 'causeway.dev/Accepted');
    assert.match(`${reason} ${message}`, said);
    assert.equal(observedGeneration, 2);
  }
  assert.equal(server.writes.length, cases.length);
});

const block = (cidr: string): Item => ({
  metadata: { name: cidr.replaceAll(/[./]/g, '-'), resourceVersion: '3', creationTimestamp: '2026-01-01T00:00:00Z' },
  spec: { pool: 'whole', cidr, host: 'a' },
});
test('of a pool it is said when it was changed after blocks of it were claimed', async (t) => {
  const blocks = '/apis/causeway.dev/v1alpha1/blocks';
  const said = (): string => shown(server, 'ippools', 'whole')[0]?.message ?? '';
  const server = new Server([
    [`${group}/ippools`, [object('whole', { cidr: '10.7.0.0/16', blockSize: 28 })]],
    [blocks, [block('10.7.0.0/26'), ...[0, 1, 2, 3].map((index) => block(`10.8.${index}.0/26`))]],
  ]);
  start(t, server);
  await eventually(() => said() !== '');
  assert.equal(
    said(),
    'spec.cidr: nodes have blocks outside of it, 10.8.0.0/26, 10.8.1.0/26, 10.8.2.0/26 and 1 more; pods keep their addresses of these, and no other gets one. spec.blockSize: nodes have blocks /26 of it; others are as large as long as there are any',
  );
  for (const index of [0, 1, 2, 3]) server.remove(blocks, `10-8-${index}-0-26`);
  await eventually(() => said().startsWith('spec.blockSize'));
  server.remove(blocks, '10-7-0-0-26');
  await eventually(() => said() === 'All of it is followed');
});

test('of a host endpoint it is said whether its node has it, which generation, and why not', async (t) => {
  const path = `${group}/hostendpoints`;
  const fine = object('one', { node: 'a', interfaceName: 'eth0' });
  const server = new Server([
    [path, [fine, object('wrong', { node: 'a' })]],
    [hosts, []],
  ]);
  const told = (hostEndpoints: object, more: object = {}): unknown =>
    server.put(hosts, { metadata: { name: 'a' }, inForce: {}, known: {}, hostEndpoints, ...more });
  const force = (): string =>
    shown(server, 'hostendpoints', 'one')
      .map(({ reason }) => reason)
      .join();
  start(t, server);
  await eventually(() => force() === 'Accepted,Pending' && shown(server, 'hostendpoints', 'wrong').length > 0);
  assert.deepEqual(
    shown(server, 'hostendpoints', 'wrong').map(({ reason, message }) => [reason, message.split(':')[0]]),
    [['Invalid', 'spec']],
  );
  told({ one: { generation: 1 } });
  await setTimeout(30);
  assert.equal(force(), 'Accepted,Pending');
  told({ one: { generation: 2, problem: 'no link has its address' } });
  await eventually(() => force() === 'Accepted,WithoutEffect');
  assert.equal(shown(server, 'hostendpoints', 'one')[1]?.message, 'no link has its address');
  told({ one: { generation: 2 } });
  await eventually(() => force() === 'Accepted,InForce');
  told({ one: { generation: 2 } }, { problem: 'the kernel does not take it' });
  await eventually(() => force() === 'Accepted,Refused');
});
