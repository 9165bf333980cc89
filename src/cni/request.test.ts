// What runtimes hand over, good and bad: each mistake has the number that the specification gives it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isFault } from '#model/fault.ts';
import { errorAnswer } from './faults.ts';
import { type Environment, parseRequest, versionAnswer, versionOf } from './request.ts';

const configuration = { cniVersion: '1.1.0', name: 'pods', type: 'causeway' };
const environment = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'a1b2',
  CNI_NETNS: '/run/netns/one',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
  CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=a1b2;K8S_POD_UID=3c',
};
const prevResult = {
  cniVersion: '1.1.0',
  interfaces: [{ name: 'eth0', mac: '0a:63:0a:f4:01:02', sandbox: '/run/netns/one' }],
  ips: [{ address: '10.244.1.2/32', interface: 0 }],
};
const attachment = { name: 'pods', containerId: 'a1b2', ifname: 'eth0' };

interface Change {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly conf?: Readonly<Record<string, unknown>>;
  readonly text?: string;
}
const withEnv = (env: Change['env'] = {}): Environment =>
  Object.fromEntries(Object.entries({ ...environment, ...env }).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])));
const read = ({ env, conf, text }: Change) => parseRequest(withEnv(env), text ?? JSON.stringify({ ...configuration, ...conf }));

test('an ADD of a Kubernetes runtime', () => {
  assert.deepEqual(read({}), {
    command: 'ADD',
    attachment,
    netns: '/run/netns/one',
    args: { namespace: 'shop', pod: 'web-0', podUid: '3c' },
    called: { args: environment.CNI_ARGS, path: environment.CNI_PATH },
    wanted: { name: 'pods', addresses: [], ranges: [], aliases: [], ports: [], annotations: {}, dns: {} },
  });
});

test('everything that a runtime may ask by capabilities', () => {
  const runtimeConfig = {
    portMappings: [
      { hostPort: 8080, containerPort: 80, protocol: 'TCP', hostIP: '' },
      { hostPort: 53, containerPort: 53, protocol: 'udp', hostIP: '10.0.0.1' },
      { containerPort: 9, protocol: 'tcp' },
    ],
    ips: ['10.244.1.9/24', 'fd00::9'],
    mac: '0A:00:00:00:00:01',
    aliases: ['web'],
    dns: { servers: ['10.96.0.10'], searches: ['svc.cluster.local'] },
    bandwidth: { ingressRate: 8000, ingressBurst: 4_294_967_295, egressRate: 16_000, egressBurst: 9000 },
    ipRanges: [[{ subnet: '10.244.0.0/24', rangeStart: '10.244.0.7' }]],
    cgroupPath: '/kubepods',
    'io.kubernetes.cri.pod-annotations': { shop: 'open' },
  };
  const capabilities = { portMappings: true };
  const conf = { network: 'shop', runtimeConfig, capabilities, dns: { domain: 'x' }, 'cni.dev/more': 1, prevResult };
  const request = read({ conf, env: { CNI_ARGS: '' } });
  assert.deepEqual(request.command === 'ADD' && request.wanted, {
    name: 'pods',
    network: 'shop',
    addresses: ['10.244.1.9', 'fd00::9'],
    mac: '0a:00:00:00:00:01',
    ranges: [[{ first: '10.244.0.7', last: '10.244.0.254' }]],
    aliases: ['web'],
    ports: [
      { protocol: 'tcp', hostPort: 8080, port: 80 },
      { protocol: 'udp', hostIp: '10.0.0.1', hostPort: 53, port: 53 },
    ],
    bandwidth: { ingress: { rate: 8000 }, egress: { rate: 16_000, burst: 9000 } },
    annotations: { shop: 'open' },
    dns: { domain: 'x', nameservers: ['10.96.0.10'], search: ['svc.cluster.local'] },
    earlier: { interfaces: prevResult.interfaces, ips: prevResult.ips, routes: [], dns: {} },
  });
});

test('arguments of capabilities as containerd writes them', () => {
  const runtimeConfig = {
    portMappings: [{ HostPort: 18_080, ContainerPort: 8080, Protocol: 'tcp', HostIP: '' }],
    bandwidth: { IngressRate: 0, IngressBurst: 0, EgressRate: 0, EgressBurst: 0 },
    dns: { Servers: ['10.96.0.10'], Searches: null, Options: null },
  };
  const { command, ...request } = read({ conf: { runtimeConfig } });
  assert.equal(command, 'ADD');
  assert.deepEqual('wanted' in request && [request.wanted.ports, request.wanted.dns], [
    [{ protocol: 'tcp', hostPort: 18_080, port: 8080 }],
    { nameservers: ['10.96.0.10'] },
  ]);
});

test('addresses by args of CNI and by CNI_ARGS', () => {
  const byArgs = read({ conf: { args: { cni: { ips: ['10.1.0.5'], labels: [] }, other: 1 } } });
  assert.deepEqual(byArgs.command === 'ADD' && byArgs.wanted.addresses, ['10.1.0.5']);
  const byVariable = read({ env: { CNI_ARGS: 'IP=10.1.0.6;MAC=0a:00:00:00:00:02' } });
  assert.deepEqual(byVariable.command === 'ADD' && byVariable.args, { ip: '10.1.0.6', mac: '0a:00:00:00:00:02' });
});

test('the other commands', () => {
  assert.deepEqual(read({ env: { CNI_COMMAND: 'DEL', CNI_NETNS: '' } }), { command: 'DEL', attachment });
  const check = read({ env: { CNI_COMMAND: 'CHECK' }, conf: { prevResult } });
  assert.deepEqual(check, {
    command: 'CHECK',
    attachment,
    netns: '/run/netns/one',
    expected: { interfaces: prevResult.interfaces, ips: prevResult.ips, routes: [], dns: {} },
  });
  const none = { CNI_CONTAINERID: undefined, CNI_NETNS: undefined, CNI_IFNAME: undefined };
  assert.deepEqual(read({ env: { ...none, CNI_COMMAND: 'STATUS' } }), { command: 'STATUS', name: 'pods' });
  const valid = [{ containerID: 'a1b2', ifname: 'eth0' }];
  const gc = { env: { ...none, CNI_COMMAND: 'GC' } };
  assert.deepEqual(read({ ...gc, conf: { 'cni.dev/valid-attachments': valid } }), { command: 'GC', name: 'pods', valid });
  assert.deepEqual(read({ ...gc, conf: { 'cni.dev/valid-attachments': null } }), { command: 'GC', name: 'pods', valid: [] });
  assert.deepEqual(read({ env: { ...none, CNI_COMMAND: 'VERSION' }, text: '' }), { command: 'VERSION' });
});

test('a DEL is served whatever else the configuration says', () => {
  const conf = { nonsense: 1, runtimeConfig: { portMappings: 'x' }, prevResult: 5 };
  assert.deepEqual(read({ env: { CNI_COMMAND: 'DEL' }, conf }), { command: 'DEL', attachment });
});

const mapping = (change: object): Change => ({
  conf: { runtimeConfig: { portMappings: [{ hostPort: 1, containerPort: 1, protocol: 'tcp', ...change }] } },
});
const runtime = (runtimeConfig: object): Change => ({ conf: { runtimeConfig } });
const gc = (conf: object): Change => ({ env: { CNI_COMMAND: 'GC' }, conf: { ...conf } });
const args = (text: string): Change => ({ env: { CNI_ARGS: text } });

/** What is wrong, the number it gets, the request. */
const bad: readonly (readonly [string, number, Change])[] = [
  ['no command', 4, { env: { CNI_COMMAND: undefined } }],
  ['an unknown command', 4, { env: { CNI_COMMAND: 'MUL' } }],
  ['a command in small letters', 4, { env: { CNI_COMMAND: 'add' } }],
  ['no container', 4, { env: { CNI_CONTAINERID: '' } }],
  ['a container with a slash', 4, { env: { CNI_CONTAINERID: '../../etc/passwd' } }],
  ['a container with a newline', 4, { env: { CNI_CONTAINERID: 'a\nb' } }],
  ['a container of 5000 letters', 4, { env: { CNI_CONTAINERID: 'a'.repeat(5000) } }],
  ['no namespace for ADD', 4, { env: { CNI_NETNS: undefined } }],
  ['no namespace for CHECK', 4, { env: { CNI_NETNS: undefined, CNI_COMMAND: 'CHECK' }, conf: { prevResult } }],
  ['a relative namespace', 4, { env: { CNI_NETNS: 'run/netns/x' } }],
  ['a namespace with ..', 4, { env: { CNI_NETNS: '/run/netns/../../x' } }],
  ['no interface', 4, { env: { CNI_IFNAME: undefined } }],
  ['an interface of 16 letters', 4, { env: { CNI_IFNAME: 'e'.repeat(16) } }],
  ['an interface with a slash', 4, { env: { CNI_IFNAME: 'a/b' } }],
  ['an interface with a colon', 4, { env: { CNI_IFNAME: 'a:b' } }],
  ['an interface with a space', 4, { env: { CNI_IFNAME: 'a b' } }],
  ['an interface called ..', 4, { env: { CNI_IFNAME: '..' } }],
  ['CNI_ARGS without a value', 4, args('IgnoreUnknown')],
  ['CNI_ARGS without a key', 4, args('=1')],
  ['CNI_ARGS with a key twice', 4, args('IP=10.0.0.1;IP=10.0.0.2')],
  ['CNI_ARGS with an unknown key', 4, args('WHAT=1')],
  ['CNI_ARGS with an unknown key, expressly', 4, args('IgnoreUnknown=0;WHAT=1')],
  ['CNI_ARGS with an odd flag', 4, args('IgnoreUnknown=maybe')],
  ['CNI_ARGS with an inherited flag', 4, args('IgnoreUnknown=constructor')],
  ['CNI_ARGS with an odd address', 4, args('IP=10.0.0.300')],
  ['CNI_ARGS with an odd pod', 4, args('IgnoreUnknown=1;K8S_POD_NAME=../x')],
  ['CNI_ARGS with a control character', 4, args('IgnoreUnknown=1;K8S_POD_NAME=a\u0007b')],
  ['CNI_ARGS of 20,000 letters', 4, args(`IgnoreUnknown=1;X=${'x'.repeat(20_000)}`)],
  ['nothing on standard input', 6, { text: '' }],
  ['half of an object', 6, { text: '{"cniVersion":"1.1.0"' }],
  ['a list', 6, { text: '[]' }],
  ['null', 6, { text: 'null' }],
  ['no version', 1, { conf: { cniVersion: undefined } }],
  ['a version that is none', 1, { conf: { cniVersion: 'x' } }],
  ['a version that is a number', 1, { conf: { cniVersion: 1 } }],
  ['an old version', 1, { conf: { cniVersion: '0.2.0' } }],
  ['a future version', 1, { conf: { cniVersion: '2.0.0' } }],
  ['CHECK before it was invented', 1, { env: { CNI_COMMAND: 'CHECK' }, conf: { cniVersion: '0.3.1', prevResult } }],
  ['STATUS before it was invented', 1, { env: { CNI_COMMAND: 'STATUS' }, conf: { cniVersion: '1.0.0' } }],
  ['GC before it was invented', 1, { ...gc({ 'cni.dev/valid-attachments': [] }), conf: { cniVersion: '1.0.0' } }],
  ['no name', 7, { conf: { name: undefined } }],
  ['an empty name', 7, { conf: { name: '' } }],
  ['a name with a slash', 7, { conf: { name: 'a/b' } }],
  ['no name for DEL', 7, { env: { CNI_COMMAND: 'DEL' }, conf: { name: undefined } }],
  ['no type', 7, { conf: { type: undefined } }],
  ['an unknown key', 2, { conf: { netwrok: 'shop' } }],
  ['a whole list instead of one plugin', 2, { conf: { plugins: [] } }],
  ['an IPAM section that is text', 7, { conf: { ipam: 'x' } }],
  ['a network with a space', 7, { conf: { network: 'a b' } }],
  ['a rate that is half a bit', 7, runtime({ bandwidth: { EgressRate: 1000.5 } })],
  ['a negative bandwidth', 7, runtime({ bandwidth: { ingressRate: -1 } })],
  ['ranges without a subnet', 7, runtime({ ipRanges: [[{ rangeStart: '10.0.0.1' }]] })],
  ['a range outside of its subnet', 7, runtime({ ipRanges: [[{ subnet: '10.0.0.0/24', rangeEnd: '10.0.1.1' }]] })],
  [
    'a range that ends before it begins',
    7,
    runtime({ ipRanges: [[{ subnet: '10.0.0.0/24', rangeStart: '10.0.0.9', rangeEnd: '10.0.0.2' }]] }),
  ],
  ['three sets of ranges', 7, runtime({ ipRanges: [[], [], []] })],
  ['an InfiniBand GUID', 2, runtime({ infinibandGUID: 'c2:11:22:33:44:55:66:77' })],
  ['a device', 2, runtime({ deviceID: '0000:04:00.5' })],
  ['an odd address', 7, runtime({ ips: ['10.0.0.256'] })],
  ['three addresses', 7, runtime({ ips: ['10.0.0.1', '10.0.0.2', 'fd00::1'] })],
  ['an odd MAC', 7, runtime({ mac: 'x' })],
  ['an odd alias', 7, runtime({ aliases: ['a b'] })],
  ['mappings that are no list', 7, runtime({ portMappings: {} })],
  ['a container port of 0', 7, mapping({ containerPort: 0 })],
  ['a container port of 65536', 7, mapping({ containerPort: 65_536 })],
  ['a host port that is text', 7, mapping({ hostPort: '80' })],
  ['a negative host port', 7, mapping({ hostPort: -1 })],
  ['an unknown protocol', 7, mapping({ protocol: 'icmp' })],
  ['an odd host address', 7, mapping({ hostIP: 'localhost' })],
  ['too many mappings', 7, runtime({ portMappings: Array.from({ length: 2000 }, () => ({ containerPort: 1 })) })],
  ['CHECK without a result', 7, { env: { CNI_COMMAND: 'CHECK' } }],
  ['a result whose addresses are text', 7, { conf: { prevResult: { ips: 'x' } } }],
  ['a result with an odd address', 7, { conf: { prevResult: { ips: [{ address: '10.0.0.1' }] } } }],
  ['a result that names no interface', 7, { conf: { prevResult: { ips: [{ address: '10.0.0.1/32', interface: 3 }] } } }],
  ['GC without a list', 7, gc({})],
  ['GC with an odd list', 7, gc({ 'cni.dev/valid-attachments': 'x' })],
  ['GC with half an entry', 7, gc({ 'cni.dev/valid-attachments': [{ containerID: 'a' }] })],
];
for (const [what, code, change] of bad) {
  test(`${what} is number ${code}`, () => {
    assert.throws(
      () => read(change),
      (error: unknown) => isFault(error) && errorAnswer(error, '1.1.0').code === code,
    );
  });
}

function readOrRefuse(change: Change): void {
  try {
    read(change);
  } catch (error) {
    if (!isFault(error)) throw error;
  }
}

test('whatever comes in, only Faults come out', () => {
  const json = fc.json({ maxDepth: 4 });
  const env = fc.dictionary(
    fc.constantFrom(...Object.keys(environment)),
    fc.oneof(fc.string(), fc.constantFrom('ADD', 'DEL', 'CHECK', 'GC')),
  );
  const config = fc.dictionary(
    fc.constantFrom('name', 'type', 'runtimeConfig', 'prevResult', 'args', 'dns', 'ipam', 'capabilities', 'cni.dev/valid-attachments'),
    fc.jsonValue(),
  );
  fc.assert(fc.property(env, json, (variables, text) => readOrRefuse({ env: variables, text })));
  fc.assert(fc.property(env, config, (variables, conf) => readOrRefuse({ env: variables, conf })));
});

test('the version of the answer is the one of the question, where it is spoken', () => {
  assert.deepEqual(
    ['{"cniVersion":"0.4.0"}', '{"cniVersion":"0.1.0"}', '{', '[]'].map((text) => versionOf(text)),
    ['0.4.0', '1.1.0', '1.1.0', '1.1.0'],
  );
  const supportedVersions = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'];
  assert.deepEqual(versionAnswer('{"cniVersion":"1.0.0"}'), { cniVersion: '1.0.0', supportedVersions });
});
