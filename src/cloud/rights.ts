// What a login may do, tried without harm: the only way to know a cloud's policies, which no API tells.
import { isFault } from '#model/fault.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronPort } from './neutron-schemas.ts';

/**
 * Whether allowed address pairs of this port may be written (policy update_port:allowed_address_pairs): the port is given those that
 * it has. One that has changed since it was read is refused for that, after the policy has let the change through (neutron's hooks
 * ask the policy before the plugin looks at revisions). Faults as Neutron.update, but neither `forbidden` nor `conflict`.
 */
export async function mayWritePairs(neutron: Neutron, port: NeutronPort): Promise<boolean> {
  try {
    await neutron.update('ports', port, { allowed_address_pairs: port.pairs });
    return true;
  } catch (error) {
    if (isFault(error, 'forbidden')) return false;
    if (isFault(error, 'conflict')) return true;
    throw error;
  }
}
