// What has become of the wishes for load balancers: for the status of services, and for people. Pure.
import type { BalancerPlan } from './balancers.ts';
import type { FloatingPlan, Reached } from './floating.ts';
import type { Wish } from './wish.ts';

/** What has become of the wish for a load balancer. */
export interface Balanced {
  /** Of what is exposed. */
  readonly id: string;
  readonly name: string;
  /** By which clients reach it, as soon as it has one and is finished. */
  readonly address?: string;
  /** Name of the load balancer, where it is there. */
  readonly balancer?: string;
  readonly provider?: string;
  /** What of the wish it does not follow, and what it waits for. */
  readonly notes: readonly string[];
  readonly problems: readonly string[];
}

export function balancedOf(wish: Wish, { found, problems }: BalancerPlan, floating: FloatingPlan): Balanced[] {
  return wish.balancers.map(({ id, name, floating: outside }) => {
    const there = found.get(id);
    const own =
      outside === undefined ? there?.balancer.address : (there?.outside ?? floating.reached.find((one) => one.id === id)?.address);
    const isReached = there?.isMade === true && own !== undefined;
    const notes = there?.isMade === false ? [`Load balancer ${there.balancer.name} is being made by ${there.balancer.provider}`] : [];
    return {
      id,
      name,
      ...(isReached ? { address: own } : {}),
      ...(there === undefined ? {} : { balancer: there.balancer.name, provider: there.balancer.provider }),
      notes: [...notes, ...(there?.notes ?? [])],
      problems: [...problems, ...floating.problems].filter((one) => one.id === id).map(({ text }) => text),
    };
  });
}

/** By its own address; one that is still to be made has none yet. */
export const balancedAlone = ({ balancers }: Wish, { found }: BalancerPlan): Reached[] =>
  balancers
    .filter(({ kind, floating, refused }) => kind === 'Exposure' && floating === undefined && refused === undefined)
    .flatMap(({ id, name }) => {
      const there = found.get(id)?.balancer;
      return there === undefined ? [] : [{ id, exposure: name, host: `load balancer ${there.name}`, address: there.address }];
    });
