// A cloud in memory for tests of the plan: what each step does to it, as Neutron would have it afterwards.
import { makeHost } from '#drivers/cluster.fixture.ts';
import type { Exposure } from '#model/resources.ts';
import { type CloudState, changeOfPort, ourGroups, planCloud, portAfter, type Step } from './plan.ts';
import { isBalancerStep } from './balancer-steps.ts';
import { type FloatingStep, isFloatingStep, madeDescription } from './floating.ts';
import type { FloatingIp, NeutronNetwork, NeutronPort, NeutronRouter, SecurityGroup, SecurityGroupRule } from './neutron-schemas.ts';
import { tagOf } from './pairs.ts';
import { descriptionOf, deviceOf, isPooledStep, type PooledStep, portOwner } from './pools.ts';
import { changeOfRoutes } from './router.ts';
import { describeRule } from './rules.ts';
import { isVirtualStep, virtualDevice, virtualOwner, type VirtualStep } from './virtual.ts';
import type { Wish, WishedRule } from './wish.ts';

export const portOf = (index: number, changes: Partial<NeutronPort> = {}): NeutronPort => ({
  id: `port-${index}`,
  name: `node-${index}`,
  networkId: 'net',
  projectId: 'project',
  mac: `fa:16:3e:00:00:0${index}`,
  owner: 'compute:nova',
  device: `vm-${index}`,
  status: 'ACTIVE',
  addresses: [{ ip: makeHost(index).underlay[0]?.ip ?? '', subnetId: 'subnet' }],
  groups: ['theirs'],
  pairs: [],
  portSecurity: true,
  description: '',
  tags: [],
  revision: 1,
  ...changes,
});

/** Of a container `web`. */
export const plainExposure = (id: string, changes: Partial<Exposure> = {}): Exposure => ({
  id,
  name: id,
  revision: 1,
  createdAt: '',
  labels: {},
  network: 'over',
  endpoint: 'web',
  protocol: 'tcp',
  port: 80,
  hostPort: 8080,
  sources: [],
  ...changes,
});

export const routerOf = (changes: Partial<NeutronRouter> = {}): NeutronRouter => ({
  id: 'router',
  name: 'main',
  routes: [],
  externalNetwork: undefined,
  tags: [],
  revision: 1,
  ...changes,
});

export const floatingOf = (address: string, changes: Partial<FloatingIp> = {}): FloatingIp => ({
  id: `floating ${address}`,
  networkId: 'outside',
  address,
  fixedAddress: undefined,
  portId: undefined,
  forwards: [],
  status: 'ACTIVE',
  description: '',
  tags: [],
  revision: 1,
  ...changes,
});

export const ruleOf = (id: string, changes: Partial<SecurityGroupRule> = {}): SecurityGroupRule => ({
  id,
  groupId: 'group',
  direction: 'ingress',
  ethertype: 'IPv4',
  protocol: 'tcp',
  portMin: 22,
  portMax: 22,
  remoteGroup: undefined,
  remotePrefix: '192.0.2.0/24',
  remoteAddressGroup: undefined,
  description: '',
  ...changes,
});

export const stateOf = (changes: Partial<CloudState> = {}): CloudState => ({
  groups: [{ id: 'theirs', name: 'theirs', description: '', tags: [], revision: 1, rules: [] }],
  ports: [portOf(1), portOf(2)],
  instances: { servers: [], hosts: new Map() },
  quotas: { security_group: { limit: 10, used: 1 }, security_group_rule: { limit: 100, used: 4 } },
  networks: [{ id: 'net', name: 'net', projectId: 'project', mtu: 1450, isExternal: false, subnets: ['subnet'] }],
  routers: [],
  floatingIps: [],
  balancers: [],
  ...changes,
});

export const networkOf = (id: string, isExternal: boolean): NeutronNetwork => ({
  id,
  name: id,
  projectId: 'project',
  mtu: 1450,
  isExternal,
  subnets: ['subnet'],
});
/** A cloud whose router leads outside. */
export const routedState = (changes: Partial<CloudState> = {}): CloudState =>
  stateOf({
    ports: [portOf(1), portOf(2), portOf(9, { owner: 'network:router_interface', device: 'router', groups: [] })],
    routers: [routerOf({ externalNetwork: 'outside' })],
    networks: [networkOf('net', false), networkOf('outside', true)],
    ...changes,
  });

function made(rule: WishedRule, group: string, hosts: string | undefined): SecurityGroupRule {
  const { direction, ethertype, protocol, port, remote } = rule;
  return {
    id: `${group} ${direction} ${ethertype} ${protocol} ${port} ${remote}`,
    groupId: group,
    direction,
    ethertype,
    protocol: protocol === undefined ? undefined : String(protocol),
    portMin: port,
    portMax: port,
    remoteGroup: remote === 'hosts' ? hosts : undefined,
    remotePrefix: remote === 'hosts' ? undefined : remote,
    remoteAddressGroup: undefined,
    description: describeRule(rule),
  };
}

const withTrunks = (state: CloudState, change: (trunk: NeutronPort['trunk'] & {}) => NeutronPort['trunk'] & {}): CloudState => ({
  ...state,
  ports: state.ports.map((port) => (port.trunk === undefined ? port : { ...port, trunk: change(port.trunk) })),
});
const attach = (state: CloudState, id: string, subPorts: readonly { readonly id: string; readonly vlan: number }[]): CloudState => {
  const ids = new Set(subPorts.map((one) => one.id));
  const owned = { ...state, ports: state.ports.map((port) => (ids.has(port.id) ? { ...port, owner: 'trunk:subport' } : port)) };
  return withTrunks(owned, (trunk) => (trunk.id === id ? { ...trunk, subPorts: [...trunk.subPorts, ...subPorts] } : trunk));
};

const idOf = (ip: string): string => `pooled ${ip}`;

function performPorts(wish: Wish, state: CloudState, step: PooledStep): CloudState {
  if (step.type === 'regroup-port') {
    const { place, groups } = step.port;
    const regrouped = { groups: groups ?? place.groups ?? ['default'], description: descriptionOf(wish.name, step.port) };
    return { ...state, ports: state.ports.map((port) => (port.id === step.id ? { ...port, ...regrouped } : port)) };
  }
  if (step.type === 'attach-ports') return attach(state, step.trunk, step.ports);
  if (step.type === 'remove-ports') {
    const gone = new Set(step.attached.flatMap(({ ports }) => ports));
    const detached = withTrunks(state, (trunk) => ({ ...trunk, subPorts: trunk.subPorts.filter(({ id }) => !gone.has(id)) }));
    const ids = new Set(step.ports.map(({ id }) => id));
    return { ...detached, ports: detached.ports.filter(({ id }) => !ids.has(id)) };
  }
  const come = step.ports.map(({ host, place, ip, vlan, groups }): NeutronPort => {
    const label = deviceOf(wish.name, host);
    const description = descriptionOf(wish.name, { host, groups });
    const port = { ...portOf(9), id: idOf(ip), networkId: place.network, addresses: [{ ip, subnetId: place.subnet }] };
    return vlan === undefined
      ? { ...port, owner: portOwner, device: label, groups: [ourGroups(wish, state.groups).kept.get(wish.name)?.id ?? 'nowhere'] }
      : { ...port, owner: '', device: '', description, groups: groups ?? place.groups ?? ['default'] };
  });
  const after = { ...state, ports: [...state.ports, ...come] };
  const subPorts = step.ports.flatMap(({ ip, vlan }) => (vlan === undefined ? [] : [{ id: idOf(ip), vlan }]));
  return step.trunk === undefined ? after : attach(after, step.trunk, subPorts);
}

function performVirtual({ name }: Wish, state: CloudState, step: VirtualStep): CloudState {
  if (step.type === 'remove-virtual-port') return { ...state, ports: state.ports.filter((port) => port !== step.port) };
  const { wished, network, subnet } = step;
  const count = state.ports.length;
  const fields = { id: `virtual-${count}`, networkId: network, owner: virtualOwner, device: virtualDevice(name, wished), groups: [] };
  const own = { ip: wished.family === 4 ? `10.213.9.${count}` : `fd00:213::9:${count}`, subnetId: subnet };
  // What Neutron adds of a subnet that gives addresses by SLAAC.
  const addresses = [{ ip: 'fd00:51aa::9', subnetId: 'slaac' }, own];
  return { ...state, ports: [...state.ports, { ...portOf(9), ...fields, addresses }] };
}

function performFloating(wish: Wish, state: CloudState, step: FloatingStep): CloudState {
  switch (step.type) {
    case 'make-floating-ip': {
      const fresh = floatingOf(`203.0.113.${100 + state.floatingIps.length}`, { portId: step.port.id, fixedAddress: step.fixed });
      const fields = { networkId: step.network, tags: step.tags, description: madeDescription(tagOf(wish.name)) };
      return { ...state, floatingIps: [...state.floatingIps, { ...fresh, ...fields }] };
    }
    case 'change-floating-ip': {
      const tags = [...step.floating.tags.filter((tag) => !step.removeTags.includes(tag)), ...step.addTags];
      const target = step.target === undefined ? {} : { portId: step.target.port, fixedAddress: step.target.fixed };
      return { ...state, floatingIps: state.floatingIps.map((one) => (one.id === step.floating.id ? { ...one, tags, ...target } : one)) };
    }
    case 'detach-floating-ip': {
      const detached = { portId: undefined, fixedAddress: undefined };
      return { ...state, floatingIps: state.floatingIps.map((one) => (one.id === step.floating.id ? { ...one, ...detached } : one)) };
    }
    case 'release-floating-ip': {
      const rest = state.floatingIps.filter(({ id }) => id !== step.floating.id);
      if (step.isMade) return { ...state, floatingIps: rest };
      const free = step.isOurs ? { portId: undefined, fixedAddress: undefined } : {};
      return { ...state, floatingIps: [...rest, { ...step.floating, tags: [], ...free }] };
    }
    default:
      throw new TypeError('No such step');
  }
}

/** The cloud after a plan was carried out once. */
export function carriedOut(wish: Wish, state: CloudState): CloudState {
  const plan = planCloud(wish, state);
  return plan.steps.reduce((now, step) => perform(plan.wish, now, step), state);
}

/** The cloud after one step of a plan, with the plan's wish. */
export function perform(wish: Wish, state: CloudState, step: Step): CloudState {
  const inGroups = (change: (group: SecurityGroup) => SecurityGroup): CloudState => ({ ...state, groups: state.groups.map(change) });
  const { kept } = ourGroups(wish, state.groups);
  if (isPooledStep(step)) return performPorts(wish, state, step);
  if (isVirtualStep(step)) return performVirtual(wish, state, step);
  if (isFloatingStep(step)) return performFloating(wish, state, step);
  if (isBalancerStep(step)) throw new TypeError('Load balancers are not played here');
  switch (step.type) {
    case 'make-group': {
      const { name, description } = step.group;
      return {
        ...state,
        groups: [...state.groups, { id: `id of ${name}`, name, description, tags: [tagOf(wish.name)], revision: 1, rules: [] }],
      };
    }
    case 'add-rules':
      return inGroups((group) =>
        group.name === step.group && group === kept.get(step.group)
          ? { ...group, rules: [...group.rules, ...step.rules.map((rule) => made(rule, group.id, kept.get(wish.name)?.id))] }
          : group,
      );
    case 'remove-rules':
      return inGroups((group) => ({ ...group, rules: group.rules.filter((rule) => !step.rules.includes(rule)) }));
    case 'remove-group':
      return { ...state, groups: state.groups.filter(({ id }) => id !== step.group.id) };
    case 'change-routes': {
      const change = changeOfRoutes(wish, step.router, state.target);
      if (change === undefined) return state;
      const routes = [...step.router.routes.filter((route) => !change.remove.includes(route)), ...change.add];
      const tags = [...step.router.tags.filter((tag) => !change.removeTags.includes(tag)), ...change.addTags];
      return { ...state, routers: state.routers.map((router) => (router.id === step.router.id ? { ...router, routes, tags } : router)) };
    }
    case 'change-port': {
      const change = changeOfPort(wish, step.wish, { port: step.port, groups: state.groups });
      if (change === undefined) return state;
      const after = portAfter(step.port, change, (name) => kept.get(name)?.id ?? 'nowhere');
      const tags = [...step.port.tags.filter((tag) => !change.removeTags.includes(tag)), ...change.addTags];
      return { ...state, ports: state.ports.map((port) => (port.id === step.port.id ? { ...port, ...after, tags } : port)) };
    }
    default:
      throw new TypeError('No such step');
  }
}

/** What is open in a cloud: for every port what its groups admit, also to those who come by a floating IP, and the pairs it has. */
export function openings(state: CloudState): Set<string> {
  return new Set(
    state.ports.flatMap((port) => {
      const groups = state.groups.filter(({ id }) => port.groups.includes(id));
      const rules = groups.flatMap((group) =>
        group.rules.map((rule) => `${port.id} ${rule.direction} ${rule.protocol} ${rule.portMin} ${rule.remoteGroup ?? rule.remotePrefix}`),
      );
      const isOutside = state.floatingIps.some(({ portId }) => portId === port.id);
      const outer = groups.flatMap((group) =>
        group.rules.filter(({ direction, remoteGroup }) => direction === 'ingress' && remoteGroup === undefined),
      );
      return [
        ...rules,
        ...(isOutside ? outer.map((rule) => `outside ${port.id} ${rule.protocol} ${rule.portMin} ${rule.remotePrefix}`) : []),
        ...port.pairs.map((pair) => `${port.id} pair ${pair.ip_address}`),
      ];
    }),
  );
}
