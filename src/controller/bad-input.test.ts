// One row a case: what is wrong with a request, and which field the answer names. Nothing is half-made afterwards.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import type { FaultCode } from '#model/fault.ts';
import { schemas } from '#api/schemas.ts';
import { type Answer, type Asker, type Bed, endpointBody, type HostAsker, openBed, reportBody } from './bed.ts';

const megabyte = 'a'.repeat(1024 * 1024);
const hostile = ['a/b', '../a', 'a\nb', 'a b', '', '-a', 'a\u0000b', 'ä', '%2e%2e', 'a'.repeat(64), 'a'.repeat(100_000)];

interface Row {
  readonly what: string;
  readonly line: string;
  readonly body: unknown;
  readonly field: string;
  readonly code?: FaultCode;
}

const network = (what: string, rest: object, field: string, code: FaultCode = 'invalid'): Row => ({
  what: `network: ${what}`,
  line: 'POST /v1/networks',
  body: { name: 'red', ...rest },
  field,
  code,
});
const pool = (what: string, one: object, field: string, code: FaultCode = 'invalid'): Row =>
  network(`pool ${what}`, { pools: [{ family: 4, ...one }] }, `pools[0].${field}`, code);

const rows: readonly Row[] = [
  { what: 'no name', line: 'POST /v1/networks', body: {}, field: 'name' },
  { what: 'a list', line: 'POST /v1/networks', body: [], field: 'name' },
  { what: 'a text', line: 'POST /v1/networks', body: 'red', field: '' },
  { what: 'null', line: 'POST /v1/networks', body: null, field: '' },
  { what: 'a number for a name', line: 'POST /v1/networks', body: { name: 7 }, field: 'name' },
  ...hostile.map((name) => network(`name ${JSON.stringify(name.slice(0, 9))}`, { name }, 'name')),
  network('unknown field', { subnet: '10.0.0.0/24' }, 'subnet'),
  network('unknown model', { model: 'bridge' }, 'model'),
  network('carry that the model has not', { carry: 'host-gateway' }, 'carry'),
  network('MTU below', { mtu: 575 }, 'mtu'),
  network('MTU above', { mtu: 65_536 }, 'mtu'),
  network('MTU no whole number', { mtu: 1400.5 }, 'mtu'),
  network('MTU too low for IPv6', { mtu: 1279, pools: [{ family: 6 }] }, 'mtu'),
  network('VNI 0', { vni: 0 }, 'vni'),
  network('VNI above', { vni: 0x1000000 }, 'vni'),
  network('VNI text', { vni: '5' }, 'vni'),
  network('unknown tenant', { tenant: 'nobody' }, 'tenant', 'not-found'),
  network('65 labels', { labels: Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`k${index}`, ''])) }, 'labels'),
  network('long label', { labels: { a: 'x'.repeat(257) } }, 'labels.a'),
  network('long label key', { labels: { ['k'.repeat(257)]: 'x' } }, `labels["${'k'.repeat(80)}…"]`),
  network('label of a number', { labels: { a: 1 } }, 'labels.a'),
  network('17 pools', { pools: Array.from({ length: 17 }, () => ({ family: 4 })) }, 'pools'),
  network('pools no list', { pools: { 0: { family: 4 } } }, 'pools'),
  pool('without family', { family: undefined }, 'family'),
  pool('of family 5', { family: 5 }, 'family'),
  pool('unknown field', { subnet: '10.0.0.0/24' }, 'subnet'),
  pool('no prefix', { cidr: '10.0.0.0' }, 'cidr'),
  pool('prefix length 33', { cidr: '10.0.0.0/33' }, 'cidr'),
  pool('host bits', { cidr: '10.0.0.1/24' }, 'cidr'),
  pool('hostile prefix', { cidr: '10.0.0.0/24; reboot' }, 'cidr'),
  pool('a megabyte of prefix', { cidr: 'a'.repeat(500_000) }, 'cidr'),
  pool('of another family', { cidr: 'fd00::/64' }, 'cidr'),
  pool('range outside', { cidr: '10.0.0.0/24', range: '10.0.1.0/25' }, 'range'),
  pool('gateway outside', { cidr: '10.0.0.0/24', gateway: '10.0.1.1' }, 'gateway'),
  pool('gateway no address', { cidr: '10.0.0.0/24', gateway: 'here' }, 'gateway'),
  pool('reserved outside', { cidr: '10.0.0.0/24', reserved: { a: '10.0.1.1' } }, 'reserved["a"]'),
  pool('transit range', { cidr: '100.127.0.0/24' }, 'cidr', 'overlap'),
  ...[
    '0.0.0.0/0',
    '0.1.0.0/16',
    '127.0.0.0/8',
    '169.254.1.0/24',
    '239.1.0.0/16',
    '255.255.255.0/24',
    '::/64',
    '::ffff:10.0.0.0/104',
    'fe80::/64',
    'ff02::/64',
  ].map((cidr) => pool(`${cidr}, which no container can have`, { family: cidr.includes(':') ? 6 : 4, cidr }, 'cidr', 'overlap')),
  pool('around the tunnel range', { cidr: '100.64.0.0/10' }, 'cidr', 'overlap'),
  pool('underlay', { cidr: '10.9.0.128/25' }, 'cidr', 'overlap'),
  pool('host route', { cidr: '172.30.1.0/24' }, 'cidr', 'overlap'),
  pool('hostile id', { id: '../networks' }, 'id'),
  pool('short id', { id: 'abc' }, 'id'),
  network(
    'two pools that overlap',
    {
      pools: [
        { family: 4, cidr: '10.0.0.0/16' },
        { family: 4, cidr: '10.0.1.0/24' },
      ],
    },
    'pools[1].cidr',
    'overlap',
  ),
  network(
    'two pools of one id',
    {
      pools: [
        { family: 4, id: 'pool000001' },
        { family: 4, id: 'pool000001' },
      ],
    },
    'pools[1].id',
  ),
  { what: 'exposure without anything', line: 'POST /v1/exposures', body: {}, field: 'network' },
  {
    what: 'exposure port 0',
    line: 'POST /v1/exposures',
    body: { network: 'blue', endpoint: 'web', protocol: 'tcp', port: 0, hostPort: 80 },
    field: 'port',
  },
  {
    what: 'exposure port 65536',
    line: 'POST /v1/exposures',
    body: { network: 'blue', endpoint: 'web', protocol: 'tcp', port: 80, hostPort: 65_536 },
    field: 'hostPort',
  },
  {
    what: 'exposure over icmp',
    line: 'POST /v1/exposures',
    body: { network: 'blue', endpoint: 'web', protocol: 'icmp', port: 1, hostPort: 1 },
    field: 'protocol',
  },
  {
    what: 'exposure of no network',
    line: 'POST /v1/exposures',
    body: { network: 'none', endpoint: 'web', protocol: 'tcp', port: 1, hostPort: 1 },
    field: '',
    code: 'not-found',
  },
  {
    what: 'exposure to a wrong range',
    line: 'POST /v1/exposures',
    body: { network: 'blue', endpoint: 'web', protocol: 'tcp', port: 1, hostPort: 1, sources: ['all'] },
    field: 'sources[0]',
  },
  {
    what: 'exposure by a load balancer and an address that moves',
    line: 'POST /v1/exposures',
    body: { network: 'blue', endpoint: 'web', protocol: 'tcp', port: 1, hostPort: 1, loadBalancer: 'public', virtualIp: true },
    field: 'virtualIp',
  },
  {
    what: 'exposure by an address that its maker chooses',
    line: 'POST /v1/exposures',
    body: { network: 'blue', endpoint: 'web', protocol: 'tcp', port: 1, hostPort: 1, virtualIp: { ip: '10.0.0.1', hosts: ['a'] } },
    field: 'virtualIp',
  },
  ...[
    { what: 'by IPv6 with a floating IP', family: 6, virtualIp: true, floatingIp: 'auto', field: 'floatingIp' },
    { what: 'by a load balancer of IPv6 with a floating IP', family: 6, loadBalancer: 'public', floatingIp: 'auto', field: 'floatingIp' },
    { what: 'by a load balancer of IPv6 for the inside', family: 6, loadBalancer: 'internal', field: 'loadBalancer' },
    { what: 'with a provider of no load balancer', provider: 'amphora', field: 'provider' },
    { what: 'with a provider that has no name', loadBalancer: 'public', provider: '-', field: 'provider' },
    { what: 'by whom hosts let in for a load balancer', loadBalancer: 'public', balancerRanges: ['10.0.0.0/8'], field: 'balancerRanges' },
    { what: 'by a floating IP of IPv6', floatingIp: '2001:db8::1', field: 'floatingIp' },
    { what: 'by IPv6 of its hosts alone', family: 6, field: 'family' },
    { what: 'by IPv4, which need not be said', family: 4, virtualIp: true, field: 'family' },
    { what: 'by IPv6 for clients of IPv4', family: 6, virtualIp: true, sources: ['192.0.2.0/24'], field: 'sources' },
    { what: 'by IPv6 of a network without', family: 6, virtualIp: true, field: 'family' },
  ].map(({ what, field, ...how }) => ({
    what: `exposure ${what}`,
    line: 'POST /v1/exposures',
    body: { network: 'blue', endpoint: 'web', protocol: 'tcp', port: 1, hostPort: 1, ...how },
    field,
  })),
  ...[
    { what: 'VNI', more: { vni: 5000 }, field: 'vni' },
    { what: 'blocks', more: { blockLength4: 28 }, field: 'blockLength4' },
    {
      what: 'reserved addresses',
      more: { pools: [{ family: 4, cidr: '10.5.0.0/24', reserved: { a: '10.5.0.9' } }] },
      field: 'pools[0].reserved',
    },
  ].map(({ what, more, field }) => network(`of Docker's own driver with ${what}`, { model: 'swarm', ...more }, field)),
  { what: "pool for a network of Docker's own driver", line: 'POST /v1/pools', body: { network: 'dockers' }, field: 'network' },
  {
    what: "exposure in a network of Docker's own driver",
    line: 'POST /v1/exposures',
    body: { network: 'dockers', endpoint: 'web', protocol: 'tcp', port: 1, hostPort: 1 },
    field: 'network',
  },
  { what: 'tenant with a slash', line: 'POST /v1/tenants', body: { name: 'a/b' }, field: 'name' },
  {
    what: 'tenant with a newline in its description',
    line: 'POST /v1/tenants',
    body: { name: 'a', description: 'a\nb' },
    field: 'description',
  },
  { what: 'token of an unknown type', line: 'POST /v1/tokens', body: { type: 'root' }, field: 'type' },
  { what: 'API token without role', line: 'POST /v1/tokens', body: { type: 'api' }, field: 'role' },
  { what: 'API token of an unknown role', line: 'POST /v1/tokens', body: { type: 'api', role: 'root' }, field: 'role' },
  {
    what: 'API token of an unknown tenant',
    line: 'POST /v1/tokens',
    body: { type: 'api', role: 'tenant:none' },
    field: 'role',
    code: 'not-found',
  },
  { what: 'join token with a role', line: 'POST /v1/tokens', body: { type: 'join', role: 'admin' }, field: 'role' },
  { what: 'token for ever and a day', line: 'POST /v1/tokens', body: { type: 'join', ttlSeconds: 1e12 }, field: 'ttlSeconds' },
  { what: 'pool of no network', line: 'POST /v1/pools', body: { network: 'none' }, field: '', code: 'not-found' },
  { what: 'pool without network', line: 'POST /v1/pools', body: { family: 4 }, field: 'network' },
  { what: 'proposal of no family', line: 'POST /v1/pools:propose', body: {}, field: 'family' },
  { what: 'proposal besides nonsense', line: 'POST /v1/pools:propose', body: { family: 4, besides: ['x'] }, field: 'besides[0]' },
  { what: 'join without anything', line: 'POST /v1/join', body: {}, field: 'token' },
  { what: 'join without PEM', line: 'POST /v1/join', body: { token: 'x', csr: 'x', host: 'a', version: '' }, field: 'csr' },
  {
    what: 'join with nonsense for PEM',
    line: 'POST /v1/join',
    body: { token: 'x', csr: '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----', host: 'b', version: '' },
    field: 'csr',
  },
  { what: 'join with a slash', line: 'POST /v1/join', body: { token: 'x', csr: '-----BEGIN ', host: 'a/b', version: '' }, field: 'host' },
];

const report = (what: string, rest: object, field: string, code: FaultCode = 'invalid'): Row => ({
  what: `report: ${what}`,
  line: 'PUT /v1/hosts/a/report',
  body: reportBody({ ...rest }),
  field,
  code,
});

const hostRows = (blue: string, bluePool: string): readonly Row[] => {
  const put = (what: string, rest: object, field: string, code: FaultCode = 'invalid'): Row => ({
    what: `endpoint: ${what}`,
    line: 'PUT /v1/endpoints/endpoint0001',
    body: { ...endpointBody('a', blue), ...rest },
    field,
    code,
  });
  return [
    put('another id', { id: 'endpoint0002' }, 'id'),
    put('upper-case id', { id: 'ENDPOINT0001' }, 'id'),
    put('no MAC', { mac: 'x' }, 'mac'),
    put('group MAC', { mac: '01:00:5e:00:00:01' }, 'mac'),
    put('two addresses of a family', { addresses: ['10.0.0.2', '10.0.0.3'] }, 'addresses'),
    put('three addresses', { addresses: ['10.0.0.2', 'fd00::1', 'fd00::2'] }, 'addresses'),
    put('address outside the pools', { addresses: ['10.0.0.2'] }, 'addresses'),
    put('address of no own block', { addresses: ['10.77.0.2'] }, 'addresses', 'forbidden'),
    put('unknown network', { network: 'nonetwork0001' }, '', 'not-found'),
    put('hostile alias', { names: ['a', 'b\nc'] }, 'names[1]'),
    put('257 aliases', { names: Array.from({ length: 257 }, (_, index) => `n${index}`) }, 'names'),
    put('port of no number', { ports: [{ protocol: 'tcp', hostPort: 'x', port: 1 }] }, 'ports[0].hostPort'),
    put('sequence below zero', { sequence: -1 }, 'sequence'),
    put('owner of a megabyte', { owner: 'a'.repeat(900_000) }, 'owner'),
    put('unknown field', { vni: 1 }, 'vni'),
    report('no whole generation', { generation: 1.5 }, 'generation'),
    report('generation to come', { generation: 9 }, 'generation'),
    report('generation past', { generation: 0 }, 'generation', 'stale'),
    report(
      'underlay of nonsense',
      { underlay: [{ interface: 'e/0', ip: '10.9.0.1', subnet: '10.9.0.0/24', mtu: 1450 }] },
      'underlay[0].interface',
    ),
    report('short key', { wireguard: { publicKey: 'AAAA' } }, 'wireguard.publicKey'),
    report('default route', { routes: ['default'] }, 'routes[0]'),
    {
      what: 'claim of no pool',
      line: 'POST /v1/blocks',
      body: { network: blue, pool: 'nopool00001', host: 'a' },
      field: '',
      code: 'not-found',
    },
    {
      what: 'claim outside the pool',
      line: 'POST /v1/blocks',
      body: { network: blue, pool: bluePool, host: 'a', ip: '10.78.0.1' },
      field: 'ip',
    },
    {
      what: 'claim from the middle',
      line: 'POST /v1/blocks',
      body: { network: blue, pool: bluePool, host: 'a', prefer: 'middle' },
      field: 'prefer',
    },
    { what: 'loan of nothing', line: 'POST /v1/blocks/noblock00001/loans', body: {}, field: 'id' },
    { what: 'settlement to asked', line: 'POST /v1/blocks/noblock00001/loans/loan000001', body: { state: 'asked' }, field: 'state' },
    { what: 'batch without deletes', line: 'POST /v1/endpoints:batch', body: { puts: [] }, field: 'deletes' },
    {
      what: 'batch of 501',
      line: 'POST /v1/endpoints:batch',
      body: { puts: [], deletes: Array.from({ length: 501 }, () => ({ id: 'endpoint0001' })) },
      field: '',
    },
    { what: 'rotation without request', line: 'POST /v1/hosts/a/certificate', body: {}, field: 'csr' },
  ];
};

interface Scene {
  readonly bed: Bed;
  readonly admin: Asker;
  readonly a: HostAsker;
  readonly blue: string;
  readonly bluePool: string;
}

async function openScene(): Promise<Scene> {
  const bed = await openBed();
  const [admin, a] = [await bed.role('admin'), await bed.host('a')];
  await bed.must(a, 'PUT /v1/hosts/a/report', schemas.hosts, { body: reportBody({ routes: ['172.30.0.0/16'] }) });
  await bed.settled();
  const pools = [{ family: 4, cidr: '10.77.0.0/24' }];
  const { id } = await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name: 'blue', pools } });
  await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name: 'dockers', model: 'swarm' } });
  const page = await bed.must(admin, 'GET /v1/pools?network=blue', v.object({ items: v.tuple([schemas.pools]) }));
  return { bed, admin, a, blue: id, bluePool: page.items[0].id };
}

const keysOf = async (bed: Bed): Promise<string[]> => (await bed.store.list('')).entries.map(({ key, revision }) => `${key} ${revision}`);

test('what does not fit is refused, names the field and leaves nothing', async (t) => {
  const { bed, admin, a, blue, bluePool } = await openScene();
  await using _ = bed;
  const before = await keysOf(bed);
  const cases = [...rows.map((row) => ({ row, asker: admin })), ...hostRows(blue, bluePool).map((row) => ({ row, asker: a }))];
  for (const { row, asker } of cases) {
    await t.test(row.what, async () => {
      const { code, field } = await bed.ask(asker, row.line, { body: row.body });
      assert.deepEqual({ code, field: field ?? '' }, { code: row.code ?? 'invalid', field: row.field });
    });
  }
  await bed.settled();
  assert.deepEqual(await keysOf(bed), before);
});

test('requests that are no requests', async (t) => {
  const { bed, admin } = await openScene();
  await using _ = bed;
  const status = async (what: string, expected: number, ask: () => Promise<Answer>): Promise<void> => {
    await t.test(what, async () => assert.equal((await ask()).status, expected));
  };
  await status('more than a mebibyte', 413, () => bed.ask(admin, 'POST /v1/networks', { body: { name: megabyte } }));
  await status('no JSON', 400, () => bed.ask(admin, 'POST /v1/networks', { raw: '{"name":' }));
  await status('no body', 400, () => bed.ask(admin, 'POST /v1/networks'));
  await status('a form', 415, () =>
    bed.ask(admin, 'POST /v1/networks', { raw: 'name=red', headers: { 'content-type': 'application/x-www-form-urlencoded' } }),
  );
  await status('no path', 404, () => bed.ask(admin, 'GET /v1/nothing'));
  await status('no method', 405, () => bed.ask(admin, 'POST /v1/hosts', { body: {} }));
  await status('another version', 426, () => bed.ask(admin, 'GET /v1/hosts', { headers: { 'causeway-version': '2' } }));
  await status('slash in a name', 400, () => bed.ask(admin, 'GET /v1/networks/a%2Fb'));
  await status('newline in a name', 400, () => bed.ask(admin, 'DELETE /v1/networks/a%0Ab'));
  await status('long name', 400, () => bed.ask(admin, `GET /v1/networks/${'a'.repeat(5000)}`));
  await status('unknown query', 400, () => bed.ask(admin, 'GET /v1/networks?sort=name'));
  await status('limit of no number', 400, () => bed.ask(admin, 'GET /v1/networks?limit=x'));
  await status('limit 0', 400, () => bed.ask(admin, 'GET /v1/networks?limit=0'));
  await status('limit too high', 400, () => bed.ask(admin, 'GET /v1/networks?limit=1001'));
  await status('limit twice', 400, () => bed.ask(admin, 'GET /v1/networks?limit=1&limit=2'));
  await status('since of no number', 400, () => bed.ask(admin, 'GET /v1/watch?since=-1'));
  await status('no token', 401, () => bed.ask({ token: 'abc' }, 'GET /v1/networks'));
  await status('a token that is not known', 401, () => bed.ask({ token: `cwa_0123456789ab_${'a'.repeat(40)}` }, 'GET /v1/networks'));
  await status('a token of a megabyte', 401, () => bed.ask({ token: megabyte }, 'GET /v1/networks'));
  await status('other credentials', 401, () => bed.ask({}, 'GET /v1/networks', { headers: { authorization: 'Basic YTpi' } }));
});

test('a path that has other methods names them', async () => {
  const { bed, admin } = await openScene();
  await using _ = bed;
  const request = new Request('https://controller/v1/hosts', { method: 'POST', headers: { authorization: `Bearer ${admin.token}` } });
  const response = await bed.controller.app.fetch(request, {});
  assert.deepEqual([response.status, response.headers.get('allow')], [405, 'GET']);
});

test('a change says what it is based on', async (t) => {
  const { bed, admin, blue } = await openScene();
  await using _ = bed;
  const found = await bed.must(admin, 'GET /v1/networks/blue', schemas.networks);
  const replace = (rest: object, match?: string): Promise<Answer> =>
    bed.ask(admin, `PUT /v1/networks/${blue}`, {
      body: { ...found, ...rest },
      ...(match === undefined ? {} : { headers: { 'if-match': match } }),
    });
  const etag = `"${found.revision}"`;
  for (const [what, rest, match, status] of [
    ['nothing', {}, undefined, 428],
    ['nonsense', {}, 'W/"1"', 400],
    ['an older revision', {}, '"1"', 412],
    ['another VNI', { vni: 77 }, etag, 400],
    ['another id', { id: 'network00001' }, etag, 400],
    ['another encryption', { encrypted: true }, etag, 400],
    ['a new name', { name: 'green' }, etag, 200],
    ['the same revision again', { name: 'black' }, etag, 412],
  ] as const) {
    await t.test(what, async () => assert.equal((await replace(rest, match)).status, status));
  }
});
