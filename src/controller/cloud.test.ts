import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost } from '#drivers/cluster.fixture.ts';
import type { Host } from '#model/resources.ts';
import { onCloudNews } from './cloud.ts';
import type { MirrorListener } from './mirror.ts';

test('of hosts only their addresses and labels are news to a cloud, not each report', () => {
  const listeners: MirrorListener[] = [];
  let told = 0;
  onCloudNews(
    {
      listen: (listener) => {
        listeners.push(listener);
        return { [Symbol.dispose]: () => undefined };
      },
    },
    () => told++,
  );
  const before = makeHost(1);
  const tellsOf = (changes: Partial<Host>): number => {
    told = 0;
    listeners[0]?.changed({ kind: 'hosts', id: before.id, revision: 2, before, after: { ...before, ...changes } });
    return told;
  };
  assert.deepEqual(
    [
      tellsOf({ status: { ...before.status, applied: 9 } }),
      tellsOf({ labels: { 'causeway.dev/instance': 'web' } }),
      tellsOf({ underlay: makeHost(2).underlay }),
    ],
    [0, 1, 1],
  );
});
