// A cluster's network as its template says it: `network_driver` and the labels that Magnum's users already have for flannel and
// Calico (docs.openstack.org/magnum/latest/user, "Labels"), and `causeway_*` for everything that those cannot say. Read into the
// values of our Helm chart, so that a driver that installs add-ons and `causeway magnum install` come to the same network. Labels
// of others are nobody's business; one that begins with `causeway_` and is not known is a mistake.
import { Fault } from '#model/fault.ts';
import { type Cidr, cidrLength, familyOf, parseCidr } from '#model/ip.ts';
import { passedOver } from './magnum-labels.ts';
import { isInstallation } from './named.ts';

export interface TemplateNetwork {
  readonly networkDriver: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  /** Which has its own name in the cloud, where labels give it none. */
  readonly cluster?: { readonly id: string; readonly name: string };
}

/** Values of packaging/helm/causeway, as far as labels speak of them; `apiServer` is the cluster's own. */
export interface ChartValues {
  readonly model: Model;
  readonly podCidrs: readonly string[];
  readonly carry: string;
  readonly userspaceWireguard?: boolean;
  readonly underlay?: string;
  readonly keepConnections?: boolean;
  readonly logDenied?: boolean;
  readonly logLevel?: string;
  readonly image?: { readonly repository: string; readonly tag: string };
  readonly cni?: { readonly bin: string; readonly conf: string; readonly runtime: string };
  readonly controller?: { readonly replicas: number };
  readonly cloud?: Readonly<Record<string, string | boolean>>;
}

export interface ClusterNetwork {
  readonly values: ChartValues;
  /** What of Calico's has to be there beside the chart: a pool for pods. */
  readonly objects: readonly object[];
  /** What is not done as a label says, in words. */
  readonly notes: readonly string[];
}

/** Magnum's own defaults. */
const usualRange = '10.100.0.0/16';
const models = ['flannel', 'calico', 'routes'] as const;
/** On nodes `routes` is a carriage of flannel. */
type Model = Exclude<(typeof models)[number], 'routes'>;
const carries = {
  flannel: ['vxlan', 'direct-routing', 'host-gateway', 'routes', 'wireguard'],
  calico: ['bgp', 'bgp-cross-subnet', 'vxlan', 'wireguard'],
  routes: ['routes'],
} as const;
const backends: Readonly<Record<string, string>> = { vxlan: 'vxlan', 'host-gw': 'host-gateway' };
const ipipModes = ['Off', 'Never', 'CrossSubnet', 'Always'];

const own = 'causeway_';
const ownLabels = [
  'model',
  'carry',
  'pod_cidr',
  'userspace_wireguard',
  'underlay',
  'image',
  'keep_connections',
  'log_denied',
  'log_level',
  'cni_bin',
  'cni_conf',
  'cni_runtime',
  'controllers',
  'cloud_secret',
  'cloud',
  'cloud_name',
  'cloud_network',
  'cloud_routes',
  'cloud_all_balancers',
] as const;

/** What a label of our own says, read; undefined where there is none. */
type Said = <const T>(label: (typeof ownLabels)[number], read: (label: string, value: string) => T) => T | undefined;

function refused(label: string, value: string, hint: string): Fault {
  return new Fault('invalid', `Label ${label}: ${JSON.stringify(value.slice(0, 80))} is not possible`, { field: `labels.${label}`, hint });
}

function oneOf<const T extends string>(label: string, value: string, words: readonly T[]): T {
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  throw refused(label, value, `Use one of: ${words.join(', ')}`);
}

const flag = (label: string, value: string): boolean => oneOf(label, value.toLowerCase(), ['true', 'false']) === 'true';

/** One of each family; `+` lies between two, as a comma ends a label at Magnum's command line. */
function ranges(label: string, value: string): Cidr[] {
  const found = value.split('+').map((text) => parseCidr(text, `labels.${label}`));
  if (new Set(found.map(familyOf)).size === found.length) return found;
  throw refused(label, value, 'Give one range of each family');
}

/** Of a label that is Magnum's own. */
function range4(label: string, value: string): Cidr[] {
  if (/[:+]/.test(value)) throw refused(label, value, 'It is one range of IPv4. For others use the label causeway_pod_cidr');
  return [parseCidr(value, `labels.${label}`)];
}

/** Of what pools are divided into, where nobody says another length. */
const blockLengths = { 4: 26, 6: 122 } as const;

/** A pool that is smaller than one of its blocks is none. */
function holdsBlocks(label: string, range: Cidr): void {
  const length = blockLengths[familyOf(range)];
  if (cidrLength(range) > length) throw refused(label, range, `Nodes take pieces of /${length} of it`);
}

function image(label: string, value: string): { repository: string; tag: string } {
  const [, repository, tag] = /^([a-z0-9][a-z0-9._:/-]*?):([\w][\w.-]{0,127})$/.exec(value) ?? [];
  if (repository === undefined || tag === undefined) throw refused(label, value, 'Write it as registry.example.org/causeway:0.1.0');
  return { repository, tag };
}

function path(label: string, value: string): string {
  if (/^\/[^\s"']*$/.test(value)) return value;
  throw refused(label, value, 'Write an absolute path');
}

function plainWord(label: string, value: string): string {
  if (/^[^\s"']+$/.test(value)) return value;
  throw refused(label, value, 'Write a name');
}

function secretName(label: string, value: string): string {
  if (/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(value)) return value;
  throw refused(label, value, 'Write the name of a Secret in the namespace kube-system');
}

function installation(label: string, value: string): string {
  if (isInstallation(value)) return value;
  throw refused(label, value, 'Use lower-case letters, digits and hyphens, 32 at most');
}

function count(label: string, value: string): number {
  if (/^\d$/.test(value)) return Number(value);
  throw refused(label, value, 'Write a number from 0 to 9');
}

/** Faults: `invalid` (a label, which is named), `unsupported` (a network driver or backend that we are none of). */
export function networkOf({ networkDriver, labels, cluster }: TemplateNetwork): ClusterNetwork {
  const unknown = Object.keys(labels).find((label) => label.startsWith(own) && !ownLabels.some((known) => label === own + known));
  if (unknown !== undefined) {
    throw new Fault('invalid', `There is no label ${unknown}`, {
      field: `labels.${unknown}`,
      hint: `Of Causeway's there are ${ownLabels.map((label) => own + label).join(', ')}`,
    });
  }
  const said: Said = (label, read) => {
    const value = labels[own + label];
    return value === undefined ? undefined : read(own + label, value);
  };
  const asked = said('model', (label, value) => oneOf(label, value, models)) ?? modelOf(networkDriver);
  const model = asked === 'routes' ? 'flannel' : asked;
  const notes: string[] = [];
  const wanted = said('carry', (label, value) => oneOf<string>(label, value, carries[asked]));
  const carry = wanted ?? (asked === 'routes' ? asked : carryOf(model, labels, notes));
  const podCidrs = rangesOf(model, labels, said);
  notes.push(...passedOver(model, labels));
  if (carry === 'routes') notes.push('carried by routes: nodes take pods once a router knows their ranges (docs/openstack.md)');
  const values = { model, podCidrs, carry, ...furtherValues(said), ...cloudOf(said, cluster) };
  if (values.cloud !== undefined && values.controller?.replicas === 0) notes.push('causeway_controllers=0: nobody keeps the cloud');
  return { values, objects: model === 'calico' ? podCidrs.map(poolOf) : [], notes };
}

function rangesOf(model: Model, labels: TemplateNetwork['labels'], said: Said): Cidr[] {
  const theirs = model === 'flannel' ? 'flannel_network_cidr' : 'calico_ipv4pool';
  const label = labels[`${own}pod_cidr`] === undefined ? theirs : `${own}pod_cidr`;
  const found = said('pod_cidr', ranges) ?? range4(theirs, labels[theirs] ?? usualRange);
  if (model === 'calico') for (const range of found) holdsBlocks(label, range);
  return found;
}

function furtherValues(said: Said): Omit<ChartValues, 'model' | 'podCidrs' | 'carry' | 'cloud'> {
  const userspaceWireguard = said('userspace_wireguard', flag);
  const underlay = said('underlay', plainWord);
  const keepConnections = said('keep_connections', flag);
  const logDenied = said('log_denied', flag);
  const logLevel = said('log_level', (label, value) => oneOf(label, value, ['trace', 'debug', 'info', 'warn', 'error']));
  const named = said('image', image);
  const replicas = said('controllers', count);
  return {
    ...(userspaceWireguard === undefined ? {} : { userspaceWireguard }),
    ...(underlay === undefined ? {} : { underlay }),
    ...(keepConnections === undefined ? {} : { keepConnections }),
    ...(logDenied === undefined ? {} : { logDenied }),
    ...(logLevel === undefined ? {} : { logLevel }),
    ...(named === undefined ? {} : { image: named }),
    ...(replicas === undefined ? {} : { controller: { replicas } }),
    ...foldersOf(said('cni_bin', path), said('cni_conf', path), said('cni_runtime', path)),
  };
}

/** Clusters of one template, and of one name, each have another. */
function nameInCloud({ id, name }: NonNullable<TemplateNetwork['cluster']>): string {
  const readable = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replace(/^-/, '')
    .slice(0, 23);
  return `${readable}-${id.slice(0, 8)}`.replace(/^-/, '').replaceAll('--', '-');
}

/** For controllers that keep the cloud. What is said of that without a login to it would not be done. */
function cloudOf(said: Said, cluster: TemplateNetwork['cluster']): Pick<ChartValues, 'cloud'> {
  const secret = said('cloud_secret', secretName);
  const parts = {
    cloud: said('cloud', plainWord),
    name: said('cloud_name', installation),
    network: said('cloud_network', plainWord),
    routes: said('cloud_routes', plainWord),
    allBalancers: said('cloud_all_balancers', flag),
  };
  const given = Object.entries(parts).flatMap(([key, value]) => (value === undefined ? [] : [[key, value] as const]));
  const usual = cluster === undefined ? {} : { name: nameInCloud(cluster) };
  if (secret !== undefined) return { cloud: { secret, ...usual, ...Object.fromEntries(given) } };
  if (given.length === 0) return {};
  const field = `labels.${own}cloud_secret`;
  throw new Fault('invalid', `Labels speak of the cloud, and none says as whom controllers log in there`, {
    field,
    hint: `Give ${own}cloud_secret, the name of a Secret with clouds.yaml (docs/openstack.md)`,
  });
}

/** The chart takes the three together. */
function foldersOf(bin: string | undefined, conf: string | undefined, runtime: string | undefined): Pick<ChartValues, 'cni'> {
  if (bin === undefined && conf === undefined && runtime === undefined) return {};
  return { cni: { bin: bin ?? '/opt/cni/bin', conf: conf ?? '/etc/cni/net.d', runtime: runtime ?? '' } };
}

function modelOf(driver: string | undefined): Model {
  // Magnum's default.
  if (driver === undefined) return 'flannel';
  if (driver === 'flannel' || driver === 'calico') return driver;
  throw new Fault('unsupported', `Causeway is no network of the driver ${driver}`, {
    field: 'network_driver',
    hint: 'Make the template with network_driver flannel or calico, or with the label causeway_model',
  });
}

function carryOf(model: Model, labels: TemplateNetwork['labels'], notes: string[]): string {
  if (model === 'flannel') {
    const backend = labels['flannel_backend'] ?? 'vxlan';
    const carry = backends[backend];
    if (carry !== undefined) return carry;
    throw new Fault('unsupported', `Causeway does not carry as flannel's backend ${backend}`, {
      field: 'labels.flannel_backend',
      hint: 'Use vxlan or host-gw, or the label causeway_carry',
    });
  }
  const mode = oneOf('calico_ipv4pool_ipip', labels['calico_ipv4pool_ipip'] ?? 'Off', ipipModes);
  if (mode === 'Off' || mode === 'Never') return 'bgp';
  notes.push(
    mode === 'CrossSubnet'
      ? 'calico_ipv4pool_ipip=CrossSubnet: packets between subnets travel by VXLAN, not in IP-in-IP'
      : 'calico_ipv4pool_ipip=Always: packets travel by VXLAN between subnets and as they are within one, not in IP-in-IP',
  );
  return 'bgp-cross-subnet';
}

/** As Magnum's own manifests name it. */
const poolOf = (cidr: string): object => ({
  apiVersion: 'projectcalico.org/v3',
  kind: 'IPPool',
  metadata: { name: cidr.includes(':') ? 'default-ipv6-ippool' : 'default-ipv4-ippool' },
  spec: { cidr, natOutgoing: true },
});
