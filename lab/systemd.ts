// A lab host that is run by systemd, for what only a real init shows: unit files, their sandboxing, their order. systemd boots
// in namespaces of its own as it does in a container; whether the machine itself runs it makes no difference.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Fault, isFault } from '#model/fault.ts';
import type { Boot, Host } from './host.ts';
import type { Lab } from './lab.ts';
import { plugIn } from './underlay.ts';
import { until } from './until.ts';

const init = '/lib/systemd/systemd';

const boot: Boot = {
  script: join(import.meta.dirname, 'boot-systemd.sh'),
  // This checkout is seen there, read-only, as /usr/lib/causeway.
  arguments: [join(import.meta.dirname, '..')],
  group: 'system',
  // systemd takes the root of the control groups that it sees for its own.
  namespaces: ['--cgroup'],
};

/**
 * Starts the host anew with systemd as its first process and waits until that has started all there is. The host forgets
 * everything but its engine's folder, now and whenever it is powered off. Faults: `unsupported` when this machine has no
 * systemd or its kernel refuses the namespaces or mounts; `internal` when a unit fails, with its words; `timeout`.
 */
export async function bootSystemd(lab: Lab, host: Host): Promise<void> {
  if (!existsSync(init)) {
    throw new Fault('unsupported', `Cannot boot lab host ${host.name} with systemd: there is no ${init}`, {
      hint: 'apt-get install systemd',
    });
  }
  await host.powerOff();
  try {
    await host.powerOn(boot);
  } catch (cause) {
    if (!isFault(cause, 'internal')) throw cause;
    throw new Fault('unsupported', `Cannot boot lab host ${host.name} with systemd: ${cause.message}`, { cause });
  }
  await plugIn(lab.underlay, host);
  const state = await until(
    'systemd to have started everything',
    async () => {
      const { stdout } = await host.exec(['systemctl', 'is-system-running'], { anyStatus: true });
      return ['running', 'degraded', 'maintenance'].find((end) => end === stdout.trim());
    },
    { timeoutMs: 300_000, intervalMs: 200 },
  );
  if (state !== 'running') throw new Fault('internal', `Lab host ${host.name} is ${state}: ${await failures(host)}`);
}

/** The failed units of a host and their last words. */
export async function failures(host: Host): Promise<string> {
  const failed = await host.ask(['systemctl', '--failed', '--plain', '--no-legend'], { anyStatus: true });
  const words = await host.ask(['journalctl', '--no-pager', '--priority=warning', '--lines=30', '--output=cat'], { anyStatus: true });
  return `${failed}\n${words}`;
}
