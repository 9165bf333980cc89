// The client against a small server: failover, retries and their limits, problems as Faults, lines of a watch.
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import type { Tenant } from '#model/resources.ts';
import type { WatchLine } from './answers.ts';
import { Client } from './client.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

interface Peer extends AsyncDisposable {
  readonly url: string;
  readonly asked: string[];
}

async function serve(answer: Answer): Promise<Peer> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    answer(request, response);
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', () => resolve()));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
    asked,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
    },
  };
}

const tenant: Tenant = { id: 'red', name: 'red', revision: 3, createdAt: '2026-01-01T00:00:00.000Z', labels: {}, description: '' };
const good: Answer = (_, response) => response.end(JSON.stringify(tenant));
const problem =
  (status: number, code: string): Answer =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/problem+json' });
    response.end(JSON.stringify({ type: 'x', title: 'x', status, detail: 'It is so', code, field: 'name', hint: 'Do so' }));
  };
const nobody = 'http://127.0.0.1:9';
const random = (): number => 0;

test('another controller is asked when one is away or says so', async () => {
  await using sick = await serve(problem(503, 'unavailable'));
  await using well = await serve(good);
  await using client = new Client({ urls: [nobody, sick.url, well.url], random });
  assert.equal((await client.get('tenants', 'red')).name, 'red');
  assert.deepEqual([sick.asked.length, well.asked.length], [1, 1]);
  await client.get('tenants', 'red');
  assert.deepEqual([sick.asked.length, well.asked.length], [1, 2], 'the one that answered is kept');
});

test('what may not be made twice is tried again only when it was never sent', async () => {
  await using sick = await serve(problem(503, 'unavailable'));
  await using well = await serve(good);
  await using client = new Client({ urls: [sick.url, well.url], random });
  await assert.rejects(client.create('tenants', { name: 'red' }), (error) => isFault(error, 'unavailable'));
  assert.equal(sick.asked.length + well.asked.length, 1);
  await using other = new Client({ urls: [nobody, well.url], random });
  assert.equal((await other.create('tenants', { name: 'red' })).name, 'red');
});

test('tries end, time ends, problems come back as the Faults they were', async () => {
  await using away = new Client({ urls: [nobody], random, retries: 1 });
  await assert.rejects(away.version(), (error) => isFault(error, 'unavailable'));
  await using silent = await serve(() => undefined);
  await using waiting = new Client({ urls: [silent.url], timeoutMs: 100, retries: 0 });
  await assert.rejects(waiting.version(), (error) => isFault(error, 'timeout') && error.hint !== undefined);
  for (const [status, code, expected] of [
    [409, 'exists', 'exists'],
    [412, 'conflict', 'conflict'],
    [418, 'from-the-future', 'internal'],
  ] as const) {
    await using server = await serve(problem(status, code));
    await using client = new Client({ urls: [server.url], retries: 0 });
    await assert.rejects(
      client.get('tenants', 'red'),
      (error) => isFault(error, expected) && error.field === 'name' && error.hint === 'Do so',
    );
  }
  await using proxy = await serve((_, response) => response.writeHead(502).end('<html>'));
  await using behind = new Client({ urls: [proxy.url], retries: 0 });
  await assert.rejects(behind.version(), (error) => isFault(error, 'unavailable'));
  await using nonsense = await serve((_, response) => response.end('hello'));
  await using confused = new Client({ urls: [nonsense.url], retries: 0 });
  await assert.rejects(confused.version(), (error) => isFault(error, 'corrupt'));
});

test('names are escaped, revisions are sent, what a newer controller adds is left out', async () => {
  let match: string | undefined;
  await using server = await serve((request, response) => {
    match = request.headers['if-match'];
    response.end(JSON.stringify({ ...tenant, colour: 'red', labels: { a: 'b' } }));
  });
  await using client = new Client({ urls: [server.url], retries: 0 });
  assert.deepEqual(await client.replace('tenants', tenant), { ...tenant, labels: { a: 'b' } });
  assert.equal(match, '"3"');
  await client.get('tenants', '../a b');
  assert.equal(server.asked.at(-1), 'GET /v1/tenants/..%2Fa%20b');
});

test('a watch yields lines, passes over what it does not know, and ends with a Fault', async () => {
  const lines = [
    { type: 'put', kind: 'tenants', item: tenant, revision: 3 },
    { type: 'put', kind: 'planets', item: {}, revision: 3 },
    { type: 'wink', revision: 3 },
    { type: 'delete', kind: 'tenants', id: 'red', revision: 4 },
    { type: 'synced', revision: 4, whole: true },
    { type: 'bookmark', revision: 5, epoch: 'one' },
  ];
  await using server = await serve((_, response) => {
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
    response.write(text.slice(0, 30));
    setImmediate(() => response.end(`${text.slice(30)}{"type":"cut`));
  });
  await using client = new Client({ urls: [server.url], retries: 0 });
  const seen: WatchLine['type'][] = [];
  await assert.rejects(
    (async () => {
      for await (const line of client.watch({ host: 'a', since: 2, epoch: 'one' })) seen.push(line.type);
    })(),
    (error) => isFault(error, 'unavailable'),
  );
  assert.deepEqual(seen, ['put', 'delete', 'synced', 'bookmark']);
  assert.equal(server.asked[0], 'GET /v1/watch?host=a&since=2&epoch=one');
  const abort = new AbortController();
  for await (const _ of client.watch({ signal: abort.signal })) abort.abort();
});
