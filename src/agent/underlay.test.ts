import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { parseCidr, parseIp } from '#model/ip.ts';
import { findUnderlay, type FoundRoute, hostRoutes, lacksPreferred, nameServers, steadyUnderlay } from './underlay.ts';

// Captured from a host with a default route by eth0 and a second network on eth1.
const routes = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101D50A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0001D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
cwu1\t0100 7F64\t00000000\t0001\t0\t0\t0\tFFFFFFFF\t0\t0\t0
`.replace('0100 7F64', '01007F64');
const interfaces = {
  lo: [{ cidr: '127.0.0.1/8', internal: true }],
  eth1: [{ cidr: '192.168.3.4/16', internal: false }],
  eth0: [
    { cidr: 'fe80::1/64', internal: false },
    { cidr: 'fd00::5/64', internal: false },
    { cidr: '10.213.1.5/24', internal: false },
  ],
  docker0: [{ cidr: '172.17.0.1/16', internal: false }],
};

describe('findUnderlay', () => {
  it('prefers the interface of the default route, IPv4 first', () => {
    const found = findUnderlay({ interfaces, routes, mtuOf: () => 1450 });
    assert.deepEqual(
      found.map(({ ip, subnet, mtu }) => [ip, subnet, mtu]),
      [
        ['10.213.1.5', '10.213.1.0/24', 1450],
        ['fd00::5', 'fd00::/64', 1450],
        ['192.168.3.4', '192.168.0.0/16', 1450],
      ],
    );
  });

  it('takes what the operator names', () => {
    assert.equal(findUnderlay({ interfaces, routes, mtuOf: () => 1450, wanted: 'eth1' })[0]?.ip, '192.168.3.4');
    assert.throws(() => findUnderlay({ interfaces, routes, mtuOf: () => 1450, wanted: 'eth7' }), { code: 'invalid', field: '--underlay' });
  });

  it('leaves out what Causeway has put there, also beside an address that is a host prefix itself', () => {
    const leased = { eth0: [...interfaces.eth0.slice(2), ...['fd00::5/128', 'fd00::9/128'].map((cidr) => ({ cidr, internal: false }))] };
    const found = (own: readonly string[]): string[] =>
      findUnderlay({ interfaces: leased, routes, mtuOf: () => 1450, own: new Set(own.map((ip) => parseIp(ip))) }).map(({ ip }) => ip);
    assert.deepEqual(found(['fd00::9']), ['10.213.1.5', 'fd00::5']);
    assert.deepEqual(found([]), ['10.213.1.5', 'fd00::5', 'fd00::9']);
  });
});

const entry = (link: string, ip: string) => ({ interface: link, ip: parseIp(ip), subnet: parseCidr('10.0.0.0/8'), mtu: 1450 });

describe('steadyUnderlay', () => {
  const [first, second, moved] = [entry('eth0', '10.1.0.1'), entry('eth1', '10.2.0.1'), entry('eth0', '10.1.0.9')];
  const sixth = { ...entry('eth0', 'fd00::1'), subnet: parseCidr('fd00::/64') };
  for (const [what, known, found, misses, expected] of [
    ['nothing was known', [], [first], 0, [first]],
    ['nothing is found for long', [first], [], 100, [first]],
    ['the preferred interface is gone for a moment', [first, second], [second], 2, [first, second]],
    ['the preferred family is gone for a moment', [first, sixth], [sixth], 1, [first, sixth]],
    ['the preferred interface stays away', [first, second], [second], 3, [second]],
    ['the preferred interface has another address', [first], [moved], 0, [moved]],
    ['another interface is preferred now', [first, second], [second, first], 0, [second, first]],
  ] as const) {
    it(what, () => {
      assert.deepEqual(steadyUnderlay(known, found, misses), expected);
      assert.equal(lacksPreferred(known, found), misses > 0);
    });
  }
});

const route = (destination: string, link?: string, protocol = 2): FoundRoute => ({ destination: parseCidr(destination), protocol, link });

it('hostRoutes leaves out what is ours, the same everywhere, or leads nowhere, and tells bridges of the engine from the rest', () => {
  const found = [
    route('0.0.0.0/0', 'eth0', 3),
    route('10.213.1.0/24', 'eth0'),
    route('192.168.0.0/16', 'eth1'),
    route('192.168.0.0/16', 'br-ex'),
    route('172.17.0.0/16', 'docker0'),
    route('172.18.0.0/16', 'br-0123456789ab'),
    route('100.127.0.1/32', 'cwu1', 197),
    route('10.90.2.0/24', 'eth0', 197),
    route('10.99.0.0/16'),
    route('::/0', 'eth0'),
    route('fe80::/64', 'eth0'),
    route('fd00::/64', 'eth0'),
  ];
  assert.deepEqual(hostRoutes(found), {
    routes: ['10.213.1.0/24', '192.168.0.0/16', 'fd00::/64'],
    bridges: ['172.17.0.0/16', '172.18.0.0/16'],
  });
});

const learned = (destination: string, via: string): FoundRoute => ({ ...route(destination, 'eth0', 12), via: parseIp(via) });

it('hostRoutes leaves out what was learned from other hosts, but not what a router told', () => {
  const found = [learned('10.94.0.64/26', '10.213.0.12'), learned('192.0.2.0/24', '10.213.0.1')];
  assert.deepEqual(hostRoutes(found, new Set([parseIp('10.213.0.12')])).routes, ['192.0.2.0/24']);
});

it('nameServers reads resolv.conf and ignores what it does not understand', () => {
  assert.deepEqual(nameServers('# c\nnameserver 10.0.0.2\nnameserver nonsense\nsearch x\nnameserver fe80::1%eth0\n'), [
    '10.0.0.2',
    'fe80::1',
  ]);
});
