import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Octavia } from './octavia.ts';
import { cloudOf, json, keystone, serving } from './server.fixture.ts';
import { CloudSession } from './session.ts';

test('what has no id is not asked for, which would be answered by all there are', async () => {
  let url = '';
  const identity = keystone(() => url);
  const asked: string[] = [];
  await using server = await serving((request, response, body) => {
    if (request.url === '/v3/auth/tokens') return identity.answer(request, response, body);
    asked.push(request.url ?? '');
    return json(response, 200, { healthmonitors: [], members: [] });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url, { overrides: { 'load-balancer': `${url}/octavia` } }));
  const octavia = new Octavia(session);
  const nameless = { name: 'TypeError', message: /a (healthmonitor|pool|loadbalancer) is meant whose id nobody knows/ };
  await assert.rejects(octavia.get('healthmonitors', ''), nameless);
  await assert.rejects(octavia.update('healthmonitors', '', {}), nameless);
  await assert.rejects(octavia.members(''), nameless);
  await assert.rejects(octavia.setMembers('', []), nameless);
  await assert.rejects(octavia.remove(''), nameless);
  assert.deepEqual(asked, []);
});
