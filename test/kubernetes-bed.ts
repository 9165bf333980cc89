// What the Kubernetes end-to-end tests lie in: a lab with a real cluster, whose name each file has for itself, and its pods. Where a pod
// is named, `key` is its name, or `namespace/name`.
import { cniFolder } from '#lab/cni.ts';
import type { Host } from '#lab/host.ts';
import { boxPodImage, Kubernetes, type KubernetesOptions } from '#lab/kubernetes.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';

export interface KubernetesBedOptions extends KubernetesOptions {
  /** Machines beside the controller's. */
  readonly hosts?: number;
}

const placeOf = (key: string): { readonly namespace: string; readonly name: string } => {
  const [first = '', second] = key.split('/');
  return second === undefined ? { namespace: 'default', name: first } : { namespace: first, name: second };
};

/** Serves a page with the pod's name. */
export const servePage = 'mkdir -p /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www';
/** For a container that serves it. */
export const askedForPage = { readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 } } as const;
export const stay = 'exec sleep 2147483647';

export interface PodWish {
  /** Absent: the scheduler chooses. */
  readonly node?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  /** A line of shell; serves a page unless said. */
  readonly command?: string;
  /** Further fields of its container and of the pod's `spec`. */
  readonly container?: object;
  readonly spec?: object;
}

export interface PodObject {
  readonly apiVersion: 'v1';
  readonly kind: 'Pod';
  readonly metadata: { readonly namespace: string; readonly name: string; readonly labels: object; readonly annotations: object };
  readonly spec: object;
}

/** The container of podOf. */
export const boxOf = (command: string = servePage, more: object = {}): object => ({
  name: 'box',
  image: boxPodImage,
  imagePullPolicy: 'Never',
  command: ['sh', '-c', command],
  ...more,
});

/** A pod of one busybox, which ends at once when it is told to. */
export const podOf = (key: string, { node, labels = {}, annotations = {}, command, container, spec }: PodWish = {}): PodObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { ...placeOf(key), labels, annotations },
  spec: {
    ...(node === undefined ? {} : { nodeName: node }),
    terminationGracePeriodSeconds: 0,
    containers: [boxOf(command, container)],
    ...spec,
  },
});

export const namespaceOf = (name: string, labels: Readonly<Record<string, string>> = {}): object => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name, labels },
});

/** The pages of pods with these labels, on port 80. */
export const serviceOf = (name: string, selector: Readonly<Record<string, string>>, spec: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name },
  spec: { selector, ports: [{ port: 80, targetPort: 8080 }], ...spec },
});

/** What a node's runtime is answered that asks whether pods can be made: nothing when they can. */
export async function cniStatus(host: Host): Promise<string> {
  const conf = JSON.stringify({ cniVersion: '1.1.0', name: 'pods', type: 'causeway' });
  const line = `printf %s '${conf}' | CNI_COMMAND=STATUS CNI_PATH=/ ${cniFolder}/causeway`;
  return (await host.exec(['sh', '-c', line], { anyStatus: true })).stdout;
}

/** The line that asks for a page. */
export const askPage = (ip: string, port = 8080, seconds = 15): string[] => [
  'wget',
  '-qO-',
  '-T',
  `${seconds}`,
  `http://${ip.includes(':') ? `[${ip}]` : ip}:${port}/`,
];

/** What is at that port: the page, `refused` where nobody listens, `nothing` where no answer comes. */
export async function found(from: Host, ip: string, port: number): Promise<string> {
  const { status, stdout, stderr } = await from.exec(['busybox', ...askPage(ip, port, 1)], { anyStatus: true });
  if (status === 0) return stdout.trim();
  return stderr.includes('refused') ? 'refused' : 'nothing';
}

export class KubernetesBed implements AsyncDisposable {
  readonly lab: Lab;
  readonly cluster: Kubernetes;

  private constructor(lab: Lab, options: KubernetesOptions) {
    this.lab = lab;
    this.cluster = new Kubernetes(lab, options);
  }

  /** Machines on which nothing runs yet. */
  static async make(name: string, { hosts = 2, ...options }: KubernetesBedOptions = {}): Promise<KubernetesBed> {
    await destroyLab(name);
    return new KubernetesBed(await createLab({ name, hosts }), options);
  }

  /** All machines are nodes with agents that were started by hand. */
  static async start(name: string, options: KubernetesBedOptions = {}): Promise<KubernetesBed> {
    const bed = await KubernetesBed.make(name, options);
    await bed.cluster.start();
    return bed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await destroyLab(this.lab.name);
  }

  /** Of a pod, by a path of jsonpath. */
  field(key: string, path: string): Promise<string> {
    const { namespace, name } = placeOf(key);
    return this.cluster.kubectl('get', 'pod', name, `--namespace=${namespace}`, `--output=jsonpath={${path}}`);
  }

  ipOf(key: string): Promise<string> {
    return this.field(key, '.status.podIP');
  }

  /** Of each family. */
  async ipsOf(key: string): Promise<string[]> {
    return (await this.field(key, '.status.podIPs[*].ip')).split(' ').filter((ip) => ip !== '');
  }

  inPod(key: string, ...argv: readonly string[]): Promise<string> {
    const { namespace, name } = placeOf(key);
    return this.cluster.kubectl('exec', `--namespace=${namespace}`, name, '--', ...argv);
  }

  /** What a pod is answered at that address, once it is: a container runs before it listens. Fault `timeout`. */
  page(key: string, ip: string, port?: number): Promise<string> {
    return until(`${key} to be answered at ${ip}`, () => this.inPod(key, ...askPage(ip, port)), { intervalMs: 200 });
  }

  /** The same of a machine. */
  pageOn(host: Host, ip: string, port?: number): Promise<string> {
    return until(`${host.name} to be answered at ${ip}`, () => host.ask(['busybox', ...askPage(ip, port)]), { intervalMs: 200 });
  }

  /** Fault when one of them is not after some minutes. */
  async ready(...keys: readonly string[]): Promise<void> {
    await this.#each(keys, ['wait', '--for=condition=Ready', '--timeout=240s']);
  }

  /** Makes the pods, and waits until they are ready. */
  async run(...pods: readonly PodObject[]): Promise<void> {
    await this.cluster.apply(...pods);
    await this.ready(...pods.map(({ metadata: { namespace, name } }) => `${namespace}/${name}`));
  }

  /** Returns when the pods are gone from the API, which is before the runtime has taken their networks away. */
  async remove(...keys: readonly string[]): Promise<void> {
    await this.#each(keys, ['delete', '--wait']);
  }

  async #each(keys: readonly string[], words: readonly string[]): Promise<void> {
    const byNamespace = Map.groupBy(keys.map(placeOf), ({ namespace }) => namespace);
    await Promise.all(
      [...byNamespace].map(([namespace, pods]) =>
        this.cluster.kubectl(...words, `--namespace=${namespace}`, ...pods.map(({ name }) => `pod/${name}`)),
      ),
    );
  }
}
