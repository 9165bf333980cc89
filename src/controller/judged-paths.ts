// What a host's probes say about it. A packet that another host did not answer is held against the way between them only if that host
// has reported since: otherwise the host itself may be what is not there, which is said of it and not of all the others.
import { lostSentence, narrowSentence, type LostPath, type Paths } from '#model/paths.ts';
import type { Control } from './control.ts';

/** A report may have been on its way when the first packet was lost. */
const marginMs = 2_000;

export interface JudgedPaths {
  /** Every sort of packet that its networks need reaches some host, as far as any was there to be reached. */
  readonly isReady: boolean;
  readonly failing: readonly string[];
}

export function judgePaths({ mirror, now }: Pick<Control, 'mirror' | 'now'>, paths: Paths | undefined): JudgedPaths {
  if (paths === undefined) return { isReady: true, failing: [] };
  const at = now().getTime();
  const wasThere = ({ host, seconds }: LostPath): boolean => {
    const status = mirror.all('hosts').get(host)?.status;
    // One that tells of no probes answers none.
    return status?.paths !== undefined && Date.parse(status.seenAt) > at - seconds * 1000 + marginMs;
  };
  const lost = paths.lost.filter(wasThere);
  return { isReady: !lost.some(({ isAlone }) => isAlone), failing: [...lost.map(lostSentence), ...paths.narrow.map(narrowSentence)] };
}
