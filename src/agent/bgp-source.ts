// Where an agent learns how its host's BGP speaker is set.
import type { BgpSettings } from '#model/bgp.ts';

export interface BgpSource {
  /** The same value for as long as nothing has changed; undefined while nothing is known, so that no speaker is planned. */
  current(): BgpSettings | undefined;
  /** Whether that is all there is, as a listing has said. */
  isSynced(): boolean;
}

/** As the plan wants it: absent where nobody sets it, `unknown` where nobody has said yet. */
export const settingsOf = (source: BgpSource | undefined): BgpSettings | 'unknown' | undefined =>
  source === undefined ? undefined : (source.current() ?? 'unknown');
