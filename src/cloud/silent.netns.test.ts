// A cloud behind something that drops packets: nobody says no, and nobody says that there is nobody.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { setImmediate } from 'node:timers/promises';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { CloudHttp } from './http.ts';

mustBeIsolated();

const connecting = (): number => process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP')).length;

test('whoever ends waits for no connection to be made', async () => {
  for (const line of [
    'link add way type veth peer name lost',
    'link set way up',
    'link set lost up',
    'addr add 192.0.2.2/24 dev way',
    'neigh add 192.0.2.1 lladdr 02:00:00:00:00:99 dev way nud permanent',
  ])
    execFileSync('ip', line.split(' '));
  const stop = new AbortController();
  await using http = new CloudHttp({ signal: stop.signal });
  const asked = http.ask({ service: 'Keystone', method: 'GET', url: 'http://192.0.2.1:5000/v3' });
  const told = assert.rejects(asked, { code: 'unavailable', message: /Keystone is not asked any more/ });
  while (connecting() === 0) await setImmediate();
  stop.abort();
  for (let turn = 0; turn < 100; turn++) await setImmediate();
  assert.equal(connecting(), 0);
  await told;
});
