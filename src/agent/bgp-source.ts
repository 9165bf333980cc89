// Where an agent learns how its host's BGP speaker is set.
import type { Beyond } from '#drivers/plan.ts';
import type { BgpSettings } from '#model/bgp.ts';
import type { LearnedRoutes } from './learned-routes.ts';

export interface BgpSource {
  /** The same value for as long as nothing has changed; undefined while nothing is known, so that no speaker is planned. */
  current(): BgpSettings | undefined;
  /** Whether that is all there is, as a listing has said. */
  isSynced(): boolean;
}

/** As the plan wants it: settings are absent where nobody sets them, `unknown` where nobody has said yet. */
export const spoken = (source: BgpSource | undefined, learned: LearnedRoutes | undefined): Pick<Beyond, 'bgp' | 'learned'> => ({
  bgp: source === undefined ? undefined : (source.current() ?? 'unknown'),
  learned: learned?.current(),
});
