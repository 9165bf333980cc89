// What a node's probes have found, as a condition of its Node says it. There is no controller that judges it, so a node tells what it has
// seen itself: ways to nodes that the cluster calls ready, that were lost when they were tried again, too.
import { eaten, type HostPackets, type LostPath, type NarrowPath, type Paths } from '#model/paths.ts';
import { firstOf } from '#model/words.ts';

export interface PathsWord {
  readonly isGood: boolean;
  readonly reason: string;
  readonly message: string;
}

/** What is lost is tried in every turn, which takes longer. */
const patienceSeconds = 10;
const mostNamed = 5;
/** Of the message; people read it in `kubectl describe`. */
const mostWords = 1_000;

function namesOf(hosts: readonly string[]): string {
  const names = [...new Set(hosts)].toSorted();
  return `${names.length === 1 ? 'node' : 'nodes'} ${firstOf(names, mostNamed)}`;
}

/** One sentence for each sort of packet, the ranges of each node not named. */
function lostWords(lost: readonly LostPath[]): string[] {
  const bySort = Map.groupBy(lost, ({ sort, what }) => (sort === 'plain' ? '' : what));
  return [...bySort.values()].flatMap((some) =>
    some.slice(0, 1).map(({ sort, what }) => {
      const subject = sort === 'plain' ? 'Packets of pods as they are do' : `${what} does`;
      return `${subject} not reach ${namesOf(some.map(({ host }) => host))}. ${eaten[sort]}, or no agent runs there`;
    }),
  );
}

function narrowWords(narrow: readonly NarrowPath[]): string[] {
  const byMtu = Map.groupBy(narrow, ({ mtu, usual }) => `${mtu} ${usual}`);
  return [...byMtu.values()].flatMap((some) =>
    some.slice(0, 1).map(({ mtu, usual }) => {
      const where = namesOf(some.map(({ host }) => host));
      const why = `though this node's link takes ${usual}: a link between them has a smaller MTU`;
      return `Packets of more than ${mtu} bytes do not reach ${where}, ${why}. Pods are told to send no larger ones; set the links' MTU to ${mtu}, or raise that of the link between them`;
    }),
  );
}

const cloudHint =
  'In an OpenStack cloud "causeway cloud plan --kubernetes FILE" tells what is missing, and "causeway cloud apply", or a controller with --cloud, adds it';

const told = (words: readonly string[]): string => words.join('. ').slice(0, mostWords);

/** `isThere`: whether the cluster calls that node ready. */
export function pathsWord({ lost, narrow }: Paths, isThere: (host: string) => boolean, { dropped, crowded }: HostPackets): PathsWord {
  const judged = lost
    .filter(({ host, seconds }) => seconds >= patienceSeconds && isThere(host))
    .toSorted((a, b) => (`${a.what} ${a.host}` < `${b.what} ${b.host}` ? -1 : 1));
  const message = told([...dropped, ...crowded, ...(judged.length > 0 ? [...lostWords(judged), cloudHint] : []), ...narrowWords(narrow)]);
  if (message === '') return { isGood: true, reason: 'PacketsPass', message: 'Packets of every sort reach each other node that was tried' };
  const onTheWay = judged.length > 0 ? 'PacketsLost' : 'LargePacketsLost';
  const here = crowded.length > 0 ? 'ConnectionsFull' : onTheWay;
  return { isGood: false, reason: dropped.length > 0 ? 'PacketsDropped' : here, message };
}
