import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { parseSelector } from '#model/selector.ts';
import { readConfiguration, readFilter, readPeer, type Secrets } from './calico-bgp.ts';

const texts: Readonly<Record<string, string>> = { 'bgp/password': 'hello', 'bgp/odd': 'a"b', 'bgp/long': 'x'.repeat(81) };
const secrets: Secrets = ({ name, key }) => texts[`${name}/${key}`];
const secret = (key: string): object => ({ secretKeyRef: { name: 'bgp', key } });

test('settings of BGP, with communities by name', () => {
  const read = readConfiguration(
    'default',
    {
      logSeverityScreen: 'Info',
      asNumber: '64512.1',
      nodeToNodeMeshEnabled: true,
      nodeMeshPassword: secret('password'),
      nodeMeshMaxRestartTime: '2m30s',
      serviceClusterIPs: [{ cidr: '10.96.0.0/12' }],
      serviceLoadBalancerIPs: [{ cidr: '203.0.113.0/24' }],
      communities: [{ name: 'near', value: '65001:300' }],
      prefixAdvertisements: [{ cidr: '172.218.4.0/26', communities: ['near', '65001:1:1'] }],
    },
    secrets,
  );
  assert.deepEqual(read, {
    asn: 64_512 * 65_536 + 1,
    port: 179,
    mesh: { enabled: true, password: 'hello', restartSeconds: 150 },
    communities: [{ cidr: '172.218.4.0/26', values: ['65001:300', '65001:1:1'] }],
    services: ['10.96.0.0/12', '203.0.113.0/24'],
  });
});

test('peers, outside and by labels', () => {
  assert.deepEqual(
    readPeer(
      'tor',
      {
        node: 'rack1-host1',
        peerIP: '[fd00::1]:1179',
        asNumber: 64_567,
        sourceAddress: 'None',
        maxRestartTime: '90s',
        filters: ['one'],
        ttlSecurity: 1,
        reachableBy: 'fd00::ff',
        localASNumber: '65000',
        numAllowedLocalASNumbers: 1,
        password: secret('password'),
        nextHopMode: 'Self',
      },
      secrets,
    ),
    {
      name: 'tor',
      of: { host: 'rack1-host1' },
      with: { ip: 'fd00::1', port: 1179, asn: 64_567 },
      fromHostAddress: false,
      nextHop: 'self',
      filters: ['one'],
      password: 'hello',
      restartSeconds: 90,
      hops: 1,
      reachableBy: 'fd00::ff',
      localAsn: 65_000,
      ownAsnAllowed: 1,
    },
  );
  const among = readPeer('rr', { nodeSelector: '!has(rr)', peerSelector: 'has(rr)', keepOriginalNextHop: true }, secrets);
  assert.deepEqual([among.with, among.nextHop], [{ selector: parseSelector('has(rr)') }, 'keep']);
  const ips = ['10.0.0.1', '10.0.0.1:1179', 'fd00::1'].map((peerIP) => readPeer('a', { peerIP, asNumber: 1 }, secrets).with);
  assert.deepEqual(ips, [
    { ip: '10.0.0.1', port: 179, asn: 1 },
    { ip: '10.0.0.1', port: 1179, asn: 1 },
    { ip: 'fd00::1', port: 179, asn: 1 },
  ]);
});

test('filters', () => {
  const { rules } = readFilter('some', {
    importV4: [{ action: 'Accept', matchOperator: 'In', cidr: '10.0.0.0/8', prefixLength: { max: 24 }, peerType: 'eBGP' }],
    exportV6: [
      {
        action: 'Accept',
        source: 'RemotePeers',
        interface: 'eth*',
        communities: { values: ['65000:1'] },
        asPathPrefix: [65_001],
        priority: 100,
        operations: [{ addCommunity: { value: '65000:2' } }, { prependASPath: { prefix: [1, 2] } }, { setPriority: { value: 7 } }],
      },
    ],
  });
  assert.deepEqual(rules, {
    import4: [{ accept: true, match: { cidr: '10.0.0.0/8', operator: 'In', lengths: { min: 8, max: 24 }, peer: 'eBGP' }, changes: [] }],
    export4: [],
    import6: [],
    export6: [
      {
        accept: true,
        match: { learned: true, interface: 'eth*', community: '65000:1', pathBegins: [65_001], priority: 100 },
        changes: [
          { type: 'community', value: '65000:2' },
          { type: 'prepend', path: [1, 2] },
          { type: 'priority', value: 7 },
        ],
      },
    ],
  });
});

const peer =
  (spec: object): (() => unknown) =>
  () =>
    readPeer('p', spec, secrets);
const filter =
  (rule: object): (() => unknown) =>
  () =>
    readFilter('f', { importV4: [rule] });
const bad: readonly (readonly [what: string, read: () => unknown, field: RegExp])[] = [
  ['an AS number that is none', () => readConfiguration('default', { asNumber: 0 }, secrets), /^spec\.asNumber$/],
  ['an AS number that is too large', () => readConfiguration('default', { asNumber: '4294967296' }, secrets), /^spec\.asNumber$/],
  [
    'a community that nobody defines',
    () => readConfiguration('default', { prefixAdvertisements: [{ cidr: '10.0.0.0/8', communities: ['x'] }] }, secrets),
    /^spec\.prefixAdvertisements$/,
  ],
  [
    'a range that is none',
    () => readConfiguration('default', { serviceClusterIPs: [{ cidr: 'x' }] }, secrets),
    /^spec\.serviceClusterIPs\.0\.cidr$/,
  ],
  ['a secret that is not there', peer({ peerIP: '10.0.0.1', asNumber: 1, password: secret('no') }), /^spec\.password$/],
  ['a password with a quotation mark', peer({ peerIP: '10.0.0.1', asNumber: 1, password: secret('odd') }), /^spec\.password$/],
  ['a password that TCP does not take', peer({ peerIP: '10.0.0.1', asNumber: 1, password: secret('long') }), /^spec\.password$/],
  ['neither address nor labels of a peer', peer({}), /^spec\.peerIP$/],
  ['both of them', peer({ peerIP: '10.0.0.1', asNumber: 1, peerSelector: 'all()' }), /^spec\.peerIP$/],
  ['an address without AS number', peer({ peerIP: '10.0.0.1' }), /^spec\.asNumber$/],
  ['a node and labels of nodes', peer({ node: 'a', nodeSelector: 'all()', peerSelector: 'all()' }), /^spec\.nodeSelector$/],
  ['an address that is none', peer({ peerIP: '10.0.0.256', asNumber: 1 }), /peerIP/],
  ['a port that is none', peer({ peerIP: '10.0.0.1:70000', asNumber: 1 }), /^spec\.peerIP$/],
  ['a time that is too long', peer({ peerIP: '10.0.0.1', asNumber: 1, maxRestartTime: '2h' }), /^spec\.maxRestartTime$/],
  ['a rule without action', filter({}), /^spec\.importV4\.0\.action$/],
  ['a range without operator', filter({ action: 'Accept', cidr: '10.0.0.0/8' }), /importV4\.0$/],
  ['a range of the other family', filter({ action: 'Accept', cidr: 'fd00::/8', matchOperator: 'In' }), /importV4\.0$/],
  ['lengths without a range', filter({ action: 'Accept', prefixLength: { min: 8 } }), /importV4\.0$/],
  [
    'lengths that no route has',
    filter({ action: 'Accept', cidr: '10.0.0.0/16', matchOperator: 'In', prefixLength: { max: 8 } }),
    /importV4\.0$/,
  ],
  ['changes of what is refused', filter({ action: 'Reject', operations: [{ setPriority: { value: 1 } }] }), /importV4\.0$/],
  ['a link’s name that breaks out of its text', filter({ action: 'Accept', interface: 'x" ; accept' }), /^spec\.importV4\.0\.interface$/],
];
for (const [what, read, field] of bad) {
  test(`${what} is refused, with the field named`, () => {
    assert.throws(read, (error) => isFault(error) && ['invalid', 'not-found'].includes(error.code) && field.test(error.field ?? ''));
  });
}
