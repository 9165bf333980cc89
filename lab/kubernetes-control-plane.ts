// A cluster's control plane on one host: etcd, API server, controller-manager and scheduler.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Family } from '#model/ip.ts';
import type { Host } from './host.ts';
import type { Identities } from './kubernetes-identities.ts';
import { type KubernetesProgram, pathOf, goEnvironment } from './kubernetes-programs.ts';
import { until } from './until.ts';

export const podRange = '10.244.0.0/16';
export type PodRanges = Readonly<Record<Family, string>>;
export const podRanges: PodRanges = { 4: podRange, 6: 'fd00:10:244::/56' };
const serviceRanges: Readonly<Record<Family, string>> = { 4: '10.96.0.0/16', 6: 'fd00:10:96::/112' };
/** The first address of each range of services. */
const apiServices = ['10.96.0.1', 'fd00:10:96::1'];
const etcdClient = 'http://127.0.0.1:2379';
const etcdPeer = 'http://127.0.0.1:2380';

/** Both families at once are an alpha feature of this server. */
export const gatesOf = (families: readonly Family[]): string[] => (families.length === 2 ? ['--feature-gates=IPv6DualStack=true'] : []);

export interface ControlPlaneOptions {
  /** For etcd's data. */
  readonly folder: string;
  readonly identities: Identities;
  /** The first is the main one. */
  readonly families: readonly Family[];
  readonly podRanges: PodRanges;
  /** Whether the API server answers. */
  readonly isReady: () => Promise<boolean>;
}

export class ControlPlane {
  readonly #host: Host;
  readonly #options: ControlPlaneOptions;

  constructor(host: Host, options: ControlPlaneOptions) {
    this.#host = host;
    this.#options = options;
  }

  /** Makes everybody's certificates and starts all four. */
  async start(): Promise<void> {
    const { address, address6 } = this.#host;
    const { identities } = this.#options;
    const names = ['', '.default', '.default.svc'].map((domain) => `DNS:kubernetes${domain}`);
    const addresses = [address, address6, ...apiServices].map((ip) => `IP:${ip}`);
    await Promise.all([
      identities.certificate('apiserver', '/CN=kube-apiserver', [...names, ...addresses]),
      identities.certificate('apiserver-kubelet', '/O=system:masters/CN=apiserver-kubelet'),
      identities.user('admin', '/O=system:masters/CN=admin'),
      identities.user('controller-manager', '/CN=system:kube-controller-manager'),
      identities.user('scheduler', '/CN=system:kube-scheduler'),
    ]);
    await this.#startEtcd();
    await this.startApi();
    await this.#startControllers();
  }

  async #startEtcd(): Promise<void> {
    await this.#start('etcd', [
      'etcd',
      `--data-dir=${this.#data}`,
      `--listen-client-urls=${etcdClient}`,
      `--advertise-client-urls=${etcdClient}`,
      `--listen-peer-urls=${etcdPeer}`,
      `--initial-advertise-peer-urls=${etcdPeer}`,
      `--initial-cluster=default=${etcdPeer}`,
      '--unsafe-no-fsync',
      '--log-level=warn',
    ]);
  }

  /** Writes what etcd has to `file`. */
  async backUp(file: string): Promise<void> {
    await this.#host.exec(['etcdctl', `--endpoints=${etcdClient}`, 'snapshot', 'save', file]);
  }

  /** Begins again with what etcd had then. */
  async restore(file: string): Promise<void> {
    // Asked to end, the API server first waits a minute for whoever watches.
    for (const name of ['kube-scheduler', 'kube-controller-manager', 'kube-apiserver']) await this.#host.stopService(name, 'SIGKILL');
    await this.#host.stopService('etcd');
    rmSync(this.#data, { recursive: true, force: true });
    const cluster = [`--initial-cluster=default=${etcdPeer}`, `--initial-advertise-peer-urls=${etcdPeer}`];
    await this.#host.exec(['etcdutl', 'snapshot', 'restore', file, `--data-dir=${this.#data}`, ...cluster]);
    await this.#startEtcd();
    await this.startApi();
    await this.#startControllers();
  }

  /** Starts the API server and waits until it answers. */
  async startApi(): Promise<void> {
    const { families, isReady } = this.#options;
    const { address, address6 } = this.#host;
    await this.#startProgram('kube-apiserver', [
      `--etcd-servers=${etcdClient}`,
      ...(families[0] === 6 ? [`--advertise-address=${address6}`, '--bind-address=::'] : [`--advertise-address=${address}`]),
      '--secure-port=6443',
      '--insecure-port=0',
      `--tls-cert-file=${this.#file('apiserver.crt')}`,
      `--tls-private-key-file=${this.#file('apiserver.key')}`,
      `--client-ca-file=${this.#file('ca.crt')}`,
      `--kubelet-client-certificate=${this.#file('apiserver-kubelet.crt')}`,
      `--kubelet-client-key=${this.#file('apiserver-kubelet.key')}`,
      '--kubelet-preferred-address-types=InternalIP',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-signing-key-file=${this.#file('sa.key')}`,
      `--service-account-key-file=${this.#file('sa.pub')}`,
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      '--allow-privileged=true',
      this.#serviceRange,
      ...gatesOf(families),
      // As in every server since 1.24: a service of type LoadBalancer may have ports of several protocols.
      '--feature-gates=MixedProtocolLBService=true',
    ]);
    await until('the API server to be ready', isReady, { timeoutMs: 300_000, intervalMs: 200 });
  }

  async #startControllers(): Promise<void> {
    const { families, podRanges: ranges } = this.#options;
    const shared = ['--bind-address=127.0.0.1', '--leader-elect=false'];
    await this.#startProgram('kube-controller-manager', [
      ...shared,
      `--kubeconfig=${this.#file('controller-manager.kubeconfig')}`,
      '--allocate-node-cidrs=false',
      '--configure-cloud-routes=false',
      `--cluster-cidr=${families.map((family) => ranges[family]).join(',')}`,
      this.#serviceRange,
      `--root-ca-file=${this.#file('ca.crt')}`,
      `--service-account-private-key-file=${this.#file('sa.key')}`,
      '--use-service-account-credentials=true',
      ...gatesOf(families),
    ]);
    await this.#startProgram('kube-scheduler', [...shared, `--kubeconfig=${this.#file('scheduler.kubeconfig')}`]);
  }

  get #data(): string {
    return join(this.#options.folder, 'etcd');
  }

  get #serviceRange(): string {
    return `--service-cluster-ip-range=${this.#options.families.map((family) => serviceRanges[family]).join(',')}`;
  }

  #file(name: string): string {
    return this.#options.identities.file(name);
  }

  #startProgram(program: KubernetesProgram, options: readonly string[]): Promise<void> {
    return this.#start(program, [pathOf(program), ...options]);
  }

  #start(name: string, argv: readonly string[]): Promise<void> {
    return this.#host.startService({ name, argv, env: goEnvironment });
  }
}
