// Security groups that single containers have asked for: the port of an address is put into them before the container is told of the
// address, and back into those of the network when nobody has the address any more. Whoever gets an address whose port was not put
// back yet, because the controller or the cloud was away, waits until it has been.
import { Sequence } from '#api/sequence.ts';
import type { PortGroupsRequest } from '#api/requests.ts';
import { Fault } from '#model/fault.ts';
import { contains, type Ip, parseIp } from '#model/ip.ts';
import type { Block, Network, Snapshot } from '#model/resources.ts';
import type { ClusterAddresses } from './address-cluster.ts';
import type { Addresses } from './local.ts';
import type { View } from './view.ts';

export interface PortGroupsOptions {
  readonly host: string;
  readonly view: Pick<View, 'blocks' | 'learn'> & { readonly snapshot: Pick<Snapshot, 'pools'> };
  readonly addresses: Pick<Addresses, 'held' | 'background'>;
  readonly set: ClusterAddresses['setPortGroups'] | undefined;
}

interface Held {
  readonly pool: string;
  readonly ip: Ip;
}

export class PortGroups {
  readonly #options: PortGroupsOptions;
  readonly #turns: Sequence = new Sequence();

  constructor(options: PortGroupsOptions) {
    this.#options = options;
  }

  /** Without groups it asks nobody, unless the port is in those of another container. Faults: `invalid`, and as PortPools.regroup. */
  async settle({ name, neutron }: Network, { pool, ip }: Held, groups: readonly string[] | undefined): Promise<void> {
    if (neutron === undefined)
      throw new Fault('invalid', `Containers of network ${name} have no ports of a cloud, and so no security groups`, {
        field: 'groups',
        hint: 'Leave the option away, or use a network of the model neutron',
      });
    if (groups === undefined && this.#blockOf(pool, ip)?.groups?.[ip] === undefined) return;
    if (groups !== undefined && this.#options.view.snapshot.pools.get(pool)?.fallback === true)
      throw new Fault('exhausted', `The cloud gives network ${name} no port here, and without one there are no security groups`, {
        hint: 'Start the container again when it does, or without groups of its own',
      });
    await this.#turns.run(`${pool} ${ip}`, async () => {
      const block = this.#blockOf(pool, ip);
      if (block === undefined) throw new Fault('unavailable', `Address ${ip} is in none of this host's blocks of network ${name}`);
      await this.#set(block, groups === undefined ? { ip } : { ip, groups });
    });
  }

  /** In the background, unless somebody has the address again by then. */
  putBack({ pool, ip }: Held): void {
    if (this.#blockOf(pool, ip)?.groups?.[ip] === undefined) return;
    const { addresses } = this.#options;
    addresses.background(`groups ${pool} ${ip}`, () =>
      this.#turns.run(`${pool} ${ip}`, async () => {
        const block = this.#blockOf(pool, ip);
        if (block?.groups?.[ip] !== undefined && addresses.held(pool, ip) === undefined) await this.#set(block, { ip });
      }),
    );
  }

  /** What a crash or an absent controller left. */
  reconcile(): void {
    for (const { host, pool, groups = {} } of this.#options.view.blocks.values())
      if (host === this.#options.host) for (const ip of Object.keys(groups)) this.putBack({ pool, ip: parseIp(ip) });
  }

  #blockOf(pool: string, ip: Ip): Block | undefined {
    const { host, view } = this.#options;
    return [...view.blocks.values()].find((block) => block.pool === pool && block.host === host && contains(block.cidr, ip));
  }

  async #set(block: Block, request: PortGroupsRequest): Promise<void> {
    const { set, view } = this.#options;
    if (set === undefined) throw new Fault('unsupported', 'Ports of the cloud are not for this agent to change');
    view.learn('blocks', await set(block.id, request));
  }
}
