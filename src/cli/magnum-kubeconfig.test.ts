// Until when what Magnum signs is good: it signs for as long as its operator has set, whenever the authority itself ends.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MagnumCluster } from '#cloud/magnum-schemas.ts';
import { hostLifeMs, openAuthority } from '#controller/ca.ts';
import { MemoryStore } from '#store/memory.ts';
import { kubeconfigOf } from './magnum-kubeconfig.ts';

const cluster = { id: 'c', name: 'web', api: 'https://192.0.2.7:6443', status: 'CREATE_COMPLETE' } as unknown as MagnumCluster;
const day = 86_400_000;
/** With an authority of ten years that was made so many days ago, which signs for a month. */
async function madeBy(age: number): Promise<string> {
  const now = new Date();
  const authority = await openAuthority(new MemoryStore(), new Date(now.getTime() - age * day));
  const magnum = {
    authority: async () => ({ pem: authority.certificate }),
    sign: async (_: string, csr: string) => ({ pem: (await authority.issueHost(csr, { host: 'h', generation: 1, now })).certificate }),
  };
  const { until } = await kubeconfigOf(magnum, cluster, { user: 'admin', group: 'system:masters' });
  return until;
}
const inDays = (text: string): number => Math.round((new Date(text).getTime() - Date.now()) / day);

test('a kubeconfig is said to be good until the authority ends, where that is before the certificate does', async () => {
  assert.equal(inDays(await madeBy(1)), hostLifeMs / day);
  assert.equal(inDays(await madeBy(3640)), 10);
});

test('of an authority that has ended none is made, and it says so', async () => {
  await assert.rejects(madeBy(3651), /authority of cluster web has ended on \d{4}-\d\d-\d\d, and all that it has signed/);
});
