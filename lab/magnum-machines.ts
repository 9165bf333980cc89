// What Magnum's driver of the lab hands out (magnum-driver/): hosts of the lab, which become a cluster of a real Kubernetes with
// the authority that Magnum made for it, and are wiped when the cluster is deleted.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './host.ts';
import type { Authority } from './kubernetes-identities.ts';
import { Kubernetes, type KubernetesOptions } from './kubernetes.ts';
import { kubernetesVersion } from './kubernetes-programs.ts';
import type { Lab } from './lab.ts';
import { type Machine, Orders } from './orders.ts';
import { hostDisk, labDisk } from './state.ts';

/** Magnum's own, where no label says another. */
const usualRange = '10.100.0.0/16';
const root = '/var/lib/causeway-magnum/machines';

interface Order {
  readonly generation: number;
  readonly wish: 'create' | 'upgrade' | 'delete';
  readonly masters: readonly Machine[];
  readonly nodes: readonly Machine[];
  readonly labels: Readonly<Record<string, string>>;
  readonly authority: Authority;
}

export interface MachineOptions {
  /** Done to each node's machine, whose container runtime runs then: what an image for such clusters would have. */
  readonly prepare: (host: Host) => Promise<void>;
  /** All but the first machine are instances of the cloud, on another subnet. */
  readonly isApart?: boolean;
}

export class Machines implements AsyncDisposable {
  readonly #lab: Lab;
  readonly #options: MachineOptions;
  readonly #clusters = new Map<string, Kubernetes>();
  readonly #orders: Orders<Order>;

  /** Hands out `hosts` from now on, until it is disposed of. */
  constructor(lab: Lab, hosts: readonly Host[], options: MachineOptions) {
    this.#lab = lab;
    this.#options = options;
    this.#orders = new Orders({
      controller: lab.controller,
      root,
      kind: 'clusters',
      hosts,
      carryOut: async (id, order) => ({ version: `v${kubernetesVersion}`, api: await this.#does(id, order) }),
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#orders[Symbol.asyncDispose]();
  }

  /** Names of machines that no cluster has. */
  get free(): string[] {
    return this.#orders.free;
  }

  /** Of a cluster, by Magnum's id. */
  cluster(id: string): Kubernetes {
    const found = this.#clusters.get(id);
    if (found === undefined) throw new TypeError(`There is no cluster ${id}`);
    return found;
  }

  /** Answers the address of the cluster's API. */
  async #does(id: string, order: Order): Promise<string> {
    const [controller, ...more] = order.masters.map(({ name }) => this.#lab.host(name));
    if (controller === undefined || more.length > 0) throw new TypeError('A cluster of the lab has one master');
    const hosts = order.nodes.map(({ name }) => this.#lab.host(name));
    if (order.wish === 'create') {
      const cluster = new Kubernetes({ name: this.#lab.name, outside: this.#lab.outside, controller, hosts }, this.#optionsOf(order));
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

  #optionsOf({ authority, labels }: Order): KubernetesOptions {
    const [podRange = usualRange, ...more] = (labels['causeway_pod_cidr'] ?? labels['flannel_network_cidr'] ?? usualRange).split('+');
    const { isApart = false } = this.#options;
    return { authority, podRange, isApart, families: more.length === 0 ? [4] : [4, 6] };
  }

  async #wipe(host: Host): Promise<void> {
    await host.powerOff();
    rmSync(join(host.folder, 'services'), { recursive: true, force: true });
    rmSync(hostDisk(this.#lab.name, host.name), { recursive: true, force: true });
    await this.#lab.powerOn(host);
  }
}
