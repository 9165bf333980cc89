// Host endpoints followed: from the API's objects to what the node needs, and back when they go.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { MemoryJournal } from '#agent/journal.ts';
import { parseIp } from '#model/ip.ts';
import type { PolicyFacts } from '#model/policy.ts';
import { type Answers, listOf, serve } from './api.fixture.ts';
import { KubernetesPolicies } from './policy-source.ts';

const group = '/apis/projectcalico.org/v3';
const object = (name: string, spec: object, labels: object = {}): object => ({ metadata: { name, labels, resourceVersion: '2' }, spec });
const endpoint = (name: string, spec: object): object => object(name, { node: 'host1', ...spec }, { role: 'edge' });

async function eventually(look: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !look(); await setTimeout(5)) assert.ok(performance.now() < end, 'not within ten seconds');
}
const linksOf = (facts: PolicyFacts | undefined) => facts?.host?.links.map(({ name, link, policies }) => [name, link, policies]);

test('host endpoints, failsafe ports and policies of hosts are followed, told of, kept, and gone when they go', async (t) => {
  const { api, client } = await serve(t);
  const policy = { selector: "role == 'edge'", types: ['Ingress'], ingress: [{ action: 'Allow', source: { selector: "role == 'edge'" } }] };
  const own = endpoint('eth0', { interfaceName: 'eth0' });
  const others = [
    endpoint('other', { node: 'host2', interfaceName: '*', expectedIPs: ['192.0.2.2'] }),
    endpoint('wrong', { interfaceName: 7 }),
  ];
  const say = (hostEndpoints: Answers): void => {
    // What else Calico has is not there.
    api.lists = Array.from({ length: 50 }, () => 404);
    const lists = {
      '/api/v1/namespaces': [],
      '/api/v1/pods': [],
      '/api/v1/serviceaccounts': [],
      '/apis/networking.k8s.io/v1/networkpolicies': [],
      [`${group}/felixconfigurations`]: [object('default', { failsafeInboundHostPorts: [{ port: 22 }] })],
      [`${group}/globalnetworkpolicies`]: [object('edge', policy)],
    };
    for (const [path, items] of Object.entries(lists)) api.paths.set(path, { lists: [listOf(1, items)], watches: [] });
    api.paths.set(`${group}/hostendpoints`, hostEndpoints);
  };
  const journal = new MemoryJournal();
  const told: object[] = [];
  const follow = (): KubernetesPolicies => {
    const hosts = { node: 'host1', apiPort: 6443, pods: [], links: () => new Map([[parseIp('192.0.2.1'), 'eth1']]) };
    const source = new KubernetesPolicies({
      client,
      journal,
      hosts,
      log: { warn: (fields) => told.push(fields) },
      changed: () => undefined,
    });
    source.start();
    t.after(() => source[Symbol.asyncDispose]());
    return source;
  };
  say({ lists: [listOf(1, [own, ...others])], watches: [] });
  const first = follow();
  await eventually(() => first.isSynced() && first.current([])?.host !== undefined);
  const facts = first.current([]);
  assert.deepEqual(linksOf(facts), [['HostEndpoint eth0', 'eth0', ['GlobalNetworkPolicy edge']]]);
  assert.deepEqual([...(facts?.sets.values() ?? [])], [['192.0.2.2/32']]);
  assert.deepEqual(
    facts?.host?.failsafes.filter(({ direction }) => direction === 'in').map(({ port, cidr }) => [port, cidr]),
    [
      [22, '0.0.0.0/0'],
      [22, '::/0'],
    ],
  );
  assert.equal(first.current([]), facts);
  assert.ok(
    told.some((fields) => JSON.stringify(fields).includes('spec.interfaceName')),
    JSON.stringify(told),
  );
  await first[Symbol.asyncDispose]();
  say({ lists: [503], watches: [] });
  const second = follow();
  assert.deepEqual(second.current([]), facts);
  await second[Symbol.asyncDispose]();
  say({ lists: [listOf(1, [own, ...others])], watches: [[{ type: 'DELETED', object: own }]] });
  const third = follow();
  await eventually(() => third.isSynced() && third.current([])?.host === undefined);
});
