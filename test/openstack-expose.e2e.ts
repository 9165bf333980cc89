// Containers that are reached from outside a real cloud: by floating IPs of their hosts and by load balancers; and what of a project is open at all. Each opens its port to its sources and
// nothing more, and nothing of it stays.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { killAgent, startAgent, startController, stopController } from '#lab/causeway.ts';
import type { Host } from '#lab/host.ts';
import { boxImage } from '#lab/images.ts';
import { demo, limited, publicNetwork } from '#lab/openstack.ts';
import { type CloudBed, makeCloudBed, own6, pageOf } from '#lab/openstack-bed.ts';
import { octavia, octaviaNeeds } from '#lab/openstack-octavia.ts';
import { sql } from '#lab/openstack-tables.ts';
import { changeBalancer } from '#cloud/balancing.ts';
import { findCloud } from '#cloud/clouds.ts';
import { Neutron } from '#cloud/neutron.ts';
import { Octavia } from '#cloud/octavia.ts';
import type { Opening } from '#cloud/reach.ts';
import { planCloud } from '#cloud/plan.ts';
import { readState } from '#cloud/reading.ts';
import { CloudSession } from '#cloud/session.ts';
import { wishOf } from '#cloud/wish.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';
import { makeHost } from '#drivers/cluster.fixture.ts';
import { isFault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { frontOf, type FrontOptions, leadTo, wayInto } from './openstack-way.ts';

const skip = missingOf([...openstackNeeds, ...octaviaNeeds]);
/** Looking takes processor time that what is waited for needs, too: a program's start, or an answer of Neutron's. */
const patience = { timeoutMs: 240_000, intervalMs: 1000 };
/** As which the host `outside` speaks to the cloud. */
const outsideRange = '198.51.100.0/24';
let bed: CloudBed;

interface Applied {
  readonly steps: readonly { readonly action: string; readonly object: string }[];
  readonly exposures: readonly { readonly exposure: string; readonly host: string; readonly address?: string }[];
  readonly problems: readonly string[];
}
interface Floating {
  readonly id: string;
  readonly floating_ip_address: string;
  readonly port_id: string | null;
  readonly tags: readonly string[];
}

before(async () => {
  if (skip !== false) return;
  bed = await makeCloudBed({ name: 'os-expose', services: [octavia] });
  await bed.causeway('network', 'create', 'shop', '--subnet', '10.85.0.0/24');
  for (const index of [1, 2]) await bed.untilKnown(index, 'shop');
});
after(async () => bed?.[Symbol.asyncDispose]());

const post = <T extends object>(path: string, body: object): Promise<T> => bed.member.send<T>('neutron', 'POST', `/v2.0/${path}`, body);
const floatingIps = (): Promise<Floating[]> => bed.member.list<Floating>('neutron', '/v2.0/floatingips', 'floatingips');
const groupNames = async (): Promise<string[]> =>
  (await bed.member.list<{ name: string }>('neutron', '/v2.0/security-groups', 'security_groups')).map(({ name }) => name);
const openings = (): Promise<Opening[]> => bed.json<Opening[]>('exposure', 'ls', '--cloud');
const apply = (): Promise<Applied> => bed.json<Applied>('cloud', 'apply', '--yes');

/** An opening in words. */
const brief = ({ scope, ports, protocol, portRange, from, because }: Opening): string =>
  `${scope} ${ports.join('+')} ${protocol} ${portRange} from ${from}, ${because}`;

/** A web server in a container of `shop`, or of `network`, which says `words`. */
async function serve(index: number, name: string, words: string, alias: readonly string[] = [], network = 'shop'): Promise<void> {
  const shell = ['sh', '-c', `mkdir /www; echo ${words} >/www/index.html; exec httpd -f -p 80 -h /www`];
  await bed.docker(index, 'run', '--detach', '--init', '--name', name, '--network', network, ...alias, boxImage.name, ...shell);
}

/** What a host of the lab outside the cloud gets from a web server. */
const page = (from: 'outside' | 'controller', address: string, port: number): Promise<string | undefined> =>
  pageOf(bed.cloud.lab.host(from), address, port);

const expose = (...argv: readonly string[]): Promise<void> => exposeOf('shop', ...argv);
async function exposeOf(...argv: readonly string[]): Promise<void> {
  await until(`causeway expose ${argv.join(' ')}`, async () => (await bed.tryCauseway(['expose', ...argv])).status === 0, patience);
}

test(
  'a floating IP is made, leads to the container for its sources only, goes along to another host and is given back',
  { skip },
  async () => {
    await serve(1, 'front', 'goods');
    await expose('front', '80', '--host-port', '8080', '--from', outsideRange, '--name', 'web', '--floating-ip');
    const applied = await until(
      'the container to be known',
      async () => {
        const one = await apply();
        return one.exposures.length > 0 ? one : undefined;
      },
      patience,
    );
    assert.deepEqual(applied.problems, []);
    const [floating] = await floatingIps();
    const address = floating?.floating_ip_address ?? assert.fail('no floating IP');
    assert.deepEqual(applied.exposures, [{ exposure: 'web', host: 'node1', address }]);
    assert.equal(floating?.port_id, bed.instances[0]?.port.id);
    await until('the page to be had', async () => (await page('outside', address, 8080)) === 'goods', patience);
    assert.equal(await page('controller', address, 8080), undefined, 'which has another address than the sources');
    assert.deepEqual((await apply()).steps, [], 'a second one has nothing to do');

    await bed.docker(1, 'rm', '--force', 'front');
    await serve(2, 'front', 'moved');
    await until('the other host to be known', async () => (await apply()).exposures[0]?.host === 'node2', patience);
    await until('the page of the other host', async () => (await page('outside', address, 8080)) === 'moved', patience);
    assert.equal((await floatingIps())[0]?.port_id, bed.instances[1]?.port.id);

    const reached = await openings();
    const web = reached.find(({ because }) => because === 'exposure web') ?? assert.fail('the exposure is not among what is open');
    assert.deepEqual(web, {
      scope: 'outside',
      ports: ['node2'],
      addresses: [address],
      ethertype: 'IPv4',
      protocol: 'tcp',
      portRange: '8080',
      from: outsideRange,
      because: 'exposure web',
      isOurs: true,
    });

    await outOfFloatingIps();
    await bed.causeway('exposure', 'rm', '--yes', 'web');
    await apply();
    assert.deepEqual(await floatingIps(), []);
    assert.ok(!(await openings()).some(({ because }) => because === 'exposure web'));
    assert.ok(!(await groupNames()).some((name) => name.startsWith('causeway-exposed')));
    await bed.docker(2, 'rm', '--force', 'front');
  },
);

const isOpened = async (name: string): Promise<boolean> => (await openings()).some(({ because }) => because === `exposure ${name}`);

/** With a quota that is used up one more exposure has no floating IP, and one that is removed meanwhile is closed all the same. */
async function outOfFloatingIps(): Promise<void> {
  const [own] = await bed.portsBy<{ id: string; project_id: string }>('name=node1');
  const project = own?.project_id ?? assert.fail('no port of node1');
  const { operator } = bed.cloud;
  const { floatingip: quota } = await operator.get<{ floatingip: { limit: number; used: number } }>(
    'neutron',
    `/v2.0/quotas/${project}/details`,
    'quota',
  );
  await serve(1, 'other', 'wares');
  await expose('other', '80', '--host-port', '8090', '--name', 'second');
  await until('a second exposure to be open', async () => (await apply()).problems.length === 0 && (await isOpened('second')), patience);
  await operator.setQuota(project, { floatingip: quota.used });
  await bed.causeway('exposure', 'rm', '--yes', 'second');
  await expose('other', '80', '--host-port', '8091', '--name', 'third', '--floating-ip');
  const { exposures, problems } = await apply();
  const words = `the quota of floating IPs would not do: ${quota.used + 1} needed, ${quota.used} allowed`;
  assert.deepEqual(problems, [`Exposure third has no floating IP: ${words}`]);
  assert.deepEqual([exposures.map(({ exposure }) => exposure), await isOpened('second'), await isOpened('third')], [['web'], false, true]);
  await operator.setQuota(project, { floatingip: quota.limit });
  await bed.causeway('exposure', 'rm', '--yes', 'third');
  await bed.docker(1, 'rm', '--force', 'other');
}

test('what others have opened is told, and what has no port security', { skip }, async () => {
  const ssh = { security_group_id: bed.site.group, direction: 'ingress', protocol: 'tcp', port_range_min: 22, port_range_max: 23 };
  const { id } = await post<{ id: string }>('security-group-rules', { security_group_rule: { ...ssh, description: 'for me' } });
  const { id: bare } = await post<{ id: string }>('ports', {
    port: { network_id: bed.site.network, name: 'bare', port_security_enabled: false },
  });
  const { id: offices } = await post<{ id: string }>('address-groups', { address_group: { name: 'offices', addresses: ['192.0.2.0/24'] } });
  const { id: named } = await post<{ id: string }>('security-group-rules', {
    security_group_rule: { ...ssh, port_range_min: 80, port_range_max: 80, remote_address_group_id: offices },
  });
  const found = await openings();
  const [outside] = await bed.member.get<{ id: string }[]>('neutron', `/v2.0/networks?name=${publicNetwork}`, 'networks');
  const floating = await post<Floating>('floatingips', { floatingip: { floating_network_id: outside?.id } });
  const { id: forwarding } = await post<{ id: string }>(`floatingips/${floating.id}/port_forwardings`, {
    port_forwarding: {
      protocol: 'tcp',
      internal_port_id: bed.instances[0]?.port.id,
      internal_ip_address: '10.20.0.11',
      internal_port: 22,
      external_port: 2222,
    },
  });
  const forwarded = (await openings()).filter(({ scope }) => scope === 'outside');
  for (const [path, one] of [
    [`floatingips/${floating.id}/port_forwardings`, forwarding],
    ['floatingips', floating.id],
    ['ports', bare],
    ['security-group-rules', id],
    ['security-group-rules', named],
    ['address-groups', offices],
  ] as const)
    await bed.member.send('neutron', 'DELETE', `/v2.0/${path}/${one}`);
  const lines = found.map(brief);
  assert.ok(lines.includes('inside node1+node2 tcp 22-23 from everybody, security group instances: for me'), lines.join('\n'));
  assert.ok(lines.includes(`inside node1+node2 tcp 80 from address group ${offices}, security group instances`), lines.join('\n'));
  assert.ok(lines.includes('inside bare every protocol all from everybody, port security is off'), lines.join('\n'));
  assert.deepEqual(forwarded.map(brief), ['outside node1 tcp 2222 from everybody, forwarded to port 22; security group instances: for me']);
  assert.equal(forwarded[0]?.addresses.join(), floating.floating_ip_address);
});

test("a floating IP that the project has is borrowed, and the project's again afterwards", { skip }, async () => {
  const [outside] = await bed.member.get<{ id: string }[]>('neutron', `/v2.0/networks?name=${publicNetwork}`, 'networks');
  const { id, floating_ip_address: address } = await post<Floating>('floatingips', { floatingip: { floating_network_id: outside?.id } });
  await serve(1, 'store', 'wares');
  await expose('store', '80', '--host-port', '8081', '--name', 'store', '--floating-ip', address);
  await until('the container to be known', async () => (await apply()).exposures[0]?.address === address, patience);
  await until('the page to be had', async () => (await page('controller', address, 8081)) === 'wares', patience);
  assert.equal(await page('outside', address, 8080), undefined, 'another port is closed');
  await bed.causeway('cloud', 'destroy', '--yes');
  const [left] = await floatingIps();
  assert.deepEqual([left?.id, left?.port_id, left?.tags], [id, null, []]);
  assert.equal(await page('controller', address, 8081), undefined);
  await bed.causeway('exposure', 'rm', '--yes', 'store');
  await bed.docker(1, 'rm', '--force', 'store');

  const problems = async (): Promise<string> => (await bed.json<Applied>('cloud', 'plan')).problems.join();
  await serve(1, 'stall', 'cheese');
  for (const [wanted, words] of [
    ['203.0.113.250', /the project has none with the address/],
    ['nowhere', /no external network nowhere; there is public/],
  ] as const) {
    await expose('stall', '80', '--host-port', '8082', '--name', 'stall', '--floating-ip', wanted);
    await until('the plan to say why', async () => words.test(await problems()), patience);
    await bed.causeway('exposure', 'rm', '--yes', 'stall');
  }
  await bed.docker(1, 'rm', '--force', 'stall');
  await bed.member.send('neutron', 'DELETE', `/v2.0/floatingips/${id}`);
});

interface Moved {
  readonly name: string;
  readonly virtualIp?: { readonly ip?: string; readonly hosts: readonly string[] };
}
/** Of an exposure, once the cloud has it. */
async function virtualIp(exposure = 'moving'): Promise<string> {
  const found = (await bed.json<Moved[]>('exposure', 'ls')).find(({ name }) => name === exposure);
  return found?.virtualIp?.ip ?? '';
}
/** Hosts that have the address on their link. */
async function holders(ip: string): Promise<number[]> {
  const on = async (index: number): Promise<number[]> =>
    (await bed.host(index).exec(['ip', '-o', 'address', 'show', 'dev', 'eth0'], { netOnly: true })).stdout.includes(
      ` ${ip}/${ip.includes(':') ? 128 : 32} `,
    )
      ? [index]
      : [];
  return (await Promise.all([on(1), on(2)])).flat();
}
/** Which host has it, when it is one: until they know of each other both may. */
const untilHeld = (ip: string): Promise<number> =>
  until(
    'one host to have it',
    async () => {
      const [one, ...more] = await holders(ip);
      return more.length === 0 ? one : undefined;
    },
    patience,
  );
/** Milliseconds until the page of another host is had, from outside unless told. */
async function untilMoved(address: string, to: string, what: string, asker: Host = bed.cloud.lab.outside): Promise<string> {
  const from = performance.now();
  await until(what, async () => (await pageOf(asker, address, 8085)) === to, { ...patience, intervalMs: 100 });
  return `${what}: ${Math.round(performance.now() - from)} ms`;
}
interface Port {
  readonly id: string;
  readonly name: string;
  readonly allowed_address_pairs: readonly { readonly ip_address: string }[];
}
const portsOf = (): Promise<Port[]> => bed.portsBy<Port>(`network_id=${bed.site.network}`);
const pairsOf = async (): Promise<string[]> =>
  (await portsOf()).flatMap(({ allowed_address_pairs: pairs }) => pairs.map((pair) => pair.ip_address));

test(
  'a virtual address moves when its host or its container fails, also while no controller answers, and goes without a trace',
  { skip },
  async (t) => {
    const both = ['--network-alias', 'both'];
    const words = ['', 'first', 'second'];
    for (const index of [1, 2]) await serve(index, `both${index}`, words[index] ?? '', both);
    await expose('both', '80', '--host-port', '8085', '--from', outsideRange, '--name', 'moving', '--floating-ip', '--virtual-ip');
    const applied = await until(
      'both hosts to be known',
      async () => {
        const one = await apply();
        return (await pairsOf()).length === 2 && one.exposures.length > 0 ? one : undefined;
      },
      patience,
    );
    assert.deepEqual(applied.problems, []);
    const ip = await virtualIp();
    const address = applied.exposures[0]?.address ?? assert.fail('no floating IP');
    assert.deepEqual(await pairsOf(), [ip, ip]);
    await until('the page to be had', async () => words.includes((await page('outside', address, 8085)) ?? '-'), patience);
    assert.equal(await page('controller', address, 8085), undefined, 'which has another address than the sources');
    assert.deepEqual((await apply()).steps, [], 'a second one has nothing to do');
    const opened = (await openings()).filter(({ scope, because }) => scope === 'outside' && because === 'exposure moving');
    assert.deepEqual([opened[0]?.addresses, opened[0]?.portRange, opened[0]?.from], [[address], '8085', outsideRange]);

    const own = await untilHeld(ip);
    const other = 3 - own;
    await bed.docker(own, 'stop', '--time', '0', `both${own}`);
    t.diagnostic(await untilMoved(address, words[other] ?? '', 'after its container was stopped the other host answers'));
    await until('one host to have it', async () => (await holders(ip)).join() === String(other), patience);
    await bed.docker(own, 'start', `both${own}`);
    t.diagnostic(await untilMoved(address, words[own] ?? '', 'after its container was started the first host answers again'));

    const { controller } = bed.cloud;
    await stopController(controller);
    const host = bed.host(own);
    await killAgent(host);
    await host.exec(['ip', 'link', 'set', 'eth0', 'down'], { netOnly: true });
    t.diagnostic(await untilMoved(address, words[other] ?? '', 'after its host died, without a controller, the other host answers'));
    await putBack(host);
    await startAgent(host);
    t.diagnostic(await untilMoved(address, words[own] ?? '', 'after its host came back the first host answers again'));
    await until('one host to have it', async () => (await holders(ip)).join() === String(own), patience);

    await startController(controller, { arguments: ['--san', controller.address] });
    await until('the controller to answer', () => bed.causeway('host', 'ls').catch(() => undefined), patience);
    await bed.causeway('exposure', 'rm', '--yes', 'moving');
    // Nobody else is to get the address while hosts may send with it.
    const kept = await bed.tryCauseway(['cloud', 'apply', '--yes', '--output', 'json'], bed.cloud.environment(limited));
    assert.match((JSON.parse(kept.stdout) as Applied).problems.join(), /keeps .*may not write allowed address pairs/, kept.stderr);
    assert.deepEqual(
      [kept.status, await pairsOf(), (await portNames()).filter((name) => name.includes('virtual')).length],
      [10, [ip, ip], 1],
    );
    await apply();
    assert.deepEqual([await floatingIps(), await pairsOf()], [[], []]);
    assert.ok(!(await portNames()).some((name) => name.includes('virtual')));
    await until('nobody to have it', async () => (await holders(ip)).length === 0, patience);
    for (const index of [1, 2]) await bed.docker(index, 'rm', '--force', `both${index}`);
  },
);

/** Any half of a balancer's pages would come from the other of two hosts. */
const inARow = 20;

/** The host's card is torn out, its container goes on: only the cloud can see that. Which page was the last that was not `living`'s. */
async function lastLost(host: Host, ask: () => Promise<string | undefined>, living: string): Promise<string> {
  await host.exec(['ip', 'link', 'set', 'eth0', 'down'], { netOnly: true });
  const from = performance.now();
  const answers: (string | undefined)[] = [];
  let failedAt = from;
  try {
    await until(
      'pages of the living host only',
      async () => {
        answers.push(await ask());
        if (answers.at(-1) !== living) failedAt = performance.now();
        return answers.length >= inARow && answers.slice(-inARow).every((answer) => answer === living);
      },
      { ...patience, intervalMs: 100 },
    );
  } catch (error) {
    throw new Error(`The last of ${answers.length} answers: ${answers.slice(-inARow).join(', ')}`, { cause: error });
  }
  return `last page that was lost: ${Math.round(failedAt - from)} ms after the host had died`;
}
/** Its card is put back. */
async function putBack(host: Host): Promise<void> {
  await host.exec(['ip', 'link', 'set', 'eth0', 'up'], { netOnly: true });
  await host.exec(['ip', 'route', 'replace', 'default', 'via', '10.20.0.1'], { netOnly: true });
}

/** Octavia, asked from here as the project's member. */
async function withOctavia<T>(work: (client: Octavia, session: CloudSession) => Promise<T>): Promise<T> {
  const cloud = await findCloud({ environment: bed.cloud.environment(), configFiles: [], secureFiles: [] });
  await using session = new CloudSession(cloud, { connect: wayInto(bed.cloud.controller), retries: 1 });
  return await work(new Octavia(session), session);
}
const portNames = async (): Promise<string[]> => (await portsOf()).map(({ name }) => name);

/** Of a load balancer whose provider came to nothing with the members and the health monitor, which Octavia keeps in that state for good. */
async function untilMended(name: string): Promise<void> {
  const parts = (): Promise<string[]> =>
    withOctavia(async (client) => {
      const [balancer] = await client.list('loadbalancers', { name });
      const [pool] = await client.list('pools', { loadbalancer_id: balancer?.id ?? '' });
      const monitor = await client.get('healthmonitors', pool?.monitor ?? '');
      return [...(await client.members(pool?.id ?? '')), monitor].map(({ provisioning }) => provisioning);
    });
  const failed = ['member', 'health_monitor'].map((table) => `update octavia.${table} set provisioning_status = 'ERROR';`);
  await sql(bed.cloud.controller, failed.join('\n'));
  assert.deepEqual(await parts(), ['ERROR', 'ERROR', 'ERROR']);
  await apply();
  await until('members and probes to be there', async () => (await parts()).join() === 'ACTIVE,ACTIVE,ACTIVE', patience);
  assert.deepEqual((await apply()).steps, []);
}
const alias = ['--network-alias', 'counter'];

test(
  'a load balancer leads to every host of the container, leaves out a host that has died, and goes without a trace',
  { skip },
  async (t) => {
    await serve(1, 'till1', 'one', alias);
    await serve(2, 'till2', 'two', alias);
    await expose('counter', '80', '--host-port', '8090', '--name', 'counter', '--load-balancer');
    await expose('counter', '80', '--host-port', '8092', '--from', outsideRange, '--name', 'few', '--load-balancer');
    const hosts = async (): Promise<number> => {
      const endpoints = await bed.json<{ names: string[] }[]>('endpoint', 'ls');
      return endpoints.filter(({ names }) => names.includes('counter')).length;
    };
    await until('both containers to be known', async () => (await hosts()) === 2, patience);
    const applied = await apply();
    assert.deepEqual(applied.problems, []);
    const addressOf = (name: string): string =>
      applied.exposures.find(({ exposure }) => exposure === name)?.address ?? assert.fail(`no floating IP of ${name}`);
    const address = addressOf('counter');
    const few = addressOf('few');
    const seen = new Set<string>();
    await until(
      'pages of both hosts',
      async () => {
        const found = await page('outside', address, 80);
        if (found !== undefined) seen.add(found);
        return seen.size === 2;
      },
      patience,
    );
    assert.ok(await until('a page for everybody', () => page('controller', address, 80), patience));
    assert.ok(await until('a page for some', () => page('outside', few, 80), patience));
    assert.equal(await page('controller', few, 80), undefined, 'which has another address than the sources');
    const balanced = (await openings()).find(({ because }) => because === 'load balancer: Exposure counter of causeway');
    assert.deepEqual([balanced?.scope, balanced?.addresses, balanced?.portRange, balanced?.isOurs], ['outside', [address], '80', true]);
    assert.deepEqual((await apply()).steps, [], 'a second one has nothing to do');
    await untilMended('causeway-counter');

    const host = bed.host(2);
    t.diagnostic(await lastLost(host, () => page('outside', address, 80), 'one'));
    await putBack(host);
    await until('pages of the other host again', async () => (await page('outside', address, 80)) === 'two', patience);

    await bed.docker(1, 'rm', '--force', 'till1');
    await until('one container to be known', async () => (await hosts()) === 1, patience);
    assert.deepEqual((await apply()).steps.map(({ object }) => object).includes('load balancer causeway-counter'), true);
    await withOctavia(async (client) => {
      assert.deepEqual(await client.providers(), [{ name: 'ovn', description: 'OVN' }]);
      const [balancer] = await client.list('loadbalancers', { name: 'causeway-counter' });
      const members = await client.members(balancer?.pools[0] ?? '');
      assert.deepEqual(
        members.map(({ name, port }) => [name, port]),
        [['node2', 8090]],
      );
    });
    await until('pages of the host that is left', async () => (await page('outside', address, 80)) === 'two', patience);
    await bed.causeway('exposure', 'rm', '--yes', 'counter', 'few');
    await apply();
    assert.deepEqual(await floatingIps(), []);
    await withOctavia(async (client) => assert.deepEqual(await client.list('loadbalancers'), []));
    assert.ok(!(await portNames()).some((name) => name.startsWith('ovn-lb-vip')), 'no address of a load balancer is left');
    await bed.docker(2, 'rm', '--force', 'till2');
  },
);

/** What another installation's service is told that is to be on that load balancer with the same hosts. */
async function toldOfSharing(shared: string, session: CloudSession): Promise<readonly string[]> {
  const underlay = [
    { interface: 'eth0', ip: parseIp(bed.instances[0]?.port.fixed_ips[0]?.ip_address ?? ''), subnet: parseCidr('10.20.0.0/24'), mtu: 1442 },
  ];
  const ports = [{ protocol: 'tcp' as const, port: 81, nodePort: 30_081 }];
  const services = [{ id: 'a', service: 'shop/a', ports, sources: [], place: {}, monitor: {}, shared }];
  const facts = { hosts: [makeHost(1, { underlay })], networks: [], pools: [], blocks: [], endpoints: [], exposures: [], services };
  const wish = wishOf(facts, 'other');
  return planCloud(wish, await readState(new Neutron(session), {}, wish)).problems;
}

test(
  'an internal load balancer is reached by instances and not from outside; what the provider cannot do is said in its words',
  { skip },
  async () => {
    await serve(1, 'vault', 'inner');
    await expose('vault', '80', '--host-port', '8091', '--name', 'vault', '--load-balancer', '--internal');
    await until(
      'the load balancer to be made',
      async () => (await apply()).steps.some(({ object }) => object === 'load balancer causeway-vault'),
      patience,
    );
    assert.deepEqual(await floatingIps(), []);
    await withOctavia(async (client, session) => {
      const [balancer] = await client.list('loadbalancers');
      const { address = '', subnetId = '' } = balancer ?? {};
      const told = await toldOfSharing(balancer?.id ?? '', session);
      assert.match(told.join(), /has no load balancer: .* listener vault, which is somebody else's, has .* probed/);
      const inside = async (): Promise<string> => {
        const argv = ['busybox', 'wget', '-T', '2', '-qO-', `http://${address}:80/`];
        return (await bed.host(2).exec(argv, { anyStatus: true })).stdout.trim();
      };
      await until('the page to be had by an instance', async () => (await inside()) === 'inner', patience);
      const pool = { name: 'p', protocol: 'TCP', lb_algorithm: 'SOURCE_IP_PORT', members: [] } as const;
      const listeners = [{ name: 'l', protocol: 'TCP', protocol_port: 80, allowed_cidrs: ['192.0.2.0/24'], default_pool: pool }] as const;
      const request = { name: 'bad', vip_subnet_id: subnetId, provider: 'ovn', listeners };
      const made = changeBalancer(client, { type: 'make-balancer', id: 'bad', request });
      await assert.rejects(made, (error) => isFault(error, 'unsupported') && /allowed_cidrs/.test(error.message));
      const [bad, ...others] = (await client.list('loadbalancers')).filter(({ name }) => name === 'bad');
      assert.deepEqual([bad?.listeners, others], [[], []], 'it is made without, so that no try after this one leaves a port');
      await client.remove(bad?.id ?? '');
      const many = await Promise.all(
        [1, 2, 3].map((index) => client.create({ name: `more${index}`, vip_subnet_id: subnetId, listeners: [] })),
      );
      assert.ok((await client.list('loadbalancers')).length >= 4, 'over several pages');
      for (const { id } of many) {
        assert.equal((await client.settled(id))?.provisioning, 'ACTIVE');
        await client.remove(id);
        assert.equal(await client.settled(id), undefined);
      }
    });
    await bed.causeway('cloud', 'destroy', '--yes');
    await withOctavia(async (client) => assert.deepEqual(await client.list('loadbalancers'), []));
    await bed.causeway('exposure', 'rm', '--yes', 'vault');
    await bed.docker(1, 'rm', '--force', 'vault');
  },
);

/** Tags, without what differs from one exposure to the other. */
const marks = (tags: readonly string[]): string =>
  tags
    .map((tag) => tag.replace(/exposure\..*/, 'exposure'))
    .toSorted()
    .join();
/** What Causeway has in the cloud, each with the marks by which it knows it. */
async function holdings(): Promise<string[]> {
  const groups = await bed.member.list<{ name: string; description: string; tags: string[] }>(
    'neutron',
    '/v2.0/security-groups',
    'security_groups',
  );
  const ports = await bed.portsBy<Port & { device_owner: string }>('fields=id&fields=name&fields=device_owner');
  const balancers = await withOctavia((client) => client.list('loadbalancers'));
  return [
    ...groups.filter(({ name }) => name.startsWith('causeway')).map(({ name, tags }) => `group ${name} ${marks(tags)}`),
    ...ports.filter((port) => port.device_owner.startsWith('causeway')).map(({ name }) => `port ${name}`),
    ...(await floatingIps()).map(({ tags }) => `floating IP ${marks(tags)}`),
    ...balancers.map(({ name, tags }) => `load balancer ${name} ${marks(tags)}`),
  ].toSorted();
}

const exposeKiosk = (port: number, name: string, ...how: readonly string[]): Promise<void> =>
  expose('kiosk', '80', '--host-port', String(port), '--name', name, ...how);

test(
  'a command that is killed when the cloud has made something, before it is told so, leaves nothing behind and has nothing made twice',
  { skip },
  async () => {
    // What hosts need of each other stays.
    await apply();
    const earlier = await holdings();
    await serve(1, 'kiosk', 'papers');
    await exposeKiosk(8094, 'floating', '--floating-ip');
    const isKnown = async (): Promise<boolean> =>
      (await bed.json<{ name: string }[]>('endpoint', 'ls')).some(({ name }) => name === 'kiosk');
    await until('the container to be known', isKnown, patience);

    /** What is made next of these kinds is the end of who has asked for it. */
    const deadly = new Set<string>();
    let running: ReturnType<CloudBed['spawnCauseway']> | undefined;
    const garble: FrontOptions['garble'] = ({ method, path, status }, response) => {
      if (method !== 'POST' || status >= 300 || !deadly.delete(path.replace(/.*\//, ''))) return false;
      running?.kill('SIGKILL');
      response.destroy();
      return true;
    };
    const { controller } = bed.cloud;
    await using neutron = await frontOf(controller, 'neutron', { garble });
    await using octavias = await frontOf(controller, 'octavia', { garble });
    await using network = await leadTo(neutron, controller);
    await using balancer = await leadTo(octavias, controller);
    const fronts = { OS_NETWORK_ENDPOINT_OVERRIDE: network.url, OS_LOAD_BALANCER_ENDPOINT_OVERRIDE: balancer.url };
    const run = async (): Promise<number> => {
      running = bed.spawnCauseway(['cloud', 'apply', '--yes'], { ...bed.cloud.environment(), ...fronts });
      return (await running.ended).status;
    };

    deadly.add('floatingips');
    assert.equal(await run(), 137);
    assert.deepEqual(
      (await floatingIps()).map(({ tags }) => tags),
      [[]],
      'it is made and not tagged',
    );
    await bed.causeway('exposure', 'rm', '--yes', 'floating');
    await apply();
    assert.deepEqual(await holdings(), earlier, 'of what is not wanted any more nothing stays');

    await exposeKiosk(8094, 'floating', '--floating-ip');
    await exposeKiosk(8095, 'moving', '--virtual-ip');
    await exposeKiosk(8096, 'inner', '--load-balancer', '--internal');
    for (const kind of ['security-groups', 'ports', 'floatingips', 'loadbalancers']) deadly.add(kind);
    const ends: number[] = [];
    do ends.push(await run());
    while (ends.at(-1) === 137);
    assert.deepEqual([[...deadly], ends], [[], [137, 137, 137, 137, 0]]);
    assert.deepEqual(
      await holdings(),
      [
        ...earlier,
        'group causeway-exposed-1 causeway.causeway',
        'floating IP causeway.causeway,causeway.causeway.exposure',
        'load balancer causeway-inner causeway.causeway,causeway.causeway.exposure',
        'port causeway-virtual-kiosk-of-shop',
      ].toSorted(),
    );
    await bed.causeway('exposure', 'rm', '--yes', 'floating', 'moving', 'inner');
    await apply();
    assert.deepEqual(await holdings(), earlier);
    await bed.docker(1, 'rm', '--force', 'kiosk');
  },
);

/** An instance beside the hosts. */
let asker: Host;
async function bootAsker(subnet: string): Promise<Host> {
  const fixed = [{ subnet_id: bed.site.subnet }, { subnet_id: subnet, ip_address: own6(9) }];
  const port = { network_id: bed.site.network, name: 'asker', security_groups: [bed.site.group], fixed_ips: fixed };
  return (await bed.cloud.boot('asker', (await post<{ id: string }>('ports', { port })).id, 1)).host;
}

test('by IPv6 a virtual address moves as well, and what there cannot be is refused', { skip }, async (t) => {
  const both = ['--network-alias', 'both'];
  const words = ['', 'sixth', 'seventh'];
  await bed.causeway('network', 'create', 'dual', '--subnet', '10.86.0.0/24', '--subnet', 'fd86::/64');
  for (const index of [1, 2]) {
    await bed.untilKnown(index, 'dual');
    await serve(index, `dual${index}`, words[index] ?? '', both, 'dual');
  }
  const refused = async (network: string, ...more: readonly string[]): Promise<string> => {
    const { status, stderr } = await bed.tryCauseway(['expose', network, 'both', '80', '--virtual-ip', '--ipv6', ...more]);
    assert.notEqual(status, 0);
    return stderr;
  };
  assert.match(await refused('dual', '--floating-ip'), /Neutron has no floating IPs of IPv6/);
  assert.match(await refused('shop'), /Containers of network shop have no IPv6/);

  await exposeOf('dual', 'both', '80', '--host-port', '8085', '--from', `${own6(9)}/128`, '--name', 'six', '--virtual-ip', '--ipv6');
  const problems = async (): Promise<readonly string[]> => (await bed.json<Applied>('cloud', 'plan')).problems;
  const lacking = await until('both hosts to be known', async () => [await problems()].find((found) => found.length === 2), patience);
  assert.match(lacking?.[0] ?? '', /^Exposures of both of dual by IPv6: host node1 has no address of IPv6/);
  asker = await bootAsker(await bed.giveIpv6());
  const applied = await until(
    'both hosts to be allowed it',
    async () => {
      const one = await apply();
      return (await pairsOf()).length === 2 ? one : undefined;
    },
    patience,
  );
  assert.deepEqual(applied.problems, []);
  const ip = await virtualIp('six');
  assert.match(ip, /^fd00:20::/);
  assert.deepEqual(await pairsOf(), [ip, ip]);
  await until('the page to be had', async () => words.includes((await pageOf(asker, ip, 8085)) ?? '-'), patience);
  assert.deepEqual((await apply()).steps, [], 'a second one has nothing to do');
  const [opened, ...rest] = (await openings()).filter(({ because }) => because === 'exposure six');
  assert.deepEqual([rest, opened?.addresses.includes(ip), opened?.ethertype], [[], true, 'IPv6']);
  assert.equal(
    brief(opened ?? assert.fail('it is not among what is open')),
    `inside causeway-virtual-both-of-dual-by-IPv6+node1+node2 tcp 8085 from ${own6(9)}/128, exposure six`,
  );

  const own = await untilHeld(ip);
  const other = 3 - own;
  // Its address is not among the sources.
  assert.equal(await pageOf(bed.host(other), ip, 8085), undefined);
  const moved = async (what: string, to: number): Promise<void> => t.diagnostic(await untilMoved(ip, words[to] ?? '', what, asker));
  await bed.docker(own, 'stop', '--time', '0', `dual${own}`);
  await moved('by IPv6, after its container was stopped the other host answers', other);
  await bed.docker(own, 'start', `dual${own}`);
  await moved('by IPv6, after its container was started the first host answers again', own);
  await until('one host to have it', async () => (await holders(ip)).join() === String(own), patience);

  const { controller } = bed.cloud;
  await stopController(controller);
  const host = bed.host(own);
  await killAgent(host);
  await host.exec(['ip', 'link', 'set', 'eth0', 'down'], { netOnly: true });
  await moved('by IPv6, after its host died, without a controller, the other host answers', other);
  await putBack(host);
  await bed.address6(own);
  await startAgent(host);
  await moved('by IPv6, after its host came back the first host answers again', own);
  await until('one host to have it', async () => (await holders(ip)).join() === String(own), patience);

  await startController(controller, { arguments: ['--san', controller.address] });
  await until('the controller to answer', () => bed.causeway('host', 'ls').catch(() => undefined), patience);
  await bed.causeway('exposure', 'rm', '--yes', 'six');
  await apply();
  assert.deepEqual(await pairsOf(), []);
  assert.ok(!(await portNames()).some((name) => name.includes('virtual')));
  assert.ok(!(await groupNames()).some((name) => name.startsWith('causeway-exposed')));
  await until('nobody to have it', async () => (await holders(ip)).length === 0, patience);
  for (const index of [1, 2]) await bed.docker(index, 'rm', '--force', `dual${index}`);
});

test('a load balancer of IPv6 leads to hosts by IPv6; what the provider cannot do is said in its words', { skip }, async (t) => {
  const till = ['--network-alias', 'till'];
  for (const index of [1, 2]) await serve(index, `till6${index}`, `till${index}`, till, 'dual');
  const refused = async (...more: readonly string[]): Promise<string> => {
    const { status, stderr } = await bed.tryCauseway(['expose', 'dual', 'till', '80', '--load-balancer', '--ipv6', ...more]);
    assert.notEqual(status, 0);
    return stderr;
  };
  assert.match(await refused('--floating-ip'), /Neutron has no floating IPs of IPv6/);
  assert.match(await refused('--internal'), /A load balancer of IPv6 has no floating IP/);
  await exposeOf('dual', 'till', '80', '--host-port', '8093', '--name', 'till', '--load-balancer', '--ipv6');
  const applied = await until(
    'the load balancer to have both hosts',
    async () => {
      const one = await apply();
      const members = await withOctavia(async (client) => {
        const [balancer] = await client.list('loadbalancers', { name: 'causeway-till' });
        return balancer === undefined ? [] : await client.members(balancer.pools[0] ?? '');
      });
      return members.length === 2 ? one : undefined;
    },
    patience,
  );
  assert.match(applied.problems.join(), /^Exposure till: no router that this login sees is on its subnet/);
  const address = applied.exposures.find(({ exposure }) => exposure === 'till')?.address ?? assert.fail('it has no address');
  assert.match(address, /^fd00:20::/);
  assert.equal(await pageOf(asker, address, 80), undefined, 'which is so');
  const { id: subnet } = (await bed.member.get<{ id: string }[]>('neutron', '/v2.0/subnets?name=hosts6', 'subnets'))[0] ?? assert.fail();
  await bed.member.send('neutron', 'PUT', `/v2.0/routers/${bed.site.router}/add_router_interface`, { subnet_id: subnet });
  const seen = new Set<string>();
  const asked = performance.now();
  await until(
    'pages of both hosts',
    async () => {
      const found = await pageOf(asker, address, 80);
      if (found !== undefined) seen.add(found);
      return seen.size === 2;
    },
    patience,
  );
  t.diagnostic(`with a router on the subnet both answered after ${Math.round(performance.now() - asked)} ms`);
  const second = await apply();
  assert.deepEqual([second.steps, second.problems], [[], []], 'a second one has nothing to do');
  assert.match(await bed.causeway('cloud', 'plan'), new RegExp(`till +load balancer causeway-till +${address}`));

  const vip = await withOctavia(async (client) => {
    const [balancer] = await client.list('loadbalancers', { name: 'causeway-till' });
    const mixed = client.setMembers(balancer?.pools[0] ?? '', [{ address: '10.20.0.11', protocol_port: 8093, subnet_id: bed.site.subnet }]);
    await assert.rejects(mixed, (error) => isFault(error, 'unsupported') && /[Mm]ixing/.test(error.message));
    await client.settled(balancer?.id ?? '');
    return balancer?.portId;
  });
  assert.ok((await portsOf()).some(({ id }) => id === vip));

  const host = bed.host(2);
  t.diagnostic(`by IPv6, ${await lastLost(host, () => pageOf(asker, address, 80), 'till1')}`);
  await putBack(host);
  await bed.address6(2);
  await until('pages of the other host again', async () => (await pageOf(asker, address, 80)) === 'till2', patience);
  await bed.causeway('exposure', 'rm', '--yes', 'till');
  await apply();
  await withOctavia(async (client) => assert.deepEqual(await client.list('loadbalancers'), []));
  assert.ok(!(await portsOf()).some(({ id }) => id === vip), 'its address is given back');
  for (const index of [1, 2]) await bed.docker(index, 'rm', '--force', `till6${index}`);
});

/** What is open is told as far as it can be seen; and what cannot. */
async function openWithoutOctavia(account = demo): Promise<string> {
  const { status, stdout, stderr } = await bed.tryCauseway(
    ['exposure', 'ls', '--cloud', '--output', 'json'],
    bed.cloud.environment(account),
  );
  const found = JSON.parse(stdout) as Opening[];
  assert.deepEqual([status, found.some(({ ports, isOurs }) => isOurs && ports.includes('node1'))], [10, true], stderr);
  return stderr;
}

test('who may not use Octavia has everything else allowed, and is told so as soon as a load balancer is wished for', { skip }, async () => {
  const ask = (verb: string, ...more: readonly string[]) =>
    bed.tryCauseway(['cloud', verb, ...more, '--output', 'json'], bed.cloud.environment(limited));
  const applied = await ask('apply', '--yes');
  // On a busy machine it says what it waits for.
  const said = applied.stderr.replaceAll(/^Waiting for .*\n/gm, '');
  assert.deepEqual([applied.status, said, (JSON.parse(applied.stdout) as Applied).problems], [0, '', []]);
  assert.match(await openWithoutOctavia(limited), /^Not seen: load balancers, as Octavia refuses GET /m);
  await bed.causeway('expose', 'shop', 'nobody', '80', '--name', 'lacking', '--load-balancer');
  const { status, stderr } = await ask('plan');
  assert.equal(status, 5);
  assert.match(stderr, /Octavia refuses GET /);
  await bed.causeway('exposure', 'rm', '--yes', 'lacking');
});

test(
  'while Octavia alone is away a controller allows and closes networks as they come and go, and tells what is away',
  { skip },
  async () => {
    const { controller } = bed.cloud;
    await stopController(controller);
    await startController(controller, { arguments: ['--san', controller.address, '--cloud'], env: bed.cloud.environment() });
    interface Told {
      readonly cloud?: { readonly failure?: { readonly code: string; readonly message: string } };
    }
    const told = async () => (await bed.json<Told>('status')).cloud;
    const rules = async (): Promise<number> => {
      const found = await bed.member.list<{ name: string; security_group_rules: object[] }>(
        'neutron',
        '/v2.0/security-groups',
        'security_groups',
      );
      return found.find(({ name }) => name === 'causeway')?.security_group_rules.length ?? 0;
    };
    const isWell = async (): Promise<boolean> => {
      const cloud = await told().catch(() => undefined);
      return cloud !== undefined && cloud.failure === undefined;
    };
    await until('the controller to keep the cloud', isWell, patience);
    const few = await rules();
    await controller.stopService('octavia', 'SIGINT');
    await bed.causeway('network', 'create', 'late', '--encrypted');
    await until('the rules of the late network', async () => (await rules()) > few, patience);
    assert.match(await openWithoutOctavia(), /^Not seen: load balancers, as Octavia at .* cannot be reached/m);
    const { code, message } = await until('the absence to be told', async () => (await told())?.failure, patience);
    assert.match(`${code} ${message}`, /^unavailable Octavia at .* cannot be reached/);
    await bed.causeway('network', 'rm', '--yes', 'late');
    await until('its rules to be gone', async () => (await rules()) === few, patience);
  },
);
