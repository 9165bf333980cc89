// Reports as ginkgo 1.11 writes them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseJunit } from './junit.ts';

test('how each test went, and why', () => {
  const report = `<?xml version="1.0" encoding="UTF-8"?>
  <testsuite name="Kubernetes e2e suite" tests="2" failures="1" errors="0" time="20.5">
      <testcase name="[sig-network] Services should &#39;work&#39; &lt;x&gt;" classname="Kubernetes e2e suite" time="12.5"></testcase>
      <testcase name="[sig-network] DNS should" classname="Kubernetes e2e suite" time="0"><skipped></skipped></testcase>
      <testcase name="[sig-network] ESIPP" classname="Kubernetes e2e suite" time="0"><skipped>Only &#34;gce&#34;</skipped></testcase>
      <testcase name="[sig-network] Proxy should" classname="Kubernetes e2e suite" time="8">
          <failure type="Failure">service.go:1&#xA;not reachable</failure>
          <system-out>&amp;lt;</system-out>
      </testcase>
  </testsuite>`;
  assert.deepEqual(parseJunit(report), [
    { name: "[sig-network] Services should 'work' <x>", seconds: 12.5, outcome: 'passed', message: '' },
    { name: '[sig-network] DNS should', seconds: 0, outcome: 'skipped', message: '' },
    { name: '[sig-network] ESIPP', seconds: 0, outcome: 'skipped', message: 'Only "gce"' },
    { name: '[sig-network] Proxy should', seconds: 8, outcome: 'failed', message: 'service.go:1\nnot reachable' },
  ]);
});
