// One host's agent, put together: facts come in (controller, journal, kernel events), the loop plans and applies, and what
// this host knows goes out (endpoints, report). Everything here is wiring; each part says in its own file what it does.
import { clockAdvice, skewText, toleratedSkewMs } from '#api/clock.ts';
import type { Journal } from '#api/local.ts';
import type { Report } from '#api/requests.ts';
import { type Beyond, plan } from '#drivers/plan.ts';
import { type Fault, isFault } from '#model/fault.ts';
import { emptyDesired, type Desired } from '#model/desired.ts';
import { endpointLink, unknownInterface } from '#model/numbers.ts';
import type { PolicyFacts } from '#model/policy.ts';
import type { Snapshot, Underlay } from '#model/resources.ts';
import type { Kinds, Together } from '#kernel/kind.ts';
import { AddressBook } from './address-book.ts';
import type { Clock } from './address-cluster.ts';
import { type BgpSource, spoken } from './bgp-source.ts';
import type { Controller } from './controller.ts';
import { Endpoints } from './endpoints.ts';
import { ExposedPorts } from './exposed-ports.ts';
import { follow } from './follower.ts';
import { HostPorts } from './host-ports.ts';
import type { LearnedRoutes } from './learned-routes.ts';
import { HostAgent, type LocalOptions } from './local.ts';
import { Loop } from './loop.ts';
import { guarded, type PolicySource } from './policies.ts';
import type { Prober } from './prober.ts';
import { Publisher } from './publisher.ts';
import { afterReboot } from './reboot.ts';
import { type Outcome, Reconciler } from './reconcile.ts';
import { NetworksInUse } from './networks-in-use.ts';
import { News } from './news.ts';
import { type HostRoutes, lacksPreferred, steadyUnderlay } from './underlay.ts';
import type { ServiceSource } from './services.ts';
import { Wholeness } from './wholeness.ts';
import { type AgentStatus, reasonText } from './status.ts';
import { View } from './view.ts';

export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface AgentOptions {
  readonly host: string;
  readonly generation: number;
  readonly version: string;
  readonly journal: Journal;
  readonly kinds: Kinds & Together;
  readonly controller: Controller;
  readonly clock: Clock;
  readonly log: Log;
  readonly underlay: () => Underlay[];
  readonly hostRoutes: () => HostRoutes;
  /** Public keys of this host, as it tells them. */
  readonly keys?: Pick<Report, 'wireguard' | 'talkKey'>;
  readonly features: Readonly<Record<string, boolean | string>>;
  readonly newId: () => string;
  /** Names the time since the machine was last switched on. */
  readonly boot: string;
  /** Services that every host translates; without, there are none. Whoever changes them kicks the loop. */
  readonly services?: ServiceSource;
  /** Policies of the cluster; the same. */
  readonly policies?: PolicySource;
  /** How the host's speaker is set; without, as by default. The same. */
  readonly bgp?: BgpSource | undefined;
  /** What the speaker has put into the kernel, for hosts that change to BGP or from it. The same. */
  readonly learned?: LearnedRoutes;
  /** What else the host knows of itself at the time of a plan. */
  readonly besides?: ((facts: Snapshot) => Pick<Beyond, 'balanced' | 'bridges' | 'carried' | 'hasIpsec' | 'ways'>) | undefined;
  /** Probes to other hosts; without, there are none. */
  readonly prober?: Pick<Prober, 'paths' | 'narrowed' | 'hasTriedAll'> | undefined;
  /** How long an address may be held without anybody who has it; default ten minutes. */
  readonly leakMs?: number | undefined;
  /** After every run of the loop: repairs inside containers and others that go by the plan. */
  readonly applied?: (desired: Desired, outcome: Outcome) => void;
  /** What is done inside of containers (Sandboxes). */
  readonly ends?: LocalOptions['ends'];
  /** Facts are others than before, and what the last plan wanted is in the kernel: name servers. */
  readonly informed?: () => void;
}

/** Set while endpoints are missing that this host had before its journal was lost. */
const recoveringKey = 'recovering';
const reportMs = 10_000;
const reconcileMs = 60_000;
const retryMs = 2_000;
/** Other hosts learn of the same change at other moments. */
const tunnelsLingerMs = 5_000;

/** For a journal that was set aside: the next agent takes up what runs before it removes anything. */
export const beginRecovery = (journal: Journal): void => journal.put(recoveringKey, true);

export class Agent implements AsyncDisposable {
  readonly local: HostAgent;
  readonly view: View;
  readonly endpoints: Endpoints;
  readonly loop: Loop;
  readonly #options: AgentOptions;
  readonly #book: AddressBook;
  readonly #news: News;
  readonly #publisher: Publisher;
  readonly #ports: HostPorts;
  readonly #exposed: ExposedPorts;
  readonly #stop = new AbortController();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #listeners: (() => void)[] = [];
  readonly #reporters: (() => readonly string[])[] = [];
  #following: Promise<void> = Promise.resolve();
  #desired: Desired = emptyDesired;
  #outcome: Outcome | undefined;
  readonly #inUse: NetworksInUse;
  #facts: Snapshot | undefined;
  #policy: PolicyFacts | undefined;
  #underlay: readonly Underlay[] = [];
  /** Looks in a row at which the preferred interface had no address. */
  #underlayMisses = 0;
  #saidClock = false;
  #recovering: boolean;
  readonly #whole: Wholeness;
  #connected = false;
  #reason: unknown;
  #refused: ReadonlyMap<string, Fault> = new Map();
  #reported = '';
  /** Why the view could not be kept at the last attempt. */
  #unsaved = '';
  #saidReady = false;

  constructor(options: AgentOptions) {
    const { host, journal, kinds, controller, clock, log, newId } = options;
    this.#options = options;
    this.#inUse = new NetworksInUse(journal, options.prober);
    this.#recovering = journal.get(recoveringKey) === true;
    this.#news = new News({
      host,
      blocks: () => this.view.blocks,
      isGuarding: options.policies !== undefined,
      spread: () => this.#spread(),
    });
    this.view = new View({
      journal,
      changed: (endpoint) => (endpoint === undefined ? this.#news.changed() : this.#news.endpoint(endpoint)),
    });
    this.#whole = new Wholeness({ isSynced: () => this.view.isSynced }, options.services, options.policies, options.bgp);
    this.endpoints = new Endpoints(journal, (change) => this.#news.local(change));
    this.#book = new AddressBook({
      journal,
      cluster: controller.addresses,
      clock,
      host,
      newId,
      onFault: (fault, doing) => log.warn({ fault, doing }, 'address work to be repeated'),
      isBare: () => !kinds.link.list('').some(({ name }) => name.startsWith(endpointLink(''))),
      ...(options.leakMs === undefined ? {} : { leakMs: options.leakMs }),
    });
    this.loop = new Loop({
      reconciler: new Reconciler(kinds, { lingerMs: tunnelsLingerMs }),
      plan: () => this.#plan(),
      maySweep: () => this.#maySweep(),
      done: (outcome) => this.#applied(outcome),
      failed: (error) => log.error({ error }, 'cannot read the kernel'),
    });
    this.#publisher = new Publisher({
      host,
      snapshot: () => this.view.snapshot,
      revision: () => this.view.revision,
      local: () => this.endpoints.all(),
      mayDelete: () => this.#maySweep(),
      send: (batch) => controller.publish(batch),
      refused: (faults) => {
        this.#refused = faults;
      },
    });
    const portLog = { log: (fields: object, message: string): void => log.warn(fields, message) };
    this.#ports = new HostPorts(portLog);
    this.#exposed = new ExposedPorts(portLog);
    this.local = new HostAgent({
      host,
      journal,
      view: this.view,
      endpoints: this.endpoints,
      addresses: this.#book,
      cluster: controller,
      loop: this.loop,
      ports: this.#ports,
      ends: options.ends,
      now: () => new Date(clock.now()),
      newId,
    });
  }

  /** What the kernel should hold now. */
  get desired(): Desired {
    return this.#desired;
  }

  /** Whether endpoints are missing here that the engine and the cluster still know; nothing is removed meanwhile. */
  get isRecovering(): boolean {
    return this.#recovering;
  }

  /** They have been taken up again, as far as possible. */
  recovered(): void {
    this.#options.journal.delete(recoveringKey);
    this.#recovering = false;
    this.#news.changed();
  }

  /** What the last plan holds for: what the cluster says, and what it lacks of networks that containers here are in. */
  get facts(): Snapshot {
    return this.#facts ?? this.view.snapshot;
  }

  /** What the last plan knew of policies. */
  get policy(): PolicyFacts | undefined {
    return this.#policy;
  }

  /** Calls `fn` after every change of facts, at most once per turn of the event loop. */
  onFacts(fn: () => void): void {
    this.#listeners.push(fn);
  }

  /** What `fn` tells at the time of a report is reported as failing too: what a front end cannot do on this host. */
  onReport(fn: () => readonly string[]): void {
    this.#reporters.push(fn);
  }

  /** Starts from what the disk knows, then follows the controllers. */
  start(): void {
    const { controller, log } = this.#options;
    this.#load();
    afterReboot(this.#options, () => {
      this.#options.log.info({ endpoints: this.endpoints.all().length }, 'switched on anew; containers have no endpoints yet');
      this.local.detachAll();
    });
    // What a cluster says of this host without knowing its interfaces is nothing that the host could lose.
    const kept = this.view.snapshot.hosts.get(this.#options.host)?.underlay ?? [];
    this.#underlay = kept.filter((one) => one.interface !== unknownInterface);
    this.#lookAtUnderlay(this.#options.underlay());
    this.#spread();
    this.loop.run();
    this.#following = follow({
      view: this.view,
      watch: (options) => controller.watch(options),
      signal: this.#stop.signal,
      state: (connected, reason) => {
        if (connected && !this.#connected) log.info({}, 'following the controller');
        if (!connected && this.#connected)
          log.warn({ reason: reasonText(reason) }, 'the controller is away; carrying on with what is known');
        this.#connected = connected;
        this.#reason = reason;
        if (connected) this.#publisher.kick();
      },
      saved: (failure) => this.#saved(failure),
    });
    this.#timers.push(
      setInterval(() => void this.#report(), reportMs),
      setInterval(() => void this.#reconcileAddresses(), Math.min(reconcileMs, this.#options.leakMs ?? reconcileMs)),
    );
    void this.#report();
  }

  status(): AgentStatus {
    return {
      host: this.#options.host,
      connected: this.#connected,
      ...(this.#reason === undefined ? {} : { reason: reasonText(this.#reason) }),
      synced: this.view.isSynced,
      inForce: this.#whole.isInForce,
      revision: this.view.revision,
      runs: this.loop.runs,
      desired: this.#outcome?.desired ?? 0,
      failing: this.#failing(),
      refused: [...this.#refused.values()].map(({ message }) => message),
      addresses: this.#book.count,
    };
  }

  /** Kernel state stays as it is: containers do not notice. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#stop.abort();
    this.loop[Symbol.dispose]();
    this.#publisher[Symbol.dispose]();
    this.#ports[Symbol.dispose]();
    this.#exposed[Symbol.dispose]();
    this.#book[Symbol.dispose]();
    await this.#following;
  }

  /** The cluster can say again what cannot be read here; the addresses and endpoints of this host it could not. */
  #load(): void {
    try {
      this.view.load();
      this.#inUse.load();
    } catch (error) {
      if (!isFault(error, 'corrupt')) throw error;
      this.#options.log.error({ error }, 'cannot read what was kept of the cluster; waiting for a controller to tell it again');
    }
  }

  #saved(failure: unknown): void {
    const text = failure instanceof Error ? failure.message : '';
    if (text !== this.#unsaved && failure !== undefined)
      this.#options.log.error({ error: failure }, 'cannot keep what is known of the cluster');
    this.#unsaved = text;
  }

  #maySweep(): boolean {
    return this.#whole.isKnown && !this.#recovering;
  }

  #plan(): Desired | undefined {
    const self = this.view.snapshot.hosts.get(this.#options.host);
    if (self === undefined) return undefined;
    this.#news.planning();
    this.#whole.planning();
    this.#facts = this.#completeFacts();
    const { services, policies, bgp, learned } = this.#options;
    this.#policy = policies?.current(guarded(this.#facts, this.endpoints.all(), policies.network));
    const besides = this.#options.besides?.(this.#facts);
    // Short cuts are left out where the kernel has none or nobody wants them; what is there is then removed.
    const isShort = this.#options.features['fastPath'] === true;
    const more = { ...besides, isShort, ...spoken(bgp, learned) };
    const beyond = { ...(services && { services: services.current() }), policy: this.#policy, ...more };
    const admitted = this.#exposed.admit(this.#facts, this.endpoints.all());
    this.#desired = plan(admitted, this.endpoints.all(), { ...self, underlay: this.#underlay }, beyond);
    return this.#desired;
  }

  #applied(outcome: Outcome): void {
    const { log, applied, informed } = this.#options;
    this.#outcome = outcome;
    this.#whole.applied();
    for (const { what, kind, fault } of outcome.failing) log.warn({ kind, what, fault: fault.message }, 'the kernel refuses');
    this.#reportIfNews();
    if (outcome.changed > 0) log.debug({ changed: outcome.changed, desired: outcome.desired }, 'kernel brought in line');
    applied?.(this.#desired, outcome);
    informed?.();
  }

  #refusedByKernel(): string[] {
    return (this.#outcome?.failing ?? []).map(({ fault }) => fault.message);
  }

  /** Everything that is wrong here and for people to know, whoever looks. */
  #failing(): string[] {
    return [...this.#clockProblem(), ...this.#inUse.problems, ...this.#exposed.problems, ...this.#refusedByKernel()];
  }

  #clockProblem(): string[] {
    const skewMs = this.#options.controller.skewMs() ?? 0;
    return Math.abs(skewMs) < toleratedSkewMs ? [] : [`The clock of this host is ${skewText(skewMs)} the controller's. ${clockAdvice}`];
  }

  /** A clock that is wrong, or right again, is told at once. */
  #noticeClock(): void {
    const [problem] = this.#clockProblem();
    if (this.#saidClock === (problem !== undefined)) return;
    this.#saidClock = problem !== undefined;
    if (problem === undefined) this.#options.log.info({}, 'the clock is right again');
    else this.#options.log.error({ problem }, 'the clock is wrong');
    void this.#report();
  }

  /** The interface that the operator named may be gone for a moment too. */
  #foundUnderlay(): readonly Underlay[] {
    try {
      return this.#options.underlay();
    } catch (error) {
      if (!isFault(error, 'invalid')) throw error;
      return [];
    }
  }

  /** An interface that flaps must not take the tunnels down. */
  #lookAtUnderlay(found: readonly Underlay[]): void {
    this.#underlayMisses = lacksPreferred(this.#underlay, found) ? this.#underlayMisses + 1 : 0;
    const underlay = steadyUnderlay(this.#underlay, found, this.#underlayMisses);
    if (this.#underlayMisses === 1) {
      this.#options.log.warn({ found, kept: underlay }, 'the underlay has lost its address; going on with what was known');
    }
    if (JSON.stringify(underlay) === JSON.stringify(this.#underlay)) return;
    this.#underlay = underlay;
    this.loop.kick();
  }

  #completeFacts(): Snapshot {
    return this.#inUse.complete(this.view.snapshot, this.endpoints.all());
  }

  #spread(): void {
    if (this.#stop.signal.aborted) return;
    this.#tellBook();
    // Whoever changed them may have had the loop run already, to answer for what is in the kernel.
    if (this.#news.isPlanned) this.#inform();
    else this.loop.kick();
    this.#publisher.kick();
    for (const listener of this.#listeners) listener();
    this.#reportIfNews();
  }

  #inform(): void {
    this.#facts = this.#completeFacts();
    this.#options.informed?.();
  }

  /** A disk that is full keeps the address book from taking in its blocks, and nothing else from going on. */
  #tellBook(): void {
    try {
      const { snapshot, revision, epoch, isSynced: live } = this.view;
      this.#book.blocksChanged({ snapshot, revision, epoch, live });
    } catch (error) {
      if (!isFault(error, 'unavailable')) throw error;
      this.#options.log.error({ error }, 'cannot take in the address blocks of this host yet');
      setTimeout(() => this.#news.changed(), retryMs).unref();
    }
  }

  #isReady(): boolean {
    return this.view.isSynced && this.#outcome?.failing.length === 0 && this.#options.prober?.hasTriedAll !== false;
  }

  /** Becoming ready, or ceasing to be, is told at once. */
  #reportIfNews(): void {
    if (this.#saidReady !== this.#isReady()) void this.#report();
  }

  async #reconcileAddresses(): Promise<void> {
    if (this.#recovering) return;
    try {
      await this.local.reconcile();
    } catch (error) {
      this.#options.log.warn({ error }, 'address reconciliation to be repeated');
    }
  }

  /** Tells the controllers who and how we are; and notices when the underlay has changed. */
  async #report(): Promise<void> {
    const { controller, generation, version, keys, hostRoutes, features, prober, log } = this.#options;
    const ready = this.#isReady();
    this.#saidReady = ready;
    try {
      this.#lookAtUnderlay(this.#foundUnderlay());
      const refused = this.#refusedByKernel();
      const report: Report = {
        generation,
        underlay: this.#underlay,
        ...keys,
        agentVersion: version,
        status: {
          ready,
          desired: this.#outcome?.desired ?? 0,
          applied: (this.#outcome?.desired ?? 0) - refused.length,
          failing: [...this.#failing(), ...this.#reporters.flatMap((fn) => fn())].slice(0, 20).map((text) => text.slice(0, 1024)),
          features,
          ...(prober && { paths: prober.paths() }),
        },
        ...hostRoutes(),
      };
      this.view.learn('hosts', await controller.report(report));
      if (this.#reported !== 'ok') log.info({}, 'reported to the controller');
      this.#reported = 'ok';
      this.#noticeClock();
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      if (this.#reported !== text) log.warn({ error }, 'cannot report to the controller');
      this.#reported = text;
    }
  }
}
