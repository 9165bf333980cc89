// The programs of a real Kubernetes. Debian has kubectl, etcd, containerd and runc; the rest is built once a machine from
// Debian's source package (kubernetes-build.sh, eight minutes on two cores) and kept outside of the checkout.
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';
import type { Need } from './packages.ts';
import type { Progress } from './progress.ts';

export const kubernetesVersion = '1.20.2';
const cache = '/var/cache/causeway-kubernetes';
const folder = join(cache, kubernetesVersion);
const built = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubelet'] as const;
export type KubernetesProgram = (typeof built)[number];

export const kubernetesNeeds: readonly Need[] = [
  { program: 'kubectl', package: 'kubernetes-client', why: 'to speak to a cluster' },
  { program: 'etcd', package: 'etcd-server', why: "the cluster's store" },
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
];

export const pathOf = (program: KubernetesProgram): string => join(folder, program);

/** Packages that are needed now: to run, and where the programs are not there yet to build them. */
export function needsOfKubernetes(): readonly Need[] {
  if (built.every((program) => existsSync(pathOf(program)))) return kubernetesNeeds;
  return [...kubernetesNeeds, ...buildNeeds, ...(existsSync('/usr/lib/go-1.24/bin/go') ? [] : compiler)];
}

/** Builds what is missing; the packages are there. Faults as `run`. */
export async function buildKubernetes(progress: Progress): Promise<void> {
  const missing = built.filter((program) => !existsSync(pathOf(program)));
  if (missing.length === 0) return;
  const work = `${folder}-build`;
  mkdirSync(work, { recursive: true });
  const script = join(import.meta.dirname, 'kubernetes-build.sh');
  await progress.step(`Building Kubernetes ${kubernetesVersion} (once on this machine, about eight minutes)`, async () => {
    await run([script, work, folder, ...missing.map((program) => `cmd/${program}`)]);
    rmSync(work, { recursive: true, force: true });
  });
}
