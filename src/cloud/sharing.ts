// Which security groups open hosts for exposures: hosts with the same openings share one, so their number is that of different openings and
// not that of hosts. A group that is there is used on where nobody is let in by it on the way: one with just these rules, or one that no
// other host is in, whose rules are then made to be these. Pure.
import type { NeutronPort, SecurityGroup, SecurityGroupRule } from './neutron-schemas.ts';
import { tagOf } from './pairs.ts';
import type { PortOf } from './router.ts';
import { describeRule, isOurRule, keyOfFound, keyOfRule } from './rules.ts';
import type { Wish, WishedGroup, WishedRule } from './wish.ts';

interface There {
  readonly groups: readonly SecurityGroup[];
  readonly ports: readonly NeutronPort[];
}

/** The same openings on several hosts. */
interface Openings {
  readonly asked: WishedGroup;
  readonly content: string;
  /** Id of a group with others' rules, in which these hosts are and no other host is to be. */
  readonly only: string | undefined;
  /** Names of groups, one of each host, that stand for this one. */
  readonly places: Set<string>;
  /** Ids. */
  readonly ports: Set<string>;
}

const contentOf = (rules: readonly string[]): string => [...new Set(rules)].toSorted().join('\n');
const wishedLine = (rule: WishedRule): string => `${keyOfRule(rule)} ${describeRule(rule)}`;
const foundLine = (rule: SecurityGroupRule): string => `${keyOfFound(rule, undefined)} ${rule.description}`;
const isOthers = ({ rules }: SecurityGroup): boolean => !rules.every(isOurRule);

/** Of what is exposed; of several with one name the first by id. */
function exposing({ name }: Wish, { groups }: There): SecurityGroup[] {
  const found = groups.filter((group) => group.tags.includes(tagOf(name)) && group.name.startsWith(`${name}-exposed-`));
  const sorted = found.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  return [...new Map(sorted.toReversed().map((group) => [group.name, group])).values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

/** The wish with groups that hosts share in the place of those of each host. */
export function shared(wish: Wish, there: There, portOf: PortOf): Wish {
  const found = exposing(wish, there);
  if (wish.isInner === true) return asTheyAre(wish, found, portOf);
  const all = openingsOf(wish, found, portOf);
  const chosen = chosenOf(all, found, there.ports);
  const taken = new Set(found.map(({ name }) => name));
  const names = new Map<string, string>();
  const groups = all.map((one): WishedGroup => {
    const name = chosen.get(one)?.name ?? freeName(wish.name, taken);
    taken.add(name);
    for (const place of one.places) names.set(place, name);
    return { name, description: one.asked.description, rules: one.asked.rules };
  });
  return {
    ...wish,
    groups: [...wish.groups.filter(({ host }) => host === undefined), ...groups],
    ports: wish.ports.map((port) => ({ ...port, groups: port.groups.map((name) => names.get(name) ?? name) })),
  };
}

function freeName(name: string, taken: ReadonlySet<string>): string {
  for (let number = 1; ; number++) {
    const free = `${name}-exposed-${number}`;
    if (!taken.has(free)) return free;
  }
}

/** Nothing of them is changed, nor who is in them. */
function asTheyAre(wish: Wish, found: readonly SecurityGroup[], portOf: PortOf): Wish {
  const others = wish.groups.filter(({ host }) => host === undefined);
  const names = new Set(others.map(({ name }) => name));
  const groups = found.map(({ name, description }): WishedGroup => ({ name, description, rules: [], isPartial: true }));
  const ports = wish.ports.map((wished) => {
    const port = portOf(wished.host);
    const own = typeof port === 'string' ? [] : found.filter(({ id }) => port.groups.includes(id));
    return { ...wished, groups: [...wished.groups.filter((name) => names.has(name)), ...own.map(({ name }) => name)] };
  });
  return { ...wish, groups: [...others, ...groups], ports };
}

function openingsOf(wish: Wish, found: readonly SecurityGroup[], portOf: PortOf): Openings[] {
  const all = new Map<string, Openings>();
  for (const asked of wish.groups) {
    if (asked.host === undefined) continue;
    const port = portOf(asked.host);
    const content = contentOf(asked.rules.map(wishedLine));
    const only = typeof port === 'string' ? undefined : found.find((group) => isOthers(group) && port.groups.includes(group.id))?.id;
    const key = `${only ?? ''}\n${content}`;
    const one = all.get(key) ?? { asked, content, only, places: new Set(), ports: new Set() };
    one.places.add(asked.name);
    if (typeof port !== 'string') one.ports.add(port.id);
    all.set(key, one);
  }
  return [...all.values()];
}

/** Of those that will do the one that most of the hosts are in. */
function chosenOf(
  all: readonly Openings[],
  found: readonly SecurityGroup[],
  ports: readonly NeutronPort[],
): ReadonlyMap<Openings, SecurityGroup> {
  const members = new Map(found.map((group) => [group, ports.filter(({ groups }) => groups.includes(group.id)).map(({ id }) => id)]));
  const chosen = new Map<Openings, SecurityGroup>();
  const used = new Set<SecurityGroup>();
  const hasSame = (group: SecurityGroup, { content }: Openings): boolean =>
    contentOf(group.rules.filter(isOurRule).map(foundLine)) === content;
  const isTheirsAlone = (group: SecurityGroup, one: Openings): boolean => (members.get(group) ?? []).every((id) => one.ports.has(id));
  for (const will of [hasSame, isTheirsAlone])
    for (const one of all.filter((openings) => !chosen.has(openings))) {
      const able = found.filter((group) => !used.has(group) && (!isOthers(group) || group.id === one.only) && will(group, one));
      const inside = (group: SecurityGroup): number => (members.get(group) ?? []).filter((id) => one.ports.has(id)).length;
      const [best] = able.toSorted((a, b) => inside(b) - inside(a));
      if (best === undefined) continue;
      chosen.set(one, best);
      used.add(best);
    }
  return chosen;
}
