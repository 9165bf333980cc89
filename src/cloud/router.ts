// Ways to containers as extra routes of a router: those of all hosts by one update, whatever has come and gone. Only the router that
// is named is told; what other routers have of ours goes, and what others have made stays. What of it is in place is told to hosts that carry by the router. Pure.
import { type Cidr, cidrLength, covers, familyOf } from '#model/ip.ts';
import type { ExtraRoute, NeutronPort, NeutronRouter } from './neutron-schemas.ts';
import { isPaired, isTag, rangeOf, rangesOfTags, rangeTag, theirsTag } from './pairs.ts';
import type { Wish } from './wish.ts';

export interface RouteChange {
  readonly add: readonly ExtraRoute[];
  readonly remove: readonly ExtraRoute[];
  readonly addTags: readonly string[];
  readonly removeTags: readonly string[];
}

export interface Routers {
  readonly routers: readonly NeutronRouter[];
  /** Id of the router that is to know ways to containers. */
  readonly target?: string | undefined;
  /** Why there is none although one is named, a sentence. */
  readonly noTarget?: string;
}

/** What a host that carries by a router has to know. */
export interface RoutedHost {
  /** Its name. */
  readonly host: string;
  /** Blocks that the router leads to it, and that its port may have. */
  readonly to: readonly Cidr[];
  /** Why there are no others, a sentence without a full stop. */
  readonly problem?: string;
}

/** A host's port, or why there is none to speak of. */
export type PortOf = (host: string) => NeutronPort | string;

export interface RouterPlan {
  readonly changes: readonly { readonly router: NeutronRouter; readonly change: RouteChange }[];
  /** Sentences. */
  readonly problems: readonly string[];
  /** What may be in the way, as far as anybody can know. */
  readonly doubts: readonly string[];
  /** Absent: nothing is carried by a router. */
  readonly routed?: readonly RoutedHost[];
}

/** What a router takes by default (max_routes); which number a cloud has, its API does not tell. */
export const mostRoutes = 30;

const keyOf = ({ destination, nexthop }: ExtraRoute): string => `${destination} ${nexthop}`;

/** Routers that carry our tag are looked at, too: what nothing wants any more goes. */
export function planRouters(wish: Wish, { routers, target, noTarget }: Routers, portOf: PortOf): RouterPlan {
  const changes = routers.flatMap((router) => {
    const change = changeOfRoutes(wish, router, target);
    return change === undefined ? [] : [{ router, change }];
  });
  const doubts = changes.flatMap(({ router, change }) => doubtOf(router, change));
  const byRouter = wish.needs.filter(({ isByRouter }) => isByRouter === true);
  const { refused } = wish.routes;
  const known = routers.find(({ id }) => id === target);
  const others = known === undefined ? [] : othersRoutes(wish, known).map((route) => ({ ...route, text: theirsText(known, route) }));
  const theirs = others.map(({ text }) => text);
  // Routes may be wished for beside another carriage, for whoever is elsewhere.
  if (byRouter.length === 0) return { changes, problems: [...(refused === undefined ? [] : [refused]), ...theirs], doubts };
  const problems = problemsOf(wish, known, { needs: byRouter, noTarget });
  const leads = new Set(known?.routes.map(keyOf));
  const there = wish.routes.routes.filter((route) => leads.has(keyOf(route)));
  const byHop = Map.groupBy(there, ({ nexthop }) => nexthop);
  const routed = wish.ports.map(({ host, addresses }) => {
    const to = addresses.flatMap((ip) => (byHop.get(ip) ?? []).map(({ destination }) => destination)).toSorted();
    const own = wish.routes.routes.filter(({ nexthop }) => addresses.includes(nexthop)).map(({ destination }) => destination);
    const taken = others.find((route) => own.includes(route.to))?.text;
    return routedHost(host, to, { port: portOf(host), problem: problems[0] ?? taken });
  });
  return { changes, problems: [...problems, ...theirs], doubts, routed };
}

function routedHost(
  host: string,
  to: readonly Cidr[],
  { port, problem }: { readonly port: NeutronPort | string; readonly problem: string | undefined },
): RoutedHost {
  if (typeof port === 'string') return { host, to: [], problem: port };
  const lacking = port.portSecurity ? to.find((range) => !isPaired(port, range)) : undefined;
  const why = lacking === undefined ? problem : `Port ${port.id} of host ${host} has no allowed address pair for ${lacking}`;
  return { host, to: to.filter((range) => !port.portSecurity || isPaired(port, range)), ...(why === undefined ? {} : { problem: why }) };
}

function problemsOf(
  { routes }: Wish,
  known: NeutronRouter | undefined,
  { needs, noTarget }: { readonly needs: Wish['needs']; readonly noTarget: string | undefined },
): string[] {
  if (known === undefined) {
    const why = noTarget === undefined ? ', and none is named: use --routes, with a controller --cloud-routes' : `: ${noTarget}`;
    return needs.map(({ network }) => `Network ${network} is carried by a router${why}`);
  }
  const lost = (routes.lost ?? []).map(
    ({ host, destination }) => `No router leads to ${destination}: host ${host} has no address of IPv${familyOf(destination)}`,
  );
  return [...(routes.refused === undefined ? [] : [routes.refused]), ...lost];
}

const theirsText = ({ name, id }: NeutronRouter, { destination, nexthop }: ExtraRoute): string =>
  `Router ${name || id} leads to ${destination}, which containers have, by ${nexthop}: Causeway has not made that route and leaves it; remove it (openstack router remove route --route destination=${destination},gateway=${nexthop} ${name || id}), or give the network another range`;

/** Once they are there the router takes them. */
function doubtOf({ name, id, routes }: NeutronRouter, { add, remove }: RouteChange): string[] {
  const count = routes.length + add.length - remove.length;
  if (add.length === 0 || count <= mostRoutes) return [];
  return [
    `Router ${name || id} would have ${count} extra routes, and takes ${mostRoutes} unless the operator of the cloud has set max_routes otherwise`,
  ];
}

const isIn = (ranges: readonly Cidr[], range: Cidr): boolean => ranges.some((one) => covers(one, range));

/**
 * Whether a route that is there is of our making: into a range that the router's tags say to be ours, and for a block as they are there. What
 * was there before the range was ours, and what is for no block, is known by a tag of its own.
 */
function isOurs({ name, routes: { routes } }: Wish, { tags }: NeutronRouter): (route: ExtraRoute) => boolean {
  const tagged = rangesOfTags(name, tags);
  const isBlock = (to: Cidr): boolean => {
    const beside = routes.filter(({ destination }) => tagged.some((range) => covers(range, to) && covers(range, destination)));
    return beside.length === 0 || beside.some(({ destination }) => cidrLength(destination) === cidrLength(to));
  };
  return ({ destination }) => {
    const to = rangeOf(destination);
    return to !== undefined && isIn(tagged, to) && !tags.includes(theirsTag(name, to)) && isBlock(to);
  };
}

/** Of others into ranges of ours: they stay, and where there is one to a block there is none of ours. */
function othersRoutes(wish: Wish, router: NeutronRouter): (ExtraRoute & { readonly to: Cidr })[] {
  const wanted = new Set(wish.routes.routes.map(keyOf));
  const isMine = isOurs(wish, router);
  return router.routes.flatMap((route) => {
    const to = rangeOf(route.destination);
    return to === undefined || !isIn(wish.routes.ranges, to) || wanted.has(keyOf(route)) || isMine(route) ? [] : [{ ...route, to }];
  });
}

export function changeOfRoutes(wish: Wish, router: NeutronRouter, target: string | undefined): RouteChange | undefined {
  const { name } = wish;
  const isTarget = router.id === target;
  // What the cloud has refused is left as it is.
  if (isTarget && wish.routes.refused !== undefined) return undefined;
  const { ranges, routes } = isTarget ? wish.routes : { ranges: [], routes: [] };
  const theirs = isTarget ? othersRoutes(wish, router) : [];
  const taken = new Set<string>(theirs.map(({ to }) => to));
  const able = routes.filter(({ destination }) => !taken.has(destination));
  // Before the range is: from then on they could be ours.
  const tags = able.length === 0 ? [] : [...theirs.map(({ to }) => theirsTag(name, to)), ...ranges.map((range) => rangeTag(name, range))];
  const [wanted, found] = [new Set(routes.map(keyOf)), new Set(router.routes.map(keyOf))];
  const change: RouteChange = {
    add: able.filter((route) => !found.has(keyOf(route))),
    remove: router.routes.filter((route) => !wanted.has(keyOf(route))).filter(isOurs(wish, router)),
    addTags: tags.filter((tag) => !router.tags.includes(tag)),
    removeTags: router.tags.filter((tag) => isTag(name, tag) && !tags.includes(tag)),
  };
  return Object.values(change).every(({ length }) => length === 0) ? undefined : change;
}
