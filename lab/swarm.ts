// A Swarm of a lab's engines, and the managed plugin on them. Engines advertise their underlay addresses; the first host is
// the leader. A managed plugin belongs to its engine: it starts and ends with dockerd.
import { docker } from './engine.ts';
import type { Host } from './host.ts';
import { until } from './until.ts';

/** What `docker plugin create` makes of the name `causeway`. Drivers must be named with the tag in a Swarm. */
export const pluginName = 'causeway:latest';

const stateOf = (host: Host): Promise<string> => docker(host, ['info', '--format', '{{.Swarm.LocalNodeState}}']);

/** Joins engines to one Swarm, the first `managers` of them as managers. Those that are in it already stay. Faults as `run`. */
export async function joinSwarm(hosts: readonly Host[], managers = 1): Promise<void> {
  const [leader, ...others] = hosts;
  if (leader === undefined) return;
  if ((await stateOf(leader)) !== 'active') await docker(leader, ['swarm', 'init', '--advertise-addr', leader.address]);
  for (const [index, host] of others.entries()) {
    if ((await stateOf(host)) === 'active') continue;
    const token = await docker(leader, ['swarm', 'join-token', '--quiet', index + 1 < managers ? 'manager' : 'worker']);
    // An engine that has not joined after twenty seconds says so, and goes on with it.
    const joining = ['swarm', 'join', '--advertise-addr', host.address, '--token', token, `${leader.address}:2377`];
    await docker(host, joining).catch(async (error: unknown) => {
      if ((await stateOf(host)) === 'inactive') throw error;
      await until(`${host.name} to have joined`, async () => (await stateOf(host)) === 'active', { timeoutMs: 120_000, intervalMs: 200 });
    });
  }
  const format = '{{.Status}} {{.Availability}}';
  const ready = async (): Promise<boolean> => {
    const nodes = (await docker(leader, ['node', 'ls', '--format', format])).split('\n');
    return nodes.filter((line) => line === 'Ready Active').length >= hosts.length;
  };
  await until('every node to be ready', ready, { timeoutMs: 180_000, intervalMs: 200 });
}

/** Waits until the engine's Swarm has so many managers who speak with its leader. Fault `timeout`. */
export async function untilManagers(host: Host, count: number): Promise<void> {
  const managers = async (): Promise<boolean> => {
    const states = (await docker(host, ['node', 'ls', '--format', '{{.ManagerStatus}}'])).split('\n');
    return states.filter((state) => state === 'Leader' || state === 'Reachable').length === count && states.includes('Leader');
  };
  await until(`${count} managers`, managers, { timeoutMs: 180_000, intervalMs: 200 });
}

/** Takes engines out of their Swarm, the leader last. Being in none already is success. */
export async function leaveSwarm(hosts: readonly Host[]): Promise<void> {
  for (const host of hosts.toReversed()) {
    if ((await stateOf(host)) !== 'inactive') await docker(host, ['swarm', 'leave', '--force']);
  }
}

/** Creates, configures and enables the plugin from a folder that `buildPlugin` made. Enabled already is success. */
export async function installPlugin(host: Host, folder: string, settings: Readonly<Record<string, string>>): Promise<void> {
  const inspect = ['plugin', 'inspect', '--format', '{{.Enabled}}', pluginName];
  const found = await docker(host, inspect, { anyStatus: true });
  if (found === 'true') return;
  if (found !== 'false') await docker(host, ['plugin', 'create', pluginName, folder]);
  await docker(host, ['plugin', 'set', pluginName, ...Object.entries(settings).map(([name, value]) => `${name}=${value}`)]);
  await docker(host, ['plugin', 'enable', pluginName]);
}

/** Ends the plugin and removes it with its state: the host's identity and journal. Absent is success. */
export async function removePlugin(host: Host): Promise<void> {
  const names = (await docker(host, ['plugin', 'ls', '--format', '{{.Name}}'])).split('\n');
  if (names.includes(pluginName)) await docker(host, ['plugin', 'rm', '--force', pluginName]);
}
