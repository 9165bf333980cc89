import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { makeEndpoint, makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { parseIp } from '#model/ip.ts';
import { agentProblems, agentView, heldObjects } from './agent.ts';
import { fakeClient, noRecords } from './fake.ts';
import { run } from './run.fixture.ts';

/** A socket that answers each path with that text; others with 404. */
async function socketOf(t: TestContext, answers: Readonly<Record<string, string>>): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-agent-'));
  const path = join(folder, 'agent.sock');
  const server = createServer((request, response) => {
    const answer = answers[request.url ?? ''];
    response.writeHead(answer === undefined ? 404 : 200).end(answer);
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  t.after(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  return path;
}

const status = {
  host: 'host-1',
  connected: false,
  reason: 'connection refused',
  refused: ['Address 10.0.0.1 is taken'],
  docker: {
    engine: 'away',
    networks: [
      { name: 'ok', state: 'ok' },
      { name: 'web', state: 'problem', message: 'This engine has a network of that name' },
    ],
    problems: ['Container x needs help'],
  },
};

test('problems that only the agent knows', () => {
  assert.deepEqual(
    agentProblems(status).map(({ what, where, problem }) => `${what} ${where}: ${problem}`),
    [
      'agent host-1: follows no controller: connection refused',
      'agent host-1: the controller refuses: Address 10.0.0.1 is taken',
      'agent host-1: Docker does not answer',
      'network web on host-1: This engine has a network of that name',
      'agent host-1: Container x needs help',
    ],
  );
});

test('no agent, and answers that make no sense, are no answer', async (t) => {
  assert.equal(await agentView('/nonexistent/agent.sock'), undefined);
  for (const text of ['', 'no JSON', '{"a":1}']) assert.equal(await agentView(await socketOf(t, { '/status': text })), undefined, text);
  assert.equal(await heldObjects(await socketOf(t, {}), 'x'), undefined);
});

test('status on a host tells what its agent knows', async (t) => {
  const agentSocket = await socketOf(t, { '/status': JSON.stringify(status) });
  const { out, status: exit } = await run('status', { agentSocket });
  assert.equal(exit, 10);
  assert.match(out, /^This host: +host-1, not following the controller; Docker away$/m);
  assert.match((await run('status', { agentSocket: '/nonexistent/agent.sock' })).out, /agent +this host +does not answer/);
});

test('explain on a host is about that host, and counts what its agent keeps', async (t) => {
  const records = noRecords();
  const network = makeNetwork('aaaaaaaaaa01');
  records.networks.push(network);
  records.hosts.push(makeHost(1), makeHost(2));
  records.endpoints.push(makeEndpoint(network.id, 'host-1', 1, [parseIp('10.0.0.1')]));
  const agentSocket = await socketOf(t, {
    '/status': JSON.stringify({ ...status, connected: true }),
    '/networks/aaaaaaaaaa01/objects': JSON.stringify({ objects: { link: [1, 2], route: [], neigh: [3] } }),
  });
  const stage = { client: fakeClient(records), agentSocket, hostname: 'another-name' };
  const here = await run(`explain network ${network.name}`, stage);
  assert.match(here.out, /^On host host-1\n/m);
  assert.match(here.out, /^The agent keeps for it: link 2, neigh 1 /m);
  const other = await run(`explain network ${network.name} --host host-2`, stage);
  assert.match(other.out, /^No container on host-2 is attached/m);
});
