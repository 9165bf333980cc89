import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import { type Ip, parseCidr, parseIp } from '#model/ip.ts';
import type { Endpoint } from '#model/resources.ts';
import { type Question, rcode, recordType } from './dns-wire.ts';
import { addressOf, answer, ZoneIndex, type ZoneSource } from './dns-zone.ts';

const meta = { revision: 1, createdAt: '', labels: {}, network: 'n', host: 'h', owner: '', ports: [], sequence: 1 };

function endpoint(id: string, name: string, addresses: string[], names: string[] = []): Endpoint {
  return { ...meta, id, name, names, addresses: addresses.map((ip) => parseIp(ip)), mac: '02:00:00:00:00:01' as Endpoint['mac'] };
}

const sourceOf = (endpoints: Endpoint[], rest: Partial<ZoneSource> = {}): ZoneSource => ({
  name: 'mynet',
  isInternal: false,
  pools: [parseCidr('10.0.0.0/24'), parseCidr('fd00::/64')],
  endpoints: new Map(endpoints.map((each) => [each.id, each])),
  ...rest,
});

function ask(name: string, type: number = recordType.A): Question {
  const rest = { id: 1, isInternet: true, wantsRecursion: true, bytes: Buffer.alloc(0), edns: undefined };
  return { ...rest, name, labels: name === '' ? 0 : name.split('.').length, type };
}

/** Code and data of the answer in hexadecimal, or 'forward'. */
function say(source: ZoneSource, name: string, type?: number, turn = 0): [number, ...string[]] | 'forward' {
  const verdict = answer(ask(name, type), new ZoneIndex(source), turn);
  return verdict.kind === 'forward' ? 'forward' : [verdict.code, ...verdict.records.map(({ data }) => data.toString('hex'))];
}

const source = sourceOf([
  endpoint('e1', 'Web1', ['10.0.0.2', 'fd00::2'], ['web', 'abc123']),
  endpoint('e2', 'web2', ['10.0.0.3'], ['web', 'db.example.com']),
  endpoint('e3', '', ['10.0.0.4'], ['spare']),
]);
const hexOf = (name: string): string =>
  Buffer.concat([...name.split('.').flatMap((label) => [Buffer.of(label.length), Buffer.from(label)]), Buffer.of(0)]).toString('hex');

const rows: [what: string, name: string, type: number, expected: [number, ...string[]] | 'forward'][] = [
  ['a container’s name', 'web1', 1, [0, '0a000002']],
  ['its IPv6 address', 'web1', 28, [0, 'fd000000000000000000000000000002']],
  ['a family that it lacks: no data', 'web2', 28, [0]],
  ['another type: no data', 'web1', 15, [0]],
  ['every type', 'web1', 255, [0, '0a000002', 'fd000000000000000000000000000002']],
  ['with the network’s name', 'web1.mynet', 1, [0, '0a000002']],
  ['an alias of several', 'web', 1, [0, '0a000002', '0a000003']],
  ['an alias with dots', 'db.example.com', 1, [0, '0a000003']],
  ['an alias of an endpoint without a name', 'spare.mynet', 1, [0, '0a000004']],
  ['a single label that nobody has', 'nobody', 1, [3]],
  ['a name of the world', 'example.com', 1, 'forward'],
  ['the root', '', 2, 'forward'],
  ['a reverse name', '2.0.0.10.in-addr.arpa', 12, [0, hexOf('Web1.mynet')]],
  ['the reverse name of an endpoint without a name', '4.0.0.10.in-addr.arpa', 12, [0, hexOf('spare.mynet')]],
  ['another type at a reverse name: no data', '2.0.0.10.in-addr.arpa', 1, [0]],
  ['an address of ours that nobody has', '9.0.0.10.in-addr.arpa', 12, [3]],
  ['an address of the world', '8.8.8.8.in-addr.arpa', 12, 'forward'],
  ['an IPv6 reverse name', `2.${'0.'.repeat(27)}0.0.d.f.ip6.arpa`, 12, [0, hexOf('Web1.mynet')]],
  ['an IPv6 address of ours that nobody has', `3.${'0.'.repeat(27)}0.0.d.f.ip6.arpa`, 12, [3]],
];
for (const [what, name, type, expected] of rows) test(`asked for ${what}`, () => assert.deepEqual(say(source, name, type), expected));

test('an internal network asks nobody outside', () => {
  assert.deepEqual(say({ ...source, isInternal: true }, 'example.com'), [rcode.refused]);
  assert.deepEqual(say({ ...source, isInternal: true }, 'nobody'), [rcode.noSuchName]);
  assert.deepEqual(say({ ...source, isInternal: true }, 'web1'), [rcode.ok, '0a000002']);
});

test('addresses that share a name take turns', () => {
  assert.deepEqual(say(source, 'web', 1, 1), [0, '0a000003', '0a000002']);
});

test('a class that is not Internet is refused', () => {
  assert.deepEqual(answer({ ...ask('web1'), isInternet: false }, new ZoneIndex(source), 0), {
    kind: 'answer',
    code: rcode.refused,
    records: [],
  });
});

test('what is not a whole reverse name is none', () => {
  for (const name of [
    '1.10.in-addr.arpa',
    '256.0.0.10.in-addr.arpa',
    '01.0.0.10.in-addr.arpa',
    'x.0.0.10.in-addr.arpa',
    '1.2.ip6.arpa',
    'web',
  ]) {
    assert.equal(addressOf(name), undefined, name);
  }
});

test('a zone that followed any changes equals one that is read afresh', () => {
  const change = fc.record({
    id: fc.nat(4),
    name: fc.constantFrom('a', 'B', ''),
    alias: fc.constantFrom('web', 'a'),
    last: fc.nat(3),
    gone: fc.boolean(),
  });
  const names = ['a', 'b', 'web', 'a.mynet', 'a.other', 'web.other'];
  const ips = ['10.0.0.0', '10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.1.0', '10.0.1.1'] as Ip[];
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.array(change, { maxLength: 4 }), fc.boolean()), { maxLength: 8 }), (rounds) => {
      let endpoints: ReadonlyMap<string, Endpoint> = new Map();
      const follower = new ZoneIndex(sourceOf([]));
      for (const [changes, renamed] of rounds) {
        const next = new Map(endpoints);
        for (const { id, name, alias, last, gone } of changes) {
          if (gone) next.delete(`e${id}`);
          else next.set(`e${id}`, endpoint(`e${id}`, name, [`10.0.${last & 1}.${id}`], [alias]));
        }
        endpoints = next;
        const now = { ...sourceOf([], { name: renamed ? 'other' : 'mynet' }), endpoints };
        follower.set(now);
        const fresh = new ZoneIndex(now);
        const text = (zone: ZoneIndex) =>
          names.map((name) =>
            zone
              .records(name)
              ?.map(({ data }) => data.toString('hex'))
              .toSorted(),
          );
        assert.deepEqual(text(follower), text(fresh));
        assert.deepEqual(
          ips.map((ip) => follower.reverse(ip)),
          ips.map((ip) => fresh.reverse(ip)),
        );
      }
    }),
    { numRuns: 500 },
  );
});

test('a change among 10,000 endpoints looks at those that changed and at no other', () => {
  let looks = 0;
  const watched = (one: Endpoint): Endpoint =>
    Object.defineProperty({ ...one }, 'addresses', {
      get: () => {
        looks += 1;
        return one.addresses;
      },
    });
  const many = new Map(
    Array.from({ length: 10_000 }, (_, index): [string, Endpoint] => {
      const ip = `10.${1 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
      return [`e${index}`, watched(endpoint(`e${index}`, `c${index}`, [ip], ['all', `alias${index}`]))];
    }),
  );
  const zone = new ZoneIndex({ ...sourceOf([]), endpoints: many });
  assert.equal(zone.records('all')?.length, 10_000);
  assert.ok(looks >= 10_000);
  for (let round = 0; round < 20; round++) {
    looks = 0;
    const next = new Map(many);
    next.set('e5', watched(endpoint('e5', `renamed${round}`, ['10.1.0.5'])));
    zone.set({ ...sourceOf([]), endpoints: next });
    assert.equal(zone.records(`renamed${round}`)?.length, 1);
    assert.ok(looks < 20, `${looks} looks for one change`);
  }
});
