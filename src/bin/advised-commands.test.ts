// Every command that `causeway plan` may recommend, read by what it is for: our own parser and the rules for models, the controller's
// parser, the chart's schema, and the reader of the networks that pods ask for.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { type Case, judgeWay, type Judgement } from '#cloud/advice.ts';
import { advisedModels, advisedNames, type Feature, features, type FrontEnd } from '#cloud/advice-table.ts';
import type { Survey } from '#cloud/survey.ts';
import { networkOf, surveyOf } from '#cloud/survey.fixture.ts';
import { fakeClient } from '#cli/fake.ts';
import { chartFolder, renderChart } from '#cli/helm-chart.ts';
import { commandsOf } from '#cli/plan-commands.ts';
import { run } from '#cli/run.fixture.ts';
import { choicesFor } from '#drivers/models.ts';
import { readOwnNetwork } from '#kubernetes/own-network.ts';
import type { CarryName, ModelName } from '#model/resources.ts';

interface Recommended {
  readonly judged: Judgement;
  readonly known: Case;
  readonly commands: readonly string[];
}
const of = ({ judged, known: { needs, survey } }: Recommended): string =>
  `${judged.model} ${judged.carry}, ${needs.frontEnds.join('+')} ${needs.features.join('+')}, ${survey.parents} parents`;

const twice = { ...networkOf(1442, [4, 6]), name: 'Our hosts' };
const clouds: readonly Survey[] = [
  surveyOf(),
  surveyOf({ parents: 2 }),
  surveyOf({ parents: 2, network: networkOf(1500, [4], false) }),
  surveyOf({ parents: 2, network: { ...twice, subnets: [...twice.subnets, ...networkOf(1442, [4]).subnets] }, routers: ['a', 'b'] }),
  surveyOf({ network: networkOf(1500, [6]) }),
];
const frontEnds: readonly (readonly FrontEnd[])[] = [['docker'], ['kubernetes'], ['docker', 'kubernetes']];
const subsets: readonly (readonly Feature[])[] = Array.from({ length: 2 ** features.length }, (_, bits) =>
  features.filter((__, index) => (bits >> index) % 2 === 1),
);

function everything(): Recommended[] {
  const cases = clouds.flatMap((survey) =>
    frontEnds.flatMap((some) =>
      subsets.map((wanted): Case => ({ survey, needs: { features: wanted, frontEnds: some, hosts: 3, containers: 9, networks: 1 } })),
    ),
  );
  return cases.flatMap((known, index) =>
    advisedNames.flatMap((model) =>
      advisedModels[model].ways
        .map((way) => judgeWay(model, way, known))
        .filter(({ obstacles }) => obstacles.length === 0)
        .map((judged) => ({ judged, known, commands: commandsOf(judged, { ...known, cloud: index % 2 === 0 ? 'mycloud' : undefined }) })),
    ),
  );
}
const all = everything();
const whole = (starts: string): readonly (Recommended & { readonly line: string })[] =>
  all.flatMap((one) => one.commands.filter((line) => line.startsWith(starts)).map((line) => ({ ...one, line })));

test('each model and way that can be is among them, and each command is one that is read below', () => {
  const pairs = new Set(all.map(({ judged }) => `${judged.model} ${judged.carry}`));
  for (const model of advisedNames)
    for (const { carry } of advisedModels[model].planned === undefined ? advisedModels[model].ways : [])
      assert.ok(pairs.has(`${model} ${carry}`), `${model} ${carry}`);
  const known = /^(causeway (network create|cloud apply|controller) |helm install |kubectl .* create secret |echo '.*' \| kubectl apply )/;
  for (const one of all) for (const line of one.commands) assert.match(line, /^causeway cloud apply$/.test(line) ? /./ : known, of(one));
});

interface Created {
  readonly model: ModelName;
  readonly carry?: CarryName;
  readonly encrypted?: boolean;
  readonly neutron?: { readonly network: string };
}

test('networks are made as they are recommended', async () => {
  for (const one of whole('causeway network create ')) {
    const client = fakeClient();
    const { status, err } = await run(one.line.split(' ').slice(1), { client });
    assert.equal(status, 0, `${of(one)}: ${one.line}: ${err}`);
    const request = JSON.parse(
      client.requests.find((asked) => asked.startsWith('POST networks '))?.slice('POST networks '.length) ?? '',
    ) as Created;
    const { carry } = choicesFor(request.model, request);
    assert.equal(request.model, one.judged.model);
    assert.equal(request.neutron === undefined, request.model !== 'neutron', one.line);
    if (request.model !== 'neutron') assert.equal(carry, one.judged.carry.replace(', encrypted', ''), of(one));
    assert.equal(request.encrypted ?? false, one.known.needs.features.includes('encryption'));
  }
});

test('the cloud is applied by options that there are', async () => {
  for (const line of new Set(whole('causeway cloud apply').map((one) => one.line))) {
    const { err } = await run(line.split(' ').slice(1), {});
    assert.match(err, /cloud|OS_/, line);
    assert.doesNotMatch(err, /option|argument/, line);
  }
});

test('a controller is started by options that there are', () => {
  for (const line of new Set(whole('causeway controller').map((one) => one.line))) {
    const program = join(import.meta.dirname, 'controller.ts');
    const words = [...line.split(' ').slice(2), '--store', 'none:'];
    const { stderr } = spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', program, ...words], { encoding: 'utf8' });
    assert.match(stderr, /none:/, line);
  }
});

interface Schema {
  readonly enum?: readonly unknown[];
  readonly pattern?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
}
let schema: Schema;
before(() => {
  schema = JSON.parse(readFileSync(join(chartFolder, 'values.schema.json'), 'utf8')) as Schema;
});

test("charts are given values that the chart's schema has", () => {
  for (const one of whole('helm install ')) {
    const [, set = ''] = one.line.split(' --set ');
    const changes: Record<string, unknown> = {};
    for (const [path = '', value = ''] of set.split(',').map((pair) => pair.split('='))) {
      const at = path.split('.').reduce<Schema | undefined>((place, key) => place?.properties?.[key], schema);
      assert.ok(at !== undefined, `${of(one)}: no value ${path}`);
      assert.ok(at.enum?.includes(value) ?? true, `${of(one)}: ${path}=${value}`);
      assert.match(value, new RegExp(at.pattern ?? '.'), `${of(one)}: ${path}=${value}`);
      const [first = '', second] = path.split('.');
      changes[first] = second === undefined ? value : { ...(changes[first] as object | undefined), [second]: value };
    }
    assert.ok(renderChart(changes).length > 0);
    assert.ok(one.judged.carry !== 'routes' || set.includes('cloud.routes='), 'somebody has to keep the router');
  }
});

test('networks that pods ask for are read as they are recommended', () => {
  const echoed = whole('echo ');
  assert.ok(echoed.length > 0);
  for (const one of echoed) {
    const [, text = ''] = /^echo '([^']*)' \| kubectl apply --filename=-$/.exec(one.line) ?? [];
    const item = JSON.parse(text.replace('RANGE', '10.20.0.0/24')) as object;
    const read = readOwnNetwork('default/NAME', item);
    assert.equal(
      read?.neutron?.network,
      one.known.survey.network.takesPorts && !one.line.includes('NETWORK') ? 'hosts' : 'NETWORK',
      one.line,
    );
  }
});

test('what is recommended of the cloud is named, where a shell takes its name', () => {
  const [plain] = whole('causeway network create NAME --model neutron').map(({ line }) => line);
  assert.equal(plain, 'causeway network create NAME --model neutron --neutron-network hosts');
  const lines = new Set(all.flatMap(({ commands }) => commands));
  assert.ok(
    lines.has(
      'causeway network create NAME --model neutron --neutron-network NETWORK --neutron-subnet hosts4 --neutron-security-group GROUP',
    ),
  );
  assert.ok(lines.has('causeway controller --cloud mycloud'));
  assert.ok(lines.has('causeway cloud apply --cloud mycloud --kubernetes --routes main'));
});
