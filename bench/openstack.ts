// In a real OpenStack, on Docker hosts that are its instances with port security on: what a container start costs with a Neutron port of
// its own from the pool, against the model overlay on the same host; and what carriage leaves of what instances send each other.
// Open vSwitch is the userspace one, so figures across hosts are small, and the ratio is what counts.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { startController, stopController } from '#lab/causeway.ts';
import { docker } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, importImages } from '#lab/images.ts';
import { NeutronCalls } from '#lab/neutron-calls.ts';
import { demo } from '#lab/openstack.ts';
import { type CloudBed, makeCloudBed } from '#lab/openstack-bed.ts';
import { openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';
import { alternate, medians } from './alternate.ts';
import { claimBed } from './bed.ts';
import { type Lane, measures, meterImage, meterNeeds, openLane, seconds, units } from './meters.ts';
import { compare, type Row } from './report.ts';

const starts = 15;
/**
 * What kuryr-libnetwork asks for each container at least (kuryr_libnetwork/controllers.py): for its address the pool, the subnet and a new
 * port; for its endpoint the network, subnets, the port, and its change; for its joining the network, the port and subnets.
 */
const kuryrCalls = 10;
const rounds = 5;
const patience = { timeoutMs: 120_000, intervalMs: 300 };

export async function openstackBench(): Promise<Row[]> {
  const name = await claimBed([...openstackNeeds, ...meterNeeds]);
  await using bed = await makeCloudBed({ name });
  const { controller } = bed.cloud;
  await stopController(controller);
  await startController(controller, {
    arguments: ['--san', controller.address, '--cloud', '--cloud-interval', '3600', '--log-level', 'warn'],
    env: bed.cloud.environment(demo),
  });
  await until('the controller to answer', () => bed.causeway('status').catch(() => undefined), patience);
  for (const { host } of bed.instances) await importImages(host, [meterImage]);
  return [...(await attach(bed)), ...(await across(bed))];
}

/** As bench/attach.ts: `docker run --rm` with the network, less the same without any. The network is in use on the host. */
async function attach(bed: CloudBed): Promise<Row[]> {
  await bed.causeway('network', 'create', 'ports', '--model', 'neutron', '--neutron-network', 'hosts');
  await bed.causeway('network', 'create', 'overlay', '--subnet', '10.40.0.0/16');
  for (const network of ['ports', 'overlay']) {
    await bed.untilKnown(1, network);
    const isRunning = async (): Promise<boolean> => {
      await docker(bed.host(1), ['rm', '--force', `resident-${network}`], { anyStatus: true });
      return (await bed.run(1, `resident-${network}`, network)) !== '';
    };
    // The first container of a host has its ports made, which may take longer than the engine waits.
    await until(`a container of ${network}`, isRunning, patience);
  }
  const calls = await NeutronCalls.count(bed.cloud.controller);
  const time = async (network: string): Promise<number> => {
    const began = performance.now();
    await bed.docker(1, 'run', '--rm', `--network=${network}`, boxImage.name, 'true');
    return performance.now() - began;
  };
  const sides = { none: () => time('none'), ours: () => time('ports'), overlay: () => time('overlay') };
  for (const side of Object.values(sides)) await side();
  const quiet = await calls.calm(patience.timeoutMs);
  const { none, ours, overlay } = medians(await alternate('docker run in an instance, ms', starts, sides));
  const made = (await calls.made()) - quiet;
  await calls.stop();
  return [
    {
      measure: `calls of Neutron in ${starts} starts with a port in stock and ${starts} of model overlay`,
      ours: String(made),
      against: `${starts * kuryrCalls} (kuryr-libnetwork, by its source)`,
      ratio: made / (starts * kuryrCalls),
      target: '<= 0.1 a start',
      met: made <= starts * 0.1,
    },
    compare('attach: model neutron, ports in stock', ours - none, overlay - none, { unit: 'ms', peer: 'model overlay', atMost: 1.5 }),
  ];
}

/** Containers on two instances against programs of the instances themselves, on two hypervisors. */
async function across(bed: CloudBed): Promise<Row[]> {
  const [client, server] = [bed.host(1), bed.host(2)];
  // What instances send each other: as a user of the cloud lets it in.
  const rule = { security_group_id: bed.site.group, direction: 'ingress', remote_ip_prefix: '10.20.0.0/24' };
  await bed.member.send('neutron', 'POST', '/v2.0/security-group-rules', { security_group_rule: rule });
  const carried = { 'host gateway': 'host-gateway', vxlan: 'vxlan' };
  const meters: Record<string, Awaited<ReturnType<typeof openLane>>> = {};
  for (const [index, [side, carry]] of Object.entries(carried).entries()) {
    await bed.causeway('network', 'create', carry, '--model', 'flannel', '--carry', carry, '--subnet', `10.${50 + index}.0.0/16`);
    for (const number of [1, 2]) await bed.untilKnown(number, carry);
    meters[side] = await openLane({ name: carry, client, server, network: carry });
  }
  const instances: Lane = { name: 'instances', client, server, network: 'host', address: server.address };
  meters['instances'] = await openLane(instances);
  const rows: Row[] = [];
  const compareAll = async (what: string, unit: string, take: (meter: Meter) => Promise<number>): Promise<void> => {
    const sides = Object.fromEntries(Object.entries(meters).map(([side, meter]) => [side, () => take(meter)]));
    const { instances: theirs = Number.NaN, ...ours } = medians(await alternate(`in the cloud, ${what}`, rounds, sides));
    for (const [side, value] of Object.entries(ours)) {
      const target = side === 'host gateway' ? { atLeast: 0.95 } : {};
      rows.push(compare(`in the cloud, ${side}: ${what}`, value, theirs, { unit, peer: 'instance to instance', ...target }));
    }
  };
  for (const measure of measures) await compareAll(measure, units[measure], (meter) => meter(measure));
  await compareAll('throughput by processor time', 'Mbit/s of a processor', (meter) => byProcessor(meter, server));
  return rows;
}

type Meter = Awaited<ReturnType<typeof openLane>>;

/** What the cloud carries for a second of a processor that its programs took: what is lost on the way counts only as work. */
async function byProcessor(meter: Meter, instance: Host): Promise<number> {
  const before = busySeconds(instance);
  const throughput = await meter('throughput');
  return (throughput * seconds) / (busySeconds(instance) - before);
}

/** Of everything in the lab, in the kernel, too (cgroup-v2.rst, cpu.stat). */
function busySeconds({ cgroup }: Host): number {
  const text = readFileSync(join(dirname(cgroup), 'cpu.stat'), 'utf8');
  return Number(/^usage_usec (\d+)$/m.exec(text)?.[1]) / 1e6;
}
