// A network configuration of one plugin or several, executed as libcni does (CNI 1.1.0, sections 1 and 3): each plugin is asked with
// the network's name and version, what of the runtime's arguments it has capabilities for, and the result so far; DEL goes backwards,
// and has the whole result. Plugins of type `causeway` are the agent itself, so for them no program is executed.
import * as v from 'valibot';
import { parse } from '#api/parse.ts';
import { Fault } from '#model/fault.ts';
import { execute, findPlugin } from './delegate.ts';
import type { Environment } from './request.ts';
import { versions } from './result.ts';

export interface Chain {
  readonly name: string;
  readonly version: string;
  readonly plugins: readonly Readonly<Record<string, unknown>>[];
  /** `disableCheck` is not set. */
  readonly hasCheck: boolean;
}

/** What is the same for every plugin and every command of one attachment. */
export interface Attached {
  readonly containerId: string;
  readonly ifname: string;
  readonly netns: string;
  /** CNI_ARGS and CNI_PATH. */
  readonly args: string;
  readonly path: string;
  /** By capability. */
  readonly capabilities: Readonly<Record<string, unknown>>;
}

/** Answers an execution of the plugin `causeway` by its environment and standard input. */
export type Own = (environment: Environment, input: string) => Promise<unknown>;

export const ownType = 'causeway';

/** 0.3.0 differs from 0.3.1 in nothing that is read here. */
const chainVersions: readonly string[] = ['0.3.0', ...versions];
const plugin = v.looseObject({ type: v.pipe(v.string(), v.minLength(1, 'expected the name of a plugin')) });
const chain = v.looseObject({
  name: v.pipe(v.string(), v.regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$/, 'expected letters, digits, "_", "." or "-"')),
  cniVersion: v.optional(v.string(), ''),
  cniVersions: v.optional(v.array(v.string()), []),
  disableCheck: v.optional(v.union([v.boolean(), v.literal('true'), v.literal('false')]), false),
  plugins: v.optional(v.pipe(v.array(plugin), v.minLength(1, 'expected a plugin'), v.maxLength(32, 'expected at most 32 plugins'))),
});

/** Faults: `invalid` naming the field, `version`. */
export function readChain(configuration: Readonly<Record<string, unknown>>): Chain {
  const { name, cniVersion, cniVersions, disableCheck, plugins } = parse(chain, configuration, 'The configuration');
  const own = plugins ?? [parse(plugin, configuration, 'The configuration')];
  const asked = [cniVersion, ...cniVersions];
  const version = chainVersions.findLast((one) => asked.includes(one));
  if (version === undefined) {
    const said = asked.filter((one) => one !== '').join(', ');
    throw new Fault('version', `cniVersion: ${said === '' ? 'none is given' : `${said.slice(0, 80)} is not spoken here`}`, {
      field: 'cniVersion',
      hint: `Supported: ${chainVersions.join(', ')}`,
    });
  }
  return { name, version, plugins: own, hasCheck: disableCheck !== true && disableCheck !== 'true' };
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Names of the capabilities that plugins of the chain have. The agent itself has all of them. */
export function takes({ plugins }: Chain, capability: string): boolean {
  return plugins.some(({ type, capabilities }) => type === ownType || (isRecord(capabilities) && capabilities[capability] === true));
}

/** The chain with `args.cni` of each plugin extended. */
export function withArgs(of: Chain, more: Readonly<Record<string, unknown>>): Chain {
  if (Object.keys(more).length === 0) return of;
  const plugins = of.plugins.map((one) => {
    const args = isRecord(one['args']) ? one['args'] : {};
    return { ...one, args: { ...args, cni: { ...(isRecord(args['cni']) ? args['cni'] : {}), ...more } } };
  });
  return { ...of, plugins };
}

const typeOf = ({ plugins }: Chain, index: number): string => String(plugins[index]?.['type']);

/** Faults of one plugin begin with its place in the chain. */
async function about<T>(of: Chain, index: number, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const { code, hint, field, errno, cause, message } = error;
    throw new Fault(code, `plugins[${index}] (${typeOf(of, index).slice(0, 64)}): ${message}`, { hint, field, errno, cause });
  }
}

/** That every plugin is there, before any of them is asked. Faults as findPlugin. */
export async function checkPresence(of: Chain, path: string): Promise<void> {
  for (const index of of.plugins.keys()) {
    const type = typeOf(of, index);
    if (type !== ownType) await about(of, index, () => Promise.resolve().then(() => findPlugin(type, path)));
  }
}

interface Step {
  readonly command: 'ADD' | 'CHECK' | 'DEL';
  readonly index: number;
  readonly earlier: unknown;
}

/** What the plugin answers. Faults as execute and as the agent's own; the message begins with the plugin's place. */
async function run(of: Chain, attached: Attached, { command, index, earlier }: Step, own: Own): Promise<unknown> {
  const given = of.plugins[index] ?? {};
  const type = typeOf(of, index);
  const { capabilities: declared } = given;
  const { capabilities, containerId, ifname, netns, args, path } = attached;
  const wanted = Object.entries(capabilities).filter(([key]) => type === ownType || (isRecord(declared) && declared[key] === true));
  const configuration = {
    ...given,
    name: of.name,
    cniVersion: of.version,
    ...(wanted.length === 0 ? {} : { runtimeConfig: Object.fromEntries(wanted) }),
    ...(earlier === undefined ? {} : { prevResult: earlier }),
  };
  return await about(of, index, async () => {
    if (type !== ownType) return await execute({ type, command, containerId, ifname, netns, args, path, configuration });
    const environment = { CNI_COMMAND: command, CNI_CONTAINERID: containerId, CNI_IFNAME: ifname, CNI_NETNS: netns, CNI_PATH: path };
    return await own({ ...environment, CNI_ARGS: args }, JSON.stringify(configuration));
  });
}

/** `before` is told of each plugin's number, from 1, before it is asked. Answers the last result, in the chain's version. */
export async function addChain(of: Chain, attached: Attached, before: (reached: number) => void, own: Own): Promise<unknown> {
  let earlier: unknown;
  for (const index of of.plugins.keys()) {
    before(index + 1);
    earlier = await run(of, attached, { command: 'ADD', index, earlier }, own);
  }
  return earlier;
}

const hasLateResult = ({ version }: Chain): boolean => chainVersions.indexOf(version) >= chainVersions.indexOf('0.4.0');

/**
 * Asks the first `reached` plugins backwards. All are asked, also when one fails; then the first failure is thrown. One that has
 * refused ADD by its own words has said that it made nothing, so it may refuse DEL for the same reason.
 */
export async function deleteChain(of: Chain, attached: Attached, { reached, result, isRefused }: Reached, own: Own): Promise<void> {
  const failures: unknown[] = [];
  const earlier = hasLateResult(of) ? result : undefined;
  for (let index = reached - 1; index >= 0; index--) {
    await run(of, attached, { command: 'DEL', index, earlier }, own).catch((error: unknown) => {
      if (isRefused !== true || index < reached - 1) failures.push(error);
    });
  }
  if (failures.length > 0) throw failures[0];
}

export interface Reached {
  /** How many plugins of the chain have been asked. */
  readonly reached: number;
  /** The last plugin's answer to ADD, when it has ended well. */
  readonly result?: unknown;
  /** The last of those that were asked has refused. */
  readonly isRefused?: boolean;
}

/** Nothing where the version has no CHECK, or the configuration wants none. */
export async function checkChain(of: Chain, attached: Attached, result: unknown, own: Own): Promise<void> {
  if (!of.hasCheck || !hasLateResult(of)) return;
  for (const index of of.plugins.keys()) await run(of, attached, { command: 'CHECK', index, earlier: result }, own);
}
