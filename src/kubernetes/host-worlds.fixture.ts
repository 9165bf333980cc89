// For tests: random host endpoints of one node with random policies, and packets to, from and through it.
import * as fc from 'fast-check';
import {
  type GlobalPolicyObject,
  type HostEndpointObject,
  type HostPacket,
  type HostRule,
  type HostWorld,
  linkAddresses,
  type LinkName,
  podAddress,
  thisNode,
} from './host-reference.fixture.ts';

/** Who is outside, by the link that leads there. */
export const outsiders = { eth0: '10.213.9.9', eth1: '10.214.9.9' } as const;
export const nodePort = 30_080;
/** 54 and 68 are failsafe in some worlds. */
export const worldPorts = [54, 68, 80, 8080] as const;
/** Of the pod behind the node port. */
export const podPort = 80;

const links: readonly LinkName[] = ['eth0', 'eth1'];
const oneOf = <T>(...items: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...items);
const some = <T>(one: fc.Arbitrary<T>, most: number): fc.Arbitrary<T[]> => fc.array(one, { maxLength: most });
const optional: { requiredKeys: [] } = { requiredKeys: [] };

const labels = oneOf<Readonly<Record<string, string>>>({ role: 'a' }, { role: 'a' }, { role: 'b' }, {});
const selector = oneOf("role == 'a'", "role == 'a'", "role == 'b'", 'all()');
const net = oneOf('0.0.0.0/0', '10.213.0.0/16', '10.214.9.9/32', '10.44.0.0/16', '10.213.9.8/31');
const port = oneOf(...worldPorts, nodePort);

const rule: fc.Arbitrary<HostRule> = fc
  .record(
    {
      action: oneOf('Allow', 'Allow', 'Deny', 'Pass', 'Log'),
      source: fc.record({ nets: fc.array(net, { minLength: 1, maxLength: 2 }), notNets: some(net, 1), selector }, optional),
      destination: fc.record(
        { nets: fc.array(net, { minLength: 1, maxLength: 2 }), ports: fc.array(port, { minLength: 1, maxLength: 3 }) },
        optional,
      ),
    },
    { requiredKeys: ['action'] },
  )
  .map((said): HostRule => ({ protocol: 'UDP', ...said }));

const stage = oneOf<Partial<GlobalPolicyObject['spec']>>(
  {},
  {},
  { applyOnForward: true },
  { applyOnForward: true },
  { preDNAT: true, applyOnForward: true },
  { doNotTrack: true, applyOnForward: true },
  { doNotTrack: true, applyOnForward: true },
);
const policy = fc
  .record({
    stage,
    selector,
    tier: oneOf('first', 'default', 'default'),
    order: oneOf(undefined, 1, 2),
    types: oneOf(['Ingress'], ['Egress'], ['Ingress', 'Egress']),
    ingress: some(rule, 3),
    egress: some(rule, 3),
  })
  .map(({ stage: more, types, ingress, egress, order, ...rest }): GlobalPolicyObject['spec'] => {
    // Before translation there are only packets that come in.
    const kept = more.preDNAT === true ? ['Ingress'] : types;
    return {
      ...rest,
      ...more,
      types: kept,
      ...(order === undefined ? {} : { order }),
      ...(kept.includes('Ingress') ? { ingress } : {}),
      ...(kept.includes('Egress') ? { egress } : {}),
    };
  });

const endpoint: fc.Arbitrary<Omit<HostEndpointObject, 'metadata'> & { labels: Readonly<Record<string, string>> }> = fc.record({
  labels,
  spec: fc
    .record({
      node: oneOf(thisNode, thisNode, thisNode, 'host2'),
      place: oneOf<Partial<HostEndpointObject['spec']>>(
        { interfaceName: '*' },
        { interfaceName: 'eth0' },
        { interfaceName: 'eth1', expectedIPs: [linkAddresses.eth1] },
        { expectedIPs: [linkAddresses.eth0] },
        { expectedIPs: [outsiders.eth1] },
      ),
      profiles: oneOf<string[]>([], ['projectcalico-default-allow']),
    })
    .map(({ place, ...rest }) => ({ ...rest, ...place })),
});

export const hostWorlds: fc.Arbitrary<HostWorld> = fc
  .record({
    endpoints: fc.array(endpoint, { minLength: 1, maxLength: 4 }),
    policies: fc.array(policy, { minLength: 2, maxLength: 7 }),
    podLabels: labels,
    failsafes: oneOf<HostWorld['failsafes']>({ in: [], out: [] }, { in: [68], out: [54] }),
  })
  .map(({ endpoints, policies, ...rest }): HostWorld => ({
    ...rest,
    endpoints: endpoints.map(({ labels: own, spec }, index) => ({ metadata: { name: `endpoint-${index}`, labels: own }, spec })),
    policies: policies.map((spec, index) => ({ metadata: { name: `policy-${index}` }, spec })),
  }));

const link = oneOf(...links);
const worldPort = oneOf(...worldPorts);
export const hostPackets: fc.Arbitrary<HostPacket> = fc.oneof(
  fc.tuple(link, worldPort).map(([at, to]): HostPacket => ({ in: at, source: outsiders[at], destination: linkAddresses[at], port: to })),
  fc.tuple(link, worldPort).map(([at, to]): HostPacket => ({ out: at, source: linkAddresses[at], destination: outsiders[at], port: to })),
  fc.tuple(link, worldPort).map(([at, to]): HostPacket => ({ in: at, source: outsiders[at], destination: podAddress, port: to })),
  fc.tuple(link, worldPort).map(([at, to]): HostPacket => ({ out: at, source: podAddress, destination: outsiders[at], port: to })),
  fc.tuple(link, worldPort).map(([at, to]): HostPacket => {
    const out = at === 'eth0' ? 'eth1' : 'eth0';
    return { in: at, out, source: outsiders[at], destination: outsiders[out], port: to };
  }),
  link.map((at): HostPacket => ({
    in: at,
    source: outsiders[at],
    destination: podAddress,
    port: podPort,
    before: { destination: linkAddresses[at], port: nodePort },
  })),
);
