// What hosts tell each other in datagrams, so that nobody else on the underlay can say it in their name, nor say again what they have
// said. Any two hosts have a key of their own: X25519 (RFC 7748) of the private key of one and the public key of the other, which the
// controllers tell of every host. A datagram names the session of its sender (anew with every start), its number there, and the
// session of its receiver. It counts where that is the receiver's and the number is higher than any before; a receiver that has started
// anew answers with its own session, so one datagram each way is enough to be heard again.
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { sharedSecret } from '#kernel/wireguard-keys.ts';

export interface SealedTalkOptions {
  readonly host: () => string;
  readonly privateKey: string;
  /** Public key of another host; undefined: it has told none. */
  readonly keyOf: (host: string) => string | undefined;
  /** One that was never used and that nobody can guess, without blanks. */
  readonly newSession: () => string;
}

/** `stale`: it is the host's, but may be an old one; to be answered to that session, and not to be believed. */
export type Opened = { readonly words: string } | { readonly stale: string };

interface Speaker {
  session: string;
  /** Of the last datagram that counted. */
  number: number;
  /** Of before, while this host's own session was the same. */
  readonly ended: Set<string>;
}

const beginning = 'causeway.virtual.2';
/** In the place of a session that is not known. */
const nobody = '-';
/** So many restarts of another host are remembered before this one begins a session anew, so that none of them can come again. */
const mostEnded = 64;

export class SealedTalk {
  readonly #options: SealedTalkOptions;
  /** By host. */
  readonly #speakers = new Map<string, Speaker>();
  readonly #keys = new Map<string, { readonly publicKey: string; readonly key: Buffer | undefined }>();
  #session: string;
  #number = 0;

  constructor(options: SealedTalkOptions) {
    this.#options = options;
    this.#session = options.newSession();
  }

  /** Undefined: there is no key for that host. `session`: the host's, where that is not the one known. */
  seal(to: string, words: string, session: string = this.#speakers.get(to)?.session ?? nobody): string | undefined {
    const key = this.#keyFor(to);
    if (key === undefined) return undefined;
    this.#number += 1;
    const text = [beginning, this.#session, this.#number, session, words].join(' ');
    return `${text} ${sealOf(key, { from: this.#options.host(), to, text }).toString('base64url')}`;
  }

  /** Undefined: it is not that host's, or has been heard before. */
  open(from: string, datagram: string): Opened | undefined {
    const end = datagram.lastIndexOf(' ');
    const [text, seal] = [datagram.slice(0, end), Buffer.from(datagram.slice(end + 1), 'base64url')];
    const key = this.#keyFor(from);
    if (key === undefined) return undefined;
    const expected = sealOf(key, { from, to: this.#options.host(), text });
    if (seal.length !== expected.length || !timingSafeEqual(seal, expected)) return undefined;
    const [first, session = '', number = '', own, ...words] = text.split(' ');
    if (first !== beginning) return undefined;
    if (own !== this.#session) return { stale: session };
    return this.#isNew(from, session, Number(number)) ? { words: words.join(' ') } : undefined;
  }

  #isNew(host: string, session: string, number: number): boolean {
    const speaker = this.#speakers.get(host);
    if (speaker === undefined) {
      this.#speakers.set(host, { session, number, ended: new Set() });
      return true;
    }
    if (speaker.session !== session) {
      if (speaker.ended.has(session)) return false;
      speaker.ended.add(speaker.session);
      if (speaker.ended.size > mostEnded) this.#beginAnew();
      Object.assign(speaker, { session, number });
      return true;
    }
    if (!(number > speaker.number)) return false;
    speaker.number = number;
    return true;
  }

  #beginAnew(): void {
    this.#session = this.#options.newSession();
    this.#number = 0;
    for (const { ended } of this.#speakers.values()) ended.clear();
  }

  #keyFor(host: string): Buffer | undefined {
    const publicKey = this.#options.keyOf(host);
    if (publicKey === undefined) return undefined;
    const known = this.#keys.get(host);
    if (known?.publicKey === publicKey) return known.key;
    const secret = sharedSecret(this.#options.privateKey, publicKey);
    const key = secret === undefined ? undefined : Buffer.from(hkdfSync('sha256', secret, '', beginning, 32));
    this.#keys.set(host, { publicKey, key });
    return key;
  }
}

interface Letter {
  readonly from: string;
  readonly to: string;
  readonly text: string;
}

/** The same words the other way are others. */
const sealOf = (key: Buffer, { from, to, text }: Letter): Buffer => createHmac('sha256', key).update(`${from} ${to} ${text}`).digest();
