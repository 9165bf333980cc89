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

test('what cannot be is refused with the name of its label', () => {
  const bad: readonly (readonly [string | undefined, Record<string, string>, string])[] = [
    ['flannel', { causeway_carri: 'vxlan' }, 'labels.causeway_carri'],
    ['flannel', { causeway_carry: 'bgp' }, 'labels.causeway_carry'],
    ['flannel', { causeway_model: 'routes', causeway_carry: 'vxlan' }, 'labels.causeway_carry'],
    ['flannel', { flannel_backend: 'udp' }, 'labels.flannel_backend'],
    ['flannel', { flannel_network_cidr: '10.82.0.1/16' }, 'labels.flannel_network_cidr'],
    ['flannel', { flannel_network_cidr: '' }, 'labels.flannel_network_cidr'],
    ['flannel', { causeway_pod_cidr: '10.1.0.0/16+10.2.0.0/16' }, 'labels.causeway_pod_cidr'],
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
