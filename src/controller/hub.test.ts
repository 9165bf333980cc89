// What a watching host is told: what it needs, when it begins to need it, and nothing of networks without it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import type { WatchLine } from '#api/answers.ts';
import { schemas } from '#api/schemas.ts';
import { type Bed, endpointBody, type HostAsker, openBed, reportBody } from './bed.ts';

interface Made {
  readonly network: string;
  readonly pool: string;
}

async function makeNetwork(bed: Bed, asker: HostAsker, name: string): Promise<Made> {
  const { id } = await bed.must(asker, 'POST /v1/networks', schemas.networks, { body: { name, addressing: 'external' } });
  const pools = await bed.must(asker, `GET /v1/pools?network=${name}`, v.object({ items: v.tuple([schemas.pools]) }));
  return { network: id, pool: pools.items[0].id };
}

const endpointId = (name: string): string => `endpoint${name}`.padEnd(12, '0');

async function putEndpoint(bed: Bed, asker: HostAsker, network: string, name: string, sequence = 1): Promise<void> {
  const id = endpointId(name);
  const body = endpointBody(asker.host.name, network, { id, name, sequence });
  await bed.must(asker, `PUT /v1/endpoints/${id}`, schemas.endpoints, { body });
}

test('endpoints are told to hosts with a part in their network, with everything when that begins, with deletes when it ends', async () => {
  await using bed = await openBed();
  const [a, b] = [await bed.host('a'), await bed.host('b')];
  const red = await makeNetwork(bed, a, 'red');
  const blue = await makeNetwork(bed, b, 'blue');
  await putEndpoint(bed, b, blue.network, 'b1');
  await bed.settled();
  await using watching = await bed.watch(a);
  await watching.until(({ type }) => type === 'synced');
  assert.deepEqual(watching.said.toSorted(), [
    'put hosts a',
    'put hosts b',
    'put networks blue',
    'put networks red',
    'put pools blue-1',
    'put pools red-1',
    'put tenants default',
    'synced',
  ]);
  watching.lines.length = 0;
  await putEndpoint(bed, b, blue.network, 'b2');
  await putEndpoint(bed, a, red.network, 'a1');
  await putEndpoint(bed, a, blue.network, 'a2');
  await putEndpoint(bed, b, blue.network, 'b3');
  await watching.until((line) => line.type === 'put' && line.item.name === 'b3');
  assert.deepEqual(watching.said, ['put endpoints a1', 'put endpoints b1', 'put endpoints b2', 'put endpoints a2', 'put endpoints b3']);
  watching.lines.length = 0;
  await bed.ask(a, `DELETE /v1/endpoints/${endpointId('a2')}`);
  await putEndpoint(bed, b, blue.network, 'b4');
  await putEndpoint(bed, a, red.network, 'a1', 2);
  await watching.until((line) => line.type === 'put' && line.item.name === 'a1');
  assert.deepEqual(watching.said, [
    `delete endpoints ${endpointId('a2')}`,
    ...['b1', 'b2', 'b3'].map((name) => `delete endpoints ${endpointId(name)}`),
    'put endpoints a1',
  ]);
});

test('reports about oneself are not for other hosts, facts are', async () => {
  await using bed = await openBed();
  const [a, b] = [await bed.host('a'), await bed.host('b')];
  await bed.ask(b, 'PUT /v1/hosts/b/report', { body: reportBody() });
  await bed.settled();
  await using watching = await bed.watch(a);
  await using everything = await bed.watch(await bed.role('viewer'));
  await watching.until(({ type }) => type === 'synced');
  await everything.until(({ type }) => type === 'synced');
  for (const one of [watching, everything]) one.lines.length = 0;
  await bed.ask(b, 'PUT /v1/hosts/b/report', {
    body: reportBody({ status: { ready: true, desired: 9, applied: 8, failing: [], features: {} } }),
  });
  await bed.ask(b, 'PUT /v1/hosts/b/report', { body: reportBody({ agentVersion: '0.0.1' }) });
  await watching.until(({ type }) => type === 'put');
  await everything.until((line) => line.type === 'put' && line.kind === 'hosts' && line.item.agentVersion === '0.0.1');
  assert.deepEqual([watching.said.length, everything.said.length], [1, 2]);
});

test('a watch goes on from the revision that was seen, and begins anew where that is not known', async () => {
  await using bed = await openBed();
  const [a, b] = [await bed.host('a'), await bed.host('b')];
  const red = await makeNetwork(bed, a, 'red');
  await putEndpoint(bed, a, red.network, 'a1');
  await bed.settled();
  await using reader = await bed.watch(a);
  await reader.until(({ type }) => type === 'synced');
  const synced = reader.lines.at(-1);
  const { revision: since, epoch } = synced?.type === 'synced' ? synced : assert.fail();
  const blue = await makeNetwork(bed, b, 'blue');
  await putEndpoint(bed, b, blue.network, 'b1');
  await putEndpoint(bed, b, red.network, 'b2');
  await putEndpoint(bed, a, blue.network, 'a2');
  await bed.ask(b, `DELETE /v1/endpoints/${endpointId('b2')}`);
  await bed.settled();
  await using resumed = await bed.watch(a, `?since=${since}&epoch=${epoch}`);
  await resumed.until(({ type }) => type === 'synced');
  assert.deepEqual(resumed.said, [
    'put networks blue',
    'put pools blue-1',
    `delete endpoints ${endpointId('b2')}`,
    'put endpoints a1',
    'put endpoints b1',
    'put endpoints a2',
    'synced',
  ]);
  const end = resumed.lines.at(-1);
  assert.ok(end?.type === 'synced' && !end.whole);
  for (const unknown of [`?since=1&epoch=${epoch}`, `?since=${since}&epoch=other`, `?since=${since}`]) {
    await using old = await bed.watch(a, unknown);
    await old.until(({ type }) => type === 'synced');
    const last = old.lines.at(-1);
    assert.ok(last?.type === 'synced' && last.whole, unknown);
  }
});

test('a watch ends when its certificate is revoked, its host removed or joined again, its token deleted', async (t) => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  const rows: readonly [string, (host: HostAsker) => Promise<unknown>][] = [
    ['revoked', ({ peer }) => bed.must(admin, `DELETE /v1/certificates/0${peer.serial}`, v.unknown())],
    ['removed', ({ host }) => bed.must(admin, `DELETE /v1/hosts/${host.name}`, v.unknown())],
    ['joined again', ({ host }) => bed.host(host.name)],
  ];
  for (const [what, act] of rows) {
    await t.test(what, { timeout: 30_000 }, async () => {
      const host = await bed.host(`host-${what.replaceAll(' ', '-')}`);
      await bed.settled();
      await using watching = await bed.watch(host);
      await watching.until(({ type }) => type === 'synced');
      await act(host);
      await watching.ended;
      const { code } = await bed.ask(host, 'GET /v1/hosts');
      assert.equal(code, what === 'joined again' ? 'stale' : 'unauthenticated');
    });
  }
  await t.test('token deleted', { timeout: 30_000 }, async () => {
    const viewer = await bed.role('viewer');
    await bed.settled();
    await using watching = await bed.watch(viewer);
    await bed.ask(admin, `DELETE /v1/tokens/${viewer.token?.split('_')[1] ?? ''}`);
    await watching.ended;
  });
});

test('a tenant watches what is its own', async () => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  await bed.ask(admin, 'POST /v1/tenants', { body: { name: 'red' } });
  await bed.ask(admin, 'POST /v1/networks', { body: { name: 'other' } });
  await bed.ask(admin, 'POST /v1/networks', { body: { name: 'mine', tenant: 'red' } });
  const red = await bed.role('tenant:red');
  await bed.settled();
  await using watching = await bed.watch(red);
  await watching.until(({ type }) => type === 'synced');
  assert.deepEqual(watching.said, ['put tenants red', 'put networks mine', 'put pools mine-1', 'synced']);
  await bed.ask(admin, 'POST /v1/tenants', { body: { name: 'merger' } });
  await bed.must(admin, 'PUT /v1/secrets/keys', v.unknown(), { body: { texts: { peer: 'hidden' } } });
  for (const path of ['tenants/merger', 'secrets/keys', 'networks/other', 'networks/mine'])
    await bed.must(admin, `DELETE /v1/${path}`, v.unknown());
  await watching.until((line) => line.type === 'delete' && line.kind === 'networks');
  const told = watching.lines.flatMap((line) => (line.type === 'delete' && line.kind !== 'pools' ? [line.kind] : []));
  assert.deepEqual(told, ['networks'], 'of what goes, too, only what is its own: ids of some are names');
});

const isReported = (line: WatchLine): boolean => line.type === 'put' && line.kind === 'hosts' && JSON.stringify(line).includes('8472');

test('a tenant learns that something fails on a host, and no names of what is not its own', async () => {
  await using bed = await openBed();
  const [admin, a] = [await bed.role('admin'), await bed.host('a')];
  await bed.ask(admin, 'POST /v1/tenants', { body: { name: 'red' } });
  const red = await bed.role('tenant:red');
  await bed.settled();
  await using early = await bed.watch(red);
  await early.until(({ type }) => type === 'synced');
  const lost = [{ host: 'b', sort: 'tunnel', what: 'UDP port 8472', networks: ['hidden'], seconds: 9, isAlone: true }];
  const paths = { tried: 1, passing: 0, lost, narrow: [] };
  const status = { ready: true, desired: 1, applied: 1, failing: ['Exposure hidden is not open'], features: {}, paths };
  await bed.must(a, 'PUT /v1/hosts/a/report', v.unknown(), { body: reportBody({ status }) });
  await bed.settled();
  await using late = await bed.watch(red);
  for (const watching of [early, late]) await watching.until(isReported);
  const [one, all] = [await bed.must(red, 'GET /v1/hosts/a', schemas.hosts), (await bed.ask(red, 'GET /v1/hosts')).body];
  for (const seen of [early.lines, late.lines, one, all]) {
    assert.match(JSON.stringify(seen), /Something does not work on this host/);
    assert.doesNotMatch(JSON.stringify(seen), /hidden/);
  }
  assert.match(JSON.stringify((await bed.ask(admin, 'GET /v1/hosts/a')).body), /Exposure hidden.*"hidden"/);
});
