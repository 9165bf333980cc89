// One execution of the plugin: its environment and its standard input, parsed once (CNI 1.1.0, section 2). The environment is
// judged before the configuration, as the reference library does, so that the error number says whose mistake it is.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { parse, type Schema } from '#api/parse.ts';
import { Fault } from '#model/fault.ts';
import { type Arguments, parseArguments } from './arguments.ts';
import { containerId, foreignIpam, parseCollection, parseConfiguration, parseJson, parseName, type Valid, type Wanted } from './config.ts';
import type { Ipam } from './ipam.ts';
import { inputField } from './faults.ts';
import { newestVersion, type Result, type Version, versions } from './result.ts';

/** Which attachment: the three together are its name. */
export interface AttachmentName {
  readonly name: string;
  readonly containerId: string;
  readonly ifname: string;
}

/** What plugins of others are to be told, too. */
export interface Called {
  /** CNI_ARGS and CNI_PATH, as they came. */
  readonly args: string;
  readonly path: string;
}

export type Request =
  | {
      readonly command: 'ADD';
      readonly attachment: AttachmentName;
      readonly netns: string;
      readonly wanted: Wanted;
      readonly args: Arguments;
      readonly called: Called;
      /** Asked for by the agent itself: it goes with another attachment of the container. */
      readonly isFurther?: boolean;
      /** Of the network in the place of the runtime's, for the report. */
      readonly inPlace?: string;
      readonly ipam?: Ipam;
    }
  | {
      readonly command: 'CHECK';
      readonly attachment: AttachmentName;
      readonly netns: string;
      readonly expected: Result;
      readonly ipam?: Ipam;
    }
  | { readonly command: 'DEL'; readonly attachment: AttachmentName; readonly ipam?: Ipam }
  | { readonly command: 'GC'; readonly name: string; readonly valid: readonly Valid[]; readonly ipam?: Ipam }
  | { readonly command: 'STATUS'; readonly name: string; readonly network?: string; readonly ipam?: Ipam }
  | { readonly command: 'VERSION' };

export type Environment = Readonly<Record<string, string>>;

const commands = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC', 'VERSION'] as const;
type Command = (typeof commands)[number];
const since: Readonly<Partial<Record<Command, Version>>> = { CHECK: '0.4.0', STATUS: '1.1.0', GC: '1.1.0' };

const isVersion = (text: unknown): text is Version => versions.some((version) => version === text);

/** The version to answer in: the one that was asked in, where we speak it. */
export function versionOf(input: string): Version {
  try {
    const { cniVersion } = parseJson(input, inputField);
    return isVersion(cniVersion) ? cniVersion : newestVersion;
  } catch {
    return newestVersion; // no JSON: said by parseRequest
  }
}

/** An absolute path without `..`, as the kernel is going to be asked for it. */
const netnsPath: Schema<string> = v.pipe(
  v.string(),
  v.regex(/^\/[^\p{Cc}]{1,4095}$/u, 'expected an absolute path'),
  v.check((path) => !path.split('/').includes('..'), 'expected a path without ".."'),
);
const linkName: Schema<string> = v.pipe(
  field.linkName,
  v.check((name) => name !== '.' && name !== '..', 'expected a network interface name'),
);

function variable<T>(environment: Environment, name: string, schema: Schema<T>): T {
  const value = environment[name];
  if (value === undefined || value === '') throw new Fault('invalid', `The environment lacks ${name}`, { field: name });
  try {
    return parse(schema, value, name);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault('invalid', error.message, { field: name, cause: error });
  }
}

/**
 * Faults: `invalid`, whose field is a variable, `stdin` or a key of the configuration; `version` (one that we do not speak, or
 * that has no such command); `unsupported`.
 */
export function parseRequest(environment: Environment, input: string): Request {
  const command = variable(environment, 'CNI_COMMAND', v.picklist(commands, `expected one of ${commands.join(', ')}`));
  if (command === 'ADD' || command === 'CHECK' || command === 'DEL') return parseAttachment(command, environment, input);
  if (command === 'VERSION') return { command };
  const configuration = configurationOf(command, input);
  if (command === 'GC') return { command, ...parseCollection(configuration), ...ipamOf(environment, configuration) };
  const { name, network } = parseConfiguration(configuration);
  return { command, name, ...(network === undefined ? {} : { network }), ...ipamOf(environment, configuration) };
}

function parseAttachment(command: 'ADD' | 'CHECK' | 'DEL', environment: Environment, input: string): Request {
  const names = {
    containerId: variable(environment, 'CNI_CONTAINERID', containerId),
    ifname: variable(environment, 'CNI_IFNAME', linkName),
  };
  const configuration = configurationOf(command, input);
  const delegated = ipamOf(environment, configuration);
  if (command === 'DEL') return { command, attachment: { name: parseName(configuration), ...names }, ...delegated };
  const netns = variable(environment, 'CNI_NETNS', netnsPath);
  const called = { args: environment['CNI_ARGS'] ?? '', path: environment['CNI_PATH'] ?? '' };
  const args = parseArguments(called.args);
  const wanted = parseConfiguration(configuration);
  const attachment = { name: wanted.name, ...names };
  if (command === 'ADD') return { command, attachment, netns, wanted, args, called, ...delegated };
  if (wanted.earlier === undefined) throw new Fault('invalid', 'CHECK needs prevResult', { field: 'prevResult' });
  return { command, attachment, netns, expected: wanted.earlier, ...delegated };
}

/** How the IPAM plugin of others is asked, where the configuration names one. */
function ipamOf(environment: Environment, configuration: Readonly<Record<string, unknown>>): { readonly ipam?: Ipam } {
  const type = foreignIpam(configuration);
  if (type === undefined) return {};
  const { CNI_PATH: path = '', CNI_ARGS: args = '', CNI_NETNS: netns = '' } = environment;
  return { ipam: { type, path, args, netns, configuration } };
}

function configurationOf(command: Command, input: string): Record<string, unknown> {
  const configuration = parseJson(input, inputField);
  checkVersion(configuration['cniVersion'], command);
  return configuration;
}

function checkVersion(asked: unknown, command: Command): void {
  if (!isVersion(asked)) {
    const said = asked === undefined ? 'none' : JSON.stringify(asked).slice(0, 80);
    throw new Fault('version', `CNI version ${said} is not spoken here`, { hint: `Supported: ${versions.join(', ')}` });
  }
  const first = since[command];
  if (first !== undefined && versions.indexOf(asked) < versions.indexOf(first)) {
    throw new Fault('version', `CNI ${asked} has no ${command}`, { hint: `It came with ${first}` });
  }
}

export interface VersionAnswer {
  readonly cniVersion: string;
  readonly supportedVersions: readonly string[];
}
export const versionAnswer = (input: string): VersionAnswer => ({ cniVersion: versionOf(input), supportedVersions: versions });
