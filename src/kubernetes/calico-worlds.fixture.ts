// For tests: random clusters in which Calico's policies stand beside Kubernetes' own, and packets for them.
import * as fc from 'fast-check';
import type { Account, CalicoEnd, CalicoPolicy, CalicoRule, CalicoSet, CalicoTier, WorldService } from './policy-world.fixture.ts';
import type { World, WorldPacket } from './policy-world.fixture.ts';
import {
  accountNames,
  labelKeys,
  labels,
  labelValues,
  maybe,
  namespaceNames,
  oneOf,
  packets,
  portNames,
  portNumbers,
  some,
  worlds,
} from './policy-worlds.fixture.ts';

const quoted = oneOf(...labelValues).map((value) => `'${value}'`);
const key = oneOf(...labelKeys);
const sets = fc.array(quoted, { maxLength: 2 }).map((values) => `{${values.join(', ')}}`);
const comparisons = fc.oneof(
  fc.constant('all()'),
  key.map((name) => `has(${name})`),
  fc.tuple(key, oneOf('==', '!=', 'contains', 'starts with', 'ends with'), quoted).map((parts) => parts.join(' ')),
  fc.tuple(key, oneOf('in', 'not in'), sets).map((parts) => parts.join(' ')),
);
const selectorOver = (atom: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: 5, arbitrary: atom },
    { weight: 1, arbitrary: atom.map((one) => `!(${one})`) },
    { weight: 2, arbitrary: fc.tuple(atom, oneOf('&&', '||'), atom).map(([a, operator, b]) => `(${a}) ${operator} (${b})`) },
  );
const ownSelector = selectorOver(
  fc.oneof(
    { weight: 6, arbitrary: comparisons },
    { weight: 1, arbitrary: oneOf(...namespaceNames).map((name) => `projectcalico.org/namespace == '${name}'`) },
    { weight: 1, arbitrary: oneOf(...accountNames).map((name) => `projectcalico.org/serviceaccount == '${name}'`) },
    { weight: 1, arbitrary: fc.constant('has(projectcalico.org/orchestrator)') },
  ),
);
const nameIs = (names: readonly string[]): fc.Arbitrary<string> => oneOf(...names).map((name) => `projectcalico.org/name == '${name}'`);
const ofNamespace = selectorOver(fc.oneof({ weight: 4, arbitrary: comparisons }, { weight: 1, arbitrary: nameIs(namespaceNames) }));
const ofAccount = selectorOver(fc.oneof({ weight: 4, arbitrary: comparisons }, { weight: 1, arbitrary: nameIs(accountNames) }));

const net = oneOf(
  '10.44.0.0/24',
  '10.44.0.0/30',
  '10.44.0.4/31',
  '10.44.0.3',
  'fd44::/64',
  'fd44::2',
  '0.0.0.0/0',
  '192.0.2.0/24',
  '2001:db8::/32',
);
const port = oneOf<number | string>(...portNumbers, ...portNames, '53:81', '80:9000');
/** Ports that packets come from are like each other in all tests: beyond 1023. */
const sourcePort = oneOf<number | string>('1:1023', '1024:65535', 53);
/** Seldom nothing. */
const few = <T>(one: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.uniqueArray(one, { minLength: 1, maxLength: 2 });

const seldom = <K extends string, T>(name: K, one: fc.Arbitrary<T>): fc.Arbitrary<Partial<Record<K, T>>> =>
  fc.oneof({ weight: 4, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: maybe(name, one) });
const accounts = fc
  .tuple(maybe('names', few(oneOf(...accountNames))), maybe('selector', ofAccount))
  .map(([names, selector]) => ({ ...names, ...selector }))
  .filter((one) => Object.keys(one).length > 0);
const who = fc
  .tuple(
    maybe('selector', ownSelector),
    seldom('notSelector', ownSelector),
    seldom('namespaceSelector', fc.oneof({ weight: 4, arbitrary: ofNamespace }, { weight: 1, arbitrary: fc.constant('global()') })),
    seldom('nets', few(net)),
    seldom('notNets', few(net)),
    seldom('serviceAccounts', accounts),
  )
  .map(([a, b, c, d, e, f]): CalicoEnd => ({ ...a, ...b, ...c, ...d, ...e, ...f }));

const withPorts = oneOf<string | number>('TCP', 'UDP', 'SCTP', 'tcp', 6, 17);
const icmp = fc.record({ type: oneOf(0, 8) }).chain((type) => maybe('code', oneOf(0, 1)).map((code) => ({ ...type, ...code })));
const traffic: fc.Arbitrary<Partial<CalicoRule>> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({}) },
  { weight: 3, arbitrary: maybe('protocol', withPorts) },
  { weight: 1, arbitrary: maybe('notProtocol', oneOf<string | number>('TCP', 'UDP', 'ICMP', 17)) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(oneOf<string | number>('ICMP', 'ICMPv6', 1), maybe('icmp', icmp), maybe('notICMP', icmp))
      .map(([protocol, is, isNot]) => ({ protocol, ...is, ...isNot })),
  },
);
const portsFor = fc
  .tuple(withPorts, maybe('ports', few(port)), seldom('notPorts', few(port)), seldom('ports', few(sourcePort)))
  .map(([protocol, ports, notPorts, from]) => ({ protocol, destination: { ...ports, ...notPorts }, source: from }));
const action = fc.oneof(
  { weight: 4, arbitrary: fc.constant('Allow') },
  { weight: 3, arbitrary: fc.constant('Deny') },
  { weight: 2, arbitrary: fc.constant('Pass') },
  { weight: 1, arbitrary: fc.constant('Log') },
);
const serviceNames = ['front', 'back'] as const;
/** A rule about a service has no other words about who that is. */
const serviceMatch = fc.record({ name: oneOf(...serviceNames), namespace: oneOf(...namespaceNames) });

const ruleFor = (way: 'ingress' | 'egress'): fc.Arbitrary<CalicoRule> => {
  const [near, far] = way === 'ingress' ? (['destination', 'source'] as const) : (['source', 'destination'] as const);
  const ordinary = fc
    .tuple(traffic, seldom('ipVersion', oneOf(4, 6)), who, fc.oneof(fc.constant({}), who))
    .map(([said, family, there, here]) => ({
      ...said,
      ...family,
      [far]: there,
      [near]: here,
    }));
  const ported = fc.tuple(portsFor, who).map(([{ protocol, source, destination }, there]) => ({
    protocol,
    source: { ...(far === 'source' ? there : {}), ...source },
    destination: { ...(far === 'destination' ? there : {}), ...destination },
  }));
  const service = fc.tuple(maybe('protocol', withPorts), serviceMatch).map(([said, services]) => ({ ...said, [far]: { services } }));
  return fc
    .tuple(action, fc.oneof({ weight: 6, arbitrary: ordinary }, { weight: 4, arbitrary: ported }, { weight: 1, arbitrary: service }))
    .map(([what, rest]): CalicoRule => ({ action: what, ...rest }));
};
/** Only where it allows: elsewhere it would deny everything. */
const http = fc.constant<CalicoRule>({ action: 'Allow', http: { methods: ['GET'] } });
const rules = (way: 'ingress' | 'egress'): fc.Arbitrary<CalicoRule[]> =>
  some(fc.oneof({ weight: 12, arbitrary: ruleFor(way) }, { weight: 1, arbitrary: http }), 3);

const tierNames = ['default', 'first', 'second', 'kube-admin'] as const;
const kinds = [
  'NetworkPolicy',
  'GlobalNetworkPolicy',
  'NetworkPolicy',
  'GlobalNetworkPolicy',
  'StagedNetworkPolicy',
  'StagedGlobalNetworkPolicy',
] as const;
const policy: fc.Arbitrary<Omit<CalicoPolicy, 'metadata'> & { readonly namespace: string; readonly prefixed: boolean }> = fc
  .tuple(
    fc.record({ kind: oneOf(...kinds), namespace: oneOf(...namespaceNames), prefixed: fc.boolean() }),
    fc.tuple(
      maybe('tier', fc.oneof({ weight: 12, arbitrary: oneOf(...tierNames) }, { weight: 1, arbitrary: fc.constant('nowhere') })),
      maybe('order', oneOf(5, 1000, 1000.5)),
      maybe('selector', ownSelector),
      seldom('serviceAccountSelector', ofAccount),
      seldom('types', fc.uniqueArray(oneOf('Ingress', 'Egress'), { minLength: 1 })),
      maybe('ingress', rules('ingress')),
      maybe('egress', rules('egress')),
    ),
    fc.tuple(seldom('namespaceSelector', ofNamespace), seldom('doNotTrack', fc.boolean())),
  )
  .map(([whose, [a, b, c, d, e, f, g], [more, stage]]) => ({
    ...whose,
    spec: { ...a, ...b, ...c, ...d, ...e, ...f, ...g, ...(whose.kind.includes('Global') ? { ...more, ...stage } : {}) },
  }));
/** Names are in no order of their own, some with the tier before them. */
const policies = some(policy, 5).map((all) =>
  all.map(({ kind, namespace, prefixed, spec }, index): CalicoPolicy => {
    const name = `${prefixed ? `${spec.tier ?? 'default'}.` : ''}${'mkapz'[index] ?? index}`;
    return { kind, metadata: kind.includes('Global') ? { name } : { namespace, name }, spec };
  }),
);
const tiers = fc
  .tuple(
    maybe('order', oneOf(10, 2000, 2_000_000)),
    maybe('defaultAction', oneOf('Deny', 'Pass')),
    maybe('defaultAction', oneOf('Deny', 'Pass')),
  )
  .map(([order, first, second]): CalicoTier[] => [
    { metadata: { name: 'first' }, spec: { ...order, ...first } },
    { metadata: { name: 'second' }, spec: { order: 500, ...second } },
  ]);
const networkSets = some(fc.record({ namespace: oneOf(undefined, ...namespaceNames), labels, nets: few(net) }), 3).map((all) =>
  all.map(({ namespace, labels: own, nets }, index): CalicoSet => ({
    metadata: { ...(namespace === undefined ? {} : { namespace }), name: `set-${index}`, labels: own },
    spec: { nets },
  })),
);
const allAccounts = fc
  .array(labels, { minLength: namespaceNames.length * accountNames.length, maxLength: namespaceNames.length * accountNames.length })
  .map((all) =>
    all.map((own, index): Account => ({
      namespace: namespaceNames[index % namespaceNames.length] ?? '',
      name: accountNames[Math.floor(index / namespaceNames.length)] ?? '',
      labels: own,
    })),
  );
const services = (pods: number): fc.Arbitrary<WorldService[]> =>
  fc
    .array(fc.record({ pods: few(fc.integer({ min: 1, max: pods })), ports: few(oneOf(...portNumbers)), protocol: oneOf('TCP', 'UDP') }), {
      minLength: 6,
      maxLength: 6,
    })
    .map((all) =>
      all.map(({ pods: behind, ports, protocol }, index): WorldService => ({
        namespace: namespaceNames[index % 3] ?? '',
        name: serviceNames[Math.floor(index / 3)] ?? '',
        ips: behind.map((host) => `10.44.0.${host}`),
        ports: ports.map((one) => ({ protocol, port: one })),
      })),
    );

/** `pods`: how many. Half of them have Kubernetes' own policies, too. */
export const calicoWorlds = (pods: number): fc.Arbitrary<World> =>
  fc
    .tuple(worlds(pods), fc.boolean(), fc.record({ policies, tiers, sets: networkSets, accounts: allAccounts, services: services(pods) }))
    .map(([world, isMixed, calico]) => ({ ...world, ...(isMixed ? {} : { policies: [], clusterPolicies: [] }), calico }));

/** ICMP as each family has it, with types. */
export const calicoPackets = (pods: number): fc.Arbitrary<WorldPacket> =>
  fc.tuple(packets(pods), oneOf(0, 8), oneOf(0, 1)).map(([packet, type, code]) => {
    if (packet.protocol !== 'ICMP') return packet;
    return { ...packet, protocol: packet.source.includes(':') ? 'ICMPv6' : 'ICMP', port: 0, icmp: { type, code } };
  });
