// For tests: a made-up cluster in the index of a node on which all of its pods are.
import { parseIp } from '#model/ip.ts';
import type { OwnedAddresses } from '#model/policy.ts';
import { readClusterNetworkPolicy } from './cluster-network-policy.ts';
import { readNetworkPolicy } from './network-policy.ts';
import { readNamespace, readPod } from './pods.ts';
import { PolicyIndex } from './policy-index.ts';
import type { World } from './policy-reference.fixture.ts';

/** Into `index`, or a new one. */
export function indexOf(world: World, index: PolicyIndex = new PolicyIndex()): PolicyIndex {
  for (const { name, labels } of world.namespaces) index.putNamespace(name, readNamespace({ metadata: { name, labels } }) ?? {});
  for (const { namespace, name, labels, ips, ports, hostNetwork = false } of world.pods) {
    const item = {
      metadata: { namespace, name, labels },
      spec: { hostNetwork, containers: [{ ports }] },
      status: { phase: 'Running', podIPs: ips.map((ip) => ({ ip })) },
    };
    const facts = readPod(item);
    if (facts !== undefined) index.putPod(`${namespace}/${name}`, facts);
  }
  for (const item of world.policies) put(index, readNetworkPolicy(item).policy);
  for (const item of world.clusterPolicies) put(index, readClusterNetworkPolicy(item).policy);
  return index;
}

function put(index: PolicyIndex, policy: ReturnType<typeof readNetworkPolicy>['policy']): void {
  if (policy !== undefined) index.putPolicy(policy);
}

export const localOf = (world: World): OwnedAddresses[] =>
  world.pods.map(({ namespace, name, ips }) => ({ owner: `${namespace}/${name}`, addresses: ips.map((ip) => parseIp(ip)) }));
