// `causeway magnum network`: Causeway as the network of a cluster of Magnum, as its template's and its own labels say it. An upgrade
// begins only where all is well, and goes back to what was there when it does not become well again.
import type { Magnum } from '#cloud/magnum.ts';
import { type ClusterNetwork, networkOf } from '#cloud/magnum-network.ts';
import type { MagnumCluster } from '#cloud/magnum-schemas.ts';
import { Fault, isFault } from '#model/fault.ts';
import * as v from 'valibot';
import { done, seconds } from './command.ts';
import { renderChart } from './helm-chart.ts';
import { Kubectl } from './kubectl.ts';
import { kubeconfigOf } from './magnum-kubeconfig.ts';
import {
  type CloudOptions,
  healthText,
  inMagnum,
  networkOfCluster,
  settled,
  teller,
  tellNotes,
  waitFor,
  type Waiting,
} from './magnum-session.ts';
import type { Answer, Session } from './session.ts';

export interface InstallOptions extends CloudOptions {
  readonly timeout: string;
}
export interface UpgradeOptions extends InstallOptions {
  readonly template?: string;
}

const agents = 'daemonset/causeway-agent';
const controllers = 'deployment/causeway-controller';
const inSystem = '--namespace=kube-system';
/** For what Magnum does itself, and for going back, which is not given up because an upgrade had little time. */
const magnumsTime = '60m';
const backTime = '5m';
/** At least. Magnum looks once a minute, and what it says may be of before. */
const healthTime = '3m';
/** By the names that their own manifests give their pods' sets. */
const others = /^(kube-flannel|calico-node|canal|cilium$|weave-net)/;

const versions = v.object({ serverVersion: v.object({ gitVersion: v.string() }) });
const setList = v.object({ items: v.array(v.object({ metadata: v.object({ name: v.string() }) })) });
const nodeList = v.object({
  items: v.array(
    v.object({
      metadata: v.object({ name: v.string() }),
      status: v.object({ conditions: v.optional(v.array(v.object({ type: v.string(), status: v.string() })), []) }),
    }),
  ),
});
const read = <T>(schema: v.GenericSchema<unknown, T>, text: string): T => v.parse(v.pipe(v.string(), v.parseJson(), schema), text);

/** Documents of the chart for this cluster, without what has to wait for them. */
const documentsFor = (cluster: MagnumCluster, { values }: ClusterNetwork, kubeVersion: string): string =>
  renderChart({ ...values, apiServer: cluster.api ?? '' }, kubeVersion).join('\n---\n');

export const install = (session: Session, [name = '']: readonly string[], options: InstallOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const cluster = await magnum.cluster(name);
    const network = await networkOfCluster(magnum, cluster);
    using kubectl = await loginTo(magnum, cluster);
    const there = (await setsOf(kubectl)).find((set) => set === 'causeway-agent' || others.test(set));
    if (there !== undefined) {
      const isOurs = there === 'causeway-agent';
      throw new Fault('exists', `Cluster ${cluster.name} has a network already: ${there}`, {
        hint: isOurs
          ? `Use "causeway magnum network upgrade ${cluster.name}"`
          : 'Remove it first; docs/flannel.md says how flannel is taken over',
      });
    }
    const tell = begin(session, network);
    await apply(kubectl, cluster, network);
    await becomesWell(kubectl, options.timeout, tell);
    return healthAnswer(session, magnum, { cluster, network, timeout: options.timeout, verb: 'is installed in' });
  });

export const upgrade = (session: Session, [name = '']: readonly string[], options: UpgradeOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const before = await magnum.cluster(name);
    using kubectl = await loginTo(magnum, before);
    if (!(await setsOf(kubectl)).includes('causeway-agent')) {
      throw new Fault('not-found', `Causeway is not the network of cluster ${before.name}`, {
        hint: `Use "causeway magnum network install ${before.name}"`,
      });
    }
    const unwell = await complaint(kubectl);
    if (unwell !== undefined)
      throw new Fault('conflict', `Cluster ${before.name} is not well, and is not upgraded so: ${unwell}`, { hint: 'Repair that first' });
    const cluster = await withTemplate(session, magnum, { kubectl, cluster: before, options });
    const network = await networkOfCluster(magnum, cluster);
    begin(session, network);
    const revisions = await revisionsOf(kubectl);
    await apply(kubectl, cluster, network);
    return await followUpgrade(session, {
      kubectl,
      magnum,
      revisions,
      done: { cluster, network, timeout: options.timeout, verb: 'is upgraded in' },
    });
  });

function begin(session: Session, network: ClusterNetwork): (news: string) => void {
  tellNotes(session, network);
  const tell = teller(session, 'network');
  tell(`${network.values.model} by ${network.values.carry}`);
  return tell;
}

export interface Upgrade {
  readonly kubectl: Pick<Kubectl, 'run' | 'try'>;
  readonly magnum: Pick<Magnum, 'cluster'>;
  readonly revisions: Revisions;
  readonly done: Done;
}

/** To its end, or back. That Magnum cannot be asked is no reason to go back: nodes and pods are well by then. */
export async function followUpgrade(session: Session, { kubectl, magnum, revisions, done: what }: Upgrade): Promise<Answer> {
  try {
    await becomesWell(kubectl, what.timeout, teller(session, 'network'));
  } catch (error) {
    throw await goneBack(kubectl, revisions, error);
  }
  try {
    return await healthAnswer(session, magnum, what);
  } catch (error) {
    throw isFault(error, 'timeout') ? await goneBack(kubectl, revisions, error) : error;
  }
}

async function loginTo(magnum: Magnum, cluster: MagnumCluster): Promise<Kubectl> {
  if (
    !/^(CREATE|UPDATE|CHECK|RESUME|RESTORE|ROLLBACK|SNAPSHOT|ADOPT)_COMPLETE$/.test(cluster.status) &&
    cluster.status !== 'UPDATE_FAILED'
  ) {
    throw new Fault('conflict', `Cluster ${cluster.name} is not ready for it: ${cluster.status}`, {
      hint: `Look with "causeway magnum cluster show ${cluster.name}"`,
    });
  }
  return new Kubectl((await kubeconfigOf(magnum, cluster, { user: 'admin', group: 'system:masters' })).text);
}

/** Of all namespaces. */
async function setsOf(kubectl: Kubectl): Promise<string[]> {
  const said = await kubectl.run(['get', 'daemonsets', '--all-namespaces', '--output=json']);
  return read(setList, said).items.map(({ metadata }) => metadata.name);
}

interface Templating {
  readonly kubectl: Kubectl;
  readonly cluster: MagnumCluster;
  readonly options: UpgradeOptions;
}

interface Successor {
  /** Of the template. */
  readonly name: string;
  readonly network: ClusterNetwork;
}

/** Nodes and pods that run keep their addresses, so model and ranges stay. Fault `unsupported`, before Magnum has changed anything. */
export function checkSuccessor({ values }: ClusterNetwork, { name, network: { values: next } }: Successor): void {
  const about = ({ model, podCidrs }: typeof values): string => `model ${model} with pods in ${podCidrs.join(' and ')}`;
  if (about(values) === about(next)) return;
  throw new Fault('unsupported', `Template ${name} is of ${about(next)}, and the cluster of ${about(values)}`, {
    hint: 'Pods that run keep their addresses. Make a template with the same range, or another cluster',
  });
}

/** Magnum's own upgrade to another template, whose labels the cluster has then. */
async function withTemplate(session: Session, magnum: Magnum, { kubectl, cluster, options }: Templating): Promise<MagnumCluster> {
  if (options.template === undefined) return cluster;
  const template = await magnum.template(options.template);
  const { id, name } = template;
  if (id === cluster.template) return cluster;
  const network = networkOf(template);
  checkSuccessor(await networkOfCluster(magnum, cluster), { name, network });
  await checkSecret(kubectl, network);
  session.waitingFor = `Magnum, which upgrades the cluster to template ${name}`;
  await magnum.upgradeCluster(cluster.id, id);
  return settled(session, magnum, { id: cluster.id, timeout: magnumsTime, isBegun: (found) => found.template === id });
}

/** Controllers' pods would wait for it. Fault `not-found`, before anything is changed. */
export async function checkSecret(kubectl: Upgrade['kubectl'], { values: { cloud } }: ClusterNetwork): Promise<void> {
  if (cloud === undefined) return;
  const { status, stderr } = await kubectl.try(['get', 'secret', inSystem, String(cloud['secret'])]);
  if (status === 0) return;
  if (!/not ?found/i.test(stderr)) throw new Fault('unavailable', `kubectl get secret: ${stderr}`);
  throw new Fault(
    'not-found',
    `There is no Secret ${cloud['secret']} in the namespace kube-system, which label causeway_cloud_secret names`,
    {
      field: 'labels.causeway_cloud_secret',
      hint: `kubectl ${inSystem} create secret generic ${cloud['secret']} --from-file=clouds.yaml`,
    },
  );
}

async function apply(kubectl: Kubectl, cluster: MagnumCluster, network: ClusterNetwork): Promise<void> {
  await checkSecret(kubectl, network);
  const { serverVersion } = read(versions, await kubectl.run(['version', '--output=json']));
  await kubectl.run(['apply', '--filename=-'], documentsFor(cluster, network, serverVersion.gitVersion));
  if (network.objects.length === 0) return;
  await becomeDefined(kubectl);
  await kubectl.run(['apply', '--filename=-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items: network.objects }));
}

/**
 * Until objects of every definition can be made. Asked again and again: kubectl refuses to wait for a definition of this very moment,
 * which has no conditions yet. Fault `timeout`.
 */
async function becomeDefined(kubectl: Kubectl): Promise<void> {
  let said = '';
  await waitFor(
    { timeout: '60s', intervalMs: 200 },
    () => said,
    async () => {
      const { status, stderr } = await kubectl.try([
        'wait',
        '--for=condition=Established',
        'customresourcedefinition',
        '--all',
        '--timeout=5s',
      ]);
      said = stderr;
      return status === 0 ? true : undefined;
    },
  );
}

/** What is not as it should be, in words. */
async function complaint(kubectl: Upgrade['kubectl']): Promise<string | undefined> {
  for (const what of [agents, controllers]) {
    const { status, stdout, stderr } = await kubectl.try(['rollout', 'status', inSystem, what, '--watch=false']);
    if (status !== 0 && !/not ?found/i.test(stderr)) return stderr;
    if (/^Waiting/i.test(stdout)) return stdout.split('\n')[0];
  }
  const { items } = read(nodeList, await kubectl.run(['get', 'nodes', '--output=json']));
  const unready = items.filter(({ status }) => !status.conditions.some((one) => one.type === 'Ready' && one.status === 'True'));
  return unready.length === 0 ? undefined : `not ready: ${unready.map(({ metadata }) => metadata.name).join(', ')}`;
}

/** Agents on all nodes, controllers, and nodes that are ready. Fault `timeout`. */
async function becomesWell(kubectl: Upgrade['kubectl'], timeout: string, tell: (news: string) => void): Promise<void> {
  let seen: string | undefined = 'not begun';
  await waitFor(
    { timeout, intervalMs: 1000 },
    () => seen ?? 'all is well',
    async () => {
      seen = await complaint(kubectl);
      tell(seen ?? 'every node is ready');
      return seen === undefined ? true : undefined;
    },
  );
}

type Revisions = ReadonlyMap<string, number>;

/** Of what is there, the newest. To undo without one would undo the upgrade before, where this one has changed no pods. */
async function revisionsOf(kubectl: Kubectl): Promise<Revisions> {
  const found = new Map<string, number>();
  for (const what of [agents, controllers]) {
    const { status, stdout, stderr } = await kubectl.try(['rollout', 'history', inSystem, what]);
    const numbers = [...stdout.matchAll(/^\d+/gm)].map(([number]) => Number(number));
    if (numbers.length > 0) found.set(what, Math.max(...numbers));
    else if (status === 0 || !/not ?found/i.test(stderr)) throw new Fault('unavailable', `kubectl rollout history: ${stderr}${stdout}`);
  }
  return found;
}

/** Puts the pods back that were there before; what is thrown then. */
async function goneBack(kubectl: Upgrade['kubectl'], revisions: Revisions, cause: unknown): Promise<Fault> {
  const why = cause instanceof Error ? cause.message : String(cause);
  for (const [what, revision] of revisions) await kubectl.try(['rollout', 'undo', inSystem, what, `--to-revision=${revision}`]);
  for (const what of revisions.keys()) {
    const { status, stderr } = await kubectl.try(['rollout', 'status', inSystem, what, `--timeout=${backTime}`]);
    if (status !== 0)
      return new Fault('unavailable', `The upgrade failed (${why}), and so did going back: ${stderr}`, {
        hint: `kubectl ${inSystem} describe ${what}`,
        cause,
      });
  }
  return new Fault('unavailable', `The upgrade was taken back, as the cluster did not become well: ${why}`, {
    hint: 'Pods were connected all the time. Mend what the message says, and upgrade again',
    cause,
  });
}

interface Done extends Waiting {
  /** As it was before. */
  readonly cluster: MagnumCluster;
  readonly network: ClusterNetwork;
  readonly verb: string;
  readonly leastHealthTime?: string;
}

/**
 * When Magnum has seen it as well, where it looks at all: it does not where it cannot reach the cluster. Of a look that finds what the
 * one before has found nothing can be told: Magnum writes nothing down then.
 */
async function healthAnswer(session: Session, magnum: Upgrade['magnum'], { cluster, network, verb, ...waiting }: Done): Promise<Answer> {
  const least = waiting.leastHealthTime ?? healthTime;
  const timeout = seconds(waiting.timeout, 'timeout') < seconds(least, 'timeout') ? least : waiting.timeout;
  const tell = teller(session, 'health');
  let seen = healthText(cluster);
  const before = seen;
  let isNew = false;
  const { health, healthReason } = await waitFor(
    { ...waiting, timeout },
    () => `Magnum says ${seen}`,
    async () => {
      const found = await magnum.cluster(cluster.id);
      seen = healthText(found);
      isNew ||= seen !== before;
      tell(seen);
      return found.health === 'UNHEALTHY' ? undefined : found;
    },
  );
  return done(
    { cluster: cluster.name, health: health ?? null, healthReason, causeway: network },
    cluster.name,
    `Causeway ${verb} cluster ${cluster.name}; Magnum says ${seen}${!isNew && health !== undefined ? ', as before: it looks once a minute' : ''}.`,
  );
}
