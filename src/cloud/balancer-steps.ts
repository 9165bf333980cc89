// What a plan finds of load balancers, and the steps of which it consists. Pure.
import type { FoundListener } from './balancer-requests.ts';
import type { ListenerFields, ListenerRequest, LoadBalancerRequest, MemberRequest, MonitorRequest, PoolFields } from './octavia.ts';
import type { HealthMonitor, Listener, LoadBalancer } from './octavia-schemas.ts';

/** A load balancer of the project with what belongs to it; members are known of those listeners that may be Causeway's. */
export interface FoundBalancer {
  readonly balancer: LoadBalancer;
  readonly listeners: readonly FoundListener[];
}

/** The provider came to nothing (ERROR) with what there is of it. */
type Again = true;

export type BalancerStep =
  /** `id`: of what is exposed. */
  | { readonly type: 'make-balancer'; readonly id: string; readonly request: LoadBalancerRequest }
  | { readonly type: 'add-listener'; readonly id: string; readonly balancer: LoadBalancer; readonly request: ListenerRequest }
  | {
      readonly type: 'remove-listener';
      readonly balancer: LoadBalancer;
      readonly listener: Listener;
      /** What comes in its place, and may be refused: tried first. */
      readonly next?: { readonly id: string; readonly request: ListenerRequest };
    }
  | {
      readonly type: 'set-listener';
      /** Of what is exposed. */
      readonly id: string;
      readonly balancer: LoadBalancer;
      readonly listener: Listener;
      readonly fields: ListenerFields;
    }
  | {
      readonly type: 'set-certificate';
      /** Of what is exposed. */
      readonly id: string;
      readonly balancer: LoadBalancer;
      readonly listener: Listener;
      readonly certificate: string;
    }
  /** `pool`: its id. */
  | { readonly type: 'set-pool'; readonly balancer: LoadBalancer; readonly pool: string; readonly fields: PoolFields }
  | {
      readonly type: 'set-members';
      readonly balancer: LoadBalancer;
      /** Id. */
      readonly pool: string;
      readonly members: readonly MemberRequest[];
      readonly again?: Again;
    }
  | {
      readonly type: 'add-monitor';
      /** Of what is exposed. */
      readonly id: string;
      readonly balancer: LoadBalancer;
      /** Id. */
      readonly pool: string;
      readonly request: MonitorRequest;
      readonly again?: Again;
    }
  | { readonly type: 'remove-monitor'; readonly balancer: LoadBalancer; readonly monitor: HealthMonitor; readonly again?: Again }
  | { readonly type: 'set-monitor'; readonly balancer: LoadBalancer; readonly monitor: HealthMonitor; readonly request: MonitorRequest }
  /** `id`: of what it exposes, where that is still wanted. */
  | { readonly type: 'remove-balancer'; readonly balancer: LoadBalancer; readonly id?: string };

const types: ReadonlySet<string> = new Set<BalancerStep['type']>([
  'make-balancer',
  'add-listener',
  'remove-listener',
  'set-listener',
  'set-certificate',
  'set-pool',
  'set-members',
  'add-monitor',
  'remove-monitor',
  'set-monitor',
  'remove-balancer',
]);
export const isBalancerStep = (step: { readonly type: string }): step is BalancerStep => types.has(step.type);

/** Whose the step is that asks for something which may be refused. */
export function askingFor(step: BalancerStep): string | undefined {
  if (step.type === 'remove-listener') return step.next?.id;
  return step.type !== 'remove-balancer' && 'id' in step ? step.id : undefined;
}

type AgainStep = Extract<BalancerStep, { readonly again?: Again }>;
const isAgain = (step: { readonly type: string }): step is AgainStep => isBalancerStep(step) && 'again' in step;

/** Those that would only ask once more for parts of load balancers of which some have been asked for again already. */
export function futileAmong(steps: readonly { readonly type: string }[], taken: readonly { readonly type: string }[]): AgainStep[] {
  const tried = new Set(taken.filter(isAgain).map(({ balancer }) => balancer.id));
  return steps.filter(isAgain).filter(({ balancer }) => tried.has(balancer.id));
}
