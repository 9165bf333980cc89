// What a host says of policies, as the cluster-scoped resource HostPolicies (causeway.dev/v1alpha1) of the host's name: one object
// a host, however many policies there are, so that telling of a change costs one write a host. How far a host has read is said by
// resource versions: a policy that it does not name and has read is one that selects nothing there.
import * as v from 'valibot';

export const hostPolicies = '/apis/causeway.dev/v1alpha1/hostpolicies';

export interface HostEndpointWord {
  readonly generation: number;
  readonly problem?: string;
}

export interface HostReport {
  /** Generation by key, of policies that select endpoints of the host and are in its kernel. */
  readonly inForce: Readonly<Record<string, number>>;
  /** By the name of a kind (policy-kinds.ts): all that had changed of it up to this resource version is in the kernel. */
  readonly known: Readonly<Record<string, number>>;
  /** Of the host's own links, by name: which generation is in the kernel, or why it has no effect there. */
  readonly hostEndpoints: Readonly<Record<string, HostEndpointWord>>;
  /** What keeps it from having more in force. */
  readonly problem?: string;
}

/** Texts, as resource versions are everywhere. */
const revision = v.pipe(v.string(), v.regex(/^\d{1,15}$/), v.transform(Number));
const stored = v.object({
  inForce: v.nullish(v.record(v.string(), v.number()), {}),
  known: v.nullish(v.record(v.string(), revision), {}),
  hostEndpoints: v.nullish(v.record(v.string(), v.object({ generation: v.number(), problem: v.exactOptional(v.string()) })), {}),
  problem: v.optional(v.string()),
});

/** Undefined for what is no such object. */
export function readHostReport(item: unknown): HostReport | undefined {
  const read = v.safeParse(stored, item);
  if (!read.success) return undefined;
  const { inForce, known, hostEndpoints, problem } = read.output;
  return { inForce: inForce ?? {}, known: known ?? {}, hostEndpoints: hostEndpoints ?? {}, ...(problem === undefined ? {} : { problem }) };
}

const sorted = <T>(record: Readonly<Record<string, T>>): [string, T][] => Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1));

/** The object's own part, keys in order. The number of policies is for people who look at a list. */
export function hostPoliciesBody({ inForce, known, hostEndpoints, problem }: HostReport): object {
  return {
    policies: Object.keys(inForce).length,
    inForce: Object.fromEntries(sorted(inForce)),
    known: Object.fromEntries(sorted(known).map(([name, at]) => [name, String(at)])),
    hostEndpoints: Object.fromEntries(sorted(hostEndpoints)),
    ...(problem === undefined ? {} : { problem: problem.slice(0, 1024) }),
  };
}
