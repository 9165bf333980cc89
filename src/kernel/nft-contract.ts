// What the kinds `table` and `element` promise: one suite, run against the kernel (nft.netns.test.ts) and the fake
// (nft.test.ts). Everything happens in one namespace that the caller hands over empty.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NftElement, NftTable, Netns } from '#model/desired.ts';
import type { Kind } from './kind.ts';

export interface NftSubject {
  readonly netns: Netns;
  /** A namespace that does not exist. */
  readonly absent: Netns;
  readonly table: Kind<NftTable>;
  readonly element: Kind<NftElement>;
  /** Does what `nft flush table inet <table>` does, behind the kinds' back. */
  tear(table: string): void;
}

const members = `
  set members4 { type ifname . ether_addr . ipv4_addr; }
  set ranges4 { type ipv4_addr; flags interval; }`;
const rules = `
  map published4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map rows4 { typeof meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport; }
  chain entry {
    type filter hook prerouting priority raw; policy accept;
    iifname { "lo", "cwup" } accept
    iifname . ether saddr . ip saddr @members4 counter notrack accept
    ip saddr @ranges4 counter drop
  }`;

export function nftContract(name: string, subject: NftSubject): void {
  const { netns, table, element } = subject;
  const causeway = (text: string): NftTable => ({ netns, family: 'inet', name: 'causeway', text });
  const full = causeway(members + rules);
  const entry = (set: string, key: string, value?: string): NftElement => ({
    netns,
    table: 'causeway',
    set,
    key,
    ...(value === undefined ? {} : { value }),
  });
  const member = (index: number) => entry('members4', `"cwe${index}" . 0a:63:0a:00:00:0${index} . 10.0.0.${index}`);
  const row = (number: number, ...values: readonly string[]): NftElement => ({
    netns,
    table: 'causeway',
    set: 'rows4',
    key: `tcp . ${number}`,
    values,
  });
  const rows = (): readonly NftElement[] => [...listed().values()].filter(({ set }) => set === 'rows4');
  const port = (number: number, target: string) => entry('published4', `tcp . ${number}`, target);
  const listed = () => new Map(element.list(netns).map((item) => [element.key(item), item]));
  const holds = (items: readonly NftElement[]) => assert.deepEqual(listed(), new Map(items.map((item) => [element.key(item), item])));
  const isThere = (wanted: NftTable) => {
    const [found, ...others] = table.list(netns);
    assert.ok(found !== undefined && others.length === 0, 'exactly one table');
    assert.equal(table.key(found), table.key(wanted));
    return table.same(wanted, found);
  };

  test(`${name}: an absent namespace holds nothing, and removing from it succeeds`, () => {
    assert.deepEqual(table.list(subject.absent), []);
    assert.deepEqual(element.list(subject.absent), []);
    assert.deepEqual(table.remove([{ ...full, netns: subject.absent }]), []);
    assert.deepEqual(element.remove([{ ...member(1), netns: subject.absent }]), []);
  });

  test(`${name}: an empty namespace holds nothing, and removing from it succeeds`, () => {
    assert.deepEqual(table.list(netns), []);
    assert.deepEqual(element.list(netns), []);
    assert.deepEqual(table.remove([full]), []);
    assert.deepEqual(element.remove([member(1)]), []);
  });

  test(`${name}: an element without its table is refused by the kernel, and says so`, () => {
    const failures = element.add([member(1), member(2)]);
    assert.deepEqual(
      failures.map(({ item, fault }) => [element.key(item), fault.code, fault.errno]),
      [member(1), member(2)].map((item) => [element.key(item), 'kernel', 'ENOENT']),
    );
  });

  test(`${name}: a loaded table is found the same, and adding it again changes nothing`, () => {
    assert.deepEqual(table.add([full]), []);
    assert.equal(isThere(full), true);
    assert.equal(isThere(causeway(members)), false);
    assert.deepEqual(table.add([full]), []);
    assert.equal(isThere(full), true);
  });

  test(`${name}: elements come back in the spelling they were given in`, () => {
    const items = [member(1), member(2), entry('ranges4', '10.1.0.0/16'), entry('ranges4', '10.2.0.7'), port(80, '10.0.0.1 . 8080')];
    assert.deepEqual(element.add(items), []);
    holds(items);
    assert.deepEqual(element.add(items), [], 'adding what is there succeeds');
    holds(items);
    assert.equal(isThere(full), true, 'elements do not count as a change of the table');
  });

  test(`${name}: a host prefix and its bare address are one element`, () => {
    assert.equal(element.key(entry('ranges4', '10.2.0.7/32')), element.key(entry('ranges4', '10.2.0.7')));
    assert.deepEqual(element.add([entry('ranges4', '10.2.0.7/32')]), []);
    assert.equal(element.list(netns).filter(({ set }) => set === 'ranges4').length, 2);
  });

  test(`${name}: a map element with a new value replaces the old one`, () => {
    assert.deepEqual(element.add([port(80, '10.0.0.2 . 8080'), port(443, '10.0.0.2 . 8443')]), []);
    const found = listed().get(element.key(port(80, '')));
    assert.ok(found !== undefined);
    assert.equal(element.same(port(80, '10.0.0.2 . 8080'), found), true);
    assert.equal(element.same(port(80, '10.0.0.1 . 8080'), found), false);
  });

  test(`${name}: so it does where the caller knows that another is there, and where it is mistaken`, () => {
    const items = [port(80, '10.0.0.3 . 8080'), port(443, '10.0.0.3 . 8443'), port(444, '10.0.0.3 . 8444')];
    for (const changed of [[0], [2], [0, 1, 2]]) {
      assert.deepEqual(element.remove([port(444, '')]), []);
      assert.deepEqual(element.add([port(80, '10.0.0.2 . 8080'), port(443, '10.0.0.2 . 8443')]), []);
      const known = items.filter((_, index) => changed.includes(index));
      assert.deepEqual(element.add(items, new Map(known.map((item) => [item, undefined]))), []);
      for (const item of items)
        assert.ok(element.same(item, listed().get(element.key(item)) ?? member(0)), `${item.key}, ${changed.join()}`);
    }
    assert.deepEqual(element.remove([port(444, '')]), []);
  });

  test(`${name}: a row is there as a whole, and with another number of elements it is another`, () => {
    const [long, short, other] = [
      row(80, '10.0.0.1 . 80', '10.0.0.2 . 80', '10.0.0.3 . 80'),
      row(80, '10.0.0.2 . 80'),
      row(81, '10.0.0.1 . 81'),
    ];
    const holdsRows = (...wanted: readonly NftElement[]) =>
      assert.deepEqual(new Map(rows().map((item) => [element.key(item), item])), new Map(wanted.map((item) => [element.key(item), item])));
    assert.deepEqual(element.add([long, other]), []);
    holdsRows(long, other);
    const [there] = rows().filter((one) => element.key(one) === element.key(short));
    assert.ok(there !== undefined && element.same(long, there) && !element.same(short, there));
    assert.deepEqual(element.add([short], new Map([[short, long]])), []);
    holdsRows(short, other);
    assert.deepEqual(element.add([long], new Map([[long, short]])), []);
    holdsRows(long, other);
    assert.deepEqual(element.remove([long, other]), []);
    holdsRows();
  });

  test(`${name}: one refused element does not stop the others`, () => {
    const bad = entry('no_such_set', '10.9.9.9');
    const failures = element.add([member(3), bad, member(4)]);
    assert.deepEqual(
      failures.map(({ item, fault }) => [item.key, fault.code]),
      [['10.9.9.9', 'kernel']],
    );
    for (const item of [member(3), member(4)]) assert.ok(listed().has(element.key(item)));
  });

  test(`${name}: removing takes what is there and does not mind what is not`, () => {
    assert.deepEqual(element.remove([member(3), member(9), member(4), port(443, '10.0.0.2 . 8443')]), []);
    const keys = [...listed().keys()];
    for (const item of [member(3), member(4), port(443, '')]) assert.ok(!keys.includes(element.key(item)));
    assert.ok(keys.includes(element.key(member(1))));
  });

  test(`${name}: a changed table keeps the elements of the sets that stay`, () => {
    const smaller = causeway(members);
    assert.deepEqual(table.add([smaller]), []);
    assert.equal(isThere(smaller), true);
    holds([member(1), member(2), entry('ranges4', '10.1.0.0/16'), listed().get(element.key(entry('ranges4', '10.2.0.7'))) ?? member(0)]);
    assert.deepEqual(table.add([full]), []);
    assert.equal(element.list(netns).length, 4);
  });

  test(`${name}: a table that somebody changed is found different, and adding it repairs it with its elements`, () => {
    subject.tear('causeway');
    assert.equal(isThere(full), false);
    assert.deepEqual(table.add([full]), []);
    assert.equal(isThere(full), true);
    assert.equal(element.list(netns).length, 4);
  });

  test(`${name}: removing a table removes its elements`, () => {
    assert.deepEqual(table.remove(table.list(netns)), []);
    assert.deepEqual(table.list(netns), []);
    assert.deepEqual(element.list(netns), []);
  });
}
