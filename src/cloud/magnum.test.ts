import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { Magnum } from './magnum.ts';
import { cloudOf, json, keystone, serving } from './server.fixture.ts';
import { CloudSession } from './session.ts';

const refusal = (field: string, value: string) => ({
  errors: [{ status: 400, title: '', detail: `Invalid input for field/attribute ${field}. Value: '${value}'. Value should be greater` }],
});

test('a cluster that Magnum cannot tell of yet is asked for again, and other refusals are not', async () => {
  let url = '';
  const identity = keystone(() => url);
  const asked: string[] = [];
  await using server = await serving((request, response, body) => {
    if (request.url === '/v3/auth/tokens') return identity.answer(request, response, body);
    asked.push(request.url ?? '');
    if (request.url?.endsWith('/wrong') === true) return json(response, 400, refusal('name', '0'));
    if (asked.length < 3) return json(response, 400, refusal('master_count', '0'));
    return json(response, 200, { uuid: 'c', name: 'web', cluster_template_id: 't', status: 'CREATE_IN_PROGRESS', master_count: 1 });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url, { overrides: { 'container-infra': `${url}/magnum` } }));
  const magnum = new Magnum(session);
  assert.equal((await magnum.cluster('web')).status, 'CREATE_IN_PROGRESS');
  assert.equal(asked.length, 3);
  await assert.rejects(magnum.cluster('wrong'), (error) => isFault(error, 'invalid') && error.message.includes('name'));
  assert.equal(asked.length, 4);
});
