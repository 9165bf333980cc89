// The programs of a real Kubernetes. Debian has kubectl, etcd, containerd and runc; the rest is built once a machine from
// Debian's source package (kubernetes-build.sh, ten minutes on two cores) and kept outside of the checkout.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';
import type { Need } from './packages.ts';
import type { Progress } from './progress.ts';

export const kubernetesVersion = '1.20.2';
const cache = '/var/cache/causeway-kubernetes';
/** Of the release, the number that counts up when the script builds it differently: what an earlier one built is not used then. */
const build = `${kubernetesVersion}-2`;
const folder = join(cache, build);
/** Where each program's source is. */
const sources = {
  'kube-apiserver': 'cmd/kube-apiserver',
  'kube-controller-manager': 'cmd/kube-controller-manager',
  'kube-scheduler': 'cmd/kube-scheduler',
  kubelet: 'cmd/kubelet',
  'kube-proxy': 'cmd/kube-proxy',
  agnhost: 'test/images/agnhost',
  ginkgo: 'vendor/github.com/onsi/ginkgo/ginkgo',
  'e2e.test': 'test/e2e/e2e.test',
} as const;
export type KubernetesProgram = keyof typeof sources;
/** What a cluster is made of. */
export const clusterPrograms: readonly KubernetesProgram[] = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubelet'];
/** The service proxy that benchmarks compare with. */
export const proxyProgram: KubernetesProgram = 'kube-proxy';
/** Kubernetes' own end-to-end tests, their runner, and the program that their pods are made of. */
export const upstreamPrograms: readonly KubernetesProgram[] = ['agnhost', 'ginkgo', 'e2e.test'];

/** They are in Go, and look for garbage half as often with it: a tenth less of the processor, for half as much memory again. */
export const goEnvironment: Readonly<Record<string, string>> = { GOGC: '200' };

export const kubernetesNeeds: readonly Need[] = [
  { program: 'kubectl', package: 'kubernetes-client', why: 'to speak to a cluster' },
  { program: 'etcd', package: 'etcd-server', why: "the cluster's store" },
  { program: 'etcdctl', package: 'etcd-client', why: "to back up the cluster's store" },
  { program: 'containerd', package: 'containerd', why: 'to run pods' },
  { program: 'runc', package: 'runc', why: 'to run pods' },
  { program: 'openssl', package: 'openssl', why: "to make the cluster's certificates" },
  { program: 'conntrack', package: 'conntrack', why: 'wanted by the kubelet' },
  { program: 'socat', package: 'socat', why: 'to forward ports to pods' },
];
/** What the build needs beyond the above. */
const buildNeeds: readonly Need[] = [
  { program: 'dpkg-source', package: 'dpkg-dev', why: 'to unpack the source of Kubernetes' },
  { program: 'make', package: 'make', why: 'to build Kubernetes' },
  { program: 'jq', package: 'jq', why: 'to build Kubernetes' },
  { program: 'rsync', package: 'rsync', why: 'to build Kubernetes' },
];
const compiler: readonly Need[] = [
  { program: 'go', package: 'golang-1.24-go', why: 'to build Kubernetes' },
  { program: 'go', package: 'golang-1.24-src', why: 'to build Kubernetes' },
  { program: 'go', package: 'golang-github-modern-go-reflect2-dev', why: 'to build Kubernetes' },
];
/** By these it is told that the compiler's packages are there: none of their programs is where programs usually are. */
const compilerFiles = ['/usr/lib/go-1.24/bin/go', '/usr/share/gocode/src/github.com/modern-go/reflect2'];

export const pathOf = (program: KubernetesProgram): string => join(folder, program);

const missingOf = (programs: readonly KubernetesProgram[]): KubernetesProgram[] =>
  programs.filter((program) => !existsSync(pathOf(program)));

/** Packages that are needed now: to run a cluster, and where one of `programs` is not there yet to build it. */
export function needsOfKubernetes(programs: readonly KubernetesProgram[] = clusterPrograms): readonly Need[] {
  if (missingOf(programs).length === 0) return kubernetesNeeds;
  return [...kubernetesNeeds, ...buildNeeds, ...(compilerFiles.every((file) => existsSync(file)) ? [] : compiler)];
}

/** Builds what is missing of `programs`; the packages are there. Whoever else builds is waited for. Faults as `run`. */
export async function buildKubernetes(progress: Progress, programs: readonly KubernetesProgram[] = clusterPrograms): Promise<void> {
  const missing = missingOf(programs);
  if (missing.length === 0) return;
  mkdirSync(cache, { recursive: true });
  const script = join(import.meta.dirname, 'kubernetes-build.sh');
  await progress.step(`Building Kubernetes ${kubernetesVersion} (${missing.join(', ')}; once on this machine, some minutes)`, async () => {
    await run([script, join(cache, `work-${build}`), folder, ...missing.map((program) => sources[program])]);
  });
}
