// What a login may do, tried without harm: the only way to know a cloud's policies, which no API tells.
import { isFault } from '#model/fault.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronPort, NeutronRouter } from './neutron-schemas.ts';

/**
 * Whether allowed address pairs of this port may be written (policy update_port:allowed_address_pairs): the port is given those that
 * it has. Faults as Neutron.update, but neither `forbidden` nor `conflict`.
 */
export const mayWritePairs = (neutron: Neutron, port: NeutronPort): Promise<boolean> =>
  isLet(() => neutron.update('ports', port, { allowed_address_pairs: port.pairs }));

/** Whether port security of this port may be turned off and on (policy update_port:port_security_enabled). Else as mayWritePairs. */
export const mayWritePortSecurity = (neutron: Neutron, port: NeutronPort): Promise<boolean> =>
  isLet(() => neutron.update('ports', port, { port_security_enabled: port.portSecurity }));

/** Whether extra routes of this router may be written (policy update_router): it is given those that it has. Else as mayWritePairs. */
export const mayWriteRoutes = (neutron: Neutron, router: NeutronRouter): Promise<boolean> =>
  isLet(() => neutron.setRoutes(router, router.routes));

/**
 * What has changed since it was read is refused for that, after the policy has let the change through (neutron's hooks ask the policy
 * before the plugin looks at revisions).
 */
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
