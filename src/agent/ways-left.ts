// What becomes of the ways that packets were on when others come in their place. Until the new are there packets go by the old; and by a
// tunnel others may send for a while longer, as hosts change one after the other: it stays to receive when nobody here sends by it any more.
import type { KindName, Netns } from '#model/desired.ts';
import { type Changes, type Item, netnsOf, placeOf } from './changes.ts';

/** What packets find their way by. */
const ways: readonly KindName[] = ['addr', 'fdb', 'neigh', 'route'];
/** What the kernel takes away with their links: it is not asked to before. A tunnel is stopped some time before its routes go. */
const alongWithLinks: readonly KindName[] = ['addr', 'neigh', 'fdb', 'route', 'proxy', 'fast'];

export const goesAlong = (kind: KindName, item: Item, links: ReadonlyMap<string, Item>): boolean => {
  const link = links.size > 0 && alongWithLinks.includes(kind) ? links.get(linkOf(item)) : undefined;
  return link !== undefined && !(kind === 'route' && isTunnel(link));
};

/** As placeOf() of the link that it hangs on. */
export const linkOf = (item: Item): string => ('link' in item && item.link !== undefined ? `${netnsOf(item)} ${item.link}` : '');
const isTunnel = (item: Item): boolean => 'type' in item && (item.type === 'vxlan' || item.type === 'wireguard');

/**
 * What goes last. Where routes come, of ways all; and links, with what they are set to, where routes lead elsewhere that led over them, and
 * tunnels whose routes go. Other links go first, as one of the same number may be wanted in another place.
 */
export function followersOf(changes: readonly Changes[]): ReadonlySet<Item> {
  const routes = changes.find(({ kind }) => kind === 'route');
  const places = new Set(routes?.add.map(netnsOf));
  const links = leftLinks(changes, places);
  const those = changes.map(({ kind, remove }) => {
    if (ways.includes(kind)) return remove.filter((item) => places.has(netnsOf(item)));
    return kind === 'link' || kind === 'wireguard' ? remove.filter((item) => links.has(linkOf(item)) || links.has(placeOf(item))) : [];
  });
  return new Set(those.flat());
}

const leftLinks = (changes: readonly Changes[], places: ReadonlySet<Netns>): ReadonlySet<string> =>
  new Set([...(changes.find(({ kind }) => kind === 'route')?.replaced.map(linkOf) ?? []), ...leftTunnels(changes, places)]);

/** Where routes come and no other tunnel. Theirs go with them, so not before what else leads there (unreachable) has gone. */
function leftTunnels(changes: readonly Changes[], places: ReadonlySet<Netns>): string[] {
  const left = new Set(makesTunnel(changes) ? [] : goingTunnels(changes));
  const routes = changes.find(({ kind }) => kind === 'route')?.remove ?? [];
  return routes.filter((route) => places.has(netnsOf(route)) && left.has(linkOf(route))).map(linkOf);
}

const linksOf = (changes: readonly Changes[]): Changes | undefined => changes.find(({ kind }) => kind === 'link');
/** Places of links. */
const goingTunnels = (changes: readonly Changes[]): string[] => linksOf(changes)?.remove.filter(isTunnel).map(placeOf) ?? [];

/** A new one: it may have the number of one that was left. */
function makesTunnel(changes: readonly Changes[]): boolean {
  const links = linksOf(changes);
  return links?.add.some((item) => isTunnel(item) && !links.changed.has(item)) === true;
}

/** What other hosts may still send by. Only this process knows of it: where it ends the next one sees what nobody wants. */
export class LeftTunnels {
  readonly #lingerMs: number;
  /** Places of links, and until when they stay. */
  readonly #until = new Map<string, number>();

  constructor(lingerMs: number) {
    this.#lingerMs = lingerMs;
  }

  /** Until the first of them goes. */
  get lingersMs(): number | undefined {
    return this.#until.size === 0 ? undefined : Math.max(0, Math.min(...this.#until.values()) - performance.now());
  }

  /** The same without the removal of tunnels that stay, and of what hangs on them but for routes. */
  withoutThem(changes: readonly Changes[]): readonly Changes[] {
    const going = goingTunnels(changes);
    if (going.length === 0 || makesTunnel(changes)) this.#until.clear();
    else this.#note(changes, going);
    if (this.#until.size === 0) return changes;
    return changes.map((change) => ({ ...change, remove: change.remove.filter((item) => !this.#stays(change.kind, item)) }));
  }

  #note(changes: readonly Changes[], going: readonly string[]): void {
    const now = performance.now();
    const left = leftLinks(changes, new Set(changes.find(({ kind }) => kind === 'route')?.add.map(netnsOf)));
    const stay = going.flatMap((place): [string, number][] => {
      const until = this.#until.get(place) ?? (left.has(place) ? now + this.#lingerMs : now);
      return until > now ? [[place, until]] : [];
    });
    this.#until.clear();
    for (const [place, until] of stay) this.#until.set(place, until);
  }

  #stays(kind: KindName, item: Item): boolean {
    return kind !== 'route' && (this.#until.has(linkOf(item)) || (kind === 'link' && this.#until.has(placeOf(item))));
  }
}
