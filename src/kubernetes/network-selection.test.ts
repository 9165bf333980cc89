// Every form of the annotation, and what nobody should get through with it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { defaultAnnotation, networksAnnotation, readDefault, readSelections } from './network-selection.ts';

const plain = { ips: [], gateways: [], args: {}, capabilities: {} };

for (const [text, expected] of [
  ['', []],
  [' ', []],
  ['lan', [['shop', 'lan', 'net1']]],
  [
    'a,b, other/c@eth1 ,d@net9',
    [
      ['shop', 'a', 'net1'],
      ['shop', 'b', 'net2'],
      ['other', 'c', 'eth1'],
      ['shop', 'd', 'net9'],
    ],
  ],
  [
    'lan,lan',
    [
      ['shop', 'lan', 'net1'],
      ['shop', 'lan', 'net2'],
    ],
  ],
  ['a.b-c', [['shop', 'a.b-c', 'net1']]],
  ['[]', []],
  ['[{"name":"lan"}]', [['shop', 'lan', 'net1']]],
  [
    '[{"name":"lan","namespace":"other"},{"name":"wan","interface":"up0"}]',
    [
      ['other', 'lan', 'net1'],
      ['shop', 'wan', 'up0'],
    ],
  ],
] as const) {
  test(`reads ${JSON.stringify(text)}`, () =>
    assert.deepEqual(
      readSelections(text, 'shop'),
      expected.map(([namespace, name, ifname]) => ({ namespace, name, ifname, ...plain })),
    ));
}

test('reads all that an element of the JSON form may say', () => {
  const element = {
    name: 'lan',
    ips: ['10.1.2.3/24', 'FD00::1'],
    mac: '02-00-00-00-00-AA',
    'default-route': ['10.1.2.1', 'fd00::ffff'],
    'cni-args': { vlan: 7 },
    bandwidth: { ingressRate: 1000, ingressBurst: 2000 },
    portMappings: [{ hostPort: 80, containerPort: 8080, protocol: 'UDP' }],
  };
  assert.deepEqual(readSelections(JSON.stringify([element]), 'shop'), [
    {
      namespace: 'shop',
      name: 'lan',
      ifname: 'net1',
      ips: ['10.1.2.3/24', 'fd00::1'],
      mac: '02:00:00:00:00:aa',
      gateways: ['10.1.2.1', 'fd00::ffff'],
      args: { vlan: 7 },
      capabilities: {
        bandwidth: { ingressRate: 1000, ingressBurst: 2000 },
        portMappings: [{ hostPort: 80, containerPort: 8080, protocol: 'udp' }],
      },
    },
  ]);
});

const json = (...elements: readonly unknown[]): string => JSON.stringify(elements);
for (const [text, place] of [
  ['a,,b', '[1]'],
  ['a,', '[1]'],
  ['a/b/c', '[0]'],
  ['a@b@c', '[0]'],
  ['a@b/c', '[0]'],
  ['/a', '[0]'],
  ['a/', '[0]'],
  ['a@', '[0]'],
  ['../../api/v1/secrets', '[0]'],
  ['..', '[0]'],
  ['A', '[0]'],
  ['a b', '[0]'],
  ['a%2fb', '[0]'],
  ['a@net/1', '[0]'],
  ['a@0123456789abcdef', '[0]'],
  ['a@eth0', '[0]'],
  ['a@..', '[0]'],
  ['a,b@net1', '[1]'],
  ['a@x,b@x', '[1]'],
  ['x'.repeat(300), '[0]'],
  [Array.from({ length: 33 }, () => 'a').join(','), ''],
  [`a${' '.repeat(300_000)}`, ''],
  ['{"name":"a"}', ''],
  ['"a"', ''],
  ['[', ''],
  ['[1]', ''],
  ['[["a"]]', ''],
  [json({}), '[0]'],
  [json({ name: 1 }), '[0]'],
  [json({ name: 'a' }, { name: 'b', namespace: '../x' }), '[1]'],
  [json({ name: 'a', mask: 24 }), '[0]'],
  [json({ name: 'a', ips: '10.0.0.1' }), '[0]'],
  [json({ name: 'a', ips: ['10.0.0.256'] }), '[0]'],
  [json({ name: 'a', ips: ['10.0.0.1;X=1'] }), '[0]'],
  [json({ name: 'a', mac: '02:00' }), '[0]'],
  [json({ name: 'a', mac: '02:00:00:00:00:01;IP=10.0.0.1' }), '[0]'],
  [json({ name: 'a', 'default-route': ['10.0.0.1/24'] }), '[0]'],
  [json({ name: 'a', 'default-route': ['10.0.0.1', '10.0.0.2'] }), '[0]'],
  [json({ name: 'a', 'default-route': ['10.0.0.1'] }, { name: 'b', 'default-route': ['10.1.0.1'] }), '[1]'],
  [json({ name: 'a', portMappings: [{ hostPort: 70000, containerPort: 1 }] }), '[0]'],
  [json({ name: 'a', bandwidth: { ingressRate: -1 } }), '[0]'],
  [json({ name: 'a', 'cni-args': [] }), '[0]'],
] as const) {
  test(`refuses ${text.slice(0, 80)}`, () =>
    assert.throws(
      () => readSelections(text, 'shop'),
      (error) =>
        isFault(error, 'invalid') && error.message.includes(networksAnnotation + place) && error.field === networksAnnotation + place,
    ));
}

for (const key of ['infiniband-guid', 'ipam-claim-reference'])
  test(`cannot serve ${key}`, () =>
    assert.throws(
      () => readSelections(json({ name: 'a', [key]: 'x' }), 'shop'),
      (error) => isFault(error, 'unsupported') && error.message.includes(key),
    ));

test("in the place of the cluster's network is one, of kube-system unless it says another namespace", () => {
  const found = ['', 'lan', 'shop/lan', '[{"name":"lan","namespace":"shop","ips":["10.1.0.7/24"],"mac":"02:00:00:00:00:07"}]'].map(
    (text) => {
      const { namespace, name, ifname, ips, mac } = readDefault(text) ?? {};
      return [namespace, name, ifname, ips, mac];
    },
  );
  assert.deepEqual(found, [
    [undefined, undefined, undefined, undefined, undefined],
    ['kube-system', 'lan', 'eth0', [], undefined],
    ['shop', 'lan', 'eth0', [], undefined],
    ['shop', 'lan', 'eth0', ['10.1.0.7/24'], '02:00:00:00:00:07'],
  ]);
});

for (const [text, code, pattern] of [
  ['lan,wan', 'invalid', /one network in the place/],
  ['shop/lan@net0', 'unsupported', /\[0\]: interface cannot be served/],
  ['[{"name":"lan","default-route":["10.1.0.1"]}]', 'unsupported', /default-route cannot/],
  ['[{"name":"lan","cni-args":{"a":1}}]', 'unsupported', /cni-args cannot/],
  ['[{"name":"lan","portMappings":[{"hostPort":80,"containerPort":80}]}]', 'unsupported', /portMappings cannot/],
  ['[{"name":"LAN"}]', 'invalid', /\[0\]: name: expected/],
] as const)
  test(`${text} is refused in the place of the cluster's network`, () =>
    assert.throws(
      () => readDefault(text),
      (error) => isFault(error, code) && error.message.startsWith(`Annotation ${defaultAnnotation}`) && pattern.test(error.message),
    ));
