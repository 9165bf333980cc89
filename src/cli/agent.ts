// What the agent on this very machine says of itself, over its socket that only root may open: more than it reports to the
// controller, above all how it gets on with Docker.
import { type IncomingMessage, request } from 'node:http';
import * as v from 'valibot';
import type { Problem } from './problems.ts';

const patienceMs = 2000;
/** Longer than the agent waits for its cluster. */
const clusterPatienceMs = 7000;

export interface AgentView {
  readonly host: string;
  readonly connected: boolean;
  /** Why no controller is followed. */
  readonly reason?: string | undefined;
  readonly refused: readonly string[];
  readonly docker?: DockerView | undefined;
}
export interface DockerView {
  readonly engine: string;
  readonly error?: string | undefined;
  readonly networks: readonly { readonly name: string; readonly state: string; readonly message?: string | undefined }[];
  readonly problems: readonly string[];
}
/** A policy as the agent of this machine has it in force. */
export interface PolicyView {
  readonly policy: string;
  readonly generation: number;
  readonly endpoints: number;
  /** It only counts what it would decide. */
  readonly staged?: true | undefined;
  readonly problems: readonly string[];
  /** On all hosts, where a controller says it. */
  readonly cluster?:
    | { readonly generation: number; readonly inForce: number; readonly needed: number; readonly problems: readonly string[] }
    | undefined;
  readonly rules: readonly { readonly rule: string; readonly action: string; readonly packets: number; readonly bytes: number }[];
}
/** By kind. */
export type HeldObjects = Readonly<Record<string, readonly unknown[]>>;

const statusSchema: v.GenericSchema<unknown, AgentView> = v.object({
  host: v.string(),
  connected: v.boolean(),
  reason: v.optional(v.string()),
  refused: v.optional(v.array(v.string()), []),
  docker: v.optional(
    v.object({
      engine: v.string(),
      error: v.optional(v.string()),
      networks: v.optional(v.array(v.object({ name: v.string(), state: v.string(), message: v.optional(v.string()) })), []),
      problems: v.optional(v.array(v.string()), []),
    }),
  ),
});
const objectsSchema: v.GenericSchema<unknown, { readonly objects: HeldObjects }> = v.object({
  objects: v.record(v.string(), v.array(v.unknown())),
});

const policiesSchema: v.GenericSchema<unknown, { readonly policies: readonly PolicyView[] }> = v.object({
  policies: v.array(
    v.object({
      policy: v.string(),
      generation: v.number(),
      endpoints: v.number(),
      staged: v.optional(v.literal(true)),
      problems: v.array(v.string()),
      cluster: v.optional(v.object({ generation: v.number(), inForce: v.number(), needed: v.number(), problems: v.array(v.string()) })),
      rules: v.array(v.object({ rule: v.string(), action: v.string(), packets: v.number(), bytes: v.number() })),
    }),
  ),
});

const body = async (response: IncomingMessage): Promise<unknown> => {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) text += String(chunk);
  return response.statusCode === 200 ? JSON.parse(text) : undefined;
};

/** The answer's JSON; undefined when nobody listens, nothing comes in time, or it is no success. */
async function ask(socketPath: string, path: string, timeoutMs = patienceMs): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const asked = request({ socketPath, path, signal: AbortSignal.timeout(timeoutMs) }, resolve)
    .on('error', reject)
    .end();
  try {
    return await body(await promise);
  } catch {
    asked.destroy();
    return undefined;
  }
}

/** Undefined where no agent answers. */
export async function agentView(socketPath: string): Promise<AgentView | undefined> {
  const parsed = v.safeParse(statusSchema, await ask(socketPath, '/status'));
  return parsed.success ? parsed.output : undefined;
}

/** What the agent wants the kernel to hold for the network, by kind; undefined where no agent answers or it does not know it. */
export async function heldObjects(socketPath: string, network: string): Promise<HeldObjects | undefined> {
  const parsed = v.safeParse(objectsSchema, await ask(socketPath, `/networks/${encodeURIComponent(network)}/objects`));
  return parsed.success ? parsed.output.objects : undefined;
}

/** Undefined where no agent answers, or one that follows no cluster. */
export async function agentPolicies(socketPath: string): Promise<readonly PolicyView[] | undefined> {
  const parsed = v.safeParse(policiesSchema, await ask(socketPath, '/policies', clusterPatienceMs));
  return parsed.success ? parsed.output.policies : undefined;
}

/** What the agent knows to be wrong and does not report to the controller. */
export function agentProblems({ host, connected, reason, refused, docker }: AgentView): readonly Problem[] {
  const here = (problem: string): Problem => ({ what: 'agent', where: host, problem });
  return [
    ...(connected ? [] : [here(`follows no controller${reason === undefined ? '' : `: ${reason}`}`)]),
    ...refused.map((sentence) => here(`the controller refuses: ${sentence}`)),
    ...(docker?.engine === 'away' ? [here(`Docker does not answer${docker.error === undefined ? '' : `: ${docker.error}`}`)] : []),
    ...(docker?.networks ?? [])
      .filter(({ state }) => state === 'problem')
      .map(({ name, message = 'differs in this engine' }) => ({ what: 'network', where: `${name} on ${host}`, problem: message })),
    ...(docker?.problems ?? []).map(here),
  ];
}
