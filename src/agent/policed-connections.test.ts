// Which standing connections are cut when policies change.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { OrderedPolicy, PolicyFacts } from '#model/policy.ts';
import { forbidden, PolicedConnections } from './policed-connections.ts';

const [web, client, other, node] = ['10.44.0.1', '10.44.0.2', '10.44.0.3', '10.213.0.1'].map((text) => parseIp(text));
assert.ok(web && client && other && node);

const policy: OrderedPolicy = {
  key: 'web',
  name: 'friends',
  tier: 'default',
  order: 1,
  subject: { type: 'all' },
  ingress: [
    { name: 'one', action: 'allow', protocol: 6, source: { in: ['friends'] }, destination: { ports: { ranges: [[80, 80]], named: [] } } },
  ],
  sets: { friends: { selectors: [{ type: 'all' }], cidrs: [] } },
};
const facts: PolicyFacts = {
  tiers: [{ name: 'default', order: 1, otherwise: 'deny' }],
  policies: new Map([['web', policy]]),
  sets: new Map([['friends', [parseCidr('10.44.0.2/32')]]]),
  named: new Map(),
  endpoints: [
    { owner: 'shop/web', addresses: [web], policies: ['web'] },
    { owner: 'shop/client', addresses: [client], policies: [] },
    { owner: 'shop/new', addresses: [other], policies: undefined },
  ],
};
const connection = (source: typeof web, destinationPort: number, destination = web) => ({
  protocol: 6,
  source,
  sourcePort: 40_000,
  destination,
  destinationPort,
});

test('exactly what the policies of now would not let begin', () => {
  const isForbidden = forbidden(facts, new Set([node]));
  const outside = parseIp('192.0.2.1');
  assert.deepEqual(
    [
      connection(client, 80),
      connection(client, 81),
      connection(outside, 80),
      // The node itself, what is not known yet, and what no policy is about.
      connection(node, 81),
      connection(other, 81),
      connection(outside, 81, client),
    ].map(isForbidden),
    [false, true, true, false, false, false],
  );
});

test('looks once for a burst of changes, and not again while nothing changes', async () => {
  let looks = 0;
  const looked = Promise.withResolvers<void>();
  using policed = new PolicedConnections({
    cut: () => {
      looks += 1;
      looked.resolve();
      return 0;
    },
    own: () => new Set(),
    log: () => undefined,
  });
  policed.applied(undefined);
  for (const each of [{ ...facts }, { ...facts }, facts, facts]) policed.applied(each);
  await looked.promise;
  policed.applied(facts);
  assert.equal(looks, 1);
});
