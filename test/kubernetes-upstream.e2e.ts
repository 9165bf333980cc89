// Kubernetes' own network tests against a cluster that has no network but Causeway's. Which are run, and what comes of them,
// is written in docs/kubernetes-conformance.md; a test that fails there and passes here is as wrong as the other way round.
// CAUSEWAY_TEST_UPSTREAM=all runs those of the page that take longer as well.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createLab, destroyLab } from '#lab/lab.ts';
import { Kubernetes } from '#lab/kubernetes.ts';
import { clusterDns, runUpstream, startNames, upstreamImages } from '#lab/kubernetes-upstream.ts';
import { patternOf, readConformance } from './conformance.ts';

const name = 'upstream-test';
const root = join(import.meta.dirname, '..');
const page = readConformance(readFileSync(join(root, 'docs', 'kubernetes-conformance.md'), 'utf8'));
const area = '[sig-network] ';
let cluster: Kubernetes;

before(async () => {
  await destroyLab(name);
  const lab = await createLab({ name, hosts: 2 });
  const images = await upstreamImages(join(root, '.cache', 'upstream'));
  cluster = new Kubernetes(lab, { images, dns: clusterDns, families: [4, 6] });
  await cluster.start();
  await startNames(cluster);
});
after(() => destroyLab(name));

test('the page names each of the network tests that there are, once', async () => {
  const found = await runUpstream(cluster, { focus: String.raw`\[sig-network\]`, dryRun: true, minutes: 10 });
  const names = found.filter(({ outcome }) => outcome === 'passed').map((result) => result.name.replace(area, ''));
  const listed = [...page.always, ...page.asked, ...page.failing, ...page.left];
  assert.deepEqual(listed.toSorted(), names.toSorted());
});

test('they go as the page says', async (context) => {
  const chosen = [...page.always, ...page.failing, ...(process.env['CAUSEWAY_TEST_UPSTREAM'] === 'all' ? page.asked : [])];
  const results = await runUpstream(cluster, { focus: patternOf(chosen), minutes: 40 });
  for (const expected of chosen) {
    await context.test(expected, () => {
      const { outcome, message } = results.find((result) => result.name === area + expected && result.outcome !== 'skipped') ?? {
        outcome: 'not run',
        message: '',
      };
      assert.equal(outcome, page.failing.includes(expected) ? 'failed' : 'passed', message);
    });
  }
});
