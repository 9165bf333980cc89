// Which of a node's own links are under policy: of the cluster's host endpoints those of this node, each with the link that it
// means. Who is named by address is looked up among the addresses that the node has now.
import { type Cidr, contains, hostPrefix, type Ip } from '#model/ip.ts';
import { linkPrefix } from '#model/numbers.ts';
import { type GuardedLink, type HostGuard, protocols } from '#model/policy.ts';
import type { Labels } from '#model/selector.ts';
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
  /** What has been told, by name. */
  readonly #told = new Map<string, string>();

  /** `tell`: what keeps one from having an effect, once. */
  constructor(options: HostEndpointsOptions, tell: (name: string, problem: string) => void) {
    this.#options = options;
    this.#tell = tell;
  }

  put(endpoint: HostEndpoint): void {
    if (endpoint.node === this.#options.node) this.#own.set(endpoint.name, endpoint);
    else this.#own.delete(endpoint.name);
  }

  delete(name: string): void {
    this.#own.delete(name);
    this.#told.delete(name);
  }

  putFailsafes(name: string, failsafes: Failsafes): void {
    this.#failsafes.set(name, failsafes);
  }

  deleteFailsafes(name: string): void {
    this.#failsafes.delete(name);
  }

  /** Undefined: none of the links is under policy. */
  current(): LabelledHost | undefined {
    const endpoints = [...this.#own.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
    if (endpoints.length === 0) return undefined;
    const byAddress = this.#options.links();
    const links = new Map<string, LabelledLink>();
    for (const { name, labels, link: named, ips, otherwise } of endpoints) {
      const link = named ?? ips.flatMap((ip) => byAddress.get(ip) ?? [])[0];
      const before = link === undefined ? undefined : links.get(link)?.name;
      this.#say(name, link === undefined ? 'no link has its address' : before && `${before} is for ${link}, too, and comes before it`);
      // As in Calico, of two for one link the first by name counts.
      if (link === undefined || before !== undefined) continue;
      links.set(link, { name: `HostEndpoint ${name}`, labels, otherwise, ...(link === '*' ? {} : { link }) });
    }
    return { links: [...links.values()], spared: this.#bridges(byAddress), failsafes: this.#failsafesNow() };
  }

  #bridges(byAddress: ReadonlyMap<Ip, string>): string[] {
    const within = [...byAddress].filter(
      ([ip, link]) => !link.startsWith(linkPrefix) && this.#options.pods.some((one) => contains(one, ip)),
    );
    return [...new Set(within.map(([, link]) => link))].toSorted();
  }

  #say(name: string, problem: string | undefined): void {
    if (problem === this.#told.get(name)) return;
    if (problem === undefined) this.#told.delete(name);
    else this.#told.set(name, problem);
    if (problem !== undefined) this.#tell(name, problem);
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
