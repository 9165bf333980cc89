// What is taken out of a Node when Causeway leaves its node.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leavingPatch } from './leaving.ts';

const ready = { type: 'Ready', status: 'True', reason: 'KubeletReady' };
const nodeOf = (annotations: object, ...conditions: readonly object[]): object => ({ metadata: { annotations }, status: { conditions } });
const network = (reason: string, message: string): object => ({ type: 'NetworkUnavailable', status: 'False', reason, message });
const deleted = (type: string): object => ({ $patch: 'delete', type });

test('all that an agent says there goes, and what others say stays', () => {
  const patch = leavingPatch(
    nodeOf(
      { 'causeway.dev/carry': 'vxlan', 'causeway.dev/probes': 'answered', 'flannel.alpha.coreos.com/public-ip': '10.0.0.1', mine: 'x' },
      ready,
      { type: 'NetworkUnavailable', status: 'True', reason: 'NoFreeAddresses', message: 'No address is free in 10.0.0.0/30' },
      { type: 'causeway.dev/Paths', status: 'True', reason: 'PacketsPass' },
    ),
  );
  assert.deepEqual(patch, {
    metadata: { annotations: { 'causeway.dev/carry': null, 'causeway.dev/probes': null } },
    status: { conditions: [deleted('NetworkUnavailable'), deleted('causeway.dev/Paths')] },
  });
});

test('a condition that the next network or a cloud provider has written stays', () => {
  for (const theirs of [
    network('FlannelIsUp', 'Flannel is running on this node'),
    network('CalicoIsUp', 'Calico is running on this node'),
    network('RouteCreated', 'RouteController created a route'),
  ])
    assert.equal(leavingPatch(nodeOf({}, ready, theirs)), undefined);
});
