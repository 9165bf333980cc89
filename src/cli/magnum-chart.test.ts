// What labels of a cluster make of the Helm chart.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { networkOf } from '#cloud/magnum-network.ts';
import { chartFolder, renderChart } from './helm-chart.ts';

interface Pods {
  readonly kind: string;
  readonly spec: {
    readonly replicas?: number;
    readonly template: {
      readonly spec: {
        readonly containers: readonly { readonly image: string; readonly env?: readonly { name: string; value?: string }[] }[];
      };
    };
  };
}
const apiServer = 'https://192.0.2.7:6443';
const rendered = (labels: Readonly<Record<string, string>>, networkDriver = 'flannel'): Pods[] =>
  renderChart({ ...networkOf({ networkDriver, labels }).values, apiServer }).map((document) => parse(document) as Pods);
const find = (documents: readonly Pods[], kind: string): Pods => documents.find((one) => one.kind === kind) ?? assert.fail(kind);
function told(documents: readonly Pods[]): Readonly<Record<string, string | undefined>> {
  const [agent] = find(documents, 'DaemonSet').spec.template.spec.containers;
  return Object.fromEntries((agent?.env ?? []).map(({ name, value }) => [name.replace('CAUSEWAY_', ''), value]));
}

test("labels of flannel's users become what agents are told", () => {
  const { MODEL, POD_CIDR, CARRY } = told(rendered({ flannel_backend: 'host-gw', flannel_network_cidr: '10.82.0.0/16' }));
  assert.deepEqual({ MODEL, POD_CIDR, CARRY }, { MODEL: 'flannel', POD_CIDR: '10.82.0.0/16', CARRY: 'host-gateway' });
});

test("labels of Calico's users do, too", () => {
  const { MODEL, POD_CIDR, CARRY } = told(rendered({ calico_ipv4pool_ipip: 'Always' }, 'calico'));
  assert.deepEqual({ MODEL, POD_CIDR, CARRY }, { MODEL: 'calico', POD_CIDR: undefined, CARRY: 'bgp-cross-subnet' });
});

test('every label of our own arrives, and what none speaks of stays as the chart has it', () => {
  const labels = {
    causeway_image: 'registry.example.org/net/causeway:7',
    causeway_controllers: '1',
    causeway_log_level: 'debug',
    causeway_underlay: 'ens4',
    causeway_log_denied: 'true',
    causeway_userspace_wireguard: 'true',
    causeway_keep_connections: 'true',
    causeway_cni_runtime: '/run/crio',
    causeway_cloud_secret: 'login',
    causeway_cloud: 'mycloud',
    causeway_cloud_name: 'web',
    causeway_cloud_network: 'nodes',
    causeway_cloud_routes: 'main',
    causeway_cloud_all_balancers: 'true',
  };
  const documents = rendered(labels);
  const { LOG_LEVEL, UNDERLAY, LOG_DENIED, KEEP_CONNECTIONS } = told(documents);
  assert.deepEqual([LOG_LEVEL, UNDERLAY, LOG_DENIED, KEEP_CONNECTIONS], ['debug', 'ens4', '1', '1']);
  for (const kind of ['DaemonSet', 'Deployment'])
    assert.equal(find(documents, kind).spec.template.spec.containers[0]?.image, labels.causeway_image);
  assert.equal(find(documents, 'Deployment').spec.replicas, 1);
  const text = JSON.stringify(documents);
  for (const part of [
    '"imagePullPolicy":"IfNotPresent"',
    '"path":"/run/crio"',
    '"path":"/etc/cni/net.d"',
    '"name":"causeway-wireguard"',
    '"secretName":"login"',
    ...['mycloud', 'web', 'nodes', 'main'].map((value) => `"value":"${value}"`),
    '"name":"CAUSEWAY_CLOUD_ALL_BALANCERS"',
    apiServer,
  ])
    assert.ok(text.includes(part), part);
});

test('the chart has a value for whatever labels give', () => {
  const { properties } = JSON.parse(readFileSync(join(chartFolder, 'values.schema.json'), 'utf8')) as {
    properties: Record<string, unknown>;
  };
  const { values } = networkOf({
    networkDriver: 'flannel',
    labels: {
      causeway_image: 'a/b:1',
      causeway_controllers: '0',
      causeway_cni_bin: '/opt',
      causeway_log_level: 'info',
      causeway_underlay: 'eth1',
    },
  });
  for (const key of Object.keys(values)) assert.ok(key in properties, key);
});
