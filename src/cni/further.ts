// A container's further networks: attached one after the other once the runtime's own attachment is in force, detached backwards
// before it goes. What was attached is known from the journal alone, so it is undone as it was made, also when the pod, its
// definitions or the agent that made it are gone. An attachment that fails takes those before it along.
import { existsSync } from 'node:fs';
import * as v from 'valibot';
import type { AskingPod, AttachedNetwork, FurtherNetwork, FurtherNetworks } from '#api/further-networks.ts';
import type { LocalAgent } from '#api/local.ts';
import { Fault, isFault } from '#model/fault.ts';
import { everything, familyOf, type Ip, parseInterface } from '#model/ip.ts';
import { addChain, type Attached, checkChain, checkPresence, deleteChain, type Own, readChain, takes, withArgs } from './chain.ts';
import { type FurtherAttachment, type FurtherRecord, FurtherRecords } from './further-records.ts';
import { parseJson } from './config.ts';
import { inputField } from './faults.ts';
import { type AttachmentName, type Called, type Environment, parseRequest, type Request } from './request.ts';
import { type Result, result as resultSchema } from './result.ts';

export interface FurtherOptions {
  readonly agent: Pick<LocalAgent, 'journal' | 'leadOut'>;
  readonly networks: FurtherNetworks;
  readonly own: Own;
}

type Adding = Extract<Request, { readonly command: 'ADD' }>;

export class Further {
  readonly #options: FurtherOptions;
  readonly #records: FurtherRecords;

  constructor(options: FurtherOptions) {
    this.#options = options;
    this.#records = new FurtherRecords(options.agent.journal);
  }

  /**
   * The request as it is with the network that the pod has in the place of the runtime's, if any. Faults: those of FurtherNetworks, and
   * as parseRequest.
   */
  async first(request: Adding, { environment, input }: { readonly environment: Environment; readonly input: string }): Promise<Adding> {
    const pod = podOf(request);
    const network = pod === undefined ? undefined : await this.#options.networks.first(pod);
    if (network === undefined) return request;
    return await about(network, () => {
      const parsed = parseRequest(environment, inputOf(network, parseJson(input, inputField)));
      if (parsed.command !== 'ADD') throw new TypeError('Broken invariant: another command');
      // They lead to the cluster's network, where the pod has no address.
      if (parsed.wanted.ports.length > 0) throw new Fault('unsupported', 'portMappings cannot be served by it', { field: 'portMappings' });
      return { ...parsed, inPlace: network.name };
    });
  }

  /**
   * Attaches what the pod asks for, and answers what the runtime is told of its own attachment. Faults: those of FurtherNetworks and of
   * the plugins, the message naming the place; nothing of it is left behind then. The same again does nothing.
   */
  async add(id: string, request: Adding, first: Result): Promise<Result> {
    const { attachment, netns, called } = request;
    const known = this.#records.get(id);
    if (known?.isWhole === true && known.netns === netns) return withoutWays(first, known);
    await this.remove(id);
    const pod = podOf(request);
    const wanted = pod === undefined ? [] : await this.#options.networks.of(pod);
    if (pod === undefined || (wanted.length === 0 && request.inPlace === undefined)) return first;
    const planned = [];
    for (const network of wanted) planned.push(await about(network, () => plannedOf(network, called)));
    try {
      const empty = { containerId: attachment.containerId, netns, path: called.path, isWhole: false, networks: [] };
      const record = await this.#attachAll(id, planned, empty);
      const answer = withoutWays(first, record);
      await this.#options.networks.tell(pod, [
        firstReport({ ...attachment, name: request.inPlace ?? attachment.name }, answer),
        ...record.networks.map(reportOf),
      ]);
      this.#records.put(id, { ...record, isWhole: true });
      return answer;
    } catch (error) {
      // What cannot be undone now stays noted, for the DEL that follows.
      await this.remove(id).catch(() => undefined);
      throw error;
    }
  }

  async #attachAll(id: string, planned: readonly FurtherAttachment[], empty: FurtherRecord): Promise<FurtherRecord> {
    let record = empty;
    const { agent, own } = this.#options;
    for (const network of planned) {
      const { networks } = record;
      const note = (next: FurtherAttachment): void => {
        record = { ...record, networks: [...networks, next] };
        this.#records.put(id, record);
      };
      let reached = 0;
      const before = (next: number): void => note({ ...network, reached: (reached = next) });
      await about(network, async () => {
        try {
          const result = await addChain(network.chain, attachedOf(record, network), before, own);
          note({ ...network, reached, result });
        } catch (error) {
          if (isFault(error) && error.code !== 'timeout') note({ ...network, reached, isRefused: true });
          throw error;
        }
      });
    }
    for (const network of planned.filter(({ gateways }) => gateways.length > 0))
      await about(network, () => agent.leadOut(record.netns, network.ifname, network.gateways));
    return record;
  }

  /** Detaches all, the last first. One that fails keeps no other from it, and is tried again by the next call. Unknown is success. */
  async remove(id: string): Promise<void> {
    const record = this.#records.get(id);
    if (record === undefined) return;
    const left: FurtherAttachment[] = [];
    const failures: Fault[] = [];
    // A plugin that is asked about a namespace that has ended may be told of none (CNI 1.1.0, "DEL").
    const where = existsSync(record.netns) ? record : { ...record, netns: '' };
    for (const network of record.networks.toReversed()) {
      try {
        await about(network, () => deleteChain(network.chain, attachedOf(where, network), network, this.#options.own));
      } catch (error) {
        if (!isFault(error)) throw error;
        failures.push(error);
        left.unshift(network);
      }
    }
    const [failure] = failures;
    if (failure === undefined) return this.#records.delete(id);
    this.#records.put(id, { ...record, isWhole: false, networks: left });
    throw failure;
  }

  /** Faults as the plugins have; the message names the place. */
  async check(id: string): Promise<void> {
    const record = this.#records.get(id);
    if (record === undefined) return;
    const ways = waysOf(record);
    for (const network of record.networks) {
      const result = withoutWaysIn(network.result, ways);
      await about(network, () => checkChain(network.chain, attachedOf(record, network), result, this.#options.own));
    }
  }
}

/** What the runtime says of the container holds for another network, too; what its configuration says of the network does not. */
function inputOf({ configuration, capabilities, ips, mac }: FurtherNetwork, given: Readonly<Record<string, unknown>>): string {
  const { name, cniVersion, prevResult, runtimeConfig } = given;
  const asked = { ...capabilities, ...(ips.length === 0 ? {} : { ips }), ...(mac === undefined ? {} : { mac }) };
  return JSON.stringify({ ...configuration, name, cniVersion, prevResult, runtimeConfig: { ...Object(runtimeConfig), ...asked } });
}

/** Undefined: nobody has said that it is one. */
function podOf({ args: { namespace, pod, podUid }, wanted: { annotations } }: Adding): AskingPod | undefined {
  if (namespace === undefined || pod === undefined) return undefined;
  return { namespace, pod, ...(podUid === undefined ? {} : { podUid }), annotations };
}

/** Faults of what is done for one network say which it is. */
async function about<T>({ place, ifname }: Pick<FurtherNetwork, 'place' | 'ifname'>, act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (!isFault(error)) throw error;
    const { code, hint, errno, cause, message } = error;
    throw new Fault(code, `${place}, as ${ifname}: ${message}`, { field: place, hint, errno, cause });
  }
}

/** Faults: as readChain and checkPresence; `unsupported` for what no plugin of the configuration takes. */
async function plannedOf({ place, name, ifname, configuration, ips, mac, capabilities, args, gateways }: FurtherNetwork, called: Called) {
  const chain = withArgs(readChain(configuration), args);
  const odd = Object.keys(capabilities).find((key) => !takes(chain, key));
  if (odd !== undefined)
    throw new Fault('unsupported', `${odd} is asked for, but no plugin of the configuration has the capability ${odd}`, {
      hint: `Give one of them "capabilities": {"${odd}": true}, or leave ${odd} out`,
    });
  await checkPresence(chain, called.path);
  // As Multus does for plugins that know nothing else.
  const pairs = [
    ...(mac === undefined || takes(chain, 'mac') ? [] : [`MAC=${mac}`]),
    ...(ips.length === 0 || takes(chain, 'ips') ? [] : [`IP=${ips.join(',')}`]),
  ];
  const planned: FurtherAttachment = {
    place,
    name,
    ifname,
    chain,
    capabilities: { ...capabilities, ...(ips.length === 0 ? {} : { ips }), ...(mac === undefined ? {} : { mac }) },
    args: [called.args, ...pairs].filter((text) => text !== '').join(';'),
    gateways,
    reached: 0,
  };
  return planned;
}

const attachedOf = ({ containerId, netns, path }: FurtherRecord, { ifname, args, capabilities }: FurtherAttachment): Attached => ({
  containerId,
  ifname,
  netns,
  args,
  path,
  capabilities,
});

/** Default routes that have been led elsewhere. */
const waysOf = ({ networks }: FurtherRecord): ReadonlySet<string> =>
  new Set(networks.flatMap(({ gateways }) => gateways.map((ip) => everything[familyOf(ip)])));

function withoutWays(result: Result, record: FurtherRecord): Result {
  const ways = waysOf(record);
  return ways.size === 0 ? result : { ...result, routes: result.routes.filter(({ dst }) => !ways.has(dst)) };
}

const routed = v.looseObject({ routes: v.array(v.looseObject({ dst: v.string() })) });

/** The same for an answer in whichever version. */
function withoutWaysIn(answer: unknown, ways: ReadonlySet<string>): unknown {
  const read = v.safeParse(routed, answer);
  return ways.size > 0 && read.success ? { ...read.output, routes: read.output.routes.filter(({ dst }) => !ways.has(dst)) } : answer;
}

const firstReport = ({ name, ifname }: AttachmentName, result: Result): AttachedNetwork =>
  reported(result, { name, ifname, gateways: [], isFirst: true });

/** What a plugin says that is no result is taken for an empty one. */
function reportOf({ name, ifname, result: answer, gateways }: FurtherAttachment): AttachedNetwork {
  const read = v.safeParse(resultSchema, answer);
  const empty: Result = { interfaces: [], ips: [], routes: [], dns: {} };
  return reported(read.success ? read.output : empty, { name, ifname, gateways, isFirst: false });
}

function reported(
  { interfaces, ips, dns }: Result,
  of: Pick<AttachedNetwork, 'name' | 'ifname' | 'gateways' | 'isFirst'>,
): AttachedNetwork {
  const { ifname } = of;
  const at = interfaces.findIndex((one) => one.name === ifname && (one.sandbox ?? '') !== '');
  const { mac, mtu } = interfaces[at] ?? {};
  const own = ips.filter((ip) => ip.interface === undefined || ip.interface === at);
  return {
    ...of,
    ips: own.map(({ address }): Ip => parseInterface(address).ip),
    ...(mac === undefined ? {} : { mac }),
    ...(mtu === undefined ? {} : { mtu }),
    dns,
  };
}
