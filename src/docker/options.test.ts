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
  assert.throws(() => parseNetworkOptions({ 'neutron.pool.name': 'x' }), { code: 'invalid' });
});
