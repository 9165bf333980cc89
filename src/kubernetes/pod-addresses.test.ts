import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { parseIp } from '#model/ip.ts';
import { namespaceLabel } from '#model/selector.ts';
import { poolId } from './blocks.ts';
import { readPool } from './calico.ts';
import { CalicoFacts, readCalicoNode } from './calico-facts.ts';
import { choosePools, type Described } from './pod-addresses.ts';

const facts = new CalicoFacts(undefined);
for (const [name, spec] of Object.entries({
  a: { cidr: '10.1.0.0/16' },
  b: { cidr: '10.2.0.0/16', namespaceSelector: "team == 'b'" },
  c: { cidr: '10.3.0.0/16', nodeSelector: "rack == 'c'" },
  six: { cidr: 'fd00::/64' },
  manual: { cidr: '10.4.0.0/16', assignmentMode: 'Manual' },
  off: { cidr: '10.5.0.0/16', disabled: true },
  overlapping: { cidr: '10.1.2.0/24' },
}))
  facts.pools.set(name, readPool(name, spec));
const node = (name: string, labels: object): void => {
  const item = {
    metadata: { name, resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z', labels },
    status: { addresses: [{ type: 'InternalIP', address: '10.213.0.1' }] },
  };
  const host = readCalicoNode(item);
  assert.ok(host !== undefined);
  facts.hosts.set(name, host);
};
node('plain', {});
node('racked', { rack: 'c' });

const described = (annotations: Readonly<Record<string, string>> = {}): Described => ({
  labels: {},
  annotations: Object.fromEntries(Object.entries(annotations).map(([key, value]) => [`cni.projectcalico.org/${key}`, value])),
});
const choose = (host: string, namespace: Readonly<Record<string, string>>, pod: Described = described(), around: Described = described()) =>
  choosePools({ pools: facts.usable(), usual: facts.poolsFor(host, namespace), pod, namespace: around });
const ids = (...names: readonly string[]): { readonly pools: readonly string[] } => ({ pools: names.map(poolId) });

test('pools are those for the node and the namespace, one choice for each family', () => {
  assert.deepEqual(choose('plain', { [namespaceLabel]: 'x' }), [ids('a'), ids('six')]);
  assert.deepEqual(choose('plain', { team: 'b' }), [ids('a', 'b'), ids('six')]);
  assert.deepEqual(choose('racked', {}), [ids('a', 'c'), ids('six')]);
});

test('annotations of the pod win over those of the namespace, and both over selectors', () => {
  const wishes = described({ ipv4pools: '["manual", "10.2.0.0/16"]' });
  assert.deepEqual(choose('plain', {}, wishes), [ids('manual', 'b'), ids('six')]);
  assert.deepEqual(choose('plain', {}, described(), wishes), [ids('manual', 'b'), ids('six')]);
  assert.deepEqual(choose('plain', {}, described({ ipv4pools: '["a"]' }), wishes), [ids('a'), ids('six')]);
  assert.deepEqual(choose('plain', {}, described({ ipAddrs: '["10.4.0.9"]' })), [
    { ...ids('manual'), ip: parseIp('10.4.0.9') },
    ids('six'),
  ]);
});

const bad: readonly (readonly [string, Readonly<Record<string, string>>, string])[] = [
  ['no list', { ipv4pools: 'a' }, 'invalid'],
  ['a pool that overlaps another', { ipv4pools: '["overlapping"]' }, 'invalid'],
  ['a pool that is not there', { ipv4pools: '["z"]' }, 'not-found'],
  ['a pool of the other family', { ipv4pools: '["six"]' }, 'invalid'],
  ['a pool that is switched off', { ipv4pools: '["off"]' }, 'invalid'],
  ['an address that is none', { ipAddrs: '["10.4.0"]' }, 'invalid'],
  ['an address in no pool', { ipAddrs: '["192.0.2.1"]' }, 'invalid'],
];
for (const [what, annotations, code] of bad) {
  test(`an annotation with ${what} is refused, and named`, () => {
    assert.throws(
      () => choose('plain', {}, described(annotations)),
      (error) => isFault(error) && error.code === code && error.field === `cni.projectcalico.org/${Object.keys(annotations)[0]}`,
    );
  });
}

test('a pod that no pool is for gets no address', () => {
  assert.throws(
    () => choosePools({ pools: [], usual: [], pod: described(), namespace: described() }),
    (error) => isFault(error, 'exhausted'),
  );
});
