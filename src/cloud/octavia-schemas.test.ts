import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';
import { healthMonitor, listener, loadBalancer, member, partStates, pool, provider } from './octavia-schemas.ts';

/** Answers of a real Octavia (bench/record-octavia.ts). */
const recorded = v.parse(
  v.record(v.string(), v.record(v.string(), v.unknown())),
  JSON.parse(readFileSync(new URL('../../bench/recorded/octavia.json', import.meta.url), 'utf8')),
);
const schemas: Readonly<Record<string, Schema<unknown>>> = {
  provider,
  loadbalancer: loadBalancer,
  listener,
  pool,
  member,
  healthmonitor: healthMonitor,
  statuses: partStates,
};

for (const [kind, schema] of Object.entries(schemas)) {
  test(`what is read of a ${kind} a real Octavia sends`, () => {
    assert.deepEqual(v.safeParse(schema, recorded[kind]).issues, undefined);
  });
}

test('what belongs together is known by it', () => {
  const [balancer, port, led, probe] = [
    v.parse(loadBalancer, recorded['loadbalancer']),
    v.parse(listener, recorded['listener']),
    v.parse(pool, recorded['pool']),
    v.parse(healthMonitor, recorded['healthmonitor']),
  ];
  assert.ok(balancer.listeners.length > 0 && balancer.pools.includes(led.id) && port.loadBalancers.includes(balancer.id));
  assert.ok(balancer.address !== '' && balancer.portId !== '' && balancer.subnetId !== '' && balancer.provider === 'ovn');
  assert.deepEqual([probe.type, probe.retriesDown, port.settings['timeout_client_data']], ['TCP', 2, 50_000]);
});
