// `causeway demo --kubernetes`: a real cluster on one machine with Causeway as its only network, proved and left running.
import { showChecks } from './demo-check.ts';
import { clusterChecks } from './demo-cluster-checks.ts';
import { type ClusterSite, openCluster } from './demo-cluster.ts';
import { type Screen, seconds } from './demo-screen.ts';
import { imageNeeds } from './image.ts';
import { buildKubernetes, needsOfKubernetes } from './kubernetes-programs.ts';
import { ensurePackages, type Need } from './packages.ts';

const toolNeeds: readonly Need[] = [
  { program: 'ip', package: 'iproute2', why: 'to lay the lab’s wires' },
  { program: 'ping', package: 'iputils-ping', why: 'to send packets that are not fragmented' },
  { program: 'pkill', package: 'procps', why: 'to kill an agent' },
];

/** Whether every check has passed. */
export async function showKubernetes(screen: Screen, name: string): Promise<boolean> {
  const beganMs = performance.now();
  screen.line('Causeway: a Kubernetes cluster of two nodes, with no other CNI plugin and no kube-proxy.');
  screen.line('All of it is in namespaces of this machine; ./causeway demo --kubernetes --down removes it.');

  screen.heading('Building');
  await ensurePackages([...needsOfKubernetes(), ...imageNeeds, ...toolNeeds], screen);
  await buildKubernetes(screen);
  const site = await openCluster(name, screen);

  screen.heading('Checks');
  const results = await showChecks(site, clusterChecks);
  const failed = results.filter((passed) => !passed).length;

  screen.heading('What to try next');
  showNext(site);
  screen.line();
  const verdict = failed === 0 ? `All ${results.length} checks passed` : `${failed} of ${results.length} checks FAILED`;
  screen.line(`${verdict}; ${seconds(beganMs)}. The cluster is running.`);
  return failed === 0;
}

function showNext({ lab, screen }: ClusterSite): void {
  const kubectl = `lab kubectl ${lab.name}`;
  const option = lab.name === 'demo-kubernetes' ? '' : ` --name ${lab.name}`;
  const tries: readonly (readonly [string, string])[] = [
    ['the whole cluster at a glance', `${kubectl} get pods,services --all-namespaces --output wide`],
    ['a pod of your own, next to a web server’s', `${kubectl} exec -it client -- sh`],
    ['more pods for the service: it takes them in at once', `${kubectl} scale deployment web --replicas 8`],
    ['what a node is told to do, in the kernel’s own words', `lab exec ${lab.name} host1 nft list table inet causeway`],
    ['what an agent says of itself', `${kubectl} logs --namespace kube-system daemonset/causeway-agent`],
    ['check everything again, and start what is down', `demo --kubernetes${option}`],
    ['remove everything', `demo --kubernetes --down${option}`],
  ];
  for (const [what, command] of tries) {
    screen.line(`  # ${what}`);
    screen.command(`./causeway ${command}`);
  }
}
