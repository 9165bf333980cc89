// Who may do what, found out by trying: every route of the table with every sort of asker, then whose things they may touch.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr } from '#model/ip.ts';
import * as v from 'valibot';
import { schemas } from '#api/schemas.ts';
import { portRange } from '#model/numbers.ts';
import { type Access, type Route, routes } from '#api/routes.ts';
import { type Asker, type Bed, endpointBody, type HostAsker, openBed, reportBody } from './bed.ts';

test('every route is open to those that its row names and to nobody else', async (t) => {
  await using bed = await openBed();
  await bed.ask(await bed.role('admin'), 'POST /v1/tenants', { body: { name: 'red' } });
  const askers: Readonly<Record<Access, Asker>> = {
    anyone: {},
    admin: await bed.role('admin'),
    operator: await bed.role('operator'),
    viewer: await bed.role('viewer'),
    tenant: await bed.role('tenant:red'),
    host: await bed.host('a'),
  };
  const all: [string, Route<never, never>][] = Object.entries(routes);
  for (const [operation, route] of all) {
    for (const [who, asker] of Object.entries(askers)) {
      const isOpen = route.access.some((one) => one === who || one === 'anyone');
      if (operation === 'watch' && isOpen) continue;
      await t.test(`${operation} by ${who}: ${isOpen ? 'yes' : 'no'}`, async () => {
        const line = `${route.method} ${route.path.replaceAll(/\{\w+\}/g, 'nothing000001')}`;
        const { code } = await bed.ask(asker, line, route.method === 'GET' || route.method === 'DELETE' ? {} : { body: {} });
        const refusal = who === 'anyone' ? 'unauthenticated' : 'forbidden';
        if (isOpen) assert.notEqual(code, refusal);
        else assert.equal(code, refusal);
      });
    }
  }
});

interface Scene {
  readonly bed: Bed;
  readonly a: HostAsker;
  readonly b: HostAsker;
  readonly network: string;
  readonly blockOfB: string;
}

/** Host b has a block and an endpoint in the network blue, host a nothing yet. */
async function openScene(): Promise<Scene> {
  const bed = await openBed();
  const [a, b] = [await bed.host('a'), await bed.host('b')];
  const { id } = await bed.must(b, 'POST /v1/networks', schemas.networks, { body: { name: 'blue' } });
  const pools = await bed.must(b, 'GET /v1/pools', v.object({ items: v.tuple([schemas.pools]) }));
  const claim = { network: id, pool: pools.items[0].id, host: 'b' };
  const block = await bed.must(b, 'POST /v1/blocks', schemas.blocks, { body: claim });
  const body = endpointBody('b', id, { addresses: ['10.64.0.2'] });
  await bed.must(b, 'PUT /v1/endpoints/endpoint0001', schemas.endpoints, { body });
  await bed.settled();
  return { bed, a, b, network: id, blockOfB: block.id };
}

test('a host writes what is its own and nothing else', async (t) => {
  const { bed, a, b, network, blockOfB } = await openScene();
  await using _ = bed;
  const other = endpointBody('b', network, { addresses: ['10.64.0.2'], sequence: 2 });
  const rows: readonly [what: string, line: string, body: unknown, code: string][] = [
    ["another host's endpoint", 'PUT /v1/endpoints/endpoint0001', other, 'forbidden'],
    ["another host's endpoint as its own", 'PUT /v1/endpoints/endpoint0001', { ...other, host: 'a' }, 'forbidden'],
    ["deletion of another host's endpoint", 'DELETE /v1/endpoints/endpoint0001', undefined, 'forbidden'],
    [
      "an address of another host's block",
      'PUT /v1/endpoints/endpoint0002',
      endpointBody('a', network, { id: 'endpoint0002', addresses: ['10.64.0.3'] }),
      'forbidden',
    ],
    ["another host's report", 'PUT /v1/hosts/b/report', reportBody(), 'forbidden'],
    ["another host's certificate", 'POST /v1/hosts/b/certificate', { csr: '-----BEGIN ' }, 'forbidden'],
    ['a block for another host', 'POST /v1/blocks', { network, pool: 'pool00000001', host: 'b' }, 'forbidden'],
    ["release of another host's block", `DELETE /v1/blocks/${blockOfB}`, undefined, 'forbidden'],
    [
      'a loan for another host',
      `POST /v1/blocks/${blockOfB}/loans`,
      { id: 'loan00000001', host: 'b', endpoint: 'endpoint0001' },
      'forbidden',
    ],
    ['watching as another host', 'GET /v1/watch?host=b', undefined, 'forbidden'],
    ['removal of a host', 'DELETE /v1/hosts/b', undefined, 'forbidden'],
    ['tokens', 'POST /v1/tokens', { type: 'join' }, 'forbidden'],
    ['an exposure', 'POST /v1/exposures', {}, 'forbidden'],
    ['a network with endpoints', `DELETE /v1/networks/${network}`, undefined, 'in-use'],
    ['what it cannot see: an endpoint of a network without it', 'GET /v1/endpoints/endpoint0001', undefined, 'not-found'],
  ];
  for (const [what, line, body, code] of rows) {
    await t.test(what, async () => assert.equal((await bed.ask(a, line, body === undefined ? {} : { body })).code, code));
  }
  const batch = await bed.must(
    a,
    'POST /v1/endpoints:batch',
    v.object({ results: v.array(v.object({ problem: v.object({ code: v.string() }) })) }),
    {
      body: { puts: [other, { ...other, host: 'a' }], deletes: [{ id: 'endpoint0001' }] },
    },
  );
  assert.deepEqual(
    batch.results.map(({ problem }) => problem.code),
    ['forbidden', 'forbidden', 'forbidden'],
  );
  const stored = await bed.must(b, 'GET /v1/endpoints/endpoint0001', schemas.endpoints);
  assert.equal(stored.sequence, 1);
});

test('a loan: the borrower asks and returns, the owner grants; then the address may be used', async () => {
  const { bed, a, b, network, blockOfB } = await openScene();
  await using _ = bed;
  const loans = `POST /v1/blocks/${blockOfB}/loans`;
  const request = { id: 'loan00000001', host: 'a', endpoint: 'endpoint0002' };
  await bed.must(a, loans, schemas.blocks, { body: request });
  await bed.must(a, loans, schemas.blocks, { body: request });
  const code = async (asker: Asker, body: unknown, line = `${loans}/loan00000001`): Promise<string> =>
    (await bed.ask(asker, line, { body })).code;
  assert.equal(await code(a, { state: 'granted', ip: '10.64.0.5' }), 'forbidden');
  assert.equal(await code(b, { state: 'returned' }), 'forbidden');
  assert.equal(await code(b, { state: 'granted' }), 'invalid');
  assert.equal(await code(b, { state: 'granted', ip: '10.64.1.5' }), 'invalid');
  assert.equal(await code(b, { state: 'granted', ip: '10.64.0.5' }), '');
  assert.equal(await code(b, { state: 'granted', ip: '10.64.0.5' }), '', 'again');
  assert.equal(await code(b, { state: 'refused' }), 'stale');
  const endpoint = endpointBody('a', network, { id: 'endpoint0002', addresses: ['10.64.0.5'] });
  assert.equal(await code(a, endpoint, 'PUT /v1/endpoints/endpoint0002'), '');
  assert.equal((await bed.ask(b, `DELETE /v1/blocks/${blockOfB}`)).code, 'in-use');
  assert.equal((await bed.ask(a, `DELETE /v1/blocks/${blockOfB}/loans/loan00000001`)).code, 'in-use');
  assert.equal(await code(a, { state: 'returned' }), '');
  assert.equal((await bed.ask(b, `DELETE /v1/blocks/${blockOfB}/loans/loan00000001`)).code, '');
});

test('a tenant sees and changes its own networks only', async (t) => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  for (const name of ['red', 'green']) await bed.must(admin, 'POST /v1/tenants', schemas.tenants, { body: { name } });
  const [red, green] = [await bed.role('tenant:red'), await bed.role('tenant:green')];
  const own = await bed.must(red, 'POST /v1/networks', schemas.networks, { body: { name: 'shop' } });
  await bed.settled();
  assert.equal(own.tenant, 'red');
  const exposure = { network: 'shop', endpoint: 'web', protocol: 'tcp', port: 80, hostPort: 80 };
  const names = v.object({ items: v.array(v.object({ name: v.string() })) });
  const seen = async (asker: Asker, kind: string): Promise<string[]> =>
    (await bed.must(asker, `GET /v1/${kind}`, names)).items.map(({ name }) => name);
  assert.deepEqual(await seen(red, 'networks'), ['shop']);
  assert.deepEqual(await seen(green, 'networks'), []);
  assert.deepEqual(await seen(green, 'pools'), []);
  assert.deepEqual(await seen(green, 'tenants'), ['green']);
  const rows: readonly [what: string, asker: Asker, line: string, body: unknown, code: string][] = [
    ['another tenant for a new network', green, 'POST /v1/networks', { name: 'x', tenant: 'red' }, 'forbidden'],
    ["reading another's network", green, 'GET /v1/networks/shop', undefined, 'not-found'],
    ["deleting another's network", green, 'DELETE /v1/networks/shop', undefined, 'not-found'],
    ["adding a pool to another's network", green, 'POST /v1/pools', { network: 'shop' }, 'not-found'],
    ["exposing another's endpoint", green, 'POST /v1/exposures', exposure, 'not-found'],
    ['tenants', red, 'POST /v1/tenants', { name: 'blue' }, 'forbidden'],
    ['watching as a host', red, 'GET /v1/watch?host=a', undefined, 'forbidden'],
    ['its own exposure', red, 'POST /v1/exposures', exposure, ''],
    ['its own network, deleted', red, 'DELETE /v1/networks/shop', undefined, ''],
    ['a tenant with nothing left, by the operator', admin, 'DELETE /v1/tenants/red', undefined, ''],
    ['a tenant of the same name', admin, 'POST /v1/tenants', { name: 'red' }, ''],
    ['what is its, by a token of the one before', red, 'GET /v1/networks', undefined, 'unauthenticated'],
    ['the tenant default', admin, 'DELETE /v1/tenants/default', undefined, 'forbidden'],
  ];
  for (const [what, asker, line, body, code] of rows) {
    await t.test(what, async () => assert.equal((await bed.ask(asker, line, body === undefined ? {} : { body })).code, code));
  }
});

test('an error tells a tenant no name of what another has', async (t) => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  for (const name of ['red', 'green']) await bed.must(admin, 'POST /v1/tenants', schemas.tenants, { body: { name } });
  const shop = { name: 'secretshop', model: 'flannel', vni: 5000, pools: [{ family: 4, cidr: '10.1.0.0/16' }] };
  await bed.must(await bed.role('tenant:red'), 'POST /v1/networks', schemas.networks, { body: shop });
  await bed.settled();
  const green = await bed.role('tenant:green');
  await bed.must(green, 'POST /v1/networks', schemas.networks, { body: { name: 'mine', model: 'flannel' } });
  await bed.settled();
  const flat = { name: 'flat', model: 'flannel' };
  const rows: readonly [what: string, line: string, body: object, code: string][] = [
    ['a range', 'POST /v1/networks', { ...flat, pools: [{ family: 4, cidr: '10.1.2.0/24' }] }, 'overlap'],
    ['a further range', 'POST /v1/pools', { network: 'mine', cidr: '10.1.2.0/24' }, 'overlap'],
    ['a port', 'POST /v1/networks', { ...flat, vni: 5000 + portRange }, 'exists'],
  ];
  for (const [what, line, body, code] of rows) {
    await t.test(what, async () => {
      const [theirs, all] = [await bed.ask(green, line, { body }), await bed.ask(admin, line, { body })];
      assert.deepEqual([theirs.code, all.code], [code, code]);
      assert.match(JSON.stringify(theirs.body), /another tenant's network/);
      assert.doesNotMatch(JSON.stringify(theirs.body), /secretshop/);
      assert.match(JSON.stringify(all.body), /network secretshop/);
    });
  }
});

test('exposures that nobody has named do not meet those of other networks', async () => {
  await using bed = await openBed();
  const { admin, red } = await withShop(bed);
  await bed.must(admin, 'POST /v1/tenants', schemas.tenants, { body: { name: 'green' } });
  const green = await bed.role('tenant:green');
  await bed.must(green, 'POST /v1/networks', schemas.networks, { body: { name: 'theirs' } });
  await bed.settled();
  const expose = (who: Asker, network: string): ReturnType<Bed['ask']> =>
    bed.ask(who, 'POST /v1/exposures', { body: { network, endpoint: 'front', protocol: 'tcp', port: 80, hostPort: 80 } });
  const named = v.object({ name: v.string() });
  assert.equal(v.parse(named, (await expose(red, 'shop')).body).name, 'front-80-tcp');
  assert.equal(v.parse(named, (await expose(green, 'theirs')).body).name, 'theirs-front-80-tcp');
  assert.deepEqual([(await expose(red, 'shop')).code, (await expose(green, 'theirs')).code], ['exists', 'exists']);
});

/** A tenant with a network. */
async function withShop(bed: Bed): Promise<{ readonly admin: Asker; readonly red: Asker }> {
  const admin = await bed.role('admin');
  await bed.must(admin, 'POST /v1/tenants', schemas.tenants, { body: { name: 'red' } });
  const red = await bed.role('tenant:red');
  await bed.must(red, 'POST /v1/networks', schemas.networks, { body: { name: 'shop' } });
  await bed.settled();
  return { admin, red };
}

test('which address hosts have on the wire is not for a tenant to say', async () => {
  await using bed = await openBed();
  const { admin, red } = await withShop(bed);
  const asked = { network: 'shop', endpoint: 'web', protocol: 'tcp', port: 80, hostPort: 80, virtualIp: true };
  const made = await bed.must(red, 'POST /v1/exposures', schemas.exposures, { body: asked });
  assert.deepEqual(made.virtualIp, { hosts: [] });
  const body = { ...made, virtualIp: { ip: '10.20.0.1', hosts: ['a'] } };
  const headers = { 'if-match': `"${made.revision}"` };
  const { code, field } = await bed.ask(red, `PUT /v1/exposures/${made.id}`, { body, headers });
  assert.deepEqual([code, field], ['invalid', 'virtualIp']);
  const placed = await bed.must(admin, `PUT /v1/exposures/${made.id}`, schemas.exposures, { body, headers });
  assert.deepEqual(placed.virtualIp, body.virtualIp);
});

test('from where a load balancer comes is for those to say who speak for the cloud, and nobody else is in their way', async () => {
  await using bed = await openBed();
  const { admin, red } = await withShop(bed);
  const asked = { network: 'shop', endpoint: 'web', protocol: 'tcp', port: 80, hostPort: 80, loadBalancer: 'public', provider: 'amphora' };
  const made = await bed.must(red, 'POST /v1/exposures', schemas.exposures, { body: asked });
  assert.deepEqual([made.provider, made.balancerRanges], ['amphora', undefined]);
  const put = (who: typeof red, body: typeof made): Promise<typeof made> =>
    bed.must(who, `PUT /v1/exposures/${made.id}`, schemas.exposures, { body, headers: { 'if-match': `"${body.revision}"` } });
  const told = await put(admin, { ...made, balancerRanges: [parseCidr('10.20.0.0/24')] });
  assert.deepEqual(told.balancerRanges, ['10.20.0.0/24']);
  const mine = await put(red, { ...told, hostPort: 81, balancerRanges: [parseCidr('0.0.0.0/0')] });
  assert.deepEqual([mine.hostPort, mine.balancerRanges], [81, ['10.20.0.0/24']]);
  const { loadBalancer: _, provider: __, ...plain } = mine;
  const alone = await put(red, plain);
  assert.equal(alone.balancerRanges, undefined, 'which no load balancer comes to any more');
});

test('the family of what is reached by IPv6 stays, and so does what it must not be reached by', async () => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  const pools = [
    { family: 4, cidr: '10.64.0.0/24' },
    { family: 6, cidr: 'fd64::/64' },
  ];
  await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name: 'shop', pools } });
  await bed.settled();
  const asked = { network: 'shop', endpoint: 'web', protocol: 'tcp', port: 80, hostPort: 80, virtualIp: true, family: 6 };
  const made = await bed.must(admin, 'POST /v1/exposures', schemas.exposures, { body: asked });
  assert.equal(made.family, 6);
  const headers = { 'if-match': `"${made.revision}"` };
  const { family: _, ...without } = made;
  for (const [body, field] of [
    [without, 'family'],
    [{ ...made, floatingIp: 'auto' }, 'floatingIp'],
  ] as const) {
    const answer = await bed.ask(admin, `PUT /v1/exposures/${made.id}`, { body, headers });
    assert.deepEqual([answer.code, answer.field], ['invalid', field]);
  }
  const wider = await bed.must(admin, `PUT /v1/exposures/${made.id}`, schemas.exposures, { body: { ...made, port: 81 }, headers });
  assert.deepEqual([wider.port, wider.family], [81, 6]);
});

test('tokens: shown once, refused once expired, deleted or of the other sort', async () => {
  let now = Date.parse('2026-01-01T00:00:00Z');
  await using bed = await openBed({ now: () => new Date(now) });
  const admin = await bed.role('admin');
  const token = v.object({ id: v.string(), token: v.string() });
  const short = await bed.must(admin, 'POST /v1/tokens', token, { body: { type: 'api', role: 'viewer', ttlSeconds: 60 } });
  const lasting = await bed.must(admin, 'POST /v1/tokens', token, { body: { type: 'api', role: 'viewer' } });
  const joining = await bed.must(admin, 'POST /v1/tokens', token, { body: { type: 'join' } });
  const code = async (text: string): Promise<string> => (await bed.ask({ token: text }, 'GET /v1/hosts')).code;
  assert.equal(await code(short.token), '');
  assert.equal(await code(joining.token), 'unauthenticated');
  assert.equal(await code(`${short.token.slice(0, -1)}${short.token.endsWith('0') ? '1' : '0'}`), 'unauthenticated');
  now += 61_000;
  assert.equal(await code(short.token), 'unauthenticated');
  assert.equal(await code(lasting.token), '');
  await bed.ask(admin, `DELETE /v1/tokens/${lasting.id}`);
  await bed.settled();
  assert.equal(await code(lasting.token), 'unauthenticated');
  const { body } = await bed.ask(admin, 'GET /v1/tokens');
  const everything = JSON.stringify([body, (await bed.store.list('tokens/')).entries]);
  for (const { token: text } of [short, lasting, joining]) assert.ok(!everything.includes(text.split('_')[2] ?? ''));
});

test("a name that another tenant's endpoint has as well stands for the own one", async () => {
  await using bed = await openBed();
  const { admin, red } = await withShop(bed);
  const a = await bed.host('a');
  await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name: 'other' } });
  await bed.settled();
  const networks = [...bed.controller.control.mirror.all('networks').values()];
  for (const [index, { id }] of networks.entries()) {
    const body = endpointBody('a', id, { id: `endpoint000${index}` });
    await bed.must(a, `PUT /v1/endpoints/endpoint000${index}`, schemas.endpoints, { body });
  }
  await bed.settled();
  const own = await bed.must(red, 'GET /v1/endpoints/web', schemas.endpoints);
  assert.equal(own.network, networks.find(({ name }) => name === 'shop')?.id);
  assert.equal((await bed.ask(admin, 'GET /v1/endpoints/web')).code, 'invalid', 'who sees both has to say which');
});
