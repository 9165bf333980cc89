// The containers' ends. The engine moves the link into the container and sets it up; the agent then notes what it is called
// there, so that a pair that somebody deletes can be made again in place, and brings MTU changes to running containers. Where
// no engine does so (CNI), the link is made inside already and the agent gives it its addresses. Either may have been left half
// done by a process that was killed, so each end is looked at once after every start.
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Attachment, type Desired, familiesOf, type VethLink } from '#model/desired.ts';
import { everything, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import { type Fault, isFault } from '#model/fault.ts';
import type { LocalEndpoint, Network, Pool } from '#model/resources.ts';
import { type FoundAttachment, inspectAttachment, repairAttachment } from '#kernel/attachment.ts';
import { redirectNames, undoRedirect } from '#kernel/name-redirect.ts';
import type { Kinds } from '#kernel/kind.ts';
import { endpointLink, endpointPeerLink, gatewayOf } from '#model/numbers.ts';
import type { Endpoints } from './endpoints.ts';

export interface SandboxesOptions {
  readonly endpoints: Endpoints;
  readonly link: Kinds['link'];
  readonly network: (id: string) => Network | undefined;
  readonly pools: (network: string) => readonly Pool[];
  /** The container has ended without a word: its namespace is gone. */
  readonly gone: (id: string) => void;
  readonly log: (fields: object, message: string) => void;
}

/**
 * When to look for the link in the container after a join. The engine takes some ten milliseconds to move it, and some hundred
 * to start the container; a second and more while it starts many, whom looking in vain would only keep waiting.
 */
const lookMs = [60, 200, 600, 2000, 6000, 20_000];
/** Most containers that leave a network end, and take everything in them along. */
const leaveMs = 1000;

export type ContainerEnds = Pick<Sandboxes, 'left' | 'asked'>;

export class Sandboxes implements Disposable {
  readonly #options: SandboxesOptions;
  readonly #looking = new Map<string, NodeJS.Timeout>();
  /** MTU that a container's end was last known to have. */
  readonly #mtu = new Map<string, number>();
  /** Endpoints that each container had after the last run of the loop, by the path of its namespace. */
  #inside: ReadonlyMap<string, readonly LocalEndpoint[]> = new Map();
  /** Paths of namespaces whose questions were sent here, as far as this process knows. */
  readonly #redirected = new Set<string>();
  /** By the path of the namespace of a container that has left a network. */
  readonly #leaving = new Map<string, NodeJS.Timeout>();
  /** Links that the last run of the loop made again. */
  #remade: ReadonlySet<string> = new Set();
  /** Ends as the last run of the loop left them. */
  readonly #left = new Map<string, FoundAttachment>();

  constructor(options: SandboxesOptions) {
    this.#options = options;
  }

  /** After every run of the loop. `remade`: pairs that were made again with their far end inside a container. */
  applied(desired: Desired, remade: readonly Desired['link'][number][]): void {
    this.#left.clear();
    this.#remade = new Set(remade.map(({ name }) => name));
    const links = new Map(desired.link.map((link) => [link.name, link]));
    const here = new Set<string>();
    for (const local of this.#options.endpoints.all()) {
      const link = links.get(endpointLink(local.endpoint.id));
      if (local.sandbox === undefined || link?.type !== 'veth') continue;
      here.add(local.endpoint.id);
      if (local.ifname === undefined) this.#look(local.endpoint.id, 0);
      else if (remade.includes(link)) this.#repair(local, link, 'whole');
      else if (!this.#mtu.has(local.endpoint.id)) this.#repair(local, link, 'first');
      else if (this.#mtu.get(local.endpoint.id) !== link.mtu) this.#repair(local, link, 'mtu');
      this.#mtu.set(local.endpoint.id, link.mtu);
    }
    for (const id of this.#mtu.keys()) if (!here.has(id)) this.#mtu.delete(id);
    this.#followLeaves();
  }

  /** To be called when it was decided anew whether the container's questions come here first. */
  asked(id: string): void {
    const local = this.#options.endpoints.get(id);
    if (local?.sandbox === undefined) return;
    if (local.ifname === undefined) this.#note(id);
    else this.#askAgain(local.sandbox);
  }

  /** A container that runs on without a network asks by another one of its own, or its engine alone. Pods have nothing redirected. */
  #followLeaves(): void {
    const { endpoints, network } = this.#options;
    const before = this.#inside;
    const asking = endpoints.all().filter((local) => network(local.endpoint.network)?.present !== 'always');
    this.#inside = Map.groupBy(asking, ({ sandbox = '' }) => sandbox);
    for (const [sandbox, locals] of before) {
      if (!this.#redirected.has(sandbox) && !locals.some(({ answersFirst }) => answersFirst === true)) continue;
      const now = new Set(this.#inside.get(sandbox)?.map(({ endpoint }) => endpoint.id));
      if (locals.every(({ endpoint }) => now.has(endpoint.id)) || this.#leaving.has(sandbox)) continue;
      this.#leaving.set(
        sandbox,
        setTimeout(() => this.#hasLeft(sandbox), leaveMs),
      );
    }
  }

  #hasLeft(sandbox: string): void {
    this.#leaving.delete(sandbox);
    if (existsSync(sandbox)) this.#askAgain(sandbox);
    else this.#redirected.delete(sandbox);
  }

  #askAgain(sandbox: string): void {
    const locals = this.#options.endpoints.all().filter((local) => local.sandbox === sandbox && local.ifname !== undefined);
    try {
      // All are looked at: one whose questions another one has leaves the writing to that one.
      const asked = locals.filter((local) => {
        const found = inspectAttachment(sandbox, local.endpoint.mac);
        return found !== undefined && this.#redirect(local, found);
      });
      if (asked.length > 0) return;
      undoRedirect(sandbox);
      this.#redirected.delete(sandbox);
    } catch (error) {
      if (!isFault(error)) throw error;
      // It may have ended meanwhile.
      if (existsSync(sandbox)) this.#options.log({ sandbox, error: error.message }, 'cannot redirect name questions');
    }
  }

  /** The container's end as the last run of the loop has left it; undefined when that run had nothing to do inside. */
  left(id: string): FoundAttachment | undefined {
    return this.#left.get(id);
  }

  [Symbol.dispose](): void {
    for (const timer of [...this.#looking.values(), ...this.#leaving.values()]) clearTimeout(timer);
  }

  #look(id: string, attempt: number): void {
    const ms = lookMs[attempt];
    if (ms === undefined || (attempt === 0 && this.#looking.has(id))) return;
    const timer = setTimeout(() => {
      this.#looking.delete(id);
      if (!this.#note(id)) this.#look(id, attempt + 1);
    }, ms);
    this.#looking.set(id, timer);
  }

  /** True when there is nothing more to look for. */
  #note(id: string): boolean {
    const { endpoints, log } = this.#options;
    const local = endpoints.get(id);
    if (local?.sandbox === undefined || local.ifname !== undefined) return true;
    try {
      const found = inspectAttachment(local.sandbox, local.endpoint.mac);
      if (found === undefined || isUnderWay(local, found, this.#options.network(local.endpoint.network))) return false;
      this.#redirect(local, found);
      endpoints.put({ ...local, ifname: found.name });
      return true;
    } catch (error) {
      // Refused by the kernel, or by a disk that is full.
      if (!isFault(error)) throw error;
      log({ endpoint: id, error: error.message }, 'cannot look into the container yet');
      return false;
    }
  }

  /**
   * The engine's resolver asks outside only by the container's default route, and not at all when there is none that leads
   * out. Then the names of other hosts would be missing, so the container's questions are sent to the gateway directly. So they
   * are where that resolver asks past the container's networks. False: there is no need.
   */
  #redirect(local: LocalEndpoint, found: FoundAttachment): boolean {
    const { endpoint, sandbox = '', order = 1, answersFirst = false } = local;
    const isOurs = found.routes.some(({ destination }) => destination === everything[4] || destination === everything[6]);
    if ((isOurs && !answersFirst) || !hasIpv4(local)) return false;
    if (this.#isCarried(local)) return true;
    redirectNames(sandbox, { link: found.name, gateway: gatewayOf(4, order), embedded: answersFirst || found.defaults.length === 0 });
    this.#redirected.add(sandbox);
    this.#options.log({ endpoint: endpoint.id }, "sent the container's name questions to the gateway");
    return true;
  }

  /** Whether another network of the container has its questions: of those by which all of them come, the first that it joined. */
  #isCarried(local: LocalEndpoint): boolean {
    const before = local.answersFirst === true ? orderOf(local) : Infinity;
    return this.#options.endpoints.all().some((other) => other.sandbox === local.sandbox && mayCarry(other) && orderOf(other) < before);
  }

  #failed({ endpoint, sandbox = '' }: LocalEndpoint, error: Fault, message: string): void {
    // Where the engine keeps its namespaces is not there before it has started.
    if (existsSync(dirname(sandbox)) && !existsSync(sandbox)) this.#options.gone(endpoint.id);
    else this.#options.log({ endpoint: endpoint.id, error: error.message }, message);
  }

  /** `first`: what lies inside is not watched, and a user may have changed it, so an end that has its addresses is left alone. */
  #repair(local: LocalEndpoint, link: VethLink, what: 'whole' | 'first' | 'mtu'): void {
    const { endpoint, sandbox = '', ifname } = local;
    const gateways = familiesOf(endpoint.addresses).map((family) => gatewayOf(family, local.order ?? 1));
    const whole = what !== 'mtu';
    const attachment: Attachment = {
      netns: sandbox,
      mac: endpoint.mac,
      mtu: link.mtu,
      addresses: whole ? endpoint.addresses.map(hostPrefix) : [],
      gateways: whole && this.#isWayOut(local) ? gateways : [],
      host: { netns: link.netns, name: link.name },
    };
    try {
      const { written, isSpared, leadsOut, end } = repairAttachment(attachment, {
        link: this.#options.link,
        alias: link.alias,
        ...(ifname === undefined ? {} : { name: ifname }),
        routes: whole ? this.#routes(endpoint.network, gateways) : [],
        isSparing: what === 'first',
      });
      this.#left.set(endpoint.id, end);
      if (whole && !isSpared && (!leadsOut || local.answersFirst === true)) this.#redirect(local, end);
      if (written) this.#options.log({ endpoint: endpoint.id, what }, said[what]);
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#failed(local, error, "cannot repair a container's end");
    }
  }

  /**
   * Whether a container that has no default route is to have one over this network. It is the one that has lost its link; of
   * several that have, the engine's choice is the first by name (moby v26.1.5, libnetwork/sandbox.go, Endpoint.Less), unless a user
   * of dockerd 28 or later gave another one a priority; of a pod it is that of all pods.
   */
  #isWayOut({ endpoint, sandbox }: LocalEndpoint): boolean {
    const { endpoints, network } = this.#options;
    const ways = endpoints.all().flatMap((local) => {
      const isAsked = local.endpoint.id === endpoint.id || this.#remade.has(endpointLink(local.endpoint.id));
      const other = local.sandbox === sandbox && isAsked ? network(local.endpoint.network) : undefined;
      return other === undefined || other.internal ? [] : [other];
    });
    return ways.toSorted((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1))[0]?.id === endpoint.network;
  }

  /** As the engine was given them: a way to each gateway, and by that to the network's ranges. */
  #routes(network: string, gateways: readonly Ip[]): { destination: Pool['cidr']; via?: Ip }[] {
    const ranges = this.#options.pools(network).flatMap(({ cidr }) => {
      const via = gateways.find((gateway) => familyOf(gateway) === familyOf(cidr));
      return via === undefined ? [] : [{ destination: cidr, via }];
    });
    return [...gateways.map((gateway) => ({ destination: hostPrefix(gateway) })), ...ranges];
  }
}

const said = {
  first: "gave a container's end what it lacked",
  whole: "repaired a container's end",
  mtu: "brought a container's end its MTU",
} as const;

const placeOf = ({ present, name }: Network): string => `${present === 'always' ? 0 : 1} ${name}`;

const orderOf = ({ order = 1 }: LocalEndpoint): number => order;

const hasIpv4 = ({ endpoint }: LocalEndpoint): boolean => endpoint.addresses.some((ip) => familyOf(ip) === 4);

/** Whether the questions of its container can come here by it. */
const mayCarry = (local: LocalEndpoint): boolean => local.answersFirst === true && local.ifname !== undefined && hasIpv4(local);

/** The engine moves a link, renames it, gives it addresses and sets it up, and comes to the default route last of all. */
function isUnderWay({ endpoint }: LocalEndpoint, found: FoundAttachment, network: Network | undefined): boolean {
  return found.name === endpointPeerLink(endpoint.id) || !found.up || (network?.internal === false && found.defaults.length === 0);
}
