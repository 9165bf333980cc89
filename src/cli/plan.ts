// `causeway plan`: which networking model suits a cloud and its user. What there is comes from the cloud, what is needed from the
// command line; no controller is asked, as this comes before one is there.
import { Option } from 'commander';
import { type Advice, advise, type Judgement, type Needs } from '#cloud/advice.ts';
import { type FrontEnd, type Feature, features, featureTexts } from '#cloud/advice-table.ts';
import { findCloud } from '#cloud/clouds.ts';
import { Neutron } from '#cloud/neutron.ts';
import { CloudSession } from '#cloud/session.ts';
import { readSurvey, type Right, type Survey } from '#cloud/survey.ts';
import { examples, type Group, integer } from './command.ts';
import { degradedExit } from './faults.ts';
import { commandsOf } from './plan-commands.ts';
import type { Answer, Session } from './session.ts';
import { facts, type Look, paint, table } from './table.ts';

interface Options extends Partial<Readonly<Record<Feature | FrontEnd, true>>> {
  readonly cloud?: string;
  readonly network?: string;
  readonly hosts?: number;
  readonly containers?: number;
  readonly networks: number;
}

const usualContainers = 20;

function needsOf(options: Options, instances: number): Needs {
  const asked = (['docker', 'kubernetes'] as const).filter((one) => options[one] === true);
  const hosts = options.hosts ?? Math.max(2, instances);
  return {
    features: features.filter((feature) => options[feature] === true),
    frontEnds: asked.length === 0 ? ['docker'] : asked,
    hosts,
    containers: options.containers ?? hosts * usualContainers,
    networks: options.networks,
  };
}

async function plan(session: Session, _: readonly string[], options: Options): Promise<Answer> {
  const cloud = await findCloud(session.surroundings.cloud, options.cloud);
  session.waitingFor = `the cloud at ${cloud.authUrl}`;
  await using login = new CloudSession(cloud);
  const { project } = await login.token();
  const survey = await readSurvey(login, new Neutron(login), options.network);
  const needs = needsOf(options, survey.instances);
  const advice = advise(survey, needs);
  const place = `project ${project.name} of ${cloud.name === 'environment' ? cloud.authUrl : `cloud ${cloud.name}`}`;
  const next = advice.recommended === undefined ? [] : commandsOf(advice.recommended, { survey, needs, cloud: options.cloud });
  return {
    data: { place, survey, needs, ...advice, next },
    names: advice.recommended === undefined ? [] : [advice.recommended.model],
    status: advice.recommended === undefined ? degradedExit : 0,
    text: (look) =>
      [surveyText(look, place, survey), needsText(look, needs), modelsText(look, advice), adviceText(look, advice, next)].join(''),
  };
}

const rightText = (right: Right, what: string): string => (right === 'unknown' ? `not known: no ${what} to try it on` : right);
const section = (look: Look, title: string, body: string): string => `\n${paint(look, 'bold', title)}\n${body}`;
/** Of the extensions those that a model may need. */
const telling = ['security-group', 'allowed-address-pairs', 'port-security', 'extraroute', 'trunk'];
const tellingQuotas = ['port', 'security_group', 'security_group_rule', 'router', 'floatingip', 'trunk'];

function surveyText(look: Look, place: string, survey: Survey): string {
  const { network, instances, unguarded, routers, balancers, rights, extensions, quotas } = survey;
  const missing = telling.filter((alias) => !extensions.includes(alias));
  const has = telling.filter((alias) => extensions.includes(alias)).join(', ');
  const ips = network.families.map((family) => `IPv${family}`).join(' and ') || 'no subnet';
  const mtu = network.mtu === 0 ? 'MTU not told' : `MTU ${network.mtu}`;
  const guard = unguarded === 0 ? 'port security on' : `port security off on ${unguarded} of their ports`;
  const head = facts(look, [
    ['Cloud', place],
    ['Hosts on', `network ${network.name}: ${mtu}, ${network.type ?? 'type told to administrators only'}, ${ips}`],
    ['Instances', instances === 0 ? 'none there' : `${instances}, ${guard}`],
    ['May write pairs', rightText(rights.pairs, 'instance')],
    ['May turn port security off', rightText(rights.portSecurity, 'instance')],
    ['May write routes', rightText(rights.routes, 'router')],
    ["May choose ports' addresses", network.takesPorts ? 'yes' : "no: the network is another project's"],
    ['Routers', routers.join(', ') || 'none'],
    ['Load balancers', balancers === undefined ? 'no Octavia' : `Octavia with ${balancers.join(', ') || 'no provider'}`],
    ['Extensions', `${has}${missing.length === 0 ? '' : `; not ${missing.join(', ')}`}`],
  ]);
  const rows = tellingQuotas.flatMap((name) => {
    const quota = quotas[name];
    return quota === undefined ? [] : [{ name, ...quota }];
  });
  const columns = [
    { title: 'QUOTA OF', value: ({ name }: { name: string }) => name.replaceAll('_', ' ') },
    { title: 'USED', value: ({ used }: { used: number }) => String(used) },
    { title: 'LIMIT', value: ({ limit }: { limit: number }) => (limit < 0 ? 'none' : String(limit)) },
  ];
  return `${head}\n${table(look, rows, columns, 'The cloud does not tell quotas.')}`;
}

const plural = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;

function needsText(look: Look, { features: wanted, frontEnds, hosts, containers, networks }: Needs): string {
  const names = frontEnds.map((one) => (one === 'docker' ? 'Docker' : 'Kubernetes')).join(' and ');
  const scale = `${plural(hosts, 'host')}, ${plural(containers, 'container')}, ${plural(networks, 'network')}`;
  const lines = [`  ${names}: ${scale}\n`, ...wanted.map((feature) => `  ${feature}: ${featureTexts[feature]}\n`)];
  return section(look, 'Asked for', lines.join(''));
}

const canBe = ({ obstacles }: Judgement): boolean => obstacles.length === 0;

function modelsText(look: Look, { models }: Advice): string {
  const summary = table(look, models, [
    { title: 'MODEL', value: ({ model }) => model },
    { title: 'CARRIED BY', value: ({ carry }) => carry },
    { title: 'HERE', value: (one) => (canBe(one) ? 'yes' : 'no'), style: (one) => (canBe(one) ? 'green' : 'red') },
    { title: 'BYTES/PACKET', value: ({ bytesPerPacket }) => String(bytesPerPacket) },
    { title: 'MTU LEFT', value: ({ mtu }) => String(mtu.left) },
    { title: 'RULES', value: ({ asks }) => String(asks.rules) },
    { title: 'PAIRS/PORT', value: ({ asks }) => String(asks.pairs) },
    { title: 'PORTS', value: ({ asks }) => String(asks.ports) },
    { title: 'ROUTES', value: ({ asks }) => String(asks.routes) },
  ]);
  const reasons = models.map((one) => {
    const lines = [
      ...one.obstacles.map((text) => paint(look, 'red', `  cannot be: ${text}`)),
      ...one.pros.map((text) => `  for:       ${text}`),
      ...one.cons.map((text) => `  against:   ${text}`),
    ];
    return `${paint(look, 'bold', one.model)}  ${one.summary}\n${lines.map((line) => `${line}\n`).join('')}`;
  });
  return section(look, 'Models', `${summary}\n${reasons.join('\n')}`);
}

function adviceText(look: Look, { recommended, why }: Advice, next: readonly string[]): string {
  if (recommended === undefined) {
    return section(look, 'Recommended', `  None. ${why}: see what each cannot be for, and leave out a need or ask for a right.\n`);
  }
  const { model, carry } = recommended;
  return section(look, 'Recommended', `  ${model}, carried by ${carry}: ${why}.\n\n${next.map((line) => `    ${line}\n`).join('')}`);
}

export const group: Group = {
  build(command, act) {
    command
      .option('--cloud <name>', 'cloud of clouds.yaml; otherwise OS_CLOUD or the other OS_* variables')
      .option('--network <network>', 'Neutron network that the hosts are on, where the project has several')
      .option('--docker', 'for Docker hosts (this is meant when nothing is said)')
      .option('--kubernetes', 'for the pods of Kubernetes');
    for (const feature of features) command.addOption(new Option(`--${feature}`, featureTexts[feature]));
    command
      .option('--hosts <count>', 'how many hosts; otherwise as many as there are instances, two at least', integer(1, 10_000))
      .option('--containers <count>', `on all hosts together; otherwise ${usualContainers} a host`, integer(1, 1_000_000))
      .option('--networks <count>', 'how many networks of containers', integer(1, 200), 1);
    act<Options>(
      examples(
        command,
        'causeway plan --cloud mycloud',
        'causeway plan --cloud mycloud --isolation --encryption --hosts 100 --containers 3000',
        'causeway plan --cloud mycloud --kubernetes --policy --addressable -o json',
      ),
      plan,
    );
  },
};
