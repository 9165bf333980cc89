import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '#model/ip.ts';
import { type Packet, Verdicts } from '#model/policy.ts';
import {
  readCalicoPolicy,
  readGlobalPolicy,
  readStagedGlobalPolicy,
  readStagedKubernetesPolicy,
  readStagedPolicy,
} from './calico-policy.ts';
import { type NetworkSet, readNetworkSet, readTier } from './calico-tier.ts';
import { readNetworkPolicy } from './network-policy.ts';
import { PolicyIndex } from './policy-index.ts';
import { problemText, type Reading } from './policy-parts.ts';

const places = { 'shop/web': '10.44.0.1', 'shop/client': '10.44.0.2', 'other/client': '10.44.0.3' } as const;
type Who = keyof typeof places;
const outside = '192.0.2.7';

interface Given {
  readonly policies: readonly Reading[];
  readonly tiers?: readonly object[];
  readonly sets?: readonly NetworkSet[];
}

/** Three pods that are called as their labels say, in namespaces with labels, with accounts of their own. */
function verdicts({ policies, tiers = [], sets = [] }: Given): Verdicts | undefined {
  const index = new PolicyIndex();
  for (const name of ['shop', 'other']) index.putNamespace(name, { team: name });
  for (const name of ['shop/web', 'shop/client', 'other/client'])
    index.putAccount(name, { level: name.startsWith('shop') ? 'high' : 'low' });
  for (const [key, ip] of Object.entries(places)) {
    const [namespace = '', app = ''] = key.split('/');
    const ports = [{ name: 'http', protocol: 6, port: 80 }];
    index.putPod(key, { namespace, labels: { app }, account: app, ips: [parseIp(ip)], ports });
  }
  for (const item of tiers) {
    const { tier } = readTier(item);
    if (tier !== undefined) index.putTier(tier);
  }
  for (const [number, set] of sets.entries()) index.putNetworkSet(`${number}`, set);
  for (const { policy } of policies) if (policy !== undefined) index.putPolicy(policy);
  const facts = index.facts(Object.entries(places).map(([owner, ip]) => ({ owner, addresses: [parseIp(ip)] })));
  return facts && new Verdicts(facts);
}
const tcp = (from: string, to: string, port = 80): Packet => ({
  source: parseIp(from),
  destination: parseIp(to),
  protocol: 6,
  sourcePort: 40_000,
  destinationPort: port,
});
const ping = (from: string, to: string, type = 8): Packet => ({ ...tcp(from, to, 0), protocol: 1, sourcePort: 0, icmp: { type, code: 0 } });
const allows = (given: Given, packet: Packet = tcp(places['shop/client'], places['shop/web'])): boolean =>
  verdicts(given)?.allows(packet) ?? true;
const from = (given: Given): Record<Who | 'outside', boolean> => {
  const asked = { ...places, outside };
  const answers = Object.entries(asked).map(([who, ip]) => [who, allows(given, tcp(ip, places['shop/web']))]);
  return Object.fromEntries(answers) as Record<Who | 'outside', boolean>;
};
const own = (spec: object, name = 'one'): Reading => readCalicoPolicy({ metadata: { namespace: 'shop', name }, spec });
const everywhere = (spec: object, name = 'all'): Reading => readGlobalPolicy({ metadata: { name }, spec });
const textOf = ({ problems }: Reading): string => problems.map(problemText).join(', ');
const toWeb = (rule: object, more: object = {}): Reading =>
  own({ selector: "app == 'web'", ingress: [{ action: 'Allow', ...rule }], ...more });
const who = (given: Reading): string[] => {
  assert.deepEqual(given.problems, []);
  return Object.entries(from({ policies: [given] })).flatMap(([name, isAllowed]) => (isAllowed && name !== 'shop/web' ? [name] : []));
};

test('a policy as Calico’s documentation shows it', () => {
  const reading = readCalicoPolicy({
    metadata: { name: 'allow-tcp-6379', namespace: 'production' },
    spec: {
      selector: "role == 'database'",
      types: ['Ingress', 'Egress'],
      ingress: [
        {
          action: 'Allow',
          metadata: { annotations: { from: 'frontend', to: 'database' } },
          protocol: 'TCP',
          source: { selector: "role == 'frontend'" },
          destination: { ports: [6379] },
        },
      ],
      egress: [{ action: 'Allow' }],
    },
  });
  assert.deepEqual(reading.problems, []);
  const { sets, ...policy } = reading.policy ?? assert.fail();
  const [[id, set] = assert.fail()] = Object.entries(sets);
  assert.equal(set.labelled, true);
  assert.deepEqual(policy, {
    key: 'Calico NetworkPolicy production/allow-tcp-6379',
    tier: 'default',
    order: Infinity,
    name: 'allow-tcp-6379',
    bindsToHost: true,
    subject: {
      type: 'and',
      of: [
        { type: 'compare', how: 'equals', label: 'in namespace', value: 'production' },
        { type: 'compare', how: 'equals', label: 'role', value: 'database' },
      ],
    },
    ingress: [
      {
        name: 'ingress 1',
        action: 'allow',
        protocol: 6,
        source: { in: [id] },
        destination: { ports: { ranges: [[6379, 6379]], named: [] } },
      },
    ],
    egress: [{ name: 'egress 1', action: 'allow', source: {}, destination: {} }],
  });
});

const bySource = (said: object): string[] => who(toWeb({ source: said }));

test('who is meant by a rule of a namespace’s policy', () => {
  assert.deepEqual(bySource({}), ['shop/client', 'other/client', 'outside']);
  assert.deepEqual(bySource({ selector: 'all()' }), ['shop/client']);
  assert.deepEqual(bySource({ selector: "app == 'client'", namespaceSelector: 'all()' }), ['shop/client', 'other/client']);
  assert.deepEqual(bySource({ namespaceSelector: "team == 'other'" }), ['other/client']);
  assert.deepEqual(bySource({ namespaceSelector: "projectcalico.org/name == 'other'" }), ['other/client']);
  assert.deepEqual(bySource({ notSelector: "app == 'web'" }), ['shop/client']);
  assert.deepEqual(bySource({ nets: ['10.44.0.2', '192.0.2.0/24'] }), ['shop/client', 'outside']);
  assert.deepEqual(bySource({ notNets: ['10.44.0.0/24'] }), ['outside']);
  assert.deepEqual(bySource({ nets: ['10.44.0.0/16'], notNets: ['10.44.0.3/32'], selector: "app == 'client'" }), ['shop/client']);
  assert.deepEqual(bySource({ serviceAccounts: { names: ['client'] } }), ['shop/client']);
  assert.deepEqual(bySource({ serviceAccounts: { selector: "level == 'low'" }, namespaceSelector: 'all()' }), ['other/client']);
});

const bySourceAnywhere = (said: object): string[] =>
  who(everywhere({ selector: "app == 'web'", ingress: [{ action: 'Allow', source: said }] }));

test('who is meant by a rule of a policy of the whole cluster', () => {
  assert.deepEqual(bySourceAnywhere({ selector: 'all()' }), ['shop/client', 'other/client']);
  assert.deepEqual(bySourceAnywhere({ notSelector: "app == 'client'" }), ['outside']);
  assert.deepEqual(bySourceAnywhere({ notSelector: "pcns.team == 'other'" }), ['shop/client', 'outside']);
  assert.deepEqual(bySourceAnywhere({ selector: "projectcalico.org/namespace == 'other'" }), ['other/client']);
  assert.deepEqual(bySourceAnywhere({ selector: "projectcalico.org/serviceaccount == 'client' && has(projectcalico.org/orchestrator)" }), [
    'shop/client',
    'other/client',
  ]);
});

test('whom a policy is for', () => {
  const closed = (reading: Reading): string[] => {
    assert.deepEqual(reading.problems, []);
    return Object.entries(places).flatMap(([key, ip]) => (allows({ policies: [reading] }, tcp(outside, ip)) ? [] : [key]));
  };
  assert.deepEqual(closed(own({})), ['shop/web', 'shop/client']);
  assert.deepEqual(closed(own({ serviceAccountSelector: "level == 'high'", selector: "app == 'web'" })), ['shop/web']);
  assert.deepEqual(closed(everywhere({})), Object.keys(places));
  assert.deepEqual(closed(everywhere({ namespaceSelector: "team == 'other'" })), ['other/client']);
  assert.deepEqual(closed(everywhere({ serviceAccountSelector: "projectcalico.org/name == 'client'" })), ['shop/client', 'other/client']);
  for (const field of ['doNotTrack', 'preDNAT']) assert.deepEqual(closed(everywhere({ [field]: true, applyOnForward: true })), []);
});

test('sets of prefixes are picked by their labels, in their namespace or beside all', () => {
  const some = readNetworkSet({ metadata: { name: 'far', labels: { role: 'far' } }, spec: { nets: ['192.0.2.0/24', '10.44.0.2'] } });
  const [all, ofShop] = [some.set ?? assert.fail(), { ...(some.set ?? assert.fail()), namespace: 'shop' }];
  const ask = (set: NetworkSet, source: object): string[] =>
    Object.entries(from({ policies: [toWeb({ source })], sets: [set] })).flatMap(([name, is]) => (is && name !== 'shop/web' ? [name] : []));
  assert.deepEqual(ask(all, { selector: "role == 'far'" }), []);
  assert.deepEqual(ask(all, { selector: "role == 'far'", namespaceSelector: 'global()' }), ['shop/client', 'outside']);
  assert.deepEqual(ask(all, { selector: "role == 'far'", namespaceSelector: 'all()' }), []);
  assert.deepEqual(ask(ofShop, { selector: "role == 'far'" }), ['shop/client', 'outside']);
  assert.deepEqual(ask(ofShop, { namespaceSelector: "team == 'shop'" }), ['shop/client', 'outside']);
  const kubernetes = readNetworkPolicy({
    metadata: { namespace: 'shop', name: 'k' },
    spec: { podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] },
  });
  assert.equal(from({ policies: [kubernetes], sets: [ofShop] }).outside, false);
});

const typesOf = (spec: object): string[] => {
  const { policy } = own(spec);
  return ['ingress', 'egress'].filter((direction) => policy !== undefined && direction in policy);
};

test('types follow from the rules that there are', () => {
  assert.deepEqual(typesOf({}), ['ingress']);
  assert.deepEqual(typesOf({ ingress: [{ action: 'Allow' }] }), ['ingress']);
  assert.deepEqual(typesOf({ egress: [{ action: 'Allow' }] }), ['egress']);
  assert.deepEqual(typesOf({ ingress: [{ action: 'Allow' }], egress: [{ action: 'Allow' }] }), ['ingress', 'egress']);
  assert.deepEqual(typesOf({ types: ['Egress'], ingress: [{ action: 'Allow' }] }), ['egress']);
});

const passes = (rule: object, packet: Packet): boolean => {
  const reading = toWeb(rule);
  assert.deepEqual(reading.problems, []);
  return allows({ policies: [reading] }, packet);
};

test('ports, protocols, ICMP and families', () => {
  const [client, web] = [places['shop/client'], places['shop/web']];
  for (const port of [80, '80', '70:90', 'http']) {
    const destination = { ports: [port, 443] };
    const [here, there] = [tcp(client, web, 80), tcp(client, web, 91)];
    assert.deepEqual([passes({ protocol: 'TCP', destination }, here), passes({ protocol: 'tcp', destination }, there)], [true, false]);
    assert.deepEqual(
      [
        passes({ protocol: 6, destination: { notPorts: [port] } }, here),
        passes({ protocol: '6', destination: { notPorts: [port] } }, there),
      ],
      [false, true],
    );
  }
  assert.equal(passes({ protocol: 'TCP', source: { ports: ['39000:41000'] } }, tcp(client, web)), true);
  assert.deepEqual([passes({ notProtocol: 'TCP' }, tcp(client, web)), passes({ notProtocol: 17 }, tcp(client, web))], [false, true]);
  assert.deepEqual(
    [
      passes({ protocol: 'ICMP', icmp: { type: 8 } }, ping(client, web)),
      passes({ protocol: 'ICMP', icmp: { type: 8, code: 1 } }, ping(client, web)),
    ],
    [true, false],
  );
  assert.deepEqual(
    [
      passes({ protocol: 1, notICMP: { type: 8, code: 0 } }, ping(client, web)),
      passes({ protocol: 1, notICMP: { type: 8 } }, ping(client, web, 13)),
    ],
    [false, true],
  );
  assert.deepEqual([passes({ ipVersion: 4 }, tcp(client, web)), passes({ ipVersion: 6 }, tcp(client, web))], [true, false]);
});

const tier = (name: string, spec: object): object => ({ metadata: { name }, spec });
test('tiers in their order, with what each does with the rest', () => {
  const allow = [{ action: 'Allow' }];
  const first = everywhere({
    tier: 'first',
    selector: "app == 'web'",
    ingress: [{ action: 'Pass', source: { selector: "app == 'client'" } }],
  });
  const last = own({ ingress: allow });
  assert.deepEqual(from({ policies: [first, last], tiers: [tier('first', { order: 10 })] }), {
    'shop/web': true,
    'shop/client': true,
    'other/client': true,
    outside: false,
  });
  assert.equal(from({ policies: [first, last], tiers: [tier('first', { order: 10, defaultAction: 'Pass' })] }).outside, true);
  // Behind the default tier nobody asks it.
  assert.equal(from({ policies: [first, last], tiers: [tier('first', {})] }).outside, true);
  const deny = everywhere({ tier: 'second', selector: "app == 'web'", ingress: [{ action: 'Deny' }] }, 'second.deny');
  assert.equal(allows({ policies: [first, deny], tiers: [tier('first', { order: 5 }), tier('second', { order: 6 })] }), false);
  // Passed by the last of them: what a namespace allows when no policy decides.
  assert.equal(allows({ policies: [own({ ingress: [{ action: 'Pass' }] })] }), true);
});

const wins = (...policies: readonly Reading[]): boolean => allows({ policies });

test('in a tier by order, then by name; one without order is last; Kubernetes’ own are at 1000', () => {
  const [allow, deny] = [{ ingress: [{ action: 'Allow' }] }, { ingress: [{ action: 'Deny' }] }];
  assert.deepEqual(
    [
      wins(own({ ...allow, order: 1 }, 'b'), own({ ...deny, order: 2 }, 'a')),
      wins(own({ ...allow, order: 3 }, 'a'), own({ ...deny, order: 2 }, 'b')),
    ],
    [true, false],
  );
  assert.deepEqual(
    [
      wins(own(allow, 'a'), own({ ...deny, order: 2 }, 'b')),
      wins(own(allow, 'a'), everywhere(deny, 'b')),
      wins(own(allow, 'b'), everywhere(deny, 'a')),
    ],
    [false, true, false],
  );
  assert.deepEqual([wins(own(allow, 'b'), own(deny, 'default.c')), wins(own(allow, 'default.b'), own(deny, 'a'))], [true, false]);
  const kubernetes = readNetworkPolicy({ metadata: { namespace: 'shop', name: 'k' }, spec: { podSelector: {}, ingress: [{}] } });
  assert.deepEqual(
    [wins(kubernetes, own({ ...deny, order: 1001 })), wins(kubernetes, own({ ...deny, order: 999 })), wins(kubernetes, own(deny))],
    [true, false, true],
  );
  assert.deepEqual(
    [wins(kubernetes, own({ ...deny, order: 1000 }, 'a')), wins(kubernetes, own({ ...deny, order: 1000 }, 'z'))],
    [false, true],
  );
  assert.equal(wins(own({ ingress: [{ action: 'Log' }] })), false);
});

test('a policy of a tier that is not there only ever closes', () => {
  const strange = everywhere({
    tier: 'nowhere',
    selector: "app == 'web'",
    ingress: [{ action: 'Allow', source: { nets: ['10.44.0.2'] } }],
  });
  assert.deepEqual(from({ policies: [strange] }), { 'shop/web': true, 'shop/client': true, 'other/client': false, outside: false });
  assert.equal(allows({ policies: [strange, own({ ingress: [{ action: 'Deny' }] })] }), false);
});

const itemOf = (spec: object): object => ({ metadata: { namespace: 'shop', name: 'one' }, spec });

test('staged policies change nothing and say what they are', () => {
  const deny = { ingress: [{ action: 'Deny' }] };
  const staged = [
    readStagedPolicy(itemOf(deny)),
    readStagedGlobalPolicy(itemOf({ ...deny, stagedAction: 'Set' })),
    readStagedKubernetesPolicy(itemOf({ podSelector: {}, stagedAction: 'Set' })),
  ];
  assert.deepEqual(
    staged.map(({ policy, problems }) => [policy?.key, policy?.staged, problems]),
    [
      ['StagedNetworkPolicy shop/one', true, []],
      ['StagedGlobalNetworkPolicy one', true, []],
      ['StagedKubernetesNetworkPolicy shop/one', true, []],
    ],
  );
  assert.equal(allows({ policies: staged }), true);
  const others = ['Delete', 'Learn', 'Ignore'].map((stagedAction) => readStagedPolicy(itemOf({ ...deny, stagedAction })));
  assert.ok(others.every(({ policy, problems }) => policy === undefined && problems.length === 1));
});

test('tiers that are always there stay as they are', () => {
  assert.deepEqual(readTier(tier('default', { order: 1_000_000, defaultAction: 'Deny' })), { problems: [] });
  assert.deepEqual(readTier(tier('kube-admin', {})), { problems: [] });
  for (const spec of [{ order: 5 }, { defaultAction: 'Pass' }]) assert.equal(readTier(tier('default', spec)).problems.length, 1);
  assert.equal(readTier(tier('x', { order: 'high' })).problems.length, 1);
});

const closing: readonly (readonly [what: string, rule: object, told: RegExp])[] = [
  ['HTTP', { http: { methods: ['GET'] } }, /^spec.ingress\[0\].http: .*HTTP/],
  ['a field that nobody knows', { source: { domains: ['example.org'] } }, /^spec.ingress\[0\].source.domains: is not known here/],
  ['a selector that is none', { source: { selector: 'app = 1' } }, /source.selector: /],
  ['global() in the wrong place', { source: { selector: 'global()' } }, /global\(\)/],
  ['a net that is none', { source: { nets: ['10.44.0.0/33'] } }, /source.nets\[0\]: /],
  ['a protocol that is none', { protocol: 'HTTP' }, /protocol: /],
  ['protocol 0', { protocol: 0 }, /protocol: /],
  ['ports without a protocol', { destination: { ports: [80] } }, /protocol: ports need/],
  ['ports of a protocol that has none', { protocol: 'ICMP', destination: { notPorts: [80] } }, /protocol: ports need/],
  ['a range backwards', { protocol: 'TCP', destination: { ports: ['90:80'] } }, /destination.ports\[0\]: /],
  ['a port out of range', { protocol: 'TCP', destination: { ports: [65_536] } }, /destination.ports\[0\]: /],
  ['a type of ICMP without protocol', { icmp: { type: 8 } }, /protocol: types of ICMP/],
  ['not a type of ICMP without protocol', { notICMP: { type: 8 } }, /protocol: types of ICMP/],
  ['a code without a type', { protocol: 'ICMP', icmp: { code: 1 } }, /icmp: has a code/],
  ['a family that is none', { ipVersion: 5 }, /ipVersion: /],
  ['a service at the near end', { destination: { services: { name: 'a' } } }, /services: /],
  ['a service beside a selector', { source: { services: { name: 'a' }, selector: 'all()' } }, /services: /],
];
for (const [what, rule, told] of closing) {
  test(`${what}: allows nothing, or denies everything, and is told with its field`, () => {
    const opening = toWeb(rule, { ingress: [{ action: 'Allow', ...rule }] });
    assert.match(textOf(opening), told);
    assert.match(textOf(opening), /it allows nothing$/);
    assert.equal(allows({ policies: [opening] }), false);
    for (const action of ['Deny', 'Pass']) {
      const reading = toWeb({}, { ingress: [{ ...rule, action }, { action: 'Allow' }] });
      assert.match(textOf(reading), /it denies everything$/);
      assert.equal(allows({ policies: [reading] }), false);
    }
    assert.equal(allows({ policies: [toWeb({}, { ingress: [{ ...rule, action: 'Log' }, { action: 'Allow' }] })] }), true);
  });
}

test('what cannot be said of a policy, and what of it is not known', () => {
  assert.deepEqual(own({ selector: '((' }).policy, undefined);
  assert.match(textOf(own({ selector: '((' })), /spec.selector: /);
  assert.match(textOf(everywhere({ selector: 'global()' })), /spec.selector: /);
  assert.match(textOf(own({ types: ['Sideways'] })), /spec.types.0: /);
  assert.match(textOf(own({ ingress: [{ action: 'Shrug' }] })), /it denies everything$/);
  assert.equal(textOf(own({ planet: 'mars' })), 'spec.planet: is not known here and not followed');
  assert.deepEqual(readNetworkSet({ metadata: { name: 'a' }, spec: { nets: ['x', '10.0.0.1/8'] } }).problems.length, 1);
});

test('labels that Calico gives cannot be had by naming one so', () => {
  const index = new PolicyIndex();
  for (const name of ['shop', 'other']) index.putNamespace(name, { team: name });
  const forged = { 'projectcalico.org/namespace': 'shop', 'pcns.team': 'shop', 'projectcalico.org/serviceaccount': 'web' };
  index.putPod('shop/web', { namespace: 'shop', labels: {}, account: 'web', ips: [parseIp('10.44.0.1')], ports: [] });
  index.putPod('other/x', { namespace: 'other', labels: forged, account: 'x', ips: [parseIp('10.44.0.2')], ports: [] });
  const words = ["projectcalico.org/namespace == 'shop'", "pcns.team == 'shop'", "projectcalico.org/serviceaccount == 'web'"];
  for (const selector of words) {
    const { policy } = everywhere({ ingress: [{ action: 'Allow', source: { selector } }] });
    index.putPolicy(policy ?? assert.fail());
    const facts = index.facts([{ owner: 'shop/web', addresses: [parseIp('10.44.0.1')] }]) ?? assert.fail();
    assert.deepEqual([...facts.sets.values()], [['10.44.0.1/32']]);
  }
});
