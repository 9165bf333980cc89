// The way to ask, against real servers of the test's own that answer as clouds, proxies and dashboards do on bad days.
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { test } from 'node:test';
import { type FaultCode, isFault } from '#model/fault.ts';
import type { Cloud } from './clouds.ts';
import { CloudHttp, type HttpOptions, type Question } from './http.ts';
import { Neutron } from './neutron.ts';
import { CloudSession } from './session.ts';

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void;

async function serving(answer: Answer): Promise<{ url: string } & AsyncDisposable> {
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (piece: Buffer) => (body += piece.toString()));
    request.on('end', () => answer(request, response, body));
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

const json = (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
};
const get = (url: string): Question => ({ service: 'Neutron', method: 'GET', url });

/** Asks once and notes how long it would have waited. */
async function asking(question: Question, options: HttpOptions = {}) {
  const waits: number[] = [];
  await using http = new CloudHttp({ random: () => 1, wait: async (ms) => void waits.push(ms), retries: 3, ...options });
  try {
    const { body } = await http.ask(question);
    return { body, waits, calls: http.calls };
  } catch (error) {
    if (!isFault(error)) throw error;
    return { fault: error, waits, calls: http.calls };
  }
}

test('a busy service is asked again when it says, or later and later', async () => {
  let asked = 0;
  await using server = await serving((_, response) => {
    asked++;
    if (asked === 1) return json(response, 429, {}, { 'retry-after': '7' });
    if (asked === 2) return json(response, 503, {});
    return json(response, 200, { fine: true });
  });
  assert.deepEqual(await asking(get(server.url)), { body: { fine: true }, waits: [7000, 500], calls: 3 });
});

test('what may have been done is not asked for twice; what cannot have been is', async () => {
  await using server = await serving((request, response) => json(response, request.url === '/busy' ? 429 : 503, {}));
  const post = (path: string): Question => ({ ...get(`${server.url}${path}`), method: 'POST', body: {} });
  assert.equal((await asking(post('/'))).calls, 1);
  assert.equal((await asking(post('/busy'))).calls, 4);
  assert.equal((await asking({ ...post('/'), isRepeatable: true })).calls, 4);
  assert.equal((await asking({ ...post('/'), url: 'http://127.0.0.1:9' })).calls, 4);
});

test('a wait beyond all patience is told instead', async () => {
  await using server = await serving((_, response) => json(response, 503, {}, { 'retry-after': '3600' }));
  const { fault, waits } = await asking(get(server.url));
  assert.equal(fault?.code, 'unavailable');
  assert.match(fault.message, /in 3600 s/);
  assert.deepEqual(waits, []);
});

test('refusals carry the code, the service’s words and the request’s id', async () => {
  const cases: readonly (readonly [number, unknown, FaultCode, RegExp])[] = [
    [
      401,
      { error: { code: 401, message: 'The request you have made requires authentication.', title: 'Unauthorized' } },
      'unauthenticated',
      /requires authentication/,
    ],
    [
      403,
      { NeutronError: { type: 'PolicyNotAuthorized', message: 'rule:update_port is disallowed by policy', detail: '' } },
      'forbidden',
      /disallowed/,
    ],
    [404, { NeutronError: { type: 'PortNotFound', message: 'Port x could not be found.', detail: '' } }, 'not-found', /Port x could not/],
    [
      409,
      { NeutronError: { type: 'OverQuota', message: 'Quota exceeded for resources: [port].', detail: '' } },
      'exhausted',
      /Quota exceeded/,
    ],
    [409, { NeutronError: { type: 'SecurityGroupInUse', message: 'Security Group x in use.', detail: '' } }, 'in-use', /in use/],
    [
      412,
      { NeutronError: { type: 'RevisionNumberConstraintFailed', message: 'Constrained to 1, but current revision is 2', detail: '' } },
      'conflict',
      /Constrained/,
    ],
    [500, { message: 'The server has either erred' }, 'unavailable', /erred/],
    [502, '<html>Bad gateway</html>', 'unavailable', /status 502/],
  ];
  for (const [status, body, code, words] of cases) {
    await using server = await serving((_, response) => json(response, status, body, { 'x-openstack-request-id': 'req-1' }));
    const { fault } = await asking({ ...get(`${server.url}/v2.0/ports`), method: 'POST' }, { retries: 0 });
    assert.equal(fault?.code, code, `${status}`);
    assert.match(fault.message, words);
    assert.match(fault.message, /POST \/v2\.0\/ports.*\(request req-1\)/);
  }
});

test('answers that are no JSON, too large, cut off or never come are told as what they are', async () => {
  await using server = await serving((request, response) => {
    if (request.url === '/html') response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Dashboard</html>');
    if (request.url === '/large') response.writeHead(200).end('x'.repeat(10 << 20));
    if (request.url === '/cut') {
      response.writeHead(200, { 'content-length': '100' }).write('{');
      setTimeout(() => response.destroy(), 10);
    }
  });
  const cases: readonly (readonly [string, FaultCode, RegExp])[] = [
    ['/html', 'corrupt', /with text\/html, not with JSON/],
    ['/large', 'corrupt', /larger than 8 MiB/],
    ['/cut', 'unavailable', /cannot be reached/],
    ['/silent', 'timeout', /not answered in time/],
  ];
  for (const [path, code, words] of cases) {
    const { fault } = await asking(get(`${server.url}${path}`), { retries: 0, timeoutMs: path === '/silent' ? 100 : 5000 });
    assert.equal(fault?.code, code, path);
    assert.match(fault.message, words);
  }
});

/** A cloud of one project whose tokens are numbered. */
const cloudOf = (url: string, more: Partial<Cloud> = {}): Cloud => ({
  name: 'test',
  authUrl: `${url}/v3`,
  login: { type: 'password', user: { name: 'demo', domain: { id: 'default' } }, password: 'secret', project: { id: 'p' } },
  place: { interface: 'public', region: undefined },
  ca: undefined,
  verify: true,
  overrides: {},
  ...more,
});

function keystone(url: () => string, changes: object = {}): { answer: Answer; logins: () => number } {
  let logins = 0;
  const catalog = () => [
    { type: 'network', endpoints: [{ interface: 'public', region_id: 'one', region: 'one', url: `${url()}/network/` }] },
  ];
  return {
    logins: () => logins,
    answer: (_, response) => {
      logins++;
      const token = {
        expires_at: '2999-01-01T00:00:00.000000Z',
        project: { id: 'p', name: 'demo' },
        roles: [],
        catalog: catalog(),
        more: 1,
        ...changes,
      };
      json(response, 201, { token }, { 'x-subject-token': `token-${logins}` });
    },
  };
}

test('a token that has ended is replaced in the middle of the work, once', async () => {
  let url = '';
  const identity = keystone(() => url);
  const seen: unknown[] = [];
  await using server = await serving((request, response, body) => {
    if (request.url === '/v3/auth/tokens') return identity.answer(request, response, body);
    seen.push(request.headers['x-auth-token']);
    const isGood = request.headers['x-auth-token'] === 'token-2' && request.url?.startsWith('/network/v2.0/ports') === true;
    return isGood ? json(response, 200, { ports: [] }) : json(response, 401, { error: { message: 'expired' } });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url));
  assert.deepEqual(await new Neutron(session).list('ports'), []);
  assert.deepEqual(seen, ['token-1', 'token-2']);
  await assert.rejects(new Neutron(session).list('networks'), (error) => isFault(error, 'unauthenticated'));
  assert.equal(identity.logins(), 3, 'one more try, then it is said');
});

test('a token is not begun anything with when it is about to end', async () => {
  let url = '';
  const identity = keystone(() => url, { expires_at: new Date(100_000).toISOString() });
  await using server = await serving((request, response, body) =>
    request.url === '/v3/auth/tokens' ? identity.answer(request, response, body) : json(response, 200, { ports: [] }),
  );
  ({ url } = server);
  let now = 0;
  await using session = new CloudSession(cloudOf(url), {}, () => now);
  await session.token();
  await session.token();
  assert.equal(identity.logins(), 1);
  now = 50_000;
  await session.token();
  assert.equal(identity.logins(), 2);
});

const endpoint = (region: string, name: string) => ({ interface: name, region_id: region, url: 'http://127.0.0.1:9' });

test('catalogues without the service, with other regions or interfaces, and logins without a project are told', async () => {
  const cases: readonly (readonly [object, Partial<Cloud['place']>, FaultCode, RegExp])[] = [
    [{ catalog: [{ type: 'compute', endpoints: [] }] }, {}, 'not-found', /no service of type network; it has compute/],
    [
      { catalog: [{ type: 'network', endpoints: [endpoint('a', 'public'), endpoint('b', 'public')] }] },
      {},
      'invalid',
      /several regions: a, b/,
    ],
    [{ catalog: [{ type: 'network', endpoints: [endpoint('a', 'public')] }] }, { region: 'c' }, 'not-found', /no region c .* it has a/],
    [
      { catalog: [{ type: 'network', endpoints: [endpoint('a', 'public')] }] },
      { interface: 'internal' },
      'not-found',
      /no internal endpoint; it has public/,
    ],
    [{ project: undefined }, {}, 'invalid', /for no project/],
    [{ expires_at: 'soon' }, {}, 'corrupt', /expires_at/],
    [{ roles: [{}] }, {}, 'corrupt', /token\.roles\[0\]\.name/],
  ];
  for (const [changes, place, code, words] of cases) {
    let url = '';
    const identity = keystone(() => url, changes);
    await using server = await serving(identity.answer);
    ({ url } = server);
    await using session = new CloudSession(cloudOf(url, { place: { interface: 'public', region: undefined, ...place } }), { retries: 0 });
    await assert.rejects(new Neutron(session).list('ports'), (error) => {
      assert.ok(isFault(error, code), String(error));
      assert.match(error.message, words);
      return true;
    });
  }
});

test('lists come in pages; fields that are missing are named, others are nobody’s business', async () => {
  let url = '';
  const identity = keystone(() => url);
  const queries: string[] = [];
  await using server = await serving((request, response, body) => {
    const asked = request.url ?? '';
    if (asked === '/v3/auth/tokens') return identity.answer(request, response, body);
    queries.push(asked.replace('/network/v2.0/', ''));
    if (asked.includes('/subnets')) return json(response, 200, { subnets: [{ id: 'a', network_id: 'n' }] });
    const isFirst = !asked.includes('marker');
    const networks = [{ id: isFirst ? 'a' : 'b', mtu: 1442, subnets: [], name: null, another: { field: 1 } }];
    return json(response, 200, { networks, ...(isFirst ? { networks_links: [{ rel: 'next', href: 'https://elsewhere/' }] } : {}) });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url));
  const neutron = new Neutron(session);
  const found = await neutron.list('networks', { name: ['x', 'y'] });
  assert.deepEqual(
    found.map(({ id, name }) => [id, name]),
    [
      ['a', ''],
      ['b', ''],
    ],
  );
  assert.deepEqual(queries, ['networks?name=x&name=y&limit=500', 'networks?name=x&name=y&limit=500&marker=a']);
  await assert.rejects(neutron.list('subnets'), (error) => isFault(error, 'corrupt') && error.message.includes('lacks subnets[0].cidr'));
});
