// Rules of security groups that are wished for: which of them are one to Neutron, which of those that are there, and how few do. Pure.
import type { SecurityGroupRule } from './neutron-schemas.ts';
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

const byName: Readonly<Record<string, number>> = { icmp: 1, tcp: 6, udp: 17, esp: 50, 'ipv6-icmp': 58, icmpv6: 58, sctp: 132 };
export const isOurRule = ({ description }: SecurityGroupRule): boolean => description.startsWith('causeway: ');
export const describeRule = ({ why }: WishedRule): string => `causeway: ${why}`.slice(0, 255);

/** `hosts`: id of the hosts' group. A range of ports or a group of addresses is nothing that we make. */
export function keyOfFound(rule: SecurityGroupRule, hosts: string | undefined): string {
  const { protocol, remoteGroup, remotePrefix, remoteAddressGroup, portMin, portMax } = rule;
  const number = protocol === undefined ? undefined : (byName[protocol] ?? Number(protocol));
  if (portMin !== portMax || remoteAddressGroup !== undefined) return `range ${rule.id}`;
  const remote = remoteGroup === undefined ? remotePrefix : remoteGroup === hosts ? 'hosts' : `group ${remoteGroup}`;
  return keyOfRule({ direction: rule.direction, ethertype: rule.ethertype, protocol: number, port: portMin, remote });
}
