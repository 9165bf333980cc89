// node bench/record-octavia.ts LAB: as record-neutron.ts, one answer of each kind of Octavia's, of a load balancer that is there, to
// recorded/octavia.json, by which src/cloud/octavia-schemas.test.ts shows that what Causeway reads is what is sent.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLab } from '#lab/lab.ts';
import { demo, OpenStack } from '#lab/openstack.ts';

const [name = ''] = process.argv.slice(2);
const lab = openLab(name);
if (lab === undefined) throw new Error(`There is no lab ${name}`);
const member = new OpenStack(lab).operator.as(demo);
const first = async <T>(kind: string, field = kind): Promise<T> => {
  const [found] = await member.get<T[]>('octavia', `/v2/lbaas/${kind}`, field);
  if (found === undefined) throw new Error(`The cloud has no ${kind}`);
  return found;
};
const loadbalancer = await first<{ readonly id: string }>('loadbalancers');
const pool = await first<{ readonly id: string }>('pools');
const recorded = {
  provider: await first('providers'),
  loadbalancer,
  listener: await first('listeners'),
  pool,
  member: await first(`pools/${pool.id}/members`, 'members'),
  healthmonitor: await first('healthmonitors'),
  statuses: await member.get<object>('octavia', `/v2/lbaas/loadbalancers/${loadbalancer.id}/status`, 'statuses'),
};
writeFileSync(join(import.meta.dirname, 'recorded', 'octavia.json'), `${JSON.stringify(recorded, undefined, 2)}\n`);
