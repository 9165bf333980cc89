// Networks, pools, blocks and endpoints: what is chosen, what may overlap, what is unique, and what goes when a network goes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import type { Pool } from '#model/resources.ts';
import { type Cidr, covers, overlaps, parseCidr } from '#model/ip.ts';
import type { Store } from '#store/store.ts';
import { MemoryFacts, MemoryStore } from '#store/memory.ts';
import { schemas } from '#api/schemas.ts';
import { type Asker, type Bed, endpointBody, type HostAsker, openBed, reportBody } from './bed.ts';
import { sweepOnce } from './sweep.ts';

const poolPage = v.object({ items: v.array(schemas.pools) });

async function poolsOf(bed: Bed, asker: Asker, network: string): Promise<Pool[]> {
  return (await bed.must(asker, `GET /v1/pools?network=${network}`, poolPage)).items;
}

test('subnets that nobody asked for are free of pools, underlays and host routes', async () => {
  await using bed = await openBed();
  const [admin, a] = [await bed.role('admin'), await bed.host('a')];
  const underlay = [{ interface: 'eth0', ip: '10.64.0.9', subnet: '10.64.0.0/24', mtu: 1450 }];
  await bed.must(a, 'PUT /v1/hosts/a/report', schemas.hosts, { body: reportBody({ underlay, routes: ['10.64.2.0/23'] }) });
  await bed.settled();
  const chosen: Cidr[] = [];
  for (const name of ['one', 'two']) {
    await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name, pools: [{ family: 4 }, { family: 6 }, { family: 4 }] } });
    chosen.push(...(await poolsOf(bed, admin, name)).map(({ cidr }) => cidr));
  }
  assert.deepEqual(chosen.filter((cidr) => !cidr.includes(':')).toSorted(), [
    '10.64.1.0/24',
    '10.64.4.0/24',
    '10.64.5.0/24',
    '10.64.6.0/24',
  ]);
  assert.deepEqual(
    chosen.filter((cidr) => cidr.includes(':')),
    ['fd63:7710::/64', 'fd63:7710:0:1::/64'],
  );
  const { cidr } = await bed.must(a, 'POST /v1/pools:propose', v.object({ cidr: v.string() }), {
    body: { family: 4, besides: ['10.64.7.0/24'] },
  });
  assert.equal(cidr, '10.64.8.0/24');
});

test('isolated networks may overlap each other, shared ones may not', async () => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  const make = async (name: string, model: string, cidr: string): Promise<string> =>
    (await bed.ask(admin, 'POST /v1/networks', { body: { name, model, pools: [{ family: 4, cidr }] } })).code;
  assert.equal(await make('red', 'overlay', '10.1.0.0/16'), '');
  assert.equal(await make('blue', 'overlay', '10.1.0.0/16'), '');
  assert.equal(await make('flat', 'flannel', '10.1.0.0/16'), '');
  assert.equal(await make('flat2', 'flannel', '10.1.128.0/20'), 'overlap');
  assert.equal(await make('flat3', 'flannel', '10.2.0.0/16'), '');
});

test('only networks that hosts take part in keep clear of the bridges of an engine', async () => {
  await using bed = await openBed();
  const [admin, a] = [await bed.role('admin'), await bed.host('a')];
  await bed.must(a, 'PUT /v1/hosts/a/report', schemas.hosts, {
    body: reportBody({ routes: ['10.5.0.0/16'], bridges: ['172.18.0.0/16'] }),
  });
  await bed.settled();
  const make = async (name: string, model: string, cidr: string): Promise<string> =>
    (await bed.ask(admin, 'POST /v1/networks', { body: { name, model, pools: [{ family: 4, cidr }] } })).code;
  assert.equal(await make('red', 'overlay', '172.18.0.0/16'), '');
  assert.equal(await make('flat', 'flannel', '172.18.0.0/20'), 'overlap');
  assert.equal(await make('blue', 'overlay', '10.5.1.0/24'), 'overlap');
});

test('a network that would leave too little room on a host is refused with the sum', async () => {
  await using bed = await openBed();
  const [admin, a] = [await bed.role('admin'), await bed.host('a')];
  const underlay = [{ interface: 'eth0', ip: '10.9.0.1', subnet: '10.9.0.0/24', mtu: 1320 }];
  await bed.must(a, 'PUT /v1/hosts/a/report', schemas.hosts, { body: reportBody({ underlay }) });
  await bed.settled();
  const make = async (name: string, more: object): Promise<(string | undefined)[]> => {
    const { code, field } = await bed.ask(admin, 'POST /v1/networks', { body: { name, ...more } });
    return [code, field];
  };
  assert.deepEqual(await make('four', { encrypted: true }), ['', undefined]);
  assert.deepEqual(await make('six', { encrypted: true, pools: [{ family: 6 }] }), ['invalid', 'mtu']);
  assert.deepEqual(await make('vxlan-six', { pools: [{ family: 6 }] }), ['invalid', 'mtu']);
});

test('a network is unique by name and by VNI, and all of it goes with it', async () => {
  await using bed = await openBed();
  const [admin, a] = [await bed.role('admin'), await bed.host('a')];
  await bed.settled();
  const before = (await bed.store.list('')).entries.map(({ key }) => key);
  const red = await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name: 'red' } });
  assert.equal(red.vni, 4096);
  const code = async (body: object): Promise<string> => (await bed.ask(admin, 'POST /v1/networks', { body })).code;
  assert.equal(await code({ name: 'red' }), 'exists');
  assert.equal(await code({ name: 'other', vni: 4096 }), 'exists');
  const [pool] = await poolsOf(bed, admin, 'red');
  await bed.must(a, 'POST /v1/blocks', schemas.blocks, { body: { network: red.id, pool: pool?.id, host: 'a' } });
  await bed.must(admin, 'POST /v1/exposures', schemas.exposures, {
    body: { network: 'red', endpoint: 'web', protocol: 'tcp', port: 80, hostPort: 80 },
  });
  const endpoint = endpointBody('a', red.id, { addresses: ['10.64.0.2'] });
  await bed.must(a, 'PUT /v1/endpoints/endpoint0001', schemas.endpoints, { body: endpoint });
  await bed.settled();
  assert.equal((await bed.ask(admin, 'DELETE /v1/networks/red')).code, 'in-use');
  assert.equal((await bed.must(admin, 'GET /v1/networks/red', schemas.networks)).deletedAt, undefined);
  assert.equal((await bed.ask(admin, `DELETE /v1/pools/${pool?.id}`)).code, 'in-use');
  assert.equal((await bed.ask(a, 'DELETE /v1/endpoints/endpoint0001')).code, '');
  await bed.settled();
  assert.equal((await bed.ask(admin, 'DELETE /v1/networks/red')).code, '');
  assert.equal((await bed.ask(admin, 'DELETE /v1/networks/red')).code, 'not-found');
  const after = (await bed.store.list('')).entries.map(({ key }) => key).filter((key) => !key.startsWith('guards/'));
  assert.deepEqual(after, before);
});

test("of a network of Docker's own driver nothing can be changed that Docker would not follow", async () => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  const made = await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name: 'dockers', model: 'swarm' } });
  const headers = { 'if-match': `"${made.revision}"` };
  for (const [field, value] of Object.entries({ name: 'other', mtu: 1300, attachable: true })) {
    const answer = await bed.ask(admin, 'PUT /v1/networks/dockers', { body: { ...made, [field]: value }, headers });
    assert.deepEqual([answer.code, answer.field], ['invalid', field]);
  }
  const labelled = await bed.must(admin, 'PUT /v1/networks/dockers', schemas.networks, { body: { ...made, labels: { a: 'b' } }, headers });
  assert.deepEqual(labelled.labels, { a: 'b' });
});

async function openRed(
  bed: Bed,
  pool: object,
  hosts: readonly string[],
): Promise<{ claim: (host: number, rest?: object) => Promise<string>; network: string; askers: HostAsker[] }> {
  const askers: HostAsker[] = [];
  for (const host of hosts) askers.push(await bed.host(host));
  const [first] = askers;
  const { id } = await bed.must(first ?? {}, 'POST /v1/networks', schemas.networks, {
    body: { name: 'red', blockLength4: 28, pools: [{ family: 4, ...pool }] },
  });
  const [made] = await poolsOf(bed, first ?? {}, 'red');
  const claim = async (index: number, rest: object = {}): Promise<string> => {
    const body = { network: id, pool: made?.id, host: hosts[index], ...rest };
    const answer = await bed.ask(askers[index] ?? {}, 'POST /v1/blocks', { body });
    return answer.code === '' ? v.parse(schemas.blocks, answer.body).cidr : answer.code;
  };
  return { claim, network: id, askers };
}

test('blocks: each to one host, from either end, around an address, inside the range unless asked for, until none is left', async () => {
  await using bed = await openBed();
  const { claim } = await openRed(bed, { cidr: '10.5.0.0/25', range: '10.5.0.16/28' }, ['a', 'b']);
  assert.equal(await claim(0), '10.5.0.16/28');
  assert.equal(await claim(1), 'exhausted');
  assert.equal(await claim(1, { ip: '10.5.0.100' }), '10.5.0.96/28');
  assert.equal(await claim(1, { ip: '10.5.0.101' }), '10.5.0.96/28', 'its own already');
  assert.equal(await claim(0, { ip: '10.5.0.100' }), 'exists');
  await using other = await openBed();
  const wide = await openRed(other, { cidr: '10.5.0.0/26' }, ['a', 'b']);
  const claims = await Promise.all([wide.claim(0), wide.claim(1), wide.claim(0), wide.claim(1, { prefer: 'high' }), wide.claim(0)]);
  assert.deepEqual(claims.toSorted(), ['10.5.0.0/28', '10.5.0.16/28', '10.5.0.32/28', '10.5.0.48/28', 'exhausted']);
});

test('a model with one block per host gives one', async () => {
  await using bed = await openBed();
  const a = await bed.host('a');
  const { id } = await bed.must(a, 'POST /v1/networks', schemas.networks, { body: { name: 'flat', model: 'flannel' } });
  const [pool] = await poolsOf(bed, a, 'flat');
  assert.equal(pool?.cidr, '10.64.0.0/16');
  const body = { network: id, pool: pool.id, host: 'a' };
  assert.equal((await bed.must(a, 'POST /v1/blocks', schemas.blocks, { body })).cidr, '10.64.0.0/24');
  await bed.settled();
  assert.equal((await bed.ask(a, 'POST /v1/blocks', { body })).code, 'exhausted');
});

test('an address belongs to one endpoint, an older sequence never wins, the same again writes nothing', async () => {
  await using bed = await openBed();
  const [a, b] = [await bed.host('a'), await bed.host('b')];
  const pools = [{ family: 4, cidr: '10.5.0.0/24' }];
  const { id } = await bed.must(a, 'POST /v1/networks', schemas.networks, { body: { name: 'red', addressing: 'external', pools } });
  const put = async (asker: HostAsker, rest: object): Promise<string> => {
    const body = endpointBody(asker.host.name, id, { ...rest });
    return (await bed.ask(asker, `PUT /v1/endpoints/${String(body['id'])}`, { body })).code;
  };
  assert.equal(await put(a, { addresses: ['10.5.0.2'], sequence: 5 }), '');
  assert.equal(await put(b, { id: 'endpoint0002', addresses: ['10.5.0.2'] }), 'exists');
  assert.equal(await put(a, { addresses: ['10.5.0.3'], sequence: 4 }), 'stale');
  const { revision } = await bed.store.list('');
  assert.equal(await put(a, { addresses: ['10.5.0.2'], sequence: 5 }), '');
  assert.equal((await bed.store.list('')).revision, revision);
  assert.equal(await put(a, { addresses: ['10.5.0.3'], sequence: 6 }), '');
  assert.equal(await put(b, { id: 'endpoint0002', addresses: ['10.5.0.2'] }), '');
  assert.equal((await bed.ask(a, 'DELETE /v1/endpoints/endpoint0001?sequence=5')).code, 'stale');
  assert.equal((await bed.ask(a, 'DELETE /v1/endpoints/endpoint0001?sequence=6')).code, '');
  assert.equal((await bed.ask(a, 'DELETE /v1/endpoints/endpoint0001?sequence=6')).code, '', 'absent already');
  assert.equal(await put(b, { id: 'endpoint0003', addresses: ['10.5.0.3'] }), '');
});

test('a batch: each item on its own, in order, an address may change hands within', async () => {
  await using bed = await openBed();
  const a = await bed.host('a');
  const pools = [{ family: 4, cidr: '10.5.0.0/16' }];
  const { id } = await bed.must(a, 'POST /v1/networks', schemas.networks, { body: { name: 'red', addressing: 'external', pools } });
  const results = v.object({ results: v.array(v.object({ id: v.string(), problem: v.optional(v.object({ code: v.string() })) })) });
  const batch = async (puts: unknown[], deletes: unknown[] = []): Promise<(string | undefined)[]> =>
    (await bed.must(a, 'POST /v1/endpoints:batch', results, { body: { puts, deletes } })).results.map(({ problem }) => problem?.code);
  const one = (index: number, ip: string, rest: object = {}): unknown =>
    endpointBody('a', id, { id: `endpoint${1000 + index}`, addresses: [ip], ...rest });
  const many = Array.from({ length: 400 }, (_, index) => one(index, `10.5.${index >> 8}.${index & 255}`));
  assert.deepEqual(new Set(await batch(many)), new Set([undefined]));
  assert.deepEqual(
    await batch(
      [one(500, '10.5.0.1'), one(501, '10.5.0.2'), one(502, '10.5.0.2'), one(503, '10.9.0.1'), { id: 7 }],
      [{ id: 'endpoint1001' }],
    ),
    [undefined, undefined, 'exists', 'exists', 'invalid', 'invalid'],
  );
});

test('what a removed host left goes with it, and its half-removed rest with the next sweep', async () => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  const { claim, network, askers } = await openRed(bed, { cidr: '10.5.0.0/24' }, ['a', 'b']);
  await claim(0);
  await claim(1);
  const [a, b] = askers;
  const put = (asker: HostAsker, id: string, ip: string): Promise<unknown> =>
    bed.must(asker, `PUT /v1/endpoints/${id}`, schemas.endpoints, {
      body: endpointBody(asker.host.name, network, { id, addresses: [ip] }),
    });
  assert.ok(a !== undefined && b !== undefined);
  await put(a, 'endpoint0001', '10.5.0.2');
  await put(b, 'endpoint0002', '10.5.0.18');
  await bed.settled();
  assert.equal((await bed.ask(admin, 'DELETE /v1/hosts/a')).code, '');
  const left = async (): Promise<string[]> =>
    (await bed.store.list('')).entries.map(({ key }) => key).filter((key) => /^(endpoints|addresses|claims|blocks)\//.test(key));
  assert.equal((await left()).length, 4);
  // As if the controller had died between the two steps.
  const record = await bed.store.get('hosts/b');
  await bed.store.commit([{ type: 'delete', key: 'hosts/b', expect: record?.revision ?? 0 }]);
  await bed.settled();
  await sweepOnce(bed.controller.control);
  assert.deepEqual(await left(), []);
});

test('two controllers on one store decide as one', async () => {
  const facts = new MemoryFacts();
  const stores: readonly Store[] = [new MemoryStore(facts), new MemoryStore(facts)];
  const [one, two] = await Promise.all(stores.map((store) => openBed({ store })));
  assert.ok(one !== undefined && two !== undefined);
  await using beds = new AsyncDisposableStack();
  for (const bed of [one, two]) beds.use(bed);
  assert.equal(one.controller.control.authority.fingerprint, two.controller.control.authority.fingerprint);
  const admin = await one.role('admin');
  const make = (bed: Bed, name: string, rest: object = {}): Promise<{ code: string }> =>
    bed.ask(admin, 'POST /v1/networks', { body: { name, ...rest } });
  const made = await Promise.all(Array.from({ length: 20 }, (_, index) => make(index % 2 === 0 ? one : two, `net${index}`)));
  assert.deepEqual(new Set(made.map(({ code }) => code)), new Set(['']));
  const contested = await Promise.all([make(one, 'same'), make(two, 'same')]);
  assert.deepEqual(contested.map(({ code }) => code).toSorted(), ['', 'exists']);
  const { items } = await one.must(admin, 'GET /v1/pools?limit=1000', poolPage);
  for (const [index, pool] of items.entries()) {
    assert.ok(covers(parseCidr('10.64.0.0/10'), pool.cidr));
    assert.ok(!items.slice(index + 1).some(({ cidr }) => overlaps(cidr, pool.cidr)));
  }
  const networks = await two.must(admin, 'GET /v1/networks?limit=1000', v.object({ items: v.array(schemas.networks) }));
  assert.equal(new Set(networks.items.map(({ vni }) => vni)).size, 21);
  const hosts = await Promise.all(['a', 'b', 'c', 'd'].map((name, index) => (index % 2 === 0 ? one : two).host(name)));
  assert.deepEqual(
    hosts.map(({ host }) => host.index).toSorted((x, y) => x - y),
    [1, 2, 3, 4],
  );
  const [a] = hosts;
  await using watching = await two.watch(a ?? {});
  await make(one, 'late');
  await watching.until((line) => line.type === 'put' && line.kind === 'networks' && line.item.name === 'late');
});

test('pages', async () => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  for (let index = 0; index < 7; index++) await bed.must(admin, 'POST /v1/tenants', schemas.tenants, { body: { name: `t${index}` } });
  const page = v.object({ items: v.array(schemas.tenants), next: v.optional(v.string()) });
  const names: string[] = [];
  for (let after = ''; ;) {
    const { items, next } = await bed.must(admin, `GET /v1/tenants?limit=3${after}`, page);
    names.push(...items.map(({ name }) => name));
    if (next === undefined) break;
    after = `&after=${next}`;
  }
  assert.deepEqual(names, ['default', 't0', 't1', 't2', 't3', 't4', 't5', 't6']);
});
