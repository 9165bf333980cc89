// The follower on a server of listings that takes statuses, and what it writes there.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault } from '#model/fault.ts';
import type { KubernetesClient } from './client.ts';
import { nodeOf, plainServing, serviceOf } from './cloud-objects.fixture.ts';
import { CloudSource, readCluster, type Served } from './cloud-source.ts';
import { listings } from './stored.fixture.ts';

interface Status {
  readonly loadBalancer?: { readonly ingress?: readonly { readonly ip: string }[] };
  readonly conditions?: readonly { readonly type: string; readonly reason: string; readonly status: string; readonly message: string }[];
}

interface Event {
  readonly involvedObject: { readonly name: string };
  readonly type: string;
  readonly reason: string;
  readonly message: string;
}

/** Lists Nodes and Services, knows nothing of custom resources; keeps what is written by the service's name. */
function server(...services: readonly object[]) {
  const written = new Map<string, Status>();
  const events: string[] = [];
  const client = {
    ...listings((path) => {
      const items =
        { '/api/v1/nodes': [nodeOf(1)], '/api/v1/services': services }[path] ?? (path.endsWith('endpointslices') ? [] : undefined);
      return items === undefined ? Promise.reject(new Fault('not-found', 'no such resource')) : Promise.resolve({ items, revision: 1 });
    }),
    // oxlint-disable-next-line require-yield -- a stream of changes in which nothing changes
    watch: async function* (_: string, __: number, signal: AbortSignal) {
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    },
    create: (_: string, { involvedObject, type, reason, message }: Event) => {
      events.push(`${involvedObject.name} ${type} ${reason}: ${message}`);
      return Promise.resolve({});
    },
    replace: (path: string, object: { readonly status: Status }) => {
      written.set(path.split('/').at(-2) ?? '', object.status);
      return Promise.resolve(object);
    },
  };
  return { written, events, client: client as unknown as KubernetesClient };
}

type Telling = (source: CloudSource) => Promise<void>;
async function told(of: ReturnType<typeof server>, served: readonly Served[] | Telling, times = 1): Promise<Record<string, Status>> {
  const stop = new AbortController();
  let news = 0;
  const source = new CloudSource({
    client: of.client,
    log: { info: () => undefined, warn: () => undefined },
    serving: plainServing,
    date: () => new Date('2026-01-01T00:00:00Z'),
    isLeading: () => true,
    changed: () => news++,
  });
  const running = source.run(stop.signal);
  await source.whole;
  assert.ok(news > 0);
  for (let time = 0; time < times; time++) await (typeof served === 'function' ? served(source) : source.tell(served));
  stop.abort();
  await running;
  return Object.fromEntries(of.written);
}
const brief = ({ loadBalancer, conditions = [] }: Status = {}): string[] => [
  ...(loadBalancer?.ingress ?? []).map(({ ip }) => ip),
  ...conditions.map(({ type, status, reason, message }) => `${type} ${status} ${reason}: ${message}`),
];
const idOf = (name: string): string => `000011112222${name}`.slice(0, 16);
const own = 'causeway.dev/LoadBalancer';

test('a cluster is read once as well, whatever of custom resources its server lacks', async () => {
  const { facts } = await readCluster(server(serviceOf('web')).client, plainServing);
  assert.deepEqual([facts.hosts.length, facts.networks.length, facts.services.length], [1, 1, 1]);
});

test('addresses are written to services, with what is passed over; what cannot be is a condition', async () => {
  const of = server(
    serviceOf('web', { clusterIPs: ['10.96.0.7', 'fd96::7'] }),
    serviceOf('slow'),
    serviceOf('short'),
    serviceOf('bad', {}, { 'proxy-protocol': 'v3' }),
    serviceOf('new'),
    serviceOf('other', { loadBalancerClass: 'example.org/x' }),
  );
  const found = await told(of, [
    { id: idOf('web'), address: '203.0.113.7', balancer: 'causeway-shop-web', notes: [], problems: [] },
    { id: idOf('slow'), balancer: 'causeway-shop-slow', notes: [], problems: [] },
    {
      id: idOf('short'),
      address: '203.0.113.8',
      notes: [],
      balancer: 'causeway-shop-short',
      problems: ['Service shop/short: host node2 is not known'],
    },
  ]);
  assert.deepEqual(brief(found['web']), [
    '203.0.113.7',
    `${own} True Made: It is load balancer causeway-shop-web. It is reached by IPv4 only`,
  ]);
  assert.deepEqual(brief(found['slow']), [`${own} False NoAddress: It has no address yet`]);
  assert.deepEqual(brief(found['short']), [
    '203.0.113.8',
    `${own} False Incomplete: Service shop/short: host node2 is not known. It is load balancer causeway-shop-short`,
  ]);
  assert.match(brief(found['bad']).join(), /LoadBalancer False Refused: loadbalancer\.openstack\.org\/proxy-protocol: /);
  assert.deepEqual(Object.keys(found).toSorted(), ['bad', 'short', 'slow', 'web'], 'of one that has come meanwhile nothing is said yet');
});

test('clients are told of a name instead of the address, and pods to go by the load balancer where it says who they are', async () => {
  const of = server(
    serviceOf('named', {}, { hostname: 'web.example.org' }),
    serviceOf('told', {}, { 'proxy-protocol': 'true' }),
    serviceOf('slow', {}, { 'x-forwarded-for': 'true' }),
  );
  const found = await told(of, [
    { id: idOf('named'), address: '203.0.113.7', balancer: 'a', notes: [], problems: [] },
    { id: idOf('told'), address: '203.0.113.8', balancer: 'b', notes: [], problems: [] },
    { id: idOf('slow'), balancer: 'c', notes: ['Load balancer c is being made by amphora'], problems: [] },
  ]);
  const shown = (name: string): unknown => found[name]?.loadBalancer?.ingress;
  assert.deepEqual(
    [shown('named'), shown('told'), shown('slow')],
    [[{ hostname: 'web.example.org' }], [{ ip: '203.0.113.8', ipMode: 'Proxy' }], []],
  );
  assert.deepEqual(brief(found['slow']), [`${own} False NoAddress: It has no address yet. Load balancer c is being made by amphora`]);
});

test('an Event tells what is worth telling, once, also where a server drops conditions', async () => {
  const of = server(serviceOf('web'), serviceOf('slow'), serviceOf('bad', {}, { 'lb-method': 'RANDOM' }));
  const served = [
    { id: idOf('web'), address: '203.0.113.7', balancer: 'b', notes: [], problems: [] },
    { id: idOf('slow'), notes: [], problems: [] },
  ];
  await told(of, served, 3);
  assert.deepEqual(of.events, [
    'web Normal LoadBalancerMade: It is load balancer b',
    'bad Warning LoadBalancerRefused: loadbalancer.openstack.org/lb-method: "RANDOM" is none of ROUND_ROBIN, LEAST_CONNECTIONS, SOURCE_IP and SOURCE_IP_PORT',
  ]);
});

const refusedBy = (id: string): Served[] => [{ id: idOf('web'), notes: [], problems: [`Octavia refuses it (request ${id})`] }];

test('what is refused again by a request of another id is nothing new', async () => {
  const of = server(serviceOf('web'));
  const found = await told(of, async (source) => {
    for (const id of ['req-1', 'req-2']) await source.tell(refusedBy(id));
  });
  assert.deepEqual(of.events, ['web Warning LoadBalancerNoAddress: Octavia refuses it (request req-1)']);
  const again = await told(server(serviceOf('web', {}, {}, found['web'])), refusedBy('req-3'));
  assert.equal(again['web'], undefined);
});

test('while the cloud cannot be worked with, those without an address are told why, and no others are touched', async () => {
  const status = { loadBalancer: { ingress: [{ ip: '203.0.113.7' }] }, conditions: [] };
  const of = server(
    serviceOf('web', { clusterIPs: ['10.96.0.7', 'fd96::7'] }),
    serviceOf('had', {}, {}, status),
    serviceOf('bad', {}, { 'proxy-protocol': 'v3' }),
  );
  const found = await told(of, (source) => source.tellFailure(['Keystone refuses the login']));
  assert.deepEqual(brief(found['web']), [`${own} False NoAddress: Keystone refuses the login. It is reached by IPv4 only`]);
  assert.match(brief(found['bad']).join(), /Refused/);
  assert.equal(found['had'], undefined);
  assert.ok(of.events.includes(`web Warning LoadBalancerNoAddress: Keystone refuses the login. It is reached by IPv4 only`));

  const later = await told(of, async (source) => {
    await source.tellFailure(['Keystone refuses the login']);
    await source.tell([{ id: idOf('web'), address: '203.0.113.9', balancer: 'b', notes: [], problems: [] }]);
  });
  assert.equal(brief(later['web'])[0], '203.0.113.9');
});

test('what is no load balancer any more, and what lost its address, loses our words and the address', async () => {
  const status = {
    loadBalancer: { ingress: [{ ip: '203.0.113.7' }] },
    conditions: [
      { type: own, status: 'True', reason: 'Made', message: 'x' },
      { type: 'theirs', status: 'True', reason: 'y', message: 'z' },
    ],
  };
  const of = server(serviceOf('left', { type: 'ClusterIP' }, {}, status), serviceOf('lost', {}, {}, status));
  const found = await told(of, [
    { id: idOf('lost'), notes: [], problems: ['Service shop/lost has no load balancer: the cloud has no Octavia'] },
  ]);
  assert.deepEqual(brief(found['left']), ['theirs True y: z']);
  assert.deepEqual(brief(found['lost']), [
    'theirs True y: z',
    `${own} False NoAddress: Service shop/lost has no load balancer: the cloud has no Octavia`,
  ]);
});

test('what is written already is not written again', async () => {
  const status = {
    loadBalancer: { ingress: [{ ip: '203.0.113.7', ports: [] }] },
    conditions: [
      { type: own, status: 'True', reason: 'Made', message: 'It is load balancer b', lastTransitionTime: '2025-01-01T00:00:00Z' },
    ],
  };
  const served = [{ id: idOf('web'), address: '203.0.113.7', balancer: 'b', notes: [], problems: [] }];
  const of = server(serviceOf('web', {}, {}, status));
  assert.deepEqual([await told(of, served, 2), of.events], [{}, []]);
});
