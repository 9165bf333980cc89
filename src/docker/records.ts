// What the plugin must remember over a crash and nobody else knows, kept in the host's journal: which network an engine's
// network id stands for, pools that were requested before their network exists (drafts), and what an endpoint was asked for.
// Engine ids: networks are 64 hexadecimal digits (25 base-36 in a Swarm), never reused.
import * as v from 'valibot';
import type { Journal } from '#api/local.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, type Ip, parseCidr, parseIp } from '#model/ip.ts';

const cidr = v.pipe(
  v.string(),
  v.transform((text): Cidr => parseCidr(text)),
);
const ip = v.pipe(
  v.string(),
  v.transform((text): Ip => parseIp(text)),
);

/** An engine's network and the network of ours that it shows. */
export interface Binding {
  readonly network: string;
  /** Whose addresses the engine uses for it: our IPAM driver's, or another one's (Docker's own). */
  readonly ipam: 'causeway' | 'other';
  /** `user`: created by `docker network create` here; `sync`: our copy of a network; `swarm`: the managers' network. */
  readonly origin: 'user' | 'sync' | 'swarm';
  /** Sync has seen the engine's network complete, or the user's creation has; until then its removal is a roll-back. */
  readonly confirmed: boolean;
  /** Sync is about to remove only the engine's copy. */
  readonly unbinding: boolean;
  /** Why this is not the network of that name on other hosts; sync says so and takes it back. No container may join meanwhile. */
  readonly conflict?: string | undefined;
}
const binding: v.GenericSchema<unknown, Binding> = v.object({
  network: v.string(),
  ipam: v.picklist(['causeway', 'other']),
  origin: v.picklist(['user', 'sync', 'swarm']),
  confirmed: v.boolean(),
  unbinding: v.boolean(),
  conflict: v.optional(v.string()),
});

/** A pool that Docker has asked for and whose network is not there yet. Its id becomes the pool's id. */
export interface Draft {
  readonly cidr: Cidr;
  readonly range?: Cidr | undefined;
  readonly gateway?: Ip | undefined;
  readonly reserved: readonly Ip[];
  /** Whether the user named this subnet. */
  readonly isChosen?: boolean | undefined;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
}
const draft: v.GenericSchema<unknown, Draft> = v.object({
  cidr,
  range: v.optional(cidr),
  gateway: v.optional(ip),
  reserved: v.array(ip),
  isChosen: v.optional(v.boolean()),
  createdAt: v.number(),
});

/** What Docker asked of an endpoint, as far as the endpoint's own record does not say it. */
export interface Attachment {
  /** Addresses that another IPAM driver chose and that were claimed from our pools, to be released with the endpoint. */
  readonly claims: readonly { readonly pool: string; readonly ip: Ip }[];
  /** Prefix lengths that Docker puts on the container's link. */
  readonly lengths: readonly { readonly ip: Ip; readonly length: number }[];
  /** Of the link's name in the container. */
  readonly prefix?: string | undefined;
  /** The user has IPv6 switched off on the link: routes of it would be refused. */
  readonly isWithoutIpv6?: boolean | undefined;
  readonly sandbox?: string | undefined;
}
const attachment: v.GenericSchema<unknown, Attachment> = v.object({
  claims: v.array(v.object({ pool: v.string(), ip })),
  lengths: v.array(v.object({ ip, length: v.number() })),
  prefix: v.optional(v.string()),
  isWithoutIpv6: v.optional(v.boolean()),
  sandbox: v.optional(v.string()),
});

/** In a Swarm: what a pool id stands for that its allocator or this engine was given before the network existed. */
export interface SwarmPool {
  readonly pool: string;
  readonly role: 'manager' | 'engine';
}
const swarmPool: v.GenericSchema<unknown, SwarmPool> = v.object({ pool: v.string(), role: v.picklist(['manager', 'engine']) });

/** An address that this host gave to the Swarm's allocator; its id is `<pool> <address>`. */
export type Given = Readonly<Record<string, never>>;
const given: v.GenericSchema<unknown, Given> = v.object({});

/** What is known of the engine's resolver (resolver.ts). */
export interface ResolverRecord {
  readonly version: string;
  readonly asksPast: boolean;
}
const resolverRecord: v.GenericSchema<unknown, ResolverRecord> = v.object({ version: v.string(), asksPast: v.boolean() });

/** One kind of record below its prefix. A record that cannot be read is a Fault `corrupt`. */
export interface Records<T> {
  get(id: string): T | undefined;
  list(): { id: string; record: T }[];
  put(id: string, record: T): void;
  delete(id: string): void;
}

function records<T>(journal: Journal, prefix: string, schema: v.GenericSchema<unknown, T>): Records<T> {
  const read = (key: string, value: unknown): T => {
    const result = v.safeParse(schema, value);
    if (result.success) return result.output;
    throw new Fault('corrupt', `Cannot read journal record ${key}`, { hint: 'Recreate the Docker network it belongs to' });
  };
  return {
    get(id) {
      const value = journal.get(prefix + id);
      return value === undefined ? undefined : read(prefix + id, value);
    },
    list: () => journal.list(prefix).map(({ key, value }) => ({ id: key.slice(prefix.length), record: read(key, value) })),
    put: (id, record) => journal.put(prefix + id, record),
    delete: (id) => journal.delete(prefix + id),
  };
}

/** Of what ends with the power anyway: nobody waits for the disk because of them alone. */
function passing<T>(journal: Journal, all: Records<T>): Records<T> {
  return {
    ...all,
    put: (id, record) => journal.soon(() => all.put(id, record)),
    delete: (id) => journal.soon(() => all.delete(id)),
  };
}

export interface DockerRecords {
  readonly bindings: Records<Binding>;
  readonly drafts: Records<Draft>;
  readonly attachments: Records<Attachment>;
  readonly swarmPools: Records<SwarmPool>;
  readonly given: Records<Given>;
  readonly engine: Records<ResolverRecord>;
}

export const dockerRecords = (journal: Journal): DockerRecords => ({
  bindings: records(journal, 'docker/networks/', binding),
  drafts: records(journal, 'docker/pools/', draft),
  attachments: passing(journal, records(journal, 'docker/endpoints/', attachment)),
  swarmPools: records(journal, 'docker/swarm/pools/', swarmPool),
  given: records(journal, 'docker/swarm/given/', given),
  engine: records(journal, 'docker/engine/', resolverRecord),
});
