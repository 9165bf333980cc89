import { type Cidr, contains, type Ip } from '#model/ip.ts';
import type { Endpoint, Snapshot } from '#model/resources.ts';
import type { Addresses } from './local.ts';

/** By which pool this host holds each address of an endpoint; where no pool has its range any more the block tells. */
export function poolsHolding(
  book: Pick<Addresses, 'held'>,
  { pools, blocks }: Pick<Snapshot, 'pools' | 'blocks'>,
  { network, addresses }: Pick<Endpoint, 'network' | 'addresses'>,
): { readonly pool: string; readonly ip: Ip }[] {
  return addresses.flatMap((ip) => {
    const holds = (one: { readonly network: string; readonly cidr: Cidr }): boolean => one.network === network && contains(one.cidr, ip);
    const around = [...pools.values()].find(holds)?.id;
    const isHeld = around !== undefined && book.held(around, ip) !== undefined;
    const pool = isHeld ? around : ([...blocks.values()].find(holds)?.pool ?? around);
    return pool === undefined ? [] : { pool, ip };
  });
}
