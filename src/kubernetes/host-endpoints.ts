// Which of a node's own links are under policy: of the cluster's host endpoints those of this node, each with the link that it
// means. Who is named by address is looked up among the addresses that the node has now.
import { type Cidr, contains, hostPrefix, type Ip } from '#model/ip.ts';
import { linkPrefix } from '#model/numbers.ts';
import { type GuardedLink, type HostGuard, protocols } from '#model/policy.ts';
import type { Labels } from '#model/selector.ts';
import type { HostEndpointWord } from './host-policies.ts';
import type { NetworkSet } from './calico-tier.ts';
import { anywhere, defaultFailsafes, type Failsafes, felixNames, type HostEndpoint } from './calico-host-endpoint.ts';

/** A link, before anybody has looked which policies select it. */
export interface LabelledLink extends Omit<GuardedLink, 'policies'> {
  readonly labels: Labels;
}
export interface LabelledHost extends Omit<HostGuard, 'links'> {
  readonly links: readonly LabelledLink[];
}

export interface HostEndpointsOptions {
  readonly node: string;
  /** TCP port of the API that leads the agent: the node always reaches it, wherever it is. */
  readonly apiPort: number;
  /** Where pods have their addresses, as far as it is known: a link of another system with one of those leads to pods. */
  readonly pods: readonly Cidr[];
  /** Names of the node's links by the addresses that they have. */
  readonly links: () => ReadonlyMap<Ip, string>;
}

export class HostEndpoints {
  readonly #options: HostEndpointsOptions;
  /** Of this node, by name. */
  readonly #own = new Map<string, HostEndpoint>();
  readonly #failsafes = new Map<string, Failsafes>();
  readonly #tell: (name: string, problem: string) => void;
  /** Of this node's, by name, as of the last look. */
  #words: Readonly<Record<string, HostEndpointWord>> = {};
  #isChanged = false;

  /** `tell`: what keeps one from having an effect, once. */
  constructor(options: HostEndpointsOptions, tell: (name: string, problem: string) => void) {
    this.#options = options;
    this.#tell = tell;
  }

  /** Whether anything was put or deleted since the last look. */
  get isChanged(): boolean {
    return this.#isChanged;
  }

  put(endpoint: HostEndpoint): void {
    this.#isChanged = true;
    if (endpoint.node === this.#options.node) this.#own.set(endpoint.name, endpoint);
    else this.#own.delete(endpoint.name);
  }

  delete(name: string): void {
    this.#isChanged = true;
    this.#own.delete(name);
  }

  /** What current() made of each; the same value for as long as nothing has changed. */
  get words(): Readonly<Record<string, HostEndpointWord>> {
    return this.#words;
  }

  putFailsafes(name: string, failsafes: Failsafes): void {
    this.#isChanged = true;
    this.#failsafes.set(name, failsafes);
  }

  deleteFailsafes(name: string): void {
    this.#isChanged = true;
    this.#failsafes.delete(name);
  }

  /** Undefined: none of the links is under policy. */
  current(): LabelledHost | undefined {
    this.#isChanged = false;
    const endpoints = [...this.#own.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
    const words: Record<string, HostEndpointWord> = {};
    const links = new Map<string, LabelledLink>();
    const byAddress = endpoints.length === 0 ? new Map<Ip, string>() : this.#options.links();
    for (const { name, generation, labels, link: named, ips, otherwise } of endpoints) {
      const link = named ?? ips.flatMap((ip) => byAddress.get(ip) ?? [])[0];
      const before = link === undefined ? undefined : links.get(link)?.name;
      const problem = link === undefined ? 'no link has its address' : before && `${before} is for ${link}, too, and comes before it`;
      words[name] = { generation, ...(problem === undefined ? {} : { problem }) };
      // As in Calico, of two for one link the first by name counts.
      if (link === undefined || before !== undefined) continue;
      links.set(link, { name: `HostEndpoint ${name}`, labels, otherwise, ...(link === '*' ? {} : { link }) });
    }
    this.#say(words);
    if (endpoints.length === 0) return undefined;
    return { links: [...links.values()], spared: this.#bridges(byAddress), failsafes: this.#failsafesNow() };
  }

  #bridges(byAddress: ReadonlyMap<Ip, string>): string[] {
    const within = [...byAddress].filter(
      ([ip, link]) => !link.startsWith(linkPrefix) && this.#options.pods.some((one) => contains(one, ip)),
    );
    return [...new Set(within.map(([, link]) => link))].toSorted();
  }

  #say(words: Readonly<Record<string, HostEndpointWord>>): void {
    if (JSON.stringify(words) === JSON.stringify(this.#words)) return;
    for (const [name, { problem }] of Object.entries(words))
      if (problem !== undefined && problem !== this.#words[name]?.problem) this.#tell(name, problem);
    this.#words = words;
  }

  #failsafesNow(): HostGuard['failsafes'] {
    const said = felixNames(this.#options.node).reduce((all, name): Failsafes => ({ ...all, ...this.#failsafes.get(name) }), {});
    const { in: inbound, out } = { ...defaultFailsafes, ...said };
    return [...inbound, ...out, ...anywhere('out', protocols.tcp, [this.#options.apiPort])];
  }
}

/** How selectors of rules find it: by its addresses, as anything else that has labels and is no pod. */
export const networkSetOf = ({ labels, ips, ports }: HostEndpoint): NetworkSet => ({
  labels,
  nets: ips.map(hostPrefix),
  places: ports.flatMap((port) => ips.map((ip) => ({ ...port, ip }))),
});
