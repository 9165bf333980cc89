// Docker's API itself, for what the client program would only slow down: fifty clients at once are fifty processes.
import { Fault, isFault } from '#model/fault.ts';
import { engineSocket } from './engine.ts';
import type { Host } from './host.ts';
import { askSocket } from './unix-http.ts';

const answerMs = 60_000;

/** Answers the parsed body, or undefined when there is none. Faults: `not-found`; `timeout`; `internal` for other statuses of 300 and more. */
export async function askEngine(host: Host, method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<unknown> {
  const content = body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  const { status, text: answer } = await askSocket(engineSocket(host), { method, path, ...content, timeoutMs: answerMs });
  if (status >= 300)
    throw new Fault(status === 404 ? 'not-found' : 'internal', `${host.name}: ${method} ${path}: ${status} ${answer.trim()}`);
  return answer === '' ? undefined : (JSON.parse(answer) as unknown);
}

export interface NewContainer {
  readonly image: string;
  readonly command: readonly string[];
  readonly network: string;
}

/** Creates a container, not started, and answers its id. */
export async function createContainer(host: Host, { image, command, network }: NewContainer): Promise<string> {
  const body = { Image: image, Cmd: command, HostConfig: { NetworkMode: network, Init: false } };
  const { Id } = (await askEngine(host, 'POST', '/containers/create', body)) as { Id: string };
  return Id;
}

export async function startContainer(host: Host, id: string): Promise<void> {
  await askEngine(host, 'POST', `/containers/${id}/start`);
}

export interface Running {
  readonly pid: number;
  readonly address: string;
}

/** First process, as the machine counts, and first address of a running container. Fault `not-found` while it does not run. */
export async function inspectContainer(host: Host, id: string): Promise<Running> {
  const found = (await askEngine(host, 'GET', `/containers/${id}/json`)) as {
    State: { Pid: number };
    NetworkSettings: { Networks: Record<string, { IPAddress: string }> };
  };
  if (found.State.Pid === 0) throw new Fault('not-found', `Container ${id} does not run on ${host.name}`);
  const [network] = Object.values(found.NetworkSettings.Networks);
  return { pid: found.State.Pid, address: network?.IPAddress ?? '' };
}

/** Absent already is success. */
export async function removeContainer(host: Host, id: string): Promise<void> {
  try {
    await askEngine(host, 'DELETE', `/containers/${id}?force=true`);
  } catch (error) {
    if (!isFault(error, 'not-found')) throw error;
  }
}
