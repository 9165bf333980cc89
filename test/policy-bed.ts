// A real cluster for tests of policy: pods that serve a page, some of which ask others for theirs.
import assert from 'node:assert/strict';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import { until } from '#lab/until.ts';

const web = 'mkdir /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www';

interface PodOf {
  readonly metadata: object;
  readonly [field: string]: unknown;
}

/** `key` is `namespace/name`; the pod's label `app` is its name. With a command of its own it runs once and serves nothing. */
export function policyPod(key: string, nodeName: string, command: string = web): PodOf {
  const [namespace = '', name = ''] = key.split('/');
  const isWeb = command === web;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace, name, labels: { app: name } },
    spec: {
      nodeName,
      restartPolicy: isWeb ? 'Always' : 'Never',
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      containers: [
        {
          name: 'box',
          image: boxPodImage,
          imagePullPolicy: 'Never',
          command: ['sh', '-c', command],
          ports: [{ name: 'http', containerPort: 8080 }],
          ...(isWeb ? { readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1, failureThreshold: 1 } } : {}),
        },
      ],
    },
  };
}

export const networkPolicy = (key: string, spec: object): object => {
  const [namespace, name] = key.split('/');
  return { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { namespace, name }, spec };
};

export class PolicyBed {
  readonly lab: Lab;
  readonly cluster: Kubernetes;
  readonly #ips = new Map<string, string>();

  private constructor(lab: Lab) {
    this.lab = lab;
    this.cluster = new Kubernetes(lab);
  }

  /** Two nodes, namespaces with the label `team` of their name, and pods that are ready: node by key. The lab is the caller's to destroy. */
  static async start(
    name: string,
    pods: Readonly<Record<string, string>>,
    install: (cluster: Kubernetes) => Promise<void> = (cluster) => cluster.start(),
  ): Promise<PolicyBed> {
    await destroyLab(name);
    const bed = new PolicyBed(await createLab({ name, hosts: 2 }));
    const { cluster } = bed;
    await install(cluster);
    const namespaces = [...new Set(Object.keys(pods).map((key) => key.split('/')[0] ?? ''))];
    await cluster.apply(...namespaces.map((of) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: of, labels: { team: of } } })));
    for (const of of namespaces) await cluster.untilAccount(of);
    await cluster.apply(...Object.entries(pods).map(([key, node]) => policyPod(key, node)));
    const isReady = ['--for=condition=Ready', 'pod', '--all', '--timeout=240s'];
    await Promise.all(namespaces.map((of) => cluster.kubectl('wait', `--namespace=${of}`, ...isReady)));
    for (const key of Object.keys(pods)) bed.#ips.set(key, await bed.field(key, '.status.podIP'));
    return bed;
  }

  /** Of a pod. */
  field(key: string, path: string): Promise<string> {
    const [namespace = '', name = ''] = key.split('/');
    return this.cluster.kubectl('get', 'pod', name, `--namespace=${namespace}`, `--output=jsonpath={${path}}`);
  }

  ipOf(key: string): string {
    return this.#ips.get(key) ?? assert.fail(`no such pod: ${key}`);
  }

  async isReached(from: string, to: string, seconds = 3): Promise<boolean> {
    const [namespace = '', name = ''] = from.split('/');
    const words = ['exec', `--namespace=${namespace}`, name, '--', 'wget', '-qO-', '-T', `${seconds}`, `http://${this.ipOf(to)}:8080/`];
    return (await this.cluster.tryKubectl(words, { anyStatus: true })).status === 0;
  }

  /** What is forbidden is lost, so asking takes as long as one is patient. */
  becomes(reached: boolean, from: string, to: string): Promise<true> {
    return until(`${from} ${reached ? 'to reach' : 'not to reach'} ${to}`, async () => (await this.isReached(from, to, 1)) === reached);
  }
}
