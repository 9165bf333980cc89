// A real Docker engine in a lab host, configured as a package would: default paths, which are the host's own there. Only
// the control group of its containers is named, so that they stay below the host's.
import type { Host } from './host.ts';
import { type CommandOptions, run } from './command.ts';
import { hostGroup } from './state.ts';

const service = 'dockerd';
const socket = '/run/docker.sock';

export interface EngineOptions {
  readonly liveRestore?: boolean;
  /** Further arguments of dockerd, for example `--insecure-registry=…`. */
  readonly arguments?: readonly string[];
}

/** The engine's address for a client that runs on the machine. */
export const engineSocket = (host: Host): string => host.file(socket);

/** Starts dockerd and waits until it answers. Running already is success. */
export function startDockerd(host: Host, options: EngineOptions = {}): Promise<void> {
  const argv = [
    'dockerd',
    `--host=unix://${socket}`,
    '--storage-driver=overlay2',
    '--exec-opt=native.cgroupdriver=cgroupfs',
    `--cgroup-parent=${hostGroup(host.lab, host.name)}/containers`,
    ...(options.liveRestore === true ? ['--live-restore'] : []),
    ...(options.arguments ?? []),
  ];
  return host.startService({ name: service, argv, env: {}, ready: { socket, path: '/_ping' } }, 180_000);
}

/** Stops the engine in good order: it stops its containers, unless it was started with live-restore. */
export const stopDockerd = (host: Host): Promise<void> => host.stopService(service, 'SIGTERM', 180_000);

/** Ends dockerd as the kernel's memory killer would. Its containerd dies with it (parent-death signal); shims and containers stay. */
export const killDockerd = (host: Host): Promise<void> => host.stopService(service, 'SIGKILL');

/** Runs the Docker client against the host's engine and answers its trimmed output. Faults as `run`. */
export async function docker(host: Host, argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const env = { ...options.env, DOCKER_HOST: `unix://${engineSocket(host)}`, DOCKER_CONFIG: `${host.folder}/client` };
  const { stdout } = await run(['docker', ...argv], { ...options, env });
  return stdout.trim();
}
