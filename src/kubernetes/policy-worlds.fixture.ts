// For tests: random clusters with policies, and packets between whoever is in them. The universe is small, so that selectors,
// prefixes and ports meet often.
import * as fc from 'fast-check';
import type {
  ClusterNetworkPolicy,
  ClusterPeer,
  ClusterProtocol,
  ClusterRule,
  LabelSelector,
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  NetworkPolicyRule,
  Pod,
  World,
  WorldPacket,
} from './policy-world.fixture.ts';

export const labelKeys = ['app', 'role'] as const;
export const labelValues = ['a', 'b', 'c'] as const;
export const accountNames = ['default', 'build'] as const;
export const namespaceNames = ['blue', 'green', 'red'] as const;
export const portNumbers = [53, 80, 81, 8080] as const;
export const portNames = ['web', 'dns'] as const;
const transports = ['TCP', 'UDP', 'SCTP'] as const;

export const some = <T>(one: fc.Arbitrary<T>, most: number): fc.Arbitrary<T[]> => fc.array(one, { maxLength: most });
export const oneOf = <T>(...items: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...items);
export const maybe = <K extends string, T>(key: K, one: fc.Arbitrary<T>): fc.Arbitrary<Partial<Record<K, T>>> =>
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a computed key is widened to string
  fc.option(one, { nil: undefined }).map((value) => (value === undefined ? {} : { [key]: value }) as Partial<Record<K, T>>);

export const labels: fc.Arbitrary<Record<string, string>> = fc
  .dictionary(oneOf(...labelKeys), oneOf(...labelValues), { maxKeys: 2 })
  .map((some2) => ({ ...some2 }));
const expression = fc.oneof(
  fc.record({
    key: oneOf(...labelKeys),
    operator: oneOf('In', 'NotIn'),
    values: fc.uniqueArray(oneOf(...labelValues), { minLength: 1, maxLength: 2 }),
  }),
  fc.record({ key: oneOf(...labelKeys), operator: oneOf('Exists', 'DoesNotExist') }),
);
const selector: fc.Arbitrary<LabelSelector> = fc.oneof(
  { weight: 1, arbitrary: fc.constant({}) },
  {
    weight: 4,
    arbitrary: fc
      .tuple(maybe('matchLabels', labels), maybe('matchExpressions', some(expression, 2)))
      .map(([equal, expressions]): LabelSelector => ({ ...equal, ...expressions })),
  },
);

/** Pods have 10.44.0.N and fd44::N; others are outside. */
export const outsiders = ['192.0.2.7', '2001:db8::7'] as const;
const addressesFor = (pods: number): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: pods, arbitrary: fc.integer({ min: 1, max: pods }).map((host) => `10.44.0.${host}`) },
    { weight: pods, arbitrary: fc.integer({ min: 1, max: pods }).map((host) => `fd44::${host.toString(16)}`) },
    { weight: 2, arbitrary: oneOf(...outsiders) },
  );
const cidr = fc.oneof(
  oneOf('0.0.0.0/0', '::/0', '10.44.0.0/24', 'fd44::/64', '192.0.2.7/32', '192.0.2.0/24', '2001:db8::/32'),
  fc.tuple(fc.integer({ min: 0, max: 3 }), oneOf(29, 30)).map(([at, length]) => `10.44.0.${at * 2 ** (32 - length)}/${length}`),
  fc.integer({ min: 1, max: 9 }).map((host) => `fd44::${host}/128`),
);
const ipBlock = fc.tuple(cidr, some(cidr, 2)).map(([all, except]): NetworkPolicyPeer => ({
  ipBlock: { cidr: all, except: except.filter((one) => one.includes(':') === all.includes(':')) },
}));
const peer: fc.Arbitrary<NetworkPolicyPeer> = fc.oneof(
  ipBlock,
  selector.map((podSelector) => ({ podSelector })),
  selector.map((namespaceSelector) => ({ namespaceSelector })),
  fc.record({ podSelector: selector, namespaceSelector: selector }),
);
const port: fc.Arbitrary<NetworkPolicyPort> = fc.oneof(
  maybe('protocol', oneOf(...transports)),
  fc.record({ protocol: oneOf(...transports), port: fc.oneof(oneOf(...portNumbers), oneOf<string | number>(...portNames)) }),
  fc.record({ port: oneOf(...portNumbers) }),
  fc.record({ protocol: oneOf(...transports), port: oneOf(53, 80), endPort: oneOf(81, 9000) }),
);
const ruleFor = (way: 'from' | 'to'): fc.Arbitrary<NetworkPolicyRule> =>
  fc.tuple(maybe(way, some(peer, 2)), maybe('ports', some(port, 2))).map(([peers, ports]): NetworkPolicyRule => ({ ...peers, ...ports }));
const policyParts = fc.record({
  namespace: oneOf(...namespaceNames),
  podSelector: selector,
  policyTypes: maybe('policyTypes', fc.uniqueArray(oneOf('Ingress', 'Egress'), { minLength: 1 })),
  ingress: maybe('ingress', some(ruleFor('from'), 2)),
  egress: maybe('egress', some(ruleFor('to'), 2)),
});
const policies = some(policyParts, 4).map((all) =>
  all.map(({ namespace, podSelector, policyTypes, ingress, egress }, index): NetworkPolicy => ({
    metadata: { namespace, name: `policy-${index}` },
    spec: { podSelector, ...policyTypes, ...ingress, ...egress },
  })),
);

const podPeer = fc.oneof(
  selector.map((namespaces): ClusterPeer => ({ namespaces })),
  fc.record({ namespaceSelector: selector, podSelector: selector }).map((pods): ClusterPeer => ({ pods })),
);
const egressPeer = fc.oneof(
  { weight: 6, arbitrary: podPeer },
  { weight: 3, arbitrary: fc.array(cidr, { minLength: 1, maxLength: 2 }).map((networks): ClusterPeer => ({ networks })) },
  { weight: 1, arbitrary: fc.constant<ClusterPeer>({ domainNames: ['example.org'] }) },
);
const destinationPort = fc.oneof(
  oneOf(...portNumbers).map((number) => ({ number })),
  fc.constant({ range: { start: 80, end: 8080 } }),
);
const protocol: fc.Arbitrary<ClusterProtocol> = fc.oneof(
  fc
    .tuple(oneOf('tcp', 'udp', 'sctp'), maybe('destinationPort', destinationPort))
    .map(([name, transport]): ClusterProtocol => ({ [name]: transport })),
  oneOf(...portNames).map((destinationNamedPort) => ({ destinationNamedPort })),
);
const clusterRule = (way: 'from' | 'to'): fc.Arbitrary<ClusterRule> =>
  fc
    .tuple(
      oneOf('Accept', 'Deny', 'Pass'),
      fc.array(way === 'from' ? podPeer : egressPeer, { minLength: 1, maxLength: 2 }),
      maybe('protocols', fc.array(protocol, { minLength: 1, maxLength: 2 })),
    )
    .map(([action, peers, protocols]): ClusterRule => ({ action, [way]: peers, ...protocols }));
const clusterParts = fc.record({
  tier: oneOf('Admin', 'Baseline'),
  subject: podPeer,
  ingress: maybe('ingress', some(clusterRule('from'), 3)),
  egress: maybe('egress', some(clusterRule('to'), 3)),
});
/** Equal priorities would leave the order open. */
const clusterPolicies = some(clusterParts, 3).map((all) =>
  all.map(({ tier, subject, ingress, egress }, index): ClusterNetworkPolicy => ({
    metadata: { name: `cluster-${index}` },
    spec: { tier, priority: 10 * (all.length - index), subject, ...ingress, ...egress },
  })),
);

const podPort = fc.record({ name: oneOf(...portNames), protocol: oneOf(...transports), containerPort: oneOf(...portNumbers) });
const podParts = fc.record({ namespace: oneOf(...namespaceNames), labels, account: oneOf(...accountNames), ports: some(podPort, 2) });
const namespaces = fc
  .tuple(labels, labels, labels)
  .map((all) => all.map((own, index) => ({ name: namespaceNames[index] ?? '', labels: own })));

/** `pods`: how many. */
export const worlds = (pods: number): fc.Arbitrary<World> =>
  fc
    .record({ namespaces, pods: fc.array(podParts, { minLength: pods, maxLength: pods }), policies, clusterPolicies })
    .map(({ pods: parts, ...world }) => ({
      ...world,
      pods: parts.map((part, index): Pod => ({
        ...part,
        name: `pod-${index + 1}`,
        ips: [`10.44.0.${index + 1}`, `fd44::${(index + 1).toString(16)}`],
      })),
    }));

/** Between pods of such a world, and from and to outside. */
export const packets = (pods: number): fc.Arbitrary<WorldPacket> =>
  fc
    .record({
      source: addressesFor(pods),
      destination: addressesFor(pods),
      protocol: oneOf(...transports, 'ICMP'),
      port: oneOf(...portNumbers),
    })
    .filter(({ source, destination }) => source.includes(':') === destination.includes(':'));
