// Further networks by the real plugins of Debian's containernetworking-plugins in real namespaces; only the first network is a
// fake, as what is seen here is what others' plugins make.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test, type TestContext } from 'node:test';
import { spawnSync } from 'node:child_process';
import { eventually } from '#agent/namespaces.fixture.ts';
import type { AttachedNetwork, FurtherNetwork } from '#api/further-networks.ts';
import { FakeAgent } from '#docker/fake-agent.ts';
import { parseCidr, parseMac } from '#model/ip.ts';
import { ip } from '#test/cni-bed.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { createCni } from './server.ts';

mustBeIsolated();
const folder = mkdtempSync(join(tmpdir(), 'causeway-further-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const log = { debug: () => undefined, warn: () => undefined, error: () => undefined };
ip('link', 'add', 'lower0', 'type', 'veth', 'peer', 'name', 'far0');
ip('link', 'set', 'lower0', 'up');
ip('link', 'set', 'far0', 'up');
// With an address of its own: else it takes that of each new port, for which the plugin's CHECK of the others fails.
ip('link', 'add', 'br-lan', 'address', '02:00:00:00:98:00', 'type', 'bridge');

const ipam = { type: 'host-local', dataDir: folder, subnet: '10.98.0.0/24' };
/** Addresses that host-local has given and not got back. */
const given = (): string[] =>
  existsSync(join(folder, 'lan')) ? readdirSync(join(folder, 'lan')).filter((name) => name.startsWith('10.98.')) : [];
const bridgeUsers = (): string => spawnSync('ip', ['-br', 'link', 'show', 'master', 'br-lan'], { encoding: 'utf8' }).stdout.trim();

const network = (configuration: object, more: Partial<FurtherNetwork> = {}): FurtherNetwork => ({
  place: 'asked',
  name: 'default/lan',
  ifname: 'net1',
  configuration: { cniVersion: '1.0.0', name: 'lan', ...configuration },
  ips: [],
  capabilities: {},
  args: {},
  gateways: [],
  ...more,
});
const bridge = network({
  plugins: [
    { type: 'bridge', bridge: 'br-lan', ipam },
    { type: 'tuning', mtu: 1300 },
  ],
});
const macvlan = (address: string, mac: string): FurtherNetwork =>
  network(
    { type: 'macvlan', master: 'lower0', capabilities: { ips: true, mac: true }, ipam: { type: 'static' } },
    { ifname: 'wire0', ips: [address], mac: parseMac(mac) },
  );

async function bed(t: TestContext, wanted: Readonly<Record<string, readonly FurtherNetwork[]>>) {
  const agent = new FakeAgent('one');
  await agent.createNetwork({ name: 'pods', pools: [{ family: 4, cidr: parseCidr('10.244.1.0/24') }] });
  const told: Record<string, readonly AttachedNetwork[]> = {};
  const networks = {
    first: () => Promise.resolve(undefined),
    of: ({ pod }: { readonly pod: string }) => Promise.resolve(wanted[pod] ?? []),
    tell: ({ pod }: { readonly pod: string }, attached: readonly AttachedNetwork[]) => Promise.resolve(void (told[pod] = attached)),
  };
  let cni = createCni({ agent, networks, log });
  const execute = async (command: string, name: string, conf: object = {}): Promise<unknown> => {
    const environment = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: name,
      CNI_IFNAME: 'eth0',
      CNI_NETNS: `/run/netns/${name}`,
      CNI_PATH: '/opt/cni/bin:/usr/lib/cni',
      CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${name}`,
    };
    const variables = Object.entries(environment).map(([key, value]) => `${key}=${value}\0`);
    const input = JSON.stringify({ cniVersion: '1.0.0', name: 'pods', type: 'causeway', ...conf });
    const body = `${variables.join('')}\0${input}`;
    const { status, body: answered = {} } = await cni.call(body);
    if (status !== 200) throw new Error(JSON.stringify(answered));
    return answered;
  };
  for (const name of Object.keys(wanted)) {
    ip('netns', 'add', name);
    t.after(async () => {
      await execute('DEL', name);
      spawnSync('ip', ['netns', 'del', name]);
    });
  }
  return { execute, told, restart: () => (cni = createCni({ agent, networks, log })) };
}
const pings = (from: string, to: string | undefined): boolean =>
  spawnSync('ip', ['netns', 'exec', from, 'ping', '-n', '-c', '1', '-i', '0.2', '-w', '5', to ?? '']).status === 0;

test('a chain of bridge, host-local and tuning: attached, checked, and gone with the container', async (t) => {
  const { execute, told, restart } = await bed(t, { one: [bridge], two: [bridge] });
  const prevResult = await execute('ADD', 'one');
  await execute('ADD', 'two');
  const [one, two] = [told['one']?.[1], told['two']?.[1]];
  assert.deepEqual([one?.ips, two?.ips, one?.ifname], [['10.98.0.2'], ['10.98.0.3'], 'net1']);
  assert.match(ip('-n', 'one', 'link', 'show', 'net1'), new RegExp(`mtu 1300[^]*${one?.mac}`));
  assert.deepEqual([pings('one', two?.ips[0]), pings('two', one?.ips[0])], [true, true]);
  await execute('CHECK', 'one', { prevResult });
  ip('-n', 'one', 'addr', 'flush', 'dev', 'net1');
  await assert.rejects(execute('CHECK', 'one', { prevResult }), /asked, as net1: plugins\[0\] \(bridge\): Plugin bridge refuses CHECK/);
  restart();
  await execute('DEL', 'one');
  assert.doesNotMatch(ip('-n', 'one', '-br', 'link'), /net1/);
  assert.equal(given().length, 1);
  ip('netns', 'del', 'two');
  await execute('DEL', 'two');
  assert.deepEqual(given(), []);
  // What was in a namespace goes with it, but later: the kernel takes namespaces down in the background, one by one.
  await eventually(() => bridgeUsers() === '', 'the bridge to be without users');
});

test('macvlan with addresses and MACs that were asked for', async (t) => {
  const { execute, told } = await bed(t, {
    one: [macvlan('10.97.0.1/24', '02:00:00:00:97:01')],
    two: [macvlan('10.97.0.2/24', '02:00:00:00:97:02')],
  });
  await execute('ADD', 'one');
  await execute('ADD', 'two');
  assert.deepEqual([told['one']?.[1]?.ips, told['one']?.[1]?.mac], [['10.97.0.1'], '02:00:00:00:97:01']);
  assert.equal(pings('one', '10.97.0.2'), true);
  await execute('DEL', 'one');
  assert.doesNotMatch(ip('-n', 'one', '-br', 'link'), /wire0/);
});

test('when the second network fails the first one is undone, link and address', async (t) => {
  const odd = network({ type: 'macvlan', master: 'nowhere0' }, { ifname: 'odd0', name: 'default/odd' });
  const { execute } = await bed(t, { one: [bridge, odd] });
  await assert.rejects(execute('ADD', 'one'), /as odd0: plugins\[0\] \(macvlan\): Plugin macvlan refuses ADD: Link not found/);
  assert.deepEqual([given(), bridgeUsers()], [[], '']);
  assert.doesNotMatch(ip('-n', 'one', '-br', 'link'), /net1|odd0/);
});
