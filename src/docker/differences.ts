// What tells two networks of one name apart for their users: two hosts were asked for "the same" network at the same moment, and
// one of the two must give way. What nobody chose (a subnet, a VNI) may differ.
import type { LocalAgent } from '#api/local.ts';
import { contains, familyOf } from '#model/ip.ts';
import type { Network, Pool } from '#model/resources.ts';
import type { EngineNetwork } from './engine.ts';
import { dockerLabels } from './networks.ts';

interface Sides {
  /** The network that has the name. */
  readonly first: Network;
  readonly firstPools: readonly Pool[];
  readonly late: Network;
  readonly latePools: readonly Pool[];
}

const yesNo = (flag: boolean): string => (flag ? 'yes' : 'no');

/** One sentence for each, in the words of `docker network create`; empty when a user could not tell one from the other. */
export function differencesOf(agent: Pick<LocalAgent, 'pools'>, first: Network, late: Network, one: EngineNetwork): string[] {
  const sides: Sides = { first, late, firstPools: agent.pools(first.id), latePools: agent.pools(late.id) };
  const rows: readonly (readonly [what: string, there: string, here: string])[] = [
    ['model', first.model, late.model],
    ['encrypted', yesNo(first.encrypted), yesNo(late.encrypted)],
    ...(first.encrypted === late.encrypted ? [['carry', first.choices.carry, late.choices.carry] as const] : []),
    ['tenant', first.tenant, late.tenant],
    ['internal', yesNo(first.internal), yesNo(late.internal)],
    ['mtu', String(first.mtu ?? 'automatic'), String(late.mtu ?? 'automatic')],
    ...(one.options['vni'] === undefined ? [] : [['vni', String(first.vni), String(late.vni)] as const]),
    ['IPv6', yesNo(hasIpv6(sides.firstPools)), yesNo(hasIpv6(sides.latePools))],
    ['labels', labelsOf(first.labels), labelsOf(one.labels)],
    ...subnetRows(sides),
  ];
  return rows.filter(([, there, here]) => there !== here).map(([what, there, here]) => `${what}: ${there} there, ${here} here`);
}

const hasIpv6 = (pools: readonly Pool[]): boolean => pools.some(({ cidr }) => familyOf(cidr) === 6);

/** Labels of a user's; which version of Compose wrote them is no difference. */
const labelsOf = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .filter(([key]) => !key.startsWith('causeway.') && key !== 'com.docker.compose.version')
    .map(([key, value]) => `${key}=${value}`)
    .toSorted()
    .join(' ') || 'none';

/** Only subnets that the user of the late one named, with all that he said of them. */
function subnetRows({ firstPools, late, latePools }: Sides): (readonly [string, string, string])[] {
  const chosen = new Set((late.labels[dockerLabels.subnets] ?? '').split(' '));
  return latePools
    .filter(({ cidr }) => chosen.has(cidr))
    .map((pool) => {
      const same = firstPools.find(({ cidr }) => cidr === pool.cidr);
      const family = firstPools.filter(({ cidr }) => familyOf(cidr) === familyOf(pool.cidr));
      return [
        'subnet',
        same === undefined ? family.map(({ cidr }) => cidr).join(' ') || 'none' : textOf(same),
        same === undefined ? pool.cidr : textOf(pool),
      ] as const;
    });
}

/** A gateway that is the subnet's first address need not have been chosen. */
const textOf = ({ cidr, range, gateway, reserved }: Pool): string =>
  [
    cidr,
    ...(range === undefined ? [] : [`ip-range ${range}`]),
    ...(gateway === undefined || !contains(cidr, gateway) ? [] : [`gateway ${gateway}`]),
    ...Object.entries(reserved)
      .map(([name, value]) => `aux-address ${name}=${value}`)
      .toSorted(),
  ].join(', ');
