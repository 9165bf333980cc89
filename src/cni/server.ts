// The agent's side of causeway-cni: one POST per execution of the plugin. Its body is the plugin's environment, each variable
// ended by a NUL, one more NUL, and its standard input. 200 means success, anything else an error object; the plugin prints
// the answer as it is and exits accordingly.
import { type CallAnswer, CallServer } from '#api/call-server.ts';
import type { FurtherNetworks } from '#api/further-networks.ts';
import type { AddressChooser, LocalAgent } from '#api/local.ts';
import { Sequence } from '#api/sequence.ts';
import { assertNever, Fault, isFault } from '#model/fault.ts';
import { Attachments, endpointId } from './attachments.ts';
import { errorAnswer, notAvailable } from './faults.ts';
import { Further } from './further.ts';
import type { LostOptions } from './lost-sandboxes.ts';
import { type Environment, parseRequest, type Request, versionAnswer, versionOf } from './request.ts';
import { newestVersion, type Result, writeResult } from './result.ts';

const maxBody = 4 * 1024 * 1024;

export interface CniLog {
  debug(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface CniOptions {
  readonly agent: LocalAgent;
  readonly choose?: AddressChooser | undefined;
  /** Whether containers get addresses of a pool; without it they do of all. */
  readonly isForContainers?: ((pool: string) => boolean) | undefined;
  /** That a host without a free address is told of otherwise than by STATUS. */
  readonly isFullToldElsewhere?: boolean | undefined;
  /** Who knows of further networks of pods. */
  readonly networks?: FurtherNetworks | undefined;
  readonly log: CniLog;
}

interface Execution {
  readonly environment: Environment;
  readonly input: string;
}

/** Fault `invalid` when there is no end to the environment. */
export function readExecution(body: string): Execution {
  const [, variables, input] = /^((?:[^\0]+\0)*)\0(.*)$/s.exec(body) ?? [];
  if (variables === undefined || input === undefined) throw new Fault('invalid', 'The request is no execution of causeway-cni');
  const pairs = variables.split('\0').flatMap((variable): [string, string][] => {
    const at = variable.indexOf('=');
    return at <= 0 ? [] : [[variable.slice(0, at), variable.slice(at + 1)]];
  });
  return { environment: Object.fromEntries(pairs), input };
}

export interface Cni {
  /** Runs the plugin once, with the body of its request. Never rejects: what goes wrong is in the answer. */
  readonly call: (body: string) => Promise<CallAnswer>;
  /** What is attached, and its removal, in turn with the runtime's own calls. */
  readonly attached: Pick<LostOptions, 'records' | 'remove'>;
}

/** What an execution of the plugin comes to, the same whether a runtime or the agent itself asks. */
function executor({ agent, networks, ...choices }: Omit<CniOptions, 'log'>) {
  const own = (environment: Environment, input: string): Promise<object | undefined> => {
    const request = parseRequest(environment, input);
    return serve(request.command === 'ADD' ? { ...request, isFurther: true } : request, { environment, input });
  };
  const further = networks === undefined ? undefined : new Further({ agent, networks, own });
  const attachments = new Attachments(agent, { ...choices, release: async (id) => further?.remove(id) });

  async function add(asked: Extract<Request, { readonly command: 'ADD' }>, execution: Execution): Promise<Result> {
    if (further === undefined || asked.isFurther === true) return await attachments.add(asked);
    const request = await further.first(asked, execution);
    const first = await attachments.add(request);
    const id = endpointId(request.attachment);
    try {
      return await further.add(id, request, first);
    } catch (error) {
      // What cannot be undone now is by the DEL that follows.
      await attachments.forget(id).catch(() => undefined);
      throw error;
    }
  }

  async function serve(request: Request, execution: Execution): Promise<object | undefined> {
    const { input } = execution;
    switch (request.command) {
      case 'ADD':
        return writeResult(await add(request, execution), versionOf(input));
      case 'CHECK':
        await attachments.check(request);
        await further?.check(endpointId(request.attachment));
        return undefined;
      case 'DEL':
        await attachments.remove(request);
        return undefined;
      case 'GC':
        await attachments.collect(request);
        return undefined;
      case 'STATUS':
        await attachments.status(request);
        return undefined;
      case 'VERSION':
        return versionAnswer(input);
      default:
        return assertNever(request);
    }
  }
  return { attachments, serve };
}

export function createCni(options: CniOptions): Cni {
  const { log, ...choices } = options;
  const { attachments, serve } = executor(choices);
  const sequence = new Sequence();

  async function run(execution: Execution): Promise<CallAnswer> {
    const { environment, input } = execution;
    const started = performance.now();
    const said = { environment, input: input.slice(0, 4096) };
    const took = (): number => Math.round(performance.now() - started);
    try {
      const request = parseRequest(environment, input);
      const subject = 'attachment' in request ? endpointId(request.attachment) : request.command;
      const result = await sequence.run(subject, () => serve(request, execution));
      log.debug({ ...said, result, ms: took() }, 'CNI call');
      return { status: 200, body: result };
    } catch (error) {
      const code = environment['CNI_COMMAND'] === 'STATUS' && isFault(error) && !isMistake(error) ? notAvailable : undefined;
      const body = errorAnswer(error, versionOf(input), code);
      const fields = { ...said, code: body.code, error, ms: took() };
      if (isFault(error)) log.warn(fields, `CNI call failed: ${body.msg}`);
      else log.error(fields, 'CNI call failed unexpectedly');
      return { status: 500, body };
    }
  }

  async function call(body: string): Promise<CallAnswer> {
    let execution: Execution;
    try {
      execution = readExecution(body);
    } catch (error) {
      return { status: 400, body: errorAnswer(error, newestVersion) };
    }
    return await run(execution);
  }

  const attached: Cni['attached'] = {
    records: () => attachments.records(),
    remove: (endpoint) => sequence.run(endpoint, () => attachments.forget(endpoint)),
  };
  return { call, attached };
}

/** Of the one who asks, not of this host. */
const isMistake = ({ code }: Fault): boolean => code === 'invalid' || code === 'version' || code === 'unsupported';

const refuse = (status: number, message: string): CallAnswer => ({
  status,
  body: errorAnswer(new Fault(status === 404 ? 'not-found' : 'invalid', message), newestVersion),
});

/** The socket of causeway-cni, which only root may open. */
export const listenCni = ({ call }: Pick<Cni, 'call'>, path: string): Promise<CallServer> =>
  CallServer.listen(
    {
      call: async (called, body) => (called === '/cni' ? await call(body) : refuse(404, 'Not found')),
      refuse,
      maxBody,
      contentType: 'application/json',
    },
    path,
  );
