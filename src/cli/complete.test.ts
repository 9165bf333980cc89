import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { fakeClient, noRecords } from './fake.ts';
import { complete } from './complete.ts';
import { run, surroundings } from './run.fixture.ts';
import { Session } from './session.ts';

const records = noRecords();
records.networks.push(makeNetwork('aaaaaaaaaa01'), makeNetwork('aaaaaaaaaa02'));
records.hosts.push(makeHost(1), makeHost(2));
const client = fakeClient(records);
const words = async (...line: string[]): Promise<readonly string[]> =>
  (await run(['__complete', ...line], { client })).out
    .split('\n')
    .slice(0, -1)
    .map((one) => one.split('\t')[0] ?? '');

test('groups and subcommands', async () => {
  assert.ok((await words('')).includes('network'));
  assert.deepEqual(await words('ne'), ['network']);
  assert.deepEqual(await words('network', ''), ['ls', 'show', 'create', 'edit', 'rm']);
  assert.deepEqual(await words('-o', 'json', 'host', 'r'), ['remove']);
});

test('options, of the command and of the root, and their values', async () => {
  assert.deepEqual(await words('network', 'create', '--e'), ['--encrypted']);
  assert.deepEqual(await words('network', 'ls', '--out'), ['--output']);
  assert.deepEqual(await words('network', 'create', '--model', ''), ['overlay', 'flannel', 'calico', 'neutron', 'routes', 'swarm']);
  assert.deepEqual(await words('network', 'ls', '--output=j'), ['--output=json']);
  // as bash splits them
  assert.deepEqual(await words('network', 'create', '--model', '=', 'o'), ['overlay']);
  assert.deepEqual(await words('network', 'create', '--model', '='), ['overlay', 'flannel', 'calico', 'neutron', 'routes', 'swarm']);
  assert.deepEqual(await words('network', 'create', '--model', '=', 'overlay', '--e'), ['--encrypted']);
});

test('names come from the controller', async () => {
  assert.deepEqual(await words('network', 'show', ''), ['net-aaaaaaaaaa01', 'net-aaaaaaaaaa02']);
  assert.deepEqual(await words('network', 'rm', 'net-aaaaaaaaaa01', 'net'), ['net-aaaaaaaaaa01', 'net-aaaaaaaaaa02']);
  assert.deepEqual(await words('network', 'show', 'net-aaaaaaaaaa01', ''), []);
  assert.deepEqual(await words('endpoint', 'ls', '--host', 'host-2'), ['host-2']);
  assert.deepEqual(await words('explain', 'network', 'x', '--host', ''), ['host-1', 'host-2']);
  assert.deepEqual(await words('completion', ''), ['bash', 'zsh', 'fish']);
});

test('a controller that is away or slow is no error and no name', async () => {
  const away = await run(['__complete', 'network', 'show', ''], { connect: () => Promise.reject(new Error('away')) });
  assert.deepEqual(away, { status: 0, out: '', err: '' });
  const slow = new Session({ ...surroundings(), connect: () => new Promise(() => undefined) });
  assert.equal(await complete(['network', 'show', ''], slow, 1), '');
});
