// Calls to a cloud's Neutron, counted on its controller: it closes every connection after one answer, so connections that are begun are calls.
import { Fault } from '#model/fault.ts';
import type { Host } from './host.ts';
import { apiPorts } from './openstack-services.ts';
import { until } from './until.ts';

/** What was begun has been looked at for the last time when there was no call for so long. */
const calmMs = 3_000;

export class NeutronCalls {
  readonly #controller: Host;

  private constructor(controller: Host) {
    this.#controller = controller;
  }

  /** `from`: only those from this address. */
  static async count(controller: Host, from?: string): Promise<NeutronCalls> {
    const first = `tcp dport ${apiPorts.neutron} tcp flags & (syn | ack) == syn counter name neutron`;
    const input = `table inet calls {
  counter neutron { }
  chain in { type filter hook input priority 0; ${from === undefined ? '' : `ip saddr ${from} `}${first}; }
}`;
    await controller.exec(['nft', '-f', '-'], { netOnly: true, input });
    return new NeutronCalls(controller);
  }

  /** Until now. */
  async made(): Promise<number> {
    const { stdout } = await this.#controller.exec(['nft', 'list', 'counter', 'inet', 'calls', 'neutron'], { netOnly: true });
    const packets = /packets (\d+)/.exec(stdout)?.[1];
    if (packets === undefined) throw new Fault('internal', `No counter in: ${stdout}`);
    return Number(packets);
  }

  /** As `made`, once there were none for a while. */
  async calm(timeoutMs: number): Promise<number> {
    let last = Number.NaN;
    const isCalm = async (): Promise<boolean> => {
      const [was, now] = [last, await this.made()];
      last = now;
      return was === now;
    };
    await until('calls to Neutron to end', isCalm, { timeoutMs, intervalMs: calmMs });
    return last;
  }

  async stop(): Promise<void> {
    await this.#controller.exec(['nft', 'delete', 'table', 'inet', 'calls'], { netOnly: true });
  }
}
