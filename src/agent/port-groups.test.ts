import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import type { PortGroupsRequest } from '#api/requests.ts';
import { Fault } from '#model/fault.ts';
import { type Ip, parseCidr, parseIp } from '#model/ip.ts';
import type { Block } from '#model/resources.ts';
import { PortGroups } from './port-groups.ts';

const network = { ...makeNetwork('ports', { model: 'neutron' }), neutron: { network: 'net', subnet: 'subnet' } };
const pool = makePool('ports', parseCidr('10.213.0.0/16'), 30);
const ip = parseIp('10.213.0.1');
const one = { pool: pool.id, ip };

function bed() {
  const blocks = new Map([['block', makeBlock(pool, 0, 'host-1')]]);
  const held = new Set<Ip>();
  const asked: PortGroupsRequest[] = [];
  const faults: unknown[] = [];
  const state = { isAway: false };
  const groups = new PortGroups({
    host: 'host-1',
    view: { blocks, snapshot: { pools: new Map() }, learn: (_, block) => void blocks.set('block', block as Block) },
    addresses: {
      held: (_, of) => (held.has(of) ? {} : undefined),
      background: (_, work) => void work().catch((fault: unknown) => faults.push(fault)),
    },
    set: async (_, request) => {
      asked.push(request);
      await Promise.resolve();
      if (state.isAway) throw new Fault('unavailable', 'The controller is away');
      const { groups: _before, ...rest } = blocks.get('block') as Block;
      return request.groups === undefined ? rest : { ...rest, groups: { [request.ip]: request.groups } };
    },
  });
  return { groups, blocks, held, asked, faults, state };
}
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('who asks for no groups asks nobody, and elsewhere than in a cloud they are refused', async () => {
  const { groups, asked } = bed();
  await groups.settle(network, one, undefined);
  assert.deepEqual(asked, []);
  await assert.rejects(groups.settle(makeNetwork('over'), one, ['web']), { code: 'invalid', field: 'groups' });
});

test('groups go with the container, and whoever has the address next waits until its port is back', async () => {
  const { groups, blocks, held, asked, faults, state } = bed();
  held.add(ip);
  await groups.settle(network, one, ['web']);
  assert.deepEqual(blocks.get('block')?.groups, { [ip]: ['web'] });
  held.delete(ip);
  state.isAway = true;
  groups.putBack(one);
  await settled();
  assert.deepEqual([asked.length, faults.length], [2, 1]);
  held.add(ip);
  await assert.rejects(groups.settle(network, one, undefined), { code: 'unavailable' });
  state.isAway = false;
  await groups.settle(network, one, undefined);
  assert.deepEqual([blocks.get('block')?.groups, asked.at(-1)], [undefined, { ip }]);
});

test('a port is not put back under somebody who has the address again; what a crash left is', async () => {
  const { groups, blocks, held, asked } = bed();
  await groups.settle(network, one, ['web']);
  groups.putBack(one);
  held.add(ip);
  await groups.settle(network, one, ['db']);
  assert.deepEqual(
    asked.map((request) => request.groups),
    [['web'], ['db']],
  );
  groups.reconcile();
  await settled();
  assert.deepEqual(blocks.get('block')?.groups, { [ip]: ['db'] });
  held.clear();
  groups.reconcile();
  await settled();
  assert.equal(blocks.get('block')?.groups, undefined);
});
