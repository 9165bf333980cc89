// What every kind promises (kind.ts), as one suite: run against the kernel (kinds.netns.test.ts) and the fake
// (fake.test.ts). nft's kinds have more to promise, in nft-contract.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Cidr, parseCidr } from '#model/ip.ts';
import type { Link, Netns } from '#model/desired.ts';
import { addr, cases, fast, fdb, type Item, mac, neigh, netns, over, route, veth, vxlan } from './contract-cases.ts';
import type { Kinds } from './kind.ts';

/** Something in the kernel that is not ours. */
export type Foreign =
  | { readonly what: 'link'; readonly netns: Netns; readonly name: string }
  | { readonly what: 'route'; readonly netns: Netns; readonly destination: Cidr; readonly link: string }
  | { readonly what: 'addr'; readonly netns: Netns; readonly link: string; readonly address: string };

export interface Subject {
  /** A host without anything of ours. */
  open(): Kinds;
  /** Puts it there behind the kinds' back. */
  put(foreign: Foreign): void;
  /** Whether it is still there. */
  has(foreign: Foreign): boolean;
}

/** One kind without its item's type: each case gives it items of its own. */
interface AnyKind {
  key(item: Item): string;
  same(wanted: Item, found: Item): boolean;
  list(netns: Netns): Item[];
  add(
    items: readonly Item[],
    changed?: ReadonlyMap<Item, Item | undefined>,
  ): readonly { readonly item: Item; readonly fault: { readonly code: string } }[];
  remove(items: readonly Item[]): readonly unknown[];
}

const at = (item: Item): Netns => ('netns' in item ? item.netns : '');

export function kindContract(name: string, subject: Subject): void {
  /** A host with one domain that has a veth and a vxlan in it. */
  function prepared(): Kinds {
    const kinds = subject.open();
    assert.deepEqual(kinds.netns.add([{ name: netns }]), []);
    assert.deepEqual(kinds.link.add([veth('a'), vxlan(7)]), []);
    return kinds;
  }

  for (const { kind: kindName, about, item, changed, bad, other, stays } of cases) {
    const title = `${name}: ${kindName}, ${about}`;
    const find = (kind: AnyKind, wanted: Item) => kind.list(at(wanted)).filter((found) => kind.key(found) === kind.key(wanted));
    const isThere = (kind: AnyKind, wanted: Item) => {
      const found = find(kind, wanted);
      assert.equal(found.length, 1, `${kind.key(wanted)} is listed once`);
      assert.ok(kind.same(wanted, found[0] as Item), `${JSON.stringify(found[0])} is as wanted`);
    };

    test(`${title}: is listed as it was added, and adding it again is fine`, () => {
      const kind = prepared()[kindName] as unknown as AnyKind;
      assert.deepEqual(kind.add([item]), []);
      isThere(kind, item);
      assert.deepEqual(kind.add([item]), []);
      isThere(kind, item);
    });

    test(`${title}: is gone after removal, and removing what is absent is success`, () => {
      const kind = prepared()[kindName] as unknown as AnyKind;
      assert.deepEqual(kind.remove([item]), []);
      kind.add([item]);
      assert.deepEqual(kind.remove([item]), []);
      if (stays !== true) assert.deepEqual(find(kind, item), []);
      assert.deepEqual(kind.remove([item]), []);
    });

    if (changed !== undefined) {
      test(`${title}: adding it with other content changes it`, () => {
        const kind = prepared()[kindName] as unknown as AnyKind;
        kind.add([item]);
        assert.ok(!kind.same(changed, find(kind, item)[0] as Item));
        assert.deepEqual(kind.add([changed]), []);
        isThere(kind, changed);
        assert.deepEqual(kind.add([item], new Map([[item, changed]])), []);
        isThere(kind, item);
      });
    }

    test(`${title}: one bad item of a batch is reported, the others are done`, () => {
      const kind = prepared()[kindName] as unknown as AnyKind;
      const failures = kind.add([item, bad, other]);
      assert.deepEqual(
        failures.map((failure) => [failure.item, failure.fault.code]),
        [[bad, 'kernel']],
      );
      isThere(kind, item);
      isThere(kind, other);
      assert.deepEqual(kind.remove([item, bad, other]), []);
      if (stays !== true) assert.deepEqual([...find(kind, item), ...find(kind, other)], []);
    });

    if ('netns' in item) {
      test(`${title}: an absent namespace holds nothing, refuses additions and takes removals`, () => {
        const kind = prepared()[kindName] as unknown as AnyKind;
        const away = { ...item, netns: 'cw-absent' };
        assert.deepEqual(kind.list('cw-absent'), []);
        assert.deepEqual(
          kind.add([away]).map((failure) => failure.fault.code),
          ['kernel'],
        );
        assert.deepEqual(kind.remove([away]), []);
      });
    }
  }

  test(`${name}: removing a namespace removes what is in it, and its links' far ends`, () => {
    const kinds = prepared();
    kinds.addr.add([addr('169.254.1.1/32', 'lo')]);
    kinds.route.add([route('10.7.0.0/24', over)]);
    kinds.link.add([
      veth('h', { netns: '', name: 'cwuh', peer: { netns, name: 'cwup', mac: mac('02:63:77:ff:fe:02'), mtu: 1400, up: true } }),
    ]);
    assert.deepEqual(kinds.netns.remove([{ name: netns }]), []);
    assert.deepEqual(kinds.netns.list(''), []);
    assert.deepEqual([...kinds.link.list(''), ...kinds.link.list(netns), ...kinds.addr.list(netns), ...kinds.route.list(netns)], []);
    kinds.netns.add([{ name: netns }]);
    assert.deepEqual([...kinds.link.list(netns), ...kinds.addr.list(netns), ...kinds.route.list(netns)], []);
    assert.deepEqual(kinds.link.add([veth('a'), vxlan(7)]), [], 'names and VNI are free again');
  });

  test(`${name}: removing a link removes what hangs on it`, () => {
    const kinds = prepared();
    kinds.addr.add([addr('fe80::1/64'), addr('10.0.0.1/32')]);
    kinds.neigh.add([neigh('10.0.0.5'), neigh('fd00::5')]);
    kinds.fdb.add([fdb(2, '192.0.2.2')]);
    kinds.route.add([route('10.0.0.5/32', { link: 'cwea' }), route('10.7.0.0/24', over), route('fd00::5/128', { link: 'cwea' })]);
    kinds.fast.add([fast('cwea')]);
    assert.deepEqual(kinds.link.remove([veth('a'), vxlan(7)]), []);
    const left = (['link', 'addr', 'neigh', 'fdb', 'route', 'fast'] as const).flatMap((kind): readonly Item[] => kinds[kind].list(netns));
    assert.deepEqual(left, []);
  });

  test(`${name}: both ends of a pair may be items, and either removes both`, () => {
    const kinds = prepared();
    const inner = veth('p', { name: 'cwup', peer: { netns: '', name: 'cwup9', mac: mac('02:63:77:ff:fe:01'), mtu: 1400, up: false } });
    const outer = veth('p', {
      netns: '',
      name: 'cwup9',
      mac: inner.peer.mac,
      peer: { ...inner.peer, netns, name: 'cwup', mac: inner.mac },
    });
    const both: readonly Link[] = [inner, outer];
    assert.deepEqual(kinds.link.add(both), []);
    assert.deepEqual(kinds.link.add(both), []);
    for (const end of both) {
      const found = kinds.link.list(end.netns).find((link) => kinds.link.key(link) === kinds.link.key(end));
      assert.ok(found !== undefined && kinds.link.same(end, found));
    }
    assert.deepEqual(kinds.link.remove([outer]), []);
    assert.ok(!kinds.link.list(netns).some(({ name: link }) => link === 'cwup'));
    assert.deepEqual(kinds.link.remove(both), []);
  });

  test(`${name}: what is not ours is neither listed nor replaced nor removed`, () => {
    const kinds = prepared();
    const foreign: readonly Foreign[] = [
      { what: 'link', netns, name: 'foreign0' },
      { what: 'addr', netns, link: 'foreign0', address: '198.51.100.1/24' },
      { what: 'route', netns, destination: parseCidr('203.0.113.0/24'), link: 'foreign0' },
    ];
    for (const object of foreign) subject.put(object);
    assert.deepEqual(
      kinds.link.list(netns).map(({ name: link }) => link),
      ['cwea', 'cwx7'],
    );
    assert.deepEqual([...kinds.addr.list(netns), ...kinds.route.list(netns)], []);

    const refused = kinds.route.add([route('203.0.113.0/24', over)]);
    assert.deepEqual(
      refused.map(({ fault }) => fault.errno),
      ['EEXIST'],
    );
    kinds.link.add([veth('x', { name: 'foreign0' })]);
    kinds.link.remove([veth('x', { name: 'foreign0' })]);
    kinds.addr.remove([addr('198.51.100.1/24', 'foreign0')]);
    kinds.route.remove([route('203.0.113.0/24', over)]);
    assert.deepEqual(
      foreign.filter((object) => !subject.has(object)),
      [],
    );
  });

  test(`${name}: a link that changes in place keeps what hangs on it`, () => {
    const kinds = prepared();
    kinds.route.add([route('10.0.0.5/32', { link: 'cwea' })]);
    assert.deepEqual(kinds.link.add([veth('a', { mtu: 1280 })]), []);
    assert.equal(kinds.route.list(netns).length, 1);
  });
}
