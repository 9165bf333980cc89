import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { healthMonitor, listener, loadBalancer, member, partStates, pool, provider } from './octavia-schemas.ts';
import { testRecorded } from './recorded.fixture.ts';

const recorded = testRecorded('Octavia', {
  provider,
  loadbalancer: loadBalancer,
  listener,
  pool,
  member,
  healthmonitor: healthMonitor,
  statuses: partStates,
});

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
