// Whether a run of the loop has put into the kernel what an endpoint needs, and if not, what to tell whoever wants it.
import { domainName, endpointLink } from '#model/numbers.ts';
import { hostPrefix } from '#model/ip.ts';
import { Fault } from '#model/fault.ts';
import type { Endpoint, Network } from '#model/resources.ts';
import type { Outcome } from './reconcile.ts';

/** Undefined: all of it is in place. `outcome` undefined: nothing could be planned. */
export function refusalOf(outcome: Outcome | undefined, endpoint: Endpoint, network: Network): Fault | undefined {
  const refused = outcome?.failing.find((failure) => concerns(failure, endpoint, network));
  if (outcome !== undefined && refused === undefined) return undefined;
  const message = `Cannot put endpoint ${endpoint.id.slice(0, 12)} of network ${network.name} into the kernel`;
  if (refused !== undefined)
    return new Fault('kernel', message, { hint: 'See causeway status for what the kernel refuses', cause: refused.fault });
  return new Fault('unavailable', message, {
    hint: 'This host has not yet been told about itself by a controller; see causeway status',
  });
}

/** Whether what the kernel refuses is what the endpoint needs: the rules of host and domain, its link, routes and elements. */
function concerns({ kind, what }: Outcome['failing'][number], { id, addresses }: Endpoint, { choices, id: network }: Network): boolean {
  const netns = choices.domain === 'own' ? domainName(network) : '';
  // Without its short cut an endpoint is slower, and nothing else.
  if (kind === 'fast') return false;
  if (kind === 'netns') return what === netns;
  if (kind === 'table') return what.startsWith(`${netns} `) || what.startsWith(' ');
  if (kind === 'route') return addresses.some((ip) => what === `${netns} ${hostPrefix(ip)}`);
  return what.includes(endpointLink(id).slice(3));
}
