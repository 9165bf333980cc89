// A cluster's network for those who install it with Helm: values for the chart, and an add-on for drivers of Magnum that make
// clusters with Cluster API (magnum-capi-helm), whose addon provider installs charts (github.com/azimuth-cloud/cluster-api-addon-provider).
import type { ClusterNetwork } from '#cloud/magnum-network.ts';
import type { MagnumCluster } from '#cloud/magnum-schemas.ts';
import { Fault } from '#model/fault.ts';
import { stringify } from 'yaml';
import { chartAbout } from './helm-chart.ts';
import { type CloudOptions, inMagnum, networkOfCluster, tellNotes } from './magnum-session.ts';
import type { Answer, Session } from './session.ts';

export interface AddonOptions extends CloudOptions {
  readonly chartRepo: string;
  readonly namespacePrefix: string;
}

/** The address of the cluster's API as the addon provider knows it when it installs: nobody does before. */
const laterServer = 'https://{{ cluster.spec.controlPlaneEndpoint.host }}:{{ cluster.spec.controlPlaneEndpoint.port }}';

export const showValues = (session: Session, [name = '']: readonly string[], options: CloudOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const cluster = await magnum.cluster(name);
    const network = await networkOfCluster(magnum, cluster);
    tellNotes(session, network);
    const { values } = network;
    const all = { ...values, ...(cluster.api === undefined ? {} : { apiServer: cluster.api }) };
    return { data: all, names: [cluster.name], text: () => stringify(all) };
  });

export const showAddon = (session: Session, [name = '']: readonly string[], options: AddonOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const cluster = await magnum.cluster(name);
    const network = await networkOfCluster(magnum, cluster);
    tellNotes(session, network);
    const objects = addonOf(cluster, network, options);
    return { data: objects, names: [cluster.name], text: () => objects.map((object) => stringify(object, { lineWidth: 0 })).join('---\n') };
  });

/**
 * Objects for the management cluster. The provider reads values and manifests as templates, so text that begins one there is
 * refused: labels are anybody's. Faults: `invalid` (such a label), `unavailable` (the driver has not named the cluster yet).
 */
export function addonOf(cluster: MagnumCluster, { values, objects }: ClusterNetwork, options: Omit<AddonOptions, 'cloud'>): object[] {
  const { stack, project } = cluster;
  if (stack === undefined || project === undefined)
    throw new Fault('unavailable', `The driver of cluster ${cluster.name} has not named it yet: ${cluster.status}`, {
      hint: 'Repeat it later',
    });
  const metadata = {
    name: `${stack}-causeway`,
    namespace: `${options.namespacePrefix}-${project.toLowerCase().replaceAll(/[^a-z0-9]/g, '')}`,
  };
  const where = { clusterName: stack, bootstrap: true, targetNamespace: 'kube-system' };
  const apiVersion = 'addons.stackhpc.com/v1alpha1';
  const release = {
    apiVersion,
    kind: 'HelmRelease',
    metadata,
    spec: {
      ...where,
      releaseName: 'causeway',
      chart: { repo: options.chartRepo, name: 'causeway', version: chartAbout().version },
      valuesSources: [{ template: `${plain(stringify(values))}apiServer: ${laterServer}\n` }],
    },
  };
  if (objects.length === 0) return [release];
  const manifests = {
    apiVersion,
    kind: 'Manifests',
    metadata: { ...metadata, name: `${metadata.name}-pools` },
    spec: { ...where, releaseName: 'causeway-pools', manifestSources: objects.map((object) => ({ template: plain(stringify(object)) })) },
  };
  return [release, manifests];
}

function plain(text: string): string {
  const [found] = /\{[{%#]/.exec(text) ?? [];
  if (found === undefined) return text;
  throw new Fault('invalid', `A label of the cluster holds ${found}, which begins a template`, {
    field: 'labels',
    hint: 'Make the cluster without it',
  });
}
