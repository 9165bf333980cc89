// After this host's journal has been lost: the endpoints of containers that run are taken up again. What they are is still in
// the cluster's records, where they are the engine knows; nothing of the containers themselves is touched.
import { existsSync } from 'node:fs';
import type { LocalAgent } from '#api/local.ts';
import { isFault } from '#model/fault.ts';
import { contains } from '#model/ip.ts';
import type { Endpoint } from '#model/resources.ts';
import type { Engine, EngineContainer } from './engine.ts';
import type { Log } from './log.ts';
import type { DockerRecords } from './records.ts';

export interface RecoveryOptions {
  readonly agent: LocalAgent;
  readonly records: DockerRecords;
  readonly engine: Pick<Engine, 'containers' | 'container'>;
  readonly log: Log;
}

/** What the agent says of its journal: whether endpoints are missing from it, and that they have been taken up. */
export interface Recovery {
  readonly isNeeded: () => boolean;
  readonly done: () => void;
}

/** May be repeated. Faults: `unavailable` (engine, controller); what cannot be taken up for another reason is logged and left out. */
export async function takeUpEndpoints({ agent, records, engine, log }: RecoveryOptions): Promise<void> {
  for (const { id, endpoints } of await engine.containers()) {
    if (endpoints.every((endpoint) => agent.localEndpoint(endpoint) !== undefined)) continue;
    const container = await engine.container(id);
    if (container?.sandbox === undefined || !container.isRunning || !existsSync(container.sandbox)) continue;
    for (const published of publishedOf(agent, records, container)) {
      try {
        await takeUp(agent, records, published, container.sandbox);
        log.info({ container: container.name, endpoint: published.endpoint.id }, 'took up an endpoint that the journal had lost');
      } catch (error) {
        if (isFault(error, 'unavailable')) throw error;
        log.warn(
          { container: container.name, endpoint: published.endpoint.id, error },
          'cannot take up an endpoint; restart its container',
        );
      }
    }
  }
  const left = agent
    .networks()
    .flatMap(({ id }) => agent.endpoints(id))
    .filter(({ id, host }) => host === agent.host && agent.localEndpoint(id) === undefined);
  if (left.length > 0) {
    const owners = left.map(({ owner }) => owner);
    log.warn({ owners }, 'no running container of the engine has these endpoints, so they go; restart what still needs them');
  }
}

interface Published {
  readonly endpoint: Endpoint;
  readonly ipam: 'causeway' | 'other';
}

/** The cluster's records of the container's endpoints that are missing here. */
function publishedOf(agent: LocalAgent, { bindings }: DockerRecords, container: EngineContainer): Published[] {
  return container.endpoints.flatMap(({ id, network }) => {
    const binding = agent.localEndpoint(id) === undefined ? bindings.get(network) : undefined;
    if (binding === undefined) return [];
    const endpoint = agent.endpoints(binding.network).find((one) => one.id === id && one.host === agent.host);
    return endpoint === undefined ? [] : [{ endpoint, ipam: binding.ipam }];
  });
}

async function takeUp(agent: LocalAgent, { attachments }: DockerRecords, { endpoint, ipam }: Published, sandbox: string): Promise<void> {
  const { id, network, name, names, owner, addresses, mac, ports } = endpoint;
  const held = addresses.flatMap((ip) => {
    const pool = agent.pools(network).find(({ cidr }) => contains(cidr, ip));
    return pool === undefined ? [] : [{ pool: pool.id, ip }];
  });
  for (const { pool, ip } of held) await agent.requestAddress(pool, ip, id);
  await agent.attach({ network, id, name, owner, addresses, mac, ports });
  await agent.join(id, sandbox);
  await agent.rename(id, owner, [name, ...names]);
  attachments.put(id, { claims: ipam === 'other' ? held : [], lengths: [], sandbox });
}
