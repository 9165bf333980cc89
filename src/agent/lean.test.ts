import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint } from '#drivers/cluster.fixture.ts';
import { parseIp } from '#model/ip.ts';
import { LeanRecords } from './lean.ts';

test('an endpoint is the same, whatever it holds', () => {
  const records = new LeanRecords();
  const bare = makeEndpoint('aaaaaaaaaa', 'host-1', 1, [parseIp('10.0.0.2'), parseIp('fd00::2')]);
  const full = {
    ...makeEndpoint('bbbbbbbbbb', 'host-1', 2, [parseIp('10.0.0.3')]),
    labels: { zone: 'a' },
    name: 'web',
    owner: 'web',
    names: ['www'],
    ports: [{ protocol: 'tcp' as const, hostPort: 80, port: 8080 }],
  };
  for (const endpoint of [bare, full, { ...bare, name: bare.id, owner: bare.id }]) assert.deepEqual(records.endpoint(endpoint), endpoint);
});
