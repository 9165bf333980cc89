import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { askSocket } from './unix-http.ts';

test('a question is put over a unix socket and answered with any status; silence is a fault, nobody an error', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-unix-http-'));
  const path = join(folder, 'socket');
  const server = createServer((request, response) => {
    const { method, url, headers } = request;
    if (url === '/silent') return;
    response.setHeader('x-said', headers['x-asked'] ?? '').writeHead(404);
    void text(request).then((body) => response.end(`${method} ${url} ${body}`));
  });
  t.after(() => {
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true });
  });
  await once(server.listen(path), 'listening');
  const {
    status,
    headers,
    text: said,
  } = await askSocket(path, { method: 'POST', path: '/a', headers: { 'x-asked': 'b' }, body: 'c', timeoutMs: 10_000 });
  assert.deepEqual([status, headers['x-said'], said], [404, 'b', 'POST /a c']);
  await assert.rejects(askSocket(path, { path: '/silent', timeoutMs: 20 }), (error) => isFault(error, 'timeout'));
  await assert.rejects(askSocket(join(folder, 'nobody'), { path: '/', timeoutMs: 10_000 }), { code: 'ENOENT' });
});
