// A real Docker engine in a lab host, configured as a package would: default paths, which are the host's own there. Only
// the control group of its containers is named, so that they stay below the host's.
import type { Host } from './host.ts';
import { type CommandOptions, type Output, run } from './command.ts';
import { hostGroup } from './state.ts';

const service = 'dockerd';
/** Longer than any answer of an engine takes: what never comes is then told by the call that waits for it. */
const answerMs = 300_000;
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

/** Runs the Docker client against the host's engine, for five minutes unless said. Faults as `run`. */
export function dockerOutput(host: Host, argv: readonly string[], options: CommandOptions = {}): Promise<Output> {
  const env = { ...options.env, DOCKER_HOST: `unix://${engineSocket(host)}`, DOCKER_CONFIG: `${host.folder}/client` };
  return run(['docker', ...argv], { timeoutMs: answerMs, ...options, env });
}

/** As `dockerOutput`, and answers the trimmed output. */
export async function docker(host: Host, argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  return (await dockerOutput(host, argv, options)).stdout.trim();
}
