// Calico's policies in a real cluster, as files that its users have: kubectl takes them, and traffic obeys.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { installCalico } from '#lab/kubernetes-install.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { networkPolicy, PolicyBed } from './policy-bed.ts';

const name = 'calico-policy';
const pool = {
  apiVersion: 'projectcalico.org/v3',
  kind: 'IPPool',
  metadata: { name: 'default-ipv4-ippool' },
  spec: { cidr: '10.50.0.0/16', ipipMode: 'Never', natOutgoing: true, nodeSelector: 'all()' },
};
const pods = { 'shop/web': 'host1', 'shop/near': 'host1', 'shop/far': 'host2', 'other/stranger': 'host2' } as const;
const clients = ['shop/near', 'shop/far', 'other/stranger'] as const;
let bed: PolicyBed;
let cluster: Kubernetes;

before(async () => {
  bed = await PolicyBed.start(name, pods, (of) => installCalico(of, [pool]));
  cluster = bed.cluster;
});
after(() => destroyLab(name));

/** Exactly those reach the web. */
async function onlyReach(...friends: readonly string[]): Promise<void> {
  await Promise.all(clients.map((client) => bed.becomes(friends.includes(client), client, 'shop/web')));
}
const remove = (...words: readonly string[]): Promise<string> => cluster.kubectl('delete', ...words);
async function isPinged(from: string, to: string): Promise<boolean> {
  const [namespace = '', podName = ''] = from.split('/');
  const words = ['exec', `--namespace=${namespace}`, podName, '--', 'ping', '-c', '1', '-W', '1', bed.ipOf(to)];
  return (await cluster.tryKubectl(words, { anyStatus: true })).status === 0;
}

interface Told {
  readonly policy: string;
  readonly endpoints: number;
  readonly staged?: true;
  readonly problems: readonly string[];
  readonly rules: readonly { readonly rule: string; readonly action: string; readonly packets: number }[];
}
async function told(policy: string, hostName = 'host1'): Promise<Told | undefined> {
  const words = ['curl', '--silent', '--unix-socket', '/run/causeway/agent.sock', 'http://agent/policies'];
  const { policies } = JSON.parse(await bed.lab.host(hostName).ask(words)) as { readonly policies: readonly Told[] };
  return policies.find((one) => one.policy === policy);
}

test('a policy of a namespace and one of the whole cluster, as Calico’s documentation has them', async () => {
  await cluster.applyText(`
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: allow-web
  namespace: shop
spec:
  selector: app == 'web'
  types:
  - Ingress
  ingress:
  - action: Allow
    metadata:
      annotations:
        from: near
    protocol: TCP
    source:
      selector: app == 'near'
    destination:
      ports:
      - 8080
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: default.allow-strangers
spec:
  order: 10
  namespaceSelector: projectcalico.org/name == 'shop'
  selector: app in {'web', 'db'}
  ingress:
  - action: Allow
    protocol: TCP
    source:
      namespaceSelector: team == 'other'
    destination:
      ports: [http, "9000:9010"]
`);
  await onlyReach('shop/near', 'other/stranger');
  await until('it to be told', async () => (await told('Calico NetworkPolicy shop/allow-web'))?.endpoints === 1);
  await remove('globalnetworkpolicies.projectcalico.org', 'default.allow-strangers');
  await onlyReach('shop/near');
  await remove('caliconetworkpolicy', 'allow-web', '--namespace=shop');
  await onlyReach(...clients);
});

test('tiers in order, with deny, pass and what each does with the rest; sets of prefixes', async () => {
  await cluster.applyText(`
apiVersion: projectcalico.org/v3
kind: Tier
metadata:
  name: security
spec:
  order: 100
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata:
  name: threats
  labels:
    kind: threat
spec:
  nets:
  - 198.51.100.0/24
  - ${bed.ipOf('shop/far')}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: security.block-threats
spec:
  tier: security
  selector: app == 'web'
  ingress:
  - action: Deny
    source:
      selector: kind == 'threat'
  - action: Pass
    source:
      nets: [10.50.0.0/16]
`);
  await onlyReach('shop/near', 'other/stranger');
  // Whatever is passed meets Kubernetes' own policies in the default tier.
  await cluster.apply(
    networkPolicy('shop/near-and-far', {
      podSelector: { matchLabels: { app: 'web' } },
      ingress: [{ from: [{ podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['near', 'far'] }] } }] }],
    }),
  );
  await onlyReach('shop/near');
  // A set that is changed, and a tier that passes on.
  await cluster.kubectl('label', 'globalnetworkset', 'threats', 'kind=none', '--overwrite');
  await onlyReach('shop/near', 'shop/far');
  await remove('networkpolicies.networking.k8s.io', 'near-and-far', '--namespace=shop');
  await onlyReach(...clients);
  await remove('globalnetworkpolicies', 'security.block-threats');
});

test('ICMP, not ports, not nets, who runs as which service account, and services', async () => {
  await cluster.applyText(`
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: ICMP, icmp: {type: 8}}
  - action: Allow
    protocol: TCP
    source: {notNets: [${bed.ipOf('shop/far')}/32], serviceAccounts: {names: [default]}, namespaceSelector: all()}
    destination: {notPorts: [8081]}
`);
  await onlyReach('shop/near', 'other/stranger');
  await until('an answer to a ping', () => isPinged('shop/far', 'shop/web'));
  await cluster.applyText(`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: only-the-service, namespace: shop}
spec:
  selector: app in {'near', 'far'}
  types: [Egress]
  egress:
  - {action: Allow, destination: {services: {name: web, namespace: shop}}}
`);
  await bed.becomes(false, 'shop/near', 'other/stranger');
  await bed.becomes(true, 'shop/near', 'shop/web');
  await until('no answer to a ping', async () => !(await isPinged('shop/far', 'shop/web')));
  await remove('networkpolicies.projectcalico.org', '--all', '--namespace=shop');
  await onlyReach(...clients);
});

/** Until its rules are these, each with whether it has met anything. */
const areCounted = (policy: string, ...wanted: readonly string[]): Promise<unknown> =>
  until(`what ${policy} has met`, async () => {
    const rules = (await told(policy))?.rules.map(({ rule, action, packets }) => `${rule} ${action} ${packets > 0}`);
    assert.deepEqual(rules, wanted);
    return true;
  });

test('staged policies change nothing; what they would decide is counted', async () => {
  await cluster.applyText(`
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: strict, namespace: shop}
spec:
  selector: app == 'web'
  ingress:
  - {action: Deny, source: {selector: app == 'near'}}
  - {action: Allow, source: {namespaceSelector: team == 'other'}}
---
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: all}
spec: {selector: app == 'far', ingress: [{action: Deny}]}
`);
  await until('the staged policies', async () => (await told('StagedNetworkPolicy shop/strict'))?.endpoints === 1);
  await until('the other', async () => (await told('StagedKubernetesNetworkPolicy shop/closed'))?.endpoints === 1);
  await bed.becomes(true, 'shop/near', 'shop/web');
  await bed.becomes(true, 'shop/far', 'shop/web');
  await areCounted('StagedNetworkPolicy shop/strict', 'ingress 1 deny true', 'ingress 2 allow false', 'ingress otherwise deny true');
  await areCounted('StagedKubernetesNetworkPolicy shop/closed', 'ingress otherwise deny true');
  await until('one of the whole cluster', async () => (await told('StagedGlobalNetworkPolicy all', 'host2'))?.staged === true);
  await bed.becomes(true, 'shop/near', 'shop/far');
  const kinds = ['stagednetworkpolicies', 'stagedkubernetesnetworkpolicies'];
  for (const kind of kinds) await remove(kind, '--all', '--namespace=shop');
  await remove('stagedglobalnetworkpolicies', '--all');
});

const spoiled: readonly (readonly [what: string, spec: string, field: string])[] = [
  ['an action that is none', '{ingress: [{action: Permit}]}', 'spec.ingress.action'],
  ['a rule without action', '{ingress: [{protocol: TCP}]}', 'spec.ingress.action'],
  ['a protocol that is none', '{ingress: [{action: Allow, protocol: HTTP}]}', 'spec.ingress.protocol'],
  ['a number that is no protocol', '{egress: [{action: Allow, notProtocol: 256}]}', 'spec.egress.notProtocol'],
  ['a net that is none', '{ingress: [{action: Deny, source: {nets: [everywhere]}}]}', 'spec.ingress.source.nets'],
  ['a port that is none', '{ingress: [{action: Allow, protocol: TCP, destination: {ports: [65536]}}]}', 'spec.ingress.destination.ports'],
  ['a type of ICMP that is none', '{ingress: [{action: Allow, protocol: ICMP, icmp: {type: 255}}]}', 'spec.ingress.icmp.type'],
  ['a direction that is none', '{types: [Sideways]}', 'spec.types'],
  ['an order that is no number', '{order: first}', 'spec.order'],
  ['a selector that cannot be read', "{selector: app = 'web'}", 'spec.selector'],
  ['one of a rule', '{ingress: [{action: Allow, source: {namespaceSelector: has(a b)}}]}', 'spec.ingress.source.namespaceSelector'],
];
test('kubectl refuses what is wrong, by the name of the field', async () => {
  for (const [what, spec, place] of spoiled) {
    const input = `apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: wrong}\nspec: ${spec}\n`;
    const { status, stderr } = await cluster.tryKubectl(['apply', '--validate=false', '--filename=-'], { input, anyStatus: true });
    assert.notEqual(status, 0, what);
    assert.ok(stderr.replaceAll(/\[\d+\]/g, '').includes(place), `${what}: ${stderr}`);
  }
  const tier = 'apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: wrong}\nspec: {defaultAction: Allow}\n';
  const { stderr } = await cluster.tryKubectl(['apply', '--validate=false', '--filename=-'], { input: tier, anyStatus: true });
  assert.match(stderr, /spec\.defaultAction/);
});

test('what gets past the schema opens nothing, and is told with its field', async () => {
  await cluster.applyText(`
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: by-http, namespace: shop}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, source: {selector: app == 'near'}, http: {methods: [GET]}}
  - {action: Allow, source: {selector: (app == 'near'}}
  - {action: Allow, source: {selector: app == 'far'}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: nowhere}
spec: {tier: nowhere, selector: app == 'far', ingress: [{action: Allow, source: {selector: app == 'web'}}]}
`);
  await onlyReach('shop/far');
  const problems = (await told('Calico NetworkPolicy shop/by-http'))?.problems ?? [];
  assert.match(problems[0] ?? '', /^spec\.ingress\[0\]\.http: .*it allows nothing$/);
  assert.match(problems[1] ?? '', /^spec\.ingress\[1\]\.source\.selector: .*it allows nothing$/);
  await bed.becomes(false, 'shop/near', 'shop/far');
  await bed.becomes(true, 'shop/web', 'shop/far');
  await until('its tier to be told', async () => {
    const [problem = ''] = (await told('GlobalNetworkPolicy nowhere', 'host2'))?.problems ?? [];
    return problem.startsWith('spec.tier: there is no tier nowhere');
  });
});

test('where the last policy has gone everything is open again', async () => {
  await remove('networkpolicies.projectcalico.org', '--all', '--namespace=shop');
  await remove('globalnetworkpolicies', '--all');
  await onlyReach(...clients);
  for (const host of bed.lab.hosts)
    await until('the rules to be gone', async () => !(await host.ask(['nft', 'list', 'tables'])).includes('causeway_policy'));
});
