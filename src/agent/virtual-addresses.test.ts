import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elected } from '#drivers/announce.ts';
import type { VirtualAddress } from '#drivers/virtual.ts';
import { generateKeyPair } from '#kernel/wireguard-keys.ts';
import { type Ip, parseIp } from '#model/ip.ts';
import { SealedTalk } from './sealed-talk.ts';
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

const keys = new Map(names.map((name) => [name as string, generateKeyPair()]));
let sessions = 0;
const talkOf = (name: string, privateKey = keys.get(name)?.privateKey ?? ''): SealedTalk =>
  new SealedTalk({
    host: () => name,
    privateKey,
    keyOf: (host) => keys.get(host)?.publicKey,
    newSession: () => `session${(sessions += 1)}`,
  });

interface Node {
  readonly virtual: VirtualAddresses;
  readonly talk: SealedTalk;
  isServing: boolean;
  isCut: boolean;
  /** What the wire was told anew. */
  anew: number;
}

/** Hosts that hear each other, and a clock that somebody turns. */
class Wire {
  readonly nodes = new Map<string, Node>();
  now = 0;
  /** Everything that was ever sent. */
  readonly sent: { readonly from: string; readonly to: Ip; readonly text: string }[] = [];

  start(name: string, held: readonly Ip[] = []): Node {
    const able = (): VirtualAddress[] => {
      const others = new Map(names.filter((one) => one !== name).map((one) => [one as string, addressOf(one)]));
      return node.isServing ? [{ ip, network: 'a', others }] : [];
    };
    const talk = talkOf(name);
    const node: Node = {
      talk,
      isServing: true,
      isCut: false,
      anew: 0,
      virtual: new VirtualAddresses({
        host: () => name,
        able,
        held: () => new Set(held),
        talk,
        listen: () => undefined,
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
    this.sent.push({ from, to, text });
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

/** The first host is dead, and the second has what it had. */
function bereaved(): Wire {
  const wire = together();
  wire.nodes.delete(first);
  wire.pass(silenceMs + turnMs);
  assert.deepEqual(wire.holders, [second]);
  return wire;
}

const strange: readonly (readonly [what: string, from: Ip, text: (wire: Wire) => string])[] = [
  ['a stranger', parseIp('10.20.0.77'), () => talkOf(first).seal(second, ip, 'session1') ?? ''],
  ['words without a seal', addressOf(first), () => `causeway.virtual.2 session1 9 session2 ${ip}`],
  ['the seal of who has another key', addressOf(first), (wire) => forged(wire, talkOf(first, generateKeyPair().privateKey))],
  ['the seal of another host', addressOf(first), (wire) => forged(wire, talkOf(third))],
  ['words to another host', addressOf(first), (wire) => said(wire, addressOf(third))],
  ['its own words', addressOf(first), (wire) => wire.sent.findLast(({ from }) => from === second)?.text ?? ''],
  ['what is no address', addressOf(first), (wire) => forged(wire, talkOf(first), 'nonsense')],
  ['too much', addressOf(first), (wire) => forged(wire, talkOf(first), Array.from({ length: 65 }, () => ip).join(' '))],
];
/** As the dead host would say it to the second, which tells its session in every datagram of its own. */
const forged = (wire: Wire, talk: SealedTalk, words: string = ip): string =>
  talk.seal(second, words, wire.sent.findLast(({ from }) => from === second)?.text.split(' ')[1]) ?? '';
const said = (wire: Wire, to: Ip): string => wire.sent.findLast((one) => one.from === first && one.to === to)?.text ?? '';

for (const [what, from, text] of strange) {
  test(`${what} changes nothing`, () => {
    const wire = bereaved();
    nodeOf(wire, second).virtual.heard(from, text(wire));
    assert.deepEqual(wire.holders, [second]);
  });
}

test('words of the right key and session do', () => {
  const wire = bereaved();
  nodeOf(wire, second).virtual.heard(addressOf(first), forged(wire, talkOf(first)));
  assert.deepEqual(wire.holders, []);
});

test('what a host has said counts once, also when it or the other one has started anew meanwhile', () => {
  const wire = together();
  // Another session of the same host, and then that one's end.
  wire.start(first);
  wire.pass(2 * turnMs);
  wire.nodes.delete(first);
  wire.pass(silenceMs + turnMs);
  const old = wire.sent.filter((one) => one.from === first && one.to === addressOf(second));
  assert.ok(old.length > 10);
  for (const { text } of old) nodeOf(wire, second).virtual.heard(addressOf(first), text);
  assert.deepEqual(wire.holders, [second]);
  wire.start(second, [ip]);
  wire.pass(silenceMs + turnMs);
  for (const { text } of old) nodeOf(wire, second).virtual.heard(addressOf(first), text);
  assert.deepEqual(wire.holders, [second]);
});

test('restarts without number leave nothing that could come again', () => {
  const receiver = talkOf(second);
  const letters: string[] = [];
  for (let round = 0; round < 200; round++) {
    const sender = talkOf(first);
    const hello = receiver.open(first, sender.seal(second, 'hello') ?? '');
    assert.ok(hello !== undefined && 'stale' in hello);
    const [, session] = receiver.seal(first, '', hello.stale)?.split(' ') ?? [];
    const letter = sender.seal(second, 'words', session) ?? '';
    assert.deepEqual(receiver.open(first, letter), { words: 'words' });
    letters.push(letter);
  }
  for (const letter of letters) assert.ok(!('words' in (receiver.open(first, letter) ?? {})));
});
