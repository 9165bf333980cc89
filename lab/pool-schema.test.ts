// What the definition of AddressPool lets the API server take as addresses: everything that can be read, and of what cannot only what no
// pattern can tell, so that a slip in a pool that services have addresses of does not put it out of use.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'yaml';
import { renderChart } from '#cli/helm-chart.ts';
import { readPool } from '#kubernetes/address-pools.ts';
import { placeholder } from './helm-chart.ts';

interface Definition {
  readonly spec: { readonly versions: readonly { readonly schema: { readonly openAPIV3Schema: Properties } }[] };
}
interface Properties {
  readonly pattern?: string;
  readonly items?: Properties;
  readonly properties?: Readonly<Record<string, Properties>>;
}
const text =
  renderChart({ apiServer: placeholder }).find((document) => document.includes('name: addresspools.causeway.dev')) ?? assert.fail();
const { spec } = parse(text) as Definition;
const schema = spec.versions[0]?.schema.openAPIV3Schema.properties?.['spec']?.properties?.['addresses']?.items;
const pattern = new RegExp(schema?.pattern ?? assert.fail());
const isRead = (addresses: string): boolean => !('problem' in readPool({ metadata: { name: 'x' }, spec: { addresses: [addresses] } }));

for (const addresses of [
  '203.0.113.0/28',
  '0.0.0.0/0',
  '203.0.113.255',
  '203.0.113.10-203.0.113.20',
  '203.0.113.10 - 203.0.113.20',
  '2001:DB8::/32',
  '::/0',
  '2001:db8::10 - 2001:db8::1f',
  '::ffff:203.0.113.0/124',
])
  test(`${addresses} may be said, and is read`, () => {
    assert.match(addresses, pattern);
    assert.ok(isRead(addresses));
  });

for (const addresses of ['', 'nonsense', '203.0.113.256', '203.0.113', '203.0.113.0/33', '2001:db8::/129', '203.0.113.1-', '203.0.113.010'])
  test(`${JSON.stringify(addresses)} is refused, and would not be read`, () => {
    assert.doesNotMatch(addresses, pattern);
    assert.ok(!isRead(addresses));
  });

test('a range between families is refused', () => assert.doesNotMatch('203.0.113.9-2001:db8::1', pattern));
