// The add-on for drivers that use Cluster API, as their addon provider reads it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { networkOf } from '#cloud/magnum-network.ts';
import type { MagnumCluster } from '#cloud/magnum-schemas.ts';
import { isFault } from '#model/fault.ts';
import { chartFolder, renderChart } from './helm-chart.ts';
import { addonOf } from './magnum-addon.ts';

const cluster: MagnumCluster = {
  id: 'a',
  name: 'web',
  template: 't',
  stack: 'web-abcdefghijkl',
  project: '0F-1a',
  status: 'CREATE_IN_PROGRESS',
  reason: undefined,
  health: undefined,
  healthReason: {},
  api: undefined,
  masters: 1,
  workers: 2,
  masterAddresses: [],
  workerAddresses: [],
  labels: {},
  faults: {},
};
const options = { chartRepo: 'https://charts.example.org', namespacePrefix: 'magnum' };

interface Addon {
  readonly kind: string;
  readonly metadata: object;
  readonly spec: {
    readonly clusterName: string;
    readonly bootstrap: boolean;
    readonly chart?: { readonly version: string };
    readonly valuesSources?: readonly { readonly template: string }[];
    readonly manifestSources?: readonly { readonly template: string }[];
  };
}
const addonFor = (labels: Readonly<Record<string, string>>, networkDriver = 'flannel'): Addon[] =>
  addonOf(cluster, networkOf({ networkDriver, labels }), options) as Addon[];
/** As the provider, which knows the cluster's endpoint when it installs. */
const filledIn = (template: string): Record<string, unknown> =>
  parse(
    template
      .replace('{{ cluster.spec.controlPlaneEndpoint.host }}', '203.0.113.7')
      .replace('{{ cluster.spec.controlPlaneEndpoint.port }}', '6443'),
  ) as Record<string, unknown>;

test("labels are the chart's values, and the API's address is the endpoint of the cluster", () => {
  const [release, ...more] = addonFor({ flannel_network_cidr: '10.82.0.0/16', causeway_image: 'registry.example.org/causeway:7' });
  assert.ok(release !== undefined && more.length === 0);
  assert.deepEqual(release.metadata, { name: 'web-abcdefghijkl-causeway', namespace: 'magnum-0f1a' });
  assert.equal(release.spec.clusterName, cluster.stack);
  assert.equal(release.spec.bootstrap, true);
  const { version } = parse(readFileSync(join(chartFolder, 'Chart.yaml'), 'utf8')) as { version: string };
  assert.equal(release.spec.chart?.version, version);
  const values = filledIn(release.spec.valuesSources?.[0]?.template ?? '');
  assert.equal(values['apiServer'], 'https://203.0.113.7:6443');
  const documents = renderChart(values).join('\n');
  for (const part of ['"registry.example.org/causeway:7"', 'value: "10.82.0.0/16"', 'https://203.0.113.7:6443'])
    assert.ok(documents.includes(part), part);
});

test("with Calico's labels there is a pool, which is no part of the chart", () => {
  const [, manifests] = addonFor({ calico_ipv4pool: '10.83.0.0/16' }, 'calico');
  assert.equal(manifests?.kind, 'Manifests');
  const { kind, spec } = filledIn(manifests.spec.manifestSources?.[0]?.template ?? '');
  assert.deepEqual([kind, spec], ['IPPool', { cidr: '10.83.0.0/16', natOutgoing: true }]);
});

for (const text of ['{{ cloud_identity.data }}', '{% raw %}', '{# x']) {
  test(`the label ${text} does not become part of a template`, () =>
    assert.throws(
      () => addonFor({ causeway_underlay: text }),
      (error) => isFault(error, 'invalid'),
    ));
}

test('a cluster that its driver has not named yet has no add-on', () =>
  assert.throws(
    () => addonOf({ ...cluster, stack: undefined }, networkOf({ networkDriver: 'flannel', labels: {} }), options),
    (error) => isFault(error, 'unavailable'),
  ));
