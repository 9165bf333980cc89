// Causeway itself in a lab: the controller on its own host, an agent on each Docker host, run from this checkout.
import { join } from 'node:path';
import type { Host } from './host.ts';

const root = join(import.meta.dirname, '..');

/** As the script ./causeway starts it, which says why with these flags. */
export const programOf = (name: 'agent' | 'controller'): string[] => [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  ...(name === 'agent' ? ['--max-semi-space-size=8', '--initial-old-space-size=160', '--v8-pool-size=1', '--preserve-symlinks'] : []),
  join(root, 'src', 'bin', `${name}.ts`),
];

export const environment: Readonly<Record<string, string>> = { NODE_COMPILE_CACHE: join(root, '.cache', 'compile') };

export interface RunOptions {
  readonly arguments?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Of the host's service, where it is not the only one of its kind there. */
  readonly service?: string;
  /** Wait for this unix socket of the host; the agent's is /run/causeway/agent.sock. */
  readonly socket?: string;
}

export const agentSocket = '/run/causeway/agent.sock';

/** Starts an agent and waits until its socket answers. Running already is success. */
export function startAgent(host: Host, options: RunOptions = {}): Promise<void> {
  return host.startService({
    name: 'agent',
    argv: [...programOf('agent'), ...(options.arguments ?? [])],
    env: { ...environment, ...options.env },
    ready: { socket: options.socket ?? agentSocket },
  });
}

export const stopAgent = (host: Host): Promise<void> => host.stopService('agent', 'SIGTERM');
/** As the kernel's memory killer would. */
export const killAgent = (host: Host): Promise<void> => host.stopService('agent', 'SIGKILL');

/** Takes everything of an agent off the host, on which none runs any more. */
export async function uninstallAgent(host: Host): Promise<void> {
  await host.exec([...programOf('agent'), '--uninstall']);
}

/** Starts a controller on the host; the caller asks its API whether it is ready, unless a socket is given. */
export function startController(host: Host, options: RunOptions = {}): Promise<void> {
  return host.startService({
    name: options.service ?? 'controller',
    argv: [...programOf('controller'), ...(options.arguments ?? [])],
    env: { ...environment, ...options.env },
    ...(options.socket === undefined ? {} : { ready: { socket: options.socket } }),
  });
}

export const stopController = (host: Host): Promise<void> => host.stopService('controller', 'SIGTERM');
export const killController = (host: Host): Promise<void> => host.stopService('controller', 'SIGKILL');
