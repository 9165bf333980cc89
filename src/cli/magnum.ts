// `causeway magnum`: clusters of OpenStack's own service for them, with Causeway as their network. Templates say by `network_driver`
// and labels which model that is (cloud/magnum-network.ts); the login to the cloud is the user's own and stays on this machine.
import { type ClusterNetwork, networkOf, type TemplateNetwork } from '#cloud/magnum-network.ts';
import type { ClusterTemplate, Labels, MagnumCluster } from '#cloud/magnum-schemas.ts';
import { Fault, isFault } from '#model/fault.ts';
import type { Command } from 'commander';
import { collect, completes, done, examples, type Group, integer, listing, nothingDone, pairs } from './command.ts';
import {
  type CloudOptions,
  gone,
  healthText,
  inMagnum,
  settled,
  tellNotes,
  type WaitOptions,
  withCloud,
  withWait,
} from './magnum-session.ts';
import { type AddonOptions, showAddon, showValues } from './magnum-addon.ts';
import { install, type InstallOptions, upgrade, type UpgradeOptions } from './magnum-install.ts';
import { type KubeconfigOptions, makeKubeconfig } from './magnum-kubeconfig.ts';
import type { Answer, Session } from './session.ts';
import { facts } from './table.ts';

const labelText = (labels: Labels): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ');

/** As which network Causeway would be there; why it cannot be, where driver or labels ask for another one. */
type ShownNetwork = ClusterNetwork | Fault;

function shownNetwork(template: TemplateNetwork): ShownNetwork {
  try {
    return networkOf(template);
  } catch (error) {
    if (isFault(error)) return error;
    throw error;
  }
}

function networkText(network: ShownNetwork): string {
  if (network instanceof Fault) return `none (${network.message})`;
  const { model, carry, podCidrs } = network.values;
  return `${model}, carried by ${carry}, pods in ${podCidrs.join(' and ')}`;
}

const networkData = (network: ShownNetwork): object =>
  network instanceof Fault ? { causeway: null, causewayNot: network.message } : { causeway: network };

const templates = (session: Session, _: readonly string[], options: CloudOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) =>
    listing(
      await magnum.templates(),
      [
        { title: 'NAME', value: ({ name }) => name },
        { title: 'COE', value: ({ coe }) => coe },
        { title: 'NETWORK DRIVER', value: ({ networkDriver }) => networkDriver ?? '' },
        { title: 'LABELS', value: ({ labels }) => labelText(labels) },
        { title: 'ID', value: ({ id }) => id },
      ],
      'No cluster templates yet. Make one: causeway magnum template create NAME --image IMAGE',
    ),
  );

interface TemplateOptions extends CloudOptions {
  readonly image: string;
  readonly coe: string;
  readonly networkDriver: string;
  readonly externalNetwork?: string;
  readonly network?: string;
  readonly subnet?: string;
  readonly flavor?: string;
  readonly masterFlavor?: string;
  readonly keypair?: string;
  readonly dns?: string;
  readonly floatingIp: boolean;
  readonly masterLb?: true;
  readonly label?: readonly string[];
}

const createTemplate = (session: Session, [name = '']: readonly string[], options: TemplateOptions): Promise<Answer> => {
  const labels = pairs(options.label, 'label');
  // Before Magnum is asked, which takes any labels.
  const network = networkOf({ networkDriver: options.networkDriver, labels });
  return inMagnum(session, options, async (magnum) => {
    const made = await magnum.createTemplate({
      name,
      coe: options.coe,
      image_id: options.image,
      network_driver: options.networkDriver,
      external_network_id: options.externalNetwork,
      fixed_network: options.network,
      fixed_subnet: options.subnet,
      flavor_id: options.flavor,
      master_flavor_id: options.masterFlavor,
      keypair_id: options.keypair,
      dns_nameserver: options.dns,
      floating_ip_enabled: options.floatingIp,
      master_lb_enabled: options.masterLb ?? false,
      labels,
    });
    return templateAnswer(made, network);
  });
};

const showTemplate = (session: Session, [name = '']: readonly string[], options: CloudOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const template = await magnum.template(name);
    return templateAnswer(template, shownNetwork(template));
  });

function templateAnswer(template: ClusterTemplate, network: ShownNetwork): Answer {
  return {
    data: { ...template, ...networkData(network) },
    names: [template.name],
    text: (look) =>
      facts(look, [
        ['Name', template.name],
        ['Id', template.id],
        ['COE', template.coe],
        ['Network driver', template.networkDriver],
        ['Labels', labelText(template.labels)],
        ['Causeway', networkText(network)],
        ...noteFacts(network),
      ]),
  };
}

const noteFacts = (network: ShownNetwork | undefined): [string, string][] =>
  network === undefined || network instanceof Fault ? [] : network.notes.map((note) => ['Note', note]);

const removeTemplate = (session: Session, [name = '']: readonly string[], options: CloudOptions & { yes?: true }): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    if (!(await session.confirm(`Remove cluster template ${name}?`, options.yes))) return nothingDone;
    await magnum.removeTemplate(name);
    return done({ name }, name, `Cluster template ${name} is removed.`);
  });

const clusters = (session: Session, _: readonly string[], options: CloudOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) =>
    listing(
      await magnum.clusters(),
      [
        { title: 'NAME', value: ({ name }) => name },
        { title: 'STATUS', value: ({ status }) => status, style: ({ status }) => (status.endsWith('_FAILED') ? 'red' : undefined) },
        { title: 'HEALTH', value: ({ health }) => health ?? '' },
        { title: 'MASTERS', value: ({ masters }) => String(masters) },
        { title: 'NODES', value: ({ workers }) => String(workers) },
        { title: 'ID', value: ({ id }) => id },
      ],
      'No clusters yet. Make one: causeway magnum cluster create NAME --template TEMPLATE',
    ),
  );

interface ClusterOptions extends WaitOptions {
  readonly template: string;
  readonly masters: number;
  readonly nodes: number;
  readonly keypair?: string;
  readonly label?: readonly string[];
}

const createCluster = (session: Session, [name = '']: readonly string[], options: ClusterOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const labels = pairs(options.label, 'label');
    const template = await magnum.template(options.template);
    tellNotes(session, networkOf({ networkDriver: template.networkDriver, labels: { ...template.labels, ...labels } }));
    const id = await magnum.createCluster({
      name,
      cluster_template_id: template.id,
      master_count: options.masters,
      node_count: options.nodes,
      keypair: options.keypair,
      ...(options.label === undefined ? {} : { labels, merge_labels: true }),
    });
    if (options.wait !== true) return done({ id, name }, name, `Magnum makes cluster ${name} (${id}).`);
    return clusterAnswer(await settled(session, magnum, { id, timeout: options.timeout }));
  });

const showCluster = (session: Session, [name = '']: readonly string[], options: CloudOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const cluster = await magnum.cluster(name);
    const { networkDriver } = await magnum.template(cluster.template);
    return clusterAnswer(cluster, shownNetwork({ networkDriver, labels: cluster.labels, cluster }));
  });

function clusterAnswer(cluster: MagnumCluster, network?: ShownNetwork): Answer {
  return {
    data: { ...cluster, ...(network === undefined ? {} : networkData(network)) },
    names: [cluster.name],
    text: (look) =>
      facts(look, [
        ['Name', cluster.name],
        ['Id', cluster.id],
        ['Status', cluster.reason === undefined ? cluster.status : `${cluster.status}: ${cluster.reason}`],
        ['Health', healthText(cluster)],
        ['API', cluster.api],
        ['Masters', [String(cluster.masters), ...cluster.masterAddresses].join(' ')],
        ['Nodes', [String(cluster.workers), ...cluster.workerAddresses].join(' ')],
        ['Labels', labelText(cluster.labels)],
        ['Causeway', network === undefined ? undefined : networkText(network)],
        ...noteFacts(network),
        ...Object.entries(cluster.faults).map(([what, why]): [string, string] => ['Fault', `${what}: ${why}`]),
      ]),
  };
}

const removeCluster = (session: Session, [name = '']: readonly string[], options: WaitOptions & { yes?: true }): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const { id } = await magnum.cluster(name);
    if (!(await session.confirm(`Remove cluster ${name} with all that runs in it?`, options.yes))) return nothingDone;
    await magnum.removeCluster(id);
    if (options.wait !== true) return done({ id, name }, name, `Magnum removes cluster ${name}.`);
    await gone(session, magnum, { id, timeout: options.timeout });
    return done({ id, name }, name, `Cluster ${name} is removed.`);
  });

const labelHelp = 'NAME=VALUE; repeatable';

function buildTemplates(command: Command, act: Parameters<Group['build']>[1]): void {
  act<CloudOptions>(
    examples(withCloud(command.command('ls').description('List cluster templates.')), 'causeway magnum template ls --cloud mycloud'),
    templates,
  );
  const shown = withCloud(
    command.command('show <template>').description('One template, and which network of Causeway its labels ask for.'),
  );
  act<CloudOptions>(examples(completes(shown, 'templates'), 'causeway magnum template show web'), showTemplate);
  const created = withCloud(command.command('create <name>').description('Make a cluster template.'))
    .requiredOption('--image <image>', 'of machines; its os_distro says which driver of Magnum makes them')
    .option('--coe <name>', 'container orchestration engine', 'kubernetes')
    .option('--network-driver <name>', 'flannel or calico: the model', 'flannel')
    .option('--external-network <network>', 'where floating IPs come from')
    .option('--network <network>', 'network of machines; absent: one of their own')
    .option('--subnet <subnet>', 'subnet of machines')
    .option('--flavor <flavor>', 'size of nodes')
    .option('--master-flavor <flavor>', 'size of masters')
    .option('--keypair <name>', 'who may log in to machines')
    .option('--dns <address>', 'name server of machines')
    .option('--no-floating-ip', 'machines get no floating IPs')
    .option('--master-lb', 'a load balancer before the masters')
    .option('--label <label>', labelHelp, collect);
  act<TemplateOptions>(
    examples(
      created,
      'causeway magnum template create web --image fedora-coreos --external-network public',
      'causeway magnum template create fast --image ubuntu --label flannel_backend=host-gw --label flannel_network_cidr=10.82.0.0/16',
      'causeway magnum template create routed --image ubuntu --network-driver calico --label calico_ipv4pool=10.83.0.0/16',
    ),
    createTemplate,
  );
  const removed = withCloud(command.command('delete <template>').description('Remove a cluster template.')).option(
    '-y, --yes',
    'do not ask',
  );
  act<CloudOptions & { yes?: true }>(
    examples(completes(removed, 'templates'), 'causeway magnum template delete web --yes'),
    removeTemplate,
  );
}

function buildClusters(command: Command, act: Parameters<Group['build']>[1]): void {
  act<CloudOptions>(
    examples(
      withCloud(command.command('ls').description('List clusters with their status and health.')),
      'causeway magnum cluster ls --cloud mycloud',
    ),
    clusters,
  );
  const shown = withCloud(command.command('show <cluster>').description('One cluster: status, health, addresses, network.'));
  act<CloudOptions>(examples(completes(shown, 'clusters'), 'causeway magnum cluster show web -o json'), showCluster);
  const created = withWait(command.command('create <name>').description('Make a cluster of a template.'), '60m')
    .requiredOption('--template <template>', 'name or id')
    .option('--masters <number>', 'machines with the control plane', integer(1, 99), 1)
    .option('--nodes <number>', 'machines for pods', integer(1, 5000), 1)
    .option('--keypair <name>', 'who may log in to machines')
    .option('--label <label>', `${labelHelp}; laid over the template's`, collect);
  act<ClusterOptions>(
    examples(
      completes(created, 'templates', '--template'),
      'causeway magnum cluster create web --template web --nodes 3 --wait',
      'causeway magnum cluster create web --template web --label causeway_carry=direct-routing',
    ),
    createCluster,
  );
  const access = withCloud(command.command('kubeconfig <cluster>').description('Write a kubeconfig; its key is made here.'))
    .option('--file <path>', 'where; absent: CLUSTER.kubeconfig in this folder')
    .option('--user <name>', 'whom the API server sees', 'admin')
    .option('--group <name>', 'the group that it sees', 'system:masters')
    .option('--force', 'replace the file');
  act<KubeconfigOptions>(
    examples(
      completes(access, 'clusters'),
      'causeway magnum cluster kubeconfig web',
      'causeway magnum cluster kubeconfig web --user ann --group readers --file ann.kubeconfig',
    ),
    makeKubeconfig,
  );
  const removed = withWait(command.command('delete <cluster>').description('Remove a cluster and its machines.'), '30m').option(
    '-y, --yes',
    'do not ask',
  );
  act<WaitOptions & { yes?: true }>(
    examples(completes(removed, 'clusters'), 'causeway magnum cluster delete web --yes --wait'),
    removeCluster,
  );
}

function buildNetworks(command: Command, act: Parameters<Group['build']>[1]): void {
  const shown = withCloud(command.command('values <cluster>').description("What the cluster's labels mean for the Helm chart."));
  act<CloudOptions>(
    examples(
      completes(shown, 'clusters'),
      'causeway magnum network values web >values.yaml',
      'helm install causeway packaging/helm/causeway --namespace kube-system --values values.yaml',
    ),
    showValues,
  );
  const addon = withCloud(command.command('addon <cluster>').description('The same as an add-on for drivers that use Cluster API.'))
    .requiredOption('--chart-repo <url>', "where the chart is, as the management cluster's Helm reaches it")
    .option('--namespace-prefix <text>', "the driver's, before a hyphen and the project's id", 'magnum');
  act<AddonOptions>(
    examples(
      completes(addon, 'clusters'),
      'causeway magnum network addon web --chart-repo https://charts.example.org | kubectl --kubeconfig management.yaml apply -f -',
    ),
    showAddon,
  );
  const timed = (name: string, about: string): Command =>
    withCloud(command.command(`${name} <cluster>`).description(about)).option(
      '--timeout <duration>',
      'until all nodes are well, at most',
      '10m',
    );
  act<InstallOptions>(
    examples(
      completes(timed('install', "Make Causeway the cluster's network, as its labels say; kubectl is needed."), 'clusters'),
      'causeway magnum network install web',
    ),
    install,
  );
  const upgraded = timed('upgrade', "Bring the cluster's network to this release and its labels; back again when the cluster is not well.");
  upgraded.option('--template <template>', 'one that Magnum upgrades the cluster to before');
  act<UpgradeOptions>(
    examples(
      completes(completes(upgraded, 'clusters'), 'templates', '--template'),
      'causeway magnum network upgrade web',
      'causeway magnum network upgrade web --template web-2',
    ),
    upgrade,
  );
}

export const group: Group = {
  build(magnum, act) {
    buildTemplates(magnum.command('template').description('Templates of clusters, which say by their labels what network there is.'), act);
    buildClusters(magnum.command('cluster').description('Clusters: make, follow, remove.'), act);
    buildNetworks(magnum.command('network').description('Causeway as the network of a cluster.'), act);
  },
};
