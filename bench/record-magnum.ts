// node bench/record-magnum.ts LAB: as record-neutron.ts, one answer of each kind of Magnum's, of a cluster that is healthy, to
// recorded/magnum.json, by which src/cloud/magnum-schemas.test.ts shows that what Causeway reads is what is sent.
import { keep, labMember } from './recording.ts';

const member = labMember();
interface Listed {
  readonly uuid: string;
  readonly cluster_template_id: string;
  readonly health_status: string | null;
}
const list = (kind: string): Promise<Listed[]> => member.get('magnum', `/v1/${kind}`, kind);
const cluster = (await list('clusters')).find((one) => one.health_status === 'HEALTHY');
if (cluster === undefined) throw new Error('The cloud has no healthy cluster');
const template = (await list('clustertemplates')).find(({ uuid }) => uuid === cluster.cluster_template_id);
if (template === undefined) throw new Error('The cluster has no template');
const recorded = {
  'listed template': template,
  template: await member.get<object>('magnum', `/v1/clustertemplates/${template.uuid}`),
  'listed cluster': cluster,
  cluster: await member.get<object>('magnum', `/v1/clusters/${cluster.uuid}`),
  certificate: await member.get<object>('magnum', `/v1/certificates/${cluster.uuid}`),
};
keep('magnum', recorded);
