// What an agent keeps resident: freshly joined and idle, and with ten thousand remote endpoints in a network that its host
// takes part in; against the engine of the same host. The remote endpoints are of ten hosts that are none (fake-host.ts), in
// blocks of their own, so the agent plans routes and neighbours for all of them.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { docker } from '#lab/engine.ts';
import { boxImage } from '#lab/images.ts';
import { makeBed } from './bed.ts';
import { installCauseway } from './causeway.ts';
import { memoryOf } from './process.ts';
import { median, type Row } from './report.ts';

const limitMib = 120;
const fakeHosts = 10;
const perHost = 1000;
/** An agent gives memory back when nothing has happened for a while (agent/memory.ts). */
const settleMs = 30_000;

export async function memoryBench(): Promise<Row[]> {
  await using bed = await makeBed({ hosts: 1, images: [boxImage], swarm: false });
  const causeway = await installCauseway(bed);
  const host = bed.host(1);
  /** Over five seconds, so that one collection of garbage does not decide. */
  const measure = async (): Promise<number> => {
    await sleep(settleMs);
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
  // From a host of the lab: the controller's address is known in there only.
  const order = JSON.stringify({ access: causeway.access, network: 'big', hosts: fakeHosts, perHost });
  await bed.lab.controller.ask(
    [process.execPath, '--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'memory-hosts.ts'), order],
    {
      timeoutMs: 120_000,
    },
  );
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
