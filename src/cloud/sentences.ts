// The steps of a plan for people: what is added, changed or removed, and in detail.
import { type BalancerStep, isBalancerStep } from './balancer-steps.ts';
import { type FloatingStep, isFloatingStep } from './floating.ts';
import type { ListenerRequest, MemberRequest, PoolFields } from './octavia.ts';
import type { Step } from './plan.ts';
import { isPooledStep, type PooledStep } from './pools.ts';
import { isVirtualStep, type VirtualStep } from './virtual.ts';
import type { WishedRule } from './wish.ts';

const remoteText = ({ remote, direction }: WishedRule): string =>
  `${direction === 'ingress' ? 'from' : 'to'} ${remote === 'hosts' ? 'hosts' : (remote ?? 'everybody')}`;
const protocolText = ({ protocol, port }: WishedRule): string =>
  protocol === undefined ? 'every protocol' : `protocol ${protocol}${port === undefined ? '' : ` port ${port}`}`;
const ruleText = (rule: WishedRule): string => `${rule.ethertype} ${protocolText(rule)} ${remoteText(rule)}`;
const list = (what: string, values: readonly string[]): string[] => (values.length === 0 ? [] : [`${what} ${values.join(', ')}`]);

const memberText = ({ name, address, protocol_port: port }: MemberRequest): string => `${name ?? address}:${port}`;

const clientsText = (clients: readonly string[] | undefined): string =>
  clients === undefined || clients.length === 0 ? '' : ` for ${clients.join(', ')}`;

const listenerText = ({ protocol, protocol_port: port, default_pool: pool, allowed_cidrs: clients }: ListenerRequest): string =>
  `${protocol} ${port} to ${pool.members.map(memberText).join(', ') || 'nobody'}${clientsText(clients)}`;

const choiceText = ({ lb_algorithm: algorithm, session_persistence: persistence }: PoolFields): string =>
  `chooses hosts by ${algorithm}${persistence ? ', clients stay with their host' : ''}`;

export interface StepView {
  readonly action: 'add' | 'change' | 'remove';
  readonly object: string;
  readonly detail: readonly string[];
}

const orTags = (parts: readonly string[]): readonly string[] => (parts.length === 0 ? ['tags'] : parts);

const changed = ({ balancer }: { readonly balancer: { readonly name: string } }, detail: string): StepView => ({
  action: 'change',
  object: `load balancer ${balancer.name}`,
  detail: [detail],
});

function balancerView(step: BalancerStep): StepView {
  switch (step.type) {
    case 'make-balancer':
      return {
        action: 'add',
        object: `load balancer ${step.request.name}`,
        detail: [
          ...list('of provider', step.request.provider === undefined ? [] : [step.request.provider]),
          ...step.request.listeners.map(listenerText),
        ],
      };
    case 'add-listener':
      return changed(step, `with ${listenerText(step.request)}`);
    case 'remove-listener':
      return changed(step, `without ${step.listener.protocol} ${step.listener.port}`);
    case 'set-listener':
    case 'set-certificate':
      return changed(step, settingText(step));
    case 'set-pool':
      return changed(step, choiceText(step.fields));
    case 'add-monitor':
    case 'set-monitor':
      return changed(step, `probes every ${step.request.delay} s, for ${step.request.timeout} s`);
    case 'remove-monitor':
      return changed(step, 'probes no more');
    case 'set-members':
      return changed(step, `leads to ${step.members.map(memberText).join(', ') || 'nobody'}`);
    case 'remove-balancer':
      return { action: 'remove', object: `load balancer ${step.balancer.name}`, detail: [`at ${step.balancer.address}`] };
    default:
      throw new TypeError('Broken invariant: a step of no known type');
  }
}

function settingText(step: Extract<BalancerStep, { type: 'set-listener' | 'set-certificate' }>): string {
  const { protocol, port } = step.listener;
  if (step.type === 'set-certificate') return `${protocol} ${port} by certificate ${step.certificate}`;
  const { allowed_cidrs: clients, description } = step.fields;
  const who = clientsText(clients) || ' for everybody';
  return `${protocol} ${port}${who}${description ? ` with ${description}` : ''}`;
}

function floatingView(step: FloatingStep): StepView {
  switch (step.type) {
    case 'make-floating-ip':
      return { action: 'add', object: `floating IP of ${step.host}`, detail: [`to ${step.fixed} of port ${step.port.id}`] };
    case 'change-floating-ip': {
      const { floating, host, target } = step;
      return {
        action: 'change',
        object: `floating IP ${floating.address}`,
        detail: [target === undefined ? 'tags' : `to ${target.fixed} of port ${target.port} (${host})`],
      };
    }
    case 'detach-floating-ip':
      return { action: 'change', object: `floating IP ${step.floating.address}`, detail: [`off port ${step.floating.portId} first`] };
    case 'release-floating-ip':
      return { action: 'remove', object: `floating IP ${step.floating.address}`, detail: [step.isMade ? 'given back' : 'is free again'] };
    default:
      throw new TypeError('Broken invariant: a step of no known type');
  }
}

function pooledView(step: PooledStep): StepView {
  if (step.type === 'make-ports')
    return {
      action: 'add',
      object: `${step.trunk === undefined ? 'ports' : 'sub-ports'} for containers of ${step.host}`,
      detail: [step.ports.map(({ ip, vlan }) => `${ip}${vlan === undefined ? '' : ` in VLAN ${vlan}`}`).join(', ')],
    };
  if (step.type === 'attach-ports')
    return {
      action: 'change',
      object: `trunk of ${step.host} (${step.trunk})`,
      detail: list('with', [step.ports.map(({ ip, vlan }) => `${ip} in VLAN ${vlan}`).join(', ')]),
    };
  if (step.type === 'regroup-port') {
    const { ip, host, groups } = step.port;
    return {
      action: 'change',
      object: `sub-port of ${ip} on ${host}`,
      detail: list('in groups', [groups?.join(', ') ?? 'of its network']),
    };
  }
  const ips = step.ports.flatMap(({ addresses }) => addresses.map(({ ip }) => ip));
  return { action: 'remove', object: 'ports for containers', detail: [ips.join(', ')] };
}

function virtualView(step: VirtualStep): StepView {
  if (step.type === 'make-virtual-port') {
    const { what, hosts } = step.wished;
    return { action: 'add', object: `virtual address of ${what}`, detail: [`moves between ${hosts.map(({ host }) => host).join(', ')}`] };
  }
  const { name, id, addresses } = step.port;
  return { action: 'remove', object: `virtual address ${name || id}`, detail: [addresses.map(({ ip }) => ip).join(', ')] };
}

export function viewOf(step: Step): StepView {
  if (isBalancerStep(step)) return balancerView(step);
  if (isFloatingStep(step)) return floatingView(step);
  if (isPooledStep(step)) return pooledView(step);
  if (isVirtualStep(step)) return virtualView(step);
  switch (step.type) {
    case 'make-group':
      return { action: 'add', object: `security group ${step.group.name}`, detail: [step.group.description] };
    case 'add-rules':
      return { action: 'add', object: `rules of ${step.group}`, detail: step.rules.map(ruleText) };
    case 'change-port': {
      const { joins, leaves, addPairs, removePairs } = step.change;
      const parts = [...list('joins', joins), ...list('leaves', leaves), ...list('pairs', addPairs), ...list('without pairs', removePairs)];
      const which = step.instance === undefined ? step.port.id : `${step.port.id} of instance ${step.instance}`;
      return { action: 'change', object: `port of ${step.wish.host} (${which})`, detail: orTags(parts) };
    }
    case 'change-routes': {
      const to = (routes: typeof step.change.add): string[] => routes.map(({ destination, nexthop }) => `${destination} via ${nexthop}`);
      const parts = [...list('routes', to(step.change.add)), ...list('without routes', to(step.change.remove))];
      return { action: 'change', object: `router ${step.router.name || step.router.id}`, detail: orTags(parts) };
    }
    case 'remove-rules':
      return {
        action: 'remove',
        object: `rules of ${step.group}`,
        detail: step.rules.map(({ description, direction }) => `${direction}, ${description}`),
      };
    case 'remove-group':
      return { action: 'remove', object: `security group ${step.group.name}`, detail: [`with ${step.group.rules.length} rules`] };
    default:
      throw new TypeError('Broken invariant: a step of no known type');
  }
}

export const sentence = (step: Step): string => {
  const { action, object, detail } = viewOf(step);
  return `${action} ${object}: ${detail.join('; ')}`;
};
