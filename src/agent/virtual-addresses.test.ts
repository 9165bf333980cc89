import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elected } from '#drivers/announce.ts';
import type { VirtualAddress } from '#drivers/virtual.ts';
import { type Ip, parseIp } from '#model/ip.ts';
import { silenceMs, turnMs, VirtualAddresses } from './virtual-addresses.ts';

const names = ['host-1', 'host-2', 'host-3'] as const;
const addressOf = (name: string): Ip => parseIp(`10.20.0.${name.slice(-1)}`);
const ip = parseIp('10.20.0.99');
/** In the order in which they would have it. */
const order = ((): string[] => {
  const first = elected(ip, names) ?? '';
  const second =
    elected(
      ip,
      names.filter((name) => name !== first),
    ) ?? '';
  return [first, second, ...names.filter((name) => name !== first && name !== second)];
})();
const [first = '', second = '', third = ''] = order;

interface Node {
  readonly virtual: VirtualAddresses;
  isServing: boolean;
  isCut: boolean;
  /** What the wire was told anew. */
  anew: number;
}

/** Hosts that hear each other, and a clock that somebody turns. */
class Wire {
  readonly nodes = new Map<string, Node>();
  now = 0;

  start(name: string, held: readonly Ip[] = []): Node {
    const able = (): VirtualAddress[] => {
      const others = new Map(names.filter((one) => one !== name).map((one) => [one as string, addressOf(one)]));
      return node.isServing ? [{ ip, others }] : [];
    };
    const node: Node = {
      isServing: true,
      isCut: false,
      anew: 0,
      virtual: new VirtualAddresses({
        host: () => name,
        able,
        held: () => new Set(held),
        send: (to, text) => this.#deliver(name, to, text),
        changed: () => undefined,
        anew: () => node.anew++,
        now: () => this.now,
        log: () => undefined,
      }),
    };
    this.nodes.set(name, node);
    return node;
  }

  #deliver(from: string, to: Ip, text: string): void {
    const target = names.find((name) => addressOf(name) === to) ?? '';
    const [sender, receiver] = [this.nodes.get(from), this.nodes.get(target)];
    if (sender?.isCut === false && receiver?.isCut === false) receiver.virtual.heard(addressOf(from), text);
  }

  pass(ms: number): void {
    for (const end = this.now + ms; this.now < end; this.now += turnMs) for (const { virtual } of this.nodes.values()) virtual.turn();
  }

  get holders(): string[] {
    return [...this.nodes].filter(([, { virtual }]) => virtual.carried().size > 0).map(([name]) => name);
  }
}

function together(): Wire {
  const wire = new Wire();
  for (const name of names) wire.start(name);
  wire.pass(silenceMs + turnMs);
  return wire;
}
const nodeOf = (wire: Wire, name: string): Node => wire.nodes.get(name) ?? assert.fail(name);

test('one host has it, the same whatever the order in which they start, and no two of them meanwhile', () => {
  for (const started of [names, names.toReversed()]) {
    const wire = new Wire();
    for (const name of started) {
      wire.start(name);
      wire.pass(turnMs);
      assert.ok(wire.holders.length <= 1, wire.holders.join());
    }
    assert.deepEqual(wire.holders, [first]);
  }
});

test('when that host is silent the next one has it, after three seconds and not before', () => {
  const wire = together();
  wire.nodes.delete(first);
  wire.pass(silenceMs - 2 * turnMs);
  assert.deepEqual(wire.holders, []);
  wire.pass(2 * turnMs);
  assert.deepEqual(wire.holders, [second]);
  wire.nodes.delete(second);
  wire.pass(silenceMs + turnMs);
  assert.deepEqual(wire.holders, [third]);
});

test('when its container has gone from there the next one has it at once', () => {
  const wire = together();
  nodeOf(wire, first).isServing = false;
  nodeOf(wire, first).virtual.touch();
  assert.deepEqual(wire.holders, [second]);
});

test('a host that comes back has it again, and tells the wire, also when it has never let go', () => {
  const wire = together();
  nodeOf(wire, first).isCut = true;
  wire.pass(silenceMs + turnMs);
  assert.deepEqual(wire.holders.toSorted(), [first, second].toSorted(), 'they cannot hear each other');
  const before = nodeOf(wire, first).anew;
  nodeOf(wire, first).isCut = false;
  wire.pass(turnMs);
  assert.deepEqual(wire.holders, [first]);
  assert.ok(nodeOf(wire, first).anew > before);
});

test('an agent that starts anew goes on with what its kernel has', () => {
  const wire = together();
  wire.nodes.delete(first);
  wire.pass(silenceMs + turnMs);
  const again = wire.start(second, [ip]);
  assert.equal(again.virtual.carried().size, 1, 'before it has heard anybody');
  wire.pass(silenceMs + turnMs);
  assert.deepEqual(wire.holders, [second]);
});

const strange: readonly (readonly [string, Ip, string])[] = [
  ['a stranger', parseIp('10.20.0.77'), `causeway.virtual.1 ${ip}`],
  ['another sort of words', addressOf(first), `hello ${ip}`],
  ['what is no address', addressOf(first), 'causeway.virtual.1 nonsense'],
  ['too much', addressOf(first), ['causeway.virtual.1', ...Array.from({ length: 65 }, () => ip)].join(' ')],
];
for (const [what, from, text] of strange) {
  test(`${what} changes nothing`, () => {
    const wire = together();
    wire.nodes.delete(first);
    wire.pass(silenceMs + turnMs);
    nodeOf(wire, second).virtual.heard(from, text);
    assert.deepEqual(wire.holders, [second]);
  });
}
