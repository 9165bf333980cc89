// An Octavia that refuses or fails, with answers as a real one (2025.1, provider ovn) has given them: what it says of one load
// balancer is told of that one, and keeps no other from being made.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { makeHost } from '#drivers/cluster.fixture.ts';
import type { ServiceBalancer } from '#model/cloud-services.ts';
import { parseCidr } from '#model/ip.ts';
import { type Applied, applyWish } from './apply.ts';
import { listenerOf } from './balancers.fixture.ts';
import type { FoundListener } from './balancer-requests.ts';
import { Neutron } from './neutron.ts';
import { type ListenerRequest, Octavia } from './octavia.ts';
import type { LoadBalancer } from './octavia-schemas.ts';
import type { CloudState } from './plan.ts';
import { stateOf } from './plan.fixture.ts';
import { cloudOf, json, keystone, serving } from './server.fixture.ts';
import { applyWhole, Refusals } from './settling.ts';
import { CloudSession } from './session.ts';
import { type Wish, wishOf } from './wish.ts';

interface Answered {
  readonly status: number;
  readonly body: object;
}
const refusal = (status: number, faultstring: string): Answered => ({
  status,
  body: { faultcode: 'Client', faultstring, debuginfo: null },
});
const body = v.pipe(v.string(), v.parseJson());
const wanted = v.object({ loadbalancer: v.object({ name: v.string(), tags: v.array(v.string()), listeners: v.array(v.unknown()) }) });

interface Made {
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
}

/** Keeps load balancers; `refuse` says what befalls the making of one, `state` what becomes of it. */
class FakeOctavia {
  readonly made = new Map<string, Made>();
  readonly asked: string[] = [];
  refuse: (name: string, listeners: number) => Answered | undefined = () => undefined;
  /** Of what is asked about its parts. */
  refusePart: (asked: string) => Answered | undefined = () => undefined;
  state: (name: string) => string = () => 'ACTIVE';
  /** Of a member, and of the listener; they are asked for with each look. */
  memberState: (name: string) => string = () => 'ACTIVE';
  listenerState: () => string = () => 'ACTIVE';
  provider = 'ovn';
  /** Ids of what does not go though it is removed. */
  readonly stays = new Set<string>();
  /** What one that is being removed is said to be, look by look, until it has gone. */
  going: string[] = [];

  answer(method: string, path: string, text: string): Answered {
    const [, kind = '', id = '', more] = /^\/v2\/lbaas\/(\w+)\/?([\w-]*)\/?(\w*)/.exec(path) ?? [];
    const asked = `${method} ${path.replace('/v2/lbaas/', '')}`;
    this.asked.push(asked);
    const refused = this.refusePart(asked);
    if (refused !== undefined) return refused;
    if (method === 'POST' && kind === 'loadbalancers') return this.#make(text);
    if (method === 'POST')
      return {
        status: 201,
        body: {
          [kind.slice(0, -1)]: {
            id: `new-${kind}`,
            protocol: 'TCP',
            protocol_port: 1,
            lb_algorithm: 'x',
            type: 'TCP',
            delay: 1,
            timeout: 1,
            max_retries: 1,
          },
        },
      };
    if (method === 'DELETE' && this.going.length === 0 && !this.stays.has(id)) this.made.delete(id);
    const found = this.made.get(id);
    if (method !== 'GET') return { status: 204, body: {} };
    if (found === undefined) return refusal(404, `Load Balancer ${id} not found.`);
    return { status: 200, body: more === 'status' ? this.#tree(found) : { loadbalancer: this.#shown(found) } };
  }

  #make(text: string): Answered {
    const { name, tags, listeners } = v.parse(v.pipe(body, wanted), text).loadbalancer;
    const refused = this.refuse(name, listeners.length);
    if (refused !== undefined) return refused;
    const one = { id: `id-${name}`, name, tags };
    this.made.set(one.id, one);
    return { status: 201, body: { loadbalancer: this.#shown(one) } };
  }

  #tree({ name }: Made): object {
    const pool = { provisioning_status: 'ACTIVE', members: [{ provisioning_status: this.memberState(name) }] };
    return { statuses: { loadbalancer: { listeners: [{ provisioning_status: this.listenerState(), pools: [pool] }] } } };
  }

  #shown({ id, name, tags }: Made): object {
    const state = this.going.shift();
    if (state !== undefined && this.going.length === 0) this.made.delete(id);
    return {
      id,
      name,
      tags,
      provider: this.provider,
      provisioning_status: state ?? this.state(name),
      vip_address: '10.213.0.99',
      vip_port_id: 'vip',
    };
  }

  found({ id, name, tags }: Made): LoadBalancer {
    const about = { description: '', projectId: 'p', provider: this.provider, address: '10.213.0.99', portId: 'vip', subnetId: 'subnet' };
    return { ...about, id, name, tags, provisioning: this.state(name), operating: 'ONLINE', listeners: [], pools: [] };
  }
}

/** Without security groups. */
class Bare extends Neutron {
  override list(): Promise<never[]> {
    return Promise.resolve([]);
  }
}

async function withOctavia<T>(work: (octavia: FakeOctavia, session: CloudSession) => Promise<T>): Promise<T> {
  const octavia = new FakeOctavia();
  let url = '';
  const identity = keystone(() => url, {
    catalog: [{ type: 'load-balancer', endpoints: [{ interface: 'public', region_id: 'one', region: 'one', url: '' }] }],
  });
  await using server = await serving((request, response, text) => {
    if (request.url === '/v3/auth/tokens') return identity.answer(request, response, text);
    const { status, body: said } = octavia.answer(request.method ?? '', request.url ?? '', text);
    return json(response, status, said);
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url, { overrides: { 'load-balancer': url } }), { retries: 0 });
  return await work(octavia, session);
}

const serviceOf = (name: string): ServiceBalancer => ({
  id: `id${name}`,
  service: `shop/${name}`,
  ports: [{ protocol: 'tcp', port: 80, nodePort: 30080 }],
  sources: [],
  place: {},
});
const wishFor = (...names: readonly string[]): Wish => {
  const facts = { hosts: [makeHost(1)], networks: [], pools: [], blocks: [], endpoints: [], exposures: [] };
  const wish = wishOf({ ...facts, services: names.map(serviceOf) }, 'cw');
  // Only load balancers are of interest here.
  return { ...wish, groups: [], ports: wish.ports.map((port) => ({ ...port, groups: [] })) };
};

const asListener: ListenerRequest = {
  name: '',
  protocol: 'TCP',
  protocol_port: 80,
  default_pool: {
    name: '',
    protocol: 'TCP',
    lb_algorithm: 'SOURCE_IP_PORT',
    members: [{ address: '10.213.0.1', protocol_port: 30080 }],
  },
};
const asProxied: ListenerRequest = { ...asListener, default_pool: { ...asListener.default_pool, lb_algorithm: 'ROUND_ROBIN' } };
const stateWith = (octavia: FakeOctavia, listeners: (made: Made) => FoundListener[]): CloudState => {
  const balancers = [...octavia.made.values()].map((made) => ({ balancer: octavia.found(made), listeners: listeners(made) }));
  return stateOf({ groups: [], providers: [octavia.provider], balancers });
};
/** A listener that is as wished counts as made with its load balancer. */
const apply = (octavia: FakeOctavia, session: CloudSession, wish: Wish, work: typeof applyWish = applyWish): Promise<Applied> =>
  work(new Bare(session), wish, async () => stateWith(octavia, () => [listenerOf(octavia.provider === 'ovn' ? asListener : asProxied)]));
const toldOf = ({ plan }: Applied): string[] =>
  plan.balanced.map(({ name, address, problems }) => `${name} ${address ?? '-'} ${problems.join()}`.trimEnd());

const noRole = refusal(403, 'Policy does not allow this request to be performed.');
const refusals: readonly (readonly [string, Answered, RegExp])[] = [
  ['a subnet that there is not', refusal(400, 'Subnet 11111111-2222-3333-4444-555555555555 not found.'), /Subnet 1{8}.* not found/],
  ['a quota', refusal(403, 'Quota has been met for resources: load_balancer'), /Quota has been met for resources: load_balancer/],
  [
    'what the provider cannot',
    refusal(501, "Provider 'ovn' does not support a requested option: OVN provider does not support allowed_cidrs option"),
    /does not support allowed_cidrs option/,
  ],
  ['a missing role', noRole, /Policy does not allow this request/],
];
for (const [what, answer, words] of refusals) {
  test(`is told of the one that it is about, which is asked for once: ${what}`, async () => {
    await withOctavia(async (octavia, session) => {
      octavia.refuse = (name) => (name === 'cw-shop-bad' ? answer : undefined);
      const applied = await apply(octavia, session, wishFor('bad', 'good'));
      const [bad = '', good] = toldOf(applied);
      assert.match(bad, words);
      assert.match(bad, /^shop\/bad - Service shop\/bad has no load balancer: /);
      assert.equal(good, 'shop/good 10.213.0.99');
      // One that is refused is tried without its listeners, unless there is no right to.
      assert.equal(octavia.asked.filter((line) => line === 'POST loadbalancers').length, answer.body === noRole.body ? 2 : 3);
      assert.match(applied.plan.problems.join(), words);
    });
  });
}

test('what is refused for its ports is made without, as Octavia would leave a port at Neutron with each try, and told', async () => {
  await withOctavia(async (octavia, session) => {
    const noPools = refusal(403, 'Quota has been met for resources: pool');
    octavia.refuse = (_, listeners) => (listeners > 0 ? noPools : undefined);
    octavia.refusePart = (asked) => (asked === 'POST listeners' ? noPools : undefined);
    const read = async (): Promise<CloudState> => stateWith(octavia, () => []);
    for (const posts of [1, 0]) {
      octavia.asked.length = 0;
      const told = toldOf(await applyWish(new Bare(session), wishFor('bad'), read));
      assert.match(told.join(), /^shop\/bad - Service shop\/bad has no load balancer: .*Quota has been met for resources: pool/);
      assert.equal(octavia.asked.filter((line) => line === 'POST loadbalancers').length, 2 * posts);
    }
    assert.deepEqual([...octavia.made.keys()], ['id-cw-shop-bad']);
  });
});

const unread = refusal(400, "Could not retrieve certificate: ['nowhere']");
const isChange = (line: string): boolean => !line.startsWith('GET ');
/** Of two that are there, both with one port, the one is to end TLS there. */
async function endTls(octavia: FakeOctavia, session: CloudSession, { before }: { readonly before: ListenerRequest }): Promise<Applied> {
  octavia.provider = 'amphora';
  for (const name of ['bad', 'good']) {
    const tags = ['causeway.cw', `causeway.cw.exposure.id${name}`];
    octavia.made.set(name, { id: name, name: `cw-shop-${name}`, tags });
  }
  const wish = wishFor('bad', 'good', 'new');
  const balancers = wish.balancers.map((one) => (one.id === 'idbad' ? { ...one, proxy: { certificate: 'nowhere' } } : one));
  return await applyWish(new Bare(session), { ...wish, balancers }, async () =>
    stateWith(octavia, ({ id }) => [listenerOf(id === 'bad' ? before : asProxied)]),
  );
}
const ended: ListenerRequest = {
  ...asProxied,
  protocol: 'TERMINATED_HTTPS',
  default_tls_container_ref: 'first',
  default_pool: { ...asProxied.default_pool, protocol: 'HTTP' },
};
for (const [what, before, asked] of [
  ['is another than before', ended, 'PUT listeners/listener0'],
  ['is the first one', asProxied, 'POST listeners'],
] as const) {
  test(`a certificate that cannot be read is told of the one that it is for, and all stays that it has: which ${what}`, async () => {
    await withOctavia(async (octavia, session) => {
      octavia.refusePart = (line) => (line === asked ? unread : undefined);
      const applied = await endTls(octavia, session, { before });
      const [bad = '', ...others] = toldOf(applied);
      assert.match(bad, /^shop\/bad 10\.213\.0\.99 Service shop\/bad: .*Could not retrieve certificate: \['nowhere'\]/);
      assert.deepEqual(others, ['shop/good 10.213.0.99', 'shop/new 10.213.0.99']);
      assert.deepEqual(octavia.asked.filter(isChange).toSorted(), ['POST loadbalancers', asked].toSorted());
    });
  });
}

test('one that came to nothing is told and removed, and not made again by the same look', async () => {
  await withOctavia(async (octavia, session) => {
    octavia.state = (name) => (name === 'cw-shop-bad' ? 'ERROR' : 'ACTIVE');
    const applied = await apply(octavia, session, wishFor('bad', 'good'));
    assert.match(toldOf(applied)[0] ?? '', /Load balancer cw-shop-bad is in state ERROR/);
    assert.deepEqual([...octavia.made.keys()], ['id-cw-shop-good']);
    octavia.state = () => 'ACTIVE';
    assert.deepEqual(toldOf(await apply(octavia, session, wishFor('bad', 'good'))), ['shop/bad 10.213.0.99', 'shop/good 10.213.0.99']);
  });
});

test('members that come to nothing again and again are asked for once by each look, told of, and in nobody’s way', async () => {
  await withOctavia(async (octavia, session) => {
    octavia.made.set('bad', { id: 'bad', name: 'cw-shop-bad', tags: ['causeway.cw', 'causeway.cw.exposure.idbad'] });
    const whole = listenerOf(asListener);
    const lost = { ...whole, members: whole.members.map((member) => ({ ...member, provisioning: 'ERROR' })) };
    const read = async (): Promise<CloudState> => stateWith(octavia, ({ id }) => [id === 'bad' ? lost : whole]);
    for (const posts of [1, 0]) {
      octavia.asked.length = 0;
      const { plan } = await applyWish(new Bare(session), wishFor('bad', 'good'), read);
      assert.deepEqual(octavia.asked.filter(isChange).toSorted(), [
        ...Array.from({ length: posts }, () => 'POST loadbalancers'),
        'PUT pools/pool0/members',
      ]);
      assert.deepEqual(plan.steps, []);
      assert.match(plan.problems.join(), /^Load balancer cw-shop-bad: members or probes came to nothing \(state ERROR\), also when/);
    }
  });
});

test('one that its provider never settles is left alone, is not waited for, and is in nobody’s way', async () => {
  await withOctavia(async (octavia, session) => {
    octavia.made.set('stuck', { id: 'stuck', name: 'cw-shop-stuck', tags: ['causeway.cw', 'causeway.cw.exposure.idstuck'] });
    octavia.state = (name) => (name === 'cw-shop-stuck' ? 'PENDING_UPDATE' : 'ACTIVE');
    const whole = listenerOf(asListener);
    const read = async (): Promise<CloudState> => stateWith(octavia, ({ id }) => [id === 'stuck' ? { ...whole, members: [] } : whole]);
    for (const names of [['stuck', 'good'], ['good']]) {
      const { plan } = await applyWish(new Bare(session), wishFor(...names), read);
      assert.deepEqual(
        plan.busy.map(({ name }) => name),
        ['cw-shop-stuck'],
      );
    }
    assert.deepEqual(octavia.asked.filter(isChange), ['POST loadbalancers'], 'which is the other one');
  });
});

test('the next is not begun while a member of the one before is being made', async () => {
  await withOctavia(async (octavia, session) => {
    let looks = 0;
    octavia.memberState = (name) => (name === 'cw-shop-one' && ++looks < 3 ? 'PENDING_CREATE' : 'ACTIVE');
    await apply(octavia, session, wishFor('one', 'two'));
    const calls = octavia.asked.filter((line) => line === 'POST loadbalancers' || line.endsWith('/status'));
    const look = 'GET loadbalancers/id-cw-shop-one/status';
    assert.deepEqual(calls, ['POST loadbalancers', look, look, look, 'POST loadbalancers', 'GET loadbalancers/id-cw-shop-two/status']);
  });
});

/** Of amphora's kind. */
const slow = (octavia: FakeOctavia, session: CloudSession, wish: Wish) => {
  octavia.provider = 'amphora';
  return (work: typeof applyWish = applyWish): Promise<Applied> => apply(octavia, session, wish, work);
};

test('one for which a machine starts is not waited for, and what is wished for meanwhile follows', async () => {
  await withOctavia(async (octavia, session) => {
    octavia.state = () => 'PENDING_CREATE';
    const again = slow(octavia, session, wishFor('slow', 'other'));
    const { plan } = await again();
    assert.deepEqual(
      plan.busy.map(({ name }) => name),
      ['cw-shop-slow', 'cw-shop-other'],
    );
    assert.deepEqual(
      octavia.asked.filter((line) => line !== 'POST loadbalancers'),
      [],
      'it is not asked again and again',
    );
    assert.deepEqual(
      plan.balanced.map(({ address, notes }) => [address, ...notes]),
      [
        [undefined, 'Load balancer cw-shop-slow is being made by amphora'],
        [undefined, 'Load balancer cw-shop-other is being made by amphora'],
      ],
    );
    octavia.state = () => 'ACTIVE';
    assert.deepEqual(toldOf(await again()), ['shop/slow 10.213.0.99', 'shop/other 10.213.0.99']);
  });
});

test('who has time waits until it is finished, with words, or until the time is over', async () => {
  await withOctavia(async (octavia, session) => {
    let looks = 0;
    octavia.state = () => (++looks < 4 ? 'PENDING_CREATE' : 'ACTIVE');
    const words: string[] = [];
    const patience = { told: (text: string) => void words.push(text), intervalMs: 1 };
    const whole: typeof applyWish = (neutron, wish, read) => applyWhole(neutron, wish, { read, ...patience });
    const done = await slow(octavia, session, wishFor('slow'))(whole);
    assert.deepEqual([done.plan.busy, done.plan.problems, done.steps.length], [[], [], 1]);
    assert.equal(words[0], 'Octavia, which is at work on load balancers: cw-shop-slow (PENDING_CREATE)');
    octavia.state = () => 'PENDING_UPDATE';
    const short: typeof applyWish = (neutron, wish, read) => applyWhole(neutron, wish, { read, ...patience, timeoutMs: 0 });
    const { plan } = await slow(octavia, session, wishFor('slow'))(short);
    assert.match(plan.problems.join(), /Octavia is still at work on load balancers after 0 min: cw-shop-slow \(PENDING_UPDATE\)/);
  });
});

test('one whose machine came to nothing is told and removed, and another is made at the next look', async () => {
  await withOctavia(async (octavia, session) => {
    octavia.state = () => 'PENDING_CREATE';
    const again = slow(octavia, session, wishFor('bad'));
    await again();
    octavia.state = () => 'ERROR';
    const { plan } = await again();
    assert.match(
      plan.problems.join(),
      /^Service shop\/bad has no load balancer: load balancer cw-shop-bad came to nothing \(state ERROR\)/,
    );
    assert.deepEqual([...octavia.made], []);
    octavia.state = () => 'PENDING_CREATE';
    assert.deepEqual(
      (await again()).plan.busy.map(({ name }) => name),
      ['cw-shop-bad'],
    );
  });
});

test('what was refused is not asked again by who looks all the while, unless something else is wished for', () => {
  const known = new Refusals();
  const wish = wishFor('bad', 'good');
  const [bad] = wish.balancers;
  const left = { ...wish, balancers: wish.balancers.map((one) => (one === bad ? { ...one, refused: 'no' } : one)) };
  assert.equal(known.heeded(wish), wish);
  known.note(left);
  assert.deepEqual(known.heeded(wish), left);
  const other = { ...wish, balancers: wish.balancers.map((one) => ({ ...one, sources: [parseCidr('192.0.2.0/24')] })) };
  assert.deepEqual(known.heeded(other), other);
  known.note(wish);
  assert.equal(known.heeded(wish), wish);
});

test('an Octavia that is away stops everything, as it does not tell what to do', async () => {
  await withOctavia(async (octavia, session) => {
    octavia.refuse = () => refusal(503, 'Service Unavailable');
    await assert.rejects(apply(octavia, session, wishFor('good')), { code: 'unavailable' });
  });
});

const isLook = (line: string): boolean => line === 'GET loadbalancers/lb' || line === 'GET loadbalancers/lb/status';

test('one that is removed is waited for until it is gone, also while a probe of a member has it called active', async () => {
  await withOctavia(async (octavia, session) => {
    await apply(octavia, session, wishFor('old'));
    octavia.going = ['PENDING_DELETE', 'ACTIVE'];
    const asked = octavia.asked.length;
    await apply(octavia, session, wishFor());
    assert.deepEqual(octavia.asked.slice(asked), [
      'DELETE loadbalancers/id-cw-shop-old?cascade=true',
      ...Array.from({ length: 3 }, () => 'GET loadbalancers/id-cw-shop-old'),
    ]);
  });
});

const probed: ListenerRequest = {
  ...asListener,
  default_pool: { ...asListener.default_pool, healthmonitor: { type: 'TCP', delay: 2, timeout: 1, max_retries: 1 } },
};

test('nothing is asked for while a part is still being made, also where the load balancer is called active', async () => {
  await withOctavia(async (octavia, session) => {
    octavia.made.set('lb', { id: 'lb', name: 'lb', tags: [] });
    // As the first look after each change finds it: that is the second question since then.
    octavia.listenerState = () => (octavia.asked.length - octavia.asked.findLastIndex(isChange) === 3 ? 'PENDING_CREATE' : 'ACTIVE');
    await new Octavia(session).addListener('lb', probed);
    const changes = ['POST listeners', 'POST pools', 'PUT pools/new-pools/members', 'POST healthmonitors'];
    const look = 'GET loadbalancers/lb/status';
    assert.deepEqual(
      octavia.asked.filter((line) => line !== 'GET loadbalancers/lb'),
      [look, look, ...changes.flatMap((line) => [line, look, look])],
    );
  });
});

test('a listener is made and removed step by step, waiting for the load balancer in between', async () => {
  await withOctavia(async (octavia, session) => {
    octavia.made.set('lb', { id: 'lb', name: 'lb', tags: [] });
    const client = new Octavia(session);
    await client.addListener('lb', probed);
    const changes = (): string[] => octavia.asked.splice(0).filter((line, index, all) => !isLook(line) || !isLook(all[index - 1] ?? ''));
    assert.deepEqual(changes(), [
      'GET loadbalancers/lb',
      'POST listeners',
      'GET loadbalancers/lb',
      'POST pools',
      'GET loadbalancers/lb',
      'PUT pools/new-pools/members',
      'GET loadbalancers/lb',
      'POST healthmonitors',
      'GET loadbalancers/lb',
    ]);
    await client.removeListener('lb', { id: 'l', pool: 'p' });
    assert.deepEqual(changes(), [
      'GET loadbalancers/lb',
      'DELETE pools/p',
      'GET loadbalancers/lb',
      'GET pools/p',
      'DELETE listeners/l',
      'GET loadbalancers/lb',
    ]);
    octavia.made.set('p', { id: 'p', name: 'p', tags: [] });
    octavia.stays.add('p');
    const removed = client.removeListener('lb', { id: 'l', pool: 'p' });
    setTimeout(() => octavia.stays.clear(), 5_200);
    await removed;
    const asked = changes();
    assert.ok(asked.filter((line) => line === 'DELETE pools/p').length > 1, 'a pool that stays is told to go again');
    assert.ok(asked.lastIndexOf('GET pools/p') < asked.indexOf('DELETE listeners/l'), 'and waited for');
  });
});
