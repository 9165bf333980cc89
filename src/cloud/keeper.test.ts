import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeDualHost, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import type { CloudReport } from '#api/answers.ts';
import { Fault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Network, Pool } from '#model/resources.ts';
import { exposureOf } from './balancers.fixture.ts';
import { Keeper } from './keeper.ts';
import { Neutron } from './neutron.ts';
import { FakeNeutron, servingNeutron } from './neutron.fixture.ts';
import { CloudSession } from './session.ts';
import type { CloudFacts } from './wish.ts';
import { cloudOf, json, keystone, serving } from './server.fixture.ts';

/** A cloud without anything, or away; it counts how often somebody begins to look at it. */
class Away extends Neutron {
  looks = 0;
  fault: Fault | undefined = new Fault('unavailable', 'Neutron cannot be reached');

  override list(): Promise<never[]> {
    this.looks++;
    return Promise.reject(this.fault ?? new Fault('unsupported', 'no extensions'));
  }
}

const quiet = {
  name: 'cw',
  scope: {},
  facts: (): CloudFacts => ({ hosts: [makeHost(1)], networks: [makeNetwork('over')], pools: [], blocks: [], endpoints: [], exposures: [] }),
  isLeading: () => true,
  carryInstead: async () => undefined,
  carryAsWanted: async () => undefined,
  place: async () => undefined,
  where: async () => 'here',
  intervalMs: 3_600_000,
  log: { info: () => undefined, warn: () => undefined },
  random: () => 0,
};

async function keeping(work: (bed: { keeper: Keeper; neutron: Away; reports: CloudReport[]; networks: Network[] }) => Promise<void>) {
  await using session = new CloudSession(cloudOf('http://127.0.0.1:1'));
  const neutron = new Away(session);
  const reports: CloudReport[] = [];
  const networks: Network[] = [];
  const stop = new AbortController();
  const facts = { ...quiet.facts(), networks };
  const keeper = new Keeper({ ...quiet, neutron, facts: () => facts, tell: async (report) => void reports.push(report) });
  const running = keeper.run(stop.signal);
  try {
    await work({ keeper, neutron, reports, networks });
  } finally {
    stop.abort();
    await running;
  }
}

const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 10));
};

test('a cloud that is away is told, and changes do not hurry the next try', async () => {
  await keeping(async ({ keeper, neutron, reports, networks }) => {
    await until(() => reports.length === 1);
    assert.equal(reports[0]?.failure?.code, 'unavailable');
    for (let index = 0; index < 50; index++) {
      networks.push(makeNetwork(`n${index}`));
      keeper.kick();
    }
    await until(() => reports.length === 2);
    assert.equal(neutron.looks, 2);
    assert.equal(reports[1]?.failure?.since, reports[0]?.failure?.since);
  });
});

/** One that answers, or is away; what is told of it, the latest last, beginning with what somebody has told before. */
async function keepingReal(work: (bed: { keeper: Keeper; fake: FakeNeutron; reports: CloudReport[] }) => Promise<void>) {
  const fake = new FakeNeutron(1);
  fake.trouble = () => ({ status: 503, when: 'before' });
  await using server = await servingNeutron(fake);
  await using session = new CloudSession(cloudOf(server.url), { retries: 0 });
  const since = '2026-01-01T00:00:00.000Z';
  const failure = { code: 'unavailable', message: 'Neutron cannot be reached', since };
  const reports: CloudReport[] = [
    { place: 'here', lookedAt: since, changes: ['made'], problems: [], addresses: { web: '203.0.113.7' }, failure },
  ];
  const stop = new AbortController();
  const keeper = new Keeper({
    ...quiet,
    neutron: new Neutron(session),
    tell: async (report) => void reports.push(report),
    told: async () => reports.at(-1) ?? assert.fail('nothing was told'),
    // Nobody would wait for the end of such a pause.
    random: () => 1e6,
    knockMs: 500,
  });
  const running = keeper.run(stop.signal);
  try {
    await work({ keeper, fake, reports });
  } finally {
    stop.abort();
    await running;
  }
}

test('a controller that starts while the cloud is away tells since when it is, and what was known before', async () => {
  await keepingReal(async ({ reports }) => {
    await until(() => reports.length === 2);
    const [before, now] = reports;
    assert.match(now?.failure?.message ?? '', /Neutron refuses/);
    assert.equal(now?.failure?.since, before?.failure?.since);
    const { failure: _, ...rest } = now ?? {};
    const { failure: __, ...known } = before ?? {};
    assert.deepEqual(rest, known);
  });
});

test('a cloud that has answered a container is back, and what has waited for it is done at once; one that has not is told', async () => {
  await keepingReal(async ({ keeper, fake, reports }) => {
    await until(() => reports.length === 2);
    fake.trouble = () => undefined;
    const block = makeBlock(makePool('over', parseCidr('10.0.0.0/24'), 29), 0, 'host-1');
    await keeper.hold(block, async () => undefined);
    await until(() => reports.length === 3);
    assert.equal(reports[2]?.failure, undefined);
    fake.trouble = () => ({ status: 503, when: 'before' });
    await assert.rejects(
      keeper.hold(block, async () => undefined),
      { code: 'unavailable' },
    );
    await until(() => reports.length === 4);
    assert.equal(reports[3]?.failure?.code, 'unavailable', 'away again, which is told before the next look');
  });
});

test('a container does not wait long for a cloud that is away and does not even say no, and is told why it is away', async () => {
  await keepingReal(async ({ keeper, fake, reports }) => {
    await until(() => reports.length === 2);
    const asked = fake.asked.length;
    fake.answer = (request) => void fake.asked.push({ method: request.method ?? '', path: request.url ?? '' });
    const block = makeBlock(makePool('over', parseCidr('10.0.0.0/24'), 29), 0, 'host-1');
    const held = [0, 1].map(() =>
      assert.rejects(
        keeper.hold(block, async () => undefined),
        { code: 'unavailable', message: /Neutron refuses/ },
      ),
    );
    await Promise.all(held);
    assert.equal(fake.asked.length, asked + 1, 'it was asked once for both');
  });
});

test('what is wrong with the wish or the rights is tried again as soon as something else is wished for', async () => {
  await keeping(async ({ keeper, neutron, reports, networks }) => {
    neutron.fault = undefined;
    await until(() => reports.length === 1);
    networks.push(makeNetwork('one'));
    keeper.kick();
    await until(() => reports.length === 2);
    assert.equal(reports[1]?.failure?.code, 'unsupported');
  });
});

/** A cloud with Octavia, which refuses everything by this status. */
async function withOctaviaOf(status: number, work: (cloud: { session: CloudSession; fake: FakeNeutron }) => Promise<void>): Promise<void> {
  const fake = new FakeNeutron(1);
  let url = '';
  const at = (type: string, path: string) => ({
    type,
    endpoints: [{ interface: 'public', region_id: 'one', region: 'one', url: `${url}/${path}/` }],
  });
  await using server = await serving((request, response, body) => {
    if (request.url === '/v3/auth/tokens') {
      const catalog = [at('network', 'network'), at('load-balancer', 'octavia')];
      return keystone(() => url, { catalog }).answer(request, response, body);
    }
    return request.url?.startsWith('/octavia') ? json(response, status, { faultstring: 'trouble' }) : fake.answer(request, response, body);
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url), { retries: 0 });
  await work({ session, fake });
}

test("a host's ports do not wait for what exposures are reached by: trouble with Octavia is told, and containers start", async () => {
  await withOctaviaOf(409, async ({ session, fake }) => {
    const reports: CloudReport[] = [];
    const keeper = new Keeper({ ...quiet, neutron: new Neutron(session), tell: async (report) => void reports.push(report) });
    const block = makeBlock(makePool('over', parseCidr('10.0.0.0/24'), 29), 0, 'host-1');
    assert.equal(await keeper.hold(block, async () => 'started'), 'started');
    assert.equal(fake.groups.length, 1, 'what networks need is there');
    const stop = new AbortController();
    const running = keeper.run(stop.signal);
    await until(() => reports.length > 0);
    stop.abort();
    await running;
    assert.match(reports[0]?.failure?.message ?? '', /trouble/);
  });
});

test('while Octavia alone is away networks are allowed and closed as they come and go, without waiting for it', async () => {
  await withOctaviaOf(503, async ({ session, fake }) => {
    const reports: CloudReport[] = [];
    let networks = [makeNetwork('over')];
    const keeper = new Keeper({
      ...quiet,
      neutron: new Neutron(session),
      facts: () => ({ ...quiet.facts(), networks }),
      tell: async (report) => void reports.push(report),
      random: () => 1e6,
    });
    const stop = new AbortController();
    const running = keeper.run(stop.signal);
    const rules = (): number => fake.groups.flatMap((group) => group.rules).length;
    await until(() => reports.length === 1);
    assert.deepEqual([reports[0]?.failure?.code, rules()], ['unavailable', 2]);
    networks = [...networks, makeNetwork('secret', { carry: 'wireguard' })];
    keeper.kick();
    await until(() => reports.length === 2);
    assert.equal(rules(), 4);
    networks = networks.slice(0, 1);
    keeper.kick();
    await until(() => reports.length === 3);
    assert.deepEqual([reports[2]?.failure?.code, rules()], ['unavailable', 2]);
    stop.abort();
    await running;
  });
});

test('whose login may not use Octavia has networks all the same, and is told so when a load balancer is wished for', async () => {
  await withOctaviaOf(403, async ({ session, fake }) => {
    const reports: CloudReport[] = [];
    const networks = [makeNetwork('over')];
    let exposures: CloudFacts['exposures'] = [];
    const facts = () => ({ ...quiet.facts(), networks, exposures });
    const keeper = new Keeper({ ...quiet, neutron: new Neutron(session), facts, tell: async (report) => void reports.push(report) });
    const stop = new AbortController();
    const running = keeper.run(stop.signal);
    await until(() => reports.length === 1);
    assert.deepEqual([reports[0]?.failure, reports[0]?.problems, fake.groups.length], [undefined, [], 1]);
    exposures = [exposureOf()];
    networks.push(makeNetwork('secret', { carry: 'wireguard' }));
    keeper.kick();
    await until(() => reports.length === 2);
    assert.match(reports[1]?.failure?.message ?? '', /Octavia refuses .*trouble/);
    assert.equal(fake.groups.find(({ fields }) => fields['name'] === 'cw')?.rules.length, 4);
    stop.abort();
    await running;
  });
});

test("containers of another network than their host's are refused where they cannot be, and nothing is made", async () => {
  const fake = new FakeNeutron(1);
  let url = '';
  const login = keystone(() => url);
  await using server = await serving((request, response, body) =>
    (request.url?.startsWith('/network/') === true ? fake.answer : login.answer)(request, response, body),
  );
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url), { retries: 0 });
  const network = { ...makeNetwork('far', { model: 'neutron' }), neutron: { network: 'elsewhere', subnet: 'there' } };
  const heldOf = (cidr: string, length: number, more: Partial<Pool> = {}): Promise<unknown> => {
    const pool = { ...makePool('far', parseCidr(cidr), length), ...more };
    const facts = { ...quiet.facts(), networks: [network], pools: [pool] };
    const keeper = new Keeper({ ...quiet, facts: () => facts, neutron: new Neutron(session), tell: async () => undefined });
    return keeper.hold(makeBlock(pool, 1, 'host-1'), async () => 'started');
  };
  const noTrunk = /net-far have addresses of another network than the hosts, and the port of host host-1 is no parent of a trunk/;
  await assert.rejects(heldOf('10.30.0.0/24', 29), { code: 'unsupported', message: noTrunk, hint: /openstack network trunk create/ });
  await assert.rejects(heldOf('fd00:30::/64', 125), { code: 'unsupported', message: noTrunk });
  await assert.rejects(heldOf('fd00:30::/64', 125, { gateway: parseIp('fe80::1') }), {
    code: 'unsupported',
    message: /its gateway fe80::1 is no address of its subnet fd00:30::\/64/,
    hint: /subnet set --gateway/,
  });
  await assert.rejects(heldOf('10.213.0.0/16', 29), { code: 'overlap', message: /overlaps the host's own, 10.213.0.0\/16/ });
  assert.deepEqual(new Set(fake.asked.map(({ method }) => method)), new Set(['GET']));
});

test('a network that a port takes too few pairs for is carried otherwise as soon as the cloud says so', async () => {
  const fake = new FakeNeutron(1);
  fake.mostPairs = 0;
  await using server = await servingNeutron(fake);
  await using session = new CloudSession(cloudOf(server.url), { retries: 0 });
  const because: string[] = [];
  const reports: CloudReport[] = [];
  let plain = makeNetwork('plain', { model: 'flannel', carry: 'host-gateway' });
  const pools = [makePool('plain', parseCidr('10.0.0.0/16'), 24)];
  const keeper = new Keeper({
    ...quiet,
    neutron: new Neutron(session),
    facts: () => ({ ...quiet.facts(), networks: [plain], pools }),
    carriages: {
      instead: async (fallback) => {
        because.push(fallback.because);
        plain = { ...plain, choices: { ...plain.choices, carry: 'vxlan' }, instead: { carry: 'host-gateway', because: fallback.because } };
      },
      asWanted: async () => void because.push('as wanted'),
    },
    tell: async (report) => void reports.push(report),
  });
  const stop = new AbortController();
  const running = keeper.run(stop.signal);
  await until(() => reports.length > 0);
  stop.abort();
  await running;
  assert.equal(because.length, 1);
  assert.match(because[0] ?? '', /a port takes 0/);
  assert.deepEqual(reports[0]?.problems, []);
  assert.deepEqual(
    fake.groups.flatMap(({ rules }) => rules.map((rule) => rule['port_range_min'])),
    [8472, 8472],
  );
});

test('what a network was carried by is allowed until its hosts have gone over, and no longer', async (t) => {
  const fake = new FakeNeutron(1);
  await using server = await servingNeutron(fake);
  await using session = new CloudSession(cloudOf(server.url), { retries: 0 });
  let later = 0;
  const clock = performance.now.bind(performance);
  t.mock.method(performance, 'now', () => clock() + later);
  const fallen = makeNetwork('plain', { model: 'flannel', carry: 'vxlan' });
  let plain: Network = { ...fallen, instead: { carry: 'host-gateway', because: 'the login could not' } };
  // What lets in all between the hosts is of its family alone.
  const pools = [makePool('plain', parseCidr('fd00:10::/64'), 120)];
  const reports: CloudReport[] = [];
  const keeper = new Keeper({
    ...quiet,
    neutron: new Neutron(session),
    intervalMs: 50,
    facts: () => ({ ...quiet.facts(), hosts: [makeDualHost(1)], networks: [plain], pools }),
    carriages: {
      instead: async () => assert.fail('nothing is in the way'),
      asWanted: async () => {
        plain = { ...fallen, choices: { ...fallen.choices, carry: 'host-gateway' } };
      },
    },
    tell: async (report) => void reports.push(report),
  });
  const stop = new AbortController();
  const running = keeper.run(stop.signal);
  const ofVxlan = (): number => fake.groups.flatMap(({ rules }) => rules.filter((rule) => rule['port_range_min'] === 8472)).length;
  try {
    await until(() => reports.length > 0);
    assert.deepEqual([plain.choices.carry, ofVxlan()], ['host-gateway', 2]);
    later = 10_000;
    await until(() => ofVxlan() === 0);
    assert.deepEqual(reports.at(-1)?.problems, []);
  } finally {
    stop.abort();
    await running;
  }
});

test('whoever ends waits for no answer of a cloud that gives none, and tells of no failure', async () => {
  const stop = new AbortController();
  const { signal } = stop;
  const { promise: isAsked, resolve: asked } = Promise.withResolvers<void>();
  await using server = await serving(() => asked());
  await using session = new CloudSession(cloudOf(server.url), { signal });
  const reports: CloudReport[] = [];
  const keeper = new Keeper({ ...quiet, neutron: new Neutron(session), tell: async (report) => void reports.push(report) });
  const running = keeper.run(signal);
  await isAsked;
  stop.abort();
  await running;
  assert.deepEqual([reports, session.calls], [[], 1]);
  await assert.rejects(session.token(), { code: 'unavailable', message: /this process ends/ });
});
