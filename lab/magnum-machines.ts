// What Magnum's driver of the lab hands out (magnum-driver/): hosts of the lab, which become a cluster of a real Kubernetes with
// the authority that Magnum made for it, and are wiped when the cluster is deleted. Orders and reports lie in a folder of the
// cloud's controller, which is where the conductor runs.
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from './host.ts';
import type { Authority } from './kubernetes-identities.ts';
import { Kubernetes, type KubernetesOptions } from './kubernetes.ts';
import { kubernetesVersion } from './kubernetes-programs.ts';
import type { Lab } from './lab.ts';
import { hostDisk, labDisk, readJson, writeJson } from './state.ts';

/** Magnum's own, where no label says another. */
const usualRange = '10.100.0.0/16';
const root = '/var/lib/causeway-magnum/machines';

interface Machine {
  readonly name: string;
  readonly address: string;
}
interface Order {
  readonly generation: number;
  readonly wish: 'create' | 'upgrade' | 'delete';
  readonly masters: readonly Machine[];
  readonly nodes: readonly Machine[];
  readonly labels: Readonly<Record<string, string>>;
  readonly authority: Authority;
}
interface Report {
  readonly generation: number;
  readonly status: 'COMPLETE' | 'FAILED';
  readonly reason?: string;
  readonly api?: string;
  readonly version?: string;
}

export interface MachineOptions {
  /** Done to each node's machine, whose container runtime runs then: what an image for such clusters would have. */
  readonly prepare: (host: Host) => Promise<void>;
}

export class Machines implements AsyncDisposable {
  readonly #lab: Lab;
  readonly #options: MachineOptions;
  readonly #clusters = new Map<string, Kubernetes>();
  readonly #end = new AbortController();
  readonly #work: Promise<void>;

  /** Hands out `hosts` from now on, until it is disposed of. */
  constructor(lab: Lab, hosts: readonly Host[], options: MachineOptions) {
    this.#lab = lab;
    this.#options = options;
    mkdirSync(this.#file('clusters'), { recursive: true, mode: 0o700 });
    for (const { name, address } of hosts) writeJson(this.#file('free', name), { name, address } satisfies Machine);
    this.#work = this.#follow();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await this.#work;
  }

  /** Names of machines that no cluster has. */
  get free(): string[] {
    return readdirSync(this.#file('free')).toSorted();
  }

  /** Of a cluster, by Magnum's id. */
  cluster(id: string): Kubernetes {
    const found = this.#clusters.get(id);
    if (found === undefined) throw new TypeError(`There is no cluster ${id}`);
    return found;
  }

  #file(...path: readonly string[]): string {
    return join(this.#lab.controller.file(root), ...path);
  }

  async #follow(): Promise<void> {
    while (!this.#end.signal.aborted) {
      for (const id of readdirSync(this.#file('clusters'))) await this.#carryOut(id);
      await sleep(200);
    }
  }

  async #carryOut(id: string): Promise<void> {
    const order = readJson(this.#file('clusters', id, 'order')) as Order | undefined;
    const path = this.#file('clusters', id, 'report');
    const before = readJson(path) as Report | undefined;
    if (order === undefined || before?.generation === order.generation) return;
    const { generation } = order;
    let report: Report;
    try {
      const api = await this.#does(id, order);
      report = { generation, status: 'COMPLETE', version: `v${kubernetesVersion}`, api };
    } catch (error) {
      report = { generation, status: 'FAILED', reason: error instanceof Error ? error.message : String(error) };
    }
    if (existsSync(this.#file('clusters', id))) writeJson(path, report);
  }

  /** Answers the address of the cluster's API. */
  async #does(id: string, order: Order): Promise<string> {
    const [controller, ...more] = order.masters.map(({ name }) => this.#lab.host(name));
    if (controller === undefined || more.length > 0) throw new TypeError('A cluster of the lab has one master');
    const hosts = order.nodes.map(({ name }) => this.#lab.host(name));
    if (order.wish === 'create') {
      const cluster = new Kubernetes({ name: this.#lab.name, outside: this.#lab.outside, controller, hosts }, optionsOf(order));
      this.#clusters.set(id, cluster);
      await cluster.startWithoutNetwork();
      await Promise.all(hosts.map((host) => this.#options.prepare(host)));
    } else if (order.wish === 'upgrade') {
      await Promise.all(hosts.map((host) => this.cluster(id).restartKubelet(host)));
    } else {
      this.#clusters.delete(id);
      await Promise.all([controller, ...hosts].map((host) => this.#wipe(host)));
      rmSync(join(labDisk(this.#lab.name), 'kubernetes'), { recursive: true, force: true });
    }
    return `https://${controller.address}:6443`;
  }

  async #wipe(host: Host): Promise<void> {
    await host.powerOff();
    rmSync(join(host.folder, 'services'), { recursive: true, force: true });
    rmSync(hostDisk(this.#lab.name, host.name), { recursive: true, force: true });
    await this.#lab.powerOn(host);
  }
}

function optionsOf({ authority, labels }: Order): KubernetesOptions {
  return { authority, podRange: labels['flannel_network_cidr'] ?? usualRange };
}
