import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import type { CloudReport } from '#api/answers.ts';
import { Fault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Network, Pool } from '#model/resources.ts';
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

test("a host's ports do not wait for what exposures are reached by: trouble with Octavia is told, and containers start", async () => {
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
    return request.url?.startsWith('/octavia') ? json(response, 409, { faultstring: 'trouble' }) : fake.answer(request, response, body);
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url), { retries: 0 });
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
