// Answers to who came to a published port or a service by a further interface of the host. The kernel asks for the way of an answer while
// it has the endpoint's address for its sender, so a rule that goes by the sender (`ip rule from ADDRESS lookup TABLE`) does not see the
// one that it will leave with, and it leaves by the main interface, where port security drops it. So such answers are marked by the
// address that their connection was begun with, and a rule beside the administrator's leads them by the same table.
import type { Desired, WayRule } from '#model/desired.ts';
import { familyOf } from '#model/ip.ts';
import { wayMarks } from '#model/numbers.ts';
import type { SourceRule, WaysOut } from '#model/ways-out.ts';

interface Marked extends SourceRule {
  readonly mark: number;
}

/** A bit for each table; tables beyond as many are left to the main one. */
function markedOf({ rules }: Pick<WaysOut, 'rules'> = { rules: [] }): Marked[] {
  const tables = [...new Set(rules.map(({ table }) => table))].toSorted((a, b) => a - b);
  return rules.flatMap((rule) => {
    const mark = wayMarks[tables.indexOf(rule.table)];
    return mark === undefined ? [] : [{ ...rule, mark }];
  });
}

/** The first of the rules that lead to a table stands for them. */
export function planWaysBack(ways: WaysOut | undefined): Partial<Desired> {
  const rules = new Map<string, WayRule>();
  for (const { source, mark, table, priority } of markedOf(ways)) {
    const family = familyOf(source);
    const key = `${family} ${mark}`;
    if (!rules.has(key)) rules.set(key, { netns: '', family, mark, table, priority });
  }
  return { rule: [...rules.values()] };
}

/**
 * Chains of the host's table. Only what leaves the host for the outside: the other tables may know no way to containers. Behind all
 * translation at the entrance, so that the receiver is the last one.
 */
export function markWaysBack(ways: WaysOut | undefined): string {
  const marked = markedOf(ways);
  if (ways === undefined || marked.length === 0) return '';
  const links = ways.links.map((name) => `"${name}"`).join(', ');
  const lines = marked.map(({ source, mark }) => {
    const ip = familyOf(source) === 4 ? 'ip' : 'ip6';
    return `
    ct original ${ip} daddr ${source} meta mark set meta mark | 0x${mark.toString(16)} accept`;
  });
  return `
  chain ways_back {
    type filter hook prerouting priority dstnat + 5; policy accept;
    ct direction reply ct status dnat ip daddr != @ranges4 fib daddr oifname { ${links} } goto way_back
    ct direction reply ct status dnat ip6 daddr != @ranges6 fib daddr oifname { ${links} } goto way_back
  }
  chain way_back {${lines.join('')}
  }`;
}
