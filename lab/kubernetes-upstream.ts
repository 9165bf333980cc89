// Kubernetes' own end-to-end tests (test/e2e of its source) against a lab's cluster: the images that their pods are made of, a
// name server for the cluster, and a run of the tests that are named, eight at a time: most of their time they wait.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { lastLines, run } from './command.ts';
import { type ImageRecipe, boxImage } from './images.ts';
import { parseJunit, type TestResult } from './junit.ts';
import type { Kubernetes, PodImage } from './kubernetes.ts';
import { pathOf } from './kubernetes-programs.ts';
import type { Need } from './packages.ts';
import { labDisk } from './state.ts';

export const upstreamNeeds: readonly Need[] = [
  { program: 'nc.openbsd', package: 'netcat-openbsd', why: "for the pods of Kubernetes' tests" },
  { program: 'curl', package: 'curl', why: "for the pods of Kubernetes' tests" },
  { program: 'hostname', package: 'hostname', why: "for the pods of Kubernetes' tests" },
];

/** The address that pods ask for names; a service without a selector leads from there to the controller's host. */
export const clusterDns = '10.96.0.10';
/** What the tests are told to take their images from. */
const imagePrefix = 'localhost/causeway';

/** The tests run commands in their pods, by a shell that does not prefer its own nc and wget to what is in the path. */
async function agnhostRecipe(folder: string): Promise<ImageRecipe> {
  const [key, certificate] = [join(folder, 'porter.key'), join(folder, 'porter.crt')];
  const made = ['-keyout', key, '-out', certificate, '-days', '3650', '-subj', '/CN=localhost'];
  if (!existsSync(key)) await run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...made]);
  const tools = ['curl', 'getent', 'hostname'].map((name) => [`/usr/bin/${name}`, `/usr/bin/${name}`]);
  return {
    name: 'causeway/agnhost',
    programs: {
      [pathOf('agnhost')]: '/agnhost',
      '/usr/bin/dash': '/bin/sh',
      '/usr/bin/nc.openbsd': '/usr/bin/nc',
      '/usr/bin/ss': '/usr/bin/ss',
      ...Object.fromEntries(tools),
      [key]: '/localhost.key',
      [certificate]: '/localhost.crt',
    },
    scripts: { '/etc/nsswitch.conf': 'hosts: files dns\n', '/uploads/readme': 'netexec writes here\n' },
    changes: [],
  };
}

/** For a cluster on which the tests run: the images by the names and versions that these tests use. */
export async function upstreamImages(folder: string): Promise<PodImage[]> {
  mkdirSync(folder, { recursive: true });
  const recipe = await agnhostRecipe(folder);
  const agnhost = ['agnhost:2.21', 'nginx:1.14-alpine'].map((name) => ({
    name: `${imagePrefix}/${name}`,
    recipe,
    entrypoint: ['/agnhost'],
    command: ['pause'],
  }));
  const box = ['busybox:1.29', 'pause:3.2'].map((name) => ({
    name: `${imagePrefix}/${name}`,
    recipe: boxImage,
    command: ['sleep', '2147483647'],
  }));
  return [...agnhost, ...box];
}

/** Starts the cluster's name server and makes the service by which pods reach it. */
export async function startNames(cluster: Kubernetes): Promise<void> {
  const { controller } = cluster.lab;
  const program = join(import.meta.dirname, 'kubernetes-names.ts');
  await controller.startService({
    name: 'cluster-names',
    argv: [process.execPath, '--disable-warning=ExperimentalWarning', program, cluster.kubeconfig, controller.address],
    env: {},
    ready: { socket: '/run/cluster-names.sock' },
  });
  const metadata = { name: 'kube-dns', namespace: 'kube-system' };
  const ports = (['UDP', 'TCP'] as const).map((protocol) => ({ name: protocol.toLowerCase(), port: 53, protocol }));
  await cluster.apply(
    { apiVersion: 'v1', kind: 'Service', metadata, spec: { clusterIP: clusterDns, ports } },
    { apiVersion: 'v1', kind: 'Endpoints', metadata, subsets: [{ addresses: [{ ip: controller.address }], ports }] },
  );
}

export interface UpstreamRun {
  /** What the tests' full names must match, as Go reads patterns. */
  readonly focus: string;
  /** Only says which tests there are: all results are `passed`. */
  readonly dryRun?: boolean;
  readonly minutes: number;
}

/** Runs the tests and answers how each that matched went; those that there was no time for are not among them. Fault `internal` when nothing ran. */
export async function runUpstream(cluster: Kubernetes, { focus, dryRun = false, minutes }: UpstreamRun): Promise<TestResult[]> {
  const { lab } = cluster;
  const folder = join(labDisk(lab.name), 'upstream');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const registries = ['dockerLibraryRegistry', 'e2eRegistry', 'promoterE2eRegistry', 'gcRegistry'];
  writeFileSync(join(folder, 'images.yaml'), registries.map((name) => `${name}: ${imagePrefix}\n`).join(''));
  const env = {
    // kubectl keeps below it what it has learned of a server, by an address that every lab has
    HOME: folder,
    TMPDIR: folder,
    KUBE_TEST_REPO_LIST: join(folder, 'images.yaml'),
    // Some tests first ask for a page of the internet, which here is the outside host, whatever the page.
    HTTP_PROXY: `http://${lab.outside.address}:80`,
    NO_PROXY: '10.0.0.0/8,127.0.0.1',
  };
  const tests = [
    '--provider=skeleton',
    `--num-nodes=${lab.hosts.length}`,
    `--kubeconfig=${cluster.kubeconfig}`,
    `--report-dir=${folder}`,
    '--disable-log-dump',
  ];
  const ginkgo = dryRun ? ['-dryRun'] : ['-nodes=8'];
  // Interrupted, they write down how far they have come.
  const bounded = ['timeout', '--signal=INT', '--kill-after=60', `${minutes}m`];
  const argv = [...bounded, pathOf('ginkgo'), ...ginkgo, '-noColor', `-focus=${focus}`, pathOf('e2e.test'), '--', ...tests];
  const { stdout } = await lab.controller.exec(argv, { env, anyStatus: true, timeoutMs: (minutes + 2) * 60_000 });
  writeFileSync(join(folder, 'output.txt'), stdout);
  const reports = readdirSync(folder).filter((file) => /^junit.*\.xml$/.test(file));
  const results = reports.flatMap((file) => parseJunit(readFileSync(join(folder, file), 'utf8')));
  if (results.length === 0) throw new Fault('internal', `None of Kubernetes' tests ran: ${lastLines(stdout)}`);
  return results;
}
