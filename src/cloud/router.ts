// Ways to containers as extra routes of a router: those of all hosts by one update, whatever has come and gone. Only the router that
// is named is told; what others have of ours goes. What of it is in place is told to hosts that carry by the router. Pure.
import { type Cidr, covers, familyOf } from '#model/ip.ts';
import type { ExtraRoute, NeutronPort, NeutronRouter } from './neutron-schemas.ts';
import { isPaired, isTag, rangeOf, rangesOfTags, rangeTag } from './pairs.ts';
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
  // Routes may be wished for beside another carriage, for whoever is elsewhere.
  if (byRouter.length === 0) return { changes, problems: refused === undefined ? [] : [refused], doubts };
  const known = routers.find(({ id }) => id === target);
  const problems = problemsOf(wish, known, { needs: byRouter, noTarget });
  const leads = new Set(known?.routes.map(keyOf));
  const there = wish.routes.routes.filter((route) => leads.has(keyOf(route)));
  const byHop = Map.groupBy(there, ({ nexthop }) => nexthop);
  const routed = wish.ports.map(({ host, addresses }) => {
    const to = addresses.flatMap((ip) => (byHop.get(ip) ?? []).map(({ destination }) => destination)).toSorted();
    return routedHost(host, to, { port: portOf(host), problem: problems[0] });
  });
  return { changes, problems, doubts, routed };
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

/** Once they are there the router takes them. */
function doubtOf({ name, id, routes }: NeutronRouter, { add, remove }: RouteChange): string[] {
  const count = routes.length + add.length - remove.length;
  if (add.length === 0 || count <= mostRoutes) return [];
  return [
    `Router ${name || id} would have ${count} extra routes, and takes ${mostRoutes} unless the operator of the cloud has set max_routes otherwise`,
  ];
}

/** Routes into our ranges are ours, whoever made them: two ways to one range cannot both be right. */
export function changeOfRoutes(wish: Wish, router: NeutronRouter, target: string | undefined): RouteChange | undefined {
  const { name } = wish;
  const isTarget = router.id === target;
  // What the cloud has refused is left as it is.
  if (isTarget && wish.routes.refused !== undefined) return undefined;
  const { ranges, routes } = isTarget ? wish.routes : { ranges: [], routes: [] };
  const known = [...ranges, ...rangesOfTags(name, router.tags)];
  const isOurs = ({ destination }: ExtraRoute): boolean => {
    const to = rangeOf(destination);
    return to !== undefined && known.some((range) => covers(range, to));
  };
  const tags = routes.length === 0 ? [] : ranges.map((range) => rangeTag(name, range));
  const [wanted, found] = [new Set(routes.map(keyOf)), new Set(router.routes.map(keyOf))];
  const change: RouteChange = {
    add: routes.filter((route) => !found.has(keyOf(route))),
    remove: router.routes.filter((route) => isOurs(route) && !wanted.has(keyOf(route))),
    addTags: tags.filter((tag) => !router.tags.includes(tag)),
    removeTags: router.tags.filter((tag) => isTag(name, tag) && !tags.includes(tag)),
  };
  return Object.values(change).every(({ length }) => length === 0) ? undefined : change;
}
