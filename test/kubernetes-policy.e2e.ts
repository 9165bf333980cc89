// Policy in a real cluster: what is forbidden does not get through, from a pod's first packet on, and what is allowed does.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { calicoDefinitions } from '#lab/kubernetes-install.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { agentStatus } from './bed.ts';
import { found } from './kubernetes-bed.ts';
import { networkPolicy, PolicyBed, policyPod as pod } from './policy-bed.ts';

const name = 'policy-test';
let bed: PolicyBed;
let lab: Lab;
let cluster: Kubernetes;

const policy = (policyName: string, spec: object): object => networkPolicy(`shop/${policyName}`, spec);
const field = (key: string, path: string): Promise<string> => bed.field(key, path);
const ipOf = (key: string): string => bed.ipOf(key);
const isReached = (from: string, to: string, seconds?: number): Promise<boolean> => bed.isReached(from, to, seconds);
const becomes = (reached: boolean, from: string, to: string): Promise<true> => bed.becomes(reached, from, to);

/** How many pods of host1 have a network. */
const links = async (): Promise<number> =>
  (await lab.host('host1').ask(['ip', '-br', 'link'])).split('\n').filter((line) => line.startsWith('cwe')).length;

before(async () => {
  bed = await PolicyBed.start(name, { 'shop/web': 'host1', 'shop/near': 'host1', 'shop/far': 'host2', 'other/stranger': 'host2' });
  ({ lab, cluster } = bed);
  // Agents look for sorts of objects that were not there every half a minute.
  await cluster.applyText(calicoDefinitions());
});
after(() => destroyLab(name));

test('without a policy everybody reaches everybody, and no rule is looked at', async () => {
  await Promise.all(['shop/near', 'shop/far', 'other/stranger'].map((from) => becomes(true, from, 'shop/web')));
  for (const host of lab.hosts) assert.ok(!(await host.ask(['nft', 'list', 'tables'])).includes('causeway_policy'));
});

test('who is selected is closed, on its own host and from others; its node still probes it', async () => {
  await cluster.apply(policy('closed', { podSelector: { matchLabels: { app: 'web' } } }));
  await becomes(false, 'shop/near', 'shop/web');
  await Promise.all(['shop/far', 'other/stranger'].map((from) => becomes(false, from, 'shop/web')));
  await Promise.all(['shop/near', 'shop/web'].map((from) => becomes(true, from, 'shop/far')));
  await lab.host('host1').ask(['busybox', 'wget', '-qO-', '-T', '15', `http://${ipOf('shop/web')}:8080/`]);
  assert.equal(await field('shop/web', '.status.conditions[?(@.type=="Ready")].status'), 'True');
});

test('the agent tells what is in force, in which version, and what each rule has met', async () => {
  const words = ['curl', '--silent', '--unix-socket', '/run/causeway/agent.sock', 'http://agent/policies'];
  const wanted = [1, 0].map((endpoints) => ({
    policies: [{ policy: 'NetworkPolicy shop/closed', generation: 1, endpoints, problems: [], rules: [] }],
  }));
  await until('both to tell', async () => {
    const told = await Promise.all(lab.hosts.map(async (host) => await host.ask(words)));
    assert.deepEqual(
      told.map((text) => JSON.parse(text)),
      wanted,
    );
    return true;
  });
});

test('namespaces and named ports; a change of labels is obeyed', async () => {
  const from = [{ namespaceSelector: { matchLabels: { team: 'friends' } } }];
  await cluster.apply(
    policy('friends', { podSelector: { matchLabels: { app: 'web' } }, ingress: [{ from, ports: [{ port: 'http' }] }] }),
    policy('near', {
      podSelector: { matchLabels: { app: 'web' } },
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'near' } } }] }],
    }),
  );
  await becomes(true, 'shop/near', 'shop/web');
  assert.equal(await isReached('other/stranger', 'shop/web'), false);
  await cluster.kubectl('label', 'namespace', 'other', 'team=friends', '--overwrite');
  await becomes(true, 'other/stranger', 'shop/web');
  await cluster.kubectl('label', 'namespace', 'other', 'team=other', '--overwrite');
  await becomes(false, 'other/stranger', 'shop/web');
  await cluster.kubectl('label', 'pod', 'far', '--namespace=shop', 'app=near', '--overwrite');
  await becomes(true, 'shop/far', 'shop/web');
});

test('egress to a block with exceptions', async () => {
  const to = [{ ipBlock: { cidr: '10.244.0.0/16', except: [`${ipOf('shop/web')}/32`] } }];
  await cluster.apply(policy('out', { podSelector: { matchLabels: { app: 'near' } }, policyTypes: ['Egress'], egress: [{ to }] }));
  await becomes(false, 'shop/near', 'shop/web');
  await becomes(true, 'shop/near', 'other/stranger');
  await cluster.kubectl('delete', 'networkpolicy', 'out', '--namespace=shop');
  await becomes(true, 'shop/near', 'shop/web');
});

test('a policy is in force before the first packet of a new pod', async () => {
  await cluster.apply(policy('silent', { podSelector: { matchLabels: { app: 'silent' } }, policyTypes: ['Egress'], egress: [] }));
  const ask = `for i in 1 2 3 4 5; do wget -qO- -T 1 http://${ipOf('other/stranger')}:8080/ && exit 1; done; exit 0`;
  await cluster.apply(pod('shop/silent', 'host1', ask));
  await until('it to have tried', async () => (await field('shop/silent', '.status.containerStatuses[0].state')).includes('terminated'));
  assert.equal(await field('shop/silent', '.status.containerStatuses[0].state.terminated.exitCode'), '0');
  // The runtime takes its network away at a time of its own, which must not be in the middle of what follows.
  await cluster.kubectl('delete', 'pod', 'silent', '--namespace=shop', '--wait');
  await until("the pod's link to be gone", async () => (await links()) === 2);
});

test('an agent that is restarted changes nothing, and policies hold meanwhile', async () => {
  const host = lab.host('host1');
  await host.stopService('agent', 'SIGKILL');
  assert.equal(await isReached('other/stranger', 'shop/web', 1), false);
  await becomes(true, 'shop/near', 'shop/web');
  await cluster.startAgent(host);
  await until(
    'the agent to be in step',
    async () => host.log('agent').split('agent is running').at(-1)?.includes('following the controller') === true,
  );
  await until('everything to be planned', async () => (await agentStatus(host)).desired > 0);
  assert.equal((await agentStatus(host)).kernelWrites, 0);
  assert.equal(await isReached('other/stranger', 'shop/web', 1), false);
});

test('a pod is not taken for one of its name that was there before, also when nobody can say who it is', async () => {
  const host = lab.host('host1');
  await cluster.apply(pod('shop/reborn', 'host1'));
  await cluster.kubectl('wait', '--namespace=shop', '--for=condition=Ready', 'pod', 'reborn', '--timeout=240s');
  await host.stopService('agent', 'SIGKILL');
  await cluster.kubectl('delete', 'pod', 'reborn', '--namespace=shop', '--force', '--grace-period=0');
  const ask = `for i in 1 2 3; do wget -qO- -T 1 http://${ipOf('other/stranger')}:8080/ && exit 1; done; touch /tried; sleep 3600`;
  const { metadata, ...rest } = pod('shop/reborn', 'host1', ask);
  await cluster.apply({ ...rest, metadata: { ...metadata, labels: { app: 'silent' } } });
  await until('its node to know it', async () => (await field('shop/reborn', '.status.startTime')) !== '');
  await lab.controller.stopService('kube-apiserver', 'SIGKILL');
  await cluster.startAgent(host);
  const tried = ['sh', '-c', 'for root in /proc/[0-9]*/root; do test -e $root/tried && echo yes && break; done'];
  await until('it to have tried', async () => (await host.ask(tried)) === 'yes', { timeoutMs: 180_000 });
  await cluster.controlPlane.startApi();
  await until('the API to tell', async () => (await field('shop/reborn', '.status.phase')) === 'Running', { timeoutMs: 180_000 });
  await cluster.kubectl('delete', 'pod', 'reborn', '--namespace=shop', '--wait');
  await until("the pod's link to be gone", async () => (await links()) === 2);
});

test("Calico's policies, sets, tiers and host endpoints with the model flannel", async () => {
  const [host1, host2] = [lab.host('host1'), lab.host('host2')];
  const isKubeletMet = async (from: string): Promise<boolean> => {
    const words = ['exec', '--namespace=shop', from, '--', 'sh', '-c', `nc -w 2 ${host1.address} 10250 </dev/null`];
    return (await cluster.tryKubectl(words, { anyStatus: true })).status === 0;
  };
  await until('a pod to reach its node', () => isKubeletMet('web'));
  await cluster.applyText(`
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: first}
spec: {order: 10, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: threats, labels: {kind: threat}}
spec: {nets: [${ipOf('shop/near')}/32]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: no-threats}
spec: {tier: first, selector: app == 'stranger', ingress: [{action: Deny, source: {selector: kind == 'threat'}}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: by-account, namespace: other}
spec: {selector: app == 'stranger', ingress: [{action: Allow, source: {serviceAccounts: {names: [default]}, namespaceSelector: all()}}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: nodes}
spec: {selector: role == 'guarded', types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [10250]}}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: no-kubelet}
spec: {selector: app == 'web', egress: [{action: Deny, protocol: TCP, destination: {ports: [10250]}}, {action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: host1, labels: {role: guarded}}
spec: {node: host1, interfaceName: "*"}
`);
  await until('the set to be denied', async () => !(await isReached('shop/near', 'other/stranger', 1)), { timeoutMs: 180_000 });
  await until('the node to be closed', async () => (await found(host2, host1.address, 8099)) === 'nothing', { timeoutMs: 180_000 });
  await until('nothing from it', async () => (await found(host1, host2.address, 8099)) === 'nothing');
  await until('itself to be met', async () => (await found(host1, host1.address, 8099)) === 'refused');
  // Who is in no set is allowed by its account; the VXLAN of the node goes on, and so does the kubelet.
  await becomes(true, 'shop/web', 'other/stranger');
  assert.equal(await field('shop/web', '.status.conditions[?(@.type=="Ready")].status'), 'True');
  // A pod and its own node: what Calico's policies say of what the pod sends holds there, too.
  await until('one to be kept from its node', async () => !(await isKubeletMet('web')));
  await until('another not to be', () => isKubeletMet('near'));
  const kinds = ['hostendpoints', 'globalnetworkpolicies', 'globalnetworksets', 'tiers', 'networkpolicies.projectcalico.org'];
  for (const kind of kinds) await cluster.kubectl('delete', kind, '--all', ...(kind.startsWith('network') ? ['--namespace=other'] : []));
  await becomes(true, 'shop/near', 'other/stranger');
  await until('the node to be open', async () => (await found(host2, host1.address, 8099)) === 'refused');
});

test('where the last policy has gone everything is open again', async () => {
  await cluster.kubectl('delete', 'networkpolicy', '--all', '--namespace=shop');
  await becomes(true, 'other/stranger', 'shop/web');
  for (const host of lab.hosts)
    await until('the rules to be gone', async () => !(await host.ask(['nft', 'list', 'tables'])).includes('causeway_policy'));
});
