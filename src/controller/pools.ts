// Changing and removing pools. Claims of blocks write the pool's guard, so a pool cannot vanish under a claim.
import { Fault } from '#model/fault.ts';
import { contains } from '#model/ip.ts';
import type { Cidr, Family } from '#model/ip.ts';
import type { Pool } from '#model/resources.ts';
import type { Operation } from '#store/store.ts';
import type { Principal } from './access.ts';
import { type Control, transact } from './control.ts';
import { find } from './find.ts';
import { keys, listAll, putResource } from './records.ts';
import { checkMatch, checkUnchanged } from './replace.ts';
import { checkPool, chooseSubnet, occupied } from './subnets.ts';

/** Name, labels, range, gateway and reserved may change; what has been given out stays. Faults: `invalid`, `conflict`. */
export function replacePool(control: Control, principal: Principal, wanted: Pool, match: number | undefined): Promise<Pool> {
  return transact(control, async () => {
    const found = await find(control, principal, 'pools', wanted.id);
    checkMatch(found, match);
    const { fallback: _, ...asked } = wanted;
    const { fallback, range } = found;
    const next: Pool = {
      ...asked,
      id: found.id,
      createdAt: found.createdAt,
      network: found.network,
      cidr: found.cidr,
      blockLength: found.blockLength,
      // The rest of such a pool is hosts' own.
      ...(fallback === undefined ? {} : { fallback, ...(range === undefined ? {} : { range }) }),
    };
    checkUnchanged('pools', wanted, next);
    checkPool(next, '');
    return { operations: [putResource('pools', next, found.revision)], answer: (revision) => ({ ...next, revision }) };
  });
}

/** Fault `in-use` while blocks are claimed or an endpoint has an address of it. */
export function deletePool(control: Control, principal: Principal, idOrName: string, match?: number): Promise<void> {
  return transact(control, async () => {
    const pool = await find(control, principal, 'pools', idOrName);
    checkMatch(pool, match);
    const guard = await control.store.get(keys.guard(pool.id));
    const claims = await listAll(control.store, keys.claims(pool.id));
    const used = [...control.contents.of(pool.network, 'endpoints').values()].find(({ addresses }) =>
      addresses.some((ip) => contains(pool.cidr, ip)),
    );
    if (claims.length > 0 || used !== undefined) {
      throw new Fault('in-use', `Pool ${pool.cidr} is in use: ${claims.length} blocks are claimed`, {
        hint: 'Remove the endpoints with its addresses; hosts give empty blocks back by themselves',
      });
    }
    const guardGone: Operation =
      guard === undefined
        ? { type: 'check', key: keys.guard(pool.id), expect: 0 }
        : { type: 'delete', key: guard.key, expect: guard.revision };
    return {
      operations: [{ type: 'delete', key: keys.resource('pools', pool.id), expect: pool.revision }, guardGone],
      answer: () => undefined,
    };
  });
}

/** A free subnet, not reserved by asking. Fault `exhausted`. */
export function proposePool(control: Control, family: Family, besides: readonly Cidr[]): Cidr {
  const { mirror } = control;
  const taken = [...occupied(control), ...mirror.all('pools').values(), ...besides.map((cidr) => ({ cidr }))];
  return chooseSubnet(family, family === 4 ? 24 : 64, taken);
}
