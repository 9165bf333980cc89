// Clouds that fail in the middle of a plan, wherever that is: what is done is gone on with, nothing is open meanwhile that neither before
// nor after needs, and of a plan that is taken back nothing is left.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { isFault } from '#model/fault.ts';
import { parseCidr } from '#model/ip.ts';
import { applyWish } from './apply.ts';
import { readState } from './reading.ts';
import { Neutron } from './neutron.ts';
import { type Asked, FakeNeutron, servingNeutron, type Trouble } from './neutron.fixture.ts';
import { cloudOf, json } from './server.fixture.ts';
import { CloudSession } from './session.ts';
import { emptyWish, type Wish, wishOf } from './wish.ts';

const networks = [
  makeNetwork('over'),
  makeNetwork('secret', { carry: 'wireguard' }),
  makeNetwork('plain', { model: 'flannel', carry: 'host-gateway' }),
];
const pools = [makePool('plain', parseCidr('10.0.0.0/16'), 24)];
const hosts = [makeHost(1), makeHost(2), makeHost(3)];
const facts = { hosts, networks, pools, blocks: [], endpoints: [], exposures: [] };
const wishes: readonly Wish[] = [wishOf(facts, 'cw'), wishOf({ ...facts, networks: networks.slice(0, 1) }, 'cw'), emptyWish('cw')];

const isWrite = ({ method }: Asked): boolean => method !== 'GET';

/** One attempt after another until one goes through, with a cloud that fails as `trouble` says; at most so many. */
async function persist(url: string, wish: Wish, most = 200): Promise<number> {
  for (let attempt = 1; attempt <= most; attempt++) {
    await using session = new CloudSession(cloudOf(url), { retries: 2, wait: async () => undefined });
    const neutron = new Neutron(session);
    try {
      await applyWish(neutron, wish, () => readState(neutron, {}));
      return attempt;
    } catch (error) {
      assert.ok(isFault(error), String(error));
      assert.ok(
        ['unavailable', 'conflict', 'unauthenticated', 'exists', 'in-use', 'not-found'].includes(error.code),
        `${error.code}: ${error.message}`,
      );
    }
  }
  throw new assert.AssertionError({ message: `not done after ${most} attempts` });
}

/** Goes from wish to wish under that trouble; answers what each came to, with the attempts it took. */
async function storm(trouble: (asked: Asked, number: number) => Trouble | undefined): Promise<void> {
  const calm = new FakeNeutron(hosts.length);
  await using still = await servingNeutron(calm);
  const fake = new FakeNeutron(hosts.length);
  await using server = await servingNeutron(fake);
  const was = fake.state;
  let count = 0;
  let allowed = new Set<string>();
  let worst = new Set<string>();
  fake.trouble = (asked) => {
    // Between any two requests.
    worst = worst.union(fake.openings());
    count += 1;
    return trouble(asked, count);
  };
  for (const wish of wishes) {
    await persist(still.url, wish);
    allowed = calm.openings().union(fake.openings());
    worst = new Set();
    await persist(server.url, wish);
    assert.deepEqual(fake.openings(), calm.openings());
    assert.deepEqual([...worst.difference(allowed)], [], 'nothing is open that neither before nor after needs');
  }
  assert.deepEqual(fake.state, was, 'nothing is left');
}

test('errors before a change, after it was made all the same, and half-way through a bulk, at every fifth or seventh change', async () => {
  for (const when of ['before', 'after', 'half'] as const) {
    for (const status of [409, 500, 503]) {
      for (const every of [5, 7]) {
        let writes = 0;
        await storm((asked) => {
          if (!isWrite(asked)) return undefined;
          writes += 1;
          return writes % every === 0 ? { status, when } : undefined;
        });
      }
    }
  }
});

test('a cloud that fails every second change and every fifth question', async () => {
  let seed = 1;
  const random = (): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  await storm((asked) =>
    random() < (isWrite(asked) ? 0.5 : 0.2) ? { status: random() < 0.5 ? 503 : 500, when: random() < 0.5 ? 'before' : 'after' } : undefined,
  );
});

test('a cloud that is away is told so after a few tries, and gone on with when it is back', async () => {
  const fake = new FakeNeutron(hosts.length);
  await using server = await servingNeutron(fake);
  let isAway = false;
  // In the middle of the plan.
  fake.trouble = (asked) => {
    if (asked.method === 'PUT' && asked.path.startsWith('ports/')) isAway = true;
    return isAway ? { status: 503, when: 'before' } : undefined;
  };
  await assert.rejects(persist(server.url, wishes[0] ?? emptyWish('cw'), 1));
  fake.trouble = () => undefined;
  assert.equal(await persist(server.url, wishes[0] ?? emptyWish('cw')), 1);
  assert.equal(await persist(server.url, emptyWish('cw')), 1);
  assert.deepEqual(fake.state, new FakeNeutron(hosts.length).state);
});

test('what nothing needs any more is closed also while the cloud fails whenever something is to be opened', async () => {
  const fake = new FakeNeutron(hosts.length);
  await using server = await servingNeutron(fake);
  const [over, secret] = networks.map((network) => wishOf({ ...facts, networks: [network] }, 'cw'));
  assert.ok(over !== undefined && secret !== undefined);
  for (const status of [500, 403]) {
    fake.trouble = () => undefined;
    await persist(server.url, over);
    const before = fake.openings();
    fake.trouble = ({ method, path }) => (method === 'POST' && path === 'security-group-rules' ? { status, when: 'before' } : undefined);
    await using session = new CloudSession(cloudOf(server.url), { retries: 0 });
    const neutron = new Neutron(session);
    await assert.rejects(applyWish(neutron, secret, () => readState(neutron, {})));
    assert.deepEqual([before.size > 0, [...fake.openings()].filter((one) => before.has(one))], [true, []]);
  }
});

test('a token that ends in the middle of a plan is replaced, and the plan goes on', async () => {
  const fake = new FakeNeutron(hosts.length);
  await using server = await servingNeutron(fake);
  const { answer } = fake;
  // The first token is good for five changes.
  fake.answer = (request, response, body) => {
    const isOver = request.headers['x-auth-token'] === 'token-1' && fake.asked.filter(isWrite).length >= 5;
    return isOver ? json(response, 401, { error: { message: 'expired' } }) : answer(request, response, body);
  };
  await persist(server.url, wishes[0] ?? emptyWish('cw'), 1);
  assert.equal(server.logins(), 2);
  await persist(server.url, emptyWish('cw'), 1);
  assert.deepEqual(fake.state, new FakeNeutron(hosts.length).state);
});
