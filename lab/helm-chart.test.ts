import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { isFault } from '#model/fault.ts';
import { chartFolder, renderChart, renderTemplate } from '#cli/helm-chart.ts';
import { models } from '#drivers/models.ts';
import { manifests, manifestsFolder, placeholder } from './helm-chart.ts';
import { defaultImage } from './image.ts';

type Changes = NonNullable<Parameters<typeof renderChart>[0]>;
const render = (changes: Changes = {}): string[] => renderChart({ apiServer: placeholder, ...changes });

const context = { Values: { a: 'x', list: ['p', 'q'], none: '', no: false, map: { b: 1, a: '<' } }, Chart: { AppVersion: '1.2' } };

// What Go's text/template and sprig say of each.
const rendered: readonly (readonly [string, string])[] = [
  ['a: {{ .Values.a }}', 'a: x'],
  ['{{ .Values.a | quote }}', '"x"'],
  ['{{ .Values.list | join "," | quote }}', '"p,q"'],
  ['{{ .Values.map.b }}{{ .Values.no | toJson }}', '1false'],
  ['{{ printf "%s:%s" .Values.a (.Values.none | default .Chart.AppVersion) | quote }}', '"x:1.2"'],
  ['{{ default "y" .Values.a }}', 'x'],
  ['{{ if eq .Values.a "x" }}1{{ end }}{{ if eq .Values.a "y" }}2{{ end }}', '1'],
  ['{{ "" | sha256sum }}', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
  ['1\n{{- if .Values.no }}\n2\n{{- else }}\n3\n{{- end }}\n4', '1\n3\n4'],
  ['1\n{{- if not .Values.no -}}\n 2 {{ end }}3', '12 3'],
  ['{{ if .Values.no }}{{ if .Values.a }}1{{ else }}2{{ end }}{{ end }}3', '3'],
  ['{{ omit .Values.map "a" "z" | toJson }}', '{"b":1}'],
  [
    '{{ semverCompare ">=1.30-0" "v1.36.0" }} {{ semverCompare ">=1.30-0" "1.29.9-eks" }} {{ semverCompare "<1.30-0" "v1.30+" }}',
    'true false false',
  ],
  ['{{ .Values.list | toJson }} {{ .Values.map | toJson }}', '["p","q"] {"a":"\\u003c","b":1}'],
];
for (const [template, output] of rendered) {
  test(`renders ${JSON.stringify(template)}`, () => assert.equal(renderTemplate(template, context), output));
}

for (const template of [
  '{{ .Values.b }}',
  '{{ a }}',
  '{{ .Values.a | b }}',
  '{{ range .Values.list }}{{ end }}',
  '{{ if .Values.a }}',
  '{{ (.Values.a }}',
])
  test(`refuses ${template}`, () =>
    assert.throws(
      () => renderTemplate(template, context),
      (error) => isFault(error, 'unsupported'),
    ));

test('the files for kubectl are those of the chart', () => {
  for (const [name, content] of Object.entries(manifests()))
    assert.equal(readFileSync(join(manifestsFolder, name), 'utf8'), content, `packaging/kubernetes/${name}: npm run manifests`);
});

test('AppArmor is told to leave alone what sets settings of the kernel, by what a server of each version reads', () => {
  const annotation = /^ +container\.apparmor\.security\.beta\.kubernetes\.io\/(agent|uninstall): unconfined$/gm;
  const field = /^ +appArmorProfile: \{ type: Unconfined \}$/gm;
  const found = (version: string, uninstall: boolean): number[] => {
    const documents = renderChart({ uninstall, apiServer: 'https://10.0.0.5:6443' }, version).join('\n');
    return [annotation, field].map((pattern) => [...documents.matchAll(pattern)].length);
  };
  for (const uninstall of [false, true])
    assert.deepEqual(
      ['v1.20.2', 'v1.29.4-gke.1', 'v1.30.0', 'v1.33.1+k3s1', 'v1.34.0', 'v1.36.0'].map((version) => found(version, uninstall)),
      [
        [1, 0],
        [1, 0],
        [1, 1],
        [1, 1],
        [0, 1],
        [0, 1],
      ],
    );
});

test("the chart's values are those of its schema, and its image is the one that is built", () => {
  const values = parse(readFileSync(join(chartFolder, 'values.yaml'), 'utf8')) as Record<string, unknown>;
  const schema = JSON.parse(readFileSync(join(chartFolder, 'values.schema.json'), 'utf8')) as { properties: Record<string, unknown> };
  assert.deepEqual(Object.keys(schema.properties).toSorted(), [...Object.keys(values), 'global'].toSorted());
  assert.ok(render().some((document) => document.includes(`image: "${defaultImage}"`)));
});

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}
interface Role {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly rules: readonly Rule[];
}

const rulesOf = (model: string, name: string): readonly Rule[] =>
  render({ model })
    .map((document) => parse(document) as Role)
    .find(({ kind, metadata }) => kind === 'ClusterRole' && metadata.name === name)?.rules ?? assert.fail(name);

test('who follows what a definition brings may wait for that definition, and for no other', () => {
  const brought = /\.(causeway\.dev|projectcalico\.org|k8s\.cni\.cncf\.io|policy\.networking\.k8s\.io)$/;
  for (const model of ['flannel', 'calico'])
    for (const name of ['causeway-agent', 'causeway-controller']) {
      const rules = rulesOf(model, name);
      const followed = rules
        .filter(({ verbs }) => verbs.includes('watch'))
        .flatMap(({ apiGroups: [group = ''], resources }) => resources.map((resource) => `${resource}.${group}`))
        // Which agents follow in a way of their own, and cannot do without.
        .filter((one) => brought.test(one) && !(name === 'causeway-agent' && one === 'blocks.causeway.dev'));
      const awaited = rules.filter(({ resources }) => resources.includes('customresourcedefinitions'));
      assert.deepEqual(awaited.flatMap(({ resourceNames = [] }) => resourceNames).toSorted(), followed.toSorted());
      for (const { verbs } of awaited) assert.deepEqual(verbs, ['list', 'watch']);
    }
});

interface Pod {
  readonly imagePullSecrets?: readonly object[];
  readonly volumes: readonly { readonly name: string }[];
  readonly containers: readonly { readonly volumeMounts?: readonly { readonly name: string }[] }[];
  readonly initContainers?: Pod['containers'];
}
interface Shown {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: { readonly template: { readonly spec: Pod } };
}
const shown = (changes: Changes): Shown[] => render(changes).map((document) => parse(document) as Shown);

const pullSecrets = (changes: Changes): (readonly object[] | undefined)[] =>
  [...shown(changes), ...shown({ ...changes, uninstall: true })].flatMap(({ kind, spec }) =>
    kind === 'DaemonSet' || kind === 'Deployment' ? [spec.template.spec.imagePullSecrets] : [],
  );

test('all pods pull their image with the secrets that are named, and with none unless some are', () => {
  const image = { repository: 'r.example/causeway', tag: '', pullPolicy: 'Always', pullSecrets: [{ name: 'one' }, { name: 'two' }] };
  assert.deepEqual(
    pullSecrets({ image, userspaceWireguard: true }),
    Array.from({ length: 4 }, () => image.pullSecrets),
  );
  assert.deepEqual(
    pullSecrets({ userspaceWireguard: true }),
    Array.from({ length: 4 }, () => undefined),
  );
});

for (const [what, kind, changes] of [
  ['agents', 'DaemonSet', {}],
  ['agents that ask the runtime', 'DaemonSet', { cni: { bin: '/opt/cni/bin', conf: '/etc/cni/net.d', runtime: '/run/containerd' } }],
  ['who runs wireguard-go', 'DaemonSet causeway-wireguard', { userspaceWireguard: true }],
  ['controllers', 'Deployment', {}],
  ['controllers with a cloud', 'Deployment', { cloud: { secret: 'causeway-cloud' } }],
  ['uninstalling', 'DaemonSet', { uninstall: true }],
] as const) {
  test(`the pods of ${what} mount the volumes that they have`, () => {
    const pod = shown(changes).find((object) => `${object.kind} ${object.metadata.name}`.startsWith(kind))?.spec.template.spec;
    assert.ok(pod !== undefined);
    const mounted = [...(pod.initContainers ?? []), ...pod.containers]
      .flatMap(({ volumeMounts }) => volumeMounts ?? [])
      .map(({ name }) => name);
    assert.deepEqual([...new Set(mounted)].toSorted(), pod.volumes.map(({ name }) => name).toSorted());
  });
}

test('with a cloud controllers are told of it, and read the login from the Secret and in no other way', () => {
  const cloud = {
    secret: 'causeway-cloud',
    cloud: 'mycloud',
    name: 'web',
    network: 'nodes',
    routes: 'main',
    provider: 'amphora',
    maxSharedLb: 3,
    interval: 30,
    allBalancers: true,
  };
  const documents = render({ cloud });
  const deployment = documents.find((document) => /^kind: Deployment$/m.test(document)) ?? assert.fail('there are no controllers');
  const { containers, volumes } = (parse(deployment) as Shown).spec.template.spec;
  const env = (containers[0] as unknown as { env: { name: string; value: string }[] }).env;
  assert.deepEqual(
    Object.fromEntries(env.filter(({ name }) => name.startsWith('CAUSEWAY_CLOUD')).map(({ name, value }) => [name, value])),
    {
      CAUSEWAY_CLOUD: 'mycloud',
      CAUSEWAY_CLOUD_NAME: 'web',
      CAUSEWAY_CLOUD_INTERVAL: '30',
      CAUSEWAY_CLOUD_NETWORK: 'nodes',
      CAUSEWAY_CLOUD_ROUTES: 'main',
      CAUSEWAY_CLOUD_PROVIDER: 'amphora',
      CAUSEWAY_CLOUD_MAX_SHARED_LB: '3',
      CAUSEWAY_CLOUD_ALL_BALANCERS: '1',
    },
  );
  assert.deepEqual(volumes.at(-1), { name: 'cloud', secret: { secretName: 'causeway-cloud' } });
  assert.deepEqual(containers[0]?.volumeMounts?.at(-1), { name: 'cloud', mountPath: '/etc/openstack', readOnly: true });
  assert.ok(!documents.some((document) => /resources: \[.*\bsecrets\b/.test(document)), 'nobody may read Secrets by the API');
  assert.ok(!render().some((document) => document.includes('CAUSEWAY_CLOUD')));
});

test('without controllers in the cluster there is what one by hand needs', () => {
  const controller = { replicas: 0, resources: {} };
  const names = shown({ controller }).map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  const ofControllers = names.filter((name) => name.endsWith(' causeway-controller'));
  assert.deepEqual(ofControllers, ['ClusterRole causeway-controller', 'Role causeway-controller']);
  assert.ok(names.includes('CustomResourceDefinition addresspools.causeway.dev'));
});

test('whoever uninstalls keeps nothing but the pods that do it, and what these may', () => {
  assert.deepEqual(
    shown({ uninstall: true }).map(({ kind, metadata }) => `${kind} ${metadata.name}`),
    ['ServiceAccount', 'ClusterRole', 'ClusterRoleBinding', 'DaemonSet'].map((kind) => `${kind} causeway-uninstall`),
  );
});

test('without the address of the API server nothing is installed, and whoever uninstalls needs none', () => {
  assert.throws(
    () => renderChart(),
    (error) => isFault(error, 'invalid') && error.message.startsWith('apiServer '),
  );
  assert.equal(renderChart({ uninstall: true }).length, 4);
});

const readByName = (model: string): string[] =>
  rulesOf(model, 'causeway-agent')
    .flatMap(({ resources, verbs }) => (verbs.includes('get') ? resources : []))
    .toSorted();

test('agents may ask by its name for what they do ask for so, and for nothing else', () => {
  const always = ['hostpolicies', 'network-attachment-definitions', 'nodes'];
  assert.deepEqual(readByName('flannel'), always);
  assert.deepEqual(readByName('calico'), [...always, 'blocks', 'namespaces', 'pods'].toSorted());
});

interface Carries {
  readonly properties: { readonly carry: { readonly enum: readonly string[] } };
}

test('which carriages the chart takes is said by the model', () => {
  const schema = JSON.parse(readFileSync(join(chartFolder, 'values.schema.json'), 'utf8')) as Record<'then' | 'else', Carries> & Carries;
  const { then: calico, else: flannel, properties } = schema;
  const taken = ({ properties: { carry } }: Carries): string[] => carry.enum.filter((name) => name !== '').toSorted();
  assert.deepEqual(taken(calico), [...models.calico.carries].toSorted());
  assert.deepEqual(taken(flannel), [...models.flannel.carries].toSorted());
  assert.deepEqual(new Set(properties.carry.enum), new Set(['', ...taken(calico), ...taken(flannel)]));
});
