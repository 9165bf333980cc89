// The claims of the demonstration of a cloud, each proved on running containers and by what Neutron itself says.
import { Fault } from '#model/fault.ts';
import type { CheckOf } from './demo-check.ts';
import { type CloudDemo, cloudName, frontName } from './demo-cloud.ts';
import {
  apply,
  arrived,
  ask,
  cloudCommand,
  lost,
  modelChecks,
  patienceMs,
  ping,
  seeNothing,
  shortChecks,
  stepsSeen,
} from './demo-cloud-models.ts';
import { lineWith, part, type Proof } from './demo-witness.ts';
import { boxImage } from './images.ts';
import { until } from './until.ts';

type Check = CheckOf<CloudDemo>;

const patience = { timeoutMs: patienceMs, intervalMs: 500 };

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

const range = '10.96.0.0/16';

const withdrawn: Check = {
  title: 'a permission withdrawn in Neutron breaks that network only, is explained, and is repaired by who may',
  async prove(site, witness) {
    const [shop, other] = [await site.bed.addressOf(2, 'shop'), await site.bed.addressOf(2, 'plain')];
    await ping(site, witness, { network: 'plain', address: other, proof: arrived });
    await site.setPairs(2, []);
    witness.see('Neutron', `PUT /v2.0/ports/(node2’s) with no allowed address pairs`, `${range} withdrawn`);
    await ping(site, witness, { network: 'plain', address: other, proof: lost });
    await ping(site, witness, { network: 'shop', address: shop, proof: arrived });
    const asLimited = ['cloud', 'apply', '--yes', '--cloud', 'limited'];
    await witness.other(
      { where: 'controller', command: `causeway ${asLimited.join(' ')}`, ask: () => site.causeway(...asLimited) },
      part(/plain cannot be carried as wanted: .*by vxlan/),
    );
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

const portOptions = ['--model', 'neutron', '--neutron-network', 'hosts'];

/** The controller keeps the cloud meanwhile, as it does where it runs for good. */
const ports: Check = {
  title: 'model neutron: a controller with --cloud keeps what is allowed, and every container has a port of its own in Neutron',
  async prove(site, witness) {
    const { bed } = site;
    const before = await site.opened();
    try {
      await site.restartController(true);
      witness.see('controller', `causeway controller --cloud ${cloudName}`, 'keeps what the networks need allowed');
      await bed.causeway('network', 'create', 'ports', ...portOptions);
      for (const index of [1, 2]) {
        await bed.untilKnown(index, 'ports');
        await bed.runFirst(index, `ports${index}`, 'ports');
      }
      witness.see('controller', `causeway network create ports ${portOptions.join(' ')}`, 'ports1 on node1, ports2 on node2');
      const own = await Promise.all([1, 2].map((index) => bed.addressOf(index, 'ports')));
      const all = await site.containerPorts();
      witness.see('Neutron', 'GET /v2.0/ports?device_owner=causeway:container', `${all.length} in stock, also ${own.join(' and ')}`);
      if (own.some((address) => !all.includes(address))) throw new Fault('internal', 'These are not addresses of ports');
      await ping(site, witness, { network: 'ports', address: own[1] ?? '', proof: arrived });
    } finally {
      await site.removeNetwork('ports');
      await until('all ports to be given back', async () => (await site.containerPorts()).length === 0, patience);
      await site.restartController(false);
    }
    const { counts } = await site.opened();
    witness.see('controller', 'causeway network rm ports', `Neutron holds what it held before: ${counts}`);
    if (counts !== before.counts) throw new Fault('internal', `Before there were ${before.counts}`);
  },
};

/** Networks that stay, for the checks after those of the models and for the user. */
export async function makeLasting(site: CloudDemo): Promise<void> {
  await site.makeNetwork('shop', ['--subnet', '10.95.0.0/24']);
  await site.makeNetwork('plain', ['--model', 'flannel', '--carry', 'host-gateway', '--subnet', range]);
  await site.bed.causeway('cloud', 'apply', '--yes');
}

export const firstChecks = (isQuick: boolean): readonly Check[] => [realCloud, ...(isQuick ? shortChecks : modelChecks)];
export const lastingChecks = (isQuick: boolean): readonly Check[] => [withdrawn, exposed, destroyed, ...(isQuick ? [] : [ports])];
