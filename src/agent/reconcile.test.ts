import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeCluster, makeNetwork } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { createFakeKinds } from '#kernel/fake.ts';
import type { Kind, Kinds } from '#kernel/kind.ts';
import {
  emptyDesired,
  type Desired,
  type KindName,
  type Link,
  type Netns,
  type NftElement,
  type Route,
  type VethLink,
} from '#model/desired.ts';
import { Fault } from '#model/fault.ts';
import { parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { Reconciler } from './reconcile.ts';

const kindNames = Object.keys(emptyDesired) as KindName[];
const where = { netns: 'cw-a' };
const veth = (name: string, more: Partial<VethLink> = {}): VethLink => ({
  ...where,
  type: 'veth',
  name,
  mtu: 1400,
  mac: parseMac('02:63:77:ff:ff:01'),
  alias: `causeway test ${name}`,
  peer: { netns: '', name: `cwt${name.slice(3)}`, mac: parseMac('0a:63:0a:00:00:05'), mtu: 1400, up: false },
  ...more,
});
const route = (destination: string, more: Partial<Route> = {}): Route => ({
  ...where,
  destination: parseCidr(destination),
  link: 'cwe1',
  onlink: false,
  type: 'unicast',
  ...more,
});
const small: Desired = { ...emptyDesired, netns: [{ name: 'cw-a' }], link: [veth('cwe1')], route: [route('10.0.0.5/32')] };

/** Every call of the kinds, as `add link 2`. */
function recorded(kinds: Kinds): { readonly kinds: Kinds; readonly calls: string[] } {
  const calls: string[] = [];
  const record = <T>(kind: Kind<T>): Kind<T> => ({
    ...kind,
    list(netns) {
      calls.push(`list ${kind.name} ${netns}`);
      return kind.list(netns);
    },
    add(items) {
      calls.push(`add ${kind.name} ${items.length}`);
      return kind.add(items);
    },
    remove(items) {
      calls.push(`remove ${kind.name} ${items.length}`);
      return kind.remove(items);
    },
  });
  const table = Object.fromEntries(kindNames.map((name) => [name, record(kinds[name] as Kind<unknown>)]));
  return { calls, kinds: table as unknown as Kinds };
}

/** Everything of ours, for comparison. */
function dump(kinds: Kinds): Record<string, unknown[]> {
  const places: Netns[] = ['', ...kinds.netns.list('').map(({ name }) => name)];
  return Object.fromEntries(
    kindNames.map((kind) => {
      const of = kinds[kind] as Kind<unknown>;
      const items = places.flatMap((netns) => of.list(netns));
      return [kind, items.map((item) => JSON.stringify(item)).sort()];
    }),
  );
}

const verbs = (calls: readonly string[]): string[] =>
  calls.filter((call) => !call.startsWith('list')).map((call) => call.replace(/ \d+$/, ''));

test('objects come in an order in which each finds what it hangs on, the guard first, and go the other way round', () => {
  const { kinds, calls } = recorded(createFakeKinds());
  const { snapshot, local, self } = makeCluster(3, 2);
  const reconciler = new Reconciler(kinds);
  const wanted = plan(snapshot, local, self);
  assert.deepEqual(reconciler.apply(wanted, true).failing, []);
  assert.deepEqual(verbs(calls), [
    'add netns',
    'add sysctl',
    'add table',
    'add link',
    'add sysctl',
    'add addr',
    'add fdb',
    'add neigh',
    'add route',
    'add element',
    'add fast',
  ]);
  calls.length = 0;
  assert.deepEqual(reconciler.apply(emptyDesired, true).failing, []);
  // Of what hangs on links only what is on one that stays, or on none.
  assert.deepEqual(
    verbs(calls),
    ['element', 'route', 'addr', 'sysctl', 'link', 'table', 'netns'].map((kind) => `remove ${kind}`),
  );
});

test('what the kernel takes away with a link is not asked to go, and stays known where the link stays', () => {
  const { kinds, calls } = recorded(createFakeKinds());
  const fault = new Fault('kernel', 'Cannot remove link cwe1: EBUSY', { errno: 'EBUSY' });
  let isRefusing = true;
  const remove: Kinds['link']['remove'] = (items) => (isRefusing ? items.map((item) => ({ item, fault })) : kinds.link.remove(items));
  const reconciler = new Reconciler({ ...kinds, link: { ...kinds.link, remove } });
  const whole: Desired = { ...small, fast: [{ ...where, link: 'cwe1', networks: [] }] };
  const left = (): number[] => [kinds.route.list('cw-a').length, kinds.fast.list('cw-a').length];
  const bare: Desired = { ...emptyDesired, netns: small.netns };
  assert.deepEqual(reconciler.apply(whole, true).failing, []);
  assert.deepEqual(
    reconciler.apply(bare, true).failing.map(({ kind }) => kind),
    ['link'],
  );
  assert.deepEqual(left(), [1, 1]);
  reconciler.apply({ ...bare, link: small.link }, true);
  assert.deepEqual(left(), [0, 0]);
  reconciler.apply(whole, true);
  calls.length = 0;
  isRefusing = false;
  assert.deepEqual(reconciler.apply(bare, true).failing, []);
  assert.deepEqual([verbs(calls), left()], [['remove link'], [0, 0]]);
});

test('the same again neither lists nor writes', () => {
  const fake = createFakeKinds();
  const { kinds, calls } = recorded(fake);
  const { snapshot, local, self } = makeCluster(3, 2);
  const reconciler = new Reconciler(kinds);
  const first = reconciler.apply(plan(snapshot, local, self), true);
  const writes = fake.writes;
  calls.length = 0;
  const second = reconciler.apply(plan(snapshot, local, self), true);
  assert.deepEqual([first.changed, second.changed, second.desired], [first.desired, 0, first.desired]);
  assert.deepEqual([calls, fake.writes], [[], writes]);
});

test('a process without memory finds the same state and writes nothing but settings that it must look at', () => {
  const fake = createFakeKinds();
  const { snapshot, local, self } = makeCluster(3, 2);
  const wanted = plan(snapshot, local, self);
  new Reconciler(fake).apply(wanted, true);
  const before = dump(fake);
  const { kinds, calls } = recorded(fake);
  const outcome = new Reconciler(kinds).apply(wanted, true);
  assert.deepEqual(
    verbs(calls).filter((call) => !call.endsWith('sysctl')),
    [],
  );
  assert.deepEqual([outcome.failing, outcome.remadeLinks, dump(fake)], [[], [], before]);
});

test('before every source is in sync only what this process itself wanted is removed', () => {
  const fake = createFakeKinds();
  new Reconciler(fake).apply(
    { ...small, netns: [...small.netns, { name: 'cw-b' }], route: [route('10.0.0.5/32'), route('10.0.0.6/32')] },
    true,
  );
  const later = new Reconciler(fake);
  later.apply(small, false);
  assert.deepEqual(
    [fake.netns.list('').map(({ name }) => name), fake.route.list('cw-a').map(({ destination }) => destination)],
    [
      ['cw-a', 'cw-b'],
      ['10.0.0.5/32', '10.0.0.6/32'],
    ],
  );
  later.apply({ ...small, route: [] }, false);
  assert.deepEqual(
    fake.route.list('cw-a').map(({ destination }) => destination),
    ['10.0.0.6/32'],
    'what it wanted before is its own to remove',
  );
  later.apply({ ...small, route: [] }, true);
  assert.deepEqual([fake.netns.list('').map(({ name }) => name), fake.route.list('cw-a')], [['cw-a'], []]);
});

test('what was refused is tried again by the next run, and nothing else is', () => {
  const fake = createFakeKinds();
  const { kinds, calls } = recorded(fake);
  const reconciler = new Reconciler(kinds);
  fake.refuseNext('route', 'cw-a 10.0.0.5/32', 'ENOBUFS');
  const wanted = { ...small, route: [route('10.0.0.5/32'), route('10.0.0.6/32')] };
  const outcome = reconciler.apply(wanted, true);
  assert.deepEqual(
    outcome.failing.map(({ kind, what, fault }) => [kind, what, fault.code, fault.errno]),
    [['route', 'cw-a 10.0.0.5/32', 'kernel', 'ENOBUFS']],
  );
  assert.deepEqual([outcome.changed, outcome.desired], [3, 4]);
  calls.length = 0;
  assert.deepEqual(reconciler.apply(wanted, true).failing, []);
  assert.deepEqual(calls, ['add route 1']);
});

test('what is there of a link that was refused is noticed by the next run', () => {
  const kinds = createFakeKinds();
  const halved: Kind<Link> = {
    ...kinds.link,
    add(items) {
      kinds.link.add(items);
      return items.map((item) => ({ item, fault: new Fault('kernel', 'set link cwe1: ENODEV') }));
    },
  };
  const reconciler = new Reconciler({ ...kinds, link: halved });
  assert.deepEqual(
    reconciler.apply(small, true).failing.map(({ what }) => what),
    ['cw-a cwe1'],
  );
  reconciler.apply({ ...emptyDesired, netns: small.netns }, true);
  assert.deepEqual(kinds.link.list('cw-a'), []);
});

test('items that hang on something refused fail with it, and come when it comes', () => {
  const fake = createFakeKinds();
  const reconciler = new Reconciler(fake);
  fake.refuseNext('link', 'cw-a cwe1', 'ENOMEM');
  assert.deepEqual(
    reconciler.apply(small, true).failing.map(({ kind }) => kind),
    ['link', 'route'],
  );
  assert.deepEqual([reconciler.apply(small, true).failing, fake.route.list('cw-a').length], [[], 1]);
});

test('a namespace that goes takes its memory along: made again, everything in it is new', () => {
  const fake = createFakeKinds();
  const reconciler = new Reconciler(fake);
  reconciler.apply(small, true);
  reconciler.apply(emptyDesired, true);
  assert.deepEqual(dump(fake), dump(createFakeKinds()));
  const outcome = reconciler.apply(small, true);
  assert.deepEqual([outcome.changed, outcome.failing, fake.route.list('cw-a').length], [3, [], 1]);
});

test('a namespace that somebody else removed is noticed when it is suspected', () => {
  const fake = createFakeKinds();
  const reconciler = new Reconciler(fake);
  reconciler.apply(small, true);
  fake.lose('netns', 'cw-a');
  reconciler.suspect('cw-a');
  assert.deepEqual([reconciler.apply(small, true).failing, fake.route.list('cw-a').length, fake.link.list('cw-a').length], [[], 1, 1]);
});

test('only what is suspected is listed again', () => {
  const { kinds, calls } = recorded(createFakeKinds());
  const reconciler = new Reconciler(kinds);
  const wanted = { ...small, netns: [...small.netns, { name: 'cw-b' }] };
  reconciler.apply(wanted, true);
  calls.length = 0;
  reconciler.suspect('cw-a');
  reconciler.apply(wanted, true);
  assert.deepEqual(new Set(calls.map((call) => call.replace(/^list \w+ /, ''))), new Set(['', 'cw-a']));
  assert.ok(calls.every((call) => !call.endsWith('cw-b')));
  assert.deepEqual(
    calls.filter((call) => call.endsWith(' ')),
    ['list netns '],
    'on the host only which namespaces there are',
  );
});

test('what says that it is as it was listed is not listed again, but when everything is to be forgotten', () => {
  const fake = createFakeKinds();
  const told = { isTold: () => true };
  const { kinds, calls } = recorded({ ...fake, table: { ...fake.table, ...told }, element: { ...fake.element, ...told } });
  const reconciler = new Reconciler(kinds);
  const listed = (): string[] => {
    calls.length = 0;
    reconciler.apply(small, true);
    return calls.filter((call) => call === 'list element cw-a' || call === 'list table ' || call === 'list link cw-a');
  };
  assert.deepEqual(listed(), ['list table '], 'nothing is known yet, and there is no namespace');
  assert.deepEqual(listed(), []);
  reconciler.suspect();
  assert.deepEqual(listed(), ['list link cw-a']);
  reconciler.suspect();
  reconciler.forget();
  assert.deepEqual(listed(), ['list table ', 'list link cw-a', 'list element cw-a']);
});

const elementNumber = (number: number, value = 'accept') => ({
  ...where,
  table: 'causeway',
  set: 's',
  key: `10.0.${number >> 8}.${number & 255}`,
  value,
});

test('of many elements only those that are wanted otherwise are looked at, and what is then in the kernel is as wanted', () => {
  const fake = createFakeKinds();
  let looks = 0;
  const key = (item: Parameters<typeof fake.element.key>[0]): string => {
    looks += 1;
    return fake.element.key(item);
  };
  const reconciler = new Reconciler({ ...fake, element: { ...fake.element, key } });
  const many = Array.from({ length: 5_000 }, (_, number) => elementNumber(number));
  const table = { netns: 'cw-a', family: 'inet', name: 'causeway', text: 'map s { type ipv4_addr : verdict; }' } as const;
  const apply = (element: ReturnType<typeof elementNumber>[]): number => {
    looks = 0;
    assert.deepEqual(reconciler.apply({ ...small, table: [...small.table, table], element }, true).failing, []);
    const found = fake.element.list('cw-a').map((item) => `${item.key} ${item.value ?? ''}`);
    assert.deepEqual(found.toSorted(), element.map((item) => `${item.key} ${item.value}`).toSorted());
    return looks;
  };
  assert.ok(apply(many) > 5_000);
  assert.equal(apply([...many]), 0);
  const without = many.toSpliced(1_000, 1);
  for (const changed of [
    without,
    [...without, elementNumber(9_999)],
    without,
    many,
    many.with(7, elementNumber(7, 'drop')),
    many.toSpliced(3, 2, elementNumber(8_000), elementNumber(4)),
  ])
    assert.ok(apply(changed) < 100, 'few looks for few changes');
  const twice = [...many, elementNumber(7, 'drop')].toSpliced(7, 1);
  apply(twice);
  reconciler.suspect();
  apply(many);
});

test('each sort of object that somebody takes away comes back', () => {
  const fake = createFakeKinds();
  const { snapshot, local, self } = makeCluster(3, 2);
  const wanted = plan(snapshot, local, self);
  const reconciler = new Reconciler(fake);
  reconciler.apply(wanted, true);
  const whole = dump(fake);
  for (const kind of kindNames) {
    const of = fake[kind] as Kind<Desired[KindName][number]>;
    for (const item of wanted[kind]) {
      fake.lose(kind, of.key(item));
      reconciler.suspect();
      assert.deepEqual(reconciler.apply(wanted, true).failing, [], `${kind} ${of.key(item)}`);
    }
    assert.deepEqual(dump(fake), whole, kind);
  }
});

test('foreign objects of the same name are refused, stay, and hold up nothing else', () => {
  const fake = createFakeKinds();
  fake.netns.add([{ name: 'cw-a' }]);
  fake.putForeign({ ...where, link: 'cwe1', destination: '10.0.0.5/32' });
  const outcome = new Reconciler(fake).apply({ ...small, route: [route('10.0.0.5/32'), route('10.0.0.6/32')] }, true);
  assert.deepEqual(
    outcome.failing.map(({ what, fault }) => [what, fault.errno]),
    [['cw-a 10.0.0.5/32', 'EEXIST']],
  );
  assert.deepEqual(
    fake.route.list('cw-a').map(({ destination }) => destination),
    ['10.0.0.6/32'],
  );
});

test('a link that has to be made again gets back at once what hung on it', () => {
  const fake = createFakeKinds();
  const { snapshot, local, self } = makeCluster(3, 2);
  const reconciler = new Reconciler(fake);
  reconciler.apply(plan(snapshot, local, self), true);
  const moved = { ...self, underlay: self.underlay.map((entry) => ({ ...entry, ip: '10.213.9.9' as typeof entry.ip })) };
  const wanted = plan({ ...snapshot, hosts: new Map(snapshot.hosts).set(self.id, moved) }, local, moved);
  assert.deepEqual(reconciler.apply(wanted, true).failing, []);
  const fresh = createFakeKinds();
  new Reconciler(fresh).apply(wanted, true);
  assert.deepEqual(dump(fake), dump(fresh));
});

test('of a pair of which one end has gone the other is put right as well, with what hung on it', () => {
  const fake = createFakeKinds();
  const [inner, outer] = [
    veth('cwup', { peer: { ...veth('cwup').peer, netns: '', name: 'cwu1' } }),
    veth('cwu1', { netns: '', peer: { ...veth('cwu1').peer, netns: 'cw-a', name: 'cwup' } }),
  ];
  const added: string[][] = [];
  const add: typeof fake.link.add = (items, changed) => {
    added.push(items.map(({ name }) => name).toSorted());
    return fake.link.add(items, changed);
  };
  const reconciler = new Reconciler({ ...fake, link: { ...fake.link, add } });
  const neigh = { netns: '', link: 'cwu1', ip: parseIp('10.0.0.9'), mac: outer.mac };
  const desired = { ...small, link: [...small.link, inner, outer], neigh: [neigh] };
  reconciler.apply(desired, true);
  fake.lose('link', 'cw-a cwup');
  reconciler.suspect('cw-a');
  // Went with the pair, of which nobody was told.
  fake.lose('neigh', fake.neigh.key(neigh));
  assert.deepEqual(reconciler.apply(desired, true).failing, []);
  assert.deepEqual(added.at(-1), ['cwu1', 'cwup']);
  assert.deepEqual(fake.neigh.list(''), [neigh]);
});

test('placed pairs that were missing are reported, so that their far ends are put right; changed ones are not', () => {
  const fake = createFakeKinds();
  const placed = veth('cwe1', { peer: { ...veth('cwe1').peer, netns: '/run/docker/netns/x', name: 'eth0' } });
  const reconciler = new Reconciler(fake);
  assert.deepEqual(reconciler.apply({ ...small, link: [placed] }, true).remadeLinks, [placed]);
  assert.deepEqual(reconciler.apply({ ...small, link: [{ ...placed, mtu: 1300 }] }, true).remadeLinks, []);
  fake.lose('link', 'cw-a cwe1');
  reconciler.suspect();
  assert.deepEqual(reconciler.apply({ ...small, link: [placed] }, true).remadeLinks, [placed]);
});

const tableOf = (text: string) => ({ netns: '', family: 'inet', name: 'causeway', text }) as const;
const elementOf = (set: string, key: string, value: string) => ({ netns: '', table: 'causeway', set, key, value });

test('a run says when rules were not as they had been wanted, or were loaded anew', () => {
  const fake = createFakeKinds();
  const reconciler = new Reconciler(fake);
  const one = elementOf('m', '10.0.0.1', '1');
  const wanted: Desired = { ...emptyDesired, table: [tableOf('map m { }')], element: [one] };
  const mended = (desired: Desired): boolean => reconciler.apply(desired, true).mended;
  assert.equal(mended(wanted), true);
  assert.equal(mended(wanted), false);
  const changed = { ...wanted, element: [{ ...one, value: '2' }, elementOf('m', '10.0.0.2', '1')] };
  assert.equal(mended(changed), false, 'what is wanted has changed');
  fake.element.remove([one]);
  reconciler.suspect();
  assert.equal(mended(changed), true);
  const refused = { ...changed, element: [...changed.element, elementOf('absent', '1', '1')] };
  assert.deepEqual([mended(refused), mended(refused), mended(changed), mended(changed)], [false, true, true, false]);
});

test('a table is loaded with the elements that change in the same run', () => {
  const fake = createFakeKinds();
  const loaded: Desired['table'][number][] = [];
  const add = (items: Desired['table']) => {
    loaded.push(...items);
    return fake.table.add(items);
  };
  const reconciler = new Reconciler({ ...fake, table: { ...fake.table, add } });
  reconciler.apply(
    { ...emptyDesired, table: [tableOf('map m { }')], element: [elementOf('m', '1', 'goto a'), elementOf('m', '2', 'goto a')] },
    true,
  );
  const now = {
    ...emptyDesired,
    table: [tableOf('map m { } chain b { }')],
    element: [elementOf('m', '1', 'goto b'), elementOf('m', '2', 'goto a')],
  };
  reconciler.apply(now, true);
  assert.deepEqual(loaded.at(-1)?.renewed, [elementOf('m', '1', 'goto b')]);
  reconciler.suspect();
  assert.equal(reconciler.apply(now, true).changed, 0);
});

test('what came with a table is not written again, unless the table could not take all of it', () => {
  const { kinds, calls } = recorded(createFakeKinds());
  const reconciler = new Reconciler(kinds);
  reconciler.apply({ ...emptyDesired, table: [tableOf('map m { }')] }, true);
  const element = [elementOf('m', '1', 'goto b'), elementOf('m', '2', 'goto b')];
  calls.length = 0;
  const now = { ...emptyDesired, table: [tableOf('map m { } chain b { }')], element };
  assert.deepEqual([reconciler.apply(now, true).changed, verbs(calls)], [3, ['add table']]);
  assert.deepEqual(kinds.element.list(''), element);
  calls.length = 0;
  const refused = { ...now, table: [tableOf('map m { } chain c { }')], element: [...element, elementOf('n', '1', 'goto c')] };
  assert.deepEqual(
    reconciler.apply(refused, true).failing.map(({ what }) => what),
    ['1 in n of causeway'],
  );
  assert.deepEqual(verbs(calls), ['add table', 'add element']);
});

test('what goes from a map goes when nothing leads to it any more', () => {
  const fake = createFakeKinds();
  const { kinds, calls } = recorded(fake);
  const reconciler = new Reconciler(kinds);
  const table = [tableOf('map count { } map place { } set plain { }')];
  const some = { ...emptyDesired, table };
  const plain = { netns: '', table: 'causeway', set: 'plain', key: '1' };
  const places = [elementOf('place', '0', 'a'), elementOf('place', '1', 'b')];
  reconciler.apply({ ...some, element: [elementOf('count', 'x', '2'), ...places, plain] }, true);
  calls.length = 0;
  const { changed } = reconciler.apply({ ...some, element: [elementOf('count', 'x', '1'), ...places.slice(0, 1)] }, true);
  assert.deepEqual([verbs(calls), changed], [['remove element', 'add element', 'remove element'], 3]);
  assert.equal(fake.element.list('').length, 2);
});

const bad = (key: string): NftElement => ({ netns: '', table: 'causeway', set: 'bad', key });
const holding = (text: string, ...keys: string[]): Desired => {
  const element = keys.map(bad);
  return { ...emptyDesired, table: [{ ...tableOf(text), elements: element }], element };
};

test('while others come in their place, elements of sets go with them, or with the table that is loaded with all it has', () => {
  const { kinds, calls } = recorded(createFakeKinds());
  const exchange: typeof kinds.element.exchange = (gone, come) => {
    calls.push(`exchange element ${come.length}`);
    return [...kinds.element.remove(gone), ...kinds.element.add(come)];
  };
  const reconciler = new Reconciler({ ...kinds, element: { ...kinds.element, exchange } });
  const deeds = (wanted: Desired): unknown => {
    calls.length = 0;
    const { failing, changed } = reconciler.apply(wanted, true);
    assert.deepEqual([failing, kinds.element.list('')], [[], wanted.element]);
    return [verbs(calls), changed];
  };
  deeds(holding('set bad { }', '10.0.0.0/9', '192.0.2.1'));
  assert.deepEqual(deeds(holding('set bad { }', '192.0.2.1', '10.0.0.0/8')), [['exchange element', 'remove element', 'add element'], 2]);
  assert.deepEqual(deeds(holding('set bad { } chain b { }', '10.0.0.0/9')), [['add table'], 4]);
  assert.deepEqual(deeds(holding('set bad { } chain b { }')), [['remove element'], 1]);
  assert.deepEqual(deeds(holding('set bad { }')), [['add table'], 1]);
});

const carriedBy = (carry: 'vxlan' | 'host-gateway' | 'routes'): Desired => {
  const { snapshot, local, self } = makeCluster(2, 1, makeNetwork('aaaaaaaaaa', { model: 'flannel', carry }));
  return plan(snapshot, local, self, { isShort: false });
};

test('where hosts are reached by another way, the old one goes when the new one is there', () => {
  const { kinds, calls } = recorded(createFakeKinds());
  const reconciler = new Reconciler(kinds);
  reconciler.apply(carriedBy('vxlan'), true);
  calls.length = 0;
  reconciler.apply(carriedBy('host-gateway'), true);
  assert.deepEqual(
    verbs(calls).filter((call) => !/element|sysctl/.test(call)),
    ['add link', 'add route', 'remove link'],
  );
  calls.length = 0;
  reconciler.apply(carriedBy('vxlan'), true);
  assert.deepEqual(
    verbs(calls).filter((call) => !/element|sysctl/.test(call)),
    ['add link', 'add fdb', 'add neigh', 'add route'],
  );
  calls.length = 0;
  reconciler.apply(carriedBy('routes'), true);
  assert.deepEqual(
    verbs(calls).filter((call) => !/element|sysctl/.test(call)),
    // What says that there is no other way to the range, and then the tunnel with the ways that led over it.
    ['add link', 'add route', 'remove route', 'remove link'],
  );
});

test('a tunnel that the host has gone over from stays for a while to receive by, and one that is wanted no more goes at once', (t) => {
  let now = 0;
  t.mock.method(performance, 'now', () => now);
  const fake = createFakeKinds();
  const reconciler = new Reconciler(fake, { lingerMs: 5000 });
  const tunnels = (): string[] => fake.link.list('').flatMap(({ type, name }) => (type === 'vxlan' ? [name] : []));
  const ways = (): number => fake.route.list('').filter(({ link }) => link?.startsWith('cwx')).length;
  reconciler.apply(carriedBy('vxlan'), true);
  const tunnel = tunnels();
  assert.deepEqual([tunnel.length, ways()], [1, 1]);
  for (const carry of ['routes', 'host-gateway'] as const) {
    assert.equal(reconciler.apply(carriedBy(carry), true).lingersMs, 5000);
    assert.deepEqual(tunnels(), tunnel);
    if (carry === 'routes') assert.equal(ways(), 0);
    now += 3000;
    assert.equal(reconciler.apply(carriedBy(carry), true).lingersMs, 2000);
    assert.deepEqual(tunnels(), tunnel);
    now += 2000;
    assert.equal(reconciler.apply(carriedBy(carry), true).lingersMs, undefined);
    assert.deepEqual(tunnels(), []);
    assert.equal(reconciler.apply(carriedBy('vxlan'), true).lingersMs, undefined);
  }
  assert.equal(reconciler.apply(emptyDesired, true).lingersMs, undefined);
  assert.deepEqual(tunnels(), []);
});

test('memory does not grow with everything there ever was', () => {
  const fake = createFakeKinds();
  const reconciler = new Reconciler(fake);
  const network = makeNetwork('aaaaaaaaaa');
  const { snapshot, local, self } = makeCluster(2, 60, network);
  for (const endpoint of local) reconciler.apply(plan(snapshot, [endpoint], self), true);
  reconciler.apply(emptyDesired, true);
  assert.equal(reconciler.remembered, 0);
});

test('a new alias writes the link and nothing else, and is no reason to look into the container', () => {
  const fake = createFakeKinds();
  const reconciler = new Reconciler(fake);
  const placed = veth('cwe1', { peer: { ...veth('cwe1').peer, netns: '/run/docker/netns/x', name: 'eth0' } });
  reconciler.apply({ ...small, link: [placed] }, true);
  const before = fake.writes;
  const outcome = reconciler.apply({ ...small, link: [{ ...placed, alias: 'causeway test renamed' }] }, true);
  assert.deepEqual([fake.writes - before, outcome.changed, outcome.remadeLinks], [1, 1, []]);
});

test('a device in the place of another has its peers when packets are led to it, and what was in the way of a route is then gone', () => {
  const fake = createFakeKinds();
  const device = { type: 'wireguard', netns: '', name: 'cww1', mtu: 1400, alias: 'causeway test' } as const;
  const desired: Desired = {
    ...emptyDesired,
    link: [device],
    wireguard: [{ netns: '', link: 'cww1', port: 51_821, peers: [] }],
    route: [route('10.0.1.0/24', { netns: '', link: 'cww1' })],
  };
  const stepsOf = (isAfterRoutes: boolean): string[] => {
    const { kinds, calls } = recorded({ ...fake, wireguard: { ...fake.wireguard, isAfterRoutes: () => isAfterRoutes } });
    new Reconciler(kinds).apply(desired, true);
    new Reconciler(kinds).apply(emptyDesired, true);
    return calls.filter((call) => call.startsWith('add '));
  };
  assert.deepEqual(stepsOf(false), ['add link 1', 'add wireguard 1', 'add route 1']);
  assert.deepEqual(stepsOf(true), ['add link 1', 'add route 1', 'add wireguard 1', 'add route 1']);
});

test('a route that had no place before the other device was gone is no failure', () => {
  const fake = createFakeKinds();
  let isThere = true;
  const fault = new Fault('kernel', 'Cannot add route', { errno: 'EEXIST' });
  const kinds: Kinds = {
    ...fake,
    wireguard: {
      ...fake.wireguard,
      isAfterRoutes: () => true,
      add(items) {
        isThere = false;
        return fake.wireguard.add(items);
      },
    },
    route: { ...fake.route, add: (items) => (isThere ? items.map((item) => ({ item, fault })) : fake.route.add(items)) },
  };
  const outcome = new Reconciler(kinds).apply(
    {
      ...emptyDesired,
      link: [{ type: 'wireguard', netns: '', name: 'cww1', mtu: 1400, alias: 'causeway test' }],
      wireguard: [{ netns: '', link: 'cww1', port: 51_821, peers: [] }],
      route: [route('10.0.1.0/24', { netns: '', link: 'cww1' })],
    },
    true,
  );
  assert.deepEqual(outcome.failing, []);
  assert.equal(fake.route.list('').length, 1);
});
