// The claims of the demonstration of a cloud, each proved on running containers and by what Neutron itself says.
import { Fault } from '#model/fault.ts';
import type { CheckOf } from './demo-check.ts';
import { type CloudDemo, cloudName, frontName, type OwnNetwork } from './demo-cloud.ts';
import { lineWith, part, type Proof, type Witness } from './demo-witness.ts';
import { boxImage } from './images.ts';

type Check = CheckOf<CloudDemo>;

/** OVN takes a moment; BGP sessions that the cloud has dropped are begun again by TCP later and later. */
const patienceMs = 90_000;
const lost: Proof = part(/\b0 packets received, 100% packet loss/);
const arrived: Proof = part(/2 packets received, 0% packet loss/);

interface PlanData {
  readonly steps: readonly { readonly object: string; readonly detail: readonly string[] }[];
  readonly needs: readonly { readonly network: string; readonly what: string; readonly without: string; readonly isAllowed: boolean }[];
  readonly problems: readonly string[];
}

interface ModelCase {
  readonly network: OwnNetwork;
  readonly title: string;
  readonly options: readonly string[];
  /** What is to be open then, and nothing else. */
  readonly rules: readonly RegExp[];
  readonly pairs: readonly string[];
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
    pairs: [],
  },
  {
    network: 'encrypted',
    title: 'model overlay, encrypted',
    options: ['--encrypted', '--subnet', '10.91.0.0/24'],
    rules: between('UDP 5\\d{4}'),
    pairs: [],
  },
  {
    network: 'flannel',
    title: 'model flannel, by VXLAN',
    options: ['--model', 'flannel', '--subnet', '10.92.0.0/16'],
    rules: between('UDP 8472'),
    pairs: [],
  },
  {
    network: 'gateway',
    title: 'model flannel, by plain routes',
    options: ['--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.93.0.0/16'],
    rules: plain('10.93.0.0/16'),
    pairs: ['10.93.0.0/16'],
  },
  {
    network: 'calico',
    title: 'model calico, by BGP',
    options: ['--model', 'calico', '--subnet', '10.94.0.0/16'],
    rules: plain('10.94.0.0/16'),
    pairs: ['10.94.0.0/16'],
  },
];

const cloudCommand = (...argv: readonly string[]): string[] => ['cloud', ...argv, '--cloud', cloudName];

function ping(
  site: CloudDemo,
  witness: Witness,
  { network, address, proof }: { network: OwnNetwork; address: string; proof: Proof },
): Promise<void> {
  return witness.container(site.bed.host(1), `${network}1`, ['ping', '-c2', '-W1', address], proof, patienceMs);
}

/** Runs `causeway` and shows the decisive part of what it says as JSON. */
async function ask(site: CloudDemo, witness: Witness, argv: readonly string[], seen: (data: PlanData) => string): Promise<PlanData> {
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

const stepsSeen = ({ steps }: PlanData): string =>
  steps.length === 0 ? 'nothing to do' : steps.map(({ object, detail }) => `${object}: ${detail.join('; ')}`).join(' | ');
const apply = (site: CloudDemo, witness: Witness): Promise<PlanData> =>
  ask(site, witness, cloudCommand('apply', '--yes'), ({ steps }) => `${steps.length} steps`);

const realCloud: Check = {
  title: 'two instances on two hypervisors, port security on, and nothing let in',
  async prove({ bed }, witness) {
    for (const { host, port, hypervisor } of bed.instances) {
      const found = await bed.cloud.operator.get<Record<string, unknown>>('neutron', `/v2.0/ports/${port.id}`, 'port');
      const { 'binding:host_id': on, port_security_enabled: secure, status } = found;
      witness.see(
        'Neutron',
        `port of ${host.name} (${host.address})`,
        `on ${String(on)}, port security ${secure === true ? 'on' : 'off'}, ${String(status)}`,
      );
      if (secure !== true || on !== hypervisor.name) throw new Fault('internal', 'The port is not as it should be');
    }
    await witness.host(
      bed.host(1),
      ['ping', '-c2', '-W1', bed.host(2).address],
      part(/2 packets transmitted, 0 received.*100% packet loss/),
    );
  },
};

/** Before: dropped. Then exactly what the model needs is opened, it passes, and all is taken back. */
const modelCheck = ({ network, title, options, rules, pairs }: ModelCase): Check => ({
  title: `${title}: nothing passes before cloud apply, and after it by ${rules.length} rules, ${pairs.length === 0 ? 'no address pair' : 'one address pair a port'}`,
  async prove(site, witness) {
    try {
      await site.makeNetwork(network, options);
      witness.see('controller', `causeway network create ${[network, ...options].join(' ')}`, `${network}1 on node1, ${network}2 on node2`);
      const address = await site.bed.addressOf(2, network);
      await ask(site, witness, cloudCommand('plan'), ({ needs }) =>
        needs.map(({ what, isAllowed }) => `${isAllowed ? 'allowed' : 'not allowed'}: ${what}`).join('; '),
      );
      await ping(site, witness, { network, address, proof: lost });
      await apply(site, witness);
      await seeOpened(site, witness, { rules, pairs });
      await ping(site, witness, { network, address, proof: arrived });
    } finally {
      await site.removeNetwork(network);
      await site.bed.causeway('cloud', 'apply', '--yes');
    }
    await seeNothing(site, witness, `causeway network rm ${network}; causeway ${cloudCommand('apply').join(' ')}`);
  },
});

async function seeOpened(site: CloudDemo, witness: Witness, { rules, pairs }: Pick<ModelCase, 'rules' | 'pairs'>): Promise<void> {
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
    opened.pairs.every((some) => some.join() === pairs.join());
  if (!isExact)
    throw new Fault(
      'internal',
      `Not what was expected: ${rules.map(({ source }) => source).join('; ')} and pairs ${pairs.join() || 'none'}`,
    );
}

async function seeNothing(site: CloudDemo, witness: Witness, command: string): Promise<void> {
  const { counts } = await site.opened();
  witness.see('controller', command, `Neutron holds what it held before: ${counts}`);
  if (counts !== site.before) throw new Fault('internal', `Before there were ${site.before}`);
}

const range = '10.96.0.0/16';

const withdrawn: Check = {
  title: 'a permission withdrawn in Neutron breaks that network only, is explained, and is repaired',
  async prove(site, witness) {
    const [shop, other] = [await site.bed.addressOf(2, 'shop'), await site.bed.addressOf(2, 'plain')];
    await ping(site, witness, { network: 'plain', address: other, proof: arrived });
    await site.setPairs(2, []);
    witness.see('Neutron', `PUT /v2.0/ports/(node2’s) with no allowed address pairs`, `${range} withdrawn`);
    await ping(site, witness, { network: 'plain', address: other, proof: lost });
    await ping(site, witness, { network: 'shop', address: shop, proof: arrived });
    const { steps } = await ask(site, witness, cloudCommand('plan'), (data) =>
      [
        ...data.needs.filter(({ isAllowed }) => !isAllowed).map(({ network, without }) => `${network} not allowed: ${without}`),
        ...data.steps.map(({ object, detail }) => `to do: ${object.replace(/ \(.*/, '')} ${detail.join(', ')}`),
      ].join('; '),
    );
    if (steps.length !== 1) throw new Fault('internal', 'One step was expected');
    await ask(site, witness, cloudCommand('apply', '--yes'), stepsSeen);
    await ping(site, witness, { network: 'plain', address: other, proof: arrived });
  },
};

export const hostPort = 8080;
const unexposedPort = 8081;
const get = (address: string, port: number): string[] => ['busybox', 'wget', '-T', '2', '-qO-', `http://${address}:${port}/`];
const unreached: Proof = lineWith(/timed out|unreachable|refused/i);

const serve = (text: string, port: number): string =>
  `mkdir -p /run/page; echo ${text} >/run/page/index.html; exec busybox httpd -f -p ${port} -h /run/page`;

/** A page in a container of network shop, and another one on the instance itself that nobody has exposed. */
async function servePages({ bed }: CloudDemo): Promise<void> {
  const host = bed.host(1);
  if ((await bed.docker(1, 'ps', '--quiet', '--filter', `name=^${frontName}$`)) === '') {
    await bed.docker(1, 'rm', '--force', frontName);
    await bed.docker(
      1,
      'run',
      '--detach',
      '--init',
      '--name',
      frontName,
      '--network',
      'shop',
      boxImage.name,
      'sh',
      '-c',
      serve('goods', 80),
    );
  }
  await host.startService({ name: 'page', argv: ['sh', '-c', serve('internal', unexposedPort)], env: {} });
}

const exposed: Check = {
  title: 'an exposed port is reached from outside by a floating IP, another one that listens is not',
  async prove(site, witness) {
    const { bed } = site;
    const { outside } = bed.cloud.lab;
    await servePages(site);
    const address = await site.floatingIp();
    await site.causeway('exposure', 'rm', '--yes', frontName);
    await bed.causeway('cloud', 'apply', '--yes');
    const expose = ['expose', 'shop', frontName, '80', '--host-port', String(hostPort), '--name', frontName];
    await witness.other(
      { where: 'controller', command: `causeway ${expose.join(' ')}`, ask: () => site.causeway(...expose) },
      (said) => (said.startsWith('Error') ? undefined : said.split('\n')[0]),
      patienceMs,
    );
    await witness.host(outside, get(address, hostPort), unreached);
    await ask(site, witness, cloudCommand('apply', '--yes'), stepsSeen);
    await witness.host(outside, get(address, hostPort), lineWith(/^goods$/), patienceMs);
    await witness.host(bed.host(1), get('127.0.0.1', unexposedPort), lineWith(/^internal$/), patienceMs);
    await witness.host(outside, get(address, unexposedPort), unreached);
  },
};

const destroyed: Check = {
  title: 'cloud destroy leaves nothing, and closes what was open',
  async prove(site, witness) {
    const { outside } = site.bed.cloud.lab;
    const address = await site.floatingIp();
    try {
      await ask(site, witness, cloudCommand('destroy', '--yes'), ({ steps }) => `${steps.length} steps`);
      await seeNothing(site, witness, 'GET /v2.0/security-groups, /v2.0/ports');
      await ping(site, witness, { network: 'shop', address: await site.bed.addressOf(2, 'shop'), proof: lost });
      await witness.host(outside, get(address, hostPort), unreached, patienceMs);
    } finally {
      await apply(site, witness);
    }
  },
};

/** Networks that stay, for the checks after those of the models and for the user. */
export async function makeLasting(site: CloudDemo): Promise<void> {
  await site.makeNetwork('shop', ['--subnet', '10.95.0.0/24']);
  await site.makeNetwork('plain', ['--model', 'flannel', '--carry', 'host-gateway', '--subnet', range]);
  await site.bed.causeway('cloud', 'apply', '--yes');
}

const modelChecks: readonly Check[] = models.map(modelCheck);
/** One model that needs rules only, and one that needs address pairs, too. */
const shortModels: readonly OwnNetwork[] = ['overlay', 'gateway'];
export const firstChecks = (isQuick: boolean): readonly Check[] => [
  realCloud,
  ...modelChecks.filter((_, index) => !isQuick || shortModels.some((name) => name === models[index]?.network)),
];
export const lastingChecks: readonly Check[] = [withdrawn, exposed, destroyed];
