// node bench/record-neutron.ts LAB: takes the shape of answers from a real cloud of the lab that is up, as its demo project's member gets
// them, and writes one of each to recorded/neutron.json, which cloud.ts replays.
import { keep, labMember } from './recording.ts';

const member = labMember();
const first = async (kind: string, query = ''): Promise<unknown> => {
  const [found] = await member.get<unknown[]>('neutron', `/v2.0/${kind}${query}`, kind.replaceAll('-', '_'));
  if (found === undefined) throw new Error(`The cloud has no ${kind}`);
  return found;
};
const token = await member.get<{ readonly project: { readonly id: string } }>('keystone', '/v3/auth/tokens', 'token');
const recorded = {
  token,
  port: await first('ports', '?device_owner=compute:nova'),
  network: await first('networks', '?name=hosts'),
  group: await first('security-groups', '?name=default'),
  router: await first('routers'),
  extensions: await member.get<unknown[]>('neutron', '/v2.0/extensions', 'extensions'),
  quota: await member.get<object>('neutron', `/v2.0/quotas/${token.project.id}/details`, 'quota'),
};
keep('neutron', recorded);
