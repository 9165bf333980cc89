// Finishes what was interrupted: networks that are marked as deleted but still there, and what hosts and tenants left behind that
// exist no more. And forgets: history of a store of our own that no watch needs, tokens that have expired long ago.
import { Fault } from '#model/fault.ts';
import { type Control, transact } from './control.ts';
import { removeLeftovers } from './hosts.ts';
import { pause } from './mirror.ts';
import { removeNetwork } from './networks.ts';
import { readToken, removeTokensOf, tenantOf } from './tokens.ts';

const sweepMs = 60_000;
/** A deletion that is going on must not be swept away under the feet of the one who does it. */
const graceMs = 60_000;
const tokenGraceMs = 86_400_000;

/** Host names that endpoints or blocks speak of and that no host has. */
function vanishedHosts({ mirror }: Pick<Control, 'mirror'>): Set<string> {
  const names = [...mirror.all('endpoints').values(), ...mirror.all('blocks').values()].map(({ host }) => host);
  return new Set(names.filter((name) => mirror.get('hosts', name) === undefined));
}

/** Tenants that tokens are of and that exist no more. */
function vanishedTenants({ mirror }: Pick<Control, 'mirror'>): Set<string> {
  const names = mirror.entries('tokens').flatMap((entry) => tenantOf(readToken(entry).record.role ?? '') ?? []);
  return new Set(names.filter((name) => mirror.get('tenants', name) === undefined));
}

export async function sweepOnce(control: Control): Promise<void> {
  const now = control.now().getTime();
  for (const network of control.mirror.all('networks').values()) {
    if (network.deletedAt === undefined || now - Date.parse(network.deletedAt) < graceMs) continue;
    const hasEndpoints = [...control.contents.of(network.id, 'endpoints').values()].some(
      ({ host }) => control.mirror.get('hosts', host) !== undefined,
    );
    if (!hasEndpoints) await removeNetwork(control, network);
  }
  for (const host of vanishedHosts(control)) await removeLeftovers(control, host);
  for (const tenant of vanishedTenants(control)) await removeTokensOf(control, tenant);
  for (const entry of control.mirror.entries('tokens')) {
    const { record, revision } = readToken(entry);
    if (record.expiresAt === undefined || now - Date.parse(record.expiresAt) < tokenGraceMs) continue;
    await transact(control, async () => ({
      operations: [{ type: 'delete', key: entry.key, expect: revision }],
      answer: () => undefined,
    }));
  }
}

/** Sweeps until `signal` aborts, and compacts a store that is ours alone. */
export async function sweepAlways(control: Control, signal: AbortSignal): Promise<void> {
  let past = control.mirror.revision;
  while (!signal.aborted) {
    await pause(sweepMs, signal);
    if (signal.aborted) return;
    try {
      await sweepOnce(control);
      // Several minutes of history are in the hub; the store needs only what another controller may have to catch up with.
      if (!control.store.isShared) await control.store.compact(past);
      past = control.mirror.revision;
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      control.log.warn({ error }, 'The sweep has failed and will be tried again');
    }
  }
}
