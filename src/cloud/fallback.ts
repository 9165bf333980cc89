// Networks whose packets travel as they are need address pairs and a rule for each range, and by a router its routes. Where a cloud does not
// let that be (the login may not write them, a port would need too many pairs, the quota of rules would not do) they are carried by VXLAN, which needs one
// UDP port between hosts, whichever networks there are; and as they were wanted again as soon as the cloud lets it be.
import { travelsPlain } from '#drivers/passages.ts';
import { covers, parseCidr } from '#model/ip.ts';
import type { Network } from '#model/resources.ts';
import { findPort } from './instances.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronPort, NeutronRouter } from './neutron-schemas.ts';
import { isPaired } from './pairs.ts';
import { type CloudState, pairsTrouble, planCloud } from './plan.ts';
import { isShort, quotaName, type QuotaUse } from './quotas.ts';
import { mayWritePairs, mayWriteRoutes } from './rights.ts';
import { changeOfRoutes } from './router.ts';
import { isForNeed } from './ways.ts';
import { type CloudFacts, type Need, type Wish, type WishedPort, wishOf } from './wish.ts';

export interface Fallback {
  /** To be carried by VXLAN. */
  readonly networks: readonly Network[];
  /** A sentence without a full stop. */
  readonly because: string;
}

export interface Judging {
  readonly neutron: Neutron;
  readonly facts: CloudFacts;
  /** Of the installation. */
  readonly name: string;
}

const carriedBy = (network: Network, carry: Network['choices']['carry']): Network => ({
  ...network,
  choices: { ...network.choices, carry },
});

/** As if nothing else had been wanted. */
export function asCarried(network: Network): Network {
  const { instead: _, ...carried } = network;
  return carried;
}

/** The facts as they will be. Of one that is carried in several ways while it changes each is there for itself. */
export const asIfFallen = (facts: CloudFacts, { networks }: Fallback): CloudFacts => ({
  ...facts,
  networks: facts.networks.map((network) => (networks.includes(network) ? carriedBy(network, 'vxlan') : network)),
});

/** What is needed both before and after, so that nothing is interrupted in between. */
export const asIfBoth = (facts: CloudFacts, wanted: readonly Network[]): CloudFacts => ({
  ...facts,
  networks: [...facts.networks, ...wanted.flatMap((network) => (network.instead ? [carriedBy(network, network.instead.carry)] : []))],
});

interface Placed {
  readonly wished: WishedPort;
  readonly port: NeutronPort;
}

function portsOf(wish: Wish, state: CloudState): Placed[] {
  return wish.ports.flatMap((wished) => {
    const port = findPort(wished, state);
    return typeof port === 'string' || !port.portSecurity ? [] : [{ wished, port }];
  });
}

const lacks = (need: Need, { wished, port }: Placed): boolean =>
  wished.pairs.some((range) => isForNeed(need, range) && !isPaired(port, range));
/** Exposures are no matter of carriages. */
const isTooShort = (use: QuotaUse): boolean => use.name !== 'floatingip' && isShort(use);

/** Which networks the cloud does not let be as they are, but would otherwise. Undefined: none. Faults as mayWritePairs. */
export const fallbackOf = async (judging: Judging, state: CloudState): Promise<Fallback | undefined> =>
  (await fallenForPairs(judging, state)) ?? fallenForRoutes(judging, state);

async function fallenForPairs({ neutron, facts, name }: Judging, state: CloudState): Promise<Fallback | undefined> {
  const wish = wishOf(facts, name);
  const ports = portsOf(wish, state);
  const plain = wish.needs.filter(({ pairs, isInCloud }) => pairs.length > 0 && isInCloud !== true);
  const lacking = plain.filter((need) => ports.some((port) => lacks(need, port)));
  const [first] = ports.filter((port) => lacking.some((need) => lacks(need, port)));
  if (first === undefined) return undefined;
  const names = new Set(lacking.map(({ network }) => network));
  const networks = facts.networks.filter((network) => names.has(network.name) && travelsPlain(network));
  if (!(await mayWritePairs(neutron, first.port)))
    return { networks, because: 'the login to the cloud may not write allowed address pairs' };
  const trouble = pairsTrouble(wish, state);
  if (trouble !== undefined) return { networks, because: trouble };
  const short = planCloud(wish, state).quotas.find(isTooShort);
  if (short === undefined) return undefined;
  const fallback = { networks, because: `the quota of ${quotaName(short)}s would not do: ${short.most} needed, ${short.limit} allowed` };
  const isHelp = !planCloud(wishOf(asIfFallen(facts, fallback), name), state).quotas.some(isTooShort);
  return isHelp ? fallback : undefined;
}

const targetOf = ({ routers, target }: CloudState): NeutronRouter | undefined => routers.find(({ id }) => id === target);

/** Those for which the router that is named lacks a way. */
async function fallenForRoutes({ neutron, facts, name }: Judging, state: CloudState): Promise<Fallback | undefined> {
  const wish = wishOf(facts, name);
  const router = targetOf(state);
  const { add = [] } = (router === undefined ? undefined : changeOfRoutes(wish, router, router.id)) ?? {};
  const isLacking = ({ isByRouter, pairs }: Need): boolean =>
    isByRouter === true && add.some(({ destination }) => pairs.some((range) => covers(range, parseCidr(destination))));
  const names = new Set(wish.needs.filter(isLacking).map(({ network }) => network));
  if (router === undefined || names.size === 0 || (await mayWriteRoutes(neutron, router))) return undefined;
  return {
    networks: facts.networks.filter(({ name: network, choices }) => names.has(network) && choices.carry === 'routes'),
    because: `the login to the cloud may not write routes of router ${router.name || router.id}`,
  };
}

/** Networks that are carried otherwise than was wanted and need not be any more. Faults as mayWritePairs. */
export async function restorable({ neutron, facts, name }: Judging, state: CloudState): Promise<readonly Network[]> {
  const fallen = facts.networks.filter(({ instead, deletedAt }) => instead !== undefined && deletedAt === undefined);
  if (fallen.length === 0) return [];
  const wish = wishOf(asIfBoth(facts, fallen), name);
  const [first] = portsOf(wish, state);
  if (first === undefined || pairsTrouble(wish, state) !== undefined || planCloud(wish, state).quotas.some(isTooShort)) return [];
  if (!(await mayWritePairs(neutron, first.port))) return [];
  const router = targetOf(state);
  const others = fallen.filter(({ instead }) => instead?.carry !== 'routes');
  if (others.length === fallen.length || router === undefined || (await mayWriteRoutes(neutron, router))) return fallen;
  return others;
}
