// A real Kubernetes in a lab: etcd, API server, controller-manager and scheduler on the controller's host, containerd and a
// kubelet on every other host, and Causeway as the only network: no other CNI plugin, no kube-proxy. Nothing is simulated;
// only node ranges are given out here, as the controller-manager sleeps ten seconds before its first one.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startAgent } from './causeway.ts';
import { installCni } from './cni.ts';
import type { CommandOptions, Output } from './command.ts';
import type { Host } from './host.ts';
import { boxImage, buildImage } from './images.ts';
import type { Lab } from './lab.ts';
import { Identities } from './kubernetes-identities.ts';
import { pathOf } from './kubernetes-programs.ts';
import { writeOciArchive } from './oci-archive.ts';
import { hostGroup, labDisk } from './state.ts';
import { until } from './until.ts';

export const podRange = '10.244.0.0/16';
export const serviceRange = '10.96.0.0/16';
const apiService = '10.96.0.1';
/** What pods are made of: busybox. */
export const boxPodImage = 'localhost/causeway/box:1';
const pauseImage = 'localhost/causeway/pause:1';
const containerdSocket = '/run/containerd/containerd.sock';
const runtimeEndpoint = `unix://${containerdSocket}`;

export class Kubernetes {
  readonly lab: Lab;
  readonly #folder: string;
  readonly #identities: Identities;

  constructor(lab: Lab) {
    this.lab = lab;
    this.#folder = join(labDisk(lab.name), 'kubernetes');
    this.#identities = new Identities(join(this.#folder, 'identities'), `https://${lab.controller.address}:6443`);
  }

  /** Runs kubectl as the cluster's administrator. Faults as `run`. */
  tryKubectl(argv: readonly string[], options: CommandOptions = {}): Promise<Output> {
    const config = `--kubeconfig=${this.#identities.file('admin.kubeconfig')}`;
    // kubectl keeps what it has learned of a server by the server's address, which every lab has.
    const cache = `--cache-dir=${join(this.#folder, 'kubectl')}`;
    return this.lab.controller.exec(['kubectl', config, cache, ...argv], options);
  }

  async kubectl(...argv: readonly string[]): Promise<string> {
    return (await this.tryKubectl(argv)).stdout.trim();
  }

  async apply(...objects: readonly object[]): Promise<void> {
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    await this.tryKubectl(['apply', '--filename=-'], { input });
  }

  /** Control plane and all hosts as nodes; on return every node is ready. */
  async start(): Promise<void> {
    const { controller, hosts } = this.lab;
    mkdirSync(this.#folder, { recursive: true });
    await this.#identities.make();
    await this.#startControlPlane(controller);
    await this.tryKubectl(['apply', '--filename', join(import.meta.dirname, '..', 'packaging', 'kubernetes', 'access.yaml')]);
    const images = await this.#images();
    await Promise.all(hosts.map((host) => this.startNode(host, images)));
    await this.kubectl('wait', '--for=condition=Ready', 'node', '--all', '--timeout=120s');
    await until('the default service account', () => this.#succeeds('get', 'serviceaccount', 'default'), { timeoutMs: 60_000 });
  }

  async #succeeds(...argv: readonly string[]): Promise<boolean> {
    return (await this.tryKubectl(argv, { anyStatus: true })).status === 0;
  }

  async #startControlPlane(host: Host): Promise<void> {
    const { address } = host;
    const file = (name: string): string => this.#identities.file(name);
    const names = ['DNS:kubernetes', 'DNS:kubernetes.default', 'DNS:kubernetes.default.svc', `IP:${address}`, `IP:${apiService}`];
    await Promise.all([
      this.#identities.certificate('apiserver', '/CN=kube-apiserver', names),
      this.#identities.certificate('apiserver-kubelet', '/O=system:masters/CN=apiserver-kubelet'),
      this.#identities.user('admin', '/O=system:masters/CN=admin'),
      this.#identities.user('controller-manager', '/CN=system:kube-controller-manager'),
      this.#identities.user('scheduler', '/CN=system:kube-scheduler'),
    ]);
    const start = (name: string, argv: readonly string[]): Promise<void> => host.startService({ name, argv, env: {} });
    const etcd = ['http://127.0.0.1:2379', 'http://127.0.0.1:2380'] as const;
    await start('etcd', [
      'etcd',
      `--data-dir=${join(this.#folder, 'etcd')}`,
      `--listen-client-urls=${etcd[0]}`,
      `--advertise-client-urls=${etcd[0]}`,
      `--listen-peer-urls=${etcd[1]}`,
      `--initial-advertise-peer-urls=${etcd[1]}`,
      `--initial-cluster=default=${etcd[1]}`,
      '--unsafe-no-fsync',
      '--log-level=warn',
    ]);
    await start('kube-apiserver', [
      pathOf('kube-apiserver'),
      `--etcd-servers=${etcd[0]}`,
      `--advertise-address=${address}`,
      '--secure-port=6443',
      '--insecure-port=0',
      `--tls-cert-file=${file('apiserver.crt')}`,
      `--tls-private-key-file=${file('apiserver.key')}`,
      `--client-ca-file=${file('ca.crt')}`,
      `--kubelet-client-certificate=${file('apiserver-kubelet.crt')}`,
      `--kubelet-client-key=${file('apiserver-kubelet.key')}`,
      '--kubelet-preferred-address-types=InternalIP',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-signing-key-file=${file('sa.key')}`,
      `--service-account-key-file=${file('sa.pub')}`,
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      '--allow-privileged=true',
      `--service-cluster-ip-range=${serviceRange}`,
    ]);
    await until('the API server to be ready', () => this.#succeeds('get', '--raw', '/readyz'), { timeoutMs: 120_000, intervalMs: 200 });
    const loopback = '--bind-address=127.0.0.1';
    await start('kube-controller-manager', [
      pathOf('kube-controller-manager'),
      `--kubeconfig=${file('controller-manager.kubeconfig')}`,
      loopback,
      '--allocate-node-cidrs=false',
      '--configure-cloud-routes=false',
      `--cluster-cidr=${podRange}`,
      `--service-cluster-ip-range=${serviceRange}`,
      `--root-ca-file=${file('ca.crt')}`,
      `--service-account-private-key-file=${file('sa.key')}`,
      '--use-service-account-credentials=true',
      '--leader-elect=false',
    ]);
    const config = `--kubeconfig=${file('scheduler.kubeconfig')}`;
    await start('kube-scheduler', [pathOf('kube-scheduler'), config, loopback, '--leader-elect=false']);
  }

  /** Tar files of the images that pods and their sandboxes are made of. */
  async #images(): Promise<string[]> {
    const layer = await buildImage(boxImage);
    const targets: string[] = [];
    for (const name of [boxPodImage, pauseImage]) {
      const target = join(this.#folder, `${name.replaceAll(/\W/g, '-')}.tar`);
      await writeOciArchive({ layer, name, command: ['sleep', '2147483647'] }, target, this.#folder);
      targets.push(target);
    }
    return targets;
  }

  /** A kubelet with its container runtime, and an agent; and the Node gets its range of addresses. */
  async startNode(host: Host, images: readonly string[]): Promise<void> {
    const { name } = host;
    const group = `${hostGroup(host.lab, name)}/pods`;
    await host.exec([join(import.meta.dirname, 'kubernetes-node.sh'), group]);
    await installCni(host.file('/var/lib/cni/bin'));
    await this.#startRuntime(host, images);
    await this.#startKubelet(host, group);
    await until(`node ${name} to be known`, () => this.#succeeds('get', 'node', name), { timeoutMs: 60_000, intervalMs: 200 });
    const range = `10.244.${this.lab.hosts.indexOf(host) + 1}.0/24`;
    await this.kubectl('patch', 'node', name, '--patch', JSON.stringify({ spec: { podCIDR: range, podCIDRs: [range] } }));
    await this.#identities.user(`agent-${name}`, `/O=causeway:agents/CN=causeway:agent:${name}`);
    await this.startAgent(host);
  }

  /** Starts the node's agent, `more` at the end of its command line. */
  startAgent(host: Host, ...more: readonly string[]): Promise<void> {
    const config = this.#identities.file(`agent-${host.name}.kubeconfig`);
    const words = ['--kubernetes', config, '--pod-cidr', podRange, '--host', host.name, '--log-level', 'debug'];
    return startAgent(host, { arguments: [...words, ...more] });
  }

  async #startRuntime(host: Host, images: readonly string[]): Promise<void> {
    const file = join(this.#folder, `containerd-${host.name}.toml`);
    // Below /var/lib/docker is a real file system, which overlayfs needs. Root may be without CAP_SYS_RESOURCE here.
    writeFileSync(
      file,
      `version = 2
root = "/var/lib/docker/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${pauseImage}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/var/lib/cni/bin"
    conf_dir = "/etc/cni/net.d"
`,
    );
    await host.startService(
      { name: 'containerd', argv: ['containerd', '--config', file], env: {}, ready: { socket: containerdSocket } },
      60_000,
    );
    await until(`containerd on ${host.name}`, async () => (await host.exec(['ctr', 'version'], { anyStatus: true })).status === 0);
    for (const image of images) await host.exec(['ctr', '--namespace=k8s.io', 'images', 'import', image]);
  }

  async #startKubelet(host: Host, group: string): Promise<void> {
    const { name, address } = host;
    const names = [`DNS:${name}`, `IP:${address}`];
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
      cgroupDriver: 'cgroupfs',
      cgroupRoot: group,
      failSwapOn: false,
      // The node is called ready as soon as the network is, not ten seconds later.
      nodeStatusUpdateFrequency: '1s',
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
      `--node-ip=${address}`,
      '--container-runtime=remote',
      `--container-runtime-endpoint=${runtimeEndpoint}`,
      '--network-plugin=cni',
    ];
    await host.startService({ name: 'kubelet', argv, env: { AWS_EC2_METADATA_DISABLED: 'true' } });
  }
}
