// Whole executions of the plugin against an agent in memory: what a runtime does in good order, twice, out of order and half.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Agent, request as ask } from 'undici';
import * as v from 'valibot';
import { FakeAgent } from '#docker/fake-agent.ts';
import { parseCidr } from '#model/ip.ts';
import { type CniOptions, createCni, listenCni } from './server.ts';

const silent = { debug: () => undefined, warn: () => undefined, error: () => undefined };
const reply = v.object({
  code: v.optional(v.number()),
  ips: v.optional(v.array(v.object({ address: v.string(), interface: v.optional(v.number()) }))),
  interfaces: v.optional(v.array(v.object({ name: v.string() }))),
});

interface Execution {
  readonly command?: string;
  readonly container?: string;
  readonly ifname?: string;
  readonly netns?: string;
  readonly args?: string;
  readonly conf?: Readonly<Record<string, unknown>>;
}

async function bed(cidrs: readonly string[] = ['10.244.1.0/24'], choices: Omit<CniOptions, 'agent' | 'log'> = {}) {
  const agent = new FakeAgent('one');
  const request = { name: 'pods', pools: cidrs.map((cidr) => ({ family: 4 as const, cidr: parseCidr(cidr) })) };
  await agent.createNetwork(request);
  const { call, attached } = createCni({ agent, log: silent, ...choices });
  const execute = async (execution: Execution = {}) => {
    const { command = 'ADD', container = 'a1', ifname = 'eth0', netns = `/run/netns/${container}`, args = '', conf } = execution;
    const environment = { CNI_COMMAND: command, CNI_CONTAINERID: container, CNI_IFNAME: ifname, CNI_NETNS: netns, CNI_ARGS: args };
    const variables = Object.entries(environment).map(([key, value]) => `${key}=${value}\0`);
    const input = JSON.stringify({ cniVersion: '1.1.0', name: 'pods', type: 'causeway', ...conf });
    const { status, body: json = {} } = await call(`${variables.join('')}\0${input}`);
    return { status, json, ...v.parse(reply, json) };
  };
  return { agent, call, execute, attached, endpoints: () => agent.localEndpoints().map(({ owner }) => owner) };
}

test('ADD gives what is in the container, and the same again when it is repeated', async () => {
  const { agent, execute, endpoints } = await bed();
  const args = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0';
  const conf = { dns: { nameservers: ['10.96.0.10'] }, runtimeConfig: { portMappings: [{ hostPort: 80, containerPort: 8080 }] } };
  const first = await execute({ args, conf });
  const [endpoint] = agent.localEndpoints();
  assert.deepEqual(
    [endpoint?.owner, endpoint?.name, endpoint?.ports, endpoint?.addresses],
    ['shop/web-0', 'web-0', [{ protocol: 'tcp', hostPort: 80, port: 8080 }], ['10.244.1.2']],
  );
  assert.deepEqual(
    [first.status, first.json],
    [
      200,
      {
        cniVersion: '1.1.0',
        interfaces: [
          { name: `cwe${endpoint?.id.slice(0, 11)}`, mac: '02:63:77:ff:ff:01', mtu: 1400 },
          { name: 'eth0', mac: endpoint?.mac, mtu: 1400, sandbox: '/run/netns/a1' },
        ],
        ips: [{ address: '10.244.1.2/32', gateway: '169.254.1.1', interface: 1 }],
        routes: [{ dst: '0.0.0.0/0', gw: '169.254.1.1' }],
        dns: { nameservers: ['10.96.0.10'] },
      },
    ],
  );
  assert.deepEqual((await execute({ args, conf })).json, first.json);
  assert.deepEqual(
    (await Promise.all([execute({ args, conf }), execute({ args, conf })])).map(({ json }) => json),
    [first.json, first.json],
  );
  assert.equal(endpoints().length, 1);
});

test('a container may have several links, each an attachment of its own', async () => {
  const { execute, endpoints } = await bed();
  const both = [await execute(), await execute({ ifname: 'net1' })];
  assert.deepEqual(
    both.map(({ ips }) => ips?.[0]?.address),
    ['10.244.1.2/32', '10.244.1.3/32'],
  );
  await execute({ command: 'DEL', ifname: 'net1' });
  assert.equal(endpoints().length, 1);
});

test('the same names in another namespace are a new container', async () => {
  const { agent, execute, endpoints } = await bed();
  await execute();
  assert.equal((await execute({ netns: '/run/netns/other' })).status, 200);
  assert.deepEqual([endpoints().length, agent.calls.filter(([call]) => call === 'detach').length > 0], [1, true]);
});

test('DEL succeeds before ADD, after it, twice, and without a namespace', async () => {
  const { execute, endpoints } = await bed();
  const del = { command: 'DEL', netns: '' };
  assert.equal((await execute(del)).status, 200);
  await execute();
  assert.deepEqual([(await execute(del)).json, (await execute(del)).status, endpoints()], [{}, 200, []]);
});

test('what a Kubernetes runtime attached is known as such, and removed as by DEL', async () => {
  const { agent, execute, attached, endpoints } = await bed();
  await execute({ args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u-1' });
  await execute({ container: 'b2' });
  assert.deepEqual(new Set(attached.records().map(({ record }) => record.podUid)), new Set(['u-1', undefined]));
  for (const { endpoint, record } of attached.records()) if (record.podUid !== undefined) await attached.remove(endpoint, record);
  assert.deepEqual([endpoints(), agent.journal.list('cni/').length], [['b2'], 1]);
});

test('an ADD that fails leaves nothing behind', async () => {
  const { agent, execute, endpoints } = await bed();
  agent.gone.add('/run/netns/a1');
  assert.deepEqual([(await execute()).code, endpoints(), agent.journal.list('cni/')], [5, [], []]);
  assert.equal((await execute({ conf: { network: 'nobody' } })).code, 3);
  assert.equal((await execute({ conf: { runtimeConfig: { ips: ['192.0.2.1'] } } })).code, 7);
  await execute({ container: 'b2', conf: { runtimeConfig: { ips: ['10.244.1.9'] } } });
  const taken = await execute({ container: 'c3', conf: { runtimeConfig: { ips: ['10.244.1.9'] } } });
  assert.deepEqual([taken.code, endpoints(), agent.journal.list('cni/').length], [100, ['b2'], 1]);
});

test('CHECK tells what is no longer as it was given', async () => {
  const { agent, execute } = await bed();
  const { json: prevResult } = await execute();
  const check = { command: 'CHECK', conf: { prevResult } };
  assert.equal((await execute(check)).status, 200);
  assert.equal((await execute({ ...check, ifname: 'eth1' })).code, 3);
  const others = { cniVersion: '1.1.0', ips: [{ address: '10.244.1.77/32' }] };
  assert.equal((await execute({ command: 'CHECK', conf: { prevResult: others } })).code, 5);
  const routes = [{ dst: '192.0.2.0/24', gw: '169.254.1.1' }];
  const result = v.parse(v.record(v.string(), v.unknown()), prevResult);
  assert.equal((await execute({ command: 'CHECK', conf: { prevResult: { ...result, routes } } })).code, 5);
  agent.gone.add('/run/netns/a1');
  assert.equal((await execute(check)).code, 5);
});

test('GC removes what the runtime does not name, of its own configuration only', async () => {
  const { execute, endpoints } = await bed();
  await execute();
  await execute({ container: 'b2' });
  await execute({ container: 'c3', conf: { name: 'other', network: 'pods' } });
  const valid = [{ containerID: 'a1', ifname: 'eth0' }];
  const gc = await execute({ command: 'GC', conf: { 'cni.dev/valid-attachments': valid } });
  assert.deepEqual([gc.status, endpoints().toSorted()], [200, ['a1', 'c3']]);
  assert.equal((await execute({ command: 'GC' })).code, 7);
  assert.equal(endpoints().length, 2);
});

test('STATUS says whether ADD could work', async () => {
  const { agent, execute } = await bed();
  assert.equal((await execute({ command: 'STATUS' })).status, 200);
  assert.equal((await execute({ command: 'STATUS', conf: { network: 'nobody' } })).code, 50);
  assert.equal((await execute({ command: 'STATUS', conf: { what: 1 } })).code, 2);
  agent.hasSynced = false;
  assert.equal((await execute({ command: 'STATUS', conf: { network: 'nobody' } })).code, 50);
  assert.equal((await execute({ conf: { network: 'nobody' } })).code, 11);
});

test('STATUS says that no address is left, and in which range', async () => {
  const { execute } = await bed(['10.244.1.0/30']);
  assert.deepEqual([(await execute()).status, (await execute({ container: 'b2' })).code], [200, 101]);
  const { code, json } = await execute({ command: 'STATUS' });
  assert.equal(code, 50);
  assert.match(v.parse(v.object({ msg: v.string() }), json).msg, /^Network pods has no free address on one \(10\.244\.1\.0\/30\)$/);
});

test('STATUS looks at those pools that containers get addresses of, and at all of a family', async () => {
  const both = ['10.244.1.0/31', '10.244.2.0/24'];
  assert.equal((await (await bed(both)).execute({ command: 'STATUS' })).status, 200);
  const isForContainers = (id: string): boolean => !agent.pools('network000001').some((pool) => pool.id === id && pool.cidr === both[1]);
  const { agent, execute } = await bed(both, { isForContainers });
  assert.equal((await execute({ command: 'STATUS' })).code, 50);
  assert.equal((await (await bed(both, { isForContainers: () => false })).execute({ command: 'STATUS' })).code, 50);
});

test('where the cluster hears of it otherwise, a full host is as ready as before', async () => {
  const { execute } = await bed(['10.244.1.0/30'], { isFullToldElsewhere: true });
  assert.deepEqual([(await execute()).status, (await execute({ container: 'b2' })).code], [200, 101]);
  assert.equal((await execute({ command: 'STATUS' })).status, 200);
  assert.equal((await execute({ command: 'STATUS', conf: { network: 'nobody' } })).code, 50);
});

test('VERSION, old results, a later plugin of a chain', async () => {
  const { execute } = await bed();
  const supportedVersions = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'];
  assert.deepEqual((await execute({ command: 'VERSION', conf: { cniVersion: '0.4.0' } })).json, { cniVersion: '0.4.0', supportedVersions });
  const old = v.parse(
    v.object({ cniVersion: v.string(), ips: v.array(v.object({ version: v.string() })) }),
    (await execute({ conf: { cniVersion: '0.3.1' } })).json,
  );
  assert.deepEqual(old, { cniVersion: '0.3.1', ips: [{ version: '4' }] });
  const chained = await execute({ container: 'b2', conf: { prevResult: { cniVersion: '1.1.0', interfaces: [{ name: 'lo' }] } } });
  assert.deepEqual([chained.interfaces?.map(({ name }) => name).at(0), chained.ips?.map((ip) => ip.interface)], ['lo', [2]]);
});

test('what is no execution is refused', async () => {
  const { call } = await bed();
  for (const body of ['', 'x', '{"a":1}', 'CNI_COMMAND=ADD\0']) assert.equal((await call(body)).status, 400);
  assert.equal((await call('\0{}')).status, 500);
});

const executionOf = (command: string): string => `CNI_COMMAND=${command}\0\0{"cniVersion":"1.1.0","name":"pods","type":"causeway"}`;

test("the socket is root's, and answers what is no call", async (t) => {
  const folder = mkdtempSync(`${tmpdir()}/causeway-cni-`);
  t.after(() => rmSync(folder, { recursive: true }));
  const { call } = await bed();
  const path = `${folder}/run/cni.sock`;
  await using server = await listenCni({ call }, path);
  assert.equal(server.path, path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const dispatcher = new Agent({ connect: { socketPath: path } });
  const answered = async (method: 'GET' | 'POST', called: string, sent: string | null = null) => {
    const { statusCode, body } = await ask(`http://agent${called}`, { method, dispatcher, body: sent });
    const text = await body.text();
    return [statusCode, text === '' ? undefined : v.parse(reply, JSON.parse(text)).code];
  };
  assert.deepEqual(await answered('POST', '/cni', executionOf('VERSION')), [200, undefined]);
  assert.deepEqual(await answered('POST', '/cni', executionOf('STATUS')), [200, undefined]);
  assert.deepEqual(await answered('POST', '/cni', executionOf('ADD')), [500, 4]);
  assert.deepEqual(await answered('GET', '/cni'), [404, 3]);
  assert.deepEqual(await answered('POST', '/other', executionOf('STATUS')), [404, 3]);
  assert.deepEqual(await answered('POST', '/cni', `\0${'x'.repeat(5_000_000)}`), [413, 7]);
  await dispatcher.close();
});
