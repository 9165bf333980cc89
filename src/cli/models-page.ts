// docs/openstack-models.md: the table by which `causeway plan` advises, for people. Compared by pages.test.ts, which writes it as it
// writes docs/cli.md.
import { judgeWay, type Needs } from '#cloud/advice.ts';
import {
  type AdvisedName,
  advisedModels,
  advisedNames,
  features,
  featureTexts,
  frontEndsText,
  isAvailable,
  summaryOf,
} from '#cloud/advice-table.ts';
import type { Survey } from '#cloud/survey.ts';

/** What the figures of the page are for: the usual Geneve below Neutron, and a scale that quotas are met by. */
const survey: Survey = {
  extensions: ['allowed-address-pairs', 'extraroute', 'security-group'],
  network: { name: 'hosts', mtu: 1442, families: [4], subnets: [], takesPorts: true },
  instances: 1,
  unguarded: 0,
  parents: 0,
  quotas: {},
  routers: ['main'],
  rights: { pairs: 'yes', portSecurity: 'yes', routes: 'yes' },
};
const scale: Needs = { features: ['addressable'], frontEnds: ['docker'], hosts: 100, containers: 2000, networks: 1 };

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`;
const header = (cells: readonly string[]): string => row(cells) + row(cells.map(() => '---'));

const costs = (name: AdvisedName): string =>
  advisedModels[name].ways
    .map((way) => {
      const { carry, bytesPerPacket, mtu, asks } = judgeWay(name, way, { survey, needs: scale });
      const figures = [bytesPerPacket, mtu.left, asks.rules, asks.pairs, asks.ports, asks.routes];
      return row([`\`${name}\``, carry, ...figures.map(String)]);
    })
    .join('');

function details(name: AdvisedName): string {
  const { traits, pros, cons } = advisedModels[name];
  const list = [
    ...features.map((feature) => `- ${feature}: ${traits[feature].has ? 'yes' : 'no'}; ${traits[feature].why}`),
    ...pros.map((text) => `- for: ${text}`),
    ...cons.map((text) => `- against: ${text}`),
  ];
  const there = isAvailable(name) ? '' : ' **Not in this version.**';
  return `### ${name}\n\n${summaryOf(name)}${there}\n\n${list.map((line) => `${line}\n`).join('')}`;
}

export function modelsPage(): string {
  return `# Models for an OpenStack cloud

Made from src/cloud/advice-table.ts; do not edit by hand.

\`causeway plan --cloud mycloud\` reads your cloud, takes your needs as options, and says which of these it recommends, with the reasons
for and against each and the figures for your scale against your quotas. It changes nothing, and no controller has to be there.

## What each gives

${header(['model', 'in this version', 'for', ...features])}${advisedNames
    .map((name) =>
      row([
        `\`${name}\``,
        isAvailable(name) ? 'yes' : 'no',
        frontEndsText(name),
        ...features.map((feature) => (advisedModels[name].traits[feature].has ? 'yes' : 'no')),
      ]),
    )
    .join('')}
${features.map((feature) => `- ${feature}: ${featureTexts[feature]}\n`).join('')}
## What each costs

For ${scale.hosts} hosts, ${scale.containers} containers and one network whose containers other instances reach, where that can be, on a Neutron network
with an MTU of ${survey.network.mtu} and IPv4. Security group rules, address pairs of each host's port, ports beside the hosts' own, and routes
of a router are what the cloud must have; bytes are what is added to a packet between hosts.

${header(['model', 'carried by', 'bytes', 'MTU left', 'rules', 'pairs', 'ports', 'routes'])}${advisedNames.map(costs).join('')}
## One by one

${advisedNames.map(details).join('\n')}`;
}
