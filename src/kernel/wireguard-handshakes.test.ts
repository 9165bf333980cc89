import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Cidr } from '#model/ip.ts';
import { kernelFault } from './libc.ts';
import type { DeviceChange, FoundPeer, WireguardBackend } from './wireguard-config.ts';
import { Handshakes, lookAt, unseen, type Waiting } from './wireguard-handshakes.ts';

const [small, own, large] = ['A', 'M', 'z'] as const;
const device = { netns: '', link: 'cww1' };
const found = (publicKey: string, more: Partial<FoundPeer> = {}): FoundPeer => ({
  publicKey,
  endpoint: '192.0.2.2:51820',
  allowed: ['10.2.0.0/24' as Cidr],
  hasAgreed: false,
  received: 148,
  ...more,
});

/** In which rounds a peer that is told of so is made anew. */
function rounds(told: readonly FoundPeer[]): number[] {
  let waiting: ReadonlyMap<string, Waiting> = new Map(told.map(({ publicKey }) => [publicKey, unseen]));
  return told.flatMap((peer, index) => {
    const { left, anew } = lookAt(own, { number: index + 1, waiting }, [peer]);
    waiting = left;
    return anew.length > 0 ? [index + 1] : [];
  });
}
const often = (peer: FoundPeer, times = 6): FoundPeer[] => Array.from({ length: times }, () => peer);

test('of two that have refused each other’s answer both make the other anew, by turns', () => {
  assert.deepEqual(rounds(often(found(large))), [2, 4, 6]);
  assert.deepEqual(rounds(often(found(small))), [3, 5]);
});

test('one that nothing was heard of is made anew later, and less often', () => {
  assert.deepEqual(rounds(often(found(large, { received: 0 }), 12)), [4, 8, 12]);
  assert.deepEqual(rounds(often(found(small, { received: 0 }), 12)), [3, 7, 11]);
});

test('nobody is made anew who works, whose handshake is on its way, or who was there before', () => {
  assert.deepEqual(rounds(often(found(large, { hasAgreed: true }))), []);
  assert.deepEqual(rounds([148, 296, 444].map((received) => found(large, { received }))), [], 'messages come');
  assert.deepEqual(
    rounds([found(large), found(large, { hasAgreed: true }), ...often(found(large))]),
    [],
    'once it has agreed it is let be',
  );
  assert.deepEqual(lookAt(own, { number: 2, waiting: new Map() }, [found(large)]), { left: new Map(), anew: [] });
});

test('while many agree the others only have to wait', () => {
  const many = Array.from({ length: 20 }, (_, index) => found(`x${index}`, { hasAgreed: true }));
  const waiting = new Map([large, ...many.map(({ publicKey }) => publicKey)].map((key) => [key, { received: 148, rounds: 5 }]));
  assert.deepEqual(lookAt(own, { number: 2, waiting }, [found(large), ...many]).anew, []);
  assert.deepEqual(lookAt(own, { number: 2, waiting }, [found(large), ...many.slice(0, 2)]).anew, [found(large)]);
});

/** A device in memory, with a clock that goes from one appointment to the next. */
function bench(peers: FoundPeer[]) {
  const appointments: (() => void)[] = [];
  const written: DeviceChange[] = [];
  const pauses: number[] = [];
  const state = { names: ['cww1'], refuses: false, reads: 0 };
  const backend: WireguardBackend = {
    devices: { list: () => [], add: () => undefined, remove: () => undefined },
    names: () => state.names,
    read() {
      state.reads += 1;
      if (state.refuses) throw kernelFault('read', 'ECONNREFUSED');
      return { publicKey: own, port: 7, peers };
    },
    write: (_netns, _link, change) => void written.push(change),
  };
  const handshakes = new Handshakes({
    backend,
    publicKey: own,
    after(ms, fn) {
      pauses.push(ms);
      appointments.push(fn);
      return () => void appointments.splice(appointments.indexOf(fn), 1);
    },
  });
  const run = (): void => {
    for (let next = appointments.shift(); next !== undefined; next = appointments.shift()) next();
  };
  return { handshakes, appointments, pauses, written, state, run };
}

test('a peer is made anew by one change that leaves the others alone', () => {
  const { handshakes, written, run } = bench([found(large), found(small, { hasAgreed: true })]);
  handshakes.begun(device, [large, small]);
  run();
  assert.deepEqual(written[0], { set: [found(large)], remove: [large] });
});

test('looks come to an end, ever more seldom, and as soon as all have agreed', () => {
  const away = bench([found(large, { received: 0 })]);
  away.handshakes.begun(device, [large]);
  away.run();
  assert.deepEqual([away.state.reads, away.written.length], [19, 4]);
  const total = away.pauses.reduce((sum, ms) => sum + ms, 0);
  assert.ok(total < 5000 && total > 4500, 'until WireGuard itself begins again');
  assert.deepEqual(
    away.pauses.toSorted((a, b) => a - b),
    away.pauses,
  );
  const well = bench([found(large, { hasAgreed: true })]);
  well.handshakes.begun(device, [large]);
  well.run();
  assert.equal(well.state.reads, 1);
  const none = bench([]);
  none.handshakes.begun(device, []);
  assert.deepEqual(none.pauses, []);
});

test('a device that is gone is let be, one that cannot be read for now is looked at again, and nothing is after the end', () => {
  const gone = bench([found(large)]);
  gone.handshakes.begun(device, [large]);
  gone.state.names = [];
  gone.run();
  assert.deepEqual([gone.state.reads, gone.written], [0, []]);
  const busy = bench([found(large)]);
  busy.handshakes.begun(device, [large]);
  busy.state.refuses = true;
  busy.run();
  assert.deepEqual([busy.state.reads, busy.written], [19, []]);
  const ended = bench([found(large)]);
  ended.handshakes.begun(device, [large]);
  ended.handshakes[Symbol.dispose]();
  assert.deepEqual(ended.appointments, []);
});
