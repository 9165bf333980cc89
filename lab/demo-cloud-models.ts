// The claims of the demonstration of a cloud about each networking model: what the cloud drops, what it is made to allow, that packets
// pass then, and that all of it is taken back; proved on running containers and by what Neutron itself says.
import { Fault } from '#model/fault.ts';
import type { CheckOf } from './demo-check.ts';
import { type CloudDemo, cloudName, type OwnNetwork, tenantNetworks } from './demo-cloud.ts';
import { part, type Proof, type Witness } from './demo-witness.ts';
import { joinSwarm, leaveSwarm } from './swarm.ts';

type Check = CheckOf<CloudDemo>;

/** OVN takes a moment; BGP sessions that the cloud has dropped are begun again by TCP later and later. */
export const patienceMs = 180_000;
export const lost: Proof = part(/\b0 packets received, 100% packet loss/);
export const arrived: Proof = part(/2 packets received, 0% packet loss/);

interface PlanData {
  readonly steps: readonly { readonly object: string; readonly detail: readonly string[] }[];
  readonly needs: readonly { readonly network: string; readonly what: string; readonly without: string; readonly isAllowed: boolean }[];
  readonly problems: readonly string[];
}

interface Openings {
  /** What is to be open then, and nothing else. */
  readonly rules: readonly RegExp[];
  /** Of each port's one pair; absent where it has none. */
  readonly pair?: RegExp;
}

interface ModelCase extends Openings {
  readonly network: OwnNetwork;
  readonly title: string;
  readonly options: readonly string[];
  /** Of `cloud plan` and `cloud apply`. */
  readonly routes?: string;
}

const between = (what: string): RegExp[] => [`${what} in from members of causeway`, `${what} out to members of causeway`].map(whole);
const plain = (range: string): RegExp[] => [
  ...between('every protocol'),
  ...[`every protocol in from ${range}`, `every protocol out to ${range}`].map(whole),
];
function whole(text: string): RegExp {
  return new RegExp(`^${text}$`);
}

const models: readonly ModelCase[] = [
  {
    network: 'overlay',
    title: 'model overlay',
    options: ['--subnet', '10.90.0.0/24'],
    rules: between('UDP 8472'),
  },
  {
    network: 'encrypted',
    title: 'model overlay, encrypted',
    options: ['--encrypted', '--subnet', '10.91.0.0/24'],
    rules: between('UDP 5\\d{4}'),
  },
  {
    network: 'flannel',
    title: 'model flannel, by VXLAN',
    options: ['--model', 'flannel', '--subnet', '10.92.0.0/16'],
    rules: between('UDP 8472'),
  },
  {
    network: 'gateway',
    title: 'model flannel, by plain routes',
    options: ['--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.93.0.0/16'],
    rules: plain('10.93.0.0/16'),
    pair: whole('10.93.0.0/16'),
  },
  {
    network: 'calico',
    title: 'model calico, by BGP',
    options: ['--model', 'calico', '--subnet', '10.94.0.0/16'],
    rules: plain('10.94.0.0/16'),
    pair: whole('10.94.0.0/16'),
  },
  {
    network: 'routed',
    title: 'model routes, by the router of the hosts’ network',
    options: ['--model', 'routes', '--subnet', '10.97.0.0/16'],
    routes: 'main',
    rules: plain('10.97.0.0/16'),
    pair: /^10\.97\.\d+\.0\/24$/,
  },
];

export const cloudCommand = (...argv: readonly string[]): string[] => ['cloud', ...argv, '--cloud', cloudName];

export function ping(
  site: CloudDemo,
  witness: Witness,
  { network, address, proof }: { network: OwnNetwork; address: string; proof: Proof },
): Promise<void> {
  return witness.container(site.bed.host(1), `${network}1`, ['ping', '-c2', '-W1', address], proof, patienceMs);
}

/** Runs `causeway` and shows the decisive part of what it says as JSON. */
export async function ask(site: CloudDemo, witness: Witness, argv: readonly string[], seen: (data: PlanData) => string): Promise<PlanData> {
  const { stdout, stderr, status } = await site.causeway(...argv, '--output', 'json');
  const command = `causeway ${argv.join(' ')}`;
  if (status !== 0) {
    witness.see('controller', command, `exit status ${status}: ${stderr}${stdout}`.slice(0, 300));
    throw new Fault('internal', 'This should have worked');
  }
  const data = JSON.parse(stdout) as PlanData;
  witness.see('controller', command, seen(data));
  return data;
}

export const stepsSeen = ({ steps }: PlanData): string =>
  steps.length === 0 ? 'nothing to do' : steps.map(({ object, detail }) => `${object}: ${detail.join('; ')}`).join(' | ');
export const apply = (site: CloudDemo, witness: Witness, ...more: readonly string[]): Promise<PlanData> =>
  ask(site, witness, cloudCommand('apply', '--yes', ...more), ({ steps }) => `${steps.length} steps`);

/** What the networks need, and why it does not pass as long as it is not allowed. */
const needsSeen = ({ needs }: PlanData): string =>
  needs.map(({ what, without, isAllowed }) => (isAllowed ? `allowed: ${what}` : `not allowed: ${what}: ${without}`)).join('; ');

/** Before: dropped. Then exactly what the model needs is opened, it passes, and all is taken back. */
const modelCheck = ({ network, title, options, routes, rules, pair }: ModelCase): Check => ({
  title: `${title}: nothing passes before cloud apply, and after it by ${rules.length} rules, ${pair === undefined ? 'no address pair' : 'one address pair a port'}`,
  async prove(site, witness) {
    const more = routes === undefined ? [] : ['--routes', routes];
    try {
      await site.makeNetwork(network, options);
      witness.see('controller', `causeway network create ${[network, ...options].join(' ')}`, `${network}1 on node1, ${network}2 on node2`);
      const address = await site.bed.addressOf(2, network);
      await ask(site, witness, cloudCommand('plan', ...more), needsSeen);
      await ping(site, witness, { network, address, proof: lost });
      await apply(site, witness, ...more);
      await seeOpened(site, witness, { rules, ...(pair === undefined ? {} : { pair }) });
      if (routes !== undefined) witness.see('Neutron', `routes of router ${routes}`, (await site.routes()).join(', '));
      await ping(site, witness, { network, address, proof: arrived });
    } finally {
      await site.removeNetwork(network);
      await site.bed.causeway('cloud', 'apply', '--yes', ...more);
    }
    await seeNothing(site, witness, `causeway network rm ${network}; causeway ${cloudCommand('apply', ...more).join(' ')}`);
  },
});

async function seeOpened(site: CloudDemo, witness: Witness, { rules, pair }: Openings): Promise<void> {
  const opened = await site.opened();
  witness.see('Neutron', 'rules of security group causeway', `${opened.rules.length}: ${opened.rules.join('; ')}`);
  witness.see(
    'Neutron',
    'allowed address pairs of both ports',
    opened.pairs.map((some) => (some.length === 0 ? 'none' : some.join(', '))).join(' / '),
  );
  const isExact =
    opened.rules.length === rules.length &&
    rules.every((rule) => opened.rules.some((one) => rule.test(one))) &&
    opened.pairs.every((some) => (pair === undefined ? some.length === 0 : some.length === 1 && some.every((one) => pair.test(one))));
  if (!isExact)
    throw new Fault(
      'internal',
      `Not what was expected: ${rules.map(({ source }) => source).join('; ')} and pairs ${pair?.source ?? 'none'}`,
    );
}

const tenantRange = '10.98.0.0/24';

const tenants: Check = {
  title: 'the carriage of contiv: networks of two tenants with one range, kept apart, by the same two rules',
  async prove(site, witness) {
    try {
      for (const tenant of tenantNetworks) {
        await site.bed.causeway('tenant', 'create', tenant);
        await site.makeNetwork(tenant, ['--tenant', tenant, '--subnet', tenantRange]);
        witness.see(
          'controller',
          `causeway network create ${tenant} --tenant ${tenant} --subnet ${tenantRange}`,
          `${tenant}1 on node1, ${tenant}2 on node2`,
        );
      }
      const address = await site.bed.addressOf(2, 'red');
      if (address !== (await site.bed.addressOf(2, 'blue'))) throw new Fault('internal', 'red2 and blue2 should have the same address');
      await ping(site, witness, { network: 'red', address, proof: lost });
      await apply(site, witness);
      await seeOpened(site, witness, { rules: between('UDP 8472') });
      for (const network of tenantNetworks) await ping(site, witness, { network, address, proof: arrived });
      await site.bed.docker(2, 'rm', '--force', 'blue2');
      witness.see('node2', 'docker rm --force blue2', 'red2, which has the same address, runs on');
      await ping(site, witness, { network: 'blue', address, proof: lost });
      await ping(site, witness, { network: 'red', address, proof: arrived });
    } finally {
      for (const tenant of tenantNetworks) {
        await site.removeNetwork(tenant);
        await site.removeTenant(tenant);
      }
      await site.bed.causeway('cloud', 'apply', '--yes');
    }
    await seeNothing(site, witness, `causeway network rm red blue; causeway ${cloudCommand('apply').join(' ')}`);
  },
};

const swarmOptions = ['--model', 'swarm', '--attachable'];
const swarmRules = [...between('UDP 4789'), ...between('UDP 7946'), ...between('TCP 7946'), ...between('TCP 2377')];

const swarm: Check = {
  title: 'model swarm, Docker’s own overlay: engines meet and packets pass by what cloud apply allows',
  async prove(site, witness) {
    const { bed } = site;
    const engines = [bed.host(1), bed.host(2)];
    try {
      await joinSwarm(engines.slice(0, 1));
      await bed.causeway('network', 'create', 'built', ...swarmOptions);
      await bed.untilKnown(1, 'built');
      witness.see('controller', `causeway network create built ${swarmOptions.join(' ')}`, 'an overlay network of the engine on node1');
      await ask(site, witness, cloudCommand('plan'), needsSeen);
      await apply(site, witness);
      await seeOpened(site, witness, { rules: swarmRules });
      await joinSwarm(engines);
      witness.see('node2', `docker swarm join ${bed.host(1).address}:2377`, 'node2 is ready');
      for (const index of [1, 2]) await bed.runFirst(index, `built${index}`, 'built');
      const address = await bed.addressOf(2, 'built');
      await ping(site, witness, { network: 'built', address, proof: arrived });
      await ask(site, witness, cloudCommand('destroy', '--yes'), ({ steps }) => `${steps.length} steps`);
      await ping(site, witness, { network: 'built', address, proof: lost });
      // Engines that do not hear each other cannot leave their Swarm.
      await apply(site, witness);
    } finally {
      await site.removeNetwork('built');
      await leaveSwarm(engines);
      await bed.causeway('cloud', 'apply', '--yes');
    }
    await seeNothing(site, witness, `causeway network rm built; causeway ${cloudCommand('apply').join(' ')}`);
  },
};

export async function seeNothing(site: CloudDemo, witness: Witness, command: string): Promise<void> {
  const { counts } = await site.opened();
  witness.see('controller', command, `Neutron holds what it held before: ${counts}`);
  if (counts !== site.before) throw new Fault('internal', `Before there were ${site.before}`);
}

export const modelChecks: readonly Check[] = [...models.map(modelCheck), tenants, swarm];
/** One model that needs rules only, and one that needs address pairs, too. */
export const shortChecks: readonly Check[] = models.filter(({ network }) => network === 'overlay' || network === 'gateway').map(modelCheck);
