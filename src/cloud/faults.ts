// The border to a cloud's services: their HTTP statuses and error documents as Faults, with their own words and the id by which
// the cloud's operator finds the request in the logs.
import * as v from 'valibot';
import { Fault, type FaultCode } from '#model/fault.ts';

interface Refused {
  readonly service: string;
  readonly method: string;
  readonly url: string;
}
interface Refusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
}

const byStatus: Readonly<Record<number, FaultCode>> = {
  400: 'invalid',
  401: 'unauthenticated',
  403: 'forbidden',
  404: 'not-found',
  409: 'conflict',
  410: 'not-found',
  412: 'conflict',
  413: 'exhausted',
  // Octavia: what the provider of a load balancer cannot do.
  501: 'unsupported',
};

/** Of Octavia's, which have no types (QuotaException in octavia/common/exceptions.py). */
const octaviaQuota = /^Quota has been met/;

/** Types of Neutron's errors whose status says too little (neutron_lib/exceptions). */
const byType: Readonly<Record<string, FaultCode>> = {
  OverQuota: 'exhausted',
  IpAddressGenerationFailure: 'exhausted',
  SecurityGroupInUse: 'in-use',
  NetworkInUse: 'in-use',
  SubnetInUse: 'in-use',
  PortInUse: 'in-use',
  RouterInUse: 'in-use',
  SecurityGroupRuleExists: 'exists',
  IpAddressInUse: 'exists',
  IpAddressAlreadyAllocated: 'exists',
  MacAddressInUse: 'exists',
  AllowedAddressPairExhausted: 'exhausted',
  // 404, of a subnet without a router to the external network.
  ExternalGatewayForFloatingIPNotFound: 'unsupported',
};

const hints: Readonly<Partial<Record<FaultCode, string>>> = {
  unauthenticated: 'Check user, password and project of the cloud in clouds.yaml or OS_*',
  forbidden: 'The project gives you too few rights for this; ask the operator of the cloud for the role',
  exhausted: 'Ask the operator of the cloud for a larger quota, or remove what is not needed',
  conflict: 'Somebody else has changed the same thing: repeat the command',
  unavailable: "Repeat the command; if it stays, ask the operator of the cloud about the request's id",
};

const described = v.object({ message: v.string(), type: v.optional(v.string()) });
const document = v.union([
  described,
  // Octavia's (octavia/api/v2, WSME).
  v.pipe(
    v.object({ faultstring: v.string() }),
    v.transform(({ faultstring }) => ({ message: faultstring })),
    described,
  ),
  // Magnum's (magnum/api/middleware/parsable_error.py).
  v.pipe(
    v.object({ errors: v.pipe(v.array(v.object({ detail: v.string() })), v.minLength(1)) }),
    v.transform(({ errors }) => ({ message: errors.map(({ detail }) => detail).join('; ') })),
    described,
  ),
  v.pipe(
    v.record(v.string(), v.unknown()),
    v.transform((members) => Object.values(members).find((member) => v.is(described, member))),
    described,
  ),
]);

export function faultOfStatus({ service, method, url }: Refused, { status, headers, body }: Refusal): Fault {
  const read = v.safeParse(document, body);
  const type = read.success ? read.output.type : undefined;
  const isQuota = status === 403 && read.success && octaviaQuota.test(read.output.message);
  const code = isQuota
    ? 'exhausted'
    : (byType[type ?? ''] ?? byStatus[status] ?? (status >= 500 || status === 429 ? 'unavailable' : 'internal'));
  const words = read.success ? read.output.message.trim().replace(/\.$/, '') : `status ${status}`;
  const id = headers['x-openstack-request-id'] ?? headers['x-compute-request-id'];
  const what = `${method} ${new URL(url).pathname}`;
  const reference = id === undefined ? '' : ` (request ${id})`;
  return new Fault(code, `${service} refuses ${what}: ${words.slice(0, 500)}${reference}`, { hint: hints[code] });
}
