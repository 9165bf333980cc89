// What of Calico's resources cannot be followed, where kubectl shows it: a controller reads each as agents do, and says in the
// object's own conditions whether it is accepted; of a host endpoint also whether its node has it in force. Policies have more to
// tell: see policy-statuses.ts. Types of conditions are recognisably ours, as Calico has words of its own there.
import * as v from 'valibot';
import { checkBgp } from '#api/calico-bgp.ts';
import { isFault } from '#model/fault.ts';
import { controllersPath, readAutoEndpoints } from './auto-host-endpoints.ts';
import { blocksPath, readBlock } from './blocks.ts';
import { type IpPool, readIpam, readPool, readReservation } from './calico.ts';
import { readFailsafes, readHostEndpoint } from './calico-host-endpoint.ts';
import { readNetworkSet, readTier } from './calico-tier.ts';
import { type Condition, isAlike, type Told, withCondition } from './conditions.ts';
import { hostPolicies, type HostReport, readHostReport } from './host-policies.ts';
import { type Attempt, Passes, type PassesOptions, type Sort } from './passes.ts';
import { calicoGroup } from './policy-facts.ts';
import { type Problem, problemText } from './policy-parts.ts';
import { type Claimed, poolProblems } from './pool-problems.ts';

interface ConditionedKind {
  readonly resource: string;
  readonly read: (item: unknown) => { readonly problems: readonly Problem[] };
}

const specified = v.object({ metadata: v.object({ name: v.string() }), spec: v.optional(v.unknown()) });

/** Of readers that throw: the fault's field and message, and what is done instead. */
const thrown =
  (read: (name: string, spec: unknown) => unknown, instead = 'it is not followed'): ConditionedKind['read'] =>
  (item) => {
    const { metadata, spec } = v.parse(specified, item);
    try {
      read(metadata.name, spec);
      return { problems: [] };
    } catch (error) {
      if (!isFault(error)) throw error;
      const { field = 'spec', message } = error;
      const [, what = message] = /^[^:]*: (?:spec[^:]*: )?(.*)$/s.exec(message) ?? [];
      return { problems: [{ field, reason: 'Invalid', message: `${what}; ${instead}` }] };
    }
  };
const bgp = (sort: 'BGPConfiguration' | 'BGPPeer' | 'BGPFilter'): ConditionedKind['read'] =>
  thrown((name, spec) => checkBgp({ sort, name, spec: v.parse(v.optional(v.record(v.string(), v.unknown()), {}), spec ?? {}) }));

/** Where addresses are in use (last-readable.ts). */
const asBefore = 'it counts as it was when it could be read, if it ever could';
const endpoints = 'hostendpoints';
const pools = 'ippools';
const kinds: readonly ConditionedKind[] = [
  { resource: endpoints, read: readHostEndpoint },
  { resource: 'felixconfigurations', read: readFailsafes },
  { resource: controllersPath.slice(calicoGroup.length + 1), read: readAutoEndpoints },
  { resource: 'tiers', read: readTier },
  { resource: 'networksets', read: readNetworkSet },
  { resource: 'globalnetworksets', read: readNetworkSet },
  { resource: pools, read: thrown(readPool, asBefore) },
  { resource: 'ipreservations', read: thrown(readReservation, asBefore) },
  { resource: 'ipamconfigurations', read: thrown(readIpam, asBefore) },
  { resource: 'bgpconfigurations', read: bgp('BGPConfiguration') },
  { resource: 'bgppeers', read: bgp('BGPPeer') },
  { resource: 'bgpfilters', read: bgp('BGPFilter') },
];

const stored = v.looseObject({
  metadata: v.looseObject({
    namespace: v.optional(v.string()),
    name: v.string(),
    resourceVersion: v.string(),
    generation: v.optional(v.number(), 0),
  }),
  status: v.nullish(v.looseObject({ conditions: v.nullish(v.array(v.record(v.string(), v.unknown()))) })),
});
type Stored = v.InferOutput<typeof stored>;
const ofPool = v.object({ metadata: v.object({ name: v.string(), creationTimestamp: v.optional(v.string()) }), spec: v.unknown() });
const ofNode = v.object({ spec: v.object({ node: v.string() }) });

export interface ObjectConditionsOptions extends PassesOptions {
  readonly date: () => Date;
}

const mostText = 1000;
const own = (type: string): string => `causeway.dev/${type}`;

function accepted(problems: readonly Problem[]): Told {
  const type = own('Accepted');
  if (problems.length === 0) return { type, status: 'True', reason: 'Accepted', message: 'All of it is followed' };
  const reason = problems.some((problem) => problem.reason === 'Invalid') ? 'Invalid' : 'Unsupported';
  return { type, status: 'False', reason, message: problems.map(problemText).join('. ').slice(0, mostText) };
}

/** Undefined: it cannot be read, which is told on its own. */
function poolIn(item: Stored): IpPool | undefined {
  const read = v.safeParse(ofPool, item);
  if (!read.success) return undefined;
  const { metadata, spec } = read.output;
  try {
    return readPool(metadata.name, spec, metadata.creationTimestamp);
  } catch (error) {
    if (!isFault(error)) throw error;
    return undefined;
  }
}

/** Whether the node has the host endpoint in its kernel, by what it has told last. */
function force(node: string, { metadata }: Stored, report: HostReport | undefined): Told {
  const type = own('InForce');
  const word = report?.hostEndpoints[metadata.name];
  if (report?.problem !== undefined)
    return { type, status: 'False', reason: 'Refused', message: `${node}: ${report.problem}`.slice(0, mostText) };
  if (word === undefined || word.generation < metadata.generation)
    return { type, status: 'False', reason: 'Pending', message: `Not yet confirmed by the node ${node}, if there is one of that name` };
  return word.problem === undefined
    ? { type, status: 'True', reason: 'InForce', message: `The node ${node} has it in its kernel` }
    : { type, status: 'False', reason: 'WithoutEffect', message: word.problem };
}

export class ObjectConditions {
  readonly #options: ObjectConditionsOptions;
  readonly #objects: ReadonlyMap<ConditionedKind, Map<string, Stored>> = new Map(kinds.map((kind) => [kind, new Map()]));
  readonly #reports = new Map<string, HostReport>();
  readonly #blocks = new Map<string, Claimed>();
  /** By path: what was last written there, so that a server that drops a part is not asked for ever. */
  readonly #written = new Map<string, string>();
  readonly #passes: Passes;

  constructor(options: ObjectConditionsOptions) {
    this.#options = options;
    this.#passes = new Passes(options, {
      sorts: this.#sorts(),
      pass: (attempt) => this.#pass(attempt),
      failure: 'cannot write what has become of a resource',
    });
  }

  /** Resolves when `signal` has aborted. */
  run(signal: AbortSignal): Promise<void> {
    return this.#passes.run(signal);
  }

  /** Looks again at everything soon. */
  kick(): void {
    this.#passes.kick();
  }

  #sorts(): Sort[] {
    const objects = [...this.#objects].map(([{ resource }, known]): Sort => ({
      name: resource,
      path: `${calicoGroup}/${resource}`,
      keys: () => known.keys(),
      put: (key, item) => {
        const read = v.safeParse(stored, item);
        if (read.success) known.set(key, read.output);
      },
      delete: (key) => known.delete(key),
    }));
    return [
      ...objects,
      {
        name: 'blocks of pools',
        path: blocksPath,
        keys: () => this.#blocks.keys(),
        put: (key, item) => {
          const { pool, cidr } = readBlock(item);
          const isNew = !isAlike(this.#blocks.get(key), { pool, cidr });
          this.#blocks.set(key, { pool, cidr });
          return isNew;
        },
        delete: (key) => this.#blocks.delete(key),
      },
      {
        name: 'what hosts tell of host endpoints',
        path: hostPolicies,
        keys: () => this.#reports.keys(),
        put: (key, item) => {
          const report = readHostReport(item);
          const before = this.#reports.get(key);
          if (report === undefined) this.#reports.delete(key);
          else this.#reports.set(key, report);
          // Most news are of policies.
          const [one, other] = [before, report].map((some) => some && [some.hostEndpoints, some.problem]);
          return !isAlike(one, other);
        },
        delete: (key) => this.#reports.delete(key),
      },
    ];
  }

  async #pass(attempt: Attempt): Promise<void> {
    for (const [kind, known] of this.#objects) for (const key of known.keys()) await attempt(() => this.#tell(kind, key));
  }

  async #tell(kind: ConditionedKind, key: string): Promise<boolean> {
    const object = this.#objects.get(kind)?.get(key);
    if (object === undefined) return false;
    const { namespace, name, generation } = object.metadata;
    const before: readonly Condition[] = object.status?.conditions ?? [];
    const told = this.#words(kind, object).map((one): Told => ({ ...one, observedGeneration: generation }));
    const now = this.#options.date();
    const conditions = told.reduce<readonly Condition[]>((all, one) => withCondition(all, one, now), before);
    if (isAlike(before, conditions)) return false;
    const path = `${calicoGroup}/${namespace === undefined ? '' : `namespaces/${namespace}/`}${kind.resource}/${name}/status`;
    const digest = JSON.stringify([before, told]);
    if (this.#written.get(path) === digest) return false;
    await this.#options.client.replace(path, { ...object, status: { ...object.status, conditions } });
    this.#written.set(path, digest);
    return true;
  }

  #poolProblems(name: string): Problem[] {
    const known = [...this.#objects].flatMap(([{ resource }, some]) => (resource === pools ? [...some.values()] : []));
    return poolProblems(
      name,
      known.flatMap((item) => poolIn(item) ?? []),
      [...this.#blocks.values()],
    );
  }

  #words(kind: ConditionedKind, object: Stored): Told[] {
    const { problems } = kind.read(object);
    const word = accepted(kind.resource === pools ? [...problems, ...this.#poolProblems(object.metadata.name)] : problems);
    const read = kind.resource === endpoints && word.reason !== 'Invalid' ? v.safeParse(ofNode, object) : undefined;
    if (read?.success !== true) return [word];
    const { node } = read.output.spec;
    return [word, force(node, object, this.#reports.get(node))];
  }
}
