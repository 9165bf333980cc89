// Addresses that the reference IPAM plugin has given on this host: a file for each, named as the address, with the container's
// id and interface in it (plugins/ipam/host-local/backend/disk). On a node that was another system's the containers of before
// keep theirs until they end, and until then nobody else may have them.
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Journal } from '#api/local.ts';
import type { Ip } from '#model/ip.ts';
import { AttachmentRecords } from './records.ts';

export const hostLocalFolder = '/var/lib/cni/networks';

export interface Reservation {
  readonly ip: Ip;
  readonly containerId: string;
  readonly ifname: string;
}

/** Names in a folder; none where there is no such folder. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).toSorted();
  } catch {
    return []; // not there, or a file
  }
}

function holderOf(file: string): Pick<Reservation, 'containerId' | 'ifname'> {
  try {
    const [containerId = '', ifname = ''] = readFileSync(file, 'utf8').split(/\r?\n/);
    return { containerId, ifname };
  } catch {
    return { containerId: '', ifname: '' }; // just given back, or nobody's to read: taken in doubt
  }
}

/** Every address in the store, of whichever network. What is no address (the lock, the last one of a range) is passed over. */
export function readHostLocal(folder: string = hostLocalFolder): Reservation[] {
  return namesIn(folder).flatMap((network) =>
    namesIn(join(folder, network)).flatMap((name) => {
      const read = v.safeParse(field.ip, name);
      return read.success ? [{ ip: read.output, ...holderOf(join(folder, network, name)) }] : [];
    }),
  );
}

/**
 * Gives back what a container had that another system attached and that we are asked to detach, as nobody asks that system's plugin
 * any more. None is success.
 */
export function releaseHostLocal(
  { containerId, ifname }: Pick<Reservation, 'containerId' | 'ifname'>,
  folder: string = hostLocalFolder,
): void {
  for (const network of namesIn(folder)) {
    for (const name of namesIn(join(folder, network))) {
      if (!v.is(field.ip, name)) continue;
      const file = join(folder, network, name);
      const holder = holderOf(file);
      // Old releases do not name the interface.
      if (holder.containerId === containerId && (holder.ifname === ifname || holder.ifname === '')) rmSync(file, { force: true });
    }
  }
}

/** Those of containers that are not attached by us: ours may have their addresses from that plugin, too. */
export function takenByOthers(journal: Journal, folder: string = hostLocalFolder): Ip[] {
  const reservations = readHostLocal(folder);
  if (reservations.length === 0) return [];
  const own = new Set(new AttachmentRecords(journal).list().map(({ record }) => `${record.containerId} ${record.ifname}`));
  return reservations.filter(({ containerId, ifname }) => !own.has(`${containerId} ${ifname}`)).map(({ ip }) => ip);
}
