// The way to ask, against real servers of the test's own that answer as clouds, proxies and dashboards do on bad days.
import assert from 'node:assert/strict';
import { createServer } from 'node:https';
import { test } from 'node:test';
import { makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { Fault, type FaultCode, isFault } from '#model/fault.ts';
import { parseCidr } from '#model/ip.ts';
import { openAuthority } from '#controller/ca.ts';
import { MemoryStore } from '#store/memory.ts';
import { readState } from './reading.ts';
import type { Cloud } from './clouds.ts';
import { CloudHttp, type HttpOptions, type Question } from './http.ts';
import { Neutron } from './neutron.ts';
import { planCloud } from './plan.ts';
import { cloudOf, json, keystone, serving } from './server.fixture.ts';
import { CloudSession } from './session.ts';
import { wishOf } from './wish.ts';

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

test("what a service's database has undone is repeated where it can be, other failures of the service are not", async () => {
  const undone = { faultstring: '(pymysql.err.OperationalError) (1020, "Record has changed since last read in table \'load_balancer\'")' };
  await using server = await serving((request, response) =>
    json(response, 500, request.url === '/undone' ? undone : { faultstring: 'no' }),
  );
  const put = (path: string) => ({ ...get(`${server.url}${path}`), method: 'PUT' as const });
  assert.equal((await asking({ ...put('/undone'), isRepeatable: true })).calls, 4);
  assert.equal((await asking(put('/undone'))).calls, 1);
  assert.equal((await asking({ ...put('/other'), isRepeatable: true })).calls, 1);
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
    if (code === 'timeout') assert.ok(fault.hint !== undefined, 'what to do is said');
  }
});

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

test('what there is to log in with is read before each login', async () => {
  let url = '';
  const identity = keystone(() => url);
  const passwords: string[] = [];
  await using server = await serving((request, response, body) => {
    if (request.url !== '/v3/auth/tokens') return json(response, 200, { ports: [] });
    passwords.push(/"password":"(\w+)"/.exec(body)?.[1] ?? '');
    return passwords.at(-1) === 'right' ? identity.answer(request, response, body) : json(response, 401, { error: { message: 'no' } });
  });
  ({ url } = server);
  let password = 'wrong';
  const cloud = (): Cloud => {
    if (password === '') throw new Fault('corrupt', 'not a clouds file');
    return cloudOf(url, { login: { type: 'password', user: { id: 'u' }, password, project: { id: 'p' } } });
  };
  await using session = new CloudSession(cloud(), { retries: 0, reread: async () => cloud() });
  await assert.rejects(session.token(), (error) => isFault(error, 'unauthenticated'));
  password = '';
  await assert.rejects(session.token(), (error) => isFault(error, 'corrupt'));
  password = 'right';
  assert.deepEqual(await new Neutron(session).list('ports'), []);
  assert.deepEqual(passwords, ['wrong', 'right']);
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
  const fields =
    'fields=id&fields=name&fields=project_id&fields=mtu&fields=provider%3Anetwork_type&fields=router%3Aexternal&fields=subnets';
  assert.deepEqual(queries, [`networks?name=x&name=y&${fields}&limit=500`, `networks?name=x&name=y&${fields}&limit=500&marker=a`]);
  await assert.rejects(neutron.list('subnets'), (error) => isFault(error, 'corrupt') && error.message.includes('lacks subnets[0].cidr'));
});

test('a list from which something is removed meanwhile is asked for again, but not for ever', async () => {
  let url = '';
  const identity = keystone(() => url);
  let [asked, refusals] = [0, 2];
  await using server = await serving((request, response, body) => {
    if (request.url === '/v3/auth/tokens') return identity.answer(request, response, body);
    asked++;
    if (refusals-- <= 0) return json(response, 200, { routers: [] });
    return json(response, 404, { NeutronError: { type: 'PortNotFound', message: 'Port c99f45ab could not be found.' } });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url));
  const neutron = new Neutron(session);
  assert.deepEqual([await neutron.list('routers'), asked], [[], 3]);
  [asked, refusals] = [0, 9];
  await assert.rejects(neutron.list('routers'), (error) => isFault(error, 'not-found'));
  assert.equal(asked, 3);
});

const needed = ['security-group', 'allowed-address-pairs', 'standard-attr-tag', 'quota_details'];

test('extensions that a cloud lacks are named, but for the one that only tells of quotas', async () => {
  for (const missing of needed) {
    let url = '';
    const identity = keystone(() => url);
    await using server = await serving((request, response, body) => {
      if (request.url === '/v3/auth/tokens') return identity.answer(request, response, body);
      const found = needed.filter((alias) => alias !== missing).map((alias) => ({ alias, name: 'any' }));
      return json(response, 200, { extensions: found, ports: [], security_groups: [], routers: [], networks: [] });
    });
    ({ url } = server);
    await using session = new CloudSession(cloudOf(url));
    const state = readState(new Neutron(session), {});
    if (missing === 'quota_details') {
      assert.deepEqual((await state).quotas, {});
      const scope = { router: 'edge' };
      await assert.rejects(readState(new Neutron(session), scope), (error) => isFault(error, 'not-found'));
      const { target, noTarget } = await readState(new Neutron(session), { ...scope, mayLackRouter: true });
      assert.deepEqual([target, noTarget], [undefined, 'The cloud has no router edge that you can see; it has none']);
    } else await assert.rejects(state, (error) => isFault(error, 'unsupported') && error.message.includes(missing));
  }
});

const port = (index: number) => ({
  id: `port-${String(index).padStart(4, '0')}`,
  name: `node-${index}`,
  network_id: 'net',
  project_id: 'p',
  mac_address: 'fa:16:3e:00:00:01',
  device_owner: 'compute:nova',
  device_id: `vm-${index}`,
  status: 'ACTIVE',
  fixed_ips: [{ subnet_id: 'subnet', ip_address: makeHost(index).underlay[0]?.ip }],
  security_groups: ['default'],
  allowed_address_pairs: [],
  port_security_enabled: true,
  tags: [],
  revision_number: 7,
  admin_state_up: true,
  created_at: '2026-01-01T00:00:00Z',
  extra_dhcp_opts: [],
});

test('a plan for 500 hosts takes a handful of calls, and the steps one rule set for all', async () => {
  let url = '';
  const identity = keystone(() => url);
  const ports = Array.from({ length: 600 }, (_, index) => port(index + 1));
  await using server = await serving((request, response, body) => {
    const asked = new URL(request.url ?? '', url);
    if (asked.pathname === '/v3/auth/tokens') return identity.answer(request, response, body);
    if (asked.pathname.endsWith('/details')) return json(response, 200, { quota: { security_group: { limit: 10, used: 1, reserved: 0 } } });
    if (asked.pathname.endsWith('/extensions')) return json(response, 200, { extensions: needed.map((alias) => ({ alias })) });
    if (!asked.pathname.endsWith('/ports')) return json(response, 200, { security_groups: [], routers: [], networks: [] });
    const from = ports.findIndex(({ id }) => id === asked.searchParams.get('marker')) + 1;
    const page = ports.slice(from, from + 500);
    return json(response, 200, { ports: page, ...(from + 500 < ports.length ? { ports_links: [{ rel: 'next', href: 'x' }] } : {}) });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url));
  const hosts = Array.from({ length: 500 }, (_, index) => makeHost(index + 1));
  const networks = [makeNetwork('over'), makeNetwork('plain', { model: 'flannel', carry: 'host-gateway' })];
  const pools = [makePool('plain', parseCidr('10.0.0.0/8'), 24)];
  const wish = wishOf({ hosts, networks, pools, blocks: [], endpoints: [], exposures: [] }, 'cw');
  const plan = planCloud(wish, await readState(new Neutron(session), {}));
  assert.equal(session.calls, 8, 'a login, extensions, groups, two pages of ports, quotas, routers, networks');
  assert.deepEqual(plan.problems, []);
  assert.deepEqual(
    Object.entries(Object.groupBy(plan.steps, ({ type }) => type)).map(([type, steps]) => [type, steps.length]),
    [
      ['make-group', 1],
      ['add-rules', 1],
      ['change-port', 500],
    ],
  );
});

const answer = (_: unknown, response: Parameters<typeof json>[0]): void => json(response, 200, { fine: true });

test('a cloud with an authority of its own is trusted when that is named, and only then', async () => {
  const authority = await openAuthority(new MemoryStore(), new Date());
  const { certificate, key } = await authority.issueServer(['127.0.0.1'], new Date());
  await using server = await serving(answer, (listener) => createServer({ cert: certificate, key }, listener));
  const question = get(`https://127.0.0.1:${server.port}`);
  assert.deepEqual((await asking(question, { ca: authority.certificate })).body, { fine: true });
  assert.deepEqual((await asking(question, { trustsAnybody: true })).body, { fine: true });
  const { fault } = await asking(question);
  assert.equal(fault?.code, 'unauthenticated');
  assert.match(fault.message, /certificate of Neutron .* is not to be trusted/);
});
