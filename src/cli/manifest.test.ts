// What `apply` takes for the same as what there is, and what it changes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Network } from '#model/resources.ts';
import { type FakeClient, fakeClient, noRecords } from './fake.ts';
import { run } from './run.fixture.ts';

const place = '0b7c8c1e-5d0a-4f3e-9a77-0123456789ab';
const other = '1b7c8c1e-5d0a-4f3e-9a77-0123456789ab';

function installation(more: Partial<Network> = {}): FakeClient {
  const records = noRecords();
  const network: Network = { ...makeNetwork('aaaaaaaaaa01'), name: 'web', ...more };
  records.networks.push(network);
  records.pools.push({ ...makePool(network.id, parseCidr('10.0.0.0/16'), 27), gateway: parseIp('10.0.0.1') });
  if (network.neutron?.fallback === true) {
    records.pools.push({ ...makePool(network.id, parseCidr('10.9.0.0/24'), 27), id: 'beside', fallback: true });
  }
  return fakeClient(records);
}

const neutron: Partial<Network> = {
  model: 'neutron',
  labels: { stage: 'test', 'causeway.docker.network': 'x'.repeat(64) },
  neutron: { network: place, subnet: other, mtu: 1450, fallback: true },
};

test('what get prints is unchanged by apply, also of a network in a cloud, and has nothing of one installation alone', async () => {
  const client = installation(neutron);
  const { out } = await run('get', { client });
  assert.doesNotMatch(out, /causeway\.docker|10\.9\.0\.0/);
  assert.match(out, new RegExp(`network: ${place}\n  subnet: ${other}\n  fallback: overlay\n`));
  const again = await run('apply -f -', { client, input: out });
  assert.deepEqual([again.out, again.err, client.requests], ['network web: unchanged\n', '', []]);
});

test('a document may leave out what was chosen, but not say what is not so', async () => {
  const rows: readonly [document: string, status: number][] = [
    ['pools: [{family: 4}]', 0],
    ['pools: [{family: 4, cidr: 10.0.0.0/16}]', 0],
    ['pools: [{family: 4, cidr: 10.1.0.0/16}]', 4],
    ['pools: [{family: 4, gateway: 10.0.0.2}]', 4],
    ['pools: [{family: 4}, {family: 6}]', 4],
    ['model: neutron\nneutron: {network: hosts, fallback: overlay}', 0],
    [`model: neutron\nneutron: {network: ${place}, fallback: overlay}`, 0],
    [`model: neutron\nneutron: {network: ${other}, fallback: overlay}`, 4],
    ['model: neutron\nneutron: {network: hosts}', 4],
  ];
  for (const [document, status] of rows) {
    const client = installation(document.startsWith('model') ? neutron : {});
    const applied = await run('apply -f -', { client, input: `kind: network\nname: web\n${document}\n` });
    assert.deepEqual([applied.status, client.requests], [status, []], `${document}: ${applied.err}`);
  }
});

test('labels are replaced but for those that front ends keep; attachable may change', async () => {
  const client = installation({ labels: { old: 'yes', 'causeway.docker.network': 'id' } });
  const { out } = await run('apply -f -', { client, input: 'kind: network\nname: web\nattachable: true\nlabels: {new: "yes"}\n' });
  assert.equal(out, 'network web: changed\n');
  const [{ labels, attachable } = assert.fail()] = client.records.networks;
  assert.deepEqual([labels, attachable], [{ new: 'yes', 'causeway.docker.network': 'id' }, true]);
});
