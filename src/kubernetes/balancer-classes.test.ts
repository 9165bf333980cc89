import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { classed, readClasses } from './balancer-classes.ts';

const prefix = 'loadbalancer.openstack.org/';
const all = readClasses(
  '{"dmz":{"floating-network-id":"ext","floating-subnet-id":"dmz","subnet-id":"inside"},"office":{"member-subnet-id":"m"}}',
);
const said = (annotations: Readonly<Record<string, string>>): object => {
  const whole = classed(Object.fromEntries(Object.entries(annotations).map(([key, value]) => [prefix + key, value])), all);
  return Object.fromEntries(Object.entries(whole).map(([key, value]) => [key.slice(prefix.length), value]));
};

test('a class says where floating IPs are of, before the service, and other places where the service says none', () => {
  assert.deepEqual(said({ class: 'dmz' }), {
    class: 'dmz',
    'floating-network-id': 'ext',
    'floating-subnet-id': 'dmz',
    'subnet-id': 'inside',
  });
  assert.deepEqual(said({ class: 'dmz', 'floating-network-id': 'x', 'floating-subnet': 'y', 'subnet-id': 'own' }), {
    class: 'dmz',
    'floating-network-id': 'ext',
    'floating-subnet-id': 'dmz',
    'subnet-id': 'own',
  });
  assert.deepEqual(said({ class: 'office', 'floating-subnet': 'y' }), { class: 'office', 'floating-subnet': 'y', 'member-subnet-id': 'm' });
  assert.deepEqual(said({ class: ' ', 'subnet-id': 's' }), { class: ' ', 'subnet-id': 's' });
});

test('a class that there is not is told with those that there are', () => {
  assert.throws(() => said({ class: 'toString' }), /class: there is no class "toString", only dmz, office/);
  assert.throws(() => classed({ [`${prefix}class`]: 'dmz' }, {}), /there is no class "dmz", and no other one/);
});

for (const text of ['', '3', '{"dmz":{"floating-subnet":1}}', '{"dmz":{"colour":"red"}}', '{"dmz":{"subnet-id":""}}']) {
  test(`no classes are ${text}`, () => {
    assert.throws(
      () => readClasses(text),
      (error) => isFault(error, 'invalid'),
    );
  });
}
