import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bgpLabels, type BgpSettings, defaultBgp, type Peering } from '#model/bgp.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Host } from '#model/resources.ts';
import { parseSelector } from '#model/selector.ts';
import { renderBird } from './bird.ts';
import { makeBlock, makeEndpoint, makeDualHost, makeHost, makeNetwork, makePool } from './cluster.fixture.ts';
import { speakerOf, symbolOf, type Spoken } from './speaker.ts';

const network = makeNetwork('aaaaaaaaaa', { model: 'calico' });
const pool4 = makePool(network.id, parseCidr('10.44.0.0/16'), 26);
const pool6 = makePool(network.id, parseCidr('fd44::/64'), 122);
const hostWith = (index: number, labels: Readonly<Record<string, string>> = {}): Host => makeDualHost(index, { labels });
const spoken: Spoken = {
  isNear: false,
  pools: [pool4, pool6],
  blocks: [makeBlock(pool4, 0, 'host-1'), makeBlock(pool6, 0, 'host-1')],
  local: [
    { endpoint: makeEndpoint(network.id, 'host-1', 1, [parseIp('10.44.0.5'), parseIp('fd44::5')]), slot: 1 },
    { endpoint: makeEndpoint(network.id, 'host-1', 2, [parseIp('10.44.9.9')]), slot: 2 },
  ],
};
const peering = (name: string, changes: Partial<Peering>): Peering => ({
  name,
  of: {},
  with: { ip: parseIp('10.213.9.9'), port: 179, asn: 65_001 },
  fromHostAddress: true,
  nextHop: 'auto',
  filters: [],
  ...changes,
});

interface Case {
  readonly bgp?: Partial<BgpSettings>;
  readonly hosts?: readonly Host[];
  readonly spoken?: readonly Spoken[];
}

const usual = [hostWith(1), hostWith(2), hostWith(3)];

function render({ bgp = {}, hosts = usual, spoken: list = [spoken] }: Case): { readonly text: string; readonly secrets: string } {
  const speaker = speakerOf(hosts[0] ?? assert.fail(), hosts, list, { ...defaultBgp, ...bgp });
  return renderBird(speaker ?? assert.fail('no speaker'));
}

const golden = (text: string): string => text;
const elsewhere = makeHost(4, {
  underlay: [{ interface: 'ens3', ip: parseIp('10.214.0.4'), subnet: parseCidr('10.214.0.0/16'), mtu: 1400 }],
});

const cases: Readonly<Record<string, Case>> = {
  mesh: { bgp: { mesh: { enabled: true, password: 'of the mesh', restartSeconds: 300 } } },
  'fabric-peer': {
    bgp: {
      mesh: { enabled: false },
      services: [parseCidr('10.96.0.0/16'), parseCidr('fd96::/112')],
      communities: [{ cidr: parseCidr('10.44.0.0/16'), values: ['65001:300', '65001:300:1'] }],
      peerings: [
        peering('tor.a', {
          password: 'hello',
          filters: ['narrow', 'no such filter'],
          nextHop: 'keep',
          hops: 2,
          reachableBy: parseIp('10.213.0.254'),
          ownAsnAllowed: 1,
          localAsn: 64_999,
        }),
        peering('tor-6', { with: { ip: parseIp('fd00:213::99'), port: 1179, asn: 64_512 }, nextHop: 'self', fromHostAddress: false }),
        peering('other-rack', {
          of: { selector: parseSelector("rack == 'b'") },
          with: { ip: parseIp('10.213.9.8'), port: 179, asn: 65_001 },
        }),
      ],
      filters: [
        {
          name: 'narrow',
          rules: {
            import4: [
              { accept: false, match: { cidr: parseCidr('0.0.0.0/0'), operator: 'Equal' }, changes: [] },
              {
                accept: true,
                match: {
                  cidr: parseCidr('10.0.0.0/8'),
                  operator: 'In',
                  lengths: { min: 16, max: 24 },
                  pathBegins: [65_001, 65_002],
                  peer: 'eBGP',
                },
                changes: [
                  { type: 'community', value: '65000:1' },
                  { type: 'priority', value: 512 },
                ],
              },
              { accept: false, match: { peer: 'iBGP' }, changes: [] },
            ],
            export4: [
              { accept: true, match: { interface: 'eth*', learned: true }, changes: [{ type: 'prepend', path: [65_010, 65_011] }] },
              {
                accept: false,
                match: { cidr: parseCidr('10.44.9.0/24'), operator: 'NotIn', community: '65000:1:1', priority: 100 },
                changes: [],
              },
              { accept: false, match: { cidr: parseCidr('10.44.9.9/32'), operator: 'NotEqual' }, changes: [] },
            ],
            import6: [],
            export6: [],
          },
        },
      ],
    },
  },
  reflector: {
    hosts: [hostWith(1, { [bgpLabels.cluster]: '244.0.0.1' }), hostWith(2), hostWith(3, { [bgpLabels.asn]: '65010' })],
    bgp: {
      mesh: { enabled: false },
      peerings: [peering('reflectors', { with: { selector: parseSelector(`has(${bgpLabels.cluster})`) } })],
    },
  },
  'cross-subnet': {
    hosts: [...usual, elsewhere],
    spoken: [{ ...spoken, isNear: true }],
    bgp: { silent: [parseCidr('fd44::/64')] },
  },
};

for (const [name, given] of Object.entries(cases)) {
  test(`BIRD is configured for ${name} as shown`, (t) => {
    const { text, secrets } = render(given);
    t.assert.fileSnapshot(`${text}\n# secrets.conf\n${secrets}`, `${import.meta.dirname}/testdata/bird-${name}.conf`, {
      serializers: [golden],
    });
  });
}

test('routes by a host to which smaller packets pass say so to the kernel', () => {
  const slow = hostWith(2);
  const { text } = render({
    hosts: [hostWith(1), { ...slow, underlay: slow.underlay.map((one) => ({ ...one, mtu: 1350 })) }, hostWith(3)],
  });
  assert.deepEqual(text.match(/if bgp_next_hop = \S+ then krt_mtu = \d+;/g), [
    'if bgp_next_hop = 10.213.0.2 then krt_mtu = 1350;',
    'if bgp_next_hop = fd00:213::2 then krt_mtu = 1350;',
  ]);
});

test('a speaker is the same in whatever order facts come', () => {
  const one = render({ hosts: usual });
  const turned: Spoken = {
    ...spoken,
    pools: spoken.pools.toReversed(),
    blocks: spoken.blocks.toReversed(),
    local: spoken.local.toReversed(),
  };
  assert.deepEqual(render({ hosts: [hostWith(1), hostWith(3), hostWith(2)], spoken: [turned] }), one);
});

test('a peering is of the hosts that it names, and of both sides where hosts are chosen by labels', () => {
  const hosts = [hostWith(1, { rack: 'a' }), hostWith(2, { rack: 'b' })];
  const names = (bgp: Partial<BgpSettings>): readonly (readonly string[])[] =>
    hosts.map(
      (self) =>
        speakerOf(self, hosts, [spoken], { ...defaultBgp, mesh: { enabled: false }, ...bgp })?.sessions.map((one) => one.peer) ?? [],
    );
  assert.deepEqual(names({ peerings: [peering('one', { of: { host: 'host-2' } })] }), [[], ['10.213.9.9']]);
  assert.deepEqual(names({ peerings: [peering('one', { of: { selector: parseSelector("rack == 'a'") } })] }), [['10.213.9.9'], []]);
  const pair = peering('pair', { of: { selector: parseSelector("rack == 'a'") }, with: { selector: parseSelector("rack == 'b'") } });
  assert.deepEqual(names({ peerings: [pair] }), [
    ['10.213.0.2', 'fd00:213::2'],
    ['10.213.0.1', 'fd00:213::1'],
  ]);
  // The mesh has no second session with a peer that is asked for, and nobody speaks with himself.
  const self = peering('self', { with: { ip: parseIp('10.213.0.1'), port: 179, asn: 64_512 } });
  assert.deepEqual(names({ mesh: { enabled: true }, peerings: [pair, self] }), [
    ['10.213.0.2', 'fd00:213::2'],
    ['10.213.0.1', 'fd00:213::1'],
  ]);
});

test('a host without IPv4, or with a label that keeps services away, still speaks', () => {
  const six = makeHost(258, {
    labels: { [bgpLabels.noServices]: '' },
    underlay: [{ interface: 'eth0', ip: parseIp('fd00:213::1'), subnet: parseCidr('fd00:213::/64'), mtu: 1450 }],
  });
  const speaker = speakerOf(six, [six, hostWith(2)], [spoken], { ...defaultBgp, services: [parseCidr('10.96.0.0/16')] });
  assert.equal(speaker?.routerId, '0.0.1.2');
  assert.deepEqual(speaker.services, []);
  assert.deepEqual(
    speaker.sessions.map(({ peer }) => peer),
    ['fd00:213::2'],
  );
  assert.equal(speakerOf(six, [six], [], defaultBgp), undefined);
});

test('symbols are what BIRD takes, and unlike for unlike names', () => {
  const names = ['tor', 'tor-a', 'tor.a', 'tor_a', 'x'.repeat(253), `${'x'.repeat(252)}y`];
  const symbols = names.map((name) => symbolOf('peer', name));
  assert.equal(new Set(symbols).size, names.length);
  for (const symbol of symbols) assert.match(symbol, /^[a-z]\w{1,59}$/);
});
