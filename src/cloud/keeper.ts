// Keeps a cloud as the networks need it: when what is needed changes, and every now and then because somebody may have changed the
// cloud. It does what `causeway cloud apply` does, again and again; whatever goes wrong is told and tried later, and later again.
// A wish that is fulfilled is not looked at before the next time, so that changes of containers cost no call.
import type { PortGroupsRequest } from '#api/requests.ts';
import { Fault, isFault } from '#model/fault.ts';
import { contains, familyOf, overlaps } from '#model/ip.ts';
import type { Block, Network } from '#model/resources.ts';
import { applyWish } from './apply.ts';
import { asCarried, asIfBoth, asIfFallen, type Fallback, fallbackOf, restorable } from './fallback.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import type { Balanced } from './balanced.ts';
import { type CloudPlan, type CloudState, hostPorts, trunkOf } from './plan.ts';
import { chooseVlan, regroup, regroupStep } from './pools.ts';
import { readFirst, readState, type Scope } from './reading.ts';
import { Reporter, type ReporterOptions } from './reporter.ts';
import type { RoutedHost } from './router.ts';
import { Refusals, stillBusy } from './settling.ts';
import { type CloudFacts, innerOf, type Wish, wishOf } from './wish.ts';

/** Each returns when the facts tell of it. */
export interface Carriages {
  readonly instead: (fallback: Fallback) => Promise<void>;
  readonly asWanted: (networks: readonly Network[]) => Promise<void>;
}

export interface KeeperOptions extends ReporterOptions {
  readonly neutron: Neutron;
  /** Of the installation, as `causeway cloud apply --name`. */
  readonly name: string;
  readonly scope: Scope;
  readonly facts: () => CloudFacts;
  /** Of several keepers of one installation one does the work. */
  readonly isLeading: () => boolean;
  /** Changes how networks are carried; absent where that is not for the keeper to change. */
  readonly carriages?: Carriages;
  /** Told what has become of the load balancers that are wished for, whenever the cloud was looked at. */
  readonly balanced?: (found: readonly Balanced[]) => Promise<void>;
  /** Told what nodes that carry by a router have to know of it, at the same times; undefined where nothing is carried so. */
  readonly routed?: (found: readonly RoutedHost[] | undefined) => Promise<void>;
  /** Told what hosts have to know of addresses that move between them, and of load balancers. */
  readonly place?: (plan: CloudPlan) => Promise<void>;
  /** Time between looks at the cloud where nothing of ours changes. */
  readonly intervalMs: number;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
  /** How long a container waits for a cloud that did not answer the last time. */
  readonly knockMs?: number;
}

/** Changes come in bursts; each is waited for as long as this before it is looked at. */
const settleMs = 300;
const firstPauseMs = 2_000;
const longestPauseMs = 60_000;
/** Engines wait ten times as long, and may have something else to try. */
const usualKnockMs = 3_000;
/** What its API has said the cloud does a little later. */
const followMs = 2_000;
/** Hosts learn at different moments that they carry otherwise, and packets are on their way. */
const changingMs = 10_000;
/** Looks between tries whether networks may be carried as they were wanted. */
const looksBetweenTries = 10;
/** While machines start for load balancers; one that is never settled is no reason to ask that often for ever. */
const busyMs = 5_000;
const longestBusyMs = 900_000;

/** What passes by itself, and no change of ours helps against: the cloud is away or overloaded, others write to the same things. */
const isPassing = (error: unknown): boolean =>
  (['unavailable', 'timeout', 'conflict', 'stale'] as const).some((code) => isFault(error, code));

export class Keeper {
  readonly #options: KeeperOptions;
  /** Blocks that hosts have asked for and that nobody else knows of yet. */
  readonly #pending = new Map<string, Block>();
  /** Networks that hosts go over from, as they have carried them, which the cloud has to allow until then. */
  #changing: { readonly networks: readonly Network[]; readonly until: number } = { networks: [], until: 0 };
  #turn: Promise<unknown> = Promise.resolve();
  #isKicked = false;
  #wake: () => void = () => undefined;
  /** The wish that the cloud fulfilled when it was last looked at; of it the inner part, where the rest was in trouble. */
  #fulfilled: string | undefined;
  #fulfilledInner: string | undefined;
  #looks = 0;
  /** Aborted: what is asked is not answered any more, which is no failure. */
  #end: AbortSignal = new AbortController().signal;
  /** Octavia is at work on something since then, which is to be looked at soon. */
  #busySince: number | undefined;
  /** Why it did not answer the last time, and has not since. */
  #absence: Fault | undefined;
  #knocking: Promise<unknown> | undefined;
  readonly #refusals = new Refusals();
  readonly #reporter: Reporter;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#reporter = new Reporter(options);
  }

  /** Something may be needed that was not, or it is this one's turn now. */
  kick(): void {
    this.#isKicked = true;
    this.#wake();
  }

  /** Until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    this.#end = signal;
    signal.addEventListener('abort', () => this.#wake());
    let wasLeading = false;
    for (let failures = 0; !signal.aborted;) {
      this.#isKicked = false;
      if (!this.#options.isLeading()) {
        wasLeading = false;
        failures = 0;
        this.#fulfilled = undefined;
        this.#looks = 0;
        this.#absence = undefined;
        await this.#pause(this.#options.intervalMs, () => true, signal);
        continue;
      }
      if (!wasLeading) await this.#reporter.takeOver();
      wasLeading = true;
      const failure = await this.#round(failures);
      failures = failure === undefined ? 0 : failures + 1;
      this.#absence = isPassing(failure) && this.#fulfilledInner === undefined ? failure : undefined;
      await this.#pauseFor(this.#absence === undefined ? this.#lookMs() : this.#backoff(failures), signal);
    }
  }

  #lookMs(): number {
    const { intervalMs } = this.#options;
    if (this.#changing.networks.length > 0) return Math.min(changingMs, intervalMs);
    const isBusy = this.#busySince !== undefined && this.#workedMs() < longestBusyMs;
    return isBusy ? Math.min(busyMs, intervalMs) : intervalMs;
  }

  /** How long Octavia has been at work on any. */
  #workedMs(): number {
    return this.#busySince === undefined ? 0 : performance.now() - this.#busySince;
  }

  /** Half to all of 2 s, 4 s and so on, at most a minute. */
  #backoff(failures: number): number {
    const { random = Math.random } = this.#options;
    return Math.min(firstPauseMs * 2 ** (failures - 1), longestPauseMs) * (0.5 + random() / 2);
  }

  /** Ends early when something else is wished for than what the cloud fulfils; while it is away, when it has answered somebody. */
  async #pauseFor(ms: number, signal: AbortSignal): Promise<void> {
    const end = performance.now() + ms;
    const absence = this.#absence;
    while (!signal.aborted && this.#absence === absence) {
      const left = end - performance.now();
      if (left <= 0) return;
      await this.#pause(left, () => this.#absence === undefined, signal);
      if (!this.#isKicked || absence !== undefined) continue;
      await this.#pause(settleMs, () => false, signal);
      this.#isKicked = false;
      if (!this.#options.isLeading() || this.#wishesMore()) return;
    }
  }

  #wishesMore(): boolean {
    const wish = this.#wish();
    if (this.#fulfilledInner === undefined) return this.#fulfilled !== JSON.stringify(wish);
    return this.#fulfilledInner !== JSON.stringify(innerOf(wish));
  }

  async #pause(ms: number, mayWake: () => boolean, signal: AbortSignal): Promise<void> {
    if (signal.aborted || (this.#isKicked && mayWake())) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#wake = (): void => {
      if (signal.aborted || mayWake()) resolve();
    };
    await promise;
    clearTimeout(timer);
    this.#wake = (): void => undefined;
  }

  #facts(): CloudFacts {
    const facts = this.#options.facts();
    const known = new Set(facts.blocks.map(({ id }) => id));
    const networks = [...facts.networks, ...this.#changing.networks.filter(({ id }) => facts.networks.some((one) => one.id === id))];
    return { ...facts, networks, blocks: [...facts.blocks, ...[...this.#pending.values()].filter(({ id }) => !known.has(id))] };
  }

  /**
   * Has the ports of a block made and allowed, then does `commit`; they go again when that fails. What exposures are reached by from
   * outside is left for later, so that no trouble with it is in the way of containers. Faults: `stale` when another
   * controller keeps the cloud; `unavailable` when something is in the way of the host's port; and as applyWish.
   */
  async hold<T>(block: Block, commit: (block: Block) => Promise<T>): Promise<T> {
    try {
      const held = await this.#forContainer(async () => {
        const state = await readState(this.#options.neutron, { ...this.#options.scope, isInnerOnly: true }, this.#wish());
        const placed = this.#placed(block, state);
        this.#pending.set(block.id, placed);
        const { problems, needs } = await this.#fulfil(innerOf(this.#wish()), { known: state, isInnerOnly: true });
        const name = this.#facts().networks.find(({ id }) => id === block.network)?.name;
        if (needs.some(({ network, isAllowed }) => network === name && !isAllowed)) {
          throw new Fault('unavailable', `Ports for containers of host ${block.host} cannot be used: ${problems.join('; ')}`, {
            hint: 'Mend what is in the way, as "causeway cloud plan" shows it, then start the container again',
          });
        }
        return placed;
      });
      return await commit(held);
    } finally {
      this.#pending.delete(block.id);
      this.kick();
    }
  }

  /** With VLANs where the host's port is the parent of a trunk. Faults: `exhausted`; `unsupported` where that is needed; `overlap`. */
  #placed(block: Block, state: CloudState): Block {
    const facts = this.#facts();
    const port = hostPorts(this.#wish(), state)(this.#hostOf(block));
    const trunk = trunkOf(port);
    const isElsewhere = this.#isElsewhere(block, port);
    if (trunk !== undefined) {
      const others = facts.blocks.filter((one) => one.host === block.host);
      return { ...block, vlan: chooseVlan(block.cidr, trunk, others) };
    }
    const network = facts.networks.find(({ id }) => id === block.network);
    const isIpv6 = familyOf(block.cidr) === 6;
    if (network?.neutron?.groups === undefined && !isIpv6 && !isElsewhere) return block;
    const what = isElsewhere
      ? 'addresses of another network than the hosts'
      : isIpv6
        ? 'addresses of IPv6'
        : 'security groups of their own';
    throw this.#withoutTrunk(block, what);
  }

  /** Whether it is of another network than the host's port, which is refused where that cannot be. */
  #isElsewhere(block: Block, port: NeutronPort | string): boolean {
    const { networks, hosts, pools } = this.#facts();
    const network = networks.find(({ id }) => id === block.network);
    if (typeof port === 'string' || network?.neutron === undefined || network.neutron.network === port.networkId) return false;
    const elsewhere = `Network ${network.name} is another network of the cloud than that of host ${this.#hostOf(block)}`;
    const { cidr: whole = block.cidr, gateway } = pools.find(({ id }) => id === block.pool) ?? {};
    // A link-local one could be that of any subnet whose neighbours the host asks for on the same link.
    if (gateway !== undefined && !contains(whole, gateway))
      throw new Fault(
        'unsupported',
        `${elsewhere}, and its gateway ${gateway} is no address of its subnet ${whole}, so the host cannot ask for it there`,
        {
          hint: 'Give the subnet one (openstack subnet set --gateway ADDRESS SUBNET) or none, and make the network anew',
        },
      );
    const own = hosts.find(({ id }) => id === block.host)?.underlay.find(({ subnet }) => overlaps(subnet, whole));
    if (own !== undefined)
      throw new Fault('overlap', `${elsewhere}, and its subnet ${whole} overlaps the host's own, ${own.subnet}`, {
        hint: 'Use a network whose subnet has other addresses',
      });
    return true;
  }

  /** Its name. */
  #hostOf({ host }: Block): string {
    return this.#facts().hosts.find(({ id }) => id === host)?.name ?? host;
  }

  #withoutTrunk(block: Block, what: string): Fault {
    const network = this.#facts().networks.find(({ id }) => id === block.network)?.name ?? block.network;
    const host = this.#hostOf(block);
    return new Fault('unsupported', `Containers of network ${network} have ${what}, and the port of host ${host} is no parent of a trunk`, {
      hint: 'Make it one: openstack network trunk create --parent-port PORT NAME',
    });
  }

  /** As in controller/neutron.ts. The cloud is then as it is wished for, if it was before, and need not be looked at. */
  async regroup<T>(
    block: Block,
    { ip, groups }: PortGroupsRequest,
    commit: (groups: readonly string[] | undefined) => Promise<T>,
  ): Promise<T> {
    if (block.vlan === undefined) throw this.#withoutTrunk(block, 'security groups of their own');
    const { neutron, name } = this.#options;
    try {
      return await this.#forContainer(async () => {
        const place = this.#facts().networks.find(({ id }) => id === block.network)?.neutron;
        if (place === undefined) throw new Fault('not-found', `No network ${block.network} of the model neutron`);
        const step = await regroupStep(neutron, name, { host: this.#hostOf(block), place, ip, groups });
        const isFulfilled = this.#fulfilled === JSON.stringify(this.#wish());
        this.#fulfilled = undefined;
        await regroup(neutron, name, step);
        const done = await commit(step.port.groups);
        if (isFulfilled) this.#fulfilled = JSON.stringify(this.#wish());
        return done;
      });
    } finally {
      this.kick();
    }
  }

  /** A container waits, and what comes of it says how the cloud is, too. */
  async #forContainer<T>(work: () => Promise<T>): Promise<T> {
    await this.knock();
    try {
      const done = await this.#alone(work);
      this.#absence = undefined;
      return done;
    } catch (error) {
      // To be looked at now, and told.
      if (isPassing(error)) this.#fulfilled = this.#fulfilledInner = undefined;
      throw error;
    }
  }

  /**
   * Nobody is to wait behind tries of a cloud that is known to be away, and for some of his own, unless it answers now. Fault: why it did
   * not answer the last time.
   */
  async knock(): Promise<void> {
    const absence = this.#absence;
    if (absence === undefined) return;
    const { neutron, knockMs = usualKnockMs } = this.#options;
    this.#knocking ??= neutron.list('extensions').finally(() => (this.#knocking = undefined));
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(absence), knockMs);
    try {
      await Promise.race([this.#knocking, promise]);
      this.#absence = undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  /** What reads and then writes the cloud, one after the other. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  #wish(): Wish {
    return wishOf(this.#facts(), this.#options.name);
  }

  #round(failures: number): Promise<Fault | undefined> {
    return this.#alone(() => this.#roundAlone(failures));
  }

  async #roundAlone(failures: number): Promise<Fault | undefined> {
    const { log, neutron } = this.#options;
    const begun = performance.now();
    this.#fulfilledInner = undefined;
    if (performance.now() >= this.#changing.until) this.#changing = { networks: [], until: 0 };
    try {
      const wish = this.#wish();
      if (wish.ports.length === 0) {
        // To wish for nothing then would take everything back.
        throw new Fault('not-found', 'No host has told its address yet, so nothing is known to be needed', {
          hint: 'Wait for the agents; to take everything back end this and use "causeway cloud destroy"',
        });
      }
      const state = await this.#chooseCarriages(wish);
      const settled = state === undefined ? this.#wish() : wish;
      const { mostPairs } = neutron;
      const { problems } = await this.#fulfil(settled, { known: state });
      // It has told how many pairs a port takes, by which networks may have to be carried otherwise.
      if (neutron.mostPairs !== mostPairs) return await this.#roundAlone(failures);
      this.#fulfilled = JSON.stringify(settled);
      await this.#reporter.well(problems);
      return undefined;
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#fulfilled = undefined;
      if (this.#end.aborted) return error;
      if (failures === 0) log.warn({ error }, 'The cloud cannot be made as it should be, trying again');
      if ((isPassing(error) || isFault(error, 'forbidden')) && neutron.answeredAt > begun) await this.#fulfilInner();
      await this.#reporter.failed(error);
      return error;
    }
  }

  /** Networks do not wait for what exposures are reached by from outside: Octavia may be away alone. */
  async #fulfilInner(): Promise<void> {
    const wish = innerOf(this.#wish());
    if (wish.ports.length === 0) return;
    try {
      await this.#fulfil(wish, { isInnerOnly: true });
      this.#fulfilledInner = JSON.stringify(wish);
    } catch (error) {
      // What is told is why the whole could not be done.
      if (!isFault(error)) throw error;
    }
  }

  /**
   * What a network needs from now on is allowed before it is carried by it. The cloud as it was read for that, where all stays as it is;
   * undefined where it was not read, or something was changed since.
   */
  async #chooseCarriages(wish: Wish): Promise<CloudState | undefined> {
    const { neutron, name, scope, log, carriages } = this.#options;
    if (carriages === undefined) return undefined;
    const known = this.#facts();
    if (!known.networks.some((network) => network.instead !== undefined) && !wish.needs.some(({ pairs }) => pairs.length > 0))
      return undefined;
    const state = await readState(neutron, scope, wish);
    const judging = { neutron, name, facts: known };
    const fallback = await fallbackOf(judging, state);
    if (fallback !== undefined) {
      await this.#fulfil(wishOf(asIfFallen(known, fallback), name));
      await carriages.instead(fallback);
      log.warn(
        { networks: fallback.networks.map((network) => network.name), because: fallback.because },
        'Networks are carried by vxlan now',
      );
      return undefined;
    }
    if (this.#looks++ % looksBetweenTries !== 0) return state;
    const wanted = await restorable(judging, state);
    if (wanted.length === 0) return state;
    const { mostPairs } = neutron;
    const { wish: had } = await this.#fulfil(wishOf(asIfBoth(known, wanted), name));
    if (neutron.mostPairs !== mostPairs || (had.refused?.pairs.size ?? 0) > 0) return undefined;
    await this.#pause(followMs, () => false, this.#end);
    if (this.#end.aborted) return undefined;
    await carriages.asWanted(wanted);
    this.#changing = { networks: wanted.map(asCarried), until: performance.now() + changingMs };
    log.info({ networks: wanted.map((network) => network.name) }, 'Networks are carried as they were wanted again');
    return undefined;
  }

  /** `known`: the cloud as it was read a moment ago. `isInnerOnly`: only the part of it that is inside is looked at. */
  async #fulfil(
    wish: Wish,
    { known, isInnerOnly = false }: { readonly known?: CloudState | undefined; readonly isInnerOnly?: boolean } = {},
  ): Promise<CloudPlan> {
    const { neutron, scope, place } = this.#options;
    const read = readFirst(known, (sought) => readState(neutron, { ...scope, isInnerOnly }, sought));
    const { steps, plan, wish: left } = await applyWish(neutron, this.#busySince === undefined ? wish : this.#refusals.heeded(wish), read);
    this.#reporter.looked(steps);
    if (isInnerOnly) return plan;
    this.#busySince = plan.busy.length === 0 ? undefined : (this.#busySince ?? performance.now());
    this.#refusals.note(left);
    this.#reporter.reached(plan.reached);
    await place?.(plan);
    await this.#options.balanced?.(plan.balanced);
    await this.#options.routed?.(plan.routed);
    const workedMs = this.#workedMs();
    return workedMs < longestBusyMs ? plan : { ...plan, problems: [...plan.problems, stillBusy(plan.busy, workedMs)] };
  }
}
