import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { hasIpsecPolicies } from './ipsec.ts';

mustBeIsolated();

const skip = spawnSync('ip', ['xfrm', 'policy', 'count']).status === 0 ? false : 'missing: IPsec in this kernel';

test('policies of IPsec are seen in every direction, and not when they are gone', { skip }, () => {
  assert.equal(hasIpsecPolicies(), false);
  for (const direction of ['in', 'out', 'fwd']) {
    const policy = ['src', '10.0.0.0/24', 'dst', '10.1.0.0/24', 'dir', direction];
    execFileSync('ip', ['xfrm', 'policy', 'add', ...policy, 'tmpl', 'proto', 'esp', 'mode', 'tunnel']);
    assert.equal(hasIpsecPolicies(), true, direction);
    execFileSync('ip', ['xfrm', 'policy', 'delete', ...policy]);
    assert.equal(hasIpsecPolicies(), false, direction);
  }
});
