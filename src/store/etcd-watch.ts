// A watch on a range of keys of etcd that goes on where it was, at another member when one is lost, for as long as etcd still
// knows what has happened since.
import { setTimeout as sleep } from 'node:timers/promises';
import { Fault, isFault } from '#model/fault.ts';
import { type Answer, type Gateway, isAnswer } from './etcd-gateway.ts';
import { encode, headRevision, type Pair, pairOf } from './etcd-pairs.ts';

const reconnectMs = { first: 50, most: 2000 } as const;
/** How often a member is asked something, so that one that hangs is given up on while nobody else asks. */
const lookMs = 5000;

export interface WatchedRange {
  readonly from: string;
  /** The first key after it. */
  readonly to: string;
  /** Changes after this revision are told. */
  readonly since: number;
  readonly signal: AbortSignal;
}

/** `text` of a deletion is empty. */
export interface KeyEvent extends Pair {
  readonly type: 'put' | 'delete';
}

/** How far a watch has come: `seen` events of `revision` were handed out, and all before it. */
interface Place {
  revision: number;
  seen: number;
}

/**
 * Ends when `signal` aborts. Faults: `compacted` when etcd no longer knows changes after `since`, or knows of none that late because
 * it was restored from a backup, `forbidden`, `internal`.
 */
export async function* watchKeys(gateway: Gateway, range: WatchedRange): AsyncGenerator<KeyEvent> {
  const { since, signal } = range;
  const place: Place = { revision: since, seen: Number.POSITIVE_INFINITY };
  let waitMs: number = reconnectMs.first;
  using _ = looking(gateway, range);
  while (!signal.aborted) {
    const { endpoint } = gateway;
    const counted = { revision: 0, events: 0 };
    try {
      for await (const answer of gateway.stream('/v3/watch', toWatch(range, place), signal)) {
        waitMs = reconnectMs.first;
        if (answer['created'] === true && headRevision(answer) < place.revision) await mustBeAhead(gateway, range, place);
        for (const event of newEvents(answer, place, counted)) {
          if (signal.aborted) return;
          yield event;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (isFault(error) && error.code !== 'unavailable') throw error;
    }
    gateway.giveUpOn(endpoint);
    await sleep(waitMs, undefined, { signal }).catch(() => undefined);
    waitMs = Math.min(waitMs * 2, reconnectMs.most);
  }
}

const headOf = async (gateway: Gateway, { from }: WatchedRange): Promise<number> =>
  headRevision(await gateway.call('/v3/kv/range', { key: encode(from), limit: '1', keys_only: true }));

/** The gateway gives up on a member without an answer, and streams end with that; why, the next call is told. */
function looking(gateway: Gateway, range: WatchedRange): Disposable {
  const timer = setInterval(() => void headOf(gateway, range).catch(() => undefined), lookMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** A member may be behind the others; together, which is what a read is answered by, they never are, unless etcd was restored. */
async function mustBeAhead(gateway: Gateway, range: WatchedRange, { revision }: Place): Promise<void> {
  const head = await headOf(gateway, range);
  if (head >= revision) return;
  throw new Fault('compacted', `etcd is at revision ${head}, and was at ${revision}: it has been restored from a backup`, {
    hint: 'List again and watch from the revision of that list',
  });
}

/**
 * The watch starts at the revision that was already seen, not after it, and what was seen is left out again. So it can go
 * on in the middle of a commit; and etcd answers `compacted` already at the first revision whose deletions it may have
 * forgotten, which it does not for a watch that starts right after a compaction.
 */
const toWatch = ({ from, to }: WatchedRange, { revision }: Place): Answer => ({
  create_request: {
    key: encode(from),
    range_end: encode(to),
    start_revision: String(Math.max(1, revision)),
    progress_notify: true,
    fragment: true,
  },
});

/** Moves `place` past each event before it is handed out. `counted`: what this connection brought of one revision. */
function* newEvents(answer: Answer, place: Place, counted: { revision: number; events: number }): Generator<KeyEvent> {
  if (answer['canceled'] === true) {
    const floor = Number(answer['compact_revision'] ?? 0);
    if (floor === 0) throw new Fault('unavailable', `etcd ended the watch: ${String(answer['cancel_reason'])}`);
    throw new Fault('compacted', `Changes after revision ${place.revision} are no longer known, only those after ${floor}`, {
      hint: 'List again and watch from the revision of that list',
    });
  }
  const events = Array.isArray(answer['events']) ? answer['events'].filter(isAnswer) : [];
  if (events.length === 0 && answer['created'] !== true) {
    // A notice of progress: everything up to this revision has been sent.
    const revision = headRevision(answer);
    if (revision > place.revision) Object.assign(place, { revision, seen: Number.POSITIVE_INFINITY });
  }
  for (const raw of events) {
    const event = toEvent(raw);
    if (event.revision !== counted.revision) Object.assign(counted, { revision: event.revision, events: 0 });
    counted.events += 1;
    if (event.revision < place.revision || (event.revision === place.revision && counted.events <= place.seen)) continue;
    Object.assign(place, { revision: event.revision, seen: counted.events });
    yield event;
  }
}

const toEvent = (raw: Answer): KeyEvent => ({
  type: raw['type'] === 'DELETE' ? 'delete' : 'put',
  ...pairOf(isAnswer(raw['kv']) ? raw['kv'] : {}),
});
