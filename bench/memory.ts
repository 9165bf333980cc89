// What an agent keeps resident: freshly joined and idle, and with ten thousand remote endpoints in a network that its host
// takes part in; against the engine of the same host. The remote endpoints are of ten hosts that are none (fake-host.ts), in
// blocks of their own, so the agent plans routes and neighbours for all of them.
import { setTimeout as sleep } from 'node:timers/promises';
import { docker } from '#lab/engine.ts';
import { boxImage } from '#lab/images.ts';
import { makeBed } from './bed.ts';
import { installCauseway } from './causeway.ts';
import { adminClient, claimAddresses, endpointRequest, joinFakeHost } from './fake-host.ts';
import { memoryOf } from './process.ts';
import { median, type Row } from './report.ts';

const limitMib = 120;
const fakeHosts = 10;
const perHost = 1000;
const batchSize = 500;

export async function memoryBench(): Promise<Row[]> {
  await using bed = await makeBed({ hosts: 1, images: [boxImage], swarm: false });
  const causeway = await installCauseway(bed);
  const host = bed.host(1);
  /** Over five seconds, so that one collection of garbage does not decide. */
  const measure = async (): Promise<number> => {
    const values: number[] = [];
    for (let second = 0; second < 5; second++) {
      await sleep(1000);
      values.push(memoryOf(host, 'bin/agent.ts'));
    }
    return median(values);
  };
  const idle = await measure();

  await causeway.createNetwork('big', ['--subnet', '10.50.0.0/16']);
  await docker(host, ['run', '--detach', '--name', 'member', '--network', 'big', boxImage.name, 'sleep', '1000']);
  await using admin = adminClient(causeway.access);
  const network = await admin.get('networks', 'big');
  const [pool] = await admin.all('pools', { network: network.id });
  if (pool === undefined) throw new TypeError('Network big has no pool');
  for (let number = 1; number <= fakeHosts; number++) {
    const fake = await joinFakeHost(admin, causeway.url, `fake-${number}`);
    await using client = fake.client;
    const addresses = [];
    while (addresses.length < perHost) addresses.push(...(await claimAddresses(fake, network.id, pool.id)));
    const puts = addresses.slice(0, perHost).map((ip, index) => {
      const id = `fake${String(number).padStart(3, '0')}${String(index).padStart(6, '0')}`;
      return endpointRequest({ id, network: network.id, host: fake.name, ip });
    });
    for (let start = 0; start < puts.length; start += batchSize) {
      const results = await client.batchEndpoints({ puts: puts.slice(start, start + batchSize), deletes: [] });
      const refused = results.find(({ problem }) => problem !== undefined);
      if (refused !== undefined) throw new TypeError(`An endpoint was refused: ${refused.problem?.detail}`);
    }
  }
  await sleep(3000);
  const loaded = await measure();
  const engine = `${memoryOf(host, 'dockerd').toFixed(0)} MiB (dockerd)`;
  const row = (measureName: string, mib: number): Row => ({
    measure: measureName,
    ours: `${mib.toFixed(0)} MiB`,
    against: engine,
    target: `< ${limitMib} MiB`,
    met: mib < limitMib,
  });
  return [row('memory: agent, idle', idle), row(`memory: agent, ${fakeHosts * perHost} remote endpoints`, loaded)];
}
