// A real Kubernetes in a lab: the control plane on the controller's host, containerd and a
// kubelet on every other host, and Causeway as the only network: no other CNI plugin, no kube-proxy. Nothing is simulated;
// only node ranges are given out here, as the controller-manager sleeps ten seconds before its first one.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Family } from '#model/ip.ts';
import { type RunOptions, startAgent, startController } from './causeway.ts';
import { installCni } from './cni.ts';
import type { CommandOptions, Output } from './command.ts';
import type { Host } from './host.ts';
import { boxImage, buildImage, type ImageRecipe } from './images.ts';
import type { Lab } from './lab.ts';
import { type Authority, Identities } from './kubernetes-identities.ts';
import { ControlPlane, gatesOf, podRanges, type PodRanges } from './kubernetes-control-plane.ts';
import { accessByHand, controllerByHand, importImage } from './kubernetes-install.ts';
import { pathOf, goEnvironment } from './kubernetes-programs.ts';
import { writeOciArchive } from './oci-archive.ts';
import { hostGroup, labDisk } from './state.ts';
import { until } from './until.ts';

/** What pods are made of: busybox. */
export const boxPodImage = 'localhost/causeway/box:1';
const pauseImage = 'localhost/causeway/pause:1';
/** Pods of the files in this folder of a host are run by its kubelet without being asked by anybody. */
export const staticPods = '/etc/kubernetes/manifests';
const nodeScript = join(import.meta.dirname, 'kubernetes-node.sh');
const containerdSocket = '/run/containerd/containerd.sock';
const runtimeEndpoint = `unix://${containerdSocket}`;

/** An image that every node has, by the name that pods use. */
export interface PodImage {
  readonly name: string;
  readonly recipe: ImageRecipe;
  readonly entrypoint?: readonly string[];
  readonly command: readonly string[];
}
const stay = ['sleep', '2147483647'];
const podImages: readonly PodImage[] = [boxPodImage, pauseImage].map((name) => ({ name, recipe: boxImage, command: stay }));

export interface KubernetesOptions {
  /** Beyond those of every cluster. */
  readonly images?: readonly PodImage[];
  /** Address of the name server that pods are told of. */
  readonly dns?: string;
  /** The first is the main one. IPv4 unless given. */
  readonly families?: readonly Family[];
  /** How long the IPv4 range of each node is; 24 unless given. */
  readonly nodeLength?: number;
  /** Of IPv4 pods, of length 16; the lab's own unless given. */
  readonly podRange?: string;
  /** Which range the first node has, counted from 0 as controller-managers give them; 1 unless given. */
  readonly firstRange?: number;
  /** Who has signed its certificates, where that is somebody else. */
  readonly authority?: Authority;
  /** The control plane is on another subnet than the nodes, and reaches no pod. */
  readonly isApart?: boolean;
}

/** The machines of a cluster: the control plane's and the nodes'. */
export type ClusterSite = Pick<Lab, 'name' | 'controller' | 'outside' | 'hosts'>;

export class Kubernetes {
  readonly lab: ClusterSite;
  readonly controlPlane: ControlPlane;
  readonly #folder: string;
  readonly #identities: Identities;
  readonly #options: KubernetesOptions;
  readonly #families: readonly Family[];
  readonly #podRanges: PodRanges;
  readonly #images: string[] = [];

  constructor(lab: ClusterSite, options: KubernetesOptions = {}) {
    this.lab = lab;
    this.#options = options;
    this.#folder = join(labDisk(lab.name), 'kubernetes');
    this.#identities = new Identities(join(this.#folder, 'identities'), `https://${lab.controller.address}:6443`);
    this.#families = options.families ?? [4];
    this.#podRanges = { ...podRanges, ...(options.podRange === undefined ? {} : { 4: options.podRange }) };
    const isReady = () => this.#succeeds('get', '--raw', '/readyz');
    this.controlPlane = new ControlPlane(lab.controller, {
      folder: this.#folder,
      identities: this.#identities,
      families: this.#families,
      podRanges: this.#podRanges,
      isReady,
    });
  }

  /** Of the cluster's administrator, as the controller's host sees it. */
  get kubeconfig(): string {
    return this.#identities.file('admin.kubeconfig');
  }

  /** The line that runs kubectl as the cluster's administrator, on the controller's host. */
  kubectlLine(argv: readonly string[]): string[] {
    const config = `--kubeconfig=${this.kubeconfig}`;
    // kubectl keeps what it has learned of a server by the server's address, which every lab has.
    const cache = `--cache-dir=${join(this.#folder, 'kubectl')}`;
    return ['kubectl', config, cache, ...argv];
  }

  /** Runs kubectl as the cluster's administrator. Faults as `run`. */
  tryKubectl(argv: readonly string[], options: CommandOptions = {}): Promise<Output> {
    return this.lab.controller.exec(this.kubectlLine(argv), { ...options, env: { ...goEnvironment, ...options.env } });
  }

  async kubectl(...argv: readonly string[]): Promise<string> {
    return (await this.tryKubectl(argv)).stdout.trim();
  }

  async apply(...objects: readonly object[]): Promise<void> {
    await this.applyText(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
  }

  async applyText(input: string, ...words: readonly string[]): Promise<void> {
    await this.tryKubectl(['apply', '--filename=-', ...words], { input });
  }

  /** Address of the API, as nodes reach it. */
  get server(): string {
    return `https://${this.lab.controller.address}:6443`;
  }

  /** Ranges of pods, one per family. */
  get podCidrs(): string[] {
    return this.#families.map((family) => this.#podRanges[family]);
  }

  /** Control plane and `hosts`, all unless said, as nodes with agents started by hand; on return every node is ready. */
  async start(hosts: readonly Host[] = this.lab.hosts): Promise<void> {
    await this.#startControlPlane();
    await this.applyText(accessByHand());
    await Promise.all(hosts.map((host) => this.startNode(host)));
    await this.untilReady();
  }

  /** Control plane and all hosts as nodes that wait for a network: nothing of Causeway is there. */
  async startWithoutNetwork(): Promise<void> {
    await this.#startControlPlane();
    await Promise.all(this.lab.hosts.map((host, index) => this.#startMachine(host, index + 1)));
  }

  async #startControlPlane(): Promise<void> {
    mkdirSync(this.#folder, { recursive: true });
    await this.#identities.make(this.#options.authority);
    await this.controlPlane.start();
    await this.#makeImages();
  }

  /** Every node is ready, and pods can be made. Fault `timeout`. */
  async untilReady(): Promise<void> {
    await this.kubectl('wait', '--for=condition=Ready', 'node', '--all', '--timeout=300s');
    await this.untilAccount('default');
  }

  /** Pods can be made in the namespace: its service account has a token, without which this server refuses them. Fault `timeout`. */
  async untilAccount(namespace: string): Promise<void> {
    const words = ['get', 'serviceaccount', 'default', `--namespace=${namespace}`, '--output=jsonpath={.secrets[*].name}'];
    const hasToken = async (): Promise<boolean> => (await this.kubectl(...words)) !== '';
    await until(`the service account of ${namespace}`, hasToken, { timeoutMs: 180_000, intervalMs: 200 });
  }

  /**
   * Custom resources of every definition can be made. Asked again and again: kubectl refuses to wait for a definition of this very
   * moment, which has no conditions yet. Fault `timeout`.
   */
  async untilDefined(): Promise<void> {
    const isDefined = () => this.#succeeds('wait', '--for=condition=Established', 'crd', '--all', '--timeout=5s');
    await until('the definitions of custom resources to be taken in', isDefined, { timeoutMs: 180_000, intervalMs: 200 });
  }

  async #succeeds(...argv: readonly string[]): Promise<boolean> {
    return (await this.tryKubectl(argv, { anyStatus: true })).status === 0;
  }

  /** Tar files of the images that pods and their sandboxes are made of. */
  async #makeImages(): Promise<void> {
    for (const { recipe, ...image } of [...podImages, ...(this.#options.images ?? [])]) {
      const target = join(this.#folder, `${image.name.replaceAll(/\W/g, '-')}.tar`);
      await writeOciArchive({ layer: await buildImage(recipe), ...image }, target, this.#folder);
      this.#images.push(target);
    }
  }

  /**
   * A kubelet with its container runtime, and an agent; and the Node gets its range of addresses, the `index`-th. They are
   * services of the host, so they come back when it is rebooted. `more` is at the end of the agent's command line.
   */
  async startNode(host: Host, index: number = this.lab.hosts.indexOf(host) + 1, more: readonly string[] = []): Promise<void> {
    const { name } = host;
    await this.#startMachine(host, index);
    await installCni(host.file('/opt/cni/bin'));
    await this.#identities.user(`agent-${name}`, `/O=causeway:agents/CN=causeway:agent:${name}`);
    await this.startAgent(host, ...more);
  }

  async #startMachine(host: Host, index: number): Promise<void> {
    const { name } = host;
    await this.#startRuntime(host);
    await this.#startKubelet(host);
    await until(`node ${name} to be known`, () => this.#succeeds('get', 'node', name), { timeoutMs: 180_000, intervalMs: 500 });
    const { firstRange = 1, nodeLength } = this.#options;
    const ranges = this.#families.map((family) => nodeRange(this.#podRanges[family], index - 1 + firstRange, nodeLength));
    await this.kubectl('patch', 'node', name, '--patch', JSON.stringify({ spec: { podCIDR: ranges[0], podCIDRs: ranges } }));
    if (this.#options.isApart === true) return;
    // The API server is asked to pass requests on to pods, so it must reach them.
    for (const range of ranges) {
      const gateway = range.includes(':') ? host.address6 : host.address;
      await this.lab.controller.exec(['ip', 'route', 'replace', range, 'via', gateway]);
    }
  }

  async restartKubelet(host: Host): Promise<void> {
    await host.stopService('kubelet');
    await this.#startKubelet(host);
  }

  /** Starts the node's agent, `more` at the end of its command line. */
  startAgent(host: Host, ...more: readonly string[]): Promise<void> {
    const config = this.#identities.file(`agent-${host.name}.kubeconfig`);
    const ranges = this.podCidrs.flatMap((range) => ['--pod-cidr', range]);
    // Else the agent takes the IPv4 address that the machine has as well.
    const underlay = this.#families[0] === 6 ? ['--underlay', host.address6] : [];
    const words = ['--kubernetes', config, ...ranges, ...underlay, '--host', host.name, '--log-level', 'debug'];
    return startAgent(host, { arguments: [...words, ...more] });
  }

  /** Starts Causeway's controller on the control plane's host, with no more rights than the chart gives one. */
  async startController({ arguments: more = [], ...options }: RunOptions = {}): Promise<void> {
    const user = 'causeway:controller';
    await this.applyText(controllerByHand(user));
    const kubeconfig = await this.#identities.user('causeway-controller', `/CN=${user}`);
    await startController(this.lab.controller, { ...options, arguments: ['--kubernetes', kubeconfig, ...more] });
  }

  async #startRuntime(host: Host): Promise<void> {
    const group = podGroup(host);
    const file = join(this.#folder, `containerd-${host.name}.toml`);
    // Below /var/lib/docker is a real file system, which overlayfs needs. Root may be without CAP_SYS_RESOURCE here.
    // Debian's runtime looks for its plugins elsewhere than all others.
    writeFileSync(
      file,
      `version = 2
root = "/var/lib/docker/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${pauseImage}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
`,
    );
    await host.startService({
      name: 'containerd',
      argv: [nodeScript, group, 'containerd', '--config', file],
      env: goEnvironment,
      ready: { socket: containerdSocket },
    });
    await until(`containerd on ${host.name}`, async () => (await host.exec(['ctr', 'version'], { anyStatus: true })).status === 0);
    for (const image of this.#images) await importImage(host, image);
  }

  async #startKubelet(host: Host): Promise<void> {
    const { name, address, address6 } = host;
    const names = [`DNS:${name}`, ...[address, address6].filter((ip) => ip !== '').map((ip) => `IP:${ip}`)];
    const kubeconfig = await this.#identities.user(name, `/O=system:nodes/CN=system:node:${name}`, names);
    const file = join(this.#folder, `kubelet-${name}.yaml`);
    const config = {
      kind: 'KubeletConfiguration',
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      authentication: {
        anonymous: { enabled: false },
        webhook: { enabled: true },
        x509: { clientCAFile: this.#identities.file('ca.crt') },
      },
      authorization: { mode: 'Webhook' },
      tlsCertFile: this.#identities.file(`${name}.crt`),
      tlsPrivateKeyFile: this.#identities.file(`${name}.key`),
      clusterDomain: 'cluster.local',
      ...(this.#options.dns === undefined ? {} : { clusterDNS: [this.#options.dns] }),
      cgroupDriver: 'cgroupfs',
      cgroupRoot: podGroup(host),
      staticPodPath: staticPods,
      failSwapOn: false,
      // The node is called ready as soon as the network is, not ten seconds later.
      nodeStatusUpdateFrequency: '1s',
      // What has not changed is not told every second as well, to whoever watches nodes.
      nodeStatusReportFrequency: '5m',
      // The present defaults. With those of 1.20 (5, 10) a kubelet waits for its own limit most of the time in which pods start.
      kubeAPIQPS: 50,
      kubeAPIBurst: 100,
      eventRecordQPS: 50,
      eventBurst: 100,
      evictionHard: { 'memory.available': '100Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
      imageGCHighThresholdPercent: 100,
      imageGCLowThresholdPercent: 99,
    };
    writeFileSync(file, JSON.stringify(config));
    const argv = [
      pathOf('kubelet'),
      `--config=${file}`,
      `--kubeconfig=${kubeconfig}`,
      '--root-dir=/var/lib/docker/kubelet',
      `--hostname-override=${name}`,
      `--node-ip=${this.#families.map((family) => (family === 4 ? address : address6)).join(',')}`,
      ...gatesOf(this.#families),
      '--container-runtime=remote',
      `--container-runtime-endpoint=${runtimeEndpoint}`,
      '--network-plugin=cni',
    ];
    await host.startService({ name: 'kubelet', argv, env: { ...goEnvironment, AWS_EC2_METADATA_DISABLED: 'true' } });
  }
}

/** The range of that number in the whole. */
const nodeRange = (range: string, index: number, length = 24): string =>
  range.includes(':') ? range.replace('::/56', `:${index.toString(16)}::/64`) : range.replace('.0.0/16', `.${index}.0/${length}`);

const podGroup = (host: Host): string => `${hostGroup(host.lab, host.name)}/pods`;
