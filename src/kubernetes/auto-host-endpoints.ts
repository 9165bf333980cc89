// Host endpoints that are made by themselves: what Calico's kube-controllers do where KubeControllersConfiguration `default` says
// `autoCreate: Enabled` (projectcalico.org/v3; kube-controllers/pkg/controllers/node/hostendpoints.go), with the same names, labels
// and fields, so that those that Calico has made are gone on with. Each node has one for all of its links, whose profile allows
// what no policy is for; and one for each template that picks it and one of its addresses.
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { selector } from '#api/calico-bgp.ts';
import * as field from '#api/fields.ts';
import { type Cidr, cidrBase, contains, type Ip } from '#model/ip.ts';
import { type Labels, type Selector, selects } from '#model/selector.ts';
import { readAnnotations } from './annotations.ts';
import { openProfile } from './calico-host-endpoint.ts';
import { revisionOf } from './client.ts';
import { isAlike } from './conditions.ts';
import { internalIps } from './nodes.ts';
import { type Attempt, Passes, type PassesOptions, type Sort } from './passes.ts';
import { calicoGroup } from './policy-facts.ts';
import { cidrIn, type Problem } from './policy-parts.ts';

const createdBy = { 'projectcalico.org/created-by': 'calico-kube-controllers' } as const;
const suffix = 'auto-hep';
const mostNameLength = 253;
const endpoints = `${calicoGroup}/hostendpoints`;
export const controllersPath: string = `${calicoGroup}/kubecontrollersconfigurations`;

const isSwitchedOn = v.nullish(v.picklist(['Enabled', 'Disabled'], 'expected Enabled or Disabled'));
const template = v.object({
  generateName: v.pipe(
    v.string('expected a name'),
    v.regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/, 'expected lower-case letters, digits, - and .'),
  ),
  nodeSelector: v.optional(selector, ''),
  interfaceCIDRs: v.nullish(v.array(field.cidr), []),
  interfacePattern: v.nullish(v.string(), ''),
  labels: v.nullish(field.texts, {}),
});
const configuration = v.object({
  metadata: v.object({ name: v.string() }),
  spec: v.nullish(
    v.object({
      controllers: v.nullish(
        v.object({
          node: v.nullish(
            v.object({
              hostEndpoint: v.nullish(
                v.object({ autoCreate: isSwitchedOn, createDefaultHostEndpoint: isSwitchedOn, templates: v.nullish(v.array(template)) }),
              ),
            }),
          ),
        }),
      ),
    }),
  ),
});

interface Template {
  readonly name: string;
  readonly nodes: Selector;
  readonly ranges: readonly Cidr[];
  readonly labels: Labels;
}

/** Which host endpoints are made; undefined: none. */
export interface AutoEndpoints {
  /** Whether every node has one for all of its links. */
  readonly everywhere: boolean;
  readonly templates: readonly Template[];
}

export interface AutoReading {
  readonly isReadable: boolean;
  readonly auto?: AutoEndpoints;
  readonly problems: readonly Problem[];
}

const place = 'spec.controllers.node.hostEndpoint';

/** What cannot be read makes nothing, and leaves what is there. */
export function readAutoEndpoints(item: unknown): AutoReading {
  const read = v.safeParse(configuration, item);
  if (!read.success) {
    const [issue] = read.issues;
    const message = `${issue.message}; host endpoints stay as they are`;
    return { isReadable: false, problems: [{ field: v.getDotPath(issue) ?? 'spec', reason: 'Invalid', message }] };
  }
  const { metadata, spec } = read.output;
  if (metadata.name !== 'default') {
    const message = 'only the one named default is followed';
    return { isReadable: true, problems: [{ field: 'metadata.name', reason: 'Unsupported', message }] };
  }
  const { autoCreate, createDefaultHostEndpoint, templates } = spec?.controllers?.node?.hostEndpoint ?? {};
  const all = templates ?? [];
  const problems = all.flatMap(({ interfacePattern }, index): Problem[] =>
    interfacePattern === ''
      ? []
      : [
          {
            field: `${place}.templates[${index}].interfacePattern`,
            reason: 'Unsupported',
            message: 'which links a node has is not known here; nothing is made by the template',
          },
        ],
  );
  if (autoCreate !== 'Enabled') return { isReadable: true, problems };
  const usable = all
    .filter(({ interfacePattern }) => interfacePattern === '')
    .map(({ generateName, nodeSelector, interfaceCIDRs, labels }): Template => ({
      name: generateName,
      nodes: nodeSelector,
      ranges: interfaceCIDRs ?? [],
      labels: labels ?? {},
    }));
  return { isReadable: true, auto: { everywhere: createDefaultHostEndpoint !== 'Disabled', templates: usable }, problems };
}

export interface LabelledNode {
  readonly name: string;
  readonly labels: Labels;
  readonly ips: readonly Ip[];
}

/** Of what is made and compared; others may say more. */
export interface AutoEndpoint {
  readonly metadata: { readonly name: string; readonly labels: Labels };
  readonly spec: {
    readonly node: string;
    readonly interfaceName?: string;
    readonly expectedIPs: readonly string[];
    readonly profiles: readonly string[];
  };
}

/** A name that is too long is its digest, as Calico has it. */
function nameFor(...words: readonly string[]): string {
  const whole = [...words, suffix].join('-');
  if (whole.length <= mostNameLength) return whole;
  const digest = createHash('sha256').update(whole).digest('base64url').replaceAll(/[-_.]/g, '').toLowerCase();
  return `${digest}-${suffix}`;
}

/** By name. */
export function wantedEndpoints({ everywhere, templates }: AutoEndpoints, nodes: Iterable<LabelledNode>): Map<string, AutoEndpoint> {
  const wanted = new Map<string, AutoEndpoint>();
  const want = (
    { name: node, labels }: LabelledNode,
    name: string,
    more: { interfaceName?: string; ips: readonly Ip[]; labels: Labels },
  ): void => {
    const { interfaceName, ips, labels: own } = more;
    const link = interfaceName === undefined ? {} : { interfaceName };
    const spec = { node, ...link, expectedIPs: ips, profiles: [openProfile] };
    wanted.set(name, { metadata: { name, labels: { ...labels, ...own, ...createdBy } }, spec });
  };
  for (const node of nodes) {
    if (everywhere) want(node, nameFor(node.name), { interfaceName: '*', ips: node.ips, labels: {} });
    for (const { name, nodes: of, ranges, labels } of templates) {
      const ips = node.ips.filter((ip) => ranges.some((range) => contains(range, ip)));
      if (ips.length > 0 && selects(of, node.labels)) want(node, nameFor(node.name, name), { ips, labels });
    }
  }
  return wanted;
}

const nodeObject = v.object({
  metadata: v.object({
    name: v.string(),
    labels: v.optional(field.texts, {}),
    annotations: v.optional(v.record(v.string(), v.string()), {}),
  }),
  spec: v.optional(v.object({ podCIDR: v.optional(v.string()), podCIDRs: v.optional(v.array(v.string())) }), {}),
  status: v.optional(v.object({ addresses: v.optional(v.array(v.object({ type: v.string(), address: v.string() })), []) }), {}),
});

/** Undefined: no agent of ours runs there. With the first address of its range, by which it talks to pods of others in tunnels. */
export function readLabelledNode(item: unknown): LabelledNode | undefined {
  const read = v.safeParse(nodeObject, item);
  if (!read.success) return undefined;
  const { metadata, spec, status } = read.output;
  const { name, labels, annotations } = metadata;
  if ((labels['kubernetes.io/os'] ?? 'linux') !== 'linux') return undefined;
  const hasRange = readAnnotations(annotations).carrying?.receives !== undefined;
  const ranges = hasRange ? (spec.podCIDRs ?? (spec.podCIDR === undefined ? [] : [spec.podCIDR])) : [];
  const first = ranges.flatMap((text) => {
    const cidr = cidrIn(text);
    return cidr === undefined ? [] : [cidrBase(cidr)];
  });
  return { name, labels, ips: [...new Set([...internalIps(status.addresses), ...first])] };
}

const stored = v.looseObject({
  metadata: v.looseObject({ name: v.string(), labels: v.nullish(field.texts, {}), resourceVersion: v.string() }),
  spec: v.looseObject({ node: v.nullish(v.string()), interfaceName: v.nullish(v.string()), expectedIPs: v.nullish(v.array(v.string())) }),
});
type Stored = v.InferOutput<typeof stored>;

const isAuto = ({ metadata: { labels } }: Stored): boolean =>
  Object.entries(createdBy).every(([label, value]) => labels?.[label] === value);

/** Of what Calico compares: profiles are left to who changes them. */
const isAsWanted = ({ metadata, spec }: Stored, wanted: AutoEndpoint): boolean =>
  isAlike(metadata.labels ?? {}, wanted.metadata.labels) &&
  isAlike(spec.expectedIPs ?? [], wanted.spec.expectedIPs) &&
  (spec.interfaceName ?? '') === (wanted.spec.interfaceName ?? '');

/** Makes them, and takes away those that nothing is the reason of any more. */
export class AutoHostEndpoints {
  readonly #options: PassesOptions;
  readonly #nodes = new Map<string, LabelledNode>();
  readonly #stored = new Map<string, Stored>();
  readonly #settings = new Map<string, AutoReading>();
  readonly #passes: Passes;

  constructor(options: PassesOptions) {
    this.#options = options;
    this.#passes = new Passes(options, {
      sorts: this.#sorts(),
      pass: (attempt) => this.#pass(attempt),
      failure: 'cannot write a host endpoint',
    });
  }

  /** Resolves when `signal` has aborted. */
  run(signal: AbortSignal): Promise<void> {
    return this.#passes.run(signal);
  }

  /** Looks again at everything soon. */
  kick(): void {
    this.#passes.kick();
  }

  #sorts(): Sort[] {
    return [
      {
        name: 'nodes',
        path: '/api/v1/nodes',
        keys: () => this.#nodes.keys(),
        put: (key, item) => {
          const node = readLabelledNode(item);
          // Kubelets touch their Nodes every few seconds.
          const isSame = isAlike(node, this.#nodes.get(key));
          if (node === undefined) this.#nodes.delete(key);
          else this.#nodes.set(key, node);
          return !isSame;
        },
        delete: (key) => this.#nodes.delete(key),
      },
      {
        name: 'host endpoints',
        path: endpoints,
        keys: () => this.#stored.keys(),
        put: (key, item) => {
          const read = v.safeParse(stored, item);
          if (read.success) this.#stored.set(key, read.output);
        },
        delete: (key) => this.#stored.delete(key),
      },
      {
        name: 'settings of controllers',
        path: controllersPath,
        keys: () => this.#settings.keys(),
        put: (key, item) => this.#settings.set(key, readAutoEndpoints(item)),
        delete: (key) => this.#settings.delete(key),
      },
    ];
  }

  async #pass(attempt: Attempt): Promise<void> {
    const said = this.#settings.get('default');
    if (said?.isReadable === false) return;
    const wanted = said?.auto === undefined ? new Map<string, AutoEndpoint>() : wantedEndpoints(said.auto, this.#nodes.values());
    for (const [name, found] of this.#stored) if (isAuto(found) && !wanted.has(name)) await attempt(() => this.#remove(found));
    for (const one of wanted.values()) await attempt(() => this.#settle(one));
  }

  async #remove({ metadata: { name, resourceVersion } }: Stored): Promise<boolean> {
    await this.#options.client.remove(`${endpoints}/${name}`, revisionOf(resourceVersion));
    return true;
  }

  /** One of that name that somebody else has made stays as it is. */
  async #settle(wanted: AutoEndpoint): Promise<boolean> {
    const { name } = wanted.metadata;
    const { client } = this.#options;
    const found = this.#stored.get(name);
    if (found === undefined) {
      await client.create(endpoints, { apiVersion: 'projectcalico.org/v3', kind: 'HostEndpoint', ...wanted });
      return true;
    }
    if (!isAuto(found) || isAsWanted(found, wanted)) return false;
    const { labels } = wanted.metadata;
    await client.replace(`${endpoints}/${name}`, { ...found, metadata: { ...found.metadata, labels }, spec: wanted.spec });
    return true;
  }
}
