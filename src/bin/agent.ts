// `causeway agent`: reads options and identity, opens the kernel, the journal and the sockets, and runs until it is told to
// stop. Kernel state is left as it is: containers do not notice that the agent goes away or comes back.
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino, type Logger } from 'pino';
import { Client, type Credentials } from '#api/client.ts';
import { needsRotation, parseToken } from '#api/identity.ts';
import { makeIdentityApart } from '#api/identity-apart.ts';
import { joinCluster } from '#api/join-cluster.ts';
import { Agent, beginRecovery } from '#agent/agent.ts';
import { bgpFacts, ClusterBgp } from '#agent/cluster-bgp.ts';
import { controllerOf } from '#agent/controller.ts';
import { DnsServer } from '#agent/dns.ts';
import type { Upstream } from '#agent/dns-upstream.ts';
import { checkMachine, type Identity, machineOf, readIdentity, writeIdentity } from '#agent/identity.ts';
import { openJournal } from '#agent/journal.ts';
import { collector, Memory } from '#agent/memory.ts';
import { LearnedRoutes } from '#agent/learned-routes.ts';
import { clientsOf, Names } from '#agent/names.ts';
import { Openings } from '#agent/openings.ts';
import { probing } from './probing.ts';
import { ipsecFor } from './short-cuts.ts';
import { reportOf } from '#agent/policy-report.ts';
import { Sandboxes } from '#agent/sandboxes.ts';
import { createApps, listenLoopback, listenSocket } from '#agent/server.ts';
import { type FoundRoute, hostRoutes, nameServers } from '#agent/underlay.ts';
import { createCni, listenCni } from '#cni/server.ts';
import { dockerRecords } from '#docker/records.ts';
import { Engine } from '#docker/engine.ts';
import { Ipam } from '#docker/ipam.ts';
import { createPlugin, listenPlugin } from '#docker/server.ts';
import { leastMtu } from '#docker/swarm.ts';
import { Sync } from '#docker/sync.ts';
import { probeFast } from '#kernel/fast.ts';
import { linksByIndex } from '#kernel/batch.ts';
import { removeLinks } from '#kernel/link-removal.ts';
import { dumpRoutes, learnedRoutes } from '#kernel/route.ts';
import { ruleCounts } from '#kernel/nft-counters.ts';
import type { RealKinds } from '#kernel/kinds.ts';
import { defaultNetnsDirectory, netnsIdentity, warmThreadPool } from '#kernel/netns.ts';
import { Fault, isFault } from '#model/fault.ts';
import { policyTableName } from '#model/numbers.ts';
import type { PolicyFacts } from '#model/policy.ts';
import type { Ip } from '#model/ip.ts';
import type { Host, Network } from '#model/resources.ts';
import { help, type Options, readOptions } from './agent-options.ts';
import type { Cluster, ClusterContext } from './cluster.ts';
import { HostItself } from './host-itself.ts';
import { openKernel, underlayOf } from './kernel.ts';
import { moving } from './moving.ts';
import { watchSandboxes } from './sandbox-watch.ts';
import { uninstall } from './uninstall.ts';
import { version } from './version.ts';

const rotationCheckMs = 60 * 60 * 1000;

async function joinAnew(options: Options, log: Logger): Promise<Identity> {
  const { controllers, join: token } = options;
  if (token === undefined) {
    throw new Fault('unauthenticated', `This host has not joined: there is no identity in ${options.state}`, {
      hint: 'On a machine with a context run: causeway token create --join; then here: causeway agent --join TOKEN --controller URL',
    });
  }
  if (controllers.length === 0) throw new Fault('invalid', 'Joining needs the address of a controller', { field: '--controller' });
  log.info({ host: options.host, controllers }, 'joining');
  const machine = machineOf();
  const { key, certificate, ca, host } = await joinCluster({
    urls: controllers,
    token,
    host: options.host,
    version,
    machine,
    make: makeIdentityApart,
  });
  const id = parseToken(token)?.id ?? '';
  const identity: Identity = { host: host.name, generation: host.generation, controllers, key, certificate, ca, token: id, machine };
  writeIdentity(options.state, identity);
  return identity;
}

/** Undefined also for a corrupt one when there is a token to make another with. */
function knownIdentity({ state, join: token }: Options): Identity | undefined {
  try {
    return readIdentity(state);
  } catch (error) {
    if (token === undefined || !isFault(error, 'corrupt')) throw error;
    return undefined;
  }
}

/**
 * The identity of an earlier start, or a new one by token. The token that made it may stay among the options for ever; another
 * one joins again, because the certificate has expired or was revoked. When that fails the earlier identity has to do, on the
 * machine that it was made on. Faults: `stale` (of another machine), `invalid` (of another host name), as joinCluster.
 */
async function identify(options: Options, log: Logger): Promise<Identity> {
  const known = knownIdentity(options);
  if (known === undefined) return joinAnew(options, log);
  const earlier = options.controllers.length === 0 ? known : { ...known, controllers: options.controllers };
  if (options.join === undefined || parseToken(options.join)?.id === known.token) {
    checkMachine(options.state, known, machineOf());
    return earlier;
  }
  if (known.host !== options.host) throw renamed(options, known);
  try {
    return await joinAnew({ ...options, controllers: earlier.controllers }, log);
  } catch (error) {
    checkMachine(options.state, known, machineOf());
    log.warn({ error }, 'cannot join with the token that is given; going on as the host that joined before');
    return earlier;
  }
}

/** What the journal holds belongs to the host's name: its addresses and endpoints are those of that host. */
const renamed = ({ host, state }: Options, known: Identity): Fault =>
  new Fault('invalid', `This machine joined as host ${known.host}; with a new token it cannot become ${host}`, {
    field: '--host',
    hint: `Use --host ${known.host}; or, when no container is left on it, empty ${state} and join again`,
  });

const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

const credentialsOf = ({ certificate, key }: Identity): Credentials => ({ type: 'certificate', certificate, key, boot: bootId() });

const clientOf = (identity: Identity): Client =>
  new Client({ urls: identity.controllers, ca: identity.ca, credentials: credentialsOf(identity) });

/** A new certificate when a third of the old one's life is left; tried again every hour. */
async function rotate(state: string, identity: Identity, client: Client, log: Logger): Promise<Identity> {
  if (!needsRotation(identity.certificate, Date.now())) return identity;
  try {
    const { key, csr } = await makeIdentityApart(identity.host);
    const { certificate, ca } = await client.rotate(identity.host, csr);
    const next = { ...identity, key, certificate, ca };
    writeIdentity(state, next);
    client.useCredentials(credentialsOf(next));
    log.info({}, 'certificate renewed');
    return next;
  } catch (error) {
    log.warn({ error }, 'cannot renew the certificate yet');
    return identity;
  }
}

/** This host as one that has joined controllers. */
async function joined(options: Options, { log, closing, journal, kick, view }: ClusterContext): Promise<Cluster> {
  let identity = await identify(options, log);
  const { host, generation } = identity;
  const client = closing.use(clientOf(identity));
  const texts = (name: string) => client.secretTexts(name);
  const bgp = closing.use(new ClusterBgp({ journal, facts: () => bgpFacts(view(), host), texts, changed: kick, log }));
  return {
    host,
    generation,
    controller: (network) => controllerOf(client, host, network),
    renew: () => void rotate(options.state, identity, client, log).then((next) => (identity = next)),
    applied: () => undefined,
    bgp,
    factsChanged: () => bgp.touch(),
    problems: () => bgp.problems,
  };
}

async function clusterOf(options: Options, context: ClusterContext): Promise<Cluster> {
  const { host, node, flannel } = options;
  if (node !== undefined) return (await import('./kubernetes-cluster.ts')).followKubernetes(host, node, context);
  if (flannel !== undefined) return (await import('./flannel-cluster.ts')).followFlannel(host, flannel, context);
  return joined(options, context);
}

function foundRoutes({ sockets }: RealKinds): FoundRoute[] {
  const socket = sockets.of('');
  const links = linksByIndex(socket);
  return ([4, 6] as const)
    .flatMap((family) => dumpRoutes(socket, family, 0))
    .map(({ destination, protocol, index, via }) => ({
      destination,
      protocol,
      via,
      link: index === undefined ? undefined : links.get(index)?.name,
    }));
}

const addressesOf = (hosts: Iterable<Host>): ReadonlySet<Ip> => new Set([...hosts].flatMap(({ underlay }) => underlay.map(({ ip }) => ip)));

/** Servers that the host itself asks for names. */
const upstream = (): Upstream => ({
  servers: nameServers(readFileSync('/etc/resolv.conf', 'utf8')).map((address) => ({ address, port: 53 })),
  timeoutMs: 1500,
  attempts: 2,
});

async function run(options: Options, log: Logger): Promise<void> {
  await using closing = new AsyncDisposableStack();
  mkdirSync(options.state, { recursive: true, mode: 0o700 });
  mkdirSync(options.run, { recursive: true, mode: 0o755 });
  // First, so that a token is not used up by an agent that could not run: on a full disk, or beside another one.
  const journal = closing.use(openJournal(join(options.state, 'agent.db'), { recover: options.recover }));
  if (journal.movedAside !== undefined) {
    log.warn(
      { file: journal.movedAside },
      'the journal could not be read and was moved aside; taking up what the engine and the controller know',
    );
    if (options.engine !== undefined) beginRecovery(journal);
  }
  const context = {
    journal,
    kick: () => agent.loop.kick(),
    hurry: () => agent.loop.hurry(),
    local: () => agent.local,
    withoutPort: (ip: Ip) => agent.local.companions.reasonFor(ip),
    log,
    closing,
    publicKey: () => publicKey,
    view: () => agent.view,
    routes: () => foundRoutes(kinds),
    underlay: () => underlayOf(kinds, options.underlay),
    state: options.state,
    removeLink: (name: string) => void removeLinks(kinds.sockets, '', [name]),
  };
  const cluster = await clusterOf(options, context);
  const drift: { heard?: (netns: string | undefined) => void } = {};
  const { predecessor } = cluster;
  const { kinds, wireguard, publicKey } = openKernel(options, { onDrift: (netns) => drift.heard?.(netns), predecessor });
  closing.use(kinds);
  const dns = closing.use(
    new DnsServer({
      ...clientsOf(() => agent.endpoints.all()),
      upstream: upstream(),
      onFault: (error, network) => log.warn({ error, network }, 'name service'),
    }),
  );
  const names = closing.use(
    new Names({ server: dns, netnsDirectory: defaultNetnsDirectory, log: (fields, message) => log.warn(fields, message) }),
  );
  const openings = new Openings({
    sockets: kinds.sockets,
    log: (fields, message) => log.info(fields, message),
    now: () => performance.now(),
    changes: () => kinds.othersTables,
  });
  const moves = moving({ kinds, agent: () => agent, state: options.state, log, closing });
  const learned = closing.use(
    new LearnedRoutes({
      list: () => learnedRoutes(kinds.sockets.of('')),
      hosts: () => agent.view.snapshot.hosts.values(),
      changed: () => agent.loop.kick(),
    }),
  );
  const sandboxes: { current?: Sandboxes } = {};
  const around = { kinds, agent: (): Agent => agent, log };
  const itself = new HostItself(around);
  const agent: Agent = closing.use(
    new Agent({
      host: cluster.host,
      generation: cluster.generation,
      version,
      journal,
      kinds,
      controller: cluster.controller((id) => agent.local.network(id)),
      ...(cluster.services === undefined ? {} : { services: cluster.services }),
      ...(cluster.policies === undefined ? {} : { policies: cluster.policies }),
      bgp: cluster.bgp,
      learned,
      besides: ({ blocks, networks }) => ({
        balanced: cluster.services?.balanced(),
        bridges: cluster.bridges?.(blocks),
        carried: moves.carried(),
        hasIpsec: ipsecFor(networks),
        ways: itself.ways,
      }),
      prober: probing(options, { ...around, itself, learned, underlay: context.underlay, turned: cluster.probed, closing }),
      clock: {
        now: () => Date.now(),
        after: (ms, fn) => {
          const timer = setTimeout(fn, ms);
          return () => clearTimeout(timer);
        },
      },
      log,
      newId: () => randomBytes(8).toString('hex'),
      boot: bootId(),
      leakMs: options.leakMs,
      underlay: context.underlay,
      hostRoutes: () => hostRoutes(foundRoutes(kinds), addressesOf(agent.view.snapshot.hosts.values())),
      keys: { talkKey: moves.talkKey, ...(publicKey === undefined ? {} : { wireguard: { publicKey } }) },
      features: { wireguard, engine: options.engine !== undefined, kernelWrites: 'counted', fastPath: options.fastPath && probeFast() },
      informed: () => names.update(agent.facts, namedNetworks(agent)),
      ends: { left: (endpoint) => sandboxes.current?.left(endpoint), asked: (endpoint) => sandboxes.current?.asked(endpoint) },
      applied: (desired, outcome) => {
        if (outcome.changed > 0) memory.busy();
        sandboxes.current?.applied(desired, outcome.remadeLinks);
        openings.applied(desired, outcome);
        moves.applied(desired);
        cluster.applied?.({
          facts: agent.facts,
          policy: agent.policy,
          refusedRules: outcome.failing.find(({ kind }) => kind === 'table' || kind === 'element')?.fault.message,
          learned: learned.last,
          isInPlace: outcome.failing.every(({ kind }) => kind !== 'link' && kind !== 'wireguard' && kind !== 'bird'),
          isExhausted: (pool) => agent.local.room(pool).isExhausted,
        });
      },
    }),
  );
  sandboxes.current = closing.use(
    new Sandboxes({
      endpoints: agent.endpoints,
      link: kinds.link,
      network: (id) => agent.local.network(id),
      pools: (id) => agent.local.pools(id),
      gone: (id) => {
        log.info({ endpoint: id }, 'detached an endpoint whose container has ended');
        void agent.local.detach(id);
      },
      log: (fields, message) => log.info(fields, message),
    }),
  );
  drift.heard = (netns) => (netns === undefined ? agent.loop.suspectAll() : agent.loop.suspect(netns));
  const memory = closing.use(new Memory({ resident: () => process.memoryUsage.rss(), giveBack: collector() }));
  agent.onFacts(() => memory.busy());
  agent.onFacts(() => cluster.factsChanged?.());
  agent.onReport(() => [...(cluster.problems?.() ?? []), ...agent.local.companions.problems(), ...itself.look()]);
  agent.start();
  cluster.services?.start();
  cluster.policies?.start();
  cluster.bgp?.start();
  cluster.own?.start();

  const stop = new AbortController();
  const sync = await serveDocker(options, agent, { log, closing, signal: stop.signal });
  const apps = createApps({
    status: () => agent.status(),
    isSpeakerRecovering: () => kinds.isSpeakerRecovering,
    desired: () => agent.desired,
    network: (text) => agent.local.networks().find(({ id, name }) => id === text || name === text),
    policies: () => policiesOf(cluster, agent.policy, log),
    details: () => ({ version, kernelWrites: kinds.writes, dns: dns.counters, ...(sync === undefined ? {} : { docker: sync.status() }) }),
  });
  const { choose, isForPods: isForContainers, isFullToldElsewhere, networks } = cluster;
  const cni = createCni({ agent: agent.local, choose, isForContainers, isFullToldElsewhere, networks, log: log.child({ part: 'cni' }) });
  closing.use(await listenCni(cni, join(options.run, 'cni.sock')));
  const servers = [await listenSocket(apps.socket, join(options.run, 'agent.sock'))];
  if (options.cri !== undefined) closing.use(watchSandboxes(options.cri, cni.attached, log.child({ part: 'cni' })));
  if (options.port !== 0) servers.push(await listenLoopback(apps.loopback, options.port));
  const edge = setInterval(() => openings.check(), 5_000);
  const rotation = setInterval(() => {
    dns.setUpstream(upstream());
    cluster.renew();
  }, rotationCheckMs);
  cluster.renew();
  const told = new Promise<void>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  log.info({ host: cluster.host, version }, 'agent is running');
  await told;
  log.info({}, 'stopping; networks stay as they are');
  clearInterval(edge);
  clearInterval(rotation);
  stop.abort();
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
}

/** Networks with containers here whose names this host answers for. */
function namedNetworks({ endpoints, facts }: Agent): Network[] {
  const present = new Set(endpoints.all().flatMap(({ endpoint, sandbox }) => (sandbox === undefined ? [] : [endpoint.network])));
  return [...facts.networks.values()].filter(({ id, names }) => present.has(id) && names !== 'elsewhere');
}

/** With what the cluster says of them, as far as it can be had. */
async function policiesOf({ policies, policyStatuses }: Cluster, facts: PolicyFacts | undefined, log: Logger) {
  if (policies === undefined) return undefined;
  const found = await policyStatuses?.().catch((error: unknown) => log.debug({ error }, 'cannot read what has become of policies'));
  return reportOf(policies.policies(), facts, { counts: ruleCounts(policyTableName), cluster: found ?? new Map() });
}

interface DockerContext {
  readonly log: Logger;
  readonly closing: AsyncDisposableStack;
  readonly signal: AbortSignal;
}

/** The plugin's socket, and the engine kept in step; without an engine nothing. */
async function serveDocker(options: Options, agent: Agent, { log, closing, signal }: DockerContext): Promise<Sync | undefined> {
  if (options.engine === undefined) return undefined;
  const dockerLog = log.child({ part: 'docker' });
  const records = dockerRecords(agent.local.journal);
  const ipam = new Ipam({ agent: agent.local, records, log: dockerLog });
  const plugin = createPlugin({ agent: agent.local, records, ipam, log: dockerLog, scope: options.scope });
  closing.use(await listenPlugin(plugin, options.plugin));
  const engine = new Engine(options.engine);
  const sync = new Sync({
    agent: agent.local,
    records,
    endpoints: plugin.endpoints,
    engine,
    log: dockerLog,
    isNetns: (path) => netnsIdentity(path) !== undefined,
    driver: options.driver,
    recovery: { isNeeded: () => agent.isRecovering, done: () => agent.recovered() },
    scope: options.scope,
    underlayMtu: () => leastMtu(agent.view.snapshot.hosts.values()),
  });
  agent.onFacts(() => sync.factsChanged());
  agent.onReport(() => sync.problems());
  void sync.run(signal);
  return sync;
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2), process.env);
  if (options === 'help') {
    process.stdout.write(help);
    return;
  }
  await warmThreadPool();
  const log = pino({ level: options.logLevel, base: { program: 'agent' }, errorKey: 'error' }, pino.destination({ dest: 2, sync: true }));
  await (options.uninstall ? uninstall(options, log) : run(options, log));
}

try {
  await main();
  process.exit(0);
} catch (error) {
  // Loaded only then: an agent is on every host for ever.
  const { failed } = await import('./failed.ts');
  process.exit(failed(error, 'causeway agent'));
}
