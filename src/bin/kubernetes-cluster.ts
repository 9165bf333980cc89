// The API of the Kubernetes cluster that this host is a node of.
import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { linkAddresses } from '#agent/link-addresses.ts';
import { PolicedConnections } from '#agent/policed-connections.ts';
import { wayFinder } from '#agent/ways.ts';
import { cutConnections } from '#kernel/conntrack.ts';
import { type Availability, hostsAmong, unusable } from '#kubernetes/availability.ts';
import { poolId } from '#kubernetes/blocks.ts';
import { CalicoBgp } from '#kubernetes/calico-bgp.ts';
import { calicoController, type CalicoOptions } from '#kubernetes/calico-controller.ts';
import { CalicoFacts } from '#kubernetes/calico-facts.ts';
import { KubernetesClient } from '#kubernetes/client.ts';
import { installConflist } from '#kubernetes/conflist.ts';
import { takenByOthers } from '#cni/host-local.ts';
import { wishFor } from '#kubernetes/carrying.ts';
import { kubernetesController } from '#kubernetes/controller.ts';
import { HealthPorts } from '#kubernetes/health-ports.ts';
import { NodeTeller } from '#kubernetes/node-teller.ts';
import { pathsWord } from '#kubernetes/path-words.ts';
import { readKubeconfig } from '#kubernetes/kubeconfig.ts';
import { podNetwork, zoneLabel } from '#kubernetes/nodes.ts';
import { OwnNetworks, type OwnNetworksOptions } from '#kubernetes/own-networks.ts';
import { OwnPorts } from '#kubernetes/own-ports.ts';
import { KubernetesPolicies } from '#kubernetes/policy-source.ts';
import { readStatuses } from '#kubernetes/policy-status.ts';
import { PolicyTeller } from '#kubernetes/policy-teller.ts';
import { KubernetesServices } from '#kubernetes/service-source.ts';
import { isFault } from '#model/fault.ts';
import type { Cidr, Ip } from '#model/ip.ts';
import type { Underlay } from '#model/resources.ts';
import { podAddresses } from '#kubernetes/pod-addresses.ts';
import { PodNetworks } from '#kubernetes/pod-networks.ts';
import type { NodeOptions } from './node-options.ts';
import { bridgesOf, type Cluster, type ClusterContext, foreignAddresses, takeOverWireguard } from './cluster.ts';

/** For people who wait in front of a terminal. */
const statusesMs = 5_000;

const ownAddresses = (): ReadonlySet<string> => new Set(linkAddresses().map(({ ip }) => ip));

const linksByAddress = (): ReadonlyMap<Ip, string> => new Map(linkAddresses().map(({ link, ip }) => [ip, link]));

function portOf(server: string): number {
  const { port, protocol } = new URL(server);
  return port === '' ? ({ 'http:': 80 }[protocol] ?? 443) : Number(port);
}

/** This host as the Node `host`. Faults as readKubeconfig, `corrupt`. */
export function followKubernetes(host: string, node: NodeOptions, context: ClusterContext): Cluster {
  const { journal, kick, hurry, log, closing, publicKey, routes } = context;
  const predecessor = takeOverWireguard(context);
  const { kubeconfig, podCidrs, carry, cniConf, keepConnections, logDenied } = node;
  const access = readKubeconfig(kubeconfig);
  const client = closing.use(new KubernetesClient(access));
  const kubernetesLog = log.child({ part: 'kubernetes' });
  const services = closing.use(new KubernetesServices({ client, node: host, journal, log: kubernetesLog, changed: kick }));
  const health = closing.use(new HealthPorts({ log: kubernetesLog }));
  const policies: KubernetesPolicies = closing.use(
    new KubernetesPolicies({
      client,
      journal,
      logDenied,
      hosts: { node: host, apiPort: portOf(access.server), pods: podCidrs, links: linksByAddress },
      log: kubernetesLog,
      changed: () => (policies.isInUse ? hurry() : kick()),
    }),
  );
  const teller = closing.use(new NodeTeller({ client, node: host, log: kubernetesLog, now: () => new Date() }));
  const policyTeller = closing.use(new PolicyTeller({ client, node: host, log: kubernetesLog }));
  let isUsable = true;
  const saw = (item: unknown, problem?: string): void => {
    isUsable = problem === undefined;
    if (problem !== undefined) teller.wish({ annotations: {}, network: unusable(problem) });
    teller.saw(item);
    health.saw(item);
  };
  const hosts = lately(context.underlay);
  const taken = (): Ip[] => [...takenByOthers(journal), ...foreignAddresses().map(({ ip }) => ip)];
  const facts = node.model === 'calico' ? new CalicoFacts(carry) : undefined;
  const ports = facts === undefined ? ownPorts(client, host, context) : undefined;
  const pods = facts === undefined ? () => podCidrs : () => facts.ranges;
  const own = closing.use(ownNetworks({ client, pods, hosts, ...(ports === undefined ? {} : { ports }) }, context));
  const cluster = { host, podCidrs, ...(carry === undefined ? {} : { carry }), log: kubernetesLog, saw, taken };
  const calico =
    facts === undefined
      ? undefined
      : followCalico(client, { host, facts, saw, further: own, log: kubernetesLog, journal, now: () => Date.now() }, { kick, closing });
  const policed = keepConnections
    ? undefined
    : closing.use(
        new PolicedConnections({
          cut: cutConnections,
          own: ownAddresses,
          ways: () => wayFinder(routes()),
          log: (fields, message) => kubernetesLog.info(fields, message),
        }),
      );
  let isInstalled = false;
  const clashes = clashFinder({ services, hosts, log: kubernetesLog });
  return {
    host,
    generation: 0,
    isFullToldElsewhere: true,
    controller: () =>
      calico?.controller ??
      kubernetesController(client, { ...cluster, ...(ports === undefined ? {} : { further: { networks: own, ports } }) }),
    ...(calico === undefined ? {} : { bgp: calico.bgp, choose: calico.choose, isForPods: (id: string) => calico.poolsHere().has(id) }),
    networks: new PodNetworks({ client, folder: dirname(cniConf), own, withoutPort: context.withoutPort }),
    own,
    bridges: bridgesOf(host),
    renew: () => undefined,
    services,
    policies,
    policyStatuses: () => readStatuses(client, AbortSignal.timeout(statusesMs)),
    predecessor,
    probed: (paths, here) => teller.paths(pathsWord(paths, (id) => context.view().snapshot.hosts.get(id)?.status.ready === true, here)),
    applied: (done) => {
      const { blocks, pools, networks } = done.facts;
      services.locate(done.facts.hosts.get(host)?.labels[zoneLabel]);
      // Only now that the kernel leads connections there.
      health.update(services.healthPorts());
      policed?.applied(done.policy);
      const { refusedRules } = done;
      if (policies.isSynced()) policyTeller.wish(refusedRules === undefined ? policies.word(done.policy) : undefined, refusedRules);
      own.settle();
      const here = calico?.poolsHere();
      const ranges = [...pools.values()].flatMap(({ id, cidr, network }) =>
        here?.has(id) === false || networks.get(network)?.model === 'neutron' ? [] : [{ pool: id, cidr }],
      );
      const wished = { ...done, underlay: hosts(), ...clashes(ranges.map(({ cidr }) => cidr)) };
      const wish = wishFor(host, publicKey(), calico === undefined ? wished : { ...wished, ranges });
      if (wish !== undefined && isUsable) teller.wish(wish);
      const canAttach =
        calico === undefined
          ? [...blocks.values()].some((block) => block.host === host)
          : [...pools.values()].some((pool) => pool.network === podNetwork.id);
      if (isInstalled || !canAttach) return;
      isInstalled = true;
      installConflist(cniConf);
      log.info({ file: cniConf }, 'pods can be attached');
    },
  };
}

interface ClashOptions {
  readonly services: KubernetesServices;
  readonly hosts: () => readonly Underlay[];
  readonly log: Pick<Logger, 'error'>;
}

/** Which of these ranges of pods are others' as well; each that is found is in the log once. */
function clashFinder({ services, hosts, log }: ClashOptions): (ranges: readonly Cidr[]) => Pick<Availability, 'hosts' | 'services'> {
  let said = '';
  return (ranges) => {
    const found = { hosts: hostsAmong(ranges, hosts()), services: services.clash(ranges) };
    const clash = found.hosts ?? found.services ?? '';
    if (clash !== '' && clash !== said) log.error({}, `${clash}: no pods are taken before one of the ranges is another`);
    said = clash;
    return found;
  };
}

const latelyMs = 1_000;

/** The host's own underlay as it was a second ago at most; looked for again then. What is not there for a moment stays. */
function lately(find: () => readonly Underlay[]): () => readonly Underlay[] {
  let [found, until]: [readonly Underlay[], number] = [[], 0];
  return () => {
    if (performance.now() < until) return found;
    until = performance.now() + latelyMs;
    try {
      found = find();
    } catch (error) {
      if (!isFault(error, 'invalid')) throw error;
    }
    return found;
  };
}

const ownPorts = (client: KubernetesClient, host: string, { log, local, view, withoutPort }: ClusterContext): OwnPorts =>
  new OwnPorts({
    client,
    host,
    log: log.child({ part: 'kubernetes' }),
    known: (id) => view().blocks.get(id),
    portless: (id) =>
      local()
        .localEndpoints()
        .filter(({ network, addresses }) => network === id && addresses.some((ip) => withoutPort(ip) !== undefined)).length,
  });

function ownNetworks(
  { hosts, ...options }: Pick<OwnNetworksOptions, 'client' | 'pods' | 'ports'> & { readonly hosts: () => readonly Underlay[] },
  { journal, log, local }: ClusterContext,
): OwnNetworks {
  return new OwnNetworks({
    ...options,
    journal,
    hosts: () => hosts().flatMap(({ interface: link, subnet }, _, [first]) => (link === first?.interface ? [subnet] : [])),
    log: log.child({ part: 'kubernetes' }),
    used: () =>
      new Set(
        local()
          .localEndpoints()
          .map(({ network }) => network),
      ),
    isKnown: (id) => local().network(id) !== undefined,
  });
}

/** The model `calico`: pools, blocks and speakers as the cluster's custom resources say. */
function followCalico(
  client: KubernetesClient,
  options: Omit<CalicoOptions, 'poolsChanged'> & { readonly further: OwnNetworks },
  { kick, closing }: Pick<ClusterContext, 'kick' | 'closing'>,
) {
  const { journal, log, host, facts, further } = options;
  const controller = calicoController(client, {
    ...options,
    poolsChanged: () => {
      bgp.touch();
      further.settle();
    },
  });
  const bgp: CalicoBgp = closing.use(new CalicoBgp({ client, journal, log, changed: kick, silent: () => facts.silent() }));
  /** Ids of those that pods on this host get addresses of. */
  const poolsHere = (): ReadonlySet<string> => new Set(facts.poolsOn(host).map(({ name }) => poolId(name)));
  return { controller, bgp, poolsHere, choose: podAddresses(client, facts, host) };
}
