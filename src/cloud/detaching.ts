// Floating IPs that are taken off before anything opens: those that go to another host, where the one that they leave opens a port meanwhile,
// which would be reached from outside for a while. All others go in one move at the end, so that nobody misses them for longer. Pure.
import type { FloatingStep } from './floating.ts';
import type { CloudState } from './plan.ts';
import type { PortOf } from './router.ts';
import { keyOfFound, keyOfRule } from './rules.ts';
import type { Wish, WishedPort } from './wish.ts';

/** `hosts`: id of the hosts' group. */
export function detachments(
  changes: readonly FloatingStep[],
  {
    wish,
    hosts,
    state,
    portOf,
  }: { readonly wish: Wish; readonly hosts: string | undefined; readonly state: CloudState; readonly portOf: PortOf },
): FloatingStep[] {
  const wished = new Map(
    wish.ports.flatMap((one): [string, WishedPort][] => {
      const port = portOf(one.host);
      return typeof port === 'string' ? [] : [[port.id, one]];
    }),
  );
  const isOpening = (id: string): boolean => {
    const own = state.ports.find((port) => port.id === id)?.groups ?? [];
    const open = new Set(
      state.groups.filter((group) => own.includes(group.id)).flatMap(({ rules }) => rules.map((rule) => keyOfFound(rule, hosts))),
    );
    const names = wished.get(id)?.groups ?? [];
    return wish.groups.some(
      ({ name, rules }) =>
        names.includes(name) && rules.some((rule) => rule.direction === 'ingress' && rule.remote !== 'hosts' && !open.has(keyOfRule(rule))),
    );
  };
  return changes.flatMap((step): FloatingStep[] => {
    if (step.type !== 'change-floating-ip' || step.target === undefined) return [];
    const { floating, exposures } = step;
    const isMoving = floating.portId !== undefined && floating.portId !== step.target.port && isOpening(floating.portId);
    return isMoving ? [{ type: 'detach-floating-ip', floating, exposures }] : [];
  });
}
