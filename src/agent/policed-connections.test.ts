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
  asked: { destination, destinationPort },
});

test('exactly what the policies of now would not let begin', () => {
  const isForbidden = forbidden(facts, { own: new Set([node]), wayTo: () => undefined });
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

test('of what a pod has begun with its own node what policies that are about that would not let begin', () => {
  const outward: OrderedPolicy = {
    ...policy,
    key: 'outward',
    egress: [{ name: 'one', action: 'allow', protocol: 6, source: {}, destination: { ports: { ranges: [[53, 53]], named: [] } } }],
  };
  const asked = [53, 10_250].map((port) => connection(client, port, node));
  const cut = (one: OrderedPolicy): unknown => {
    const endpoints = [{ owner: 'shop/client', addresses: [client], policies: [one.key] }];
    const isForbidden = forbidden(
      { ...facts, policies: new Map([[one.key, one]]), endpoints },
      { own: new Set([node]), wayTo: () => undefined },
    );
    return [...asked, connection(node, 81, client)].map(isForbidden);
  };
  assert.deepEqual(
    [cut({ ...outward, bindsToHost: true }), cut({ ...outward, bindsToHost: true, staged: true }), cut(outward)],
    [
      [false, true, false],
      [false, false, false],
      [false, false, false],
    ],
  );
});

const edge: OrderedPolicy = { ...policy, key: 'edge', ingress: policy.ingress ?? [] };
const early: OrderedPolicy = {
  ...edge,
  key: 'early',
  onHosts: 'untranslated',
  ingress: [{ name: 'one', action: 'deny', protocol: 6, source: {}, destination: { ports: { ranges: [[30_080, 30_080]], named: [] } } }],
};
const links = { '192.0.2.1': 'eth0', '198.51.100.1': 'eth1', '10.44.0.2': 'cwe1', '10.44.9.9': 'eth0' };
const wayTo = (ip: string): string | undefined => Object.entries(links).find(([one]) => one === ip)?.[1];
const onHost = (host: Partial<PolicyFacts['host']>, ...policies: readonly OrderedPolicy[]): PolicyFacts => ({
  ...facts,
  policies: new Map([policy, ...policies].map((one) => [one.key, one])),
  host: {
    links: [{ name: 'HostEndpoint eth0', link: 'eth0', policies: policies.map(({ key }) => key), otherwise: 'deny' }],
    spared: [],
    failsafes: [{ direction: 'in', protocol: 6, port: 22, cidr: parseCidr('0.0.0.0/0') }],
    ...host,
  },
});

test("of the host's own connections those that its links' policies would not let begin", () => {
  const [outside, elsewhere, far] = ['192.0.2.1', '198.51.100.1', '10.44.9.9'].map((ip) => parseIp(ip));
  assert.ok(outside && elsewhere && far);
  const own = new Set([node]);
  const closed = forbidden(onHost({}, edge), { own, wayTo });
  assert.deepEqual(
    [
      connection(outside, 81, node),
      connection(node, 81, outside),
      // A failsafe port; another link; the host's own container; the host itself; a pod of the host by a link whose policies are not for that.
      connection(outside, 22, node),
      connection(elsewhere, 81, node),
      connection(client, 81, node),
      connection(node, 81, node),
      connection(far, 80, client),
    ].map(closed),
    [true, true, false, false, false, false, false],
  );
  const nodePort = { ...connection(outside, 8080, client), asked: { destination: node, destinationPort: 30_080 } };
  assert.deepEqual([forbidden(onHost({}, early), { own, wayTo })(nodePort), closed(nodePort)], [true, false]);
  const everywhere = { links: [{ name: 'HostEndpoint all', policies: [], otherwise: 'deny' as const }] };
  assert.deepEqual(
    [connection(elsewhere, 81, node), connection(client, 81, node), connection(outside, 81, node)].map(
      forbidden(onHost({ ...everywhere, spared: ['eth0'] }), { own, wayTo }),
    ),
    [true, false, false],
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
    ways: () => () => undefined,
    log: () => undefined,
  });
  policed.applied(undefined);
  for (const each of [{ ...facts }, { ...facts }, facts, facts]) policed.applied(each);
  await looked.promise;
  policed.applied(facts);
  assert.equal(looks, 1);
});

test('what could not be cut is looked for again, without anything having changed', async () => {
  let looks = 0;
  const told: string[] = [];
  const looked = Promise.withResolvers<void>();
  using policed = new PolicedConnections({
    cut: () => {
      looks += 1;
      if (looks < 3) throw new Error('interrupted');
      looked.resolve();
      return 1;
    },
    own: () => new Set(),
    ways: () => () => undefined,
    log: (_, message) => told.push(message),
  });
  policed.applied(facts);
  await looked.promise;
  assert.deepEqual(
    told.map((message) => message.split(' ')[0]),
    ['cannot', 'cannot', 'cut'],
  );
});
