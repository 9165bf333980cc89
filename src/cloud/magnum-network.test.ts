import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { networkOf } from './magnum-network.ts';

const valuesOf = (networkDriver: string | undefined, labels: Record<string, string> = {}) => networkOf({ networkDriver, labels }).values;

test("labels of flannel's users", () => {
  const plain = { model: 'flannel', podCidrs: ['10.100.0.0/16'], carry: 'vxlan' };
  assert.deepEqual(valuesOf(undefined), plain);
  assert.deepEqual(valuesOf('flannel', { flannel_backend: 'vxlan', flannel_network_subnetlen: '24', kube_tag: 'v1.30.0' }), plain);
  assert.deepEqual(valuesOf('flannel', { flannel_backend: 'host-gw', flannel_network_cidr: '10.82.0.0/16', calico_ipv4pool: 'x' }), {
    model: 'flannel',
    podCidrs: ['10.82.0.0/16'],
    carry: 'host-gateway',
  });
});

test("labels of Calico's users, with a pool as Magnum's manifests have it", () => {
  const network = networkOf({ networkDriver: 'calico', labels: { calico_ipv4pool: '10.83.0.0/16', calico_ipv4pool_ipip: 'Off' } });
  assert.deepEqual(network, {
    values: { model: 'calico', podCidrs: ['10.83.0.0/16'], carry: 'bgp' },
    objects: [
      {
        apiVersion: 'projectcalico.org/v3',
        kind: 'IPPool',
        metadata: { name: 'default-ipv4-ippool' },
        spec: { cidr: '10.83.0.0/16', natOutgoing: true },
      },
    ],
    notes: [],
  });
  for (const mode of ['CrossSubnet', 'Always']) {
    const other = networkOf({ networkDriver: 'calico', labels: { calico_ipv4pool_ipip: mode } });
    assert.equal(other.values.carry, 'bgp-cross-subnet');
    assert.match(other.notes.join(), /not in IP-in-IP/);
  }
});

test('labels of our own say more, and count before the others', () => {
  const labels = {
    causeway_model: 'calico',
    causeway_carry: 'bgp-cross-subnet',
    causeway_pod_cidr: '10.84.0.0/16+fd00:84::/48',
    causeway_image: 'registry.example.org:5000/net/causeway:1.2',
    causeway_cni_bin: '/usr/lib/cni',
    causeway_log_level: 'debug',
    causeway_log_denied: 'True',
    causeway_controllers: '0',
    flannel_network_cidr: '10.82.0.0/16',
  };
  const { values, objects } = networkOf({ networkDriver: 'cilium', labels });
  assert.deepEqual(values, {
    model: 'calico',
    podCidrs: ['10.84.0.0/16', 'fd00:84::/48'],
    carry: 'bgp-cross-subnet',
    image: { repository: 'registry.example.org:5000/net/causeway', tag: '1.2' },
    cni: { bin: '/usr/lib/cni', conf: '/etc/cni/net.d', runtime: '' },
    logLevel: 'debug',
    logDenied: true,
    controller: { replicas: 0 },
  });
  assert.equal(objects.length, 2);
});

test('by the router of a cloud machines are carried by either label', () => {
  for (const labels of [
    { causeway_carry: 'routes' },
    { causeway_model: 'routes' },
    { causeway_model: 'routes', causeway_carry: 'routes' },
  ]) {
    const { values, notes } = networkOf({ networkDriver: 'flannel', labels });
    assert.deepEqual(values, { model: 'flannel', podCidrs: ['10.100.0.0/16'], carry: 'routes' });
    assert.match(notes.join(), /nodes take pods once a router knows their ranges/);
  }
});

const notesOf = (labels: Record<string, string>): readonly string[] => networkOf({ networkDriver: 'flannel', labels }).notes;

test('labels that say nothing of Causeway are told by name: images, those of the other driver, lengths, and what Magnum does not know', () => {
  const labels = {
    calico_tag: 'v3.26.4',
    calico_ipv4pool: '10.83.0.0/16',
    calico_ipv4pool_vxlan: 'Always',
    flannel_backend: 'udp',
    flannel_network_subnetlen: '26',
  };
  assert.deepEqual(networkOf({ networkDriver: 'calico', labels }).notes, [
    "calico_tag=v3.26.4: no image of calico's is used; which one of Causeway's is, says causeway_image",
    'calico_ipv4pool_vxlan=Always: Magnum has no such label, and nothing is made of it',
    'flannel_backend=udp: it counts for the model flannel only',
    'flannel_network_subnetlen=26: it counts for the model flannel only',
  ]);
  assert.match(notesOf({ flannel_network_subnetlen: '26' }).join(), /up to the cluster's controller-manager/);
  assert.deepEqual(notesOf({ flannel_network_subnetlen: '24', kube_tag: 'v1.30.0' }), []);
});

const nameOf = (name: string, labels: Record<string, string> = {}): unknown =>
  networkOf({
    networkDriver: 'calico',
    labels: { causeway_cloud_secret: 'login', ...labels },
    cluster: { id: '1a2b3c4d-5e6f-4000-8000-000000000000', name },
  }).values.cloud?.['name'];

test('labels say as whom controllers keep the cloud', () => {
  const { cloud } = valuesOf('calico', {
    causeway_cloud_secret: 'causeway-cloud',
    causeway_cloud: 'mycloud',
    causeway_cloud_name: 'web',
    causeway_cloud_all_balancers: 'true',
  });
  assert.deepEqual(cloud, { secret: 'causeway-cloud', cloud: 'mycloud', name: 'web', allBalancers: true });
  assert.deepEqual(notesOf({ causeway_cloud_secret: 'login', causeway_controllers: '0' }), [
    'causeway_controllers=0: nobody keeps the cloud',
  ]);
  assert.equal(nameOf('Web_2'), 'web-2-1a2b3c4d');
  assert.equal(nameOf('the-cluster-with-a-name-that-is-long'), 'the-cluster-with-a-name-1a2b3c4d');
  assert.equal(nameOf('_'), '1a2b3c4d');
  assert.equal(nameOf('web', { causeway_cloud_name: 'mine' }), 'mine');
});

test('what cannot be is refused with the name of its label', () => {
  const bad: readonly (readonly [string | undefined, Record<string, string>, string])[] = [
    ['flannel', { causeway_carri: 'vxlan' }, 'labels.causeway_carri'],
    ['flannel', { causeway_carry: 'bgp' }, 'labels.causeway_carry'],
    ['flannel', { causeway_model: 'routes', causeway_carry: 'vxlan' }, 'labels.causeway_carry'],
    ['flannel', { flannel_backend: 'udp' }, 'labels.flannel_backend'],
    ['flannel', { flannel_network_cidr: '10.82.0.1/16' }, 'labels.flannel_network_cidr'],
    ['flannel', { flannel_network_cidr: '' }, 'labels.flannel_network_cidr'],
    ['flannel', { flannel_network_cidr: '10.82.0.0/16+fd00:82::/48' }, 'labels.flannel_network_cidr'],
    ['flannel', { flannel_network_subnetlen: 'wide' }, 'labels.flannel_network_subnetlen'],
    ['flannel', { flannel_network_subnetlen: '31' }, 'labels.flannel_network_subnetlen'],
    ['flannel', { flannel_network_subnetlen: '15', flannel_network_cidr: '10.82.0.0/16' }, 'labels.flannel_network_subnetlen'],
    ['flannel', { causeway_pod_cidr: '10.1.0.0/16+10.2.0.0/16' }, 'labels.causeway_pod_cidr'],
    ['flannel', { causeway_underlay: 'two words' }, 'labels.causeway_underlay'],
    ['flannel', { causeway_cloud: 'mycloud' }, 'labels.causeway_cloud_secret'],
    ['flannel', { causeway_cloud_secret: 'Not_A_Name' }, 'labels.causeway_cloud_secret'],
    ['flannel', { causeway_cloud_secret: 'cloud', causeway_cloud_name: 'Web' }, 'labels.causeway_cloud_name'],
    ['calico', { calico_ipv4pool: 'fd00:83::/48' }, 'labels.calico_ipv4pool'],
    ['calico', { calico_ipv4pool: '10.83.0.0/27' }, 'labels.calico_ipv4pool'],
    ['calico', { causeway_pod_cidr: '10.83.0.0/16+fd00:83::/123' }, 'labels.causeway_pod_cidr'],
    ['calico', { calico_ipv4pool_ipip: 'Sometimes' }, 'labels.calico_ipv4pool_ipip'],
    ['calico', { causeway_image: 'causeway' }, 'labels.causeway_image'],
    ['calico', { causeway_cni_bin: 'bin' }, 'labels.causeway_cni_bin'],
    ['calico', { causeway_controllers: 'many' }, 'labels.causeway_controllers'],
    ['cilium', {}, 'network_driver'],
  ];
  for (const [networkDriver, labels, field] of bad) {
    assert.throws(
      () => networkOf({ networkDriver, labels }),
      (error) => isFault(error) && error.field === field,
      field,
    );
  }
});
