// An agent's traces in the real kernel and on disk, taken away by a process that has never heard of them.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pino } from 'pino';
import { eventually } from '#agent/namespaces.fixture.ts';
import { Reconciler } from '#agent/reconcile.ts';
import { makeFlatCluster, makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { createKinds } from '#kernel/kinds.ts';
import { isFault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Network } from '#model/resources.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { type Traces, uninstall } from './uninstall.ts';

mustBeIsolated();

const folder = mkdtempSync(join(tmpdir(), 'causeway-uninstall-'));
after(() => rmSync(folder, { recursive: true }));
const [state, run, cniConf] = [join(folder, 'state'), join(folder, 'run'), join(folder, '10-causeway.conflist')];
const traces: Traces = { state, run, cniConf, plugin: join(folder, 'causeway.sock'), driver: 'causeway', host: 'node-a' };
const log = pino({ level: 'silent' });
const say = (...words: readonly string[]): string => execFileSync(words[0] ?? '', words.slice(1), { encoding: 'utf8' });
const listings = (): string[] => [
  say('ip', '-o', 'link'),
  say('ip', 'route', 'show', 'table', 'all'),
  say('ip', 'neigh'),
  say('nft', 'list', 'ruleset'),
];

const network: Network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel', carry: 'vxlan' }), present: 'always' };
const hosts = [1, 2].map((index) =>
  makeHost(index, {
    underlay: [{ interface: 'eth0', ip: parseIp(`10.213.0.${index}`), subnet: parseCidr('10.213.0.0/16'), mtu: 1450 }],
  }),
);
const [self] = hosts;
assert.ok(self !== undefined);
const { snapshot } = makeFlatCluster(network, hosts, folder);
const files = [join(state, 'agent.db'), join(state, 'identity.json'), join(run, 'cni.sock'), join(run, 'cni.ready'), cniConf];

before(async () => {
  say('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'far');
  // No address of its own comes up late.
  for (const link of ['eth0', 'far']) say('ip', 'link', 'set', link, 'addrgenmode', 'none');
  say('ip', 'address', 'add', '10.213.0.1/16', 'dev', 'eth0');
  for (const link of ['lo', 'eth0', 'far']) say('ip', 'link', 'set', link, 'up');
  say('nft', 'add', 'table', 'inet', 'others');
  // The kernel tells a link's carrier to its routes in the background.
  const states = (): string => say('ip', '-br', 'link');
  await eventually(() => ['eth0', 'far'].every((link) => new RegExp(`^${link}\\S* +UP `, 'm').test(states())), 'both ends to be up');
});

function leaveTraces(): void {
  using kinds = createKinds();
  const { failing } = new Reconciler(kinds).apply(plan(snapshot, [], self ?? assert.fail()), true);
  assert.deepEqual(failing, []);
  for (const place of [state, run]) mkdirSync(place, { recursive: true });
  for (const file of files) writeFileSync(file, '');
}

test('nothing of an agent is left, and what others have stays', async () => {
  const earlier = listings();
  leaveTraces();
  assert.notDeepEqual(listings(), earlier);
  writeFileSync(join(state, 'controller.db'), '');
  await uninstall(traces, log);
  assert.deepEqual(listings(), earlier);
  assert.deepEqual(
    files.filter((file) => existsSync(file)),
    [],
  );
  assert.deepEqual([existsSync(join(state, 'controller.db')), existsSync(run)], [true, false]);
  await uninstall(traces, log);
});

test('while an agent runs nothing is touched', async () => {
  leaveTraces();
  const earlier = listings();
  rmSync(join(run, 'agent.sock'), { force: true });
  const agent = createServer().listen(join(run, 'agent.sock'));
  await once(agent, 'listening');
  await assert.rejects(uninstall(traces, log), (error) => isFault(error, 'in-use'));
  agent.close();
  assert.deepEqual([listings(), existsSync(cniConf)], [earlier, true]);
});
