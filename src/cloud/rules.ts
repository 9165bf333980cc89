// Rules of security groups that are wished for: which of them are one to Neutron, and how few do. Pure.
import type { WishedRule } from './wish.ts';

export const ethertypes = { 4: 'IPv4', 6: 'IPv6' } as const;
export const directions = ['ingress', 'egress'] as const;

type RuleIdentity = Omit<WishedRule, 'why' | 'remote'> & { readonly remote?: string | undefined };

/** Identity of a rule: two of the same are one to Neutron, whatever they are for. */
export const keyOfRule = ({ direction, ethertype, protocol, port, remote }: RuleIdentity): string =>
  [direction, ethertype, protocol ?? 'any', port ?? 'all', remote ?? 'anybody'].join(' ');

/**
 * Without doubles, and without what a rule for every protocol with the same remote admits already. Those that are for a load balancer are not one
 * with others: who comes by it is yet to be seen.
 */
export function fewest(rules: readonly WishedRule[]): WishedRule[] {
  const distinct = [...new Map(rules.map((rule) => [`${keyOfRule(rule)} ${rule.balancer ?? ''}`, rule])).values()];
  const whole = new Set(distinct.filter(({ protocol }) => protocol === undefined).map(keyOfRule));
  const isCovered = ({ direction, ethertype, protocol, remote }: WishedRule): boolean =>
    protocol !== undefined && whole.has(keyOfRule({ direction, ethertype, remote }));
  return distinct.filter((rule) => !isCovered(rule));
}
