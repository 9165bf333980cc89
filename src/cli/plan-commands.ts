// What brings a recommended model about, as commands to be copied: of `causeway`, of a controller that keeps the cloud, of Helm and
// kubectl. Words in capitals are for the user to fill in; what a cloud calls its things stands there where a shell takes it as it is.
import type { Case, Judgement } from '#cloud/advice.ts';
import { isClusterModel } from '#cloud/advice-table.ts';
import { familyOf } from '#model/ip.ts';

export interface Known extends Case {
  /** As it was named; absent: by the environment. */
  readonly cloud: string | undefined;
}

const plainOr = (name: string | undefined, word: string): string =>
  name !== undefined && /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) ? name : word;

export function commandsOf(judged: Judgement, known: Known): string[] {
  const { frontEnds } = known.needs;
  return [
    ...(frontEnds.includes('docker') ? dockerCommands(judged, known) : []),
    ...(frontEnds.includes('kubernetes') ? kubernetesCommands(judged, known) : []),
  ];
}

const isKept = ({ model }: Judgement): boolean => model === 'neutron';

function dockerCommands(judged: Judgement, known: Known): string[] {
  const at = known.cloud === undefined ? '' : ` ${plainOr(known.cloud, 'CLOUD')}`;
  const create = `causeway network create NAME --model ${judged.model}`;
  if (isKept(judged)) return [`causeway controller --cloud${at}`, `${create}${placeOptions(known)}`];
  const encrypted = known.needs.features.includes('encryption') ? ' --encrypted' : '';
  const how = encrypted === '' && judged.model !== 'swarm' ? ` --carry ${judged.carry}` : encrypted;
  return [`${create}${how}`, `causeway cloud apply${at === '' ? '' : ` --cloud${at}`}${routesOption(judged, known)}`];
}

const routerOf = ({ survey: { routers } }: Known): string => plainOr(routers.length === 1 ? routers[0] : undefined, 'ROUTER');
const routesOption = ({ asks }: Judgement, known: Known): string => (asks.routes > 0 ? ` --routes ${routerOf(known)}` : '');

interface Place {
  readonly network: string;
  /** Where the network has several of a family. */
  readonly subnet: string | undefined;
  readonly range: string;
}

/** Of containers' ports: on the hosts' own network, unless that is another project's. */
function placeOf({ survey: { network } }: Known): Place {
  if (!network.takesPorts) return { network: 'NETWORK', subnet: undefined, range: 'RANGE' };
  const [subnet, other] = network.subnets.filter(({ cidr }) => familyOf(cidr) === network.families[0]);
  return {
    network: plainOr(network.name, 'NETWORK'),
    subnet: other === undefined ? undefined : plainOr(subnet?.name, 'SUBNET'),
    range: subnet?.cidr ?? 'RANGE',
  };
}

function placeOptions(known: Known): string {
  const { network, subnet } = placeOf(known);
  const groups = known.needs.features.includes('policy') ? ' --neutron-security-group GROUP' : '';
  return ` --neutron-network ${network}${subnet === undefined ? '' : ` --neutron-subnet ${subnet}`}${groups}`;
}

/** Of the Secret with the login to the cloud. */
const secret = 'causeway-cloud';

/** Ways by a router, and pods' ports, are the cluster's controllers' to keep. */
function kubernetesCommands(judged: Judgement, known: Known): string[] {
  const byRouter = judged.model === 'routes';
  // By VXLAN, which needs no right.
  const [model, carry] = byRouter
    ? ['flannel', 'routes']
    : isClusterModel(judged.model)
      ? [judged.model, judged.carry]
      : ['flannel', 'vxlan'];
  const values = [`model=${model}`, `carry=${carry}`, 'apiServer=https://ADDRESS:6443'];
  const helm = 'helm install causeway packaging/helm/causeway --namespace kube-system --set ';
  const at = known.cloud === undefined ? '' : ` --cloud ${plainOr(known.cloud, 'CLOUD')}`;
  if (!byRouter && !isKept(judged))
    return [`${helm}${values.join(',')}`, `causeway cloud apply${at} --kubernetes${routesOption(judged, known)}`];
  const login = [
    `cloud.secret=${secret}`,
    `cloud.cloud=${plainOr(known.cloud, 'CLOUD')}`,
    ...(byRouter ? [`cloud.routes=${routerOf(known)}`] : []),
  ];
  return [
    `kubectl --namespace kube-system create secret generic ${secret} --from-file=clouds.yaml`,
    `${helm}${[...values, ...login].join(',')}`,
    ...(isKept(judged) ? [`echo '${JSON.stringify(definitionOf(known))}' | kubectl apply --filename=-`] : []),
  ];
}

/** The network that pods ask for by its name. */
function definitionOf(known: Known): object {
  const { network, subnet, range } = placeOf(known);
  const groups = known.needs.features.includes('policy') ? { groups: ['GROUP'] } : {};
  const neutron = { network, ...(subnet === undefined ? {} : { subnet }), ...groups };
  const config = JSON.stringify({ cniVersion: '1.0.0', type: 'causeway', subnets: [range], neutron });
  return { apiVersion: 'k8s.cni.cncf.io/v1', kind: 'NetworkAttachmentDefinition', metadata: { name: 'NAME' }, spec: { config } };
}
