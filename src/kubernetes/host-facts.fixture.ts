// For tests: random host endpoints as the node's agent knows them.
import { type Ip, parseIp } from '#model/ip.ts';
import type { PolicyFacts } from '#model/policy.ts';
import { readFailsafes, readHostEndpoint } from './calico-host-endpoint.ts';
import { readGlobalPolicy } from './calico-policy.ts';
import { readTier } from './calico-tier.ts';
import { HostEndpoints, networkSetOf } from './host-endpoints.ts';
import { type HostWorld, linkAddresses, podAddress, thisNode, worldTiers } from './host-reference.fixture.ts';
import { PolicyIndex } from './policy-index.ts';

const links = new Map<Ip, string>(Object.entries(linkAddresses).map(([link, ip]) => [parseIp(ip), link]));
const failsafesOf = (ports: readonly number[]): object[] => ports.map((port) => ({ protocol: 'UDP', port }));

export function hostFacts({ endpoints, policies, podLabels, failsafes }: HostWorld): PolicyFacts | undefined {
  const index = new PolicyIndex();
  const hosts = new HostEndpoints({ node: thisNode, apiPort: 6443, pods: [], links: () => links }, () => undefined);
  index.putNamespace('shop', {});
  index.putAccount('shop/default', {});
  index.putPod('shop/web', { namespace: 'shop', labels: podLabels, account: 'default', ips: [parseIp(podAddress)], ports: [] });
  for (const { name, ...spec } of worldTiers) {
    const { tier } = readTier({ metadata: { name }, spec });
    if (tier !== undefined) index.putTier(tier);
  }
  for (const item of endpoints) {
    const { endpoint } = readHostEndpoint(item);
    if (endpoint === undefined) continue;
    hosts.put(endpoint);
    index.putNetworkSet(`HostEndpoint ${endpoint.name}`, networkSetOf(endpoint));
  }
  const spec = { failsafeInboundHostPorts: failsafesOf(failsafes.in), failsafeOutboundHostPorts: failsafesOf(failsafes.out) };
  hosts.putFailsafes('default', readFailsafes({ spec }).failsafes);
  for (const item of policies) {
    const { policy } = readGlobalPolicy(item);
    if (policy !== undefined) index.putPolicy(policy);
  }
  index.setHost(hosts.current());
  // Policies of the pod itself are tested elsewhere.
  const facts = index.facts([{ owner: 'shop/web', addresses: [parseIp(podAddress)] }]);
  return facts && { ...facts, endpoints: facts.endpoints.map((one) => ({ ...one, policies: [] })) };
}
