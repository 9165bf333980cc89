// `causeway cloud`: what an OpenStack cloud must allow so that the networks work: shown as a plan, applied, and taken back. What is
// needed comes from the controller or from a Kubernetes cluster, what there is from the cloud; the login to it is the user's own and
// stays on this machine.
import { routersIn } from '#api/bgp-routers.ts';
import { readFirst, type ReadState, readState, type Scope } from '#cloud/reading.ts';
import { isBalancerStep } from '#cloud/balancer-steps.ts';
import { findCloud } from '#cloud/clouds.ts';
import { type Fallback, fallbackOf } from '#cloud/fallback.ts';
import { Neutron } from '#cloud/neutron.ts';
import { withPlace } from '#cloud/placing.ts';
import { type CloudPlan, type CloudState, planCloud, type Step } from '#cloud/plan.ts';
import type { QuotaUse } from '#cloud/quotas.ts';
import { mayWriteRoutes } from '#cloud/rights.ts';
import { sentence, viewOf } from '#cloud/sentences.ts';
import { CloudSession } from '#cloud/session.ts';
import { applyWhole } from '#cloud/settling.ts';
import { isVirtualStep } from '#cloud/virtual.ts';
import { type CloudFacts, checkName, emptyWish, type Wish, wishOf } from '#cloud/wish.ts';
import { Fault } from '#model/fault.ts';
import type { Command } from 'commander';
import { all } from './client.ts';
import { examples, type Group, integer, nothingDone } from './command.ts';
import { degradedExit } from './faults.ts';
import type { Answer, ClusterNeeds, Session } from './session.ts';
import { facts, type Look, paint, plain, table } from './table.ts';

interface Options {
  readonly cloud?: string;
  readonly name: string;
  readonly network?: string;
  readonly routes?: string;
  readonly provider?: string;
  readonly maxSharedLb?: number;
  readonly yes?: true;
  /** A file; true: kubectl's own. */
  readonly kubernetes?: string | true;
  readonly kubeContext?: string;
  readonly allBalancers?: true;
  readonly classes?: string;
}

async function factsOf(session: Session): Promise<CloudFacts> {
  const client = await session.client();
  const [hosts, networks, pools, blocks, endpoints, exposures, bgp] = await Promise.all([
    all(client, 'hosts'),
    all(client, 'networks'),
    all(client, 'pools'),
    all(client, 'blocks'),
    all(client, 'endpoints'),
    all(client, 'exposures'),
    all(client, 'bgp'),
  ]);
  return { hosts, networks, pools, blocks, endpoints, exposures, routers: routersIn(bgp) };
}

interface Work {
  readonly neutron: Neutron;
  readonly read: ReadState;
  readonly place: string;
  /** What is waited for from when it is known what is needed. */
  readonly waitingFor: string;
}

/** Logs in and hands over; the connection ends with the work. */
async function inCloud(session: Session, options: Options, work: (work: Work) => Promise<Answer>): Promise<Answer> {
  checkName(options.name);
  const cloud = await findCloud(session.surroundings.cloud, options.cloud);
  const waitingFor = `the cloud at ${cloud.authUrl}`;
  session.waitingFor = waitingFor;
  await using login = new CloudSession(cloud);
  const { project } = await login.token();
  const neutron = new Neutron(login);
  const { network, routes: router, provider, maxSharedLb: mostShared } = options;
  const scope: Scope = { network, router, provider, mostShared };
  const place = `project ${project.name} of ${cloud.name === 'environment' ? cloud.authUrl : `cloud ${cloud.name}`}`;
  return await work({ neutron, place, waitingFor, read: (sought) => readState(neutron, scope, sought) });
}

interface Wished extends ClusterNeeds {
  readonly wish: Wish;
}

/** Fault `unavailable` as long as nothing is known of any host: to wish for nothing then would take everything back. */
async function wished(session: Session, { name, kubernetes, kubeContext: context, allBalancers, classes }: Options): Promise<Wished> {
  if (kubernetes !== undefined) session.waitingFor = 'the Kubernetes API';
  const kubeconfig = kubernetes === true ? undefined : kubernetes;
  const needs =
    kubernetes === undefined
      ? { facts: await factsOf(session), problems: [] }
      : await session.surroundings.cluster({ kubeconfig, context, allBalancers: allBalancers === true, classes });
  const wish = wishOf(needs.facts, name);
  if (wish.ports.length > 0) return { ...needs, wish };
  const who = kubernetes === undefined ? 'No host has told its address yet' : 'No node of the cluster has told its network yet';
  throw new Fault('unavailable', `${who}, so nothing is known to be needed`, {
    hint: 'Wait for the agents; to take everything back use "causeway cloud destroy"',
  });
}

interface Found {
  readonly needed: Wished;
  readonly state: CloudState;
  readonly fallback: Fallback | undefined;
}

/** What is needed, and the cloud. How nodes of a Kubernetes cluster carry is for their agents to say. */
async function lookAt(session: Session, options: Options, { neutron, read, waitingFor }: Work): Promise<Found> {
  const { kubernetes, name } = options;
  const needed = await wished(session, options);
  session.waitingFor = waitingFor;
  const state = await read(needed.wish);
  const fallback = kubernetes === undefined ? await fallbackOf({ neutron, facts: needed.facts, name }, state) : undefined;
  return { needed, state, fallback };
}

const plan = (session: Session, _: readonly string[], options: Options): Promise<Answer> =>
  inCloud(session, options, async (work) => {
    const { needed, state, fallback } = await lookAt(session, options, work);
    const planned = planCloud(needed.wish, state);
    const rights = await routerTroubles(work.neutron, planned.steps);
    const problems = [...planned.problems, ...needed.problems, ...rights, ...(fallback === undefined ? [] : [fallbackText(fallback)])];
    return planAnswer({ ...planned, problems }, work.place);
  });

async function routerTroubles(neutron: Neutron, steps: readonly Step[]): Promise<string[]> {
  const troubles: string[] = [];
  for (const { router } of steps.filter((step) => step.type === 'change-routes'))
    if (!(await mayWriteRoutes(neutron, router)))
      troubles.push(`The login to the cloud may not write routes of router ${router.name || router.id}`);
  return troubles;
}

const fallbackText = ({ networks, because }: Fallback): string =>
  `${networks.map(({ name }) => name).join(', ')} cannot be carried as wanted: ${because}. A controller that keeps the cloud (--cloud) would carry this by vxlan`;

const apply = (session: Session, _: readonly string[], options: Options): Promise<Answer> =>
  inCloud(session, options, async (work) => {
    const { needed, state, fallback } = await lookAt(session, options, work);
    const problems = [...needed.problems, ...(fallback === undefined ? [] : [fallbackText(fallback)])];
    return carryOut(session, work, { ...needed, problems, options, state });
  });

const destroy = (session: Session, _: readonly string[], options: Options): Promise<Answer> =>
  inCloud(session, options, async (work) => {
    const wish = emptyWish(options.name);
    return carryOut(session, work, { wish, problems: [], options, state: await work.read(wish) });
  });

interface Order extends Omit<Wished, 'facts'> {
  readonly options: Options;
  /** The cloud, read a moment ago. */
  readonly state: CloudState;
}

async function carryOut(
  session: Session,
  { neutron, read: readAnew, place }: Work,
  { wish, problems, options, state, tellRouted }: Order,
): Promise<Answer> {
  const before = planCloud(wish, state);
  const question = [...before.steps.map(sentence), ...problems, `Do this in ${place}?`].map(plain).join('\n');
  if (before.steps.length > 0 && !(await session.confirm(question, options.yes))) return nothingDone;
  // Whoever is asked takes time.
  const read = readFirst(options.yes === true ? state : undefined, readAnew);
  const { steps, plan: found } = await applyWhole(neutron, wish, { read, told: (words) => (session.waitingFor = words) });
  const untold = (await tellRouted?.(found.routed)) ?? [];
  const after = { ...found, problems: [...found.problems, ...problems, ...untold] };
  // To take everything back no controller is needed, where no host has to be told.
  if (options.kubernetes === undefined && (wish.ports.length > 0 || steps.some((step) => isVirtualStep(step) || isBalancerStep(step))))
    await tellHosts(session, after);
  return {
    data: {
      place,
      steps: steps.map(stepData),
      quotas: after.quotas,
      ...standingData(after),
    },
    names: steps.map(sentence),
    status: after.problems.length > 0 ? degradedExit : 0,
    text: (look) =>
      [
        facts(look, [['Cloud', place]]),
        stepsText(look, steps, 'Nothing had to be changed.'),
        standingText(look, after),
        problemsText(look, after),
      ].join(''),
  };
}

/** Hosts learn by the exposures which addresses they may have, and from where load balancers come. */
async function tellHosts(session: Session, planned: CloudPlan): Promise<void> {
  const client = await session.client();
  for (const exposure of await client.all('exposures')) {
    const next = withPlace(exposure, planned);
    if (next !== exposure) await client.replace('exposures', next);
  }
}

function planAnswer(planned: CloudPlan, place: string): Answer {
  return {
    data: {
      place,
      steps: planned.steps.map(stepData),
      quotas: planned.quotas,
      forecast: planned.forecast,
      ...standingData(planned),
    },
    names: planned.steps.map(sentence),
    status: planned.problems.length > 0 ? degradedExit : 0,
    text: (look) =>
      [
        facts(look, [['Cloud', place]]),
        stepsText(look, planned.steps, 'Nothing has to be changed.'),
        standingText(look, planned),
        quotasText(look, planned.quotas),
        forecastText(planned),
        problemsText(look, planned),
      ].join(''),
  };
}

const stepData = (step: Step): object => ({ type: step.type, ...viewOf(step) });
const needData = ({ network, what, without, isAllowed }: CloudPlan['needs'][number]): object => ({ network, what, without, isAllowed });

const reachedData = ({ exposure, host, address }: CloudPlan['reached'][number]): object => ({
  exposure,
  host,
  ...(address === undefined ? {} : { address }),
});

const balancedData = ({ name, balancer, provider, address, notes }: CloudPlan['balanced'][number]): object => ({
  name,
  balancer,
  provider,
  address,
  notes,
});

const busyData = ({ name, provider, provisioning: state }: CloudPlan['busy'][number]): object => ({ name, provider, state });

/** How things stand by a plan. */
const standingData = ({ needs, reached, balanced, busy, problems }: CloudPlan): object => ({
  needs: needs.map(needData),
  exposures: reached.map(reachedData),
  balancers: balanced.map(balancedData),
  busy: busy.map(busyData),
  problems,
});

const standingText = (look: Look, planned: CloudPlan): string =>
  [needsText(look, planned), reachedText(look, planned), busyText(look, planned)].join('');

const section = (look: Look, title: string, body: string): string => `\n${paint(look, 'bold', title)}\n${body}`;

const stepsText = (look: Look, steps: readonly Step[], empty: string): string =>
  section(
    look,
    'Steps',
    table(
      look,
      steps.map(viewOf).flatMap(({ action, object, detail }) => detail.map((one, index) => ({ action, object, one, index }))),
      [
        { title: 'ACTION', value: ({ action, index }) => (index === 0 ? action : ' ') },
        { title: 'OBJECT', value: ({ object, index }) => (index === 0 ? object : ' ') },
        { title: 'WHAT', value: ({ one }) => one },
      ],
      empty,
    ),
  );

const needsText = (look: Look, { needs }: CloudPlan): string =>
  section(
    look,
    'What the networks need',
    table(
      look,
      needs,
      [
        { title: 'NETWORK', value: ({ network }) => network },
        { title: 'ALLOWED', value: ({ isAllowed }) => (isAllowed ? 'yes' : 'no'), style: ({ isAllowed }) => (isAllowed ? 'green' : 'red') },
        { title: 'NEEDS', value: ({ what }) => what },
        { title: 'WITHOUT IT', value: ({ without }) => without },
      ],
      'Nothing.',
    ),
  );

const reachedText = (look: Look, { reached }: CloudPlan): string =>
  reached.length === 0
    ? ''
    : section(
        look,
        'Exposures',
        table(look, reached, [
          { title: 'EXPOSURE', value: ({ exposure }) => exposure },
          { title: 'HOST', value: ({ host }) => host },
          { title: 'ADDRESS', value: ({ address }) => address ?? 'not yet' },
        ]),
      );

const busyText = (look: Look, { busy }: CloudPlan): string =>
  busy.length === 0
    ? ''
    : section(
        look,
        'Octavia is at work on',
        table(look, busy, [
          { title: 'LOAD BALANCER', value: ({ name }) => name },
          { title: 'PROVIDER', value: ({ provider }) => provider },
          { title: 'STATE', value: ({ provisioning }) => provisioning },
        ]),
      );

const limitText = (limit: number): string => (limit < 0 ? 'none' : String(limit));
const quotasText = (look: Look, quotas: readonly QuotaUse[]): string =>
  section(
    look,
    'Quotas',
    table(look, quotas, [
      { title: 'OF', value: ({ name }) => name.replaceAll('_', ' ') },
      { title: 'BEFORE', value: ({ before }) => String(before) },
      { title: 'AFTER', value: ({ after }) => String(after) },
      { title: 'LIMIT', value: ({ limit }) => limitText(limit) },
    ]),
  );

const forecastText = ({ forecast }: CloudPlan): string =>
  forecast === undefined
    ? ''
    : `  The ${forecast.left} ports that are left are enough for ${forecast.pools} more pools of ${forecast.poolSize} for hosts' containers.\n`;

const problemsText = (look: Look, { problems }: CloudPlan): string =>
  problems.length === 0 ? '' : section(look, 'Problems', problems.map((one) => `  ${plain(one)}\n`).join(''));

function withOptions(command: Command): Command {
  return command
    .option('--cloud <name>', 'cloud of clouds.yaml; otherwise OS_CLOUD or the other OS_* variables')
    .option('--name <name>', 'name of this installation, where one project holds several', 'causeway')
    .option('--network <network>', "only the hosts' ports on this Neutron network");
}

function withWish(command: Command): Command {
  return command
    .option('--routes <router>', 'give this router ways to containers, so that they are reached from its other networks')
    .option('--provider <name>', "of load balancers that name none: this provider of the cloud's Octavia; left out: ovn, else amphora")
    .option(
      '--kubernetes [kubeconfig]',
      "what a Kubernetes cluster needs, instead of a controller's networks; kubectl's kubeconfig unless named",
    )
    .option('--kube-context <name>', 'with --kubernetes: another context of the kubeconfig than the current one')
    .option('--all-balancers', 'with --kubernetes: also load balancers of services that name no class')
    .option('--max-shared-lb <number>', 'with --kubernetes: services that may share a load balancer; left out: 2', integer(1, 9999))
    .option('--classes <json>', 'with --kubernetes: classes that services may name by annotation');
}

export const group: Group = {
  build(cloud, act) {
    const planned = withWish(
      withOptions(
        cloud.command('plan').description('What the cloud allows, what it would have to, and what would be changed. Changes nothing.'),
      ),
    );
    act<Options>(
      examples(
        planned,
        'causeway cloud plan --cloud mycloud',
        'causeway cloud plan --cloud mycloud -o json',
        'causeway cloud plan --kubernetes',
      ),
      plan,
    );
    const applied = withWish(
      withOptions(cloud.command('apply').description('Make the cloud allow exactly what the networks need.')),
    ).option('-y, --yes', 'do not ask');
    act<Options>(
      examples(
        applied,
        'causeway cloud apply --cloud mycloud',
        'causeway cloud apply --cloud mycloud --routes main --yes',
        'causeway cloud apply --cloud mycloud --name web --kubernetes web.kubeconfig',
      ),
      apply,
    );
    const destroyed = withOptions(
      cloud.command('destroy').description('Remove everything of Causeway from the cloud; what others made stays.'),
    ).option('-y, --yes', 'do not ask');
    act<Options>(examples(destroyed, 'causeway cloud destroy --cloud mycloud', 'causeway cloud destroy --cloud mycloud --yes'), destroy);
  },
};
