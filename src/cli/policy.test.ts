// `causeway policy` asks the agent of this machine.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { agentPolicies } from './agent.ts';
import { run } from './run.fixture.ts';

const view = {
  policy: 'NetworkPolicy shop/web',
  generation: 3,
  endpoints: 2,
  problems: [],
  cluster: { generation: 3, inForce: 4, needed: 5, problems: ['Not yet confirmed by host5'] },
  rules: [{ rule: 'ingress 1', action: 'allow', packets: 7, bytes: 420 }],
};

const staged = {
  policy: 'StagedNetworkPolicy shop/strict',
  generation: 1,
  endpoints: 1,
  staged: true,
  problems: [],
  rules: [{ rule: 'ingress 1', action: 'deny', packets: 2, bytes: 120 }],
} as const;

test('what the agent has in force; nothing where it follows no cluster', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-policy-'));
  t.after(() => rmSync(folder, { recursive: true }));
  let answer: unknown = { policies: [view] };
  const server = createServer((_, response) => response.end(JSON.stringify(answer)));
  const socket = join(folder, 'agent.sock');
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.after(() => server.close());
  assert.deepEqual(await agentPolicies(socket), [view]);
  answer = { policies: [view, staged] };
  const { out } = await run('policy counters', { agentSocket: socket });
  assert.match(out, /^NetworkPolicy shop\/web +ingress 1 +allow +7 +420$/m);
  assert.match(out, /^StagedNetworkPolicy shop\/strict +ingress 1 +would deny +2 +120$/m);
  answer = { code: 'not-found' };
  assert.deepEqual([await agentPolicies(socket), await agentPolicies(join(folder, 'nobody'))], [undefined, undefined]);
});
