// Calico's host endpoints and failsafe ports: what is read, what is refused by the name of its field, and which link is meant.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Ip, parseCidr, parseIp } from '#model/ip.ts';
import { readFailsafes, readHostEndpoint } from './calico-host-endpoint.ts';
import { HostEndpoints } from './host-endpoints.ts';

const item = (spec: unknown, name = 'one') => ({ metadata: { name, labels: { role: 'edge' } }, spec });
const [own, other] = [parseIp('192.0.2.1'), parseIp('2001:db8::1')];

test("a host endpoint as Calico's users write it", () => {
  const said = {
    node: 'host1',
    interfaceName: 'eth0',
    expectedIPs: [own, other],
    profiles: ['projectcalico-default-allow', 'more'],
    ports: [{ name: 'web', port: 80, protocol: 'TCP' }],
  };
  assert.deepEqual(readHostEndpoint(item(said)), {
    endpoint: {
      name: 'one',
      generation: 0,
      labels: { role: 'edge' },
      node: 'host1',
      link: 'eth0',
      ips: [own, other],
      ports: [{ name: 'web', port: 80, protocol: 6 }],
      otherwise: 'allow',
    },
    problems: [{ field: 'spec.profiles.1', reason: 'Unsupported', message: 'more is not known here and allows nothing' }],
  });
});

for (const [field, spec] of [
  ['spec.node', { interfaceName: 'eth0' }],
  ['spec.node', { node: '', interfaceName: 'eth0' }],
  ['spec.interfaceName', { node: 'host1', interfaceName: 'eth0; drop' }],
  ['spec.interfaceName', { node: 'host1', interfaceName: 'a-name-of-16-byte' }],
  ['spec.expectedIPs.0', { node: 'host1', expectedIPs: ['192.0.2.300'] }],
  ['spec', { node: 'host1' }],
  ['spec.ports.0.port', { node: 'host1', interfaceName: '*', ports: [{ name: 'web', port: 0, protocol: 'TCP' }] }],
  ['spec.ports.0.protocol', { node: 'host1', interfaceName: '*', ports: [{ name: 'web', port: 1, protocol: 'X' }] }],
] as const) {
  test(`refuses by ${field}: ${JSON.stringify(spec)}`, () => {
    const { endpoint, problems } = readHostEndpoint(item(spec));
    assert.equal(endpoint, undefined);
    assert.equal(problems[0]?.field, field);
  });
}

const told: string[] = [];
/** As a node `host1` with eth0 and eth1 has it. */
function hosts(...specs: readonly object[]): HostEndpoints {
  const links = new Map<Ip, string>([
    [own, 'eth0'],
    [other, 'eth1'],
    [parseIp('10.44.1.1'), 'cni0'],
    [parseIp('10.44.1.0'), 'cwx1'],
  ]);
  const result = new HostEndpoints({ node: 'host1', apiPort: 7443, pods: [parseCidr('10.44.0.0/16')], links: () => links }, (...words) =>
    told.push(words.join(': ')),
  );
  for (const [index, spec] of specs.entries()) {
    const { endpoint } = readHostEndpoint(item({ node: 'host1', ...spec }, `endpoint-${index}`));
    if (endpoint !== undefined) result.put(endpoint);
  }
  return result;
}
const linksOf = (all: HostEndpoints) => all.current()?.links.map(({ name, link, otherwise }) => [name, link, otherwise]);

test('a link is meant by name or by address, all others by *, and those of other nodes by nobody here', () => {
  assert.equal(hosts({ node: 'host2', interfaceName: 'eth0' }).current(), undefined);
  assert.deepEqual(
    linksOf(
      hosts(
        { interfaceName: '*', profiles: ['projectcalico-default-allow'] },
        { expectedIPs: ['192.0.2.77', other] },
        { interfaceName: 'eth0' },
        { interfaceName: 'eth0' },
        { expectedIPs: ['192.0.2.78'] },
      ),
    ),
    [
      ['HostEndpoint endpoint-0', undefined, 'allow'],
      ['HostEndpoint endpoint-1', 'eth1', 'deny'],
      ['HostEndpoint endpoint-2', 'eth0', 'deny'],
    ],
  );
  assert.deepEqual(told, [
    'endpoint-3: HostEndpoint endpoint-2 is for eth0, too, and comes before it',
    'endpoint-4: no link has its address',
  ]);
  const moving = hosts({ interfaceName: 'eth0' });
  const { endpoint } = readHostEndpoint(item({ node: 'host2', interfaceName: 'eth0' }, 'endpoint-0'));
  assert.ok(endpoint);
  moving.put(endpoint);
  assert.equal(moving.current(), undefined);
});

test("the bridge on which another system's pods live is not among all others", () => {
  assert.deepEqual(hosts({ interfaceName: '*' }).current()?.spared, ['cni0']);
});

const failsafes = (all: HostEndpoints): string[] =>
  (all.current()?.failsafes ?? [])
    .filter(({ port }) => port !== 7443)
    .map(({ direction, protocol, port, cidr }) => `${direction} ${protocol} ${port} ${cidr}`);
const short = (all: HostEndpoints, family: '0.0.0.0/0' | '::/0' = '0.0.0.0/0') => failsafes(all).filter((text) => text.endsWith(family));

test("failsafe ports are Calico's, unless FelixConfiguration says others for all nodes or for this one", () => {
  const all = hosts({ interfaceName: '*' });
  assert.deepEqual(
    short(all).map((text) => text.replace(' 0.0.0.0/0', '')),
    [
      ...['22', '179', '2379', '2380', '5473', '6443', '6666', '6667'].map((port) => `in 6 ${port}`),
      'in 17 68',
      ...['179', '2379', '2380', '5473', '6443', '6666', '6667'].map((port) => `out 6 ${port}`),
      'out 17 53',
      'out 17 67',
    ],
  );
  assert.equal(short(all, '::/0').length, short(all).length);
  const put = (name: string, spec: object): void => all.putFailsafes(name, readFailsafes({ metadata: { name }, spec }).failsafes);
  put('default', { failsafeInboundHostPorts: [{ port: 2222, net: '192.0.2.0/24' }], failsafeOutboundHostPorts: [] });
  assert.deepEqual(failsafes(all), ['in 6 2222 192.0.2.0/24']);
  put('node.host1', { failsafeInboundHostPorts: [{ protocol: 'udp', port: 68, net: '192.0.2.9' }] });
  put('node.host2', { failsafeInboundHostPorts: [] });
  assert.deepEqual(failsafes(all), ['in 17 68 192.0.2.9/32']);
  all.deleteFailsafes('default');
  all.deleteFailsafes('node.host1');
  assert.equal(short(all).length, 18);
});

test('the API of the cluster is always reached, whatever FelixConfiguration says', () => {
  const all = hosts({ interfaceName: '*' });
  all.putFailsafes('default', readFailsafes({ spec: { failsafeInboundHostPorts: [], failsafeOutboundHostPorts: [] } }).failsafes);
  const api = { direction: 'out', protocol: 6, port: 7443 } as const;
  assert.deepEqual(all.current()?.failsafes, [
    { ...api, cidr: '0.0.0.0/0' },
    { ...api, cidr: '::/0' },
  ]);
});

test('failsafe ports that cannot be read leave those that are', () => {
  for (const [field, spec] of [
    ['spec.failsafeInboundHostPorts.0.port', { failsafeInboundHostPorts: [{ port: 70_000 }] }],
    ['spec.failsafeOutboundHostPorts.0.net', { failsafeOutboundHostPorts: [{ port: 1, net: '192.0.2.0/40' }] }],
    ['spec.failsafeOutboundHostPorts.0.protocol', { failsafeOutboundHostPorts: [{ protocol: 'ICMP', port: 1 }] }],
  ] as const) {
    const { failsafes: read, problems } = readFailsafes({ spec });
    assert.deepEqual(read, {});
    assert.equal(problems[0]?.field, field);
  }
});
