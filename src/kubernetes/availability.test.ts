// Whether a node takes pods, and in which words it does not.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Underlay } from '#model/resources.ts';
import { type Availability, availabilityOf, hostsAmong, unusable } from './availability.ts';

const [four, other, six] = ['10.244.1.0/24', '10.245.0.0/26', 'fd44::/64'].map((text) => ({ pool: text, cidr: parseCidr(text) }));
const ranges = [four, other, six].flatMap((range) => range ?? []);
const word = (exhausted: readonly string[], more: Partial<Availability> = {}): string => {
  const { isAvailable, reason, message } = availabilityOf({ ranges, isExhausted: (pool) => exhausted.includes(pool), ...more });
  return `${isAvailable} ${reason}: ${message}`;
};

test('a node without a free address in one family takes no pods, and says which range it is', () => {
  assert.equal(word([]), 'true CausewayIsUp: Pods can be attached');
  assert.match(word(['10.244.1.0/24']), /^true /, 'another range of the family has room');
  assert.equal(word(['10.244.1.0/24', '10.245.0.0/26']), 'false NoFreeAddresses: No address is free in 10.244.1.0/24, 10.245.0.0/26');
  assert.equal(word(['fd44::/64']), 'false NoFreeAddresses: No address is free in fd44::/64');
  assert.match(word([], { ranges: [] }), /^false NoFreeAddresses: No range/);
});

test('overlaps come before whatever is free', () => {
  const services = 'Service shop/web has the address 10.244.0.1, which is in the range of pods 10.244.0.0/16';
  assert.equal(word(['fd44::/64'], { services }), `false ServiceAmongPods: ${services}`);
  assert.match(word([], { services, hosts: 'both' }), /^false PodsAmongHosts: both$/);
  assert.deepEqual(unusable('why'), { isAvailable: false, reason: 'UnusableNode', message: 'why' });
});

const link = (subnet: string, name = 'eth0'): Underlay => ({
  interface: name,
  ip: parseIp('10.0.0.5'),
  subnet: parseCidr(subnet),
  mtu: 1500,
});

test("the hosts' own range overlaps that of pods, whichever is in the other", () => {
  const pods = [parseCidr('fd44::/48'), parseCidr('10.244.0.0/16')];
  assert.equal(hostsAmong(pods, [link('10.213.0.0/24'), link('fd45::/64'), link('10.244.7.0/24', 'tunl0')]), undefined);
  for (const subnet of ['10.0.0.0/8', '10.244.128.0/24', 'fd44:0:0:7::/64'])
    assert.match(
      hostsAmong(pods, [link('10.213.0.0/24'), link(subnet)]) ?? '',
      new RegExp(`^The range of pods .* overlaps ${subnet} of eth0`),
    );
});
