import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNetworkOptions } from './options.ts';

test("networks of Neutron by our names and by kuryr-libnetwork's", () => {
  const both = { model: 'neutron', neutron: { network: 'blue net', subnet: 'low' } };
  assert.deepEqual(parseNetworkOptions({ 'neutron.network': 'blue net', 'neutron.subnet': 'low' }), both);
  assert.deepEqual(
    parseNetworkOptions({ 'neutron.net.name': 'blue net', 'neutron.subnet.v6.name': 'six', 'neutron.security-groups': 'web, db' }),
    {
      model: 'neutron',
      neutron: { network: 'blue net', subnet6: 'six', groups: ['web', 'db'] },
    },
  );
  for (const fallback of ['overlay', '10.70.0.0/16'])
    assert.deepEqual(parseNetworkOptions({ 'neutron.network': 'blue net', 'neutron.fallback': fallback }), {
      model: 'neutron',
      neutron: { network: 'blue net', fallback },
    });
  assert.throws(() => parseNetworkOptions({ 'neutron.fallback': 'vxlan' }), { code: 'invalid', field: 'neutron.fallback' });
  assert.throws(() => parseNetworkOptions({ 'neutron.security-groups': 'web,' }), { code: 'invalid', field: 'neutron.security-groups' });
  assert.deepEqual(parseNetworkOptions({ 'neutron.subnet.uuid': 'low', 'neutron.net.name': 'blue net' }), both);
  assert.throws(() => parseNetworkOptions({ 'neutron.net.uuid': '' }), { code: 'invalid' });
  assert.throws(() => parseNetworkOptions({ 'neutron.pool.names': 'x' }), { code: 'invalid' });
});

test('of kuryr-libnetwork what is for networks and subnets that it makes is taken, and says that the model is neutron', () => {
  const place = { model: 'neutron', neutron: { network: 'blue net' } };
  for (const key of ['neutron.pool.name', 'neutron.pool.uuid', 'neutron.pool.v6.name', 'neutron.pool.v6.uuid']) {
    assert.deepEqual(parseNetworkOptions({ 'neutron.net.name': 'blue net', [key]: 'any pool' }), place);
    assert.throws(() => parseNetworkOptions({ [key]: '' }), { code: 'invalid', field: key });
  }
  for (const value of ['True', 'false'])
    assert.deepEqual(parseNetworkOptions({ 'neutron.net.shared': value, 'neutron.net.name': 'blue net' }), place);
  assert.throws(() => parseNetworkOptions({ 'neutron.net.shared': 'perhaps' }), { code: 'invalid', field: 'neutron.net.shared' });
});
