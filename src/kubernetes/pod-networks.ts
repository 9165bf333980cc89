// Further networks of pods, from the cluster's API: the pod's annotation says which, a NetworkAttachmentDefinition what each is, and
// what came of it is written to the pod's annotation `network-status` (Kubernetes Network Custom Resource Definition De-facto
// Standard 1.3, sections 3 to 5; Multus' own words where that leaves room).
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { AskingPod, AttachedNetwork, FurtherNetwork, FurtherNetworks } from '#api/further-networks.ts';
import { Fault, isFault } from '#model/fault.ts';
import type { Ip } from '#model/ip.ts';
import type { KubernetesClient } from './client.ts';
import { defaultAnnotation, networksAnnotation, type NetworkSelection, readDefault, readSelections } from './network-selection.ts';
import { describingKeys, pluginsOf } from './own-network.ts';
import { definitionsPath, type OwnNetworks } from './own-networks.ts';

const statusAnnotation = 'k8s.v1.cni.cncf.io/network-status';
/** Where a kubelet has a pod from. What it shows in the API of the pods of its own files has other identifiers than the runtime knows. */
const sourceAnnotation = 'kubernetes.io/config.source';

export interface PodNetworksOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'patch'>;
  /** Where the runtime has its configurations. */
  readonly folder: string;
  readonly own: Pick<OwnNetworks, 'networkOf'>;
  /** Why who has that address has no port of the cloud; undefined: it has one, or is to have none. */
  readonly withoutPort?: (ip: Ip) => string | undefined;
}

/** Of a pod that was to have ports of the cloud and has not: why. */
export const portlessAnnotation = 'causeway.dev/without-port';

const definition = v.object({ spec: v.nullish(v.object({ config: v.nullish(v.string(), '') }), {}) });
const configuration = v.pipe(v.string(), v.parseJson(), field.object);
const named = v.looseObject({ name: v.string() });

export class PodNetworks implements FurtherNetworks {
  readonly #options: PodNetworksOptions;

  constructor(options: PodNetworksOptions) {
    this.#options = options;
  }

  async first({ annotations }: AskingPod): Promise<FurtherNetwork | undefined> {
    const selection = readDefault(annotations[defaultAnnotation] ?? '');
    if (selection === undefined) return undefined;
    const network = await this.#networkOf(selection, `${defaultAnnotation}[0]`);
    const { configuration: whole, place } = network;
    const [only, ...others] = pluginsOf(whole);
    if (only !== undefined && others.length === 0 && isOwn(only)) return { ...network, configuration: only.plugin };
    throw new Fault('unsupported', `${place}: in the place of the cluster's network is only one of the plugin causeway alone`, {
      field: defaultAnnotation,
      hint: `Remove it; ${networksAnnotation} may ask for that network beside the cluster's, and for its default-route`,
    });
  }

  async of({ namespace, annotations }: AskingPod): Promise<readonly FurtherNetwork[]> {
    const selections = readSelections(annotations[networksAnnotation] ?? '', namespace);
    const networks: FurtherNetwork[] = [];
    for (const [index, selection] of selections.entries())
      networks.push(await this.#networkOf(selection, `${networksAnnotation}[${index}]`));
    return networks;
  }

  async tell({ namespace, pod, podUid, annotations }: AskingPod, attached: readonly AttachedNetwork[]): Promise<void> {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(pod)}/status`;
    const isOfApi = (annotations[sourceAnnotation] ?? 'api') === 'api';
    const text = JSON.stringify(attached.map(statusOf), undefined, 4);
    // With the identifier it is refused for another pod of that name.
    const uid = podUid === undefined || !isOfApi ? {} : { uid: podUid };
    const portless = attached.flatMap(({ name, ips }) =>
      ips.flatMap((ip) => {
        const reason = this.#options.withoutPort?.(ip);
        return reason === undefined ? [] : [`${ip} of ${name} is carried by an overlay, without a port of the cloud: ${reason}`];
      }),
    );
    const said = { [statusAnnotation]: text, ...(portless.length === 0 ? {} : { [portlessAnnotation]: portless.join('. ') }) };
    await this.#options.client.patch(path, { metadata: { ...uid, annotations: said } });
  }

  async #networkOf(selection: NetworkSelection, asked: string): Promise<FurtherNetwork> {
    const { namespace, name, ifname, ips, mac, gateways, args, capabilities } = selection;
    const key = `${namespace}/${name}`;
    const place = `Annotation ${asked}, definition ${key}`;
    return {
      place,
      name: key,
      ifname,
      configuration: await this.#configurationOf(selection, place),
      ips,
      ...(mac === undefined ? {} : { mac }),
      capabilities,
      args,
      gateways,
    };
  }

  async #configurationOf(selection: NetworkSelection, place: string): Promise<Readonly<Record<string, unknown>>> {
    const { namespace, name } = selection;
    const item = await this.#definition(namespace, name, place);
    const { spec } = v.parse(definition, item);
    const text = spec?.config ?? '';
    if (text.trim() === '') return onDisk(this.#options.folder, name, place);
    const read = v.safeParse(configuration, text);
    if (!read.success) throw new Fault('invalid', `${place}: spec.config is no JSON object`, { field: 'spec.config' });
    const whole = { name, ...read.output };
    if (!pluginsOf(whole).some(isOwn)) return whole;
    checkServed(selection, place);
    return await this.#withNetwork(whole, { key: `${namespace}/${name}`, item, place });
  }

  /** The plugin of ours is told which network it is, in the place of what describes it. */
  async #withNetwork(
    whole: Readonly<Record<string, unknown>>,
    { key, item, place }: Described,
  ): Promise<Readonly<Record<string, unknown>>> {
    try {
      const { id } = await this.#options.own.networkOf(key, item);
      const told = (plugin: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> =>
        isOwn({ plugin })
          ? { ...Object.fromEntries(Object.entries(plugin).filter(([one]) => !describingKeys.includes(one))), network: id }
          : plugin;
      return Array.isArray(whole['plugins']) ? { ...whole, plugins: pluginsOf(whole).map(({ plugin }) => told(plugin)) } : told(whole);
    } catch (error) {
      if (!isFault(error)) throw error;
      throw new Fault(error.code, `${place}, ${error.message}`, { field: error.field, hint: error.hint });
    }
  }

  async #definition(namespace: string, name: string, place: string): Promise<unknown> {
    const path = definitionsPath.replace(/[^/]+$/, `namespaces/${encodeURIComponent(namespace)}/$&/${encodeURIComponent(name)}`);
    try {
      return await this.#options.client.get(path);
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
      throw new Fault('not-found', `${place}: there is no such NetworkAttachmentDefinition`, { field: networksAnnotation, cause: error });
    }
  }
}

interface Described {
  readonly key: string;
  readonly item: unknown;
  readonly place: string;
}

const isOwn = ({ plugin }: { readonly plugin: Readonly<Record<string, unknown>> }): boolean => plugin['type'] === 'causeway';

/** Networks of ours lead to their own ranges: answers to anybody else would leave by the cluster's, where nobody waits for them. */
function checkServed({ gateways, capabilities }: NetworkSelection, place: string): void {
  const odd = gateways.length > 0 ? 'default-route' : Object.hasOwn(capabilities, 'portMappings') ? 'portMappings' : undefined;
  if (odd === undefined) return;
  throw new Fault('unsupported', `${place}: ${odd} cannot be served by a network of the type causeway`, {
    field: odd,
    hint: "Both are the cluster's own network's",
  });
}

/** The configuration of that name in the runtime's folder. What cannot be read there is passed over, as runtimes do. */
function onDisk(folder: string, name: string, place: string): Readonly<Record<string, unknown>> {
  for (const file of readdirSync(folder).toSorted()) {
    if (!/\.(conf|conflist|json)$/.test(file)) continue;
    const read = v.safeParse(v.pipe(configuration, named), contentOf(join(folder, file)));
    if (read.success && read.output.name === name) return read.output;
  }
  throw new Fault('not-found', `${place}: spec.config is empty, and no configuration in ${folder} has the name ${name}`, {
    field: 'spec.config',
  });
}

function contentOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // gone since it was listed, or a folder
  }
}

function statusOf({ name, ifname, ips, mac, mtu, isFirst, dns, gateways }: AttachedNetwork): object {
  return {
    name,
    interface: ifname,
    ips,
    ...(mac === undefined ? {} : { mac }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(isFirst ? { default: true } : {}),
    dns,
    ...(gateways.length === 0 ? {} : { gateway: gateways }),
  };
}
