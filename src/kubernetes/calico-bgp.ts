// Follows Calico's BGPConfiguration, BGPPeer and BGPFilter and what of pools is not announced. Kept in the journal (passwords
// too: it is root's alone), so that an agent which starts while the API is away does not send its peers away.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Journal } from '#api/local.ts';
import { BgpReader } from '#agent/bgp-reader.ts';
import type { BgpSource } from '#agent/bgp-source.ts';
import { secretsIn } from '#api/calico-bgp.ts';
import type { BgpSettings } from '#model/bgp.ts';
import { isFault } from '#model/fault.ts';
import type { Cidr } from '#model/ip.ts';
import type { KubernetesClient } from './client.ts';
import { followKind } from './follow.ts';

export interface CalicoBgpOptions {
  readonly client: KubernetesClient;
  readonly journal: Journal;
  readonly log: { warn(fields: object, message: string): void };
  /** Called after changes, at most once per turn of the event loop. */
  readonly changed: () => void;
  /** Ranges of pods that are not announced. */
  readonly silent: () => readonly Cidr[];
}

const group = '/apis/projectcalico.org/v3';
const secretsPath = '/api/v1/namespaces/kube-system/secrets';
const journalKey = 'kubernetes/bgp';
const secretRetryMs = 30_000;
const sorts = ['bgpconfigurations', 'bgppeers', 'bgpfilters'] as const;
type Sort = (typeof sorts)[number];

/** As users wrote it, so that it is read again by the same rules. */
const said = v.object({
  specs: v.object({ bgpconfigurations: specs(), bgppeers: specs(), bgpfilters: specs() }),
  secrets: v.record(v.string(), v.string()),
  silent: v.array(field.cidr),
});
type Said = v.InferOutput<typeof said>;

function specs(): v.GenericSchema<unknown, Record<string, unknown>> {
  return v.record(v.string(), v.unknown());
}

const specified = v.object({ spec: v.optional(v.unknown()) });
const secret = v.object({ data: v.optional(v.record(v.string(), v.string()), {}) });
const specOf = (item: unknown): unknown => {
  const read = v.safeParse(specified, item);
  return read.success ? read.output.spec : undefined;
};

export class CalicoBgp implements BgpSource, AsyncDisposable {
  readonly #options: CalicoBgpOptions;
  readonly #stop = new AbortController();
  readonly #specs: Readonly<Record<Sort, Map<string, unknown>>> = {
    bgpconfigurations: new Map(),
    bgppeers: new Map(),
    bgpfilters: new Map(),
  };
  readonly #listed = new Set<Sort>();
  readonly #reader: BgpReader;
  #running: readonly Promise<void>[] = [];
  #current: BgpSettings | undefined;
  #kept = '';
  #isSynced = false;
  #turning = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: CalicoBgpOptions) {
    this.#options = options;
    this.#reader = new BgpReader((problem) => options.log.warn({ problem }, 'cannot use a resource of BGP'));
    const kept = v.safeParse(said, options.journal.get(journalKey));
    if (kept.success) this.#current = this.#read(kept.output);
  }

  start(): void {
    const { client, log } = this.#options;
    this.#running = sorts.map((sort) => {
      const known = this.#specs[sort];
      return followKind(
        {
          name: sort,
          paths: [`${group}/${sort}`],
          absent: 'empty',
          keys: () => [...known.keys()],
          put: (key, item) => {
            known.set(key, specOf(item));
            this.touch();
          },
          delete: (key) => {
            known.delete(key);
            this.touch();
          },
          listed: () => {
            this.#listed.add(sort);
            this.touch();
          },
        },
        { client, log, signal: this.#stop.signal },
      );
    });
  }

  current(): BgpSettings | undefined {
    return this.#current;
  }

  isSynced(): boolean {
    return this.#isSynced;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#retry);
    await Promise.all(this.#running);
  }

  /** Something that settings follow from has changed. */
  touch(): void {
    if (this.#turning || this.#listed.size < sorts.length) return;
    this.#turning = true;
    setImmediate(() => void this.#settle());
  }

  async #settle(): Promise<void> {
    const { journal, log, changed, silent } = this.#options;
    const of = (sort: Sort): Record<string, unknown> => Object.fromEntries(this.#specs[sort]);
    const now: Said = {
      specs: { bgpconfigurations: of('bgpconfigurations'), bgppeers: of('bgppeers'), bgpfilters: of('bgpfilters') },
      secrets: await this.#secrets(),
      silent: [...silent()],
    };
    this.#turning = false;
    if (this.#stop.signal.aborted) return;
    this.#current = this.#read(now);
    this.#isSynced = true;
    try {
      if (JSON.stringify(now) !== this.#kept) journal.put(journalKey, now);
      this.#kept = JSON.stringify(now);
    } catch (error) {
      if (!isFault(error)) throw error;
      log.warn({ error }, 'cannot keep settings of BGP');
    }
    changed();
  }

  /** Of every secret that is named, by `name/key`; they are looked at again after a while. */
  async #secrets(): Promise<Record<string, string>> {
    const { client } = this.#options;
    const texts: Record<string, string> = {};
    const wanted = sorts.flatMap((sort) => [...this.#specs[sort].values()].flatMap((spec) => secretsIn(spec)));
    clearTimeout(this.#retry);
    if (wanted.length > 0) this.#retry = setTimeout(() => this.touch(), secretRetryMs).unref();
    for (const name of new Set(wanted.map((one) => one.name))) {
      try {
        const read = v.safeParse(secret, await client.get(`${secretsPath}/${encodeURIComponent(name)}`));
        for (const [key, text] of Object.entries(read.success ? read.output.data : {}))
          texts[`${name}/${key}`] = Buffer.from(text, 'base64').toString().trimEnd();
      } catch (error) {
        if (!isFault(error)) throw error;
      }
    }
    return texts;
  }

  #read({ specs: { bgpconfigurations, bgppeers, bgpfilters }, secrets, silent }: Said): BgpSettings {
    const written = { configurations: bgpconfigurations, peers: bgppeers, filters: bgpfilters };
    return { ...this.#reader.read(written, ({ name, key }) => secrets[`${name}/${key}`]), silent };
  }
}
