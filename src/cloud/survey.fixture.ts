// A cloud as the lab's: Geneve below, port security on, a member's rights, Neutron's usual quotas.
import { type Family, parseCidr } from '#model/ip.ts';
import type { Survey } from './survey.ts';

export const networkOf = (mtu: number, families: readonly Family[], takesPorts = true): Survey['network'] => ({
  name: 'hosts',
  mtu,
  families,
  subnets: families.map((family) => ({ name: `hosts${family}`, cidr: parseCidr(family === 4 ? '10.20.0.0/24' : 'fd00:20::/64') })),
  takesPorts,
});

export const surveyOf = (changes: Partial<Survey> = {}): Survey => ({
  extensions: ['allowed-address-pairs', 'extraroute', 'port-security', 'quota_details', 'router', 'security-group', 'trunk'],
  network: networkOf(1442, [4]),
  instances: 2,
  unguarded: 0,
  parents: 0,
  quotas: {
    port: { limit: 500, used: 10 },
    security_group: { limit: 10, used: 2 },
    security_group_rule: { limit: 100, used: 8 },
  },
  routers: ['main'],
  rights: { pairs: 'yes', portSecurity: 'yes', routes: 'yes' },
  ...changes,
});
