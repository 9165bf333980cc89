// Which port is a host's, in clouds whose addresses do not tell.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { isFault } from '#model/fault.ts';
import type { Host } from '#model/resources.ts';
import { findPort, readInstances } from './instances.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import { planCloud } from './plan.ts';
import { portOf, stateOf } from './plan.fixture.ts';
import { sentence } from './sentences.ts';
import { type Answer, cloudOf, json, keystone, serving } from './server.fixture.ts';
import { CloudSession } from './session.ts';
import { serverLabel } from '#model/cloud-services.ts';
import { instanceLabel, wishOf } from './wish.ts';

interface Cloud {
  readonly ports: readonly NeutronPort[];
  /** Names by id; absent: the catalogue has no Nova. */
  readonly servers?: Readonly<Record<string, string>>;
  /** In the place of Nova's answers. */
  readonly instead?: Answer;
  readonly isNamed?: boolean;
}

const wishFor = (hosts: readonly Host[]) =>
  wishOf({ hosts, networks: [makeNetwork('over')], pools: [], blocks: [], endpoints: [], exposures: [] }, 'cw');
const labelled = (value: string, changes: Partial<Host> = {}): Host => makeHost(1, { labels: { [instanceLabel]: value }, ...changes });

const said = (server: string): Host => makeHost(1, { labels: { [serverLabel]: server } });

/** The plan for these hosts, the ports that were found for them, and what Nova was asked. */
async function planned({ ports, servers, instead, isNamed = true }: Cloud, hosts: readonly Host[]) {
  let url = '';
  const asked: string[] = [];
  const identity = keystone(() => url, { catalog: servers === undefined ? [] : [{ type: 'compute', endpoints: [] }] });
  await using server = await serving((request, response, body) => {
    if (request.url === '/v3/auth/tokens') return identity.answer(request, response, body);
    const path = new URL(request.url ?? '', url).pathname;
    asked.push(path);
    if (instead !== undefined) return instead(request, response, body);
    const id = path.split('/')[3];
    if (id === undefined) return json(response, 200, { servers: Object.entries(servers ?? {}).map(([one, name]) => ({ id: one, name })) });
    return json(response, 200, { interfaceAttachments: ports.filter(({ device }) => device === id).map((one) => ({ port_id: one.id })) });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url, { overrides: { compute: url } }), { retries: 0 });
  const wish = wishFor(hosts);
  const state = stateOf({ ports, instances: await readInstances(session, ports, { hosts: wish.ports, isNamed }) });
  const found = wish.ports.map((one) => {
    const port = findPort(one, state);
    return typeof port === 'string' ? port : port.id;
  });
  return { plan: planCloud(wish, state), found, asked };
}

/** Two instances on networks with the same addresses. */
const twins = [portOf(1), portOf(2, { id: 'twin', networkId: 'other', addresses: portOf(1).addresses })];
const names = { 'vm-1': 'web', 'vm-2': 'host-1' };

test('a node that a cluster says to be an instance has that one of two ports, without a question to Nova', async () => {
  const [one, twin] = [portOf(1, { device: 'vm-1' }), portOf(2, { id: 'twin', device: 'vm-2', addresses: portOf(1).addresses })];
  for (const [server, port] of [
    ['vm-1', one.id],
    ['vm-2', 'twin'],
  ] as const) {
    const { found, asked } = await planned({ ports: [one, twin], servers: names, isNamed: false }, [said(server)]);
    assert.deepEqual([found, asked], [[port], []]);
  }
  // Of one that has no such port nothing is known by it.
  assert.deepEqual((await planned({ ports: [one], servers: names, isNamed: false }, [said('vm-9')])).found, [one.id]);
});

test('a plan names the instance beside the port, which costs a call', async () => {
  const { plan, asked } = await planned({ ports: [portOf(1), portOf(2)], servers: { 'vm-1': 'web' } }, [makeHost(1), makeHost(2)]);
  const steps = plan.steps.filter(({ type }) => type === 'change-port').map(sentence);
  assert.deepEqual(steps, ['change port of host-1 (port-1 of instance web): joins cw', 'change port of host-2 (port-2): joins cw']);
  assert.deepEqual(asked, ['/v2.1/servers']);
});

test('where names do not matter, Nova is asked only for hosts that need it', async () => {
  const servers = { 'vm-1': 'web' };
  const known = await planned({ ports: [portOf(1)], servers, isNamed: false }, [makeHost(1)]);
  assert.deepEqual([known.found, known.asked], [['port-1'], []]);
  assert.deepEqual((await planned({ ports: twins, servers, isNamed: false }, [makeHost(1)])).found, ['port-1']);
});

test('of instances with the same address the one with the name of the host is it', async () => {
  const { found, plan, asked } = await planned({ ports: twins, servers: names }, [makeHost(1)]);
  assert.deepEqual([found, plan.problems], [['twin'], []]);
  assert.deepEqual(asked, ['/v2.1/servers', '/v2.1/servers/vm-2/os-interface']);
});

test('a port with the same address that is no instance’s is not taken', async () => {
  const { found } = await planned({ ports: twins, servers: { 'vm-1': 'web' } }, [makeHost(1)]);
  assert.deepEqual(found, ['port-1']);
});

test('a label says which instance a host is, by name or id, also against its name', async () => {
  for (const value of ['web', 'vm-1']) {
    const { found } = await planned({ ports: twins, servers: names }, [labelled(value)]);
    assert.deepEqual(found, ['port-1']);
  }
});

test('of several ports of its instance a host has the one with the address that it prefers', async () => {
  const second = portOf(3, { device: 'vm-1' });
  const { underlay } = makeHost(1);
  const both = { underlay: [...makeHost(3).underlay, ...underlay] };
  const ports = [portOf(1), second];
  assert.deepEqual((await planned({ ports, servers: { 'vm-1': 'web' } }, [makeHost(1, both)])).found, [second.id]);
  assert.deepEqual((await planned({ ports, servers: { 'vm-1': 'web' } }, [labelled('web')])).found, ['port-1']);
});

const left: readonly (readonly [string, Cloud, Host, RegExp])[] = [
  [
    'neither instance has the name of the host',
    { ports: twins, servers: { 'vm-1': 'web', 'vm-2': 'shop' } },
    makeHost(1),
    /port-1 \(instance web\) and twin \(instance shop\) have its address; .* or its instance with the label causeway\.dev\/instance/,
  ],
  ['there is no Nova', { ports: twins }, labelled('web'), /ports port-1 and twin have its address; name the network with --network$/],
  [
    'the label names nothing',
    { ports: twins, servers: names },
    labelled('none'),
    /its label causeway\.dev\/instance says none, and the project has no such instance/,
  ],
  [
    'the label names two',
    { ports: twins, servers: { 'vm-1': 'web', 'vm-2': 'web' } },
    labelled('web'),
    /says web, and there are several of that name; use an id: vm-1, vm-2/,
  ],
  [
    'the instance has no port with the address',
    { ports: [portOf(1), portOf(2)], servers: names },
    labelled('vm-2'),
    /no port of its instance host-1 \(vm-2\) has the address 10\.213\.0\.1/,
  ],
];
for (const [name, cloud, host, words] of left) {
  test(`a host is left out, and why is told: ${name}`, async () => {
    const { plan } = await planned(cloud, [host]);
    assert.match(plan.problems.join(), words);
  });
}

const refusing: Answer = (_, response) => json(response, 403, { forbidden: { code: 403, message: 'Policy does not allow it' } });

test('a Nova that does not answer is in nobody’s way who is known by an address; for others nothing is planned', async () => {
  const known = await planned({ ports: [portOf(1)], servers: names, instead: refusing }, [makeHost(1)]);
  assert.deepEqual([known.found, known.plan.problems], [['port-1'], []]);
  const unsure: readonly (readonly [readonly NeutronPort[], Host])[] = [
    [twins, makeHost(1)],
    [[portOf(1)], labelled('web')],
  ];
  for (const [ports, host] of unsure)
    await assert.rejects(planned({ ports, servers: names, instead: refusing }, [host]), (error) => isFault(error, 'forbidden'));
});
