// Who of Octavia makes a load balancer. OVN's provider passes packets on with the client's address, so hosts' security groups know whom
// to let in, and no machine is needed. All others (`amphora`: haproxy in a machine of Octavia's) take connections themselves and make
// others to the hosts, from addresses on the subnets that they are on: hosts let in these subnets, and clients are told apart by the
// load balancer. Pure.
import { type Cidr, familyOf, parseCidr } from '#model/ip.ts';
import type { NeutronSubnet } from './neutron-schemas.ts';
import type { WishedBalancer } from './wish.ts';

/** It passes packets on as they are. */
const passing = 'ovn';
/** Before others that are offered. */
const preferred: readonly string[] = [passing, 'amphora'];

export const isPassing = (provider: string | undefined): boolean => provider === passing;

export interface Providers {
  /** Of Octavia; undefined: the cloud has none. */
  readonly offered: readonly string[] | undefined;
  /** For all that name none; absent: the first of the usual ones that is offered. */
  readonly wanted?: string | undefined;
}

/** What would work otherwise than is meant where packets are passed on as they are, and why; undefined: nothing. */
function beyondPassing({ proxy = {} }: WishedBalancer): string | undefined {
  if (proxy.certificate !== undefined) return 'passes packets on as they are, and cannot end TLS (default-tls-container-ref)';
  return proxy.header === undefined
    ? undefined
    : "passes packets on with the client's address, and cannot write a header of it (PROXY protocol)";
}

export type Choice =
  /** Absent: whichever Octavia takes when nobody says. */
  { readonly provider?: string } | { readonly trouble: string };

export function choose(one: WishedBalancer, { offered, wanted }: Providers): Choice {
  if (offered === undefined) return { trouble: 'the cloud has no Octavia' };
  if (offered.length === 0) return { trouble: 'Octavia has no provider' };
  const named = one.provider ?? wanted;
  if (named !== undefined && !offered.includes(named)) return { trouble: `Octavia has no provider ${named}, only ${offered.join(', ')}` };
  const beyond = beyondPassing(one);
  const able = offered.filter((name) => !(beyond !== undefined && isPassing(name)));
  const [only, other] = able;
  const provider = named ?? preferred.find((name) => able.includes(name)) ?? (other === undefined ? only : undefined);
  const isUnable = isPassing(provider) || able.length === 0;
  if (beyond !== undefined && isUnable) return { trouble: `provider ${provider ?? passing} ${beyond}` };
  return provider === undefined ? {} : { provider };
}

/** What is wrong with one that is there, and keeps its provider. */
export function unfit(one: WishedBalancer, provider: string): string | undefined {
  const beyond = beyondPassing(one);
  if (isPassing(provider) && beyond !== undefined) return `its provider ${provider} ${beyond}; make the service anew`;
  if (one.provider !== undefined && one.provider !== provider)
    return `it has the provider ${provider}, which stays as long as it is there: to have ${one.provider} remove the exposure and make it anew`;
  return undefined;
}

/** Of the address's family, as far as the login sees the subnets. */
export function rangesOf(ids: ReadonlySet<string | undefined>, subnets: readonly NeutronSubnet[], family: number): Cidr[] {
  return subnets
    .filter(({ id }) => ids.has(id))
    .map(({ cidr }) => parseCidr(cidr, 'cidr', false))
    .filter((cidr) => familyOf(cidr) === family)
    .toSorted();
}
