// A cloud as the lab's: Geneve below, port security on, a member's rights, Neutron's usual quotas.
import type { Survey } from './survey.ts';

export const surveyOf = (changes: Partial<Survey> = {}): Survey => ({
  extensions: ['allowed-address-pairs', 'extraroute', 'port-security', 'quota_details', 'router', 'security-group', 'trunk'],
  network: { name: 'hosts', mtu: 1442, families: [4] },
  instances: 2,
  unguarded: 0,
  parents: 0,
  quotas: {
    port: { limit: 500, used: 10 },
    security_group: { limit: 10, used: 2 },
    security_group_rule: { limit: 100, used: 8 },
  },
  routers: ['main'],
  rights: { pairs: 'yes', portSecurity: 'yes' },
  ...changes,
});
