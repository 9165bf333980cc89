import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { type NodeWords, readNodeOptions } from './node-options.ts';

const words: NodeWords = {
  kubernetes: '/etc/kubeconfig',
  podCidr: ['10.244.0.0/16'],
  carry: undefined,
  cniConf: '/etc/cni/net.d/10-causeway.conflist',
  keepConnections: false,
  logDenied: false,
};

test('a host is a node when it has a kubeconfig', () => {
  assert.equal(readNodeOptions({ ...words, kubernetes: undefined }), undefined);
  assert.deepEqual(readNodeOptions({ ...words, podCidr: '10.244.0.0/16,fd44::/48', carry: 'host-gateway' }), {
    kubeconfig: '/etc/kubeconfig',
    podCidrs: ['10.244.0.0/16', 'fd44::/48'],
    model: 'flannel',
    carry: 'host-gateway',
    cniConf: '/etc/cni/net.d/10-causeway.conflist',
    keepConnections: false,
    logDenied: false,
  });
});

test('by the router of a cloud nodes are carried by either word', () => {
  const [carriage, model] = [readNodeOptions({ ...words, carry: 'routes' }), readNodeOptions({ ...words, model: 'routes' })];
  assert.deepEqual([carriage?.model, carriage?.carry], ['flannel', 'routes']);
  assert.deepEqual(model, carriage);
});

test('the ranges of the model calico are those of its pools', () => {
  const calico = readNodeOptions({ ...words, podCidr: undefined, model: 'calico', carry: 'bgp-cross-subnet' });
  assert.deepEqual([calico?.model, calico?.podCidrs, calico?.carry], ['calico', [], 'bgp-cross-subnet']);
});

const bad: readonly (readonly [string, Partial<NodeWords>, string])[] = [
  ['no range', { podCidr: undefined }, '--pod-cidr'],
  ['an empty range', { podCidr: '' }, '--pod-cidr'],
  ['a range that is none', { podCidr: ['x'] }, '--pod-cidr'],
  ['two ranges of one family', { podCidr: ['10.0.0.0/16', '10.1.0.0/16'] }, '--pod-cidr'],
  ['a carriage that nobody has', { carry: 'pigeon' }, '--carry'],
  ['a carriage of another model', { model: 'calico', carry: 'host-gateway' }, '--carry'],
  ['another carriage than the model says', { model: 'routes', carry: 'vxlan' }, '--carry'],
  ['a model that is none', { model: 'weave' }, '--model'],
];
for (const [what, change, field] of bad) {
  test(`${what} is refused`, () => {
    assert.throws(
      () => readNodeOptions({ ...words, ...change }),
      (error) => isFault(error, 'invalid') && error.field === field,
    );
  });
}
