// What has become of a policy, as kubectl shows it: on how many hosts it is in force, in which generation, and what is wrong with
// it; with policies of the whole cluster in their tiers, and connections that stand when one comes to forbid them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { join } from 'node:path';
import { killController, stopAgent } from '#lab/causeway.ts';
import { boxPodImage, type Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { networkPolicy, PolicyBed } from './policy-bed.ts';

const name = 'policy-status';
const patient = { timeoutMs: 180_000, intervalMs: 200 };
let bed: PolicyBed;
let lab: Lab;
let cluster: Kubernetes;

/** As network-policy-api has it, with what the server has to check of conditions; the rest is left to who reads it. */
const condition = {
  type: 'object',
  required: ['type', 'status', 'reason', 'message', 'lastTransitionTime'],
  properties: {
    type: { type: 'string', maxLength: 316, pattern: '^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z]+$' },
    status: { type: 'string', enum: ['True', 'False', 'Unknown'] },
    reason: { type: 'string', minLength: 1, maxLength: 1024, pattern: '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$' },
    message: { type: 'string', maxLength: 32_768 },
    observedGeneration: { type: 'integer', format: 'int64', minimum: 0 },
    lastTransitionTime: { type: 'string', format: 'date-time' },
  },
};
const clusterNetworkPolicies = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: {
    name: 'clusternetworkpolicies.policy.networking.k8s.io',
    annotations: { 'api-approved.kubernetes.io': 'https://github.com/kubernetes-sigs/network-policy-api' },
  },
  spec: {
    group: 'policy.networking.k8s.io',
    scope: 'Cluster',
    names: { kind: 'ClusterNetworkPolicy', plural: 'clusternetworkpolicies', singular: 'clusternetworkpolicy', shortNames: ['cnp'] },
    versions: [
      {
        name: 'v1alpha2',
        served: true,
        storage: true,
        subresources: { status: {} },
        schema: {
          openAPIV3Schema: {
            type: 'object',
            properties: {
              spec: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
              status: { type: 'object', required: ['conditions'], properties: { conditions: { type: 'array', items: condition } } },
            },
          },
        },
      },
    ],
  },
};
const clusterPolicy = (policyName: string, spec: object): object => ({
  apiVersion: 'policy.networking.k8s.io/v1alpha2',
  kind: 'ClusterNetworkPolicy',
  metadata: { name: policyName },
  spec: { tier: 'Admin', priority: 10, ...spec },
});
const ofTeam = (team: string): object => ({ namespaces: { matchLabels: { team } } });
const ofApp = (app: string): object => ({ podSelector: { matchLabels: { app } } });

/** The columns of `kubectl get`, by name, of the one policy; undefined: it has no status. */
async function shown(kind: 'PolicyStatus' | 'ClusterPolicyStatus', key: string): Promise<Record<string, string> | undefined> {
  const [namespace, policyName = ''] = key.includes('/') ? key.split('/') : [undefined, key];
  const from = namespace === undefined ? [] : [`--namespace=${namespace}`];
  const words = ['get', kind, `${kind === 'PolicyStatus' ? '' : 'cluster'}networkpolicy.${policyName}`, ...from, '--output=wide'];
  const { stdout, status } = await cluster.tryKubectl(words, { anyStatus: true });
  if (status !== 0) return undefined;
  const [head = '', line = ''] = stdout.split('\n');
  const starts = [...head.matchAll(/\S+(?: \S+)*/g)].map(({ 0: title, index }) => ({ title, index }));
  return Object.fromEntries(starts.map(({ title, index }, at) => [title, line.slice(index, starts[at + 1]?.index).trim()]));
}
/** Waits until the columns are like that. */
async function becomesShown(kind: 'PolicyStatus' | 'ClusterPolicyStatus', key: string, wanted: Record<string, string>): Promise<void> {
  let last: Record<string, string> | undefined;
  const isSo = async (): Promise<boolean> => {
    last = await shown(kind, key);
    return last !== undefined && Object.entries(wanted).every(([title, value]) => last?.[title] === value);
  };
  await until(`${key} to be ${JSON.stringify(wanted)}`, isSo, patient).catch((error: unknown) => {
    assert.fail(`${String(error)}; it is ${JSON.stringify(last)}`);
  });
}

before(async () => {
  bed = await PolicyBed.start(name, { 'shop/web': 'host1', 'shop/near': 'host1', 'shop/far': 'host2', 'other/stranger': 'host2' });
  ({ lab, cluster } = bed);
  await cluster.startController();
  await cluster.apply(clusterNetworkPolicies);
});
after(() => destroyLab(name));

test('a policy’s status tells on how many hosts it is in force, and in which generation', async () => {
  await cluster.apply(
    networkPolicy('shop/wide', { podSelector: {}, ingress: [{}] }),
    networkPolicy('shop/narrow', { ...ofApp('web'), ingress: [{ from: [ofApp('near')] }] }),
    networkPolicy('other/nobody', ofApp('none')),
  );
  const fine = { GENERATION: '1', ACCEPTED: 'Accepted', 'IN FORCE': 'True' };
  await becomesShown('PolicyStatus', 'shop/wide', { ...fine, KIND: 'NetworkPolicy', POLICY: 'wide', HOSTS: '2/2' });
  await becomesShown('PolicyStatus', 'shop/narrow', { ...fine, HOSTS: '1/1' });
  await becomesShown('PolicyStatus', 'other/nobody', { ...fine, HOSTS: '0/0' });
  await bed.becomes(true, 'other/stranger', 'shop/web');
  await cluster.apply(networkPolicy('shop/wide', ofApp('web')));
  await becomesShown('PolicyStatus', 'shop/wide', { ...fine, GENERATION: '2', HOSTS: '1/1' });
  // What is said to be in force is.
  assert.deepEqual(await Promise.all(['other/stranger', 'shop/far', 'shop/near'].map((from) => bed.isReached(from, 'shop/web', 1))), [
    false,
    false,
    true,
  ]);
});

test('`causeway policy ls` shows the same on every host', async () => {
  const words = ['sh', '-c', `cd ${join(import.meta.dirname, '..')} && ./causeway policy ls`];
  for (const host of lab.hosts) {
    const lines = (await host.ask(words)).split('\n').map((line) => line.trim().split(/ {2,}/).slice(0, 3).join(' | '));
    assert.deepEqual(lines, [
      'POLICY | GENERATION | HOSTS',
      'NetworkPolicy other/nobody | 1 | 0/0',
      'NetworkPolicy shop/narrow | 1 | 1/1',
      'NetworkPolicy shop/wide | 2 | 1/1',
    ]);
  }
});

test('a host whose agent is away has not confirmed, and does when it is back', async () => {
  const host = lab.host('host2');
  await stopAgent(host);
  await cluster.apply(networkPolicy('shop/late', { podSelector: {}, ingress: [{}] }));
  await becomesShown('PolicyStatus', 'shop/late', { HOSTS: '1/2', 'IN FORCE': 'False', PROBLEM: 'Not yet confirmed by host2' });
  // What it had confirmed before, it still has.
  await becomesShown('PolicyStatus', 'shop/narrow', { HOSTS: '1/1', 'IN FORCE': 'True' });
  await cluster.startAgent(host);
  await becomesShown('PolicyStatus', 'shop/late', { HOSTS: '2/2', 'IN FORCE': 'True' });
});

const versions = (): Promise<string> =>
  cluster.kubectl(
    'get',
    'policystatuses',
    '--all-namespaces',
    '--output=jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion} {end}',
  );

test('a controller that starts anew changes nothing; what has gone meanwhile goes', async () => {
  const known = await versions();
  await killController(lab.controller);
  await cluster.kubectl('delete', 'networkpolicy', 'late', '--namespace=shop');
  await cluster.startController();
  await until('the status to be gone', async () => (await shown('PolicyStatus', 'shop/late')) === undefined, patient);
  assert.equal(await versions(), known.replace(/networkpolicy\.late \d+ /, ''));
  await cluster.kubectl('delete', 'networkpolicy', 'nobody', '--namespace=other');
  await until('the status to be gone', async () => (await shown('PolicyStatus', 'other/nobody')) === undefined, patient);
});

test('tiers: what an admin denies or accepts, nobody else decides; what is passed and what is left over, others do', async () => {
  await cluster.kubectl('delete', 'networkpolicy', '--all', '--namespace=shop');
  const everybody = [{ namespaces: {} }];
  const web = { pods: { namespaceSelector: { matchLabels: { team: 'shop' } }, ...ofApp('web') } };
  await cluster.apply(clusterPolicy('no-strangers', { subject: web, ingress: [{ action: 'Deny', from: [ofTeam('other')] }] }));
  await becomesShown('ClusterPolicyStatus', 'no-strangers', { KIND: 'ClusterNetworkPolicy', HOSTS: '1/1', 'IN FORCE': 'True' });
  await bed.becomes(false, 'other/stranger', 'shop/web');
  await bed.becomes(true, 'shop/far', 'shop/web');
  // A namespace's owner cannot open what an admin has closed.
  await cluster.apply(networkPolicy('shop/open', { ...ofApp('web'), ingress: [{}] }));
  await becomesShown('PolicyStatus', 'shop/open', { HOSTS: '1/1', 'IN FORCE': 'True' });
  assert.equal(await bed.isReached('other/stranger', 'shop/web', 1), false);
  // Passed on, by a policy that comes first, it is the owner's to decide.
  const pass = { subject: web, priority: 1, ingress: [{ action: 'Pass', from: [ofTeam('other')] }] };
  await cluster.apply(clusterPolicy('ask-owner', pass));
  await bed.becomes(true, 'other/stranger', 'shop/web');
  await cluster.apply(networkPolicy('shop/open', ofApp('web')));
  await bed.becomes(false, 'other/stranger', 'shop/web');
  // What an admin accepts, the owner cannot close.
  await cluster.apply(clusterPolicy('ask-owner', { ...pass, ingress: [{ action: 'Accept', from: [ofTeam('other')] }] }));
  await bed.becomes(true, 'other/stranger', 'shop/web');
  assert.equal(await bed.isReached('shop/far', 'shop/web', 1), false);
  // The baseline counts where nobody else has decided.
  await cluster.kubectl('delete', 'networkpolicy', 'open', '--namespace=shop');
  await bed.becomes(true, 'shop/far', 'shop/web');
  await cluster.apply(clusterPolicy('closed', { tier: 'Baseline', subject: web, ingress: [{ action: 'Deny', from: everybody }] }));
  await bed.becomes(false, 'shop/far', 'shop/web');
  await bed.becomes(true, 'other/stranger', 'shop/web');
  await cluster.apply(networkPolicy('shop/open', { ...ofApp('web'), ingress: [{ from: [ofApp('far')] }] }));
  await bed.becomes(true, 'shop/far', 'shop/web');
});

test('what of a policy cannot be served is told by its field, also in the policy’s own conditions', async () => {
  const subject = ofTeam('shop');
  await cluster.apply(
    clusterPolicy('unknown', { subject, egress: [{ action: 'Accept', to: [{ domainNames: ['example.org'] }] }] }),
    clusterPolicy('invalid', { subject, priority: 2000 }),
  );
  await becomesShown('ClusterPolicyStatus', 'unknown', { HOSTS: '2/2', ACCEPTED: 'Unsupported', 'IN FORCE': 'True' });
  assert.match((await shown('ClusterPolicyStatus', 'unknown'))?.['PROBLEM'] ?? '', /^spec\.egress\[0\]\.to\[0\]: /);
  await becomesShown('ClusterPolicyStatus', 'invalid', { HOSTS: '0/0', ACCEPTED: 'Invalid', 'IN FORCE': 'False' });
  assert.match((await shown('ClusterPolicyStatus', 'invalid'))?.['PROBLEM'] ?? '', /^spec\.priority: /);
  const own = async (policyName: string): Promise<string[]> => {
    const path = '--output=jsonpath={range .status.conditions[*]}{.type}={.status},{.reason},{.observedGeneration} {end}';
    return (await cluster.kubectl('get', 'clusternetworkpolicy', policyName, path)).split(' ');
  };
  await until('its conditions', async () => (await own('invalid')).length === 2, patient);
  assert.deepEqual(await own('invalid'), ['causeway.dev/Accepted=False,Invalid,1', 'causeway.dev/InForce=False,NotAccepted,1']);
  const isInForce = async (): Promise<boolean> => (await own('unknown')).includes('causeway.dev/InForce=True,InForce,1');
  await until('the other’s as well', isInForce, patient);
  await cluster.kubectl('delete', 'clusternetworkpolicies', '--all');
  await until('their statuses to be gone', async () => (await cluster.kubectl('get', 'clusterpolicystatuses')) === '', patient);
});

/** A pod that sends a word every 0.2 s over one connection, and one that counts them. */
const talker = (podName: string, node: string, script: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { namespace: 'shop', name: podName, labels: { app: podName } },
  spec: {
    nodeName: node,
    restartPolicy: 'Never',
    terminationGracePeriodSeconds: 0,
    automountServiceAccountToken: false,
    containers: [{ name: 'box', image: boxPodImage, imagePullPolicy: 'Never', command: ['sh', '-c', script] }],
  },
});
const heard = async (): Promise<number> =>
  Number(await cluster.kubectl('exec', '--namespace=shop', 'ear', '--', 'sh', '-c', 'wc -l </heard'));

async function talk(): Promise<void> {
  await cluster.kubectl('delete', 'pod', '--namespace=shop', '--ignore-not-found', 'ear', 'mouth');
  await cluster.apply(talker('ear', 'host1', 'touch /heard; sleep 3600 | nc -l -p 9000 >>/heard; sleep 3600'));
  await cluster.kubectl('wait', '--namespace=shop', '--for=condition=Ready', 'pod', 'ear', '--timeout=240s');
  const ip = await bed.field('shop/ear', '.status.podIP');
  await cluster.apply(talker('mouth', 'host2', `while sleep 0.2; do echo word; done | nc ${ip} 9000; sleep 3600`));
  await until('words', async () => (await heard()) > 2, patient);
}

test('a connection that stands is cut when a policy comes to forbid it, and kept where that is chosen', async () => {
  await cluster.kubectl('delete', 'networkpolicy', '--all', '--namespace=shop');
  await talk();
  const closed = networkPolicy('shop/closed', ofApp('ear'));
  await cluster.apply(closed);
  await becomesShown('PolicyStatus', 'shop/closed', { HOSTS: '1/1', 'IN FORCE': 'True' });
  const isSilent = async (): Promise<boolean> => {
    const soFar = await heard();
    await new Promise((resolve) => setTimeout(resolve, 1500));
    return (await heard()) === soFar;
  };
  await until('nothing more to be heard', isSilent, patient);
  await cluster.kubectl('delete', 'networkpolicy', 'closed', '--namespace=shop');
  for (const host of lab.hosts) {
    await stopAgent(host);
    await cluster.startAgent(host, '--keep-connections');
  }
  await talk();
  await cluster.apply(closed);
  await becomesShown('PolicyStatus', 'shop/closed', { HOSTS: '1/1', 'IN FORCE': 'True' });
  const soFar = await heard();
  await until('more to be heard', async () => (await heard()) > soFar + 10, patient);
  // New ones are refused all the same.
  const ip = await bed.field('shop/ear', '.status.podIP');
  const words = ['exec', '--namespace=shop', 'far', '--', 'nc', '-w', '2', ip, '9000'];
  assert.notEqual((await cluster.tryKubectl(words, { anyStatus: true })).status, 0);
});

test('a node that has gone takes its part along', async () => {
  const host = lab.host('host2');
  await cluster.apply(networkPolicy('shop/wide', { podSelector: {}, ingress: [{}] }));
  await becomesShown('PolicyStatus', 'shop/wide', { HOSTS: '2/2' });
  await host.stopService('kubelet');
  await stopAgent(host);
  await cluster.kubectl('delete', 'node', 'host2');
  await becomesShown('PolicyStatus', 'shop/wide', { HOSTS: '1/1', 'IN FORCE': 'True' });
  const left = async (): Promise<boolean> =>
    (await cluster.kubectl('get', 'hostpolicies', '--output=name')) === 'hostpolicies.causeway.dev/host1';
  await until('what it told to be gone', left, { timeoutMs: 120_000, intervalMs: 500 });
});
