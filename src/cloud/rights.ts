// What a login may do, tried without harm: the only way to know a cloud's policies, which no API tells. What is tried changes nothing
// even where it is allowed: it is what is there already, and based on a revision that nothing has. Neutron asks the policy first
// (pecan_wsgi/hooks/policy_enforcement.py) and looks at revisions when it is about to write (services/revisions/revision_plugin.py).
import { isFault } from '#model/fault.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronPort, NeutronRouter } from './neutron-schemas.ts';

/** Neutron counts from 0, one for each change. */
const neverReached = 2_000_000_000;
const stale = ({ id }: { readonly id: string }) => ({ id, revision: neverReached });

/**
 * Whether allowed address pairs of this port may be written (policy update_port:allowed_address_pairs): the port is given those that
 * it has. Faults as Neutron.update, but neither `forbidden` nor `conflict`.
 */
export const mayWritePairs = (neutron: Neutron, port: NeutronPort): Promise<boolean> =>
  isLet(() => neutron.update('ports', stale(port), { allowed_address_pairs: port.pairs }));

/** Whether port security of this port may be turned off and on (policy update_port:port_security_enabled). Else as mayWritePairs. */
export const mayWritePortSecurity = (neutron: Neutron, port: NeutronPort): Promise<boolean> =>
  isLet(() => neutron.update('ports', stale(port), { port_security_enabled: port.portSecurity }));

/** Whether extra routes of this router may be written (policy update_router): it is given those that it has. Else as mayWritePairs. */
export const mayWriteRoutes = (neutron: Neutron, router: NeutronRouter): Promise<boolean> =>
  isLet(() => neutron.setRoutes(stale(router), router.routes));

async function isLet(change: () => Promise<unknown>): Promise<boolean> {
  try {
    await change();
    return true;
  } catch (error) {
    if (isFault(error, 'forbidden')) return false;
    if (isFault(error, 'conflict')) return true;
    throw error;
  }
}
