import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault } from '#model/fault.ts';
import { bareListener } from './balancers.fixture.ts';
import { floatingOf, portOf, routerOf, ruleOf, stateOf } from './plan.fixture.ts';
import type { SecurityGroup, SecurityGroupRule } from './neutron-schemas.ts';
import { type Opening, openingsTo, type ReachState } from './reach.ts';

const groupOf = (id: string, rules: readonly SecurityGroupRule[], tags: readonly string[] = []): SecurityGroup => ({
  id,
  name: id,
  description: '',
  tags,
  revision: 1,
  rules,
});
const first = portOf(1).addresses[0]?.ip ?? '';
const reach = (changes: Partial<ReachState>): Opening[] => openingsTo({ ...stateOf(), balancers: [], ...changes });
const brief = ({ scope, ports, addresses, protocol, portRange, from, because, isOurs }: Opening): string =>
  `${scope} ${ports.join('+')} at ${addresses.join('+')}: ${protocol} ${portRange} from ${from}, ${because}${isOurs ? ' (ours)' : ''}`;

test('who is reached by a floating IP is open to the world, the others to what routers join', () => {
  const groups = [
    groupOf('theirs', [
      ruleOf('a'),
      ruleOf('b', { protocol: '17', portMin: 5000, portMax: 5010, remotePrefix: '0.0.0.0/0' }),
      ruleOf('c', { direction: 'egress', protocol: undefined, portMin: undefined, portMax: undefined, remotePrefix: undefined }),
      ruleOf('d', { ethertype: 'IPv6' }),
    ]),
  ];
  const floatingIps = [floatingOf('203.0.113.7', { portId: 'port-1', fixedAddress: first })];
  assert.deepEqual(reach({ groups, floatingIps }).map(brief), [
    'outside node-1 at 203.0.113.7: udp 5000-5010 from everybody, security group theirs',
    'outside node-1 at 203.0.113.7: tcp 22 from 192.0.2.0/24, security group theirs',
    'inside node-2 at 10.213.0.2: udp 5000-5010 from everybody, security group theirs',
    'inside node-2 at 10.213.0.2: tcp 22 from 192.0.2.0/24, security group theirs',
  ]);
});

test('what Causeway has opened says for which exposure or network, and what is the same for many ports is said once', () => {
  const groups = [
    groupOf(
      'theirs',
      [
        ruleOf('a', { remotePrefix: undefined, remoteGroup: 'theirs', description: 'causeway: network over' }),
        ruleOf('b', { remotePrefix: undefined, description: 'for me' }),
        ruleOf('c', { protocol: 'icmp', portMin: 8, portMax: 0 }),
      ],
      ['causeway.cw'],
    ),
  ];
  assert.deepEqual(reach({ groups }).map(brief), [
    'inside node-1+node-2 at 10.213.0.1+10.213.0.2: tcp 22 from everybody, security group theirs: for me',
    'inside node-1+node-2 at 10.213.0.1+10.213.0.2: tcp 22 from members of theirs, network over (ours)',
    'inside node-1+node-2 at 10.213.0.1+10.213.0.2: icmp type 8 from 192.0.2.0/24, security group theirs',
  ]);
});

test('without port security, and by groups that the login cannot see, everything is open', () => {
  const ports = [portOf(1, { portSecurity: false, groups: [] }), portOf(2, { groups: ['hidden'] })];
  assert.deepEqual(reach({ ports }).map(brief), [
    'inside node-1 at 10.213.0.1: every protocol all from everybody, port security is off',
    'inside node-2 at 10.213.0.2: every protocol all from everybody, security group hidden, which this login cannot see',
  ]);
});

test('a forwarded port is open as far as its port lets it in', () => {
  const groups = [groupOf('theirs', [ruleOf('a', { portMin: 80, portMax: 90, remotePrefix: undefined })])];
  const forward = { portId: 'port-1', protocol: 'tcp', internalAddress: first, externalPort: 8080 };
  const floatingIps = [
    floatingOf('203.0.113.7', {
      forwards: [
        { ...forward, internalPort: 80 },
        { ...forward, internalPort: 22 },
      ],
    }),
  ];
  const outside = reach({ groups, floatingIps }).filter(({ scope }) => scope === 'outside');
  assert.deepEqual(outside.map(brief), [
    'outside node-1 at 203.0.113.7: tcp 8080 from everybody, forwarded to port 80; security group theirs',
  ]);
});

/** The router's. */
const interfaceOf = (subnetId: string) =>
  portOf(9, { owner: 'network:router_interface', device: 'router', groups: [], addresses: [{ ip: 'fd00::1', subnetId }] });

test('IPv6 behind a router with a way out, and ports on external networks, are outside; ports of the cloud itself do not count', () => {
  const six = portOf(3, { addresses: [{ ip: 'fd00::3', subnetId: 'six' }] });
  const onPublic = portOf(4, { networkId: 'public' });
  const ports = [six, onPublic, interfaceOf('six')];
  const groups = [groupOf('theirs', [ruleOf('a', { remotePrefix: undefined }), ruleOf('b', { ethertype: 'IPv6', remotePrefix: '::/0' })])];
  const networks = [...stateOf().networks, { id: 'public', name: 'public', projectId: '', mtu: 1500, isExternal: true, subnets: [] }];
  const routers = [routerOf({ externalNetwork: 'public' })];
  assert.deepEqual(reach({ ports, groups, networks, routers }).map(brief), [
    'outside node-3 at fd00::3: tcp 22 from everybody, security group theirs',
    'outside node-4 at 10.213.0.4: tcp 22 from everybody, security group theirs',
  ]);
  assert.equal(reach({ ports, groups, networks, routers: [] })[1]?.scope, 'inside');
  const beside = reach({ ports: [six, onPublic, interfaceOf('subnet')], groups, networks, routers });
  assert.equal(beside.find(({ ports: names }) => names.includes('node-3'))?.scope, 'inside', 'no router is on its subnet');
});

test('a range of addresses that Neutron keeps elsewhere is not everybody', () => {
  const groups = [groupOf('theirs', [ruleOf('a', { remotePrefix: undefined, remoteAddressGroup: 'offices' })])];
  assert.equal(reach({ groups })[0]?.from, 'address group offices');
});

test('a load balancer is open by what its listeners say, whatever the groups of its port', () => {
  const balancer = {
    id: 'b',
    name: 'shop',
    description: '',
    projectId: 'project',
    provider: 'ovn',
    address: '10.213.0.9',
    portId: 'port-9',
    subnetId: 'subnet',
    provisioning: 'ACTIVE',
    operating: 'ONLINE',
    tags: ['causeway.cw'],
    listeners: ['l'],
    pools: [],
  };
  const listener = bareListener({ id: 'l', pool: undefined });
  const groups = [groupOf('theirs', [ruleOf('a')])];
  const ports = [portOf(9, { owner: 'Octavia' })];
  const balancers = [{ balancer, listeners: [listener] }];
  assert.deepEqual(reach({ groups, ports, balancers }).map(brief), [
    'inside shop at 10.213.0.9: tcp 80 from whom its members let in, load balancer (ours)',
  ]);
  const floatingIps = [floatingOf('203.0.113.7', { portId: 'port-9', fixedAddress: '10.213.0.9' })];
  const other = { balancer: { ...balancer, provider: 'amphora', tags: [] }, listeners: [{ ...listener, allowedCidrs: ['192.0.2.0/24'] }] };
  assert.deepEqual(reach({ groups, ports, floatingIps, balancers: [other] }).map(brief), [
    'outside shop at 203.0.113.7: tcp 80 from 192.0.2.0/24, load balancer',
  ]);
  // Octavia's ports, and those of OVN's provider, when nobody tells what they take.
  const unread = new Fault('forbidden', 'Octavia refuses GET');
  const vips = [...ports, portOf(8, { name: 'ovn-lb-vip-b', groups: [] })];
  assert.deepEqual(reach({ groups, ports: vips, floatingIps, unread }).map(brief), [
    'outside node-9 at 203.0.113.7: every protocol all from everybody, load balancer, of which Octavia does not tell this login',
    'inside ovn-lb-vip-b at 10.213.0.8: every protocol all from everybody, load balancer, of which Octavia does not tell this login',
  ]);
  const guest = { ...other, listeners: [{ ...listener, tags: ['causeway.cw'] }] };
  assert.match(
    reach({ groups, ports, balancers: [guest] })
      .map(brief)
      .join(),
    /, load balancer \(ours\)$/,
  );
});
