// Handshakes with peers that were just made. Two hosts that learn of each other at the same moment both begin one, and each takes in
// the other's first message in the place of its own: so both refuse the answer that comes to them, and neither begins again before
// REKEY_TIMEOUT, five seconds (WireGuard paper, section 6.4), whatever there is to send. The same goes for a first message or an answer
// that was lost, such as an answer that went to another system's device with the same key, in the place of which ours comes.
// Where a handshake was not completed and nothing comes any more, the peer is made anew, which forgets that timeout and greets at once.
// The two hosts do so by turns, so that they do not meet again.
import type { Netns } from '#model/desired.ts';
import { isFault } from '#model/fault.ts';
import type { FoundPeer, WireguardBackend } from './wireguard-config.ts';

/** Before each round of looks, the first after a peer was made. When the last one is over WireGuard's own repetition is due. */
const pausesMs = [50, 50, 100, 100, ...Array.from({ length: 15 }, () => 300)];
/**
 * Rounds in a row at which nothing more has come: of a peer that was heard of, whose handshake may only be on its way at the first; and
 * of one that was not, which may not know of this host yet. Packets for it are kept, but for one that is made anew.
 */
const roundsHeard = 2;
const roundsUnheard = 3;
/** With so many done between two rounds the others only have to wait for their turn. */
const busyDone = 16;

/** What a peer was like that has not completed a handshake. */
export interface Waiting {
  readonly received: number;
  /** For how many rounds that has been so. */
  readonly rounds: number;
}

export const unseen: Waiting = { received: 0, rounds: 0 };

export interface Round {
  /** Counted from 1. */
  readonly number: number;
  /** By public key; none had completed a handshake at the round before. */
  readonly waiting: ReadonlyMap<string, Waiting>;
}

/** Which peers still have not, and which of them the host with the key `own` is to make anew. Pure. */
export function lookAt(
  own: string,
  { number, waiting }: Round,
  peers: readonly FoundPeer[],
): { readonly left: Map<string, Waiting>; readonly anew: readonly FoundPeer[] } {
  const those = peers.filter(({ publicKey }) => waiting.has(publicKey));
  const isBusy = those.filter(({ hasAgreed }) => hasAgreed).length >= busyDone;
  const left = new Map<string, Waiting>();
  const anew: FoundPeer[] = [];
  for (const peer of those) {
    const { publicKey, hasAgreed, received } = peer;
    if (hasAgreed) continue;
    const last = waiting.get(publicKey) ?? unseen;
    const rounds = isBusy ? 0 : received === last.received ? last.rounds + 1 : 1;
    const isTurn = (number % 2 === 0) === own < publicKey;
    const isDue = isTurn && rounds >= (received > 0 ? roundsHeard : roundsUnheard);
    if (isDue) anew.push(peer);
    left.set(publicKey, isDue ? unseen : { received, rounds });
  }
  return { left, anew };
}

/** Calls `fn` after so many milliseconds; what it returns keeps it from that. */
export type After = (ms: number, fn: () => void) => () => void;

/** Keeps no process alive. */
export const later: After = (ms, fn) => {
  const timer = setTimeout(fn, ms).unref();
  return () => clearTimeout(timer);
};

export interface HandshakesOptions {
  readonly backend: WireguardBackend;
  /** The host's own. */
  readonly publicKey: string;
  readonly after: After;
}

interface Device {
  readonly netns: Netns;
  readonly link: string;
}

export class Handshakes implements Disposable {
  readonly #options: HandshakesOptions;
  /** What undoes each round that is to come. */
  readonly #pending = new Set<() => void>();

  constructor(options: HandshakesOptions) {
    this.#options = options;
  }

  /** Peers of a device were just made. */
  begun(device: Device, publicKeys: readonly string[]): void {
    this.#await(device, { number: 1, waiting: new Map(publicKeys.map((key) => [key, unseen])) });
  }

  [Symbol.dispose](): void {
    for (const cancel of this.#pending) cancel();
    this.#pending.clear();
  }

  #await(device: Device, round: Round): void {
    const pause = pausesMs[round.number - 1];
    if (pause === undefined || round.waiting.size === 0) return;
    const cancel = this.#options.after(pause, () => {
      this.#pending.delete(cancel);
      this.#await(device, { number: round.number + 1, waiting: this.#look(device, round) });
    });
    this.#pending.add(cancel);
  }

  #look({ netns, link }: Device, round: Round): Round['waiting'] {
    const { backend, publicKey } = this.#options;
    try {
      if (!backend.names(netns).includes(link)) return new Map();
      const { left, anew } = lookAt(publicKey, round, backend.read(netns, link).peers);
      if (anew.length > 0) backend.write(netns, link, { set: anew, remove: anew.map((peer) => peer.publicKey) });
      return left;
    } catch (error) {
      // It may be going just now; the loop tells of a device that cannot be read.
      if (!isFault(error, 'kernel')) throw error;
      return round.waiting;
    }
  }
}
