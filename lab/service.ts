// Long-lived programs of a lab host (an engine, an agent): started detached, written down, so that any process can stop
// them later and a rebooted host can start again what ran on it.
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { lastLines, start } from './command.ts';
import { childrenOf, isAlive, type ProcessRef, refOf, signalProcess } from './process.ts';
import { readJson, writeJson } from './state.ts';
import { until } from './until.ts';

/** How to see that a service has come up: something listens on the socket, and answers `path` with 200 where one is given. */
export interface Readiness {
  /** Path of a unix socket as the host sees it. */
  readonly socket: string;
  readonly path?: string;
}

export interface ServiceSpec {
  readonly name: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly ready?: Readiness;
}

export interface ServiceRecord extends ServiceSpec {
  /** The entering process outside; the program is its only child. */
  readonly process: ProcessRef;
}

/** Where a service lives: its records and logs, how to enter the host, and how to look at the host's files. */
export interface ServicePlace {
  readonly folder: string;
  enter(argv: readonly string[], environment: Readonly<Record<string, string>>): string[];
  file(path: string): string;
}

const recordPath = (place: ServicePlace, name: string): string => join(place.folder, 'services', `${name}.json`);
export const logPath = (place: ServicePlace, name: string): string => join(place.folder, 'logs', `${name}.log`);

export function listServices(place: ServicePlace): ServiceRecord[] {
  const folder = join(place.folder, 'services');
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder).filter((name) => name.endsWith('.json'));
  return names
    .flatMap((name) => (readJson(join(folder, name)) as ServiceRecord | undefined) ?? [])
    .sort((a, b) => Number(a.process.startTime) - Number(b.process.startTime));
}

const findService = (place: ServicePlace, name: string): ServiceRecord | undefined =>
  readJson(recordPath(place, name)) as ServiceRecord | undefined;

export function isRunning(place: ServicePlace, name: string): boolean {
  const record = findService(place, name);
  return record !== undefined && isAlive(record.process);
}

/** Starts a service and waits until it is ready. Running already is success. Fault `unavailable` with its last words when it ends. */
export async function startService(place: ServicePlace, spec: ServiceSpec, timeoutMs = 120_000): Promise<void> {
  if (isRunning(place, spec.name)) return;
  const log = logPath(place, spec.name);
  mkdirSync(dirname(log), { recursive: true });
  const output = openSync(log, 'a');
  const argv = place.enter(spec.argv, spec.env);
  const child = start(argv, { detached: true, stdio: ['ignore', output, output], env: { ...process.env, ...spec.env } });
  closeSync(output);
  child.once('error', () => {}); // it has no number then, which is reported below
  const ref = child.pid === undefined ? undefined : refOf(child.pid);
  child.unref();
  if (ref === undefined) throw new Fault('unavailable', `Cannot start ${spec.name}: ${spec.argv[0]}`);
  writeJson(recordPath(place, spec.name), { ...spec, process: ref } satisfies ServiceRecord);
  const { ready } = spec;
  if (ready === undefined) return;
  await until(
    `${spec.name} to answer`,
    async () => {
      if (await answers(place.file(ready.socket), ready.path)) return true;
      if (isAlive(ref)) return false;
      return 'ended';
    },
    { timeoutMs },
  ).then((answer) => {
    if (answer !== 'ended') return;
    throw new Fault('unavailable', `Cannot start ${spec.name}: it ended: ${lastLines(readFileSync(log, 'utf8'))}`);
  });
}

/** Signals the program itself. Not running is success. */
export function signalService(place: ServicePlace, name: string, signal: NodeJS.Signals): void {
  const record = findService(place, name);
  if (record === undefined || !isAlive(record.process)) return;
  for (const pid of childrenOf(record.process.pid)) {
    const ref = refOf(pid);
    if (ref !== undefined) signalProcess(ref, signal);
  }
}

/** Signals, waits until the program has ended and forgets it. Not running is success. Fault `timeout`. */
export async function stopService(
  place: ServicePlace,
  name: string,
  signal: NodeJS.Signals = 'SIGTERM',
  timeoutMs = 120_000,
): Promise<void> {
  const record = findService(place, name);
  if (record === undefined) return;
  let signalled = false;
  await until(
    `${name} to end`,
    () => {
      if (!isAlive(record.process)) return true;
      // the program may not have been forked yet when we look first
      if (!signalled && childrenOf(record.process.pid).length > 0) {
        signalService(place, name, signal);
        signalled = true;
      }
      return false;
    },
    { timeoutMs },
  );
  rmSync(recordPath(place, name), { force: true });
}

/** Whether something listens on the unix socket, and answers `path` with 200 where one is given. */
function answers(socketPath: string, path: string | undefined): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  if (path === undefined) {
    const socket = connect(socketPath);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
    return promise;
  }
  const asked = request({ socketPath, path, timeout: 2000 }, (response) => {
    response.resume();
    resolve(response.statusCode === 200);
  });
  asked.once('error', () => resolve(false));
  asked.once('timeout', () => asked.destroy());
  asked.end();
  return promise;
}
