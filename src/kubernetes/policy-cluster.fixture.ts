// For tests: a made-up cluster in the index of a node on which all of its pods are.
import assert from 'node:assert/strict';
import { parseIp } from '#model/ip.ts';
import type { OwnedAddresses } from '#model/policy.ts';
import type { CalicoWorld } from './policy-world.fixture.ts';
import { readNetworkSet, readTier } from './calico-tier.ts';
import { readClusterNetworkPolicy } from './cluster-network-policy.ts';
import { readNetworkPolicy } from './network-policy.ts';
import { readNamespace, readPod } from './pods.ts';
import { PolicyIndex } from './policy-index.ts';
import { calicoPolicyKinds } from './policy-kinds.ts';
import type { Reading } from './policy-parts.ts';
import type { World } from './policy-world.fixture.ts';
import { readSlice } from './services.ts';

/** Into `index`, or a new one. */
export function indexOf(world: World, index: PolicyIndex = new PolicyIndex()): PolicyIndex {
  for (const { name, labels } of world.namespaces) index.putNamespace(name, readNamespace({ metadata: { name, labels } }) ?? {});
  for (const { namespace, name, labels, ips, ports, hostNetwork = false, account } of world.pods) {
    const item = {
      metadata: { namespace, name, labels },
      spec: { hostNetwork, serviceAccountName: account, containers: [{ ports }] },
      status: { phase: 'Running', podIPs: ips.map((ip) => ({ ip })) },
    };
    const facts = readPod(item);
    if (facts !== undefined) index.putPod(`${namespace}/${name}`, facts);
  }
  for (const item of world.policies) put(index, readNetworkPolicy(item).policy);
  for (const item of world.clusterPolicies) put(index, readClusterNetworkPolicy(item).policy);
  if (world.calico !== undefined) putCalico(index, world.calico);
  return index;
}

const readers: ReadonlyMap<string, (item: unknown) => Reading> = new Map(calicoPolicyKinds.map(({ kind, read }) => [kind, read]));

function putCalico(index: PolicyIndex, { policies, tiers, sets, accounts, services }: CalicoWorld): void {
  for (const { namespace, name, labels } of accounts) index.putAccount(`${namespace}/${name}`, labels);
  for (const item of tiers) index.putTier(readTier(item).tier ?? assert.fail('no tier'));
  for (const [number, item] of sets.entries()) index.putNetworkSet(`${number}`, readNetworkSet(item).set ?? assert.fail('no set'));
  for (const { namespace, name, ips, ports } of services) {
    const slice = {
      metadata: { namespace, name: `${name}-1`, labels: { 'kubernetes.io/service-name': name } },
      addressType: 'IPv4',
      endpoints: ips.map((ip) => ({ addresses: [ip] })),
      ports,
    };
    index.putSlice(`${namespace}/${name}-1`, readSlice(slice) ?? assert.fail('no slice'));
  }
  for (const item of policies) {
    const { policy, problems } = readers.get(item.kind)?.(item) ?? assert.fail(item.kind);
    // Nothing but what is not supported: else the worlds are not what they should be.
    assert.ok(
      problems.every(({ field }) => field.endsWith('.http')),
      JSON.stringify(problems),
    );
    put(index, policy);
  }
}

function put(index: PolicyIndex, policy: ReturnType<typeof readNetworkPolicy>['policy']): void {
  if (policy !== undefined) index.putPolicy(policy);
}

export const localOf = (world: World): OwnedAddresses[] =>
  world.pods.map(({ namespace, name, ips }) => ({ owner: `${namespace}/${name}`, addresses: ips.map((ip) => parseIp(ip)) }));
