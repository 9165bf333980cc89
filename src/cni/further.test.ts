// Further networks of containers, with plugins that note how they were called and fail when they are told to: what is added is
// undone backwards, whatever happens in between.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import * as v from 'valibot';
import type { AskingPod, AttachedNetwork, FurtherNetwork } from '#api/further-networks.ts';
import { FakeAgent } from '#docker/fake-agent.ts';
import { Fault } from '#model/fault.ts';
import { type Ip, parseCidr, parseMac } from '#model/ip.ts';
import { createCni } from './server.ts';

const silent = { debug: () => undefined, warn: () => undefined, error: () => undefined };
const pod = { namespace: 'shop', pod: 'web-0' };
const reply = v.object({
  code: v.optional(v.number()),
  msg: v.optional(v.string(), ''),
  routes: v.optional(v.array(v.object({ dst: v.string() }))),
});

/** Notes each call with what matters of it, answers an address for ADD, and fails for COMMAND-TYPE-INTERFACE while there is a file of that name. */
const script = `#!/bin/sh
type=$(basename $0) here=$(dirname $0)
input=$(cat)
has() { case $input in *"$1"*) echo " $2";; esac; }
echo "$CNI_COMMAND $type $CNI_IFNAME$(has '"prevResult"' result)$(has '"ips":["10.9.' ips)\${CNI_NETNS:+ netns}" >>$here/calls
echo "$CNI_ARGS" >$here/args
if [ -e $here/$CNI_COMMAND-$type-$CNI_IFNAME ]; then echo '{"code":999,"msg":"told to"}'; exit 1; fi
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","mac":"02:00:00:00:00:01","sandbox":"'$CNI_NETNS'"}],
  "ips":[{"address":"10.9.0.5/24","interface":0}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.8.0.0/16"}]}'
exit 0
`;

const network = (ifname: string, plugins: readonly object[], more: Partial<FurtherNetwork> = {}): FurtherNetwork => ({
  place: `asked[${ifname}]`,
  name: `shop/${ifname}`,
  ifname,
  configuration: { cniVersion: '1.0.0', name: 'further', plugins },
  ips: [],
  capabilities: {},
  args: {},
  gateways: [],
  ...more,
});

async function bed(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-further-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of ['first', 'second']) {
    writeFileSync(join(folder, name), script);
    chmodSync(join(folder, name), 0o755);
  }
  const agent = new FakeAgent('one');
  await agent.createNetwork({ name: 'pods', pools: [{ family: 4, cidr: parseCidr('10.244.1.0/24') }] });
  await agent.createNetwork({ name: 'blue', pools: [{ family: 4, cidr: parseCidr('10.7.0.0/24') }] });
  const world: {
    first?: FurtherNetwork;
    wanted: readonly FurtherNetwork[];
    refuses: boolean;
    readonly told: (readonly AttachedNetwork[])[];
  } = {
    wanted: [],
    refuses: false,
    told: [],
  };
  const networks = {
    first: () => Promise.resolve(world.first),
    of: (asking: AskingPod) => {
      assert.deepEqual([asking.namespace, asking.pod, asking.annotations], ['shop', 'web-0', { asks: 'yes' }]);
      return Promise.resolve(world.wanted);
    },
    tell: (_: AskingPod, attached: readonly AttachedNetwork[]) => {
      if (world.refuses) return Promise.reject(new Fault('unavailable', 'away'));
      world.told.push(attached);
      return Promise.resolve();
    },
  };
  let cni = createCni({ agent, networks, log: silent });
  const execute = async (command = 'ADD', netns = folder, conf: object = {}) => {
    const variables = Object.entries({
      CNI_COMMAND: command,
      CNI_CONTAINERID: 'a1',
      CNI_IFNAME: 'eth0',
      CNI_NETNS: netns,
      CNI_PATH: folder,
      CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${pod.namespace};K8S_POD_NAME=${pod.pod};K8S_POD_UID=7`,
    }).map(([key, value]) => `${key}=${value}\0`);
    const runtimeConfig = { 'io.kubernetes.cri.pod-annotations': { asks: 'yes' } };
    const input = JSON.stringify({ cniVersion: '1.1.0', name: 'pods', type: 'causeway', runtimeConfig, ...conf });
    const body = `${variables.join('')}\0${input}`;
    const { body: json = {} } = await cni.call(body);
    return { json, ...v.parse(reply, json) };
  };
  const read = (name: string): string[] =>
    existsSync(join(folder, name)) ? readFileSync(join(folder, name), 'utf8').trim().split('\n') : [];
  return {
    agent,
    world,
    execute,
    folder,
    restart: () => (cni = createCni({ agent, networks, log: silent })),
    calls: (): string[] => {
      const calls = read('calls');
      rmSync(join(folder, 'calls'), { force: true });
      return calls;
    },
    args: () => read('args')[0],
    fail: (what: string) => writeFileSync(join(folder, what), ''),
    mend: (what: string) => rmSync(join(folder, what)),
    attached: () => cni.attached,
    endpoints: () => agent.localEndpoints().map(({ addresses }) => addresses[0]),
    left: () =>
      agent.journal
        .keys('cni')
        .map((key) => key.replace(/\/.*/, ''))
        .toSorted(),
  };
}

const two = [network('net1', [{ type: 'first' }, { type: 'second' }]), network('up0', [{ type: 'first' }])];
const added = ['ADD first net1 netns', 'ADD second net1 result netns', 'ADD first up0 netns'];
const deleted = ['DEL first up0 result netns', 'DEL second net1 result netns', 'DEL first net1 result netns'];

test('each plugin is asked in order, told of, checked, and undone backwards, also by an agent that was restarted', async (t) => {
  const { world, execute, calls, restart, endpoints, left, args } = await bed(t);
  world.wanted = two;
  const first = await execute();
  assert.equal(first.msg, '');
  assert.deepEqual(calls(), added);
  assert.match(args() ?? '', /^IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=7$/);
  assert.deepEqual(
    world.told[0]?.map(({ name, ifname, ips, mac, isFirst }) => [name, ifname, ips, mac, isFirst]),
    [
      ['pods', 'eth0', endpoints(), '0a:63:0a:f4:01:02', true],
      ['shop/net1', 'net1', ['10.9.0.5'], '02:00:00:00:00:01', false],
      ['shop/up0', 'up0', ['10.9.0.5'], '02:00:00:00:00:01', false],
    ],
  );
  assert.deepEqual((await execute()).json, first.json);
  assert.deepEqual(calls(), [], 'the same again does nothing');
  restart();
  world.wanted = [];
  assert.equal((await execute('CHECK', undefined, { prevResult: first.json })).msg, '');
  assert.deepEqual(calls(), ['CHECK first net1 result netns', 'CHECK second net1 result netns', 'CHECK first up0 result netns']);
  assert.equal((await execute('DEL')).msg, '');
  assert.deepEqual([calls(), endpoints(), left()], [deleted, [], []]);
  assert.equal((await execute('DEL')).msg, '');
  assert.deepEqual(calls(), []);
});

test('a failed ADD takes along what was there before it, and the pod gets nothing', async (t) => {
  const { world, execute, calls, fail, mend, endpoints, left } = await bed(t);
  world.wanted = two;
  fail('ADD-second-net1');
  const { code, msg } = await execute();
  assert.deepEqual([code, msg], [5, 'asked[net1], as net1: plugins[1] (second): Plugin second refuses ADD: told to']);
  assert.deepEqual(calls(), [...added.slice(0, 2), 'DEL second net1 netns', 'DEL first net1 netns']);
  assert.deepEqual([endpoints(), left(), world.told], [[], [], []]);
  mend('ADD-second-net1');
  world.refuses = true;
  assert.equal((await execute()).code, 11);
  assert.deepEqual(calls(), [...added, ...deleted], 'who cannot be told of it does not have it');
  assert.deepEqual([endpoints(), left()], [[], []]);
});

test('a plugin that refuses ADD and DEL keeps nobody, those before it do', async (t) => {
  const { world, execute, calls, fail, left } = await bed(t);
  world.wanted = two;
  fail('ADD-second-net1');
  fail('DEL-second-net1');
  assert.equal((await execute()).code, 5);
  assert.deepEqual([calls().slice(2), left()], [['DEL second net1 netns', 'DEL first net1 netns'], []]);
  fail('DEL-first-net1');
  assert.equal((await execute()).code, 5);
  assert.deepEqual(left(), ['cni', 'cni-further']);
});

test('what cannot be undone keeps nothing else, and is tried again', async (t) => {
  const { world, execute, calls, fail, mend, endpoints, left, attached } = await bed(t);
  world.wanted = two;
  await execute();
  calls();
  fail('DEL-second-net1');
  assert.match((await execute('DEL')).msg, /asked\[net1\], as net1: plugins\[1\] \(second\): .*told to/);
  assert.deepEqual([calls(), endpoints(), left()], [deleted, [], ['cni', 'cni-further']]);
  assert.equal(attached().records().length, 1, 'so that who looks for lost ones finds it');
  mend('DEL-second-net1');
  assert.equal((await execute('DEL')).msg, '');
  assert.deepEqual([calls(), left()], [deleted.slice(1), []]);
});

test('the same names in another namespace are another container', async (t) => {
  const { world, execute, calls } = await bed(t);
  world.wanted = two.slice(1);
  await execute();
  await execute('ADD', '/run/netns/other');
  assert.deepEqual(calls(), ['ADD first up0 netns', 'DEL first up0 result netns', 'ADD first up0 netns']);
  await execute('DEL');
  assert.deepEqual(calls(), ['DEL first up0 result'], 'there is no such namespace');
});

test('networks of ours go the same way, and GC leaves them to the attachment that they are of', async (t) => {
  const { world, execute, endpoints, left, attached } = await bed(t);
  world.wanted = [
    network('net1', [], {
      configuration: { cniVersion: '1.0.0', name: 'pods', type: 'causeway', network: 'blue' },
      ips: ['10.7.0.9/24'],
      capabilities: { portMappings: [{ hostPort: 80, containerPort: 80 }] },
    }),
  ];
  assert.equal((await execute()).msg, '');
  assert.deepEqual([endpoints(), world.told[0]?.[1]?.ips], [['10.244.1.2', '10.7.0.9'], ['10.7.0.9']]);
  assert.deepEqual(attached().records().length, 1);
  const valid = [{ containerID: 'a1', ifname: 'eth0' }];
  assert.equal((await execute('GC', undefined, { 'cni.dev/valid-attachments': valid })).msg, '');
  assert.equal(endpoints().length, 2);
  assert.equal((await execute('GC', undefined, { 'cni.dev/valid-attachments': [] })).msg, '');
  assert.deepEqual([endpoints(), left()], [[], []]);
});

test('addresses and MACs are asked by capability, else by CNI_ARGS; what nobody takes is refused', async (t) => {
  const { world, execute, calls, args } = await bed(t);
  const more = { ips: ['10.9.0.5/24', 'fd00::5'], mac: parseMac('02:00:00:00:00:09') };
  world.wanted = [network('net1', [{ type: 'first' }], more)];
  await execute();
  assert.match(args() ?? '', /;MAC=02:00:00:00:00:09;IP=10\.9\.0\.5\/24,fd00::5$/);
  await execute('DEL');
  world.wanted = [network('net1', [{ type: 'first', capabilities: { ips: true, mac: true } }], more)];
  await execute();
  assert.match(args() ?? '', /UID=7$/);
  assert.deepEqual(calls().slice(-1), ['ADD first net1 ips netns']);
  await execute('DEL');
  world.wanted = [network('net1', [{ type: 'first' }], { capabilities: { bandwidth: { ingressRate: 1 } } })];
  const { code, msg } = await execute();
  assert.equal(code, 2);
  assert.match(msg, /^asked\[net1\], as net1: bandwidth is asked for/);
});

test("a network in the place of the runtime's is the first one, and the report tells which", async (t) => {
  const { world, execute, endpoints, left } = await bed(t);
  const configuration = { cniVersion: '1.0.0', name: 'other', type: 'causeway', network: 'blue' };
  const ours = { name: 'kube-system/blue', configuration, ips: ['10.7.0.9/24'], mac: parseMac('02:00:00:00:00:07') };
  world.first = network('eth0', [], ours);
  const ports = { portMappings: [{ hostPort: 80, containerPort: 80 }] };
  const refused = await execute('ADD', undefined, { runtimeConfig: { 'io.kubernetes.cri.pod-annotations': { asks: 'yes' }, ...ports } });
  assert.match(refused.msg, /^asked\[eth0\], as eth0: portMappings cannot be served/);
  assert.deepEqual([refused.code, endpoints(), left()], [2, [], []]);
  const first = await execute();
  assert.equal(first.msg, '');
  assert.deepEqual((await execute()).json, first.json);
  assert.deepEqual(endpoints(), ['10.7.0.9']);
  assert.deepEqual(
    world.told.map((all) => all.map(({ name, ifname, ips, mac, isFirst }) => [name, ifname, ips, mac, isFirst])),
    [[['kube-system/blue', 'eth0', ['10.7.0.9'], '02:00:00:00:00:07', true]]],
  );
  assert.equal((await execute('DEL')).msg, '');
  assert.deepEqual([endpoints(), left()], [[], []]);
});

test("a default route over a further network is no longer the first one's", async (t) => {
  const { agent, world, execute } = await bed(t);
  world.wanted = [network('net1', [{ type: 'first' }], { gateways: ['10.9.0.1' as Ip] })];
  const first = await execute();
  assert.deepEqual([first.routes, world.told[0]?.[1]?.gateways], [[], ['10.9.0.1']]);
  assert.ok(agent.calls.some(([name, , ifname, gateway]) => name === 'leadOut' && ifname === 'net1' && gateway === '10.9.0.1'));
  assert.deepEqual((await execute()).json, first.json);
});

for (const [what, configuration, pattern, code] of [
  ['no version', { name: 'x', type: 'first' }, /cniVersion: none is given/, 1],
  ['an unknown version', { cniVersion: '0.2.0', name: 'x', type: 'first' }, /cniVersion: 0\.2\.0 is not spoken/, 1],
  ['no type', { cniVersion: '1.0.0', name: 'x' }, /lacks type/, 7],
  ['no plugins', { cniVersion: '1.0.0', name: 'x', plugins: [] }, /plugins: expected a plugin/, 7],
  ['a plugin without a type', { cniVersion: '1.0.0', name: 'x', plugins: [{ type: 'first' }, {}] }, /lacks plugins\[1\]\.type/, 7],
  ['a name that is a path', { cniVersion: '1.0.0', name: '../x', type: 'first' }, /name: expected/, 7],
  ['a type that is a path', { cniVersion: '1.0.0', name: 'x', type: '../bin/sh' }, /plugins\[0\].* is no name of a plugin/, 7],
  ['a plugin that is not there', { cniVersion: '1.0.0', name: 'x', type: 'third' }, /plugins\[0\] \(third\): No plugin third in /, 2],
  ['an unknown key of ours', { cniVersion: '1.0.0', name: 'x', type: 'causeway', vlan: 3 }, /Cannot serve vlan/, 2],
  ['a network of ours that is not there', { cniVersion: '1.0.0', name: 'x', type: 'causeway' }, /No network x/, 3],
] as const) {
  test(`a definition with ${what} is refused by its place`, async (t) => {
    const { world, execute, endpoints, left } = await bed(t);
    world.wanted = [network('net1', [], { configuration })];
    const answer = await execute();
    assert.match(answer.msg, /^asked\[net1\], as net1: /);
    assert.match(answer.msg, pattern);
    assert.deepEqual([answer.code, endpoints(), left()], [code, [], []]);
  });
}
