import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { parseIp } from '#model/ip.ts';
import type { Endpoint, PublishedPort } from '#model/resources.ts';
import { fakeEndpoint } from './fake-agent.ts';
import { publishedPorts } from './ports.ts';
import type { PortBinding } from './protocol.ts';

const binding = (more: Partial<PortBinding>): PortBinding => ({ Proto: 6, Port: 80, HostPort: 8080, HostPortEnd: 8080, ...more });
const alone = { others: [], before: [] };
const withPorts = (...ports: PublishedPort[]): Endpoint => fakeEndpoint({ ports });

test('protocol numbers become protocols, every address is no address where there is no IPv6', () => {
  assert.deepEqual(
    publishedPorts(
      [
        binding({ HostIP: parseIp('0.0.0.0') }),
        binding({ Proto: 17, HostIP: parseIp('192.0.2.1') }),
        binding({ Proto: 132, HostIP: parseIp('::') }),
      ],
      alone,
    ),
    [
      { protocol: 'tcp', port: 80, hostPort: 8080 },
      { protocol: 'udp', port: 80, hostPort: 8080, hostIp: '192.0.2.1' },
      { protocol: 'sctp', port: 80, hostPort: 8080 },
    ],
  );
});

test('the same binding for both families is one', () => {
  assert.equal(publishedPorts([binding({ HostIP: parseIp('0.0.0.0') }), binding({ HostIP: parseIp('::') })], alone).length, 1);
});

/** With an address of each family. */
const asked = (...ips: readonly (string | undefined)[]): unknown[] =>
  publishedPorts(
    ips.map((ip) => binding(ip === undefined ? {} : { HostIP: parseIp(ip) })),
    { ...alone, hasIpv6: true },
  ).map(({ hostIp, hostPort }) => [hostIp, hostPort]);

test('where there is IPv6, too, every address of a family is that and no more', () => {
  assert.deepEqual(asked('0.0.0.0'), [['0.0.0.0', 8080]]);
  assert.deepEqual(asked('::'), [['::', 8080]]);
  assert.deepEqual(asked(undefined), [[undefined, 8080]]);
  assert.deepEqual(asked('0.0.0.0', '::'), [
    ['0.0.0.0', 8080],
    ['::', 8080],
  ]);
});

test('an open choice takes the first free port and keeps it', () => {
  const busy = withPorts({ protocol: 'tcp', port: 80, hostPort: 9000 });
  const open = binding({ HostPort: 9000, HostPortEnd: 9002 });
  assert.equal(publishedPorts([open], { others: [busy], before: [] })[0]?.hostPort, 9001);
  assert.equal(publishedPorts([open], { others: [busy], before: [{ protocol: 'tcp', port: 80, hostPort: 9002 }] })[0]?.hostPort, 9002);
  assert.equal(publishedPorts([binding({ HostPort: 0, HostPortEnd: 0 })], alone)[0]?.hostPort, 49_153);
  assert.equal(
    publishedPorts([binding({ HostPort: 0, HostPortEnd: 0 })], { ...alone, isFree: ({ hostPort }) => hostPort > 49_160 })[0]?.hostPort,
    49_161,
  );
});

test('a range without a free port is exhausted, an unknown protocol and ::1 unsupported', () => {
  const busy = withPorts({ protocol: 'tcp', port: 80, hostPort: 9000 }, { protocol: 'tcp', port: 80, hostPort: 9001 });
  assert.throws(
    () => publishedPorts([binding({ HostPort: 9000, HostPortEnd: 9001 })], { others: [busy], before: [] }),
    (error) => isFault(error, 'exhausted'),
  );
  for (const wrong of [{ Proto: 47 }, { HostIP: parseIp('::1') }])
    assert.throws(
      () => publishedPorts([binding(wrong)], alone),
      (error) => isFault(error, 'unsupported'),
    );
});

const two = (first: Partial<PortBinding>, second: Partial<PortBinding>): number =>
  publishedPorts([binding(first), binding({ Port: 81, ...second })], { ...alone, hasIpv6: true }).length;

test('one port of the host is not published for two of a container, unless addresses or protocols tell them apart', () => {
  for (const second of [{}, { HostIP: parseIp('127.0.0.1') }, { Port: 80, HostIP: parseIp('0.0.0.0') }]) {
    assert.throws(
      () => two({}, second),
      (error) => isFault(error, 'exists') && /8080\/tcp of this host is asked for twice/.test(error.message),
    );
  }
  assert.equal(two({}, { Proto: 17 }), 2);
  assert.equal(two({ HostIP: parseIp('0.0.0.0') }, { HostIP: parseIp('::') }), 2);
  assert.equal(two({ HostIP: parseIp('192.0.2.1') }, { HostIP: parseIp('127.0.0.1') }), 2);
});

/** Where it is published. */
const of = (families: readonly (4 | 6)[], others: readonly Endpoint[] = [], more: Partial<PortBinding> = {}): unknown[] =>
  publishedPorts([binding(more)], { others, before: [], families }).map(({ hostIp, hostPort }) => [hostIp, hostPort]);

test('of some families only, every address is that of each, and an open choice is the same for both', () => {
  assert.deepEqual(of([4]), [['0.0.0.0', 8080]]);
  assert.deepEqual(of([4, 6]), [
    ['0.0.0.0', 8080],
    ['::', 8080],
  ]);
  assert.deepEqual([of([]), of([6], [], { HostIP: parseIp('192.0.2.1') })], [[], []]);
  assert.deepEqual(of([6], [], { HostIP: parseIp('2001:db8::1') }), [['2001:db8::1', 8080]]);
  const other = withPorts({ protocol: 'tcp', port: 80, hostPort: 49_153, hostIp: parseIp('0.0.0.0') });
  assert.deepEqual(of([6], [other], { HostPort: 0, HostPortEnd: 0 }), [['::', 49_153]]);
  assert.deepEqual(of([4], [other], { HostPort: 0, HostPortEnd: 0, HostIP: parseIp('192.0.2.1') }), [['192.0.2.1', 49_154]]);
});
