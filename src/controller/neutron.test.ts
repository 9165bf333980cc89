// Networks whose containers have ports of a cloud: what of them is the controller's. The cloud here says yes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { schemas } from '#api/schemas.ts';
import { parseCidr } from '#model/ip.ts';
import type { Pool } from '#model/resources.ts';
import { type Asker, type Bed, type HostAsker, openBed, reportBody } from './bed.ts';
import type { PortPools } from './neutron.ts';

const subnet = '10.20.0.0/24';

/** As many VLANs as anybody wants, and two security groups. */
function cloud() {
  const asked: string[] = [];
  const ids = new Map([
    ['web', 'id-web'],
    ['db', 'id-db'],
  ]);
  const ports: PortPools = {
    find: async (_, families) => ({
      place: { network: 'net', subnet: 'sub' },
      subnets: families.map((family) => ({ cidr: parseCidr(family === 4 ? subnet : 'fd00:20::/64') })),
    }),
    occupied: async () => [],
    hold: async (block, commit) => {
      asked.push(`hold ${block.cidr}`);
      return commit({ ...block, vlan: 2 });
    },
    regroup: async (_, { ip, groups }, commit) => {
      asked.push(`regroup ${ip} ${groups?.join(',') ?? 'back'}`);
      return commit(groups?.map((name) => ids.get(name) ?? assert.fail(name)));
    },
  };
  return { ports, asked };
}

async function prepared(): Promise<{ bed: Bed; admin: Asker; a: HostAsker; asked: string[] }> {
  const bed = await openBed();
  const { ports, asked } = cloud();
  bed.controller.control.cloud.ports = ports;
  const [admin, a] = [await bed.role('admin'), await bed.host('a')];
  const underlay = [{ interface: 'eth0', ip: '10.20.0.11', subnet, mtu: 1450 }];
  await bed.must(a, 'PUT /v1/hosts/a/report', schemas.hosts, { body: reportBody({ underlay }) });
  await bed.settled();
  return { bed, admin, a, asked };
}

const bodyOf = (name: string, fallback?: string, pools?: object[]): object => ({
  name,
  model: 'neutron',
  neutron: { network: 'hosts', ...(fallback === undefined ? {} : { fallback }) },
  ...(pools === undefined ? {} : { pools }),
});
const poolsOf = async (bed: Bed, asker: Asker, network: string): Promise<Pool[]> =>
  (await bed.must(asker, `GET /v1/pools?network=${network}`, v.object({ items: v.array(schemas.pools) }))).items;

const set = (ip: string, groups?: readonly string[]) => ({ body: { ip, ...(groups === undefined ? {} : { groups }) } });

test('addresses without a port come from a range of their own, whose blocks cost the cloud nothing', async () => {
  const { bed, admin, a, asked } = await prepared();
  await using _ = bed;
  const network = await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: bodyOf('spare', 'overlay') });
  assert.equal(network.neutron?.fallback, true);
  const pools = await poolsOf(bed, admin, 'spare');
  const besides = pools.find(({ fallback }) => fallback === true) ?? assert.fail();
  assert.deepEqual(
    pools.toSorted((one, two) => (one.cidr < two.cidr ? -1 : 1)).map(({ cidr, range, fallback }) => [cidr, range, fallback]),
    [
      [subnet, '10.20.0.128/25', undefined],
      ['10.64.0.0/16', '10.64.0.0/17', true],
    ],
  );
  for (let index = 0; index < 3; index++)
    await bed.must(a, 'POST /v1/blocks', schemas.blocks, { body: { network: network.id, pool: besides.id, host: 'a' } });
  assert.deepEqual(asked, []);
  const own = pools.find(({ fallback }) => fallback !== true) ?? assert.fail();
  const put = async (pool: Pool): Promise<string> =>
    (await bed.ask(admin, `PUT /v1/pools/${pool.id}`, { body: pool, headers: { 'if-match': `"${pool.revision}"` } })).code;
  const { fallback, ...plain } = besides;
  assert.equal(await put({ ...besides, range: parseCidr('10.64.128.0/17') }), 'invalid');
  assert.equal(await put(plain), 'invalid');
  assert.equal(await put({ ...own, ...(fallback && { fallback }) }), 'invalid');
  assert.equal(await put({ ...own, range: parseCidr('10.20.0.64/26') }), '');
});

test('of each family of the network there is such a range, of which one may be named', async () => {
  const { bed, admin } = await prepared();
  await using _ = bed;
  const ranges = async (name: string, fallback: string, pools: object[]): Promise<string[]> => {
    await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: bodyOf(name, fallback, pools) });
    const besides = (await poolsOf(bed, admin, name)).filter((pool) => pool.fallback === true);
    return besides.map(({ cidr, range }) => `${cidr} ${range}`).toSorted((a, b) => (a < b ? -1 : 1));
  };
  const four = { family: 4, range: '10.20.0.128/26' };
  const both = await ranges('both', 'fd00:70::/64', [four, { family: 6, range: 'fd00:20::/72' }]);
  assert.equal(both[1], 'fd00:70::/64 fd00:70::/65');
  assert.match(both[0] ?? '', /^10\.\d+\.0\.0\/16 10\.\d+\.0\.0\/17$/);
  const alone = await ranges('alone', 'overlay', [{ family: 6, range: 'fd00:20:0:0:100::/72' }]);
  assert.match(alone.join(), /^fd\S+\/64 fd\S+\/65$/);
});

test('where only IPv6 is asked for containers have that alone', async () => {
  const { bed, admin } = await prepared();
  await using _ = bed;
  const cidrs = async (name: string, pools: object[]): Promise<string[]> => {
    await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: bodyOf(name, undefined, pools) });
    return (await poolsOf(bed, admin, name)).map(({ cidr }) => cidr).toSorted((one, two) => (one < two ? -1 : 1));
  };
  assert.deepEqual(await cidrs('alone', [{ family: 6, range: 'fd00:20::/72' }]), ['fd00:20::/64']);
  assert.deepEqual(await cidrs('both', [{ family: 4 }, { family: 6 }]), [subnet, 'fd00:20::/64']);
});

test('such a range is large enough, of a family of the network, and nobody else has it', async () => {
  const { bed, admin } = await prepared();
  await using _ = bed;
  const code = async (name: string, fallback: string, pools?: object[]): Promise<string> =>
    (await bed.ask(admin, 'POST /v1/networks', { body: bodyOf(name, fallback, pools) })).code;
  assert.equal(await code('small', '10.70.0.0/25'), 'invalid');
  assert.equal(await code('six', 'fd00:70::/64'), 'invalid');
  assert.equal(await code('low', 'fd00:70::/113', [{ family: 6 }]), 'invalid');
  assert.equal(await code('hosts', '10.20.0.0/16'), 'overlap');
  assert.equal(await code('fine', '10.70.0.0/24', [{ family: 4, range: '10.20.0.128/26' }]), '');
  assert.equal(await code('same', '10.70.0.0/16', [{ family: 4, range: '10.20.0.192/26' }]), 'overlap');
});

test('a host chooses the groups of its own ports only, and they are kept with the block', async () => {
  const { bed, admin, a, asked } = await prepared();
  await using _ = bed;
  const network = await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: bodyOf('ports') });
  const [pool] = await poolsOf(bed, admin, 'ports');
  const body = { network: network.id, pool: pool?.id, host: 'a' };
  const block = await bed.must(a, 'POST /v1/blocks', schemas.blocks, { body });
  const line = `PUT /v1/blocks/${block.id}/groups`;
  const chosen = await bed.must(a, line, schemas.blocks, set('10.20.0.129', ['web', 'db']));
  assert.deepEqual(chosen.groups, { '10.20.0.129': ['id-web', 'id-db'] });
  const both = await bed.must(a, line, schemas.blocks, set('10.20.0.130', ['db']));
  assert.deepEqual(both.groups, { '10.20.0.129': ['id-web', 'id-db'], '10.20.0.130': ['id-db'] });
  await bed.must(a, line, schemas.blocks, set('10.20.0.129'));
  assert.equal((await bed.must(a, line, schemas.blocks, set('10.20.0.130'))).groups, undefined);
  assert.deepEqual(asked.slice(1), [
    'regroup 10.20.0.129 web,db',
    'regroup 10.20.0.130 db',
    'regroup 10.20.0.129 back',
    'regroup 10.20.0.130 back',
  ]);
  const other = await bed.host('b');
  assert.equal((await bed.ask(other, line, set('10.20.0.129', ['web']))).code, 'forbidden');
  assert.equal((await bed.ask(admin, line, set('10.20.0.129', ['web']))).code, 'forbidden');
  assert.equal((await bed.ask(a, line, set('10.20.0.200', ['web']))).code, 'invalid');
  assert.equal((await bed.ask(a, line, set('10.20.0.129', []))).code, 'invalid');
});
