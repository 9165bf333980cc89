// Plugins of others, executed as the specification says (CNI 1.1.0, section 4): found by their type in CNI_PATH, asked by environment
// and standard input, answering on standard output. They run in the agent's namespace, where the runtime would run them too.
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';

export interface Delegation {
  /** File name of the plugin. */
  readonly type: string;
  readonly command: 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC' | 'VERSION';
  readonly containerId: string;
  readonly ifname: string;
  readonly netns: string;
  /** CNI_ARGS */
  readonly args: string;
  /** CNI_PATH: folders, separated by colons. */
  readonly path: string;
  readonly configuration: object;
}

const patienceMs = 60_000;
const mostOutput = 1024 * 1024;
const typePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/;

const failure = v.object({ code: v.optional(v.number()), msg: v.optional(v.string(), ''), details: v.optional(v.string(), '') });

/** File of the plugin. Faults: `invalid` (no name of one), `unsupported` (it is not there). */
export function findPlugin(type: string, path: string): string {
  if (!typePattern.test(type)) throw new Fault('invalid', `${JSON.stringify(type.slice(0, 80))} is no name of a plugin`, { field: 'type' });
  for (const folder of path.split(':').filter((one) => one.startsWith('/'))) {
    const file = join(folder, type);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // in another folder, or nowhere
    }
  }
  throw new Fault('unsupported', `No plugin ${type} in ${path === '' ? 'CNI_PATH, which is empty' : path}`, {
    field: 'type',
    hint: `Install it there; Debian has the reference plugins in containernetworking-plugins`,
  });
}

const shown = (output: string): string => output.trim().slice(0, 300);

function jsonOf(output: string, type: string): unknown {
  try {
    return output.trim() === '' ? {} : JSON.parse(output);
  } catch (cause) {
    throw new Fault('unsupported', `Plugin ${type} answers with something else than JSON: ${shown(output)}`, { cause });
  }
}

/**
 * What the plugin answers. Faults: `unsupported` (no such plugin, or no JSON), `kernel` (it failed; its own words), `timeout`.
 * Its process has ended on return.
 */
export async function execute(delegation: Delegation): Promise<unknown> {
  const { type, command, containerId, ifname, netns, args, path, configuration } = delegation;
  const environment = {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    CNI_COMMAND: command,
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netns,
    CNI_IFNAME: ifname,
    CNI_ARGS: args,
    CNI_PATH: path,
  };
  const child = spawn(findPlugin(type, path), {
    env: environment,
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: patienceMs,
    killSignal: 'SIGKILL',
  });
  const ended = Promise.withResolvers<number | null>();
  child.once('error', (cause) => ended.reject(new Fault('kernel', `Cannot execute plugin ${type}: ${cause.message}`, { cause })));
  child.once('close', (status) => ended.resolve(status));
  // A plugin that ends without reading closes the pipe; what it says tells why.
  child.stdin.on('error', () => undefined);
  child.stdin.end(JSON.stringify({ ...configuration, type }));
  const [output, said, status] = await Promise.all([text(child.stdout), text(child.stderr), ended.promise]);
  if (status === null) throw new Fault('timeout', `Plugin ${type} did not end in ${patienceMs / 1000} s`);
  if (output.length > mostOutput) throw new Fault('unsupported', `Plugin ${type} says more than ${mostOutput} characters`);
  if (status === 0) return jsonOf(output, type);
  const read = v.safeParse(v.pipe(v.string(), v.parseJson(), failure), output);
  const words = read.success ? `${read.output.msg} ${read.output.details}`.trim() : shown(`${output} ${said}`);
  throw new Fault('kernel', `Plugin ${type} refuses ${command}: ${words === '' ? `exit status ${status}` : words}`);
}
