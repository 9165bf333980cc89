// node bench/record-octavia.ts LAB: as record-neutron.ts, one answer of each kind of Octavia's, of a load balancer that is there, to
// recorded/octavia.json, by which src/cloud/octavia-schemas.test.ts shows that what Causeway reads is what is sent.
import { keep, labMember } from './recording.ts';

const member = labMember();
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
keep('octavia', recorded);
