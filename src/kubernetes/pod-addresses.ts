// Which pools a pod gets its addresses from, by Calico's rules: what the pod's annotations ask for, else those of its
// namespace, else every pool that is for the node and the namespace (field-notes of Calico: IPPool, `cni.projectcalico.org/…`).
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { AddressChoice, AddressChooser } from '#api/local.ts';
import { Fault, isFault } from '#model/fault.ts';
import { contains, type Family, familyOf, type Ip } from '#model/ip.ts';
import { namespaceLabel } from '#model/selector.ts';
import { poolId } from './blocks.ts';
import type { IpPool } from './calico.ts';
import type { CalicoFacts } from './calico-facts.ts';
import type { KubernetesClient } from './client.ts';
import { podNetwork } from './nodes.ts';

const prefix = 'cni.projectcalico.org/';
const meta = v.object({
  metadata: v.object({
    labels: v.optional(field.texts, {}),
    annotations: v.optional(v.record(v.string(), v.string()), {}),
  }),
});
export interface Described {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}
const nothing: Described = { labels: {}, annotations: {} };

const texts = v.pipe(v.string(), v.parseJson(), v.array(v.string()));
const addresses = v.pipe(v.string(), v.parseJson(), v.array(field.ip));

/** Fault `invalid` naming the annotation. */
function listIn<T>(schema: v.GenericSchema<unknown, T>, annotations: Described['annotations'], name: string): T | undefined {
  const text = annotations[prefix + name];
  if (text === undefined) return undefined;
  const read = v.safeParse(schema, text);
  if (read.success) return read.output;
  throw new Fault('invalid', `Annotation ${prefix}${name} is no list of texts: ${read.issues[0].message}`, { field: prefix + name });
}

/** The pools of one family that are asked for, by name or range. Faults: `invalid`, `not-found`. */
function askedPools(pools: readonly IpPool[], family: Family, pod: Described, namespace: Described): readonly IpPool[] | undefined {
  const name = `ipv${family}pools`;
  const asked = listIn(texts, pod.annotations, name) ?? listIn(texts, namespace.annotations, name);
  return asked?.map((text) => {
    const pool = pools.find((one) => one.name === text || one.cidr === text);
    if (pool === undefined) throw new Fault('not-found', `There is no IP pool ${text}`, { field: prefix + name });
    if (familyOf(pool.cidr) !== family || !pool.forPods)
      throw new Fault('invalid', `IP pool ${text} does not give IPv${family} addresses to pods`, { field: prefix + name });
    return pool;
  });
}

export interface PodQuestion {
  /** Every pool there is. */
  readonly pools: readonly IpPool[];
  /** Those that are for the node and the namespace by themselves. */
  readonly usual: readonly IpPool[];
  readonly pod: Described;
  readonly namespace: Described;
}

/** One choice for each address. Faults: `invalid`, `not-found`, `exhausted` (no pool is for this pod). */
export function choosePools({ pools, usual, pod, namespace }: PodQuestion): readonly AddressChoice[] {
  const exact: readonly Ip[] = listIn(addresses, pod.annotations, 'ipAddrs') ?? [];
  const families = ([4, 6] as const).filter((family) => !exact.some((ip) => familyOf(ip) === family));
  const fixed = exact.map((ip): AddressChoice => {
    const pool = pools.find(({ cidr, forPods }) => forPods && contains(cidr, ip));
    if (pool === undefined) throw new Fault('invalid', `${ip} is in no IP pool that is for pods`, { field: `${prefix}ipAddrs` });
    return { pools: [poolId(pool.name)], ip };
  });
  const chosen = families.flatMap((family): AddressChoice[] => {
    const own = askedPools(pools, family, pod, namespace) ?? usual.filter(({ cidr }) => familyOf(cidr) === family);
    return own.length === 0 ? [] : [{ pools: own.map(({ name }) => poolId(name)) }];
  });
  const all = [...fixed, ...chosen];
  if (all.length > 0) return all;
  throw new Fault('exhausted', 'No IP pool is for this pod', { hint: 'Look at the nodeSelector and namespaceSelector of the IPPools' });
}

/** Asks the API for the pod and its namespace; while it is away, pools are chosen as if they said nothing. */
export function podAddresses(client: KubernetesClient, facts: CalicoFacts, host: string): AddressChooser {
  async function described(path: string): Promise<Described> {
    try {
      const read = v.safeParse(meta, await client.get(path));
      return read.success ? read.output.metadata : nothing;
    } catch (error) {
      if (isFault(error, 'unavailable') || isFault(error, 'not-found')) return nothing;
      throw error;
    }
  }
  return async ({ namespace, pod }, network) => {
    if (namespace === undefined || pod === undefined || network !== podNetwork.id) return undefined;
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}`;
    const [about, around] = await Promise.all([described(`${path}/pods/${encodeURIComponent(pod)}`), described(path)]);
    const usual = facts.poolsFor(host, { ...around.labels, [namespaceLabel]: namespace });
    return choosePools({ pools: facts.usable(), usual, pod: about, namespace: around });
  };
}
