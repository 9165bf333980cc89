import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Ip, parseIp } from '#model/ip.ts';
import type { Host, Service } from '#model/resources.ts';
import { elected, excludeLabel, planAnnouncements } from './announce.ts';
import { makeHost } from './cluster.fixture.ts';

const hosts = [1, 2, 3, 4].map((index) => makeHost(index));
const service = (ip: Ip, announcers?: Service['announcers']): Service => ({
  key: ip,
  ip,
  protocol: 'tcp',
  port: 80,
  backends: [],
  ...(announcers === undefined ? {} : { announcers }),
});
const ips = Array.from({ length: 200 }, (_, index) => parseIp(`203.0.113.${index + 1}`));
const holders = (services: readonly Service[], of: readonly Host[] = hosts): Map<string, string[]> =>
  new Map(of.map((self) => [self.id, planAnnouncements(services, of, self).addr.map(({ address }) => address)]));

test('each address is on exactly one host, on its underlay link, and all hosts have some', () => {
  const found = holders(ips.map((ip) => service(ip, 'every')));
  assert.deepEqual([...found.values()].flat().toSorted(), ips.map((ip) => `${ip}/32`).toSorted());
  for (const own of found.values()) assert.ok(own.length > 25, `${own.length} of 200`);
  assert.deepEqual(
    new Set(
      hosts.flatMap((self) => planAnnouncements([service(ips[0] ?? assert.fail(), 'every')], hosts, self).addr.map(({ link }) => link)),
    ),
    new Set(['eth0']),
  );
});

test('when a host goes only its own addresses move', () => {
  const names = hosts.map(({ id }) => id);
  for (const ip of ips) {
    const before = elected(ip, names);
    const now = elected(ip, names.slice(1));
    if (before !== names[0]) assert.equal(now, before);
  }
  assert.equal(elected(parseIp('203.0.113.1'), []), undefined);
});

const [first = makeHost(1), ...others] = hosts;
const unable: readonly (readonly [string, Host])[] = [
  ['one that is not ready', { ...first, status: { ...first.status, ready: false } }],
  ['one that is kept out by its label', { ...first, labels: { [excludeLabel]: '' } }],
];
for (const [what, host] of unable) {
  test(`${what} has none`, () => {
    const found = holders(
      ips.map((ip) => service(ip, 'every')),
      [host, ...others],
    );
    assert.deepEqual([found.get(first.id)?.length, [...found.values()].flat().length], [0, 200]);
  });
}

test('only hosts with endpoints may have it where it says so, and nobody what is not to be announced', () => {
  const [ip = assert.fail()] = ips;
  assert.deepEqual(holders([service(ip, ['host-3'])]).get('host-3'), [`${ip}/32`]);
  assert.deepEqual([...holders([service(ip, [])]).values()].flat(), []);
  assert.deepEqual([...holders([service(ip)]).values()].flat(), []);
});

test("a host's own address is nobody's else, whatever a service is said to have", () => {
  assert.deepEqual([...holders([service(parseIp('10.213.0.2'), 'every')]).values()].flat(), []);
});

test('what comes to the address is known by it', () => {
  const [ip = assert.fail()] = ips;
  const { element } = planAnnouncements([service(ip, ['host-1']), service(parseIp('fd00::7'), ['host-1'])], hosts, first);
  assert.deepEqual(
    element.map(({ set, key }) => `${set} ${key}`),
    [`announced4 ${ip}`, 'announced6 fd00::7'],
  );
});
