// Two hosts that learn of each other at the same moment, while both have packets to send: both have begun a handshake before either has
// heard of the other's. That is brought about by neighbours who do not answer: what WireGuard sends waits in the kernel until the test
// tells where the neighbour is. Answers come later than first messages, by a wire that lets one packet through and then no other for a while.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { mustBeIsolated } from '#test/isolated.ts';
import { emptyDesired } from '#model/desired.ts';
import { type Cidr, parseIp } from '#model/ip.ts';
import { inNetns } from '#kernel/netns.ts';
import { pause, waitFor } from '#kernel/wait.ts';
import { openWireguard, probeWireguard } from '#kernel/wireguard.ts';
import type { FoundPeer } from '#kernel/wireguard-config.ts';
import { generateKeyPair, type KeyPair } from '#kernel/wireguard-keys.ts';
import { addPeer, makeTunnel, wireguardPort } from './flannel.fixture.ts';
import { eventually, type NetnsHost, type Place, Wire } from './namespaces.fixture.ts';
import { streamFrom } from './stream.fixture.ts';

mustBeIsolated();

const options = { skip: probeWireguard() === 'none' ? 'neither WireGuard in this kernel nor wireguard-go' : false };
/** After which WireGuard itself begins again (REKEY_TIMEOUT). */
const repetitionMs = 5000;
const port = 51_821;
const device = 'cww1';
const addressOf = (index: number): string => `10.213.0.${index}`;
const insideOf = (index: number): string => `10.244.${index}.0`;
const rangeOf = (index: number): string => `10.244.${index}.0/24`;

/** Two pairs, in the order by which hosts decide. */
const pairs = (): [KeyPair, KeyPair] => {
  const [one, two] = [generateKeyPair(), generateKeyPair()];
  return one.publicKey < two.publicKey ? [one, two] : [two, one];
};

/** A host whose neighbours get no answer from it. */
class Ours {
  readonly host: NetnsHost;
  readonly index: number;
  readonly #read: () => readonly FoundPeer[];

  constructor(wire: Wire, index: number, keys: KeyPair) {
    this.index = index;
    this.host = wire.host(`node${index}`, [`${addressOf(index)}/16`], keys);
    const backend = openWireguard(this.host.kinds.sockets, { directory: join(wire.folder, `node${index}-netns-wireguard`) });
    this.#read = () => inNetns(this.host.path, () => backend?.read('', device).peers ?? []);
    this.apply();
  }

  /** With that peer, or none. */
  apply(peer?: { readonly index: number; readonly port: number; readonly publicKey: string }): void {
    const link = { type: 'wireguard', netns: '', name: device, mtu: 1376, alias: 'causeway test' } as const;
    const peers = (peer === undefined ? [] : [peer]).map((one) => ({
      publicKey: one.publicKey,
      endpoint: { ip: parseIp(addressOf(one.index)), port: one.port },
      allowed: [rangeOf(one.index) as Cidr],
    }));
    this.host.apply({ ...emptyDesired, link: [link], wireguard: [{ netns: '', link: device, port, peers }] });
    if (peer !== undefined) return;
    this.host.ip('addr', 'add', `${insideOf(this.index)}/32`, 'dev', device);
    this.host.ip('route', 'add', '10.244.0.0/16', 'dev', device);
  }

  get peer(): FoundPeer | undefined {
    return this.#read()[0];
  }
}

interface End {
  readonly host: Place;
  readonly index: number;
}

/** A first message has 190 bytes on the wire, and its answer 134, for which this has to wait. */
const slowly = ['rate', '8kbit', 'burst', '256', 'limit', '3000'];
const answerMs = 300;

/**
 * Both begin, when they are told of each other, and each hears of the other's first message when its own is on the way. Nothing else runs
 * in this process meanwhile.
 */
function collide(ends: readonly [End, End], tell: readonly (() => void)[]): void {
  for (const { host } of ends) {
    host.run('sysctl', '-qw', 'net.ipv4.conf.eth0.arp_ignore=8', 'net.ipv4.neigh.eth0.mcast_solicit=60');
    host.run('tc', 'qdisc', 'add', 'dev', 'eth0', 'root', 'tbf', ...slowly);
  }
  for (const begin of tell) begin();
  const [one, two] = ends;
  for (const [from, to] of [
    [one, two],
    [two, one],
  ] as const) {
    const sent = (): boolean => from.host.run('ip', 'neigh', 'show', addressOf(to.index)).includes('INCOMPLETE');
    assert.ok(waitFor(sent, 4000), 'it has begun');
  }
  for (const [from, to] of [
    [one, two],
    [two, one],
  ] as const) {
    const [mac = ''] = /(?<=ether )[0-9a-f:]+/.exec(to.host.run('ip', 'link', 'show', 'eth0')) ?? [];
    from.host.ip('neigh', 'replace', addressOf(to.index), 'lladdr', mac, 'dev', 'eth0', 'nud', 'permanent');
  }
  pause(answerMs);
  for (const { host } of ends) host.run('tc', 'qdisc', 'del', 'dev', 'eth0', 'root');
}

const received = (hosts: readonly Ours[]): number[] => hosts.map(({ peer }) => peer?.received ?? 0);
const isStuck = ({ peer }: Ours): boolean => peer?.hasAgreed === false && peer.received > 0;

test('two hosts whose handshakes meet agree before WireGuard begins again by itself', options, async (t) => {
  using wire = new Wire();
  const keys = pairs();
  const [one, two] = [new Ours(wire, 1, keys[0]), new Ours(wire, 2, keys[1])];
  const streams = [streamFrom(one.host, insideOf(2)), streamFrom(two.host, insideOf(1))];
  for (const { stop } of streams) t.after(stop);
  const began = performance.now();
  collide(
    [one, two],
    [() => one.apply({ index: 2, port, publicKey: keys[1].publicKey }), () => two.apply({ index: 1, port, publicKey: keys[0].publicKey })],
  );
  assert.ok(waitFor(() => isStuck(one) && isStuck(two), 3000));
  await eventually(() => one.peer?.hasAgreed === true && two.peer?.hasAgreed === true, 'they have agreed');
  const took = performance.now() - began;
  t.diagnostic(`${Math.round(took)} ms`);
  assert.ok(took < repetitionMs, `after ${took} ms`);
  // One that works is let be until all looks are over: what was received would be counted anew.
  for (let [before, end] = [received([one, two]), performance.now() + repetitionMs]; performance.now() < end; await setTimeout(20)) {
    const now = received([one, two]);
    assert.ok(now.every((bytes, index) => bytes >= (before[index] ?? 0)));
    before = now;
  }
  t.diagnostic(JSON.stringify(await Promise.all(streams.map(({ stop }) => stop()))));
  assert.ok(one.host.ping(insideOf(2)) && two.host.ping(insideOf(1)));
});

for (const times of [1, 2]) {
  test(
    `first messages that were lost ${times === 1 ? 'once' : 'twice'} are said again before WireGuard does so by itself`,
    options,
    async (t) => {
      using wire = new Wire();
      const keys = pairs();
      const hosts = [new Ours(wire, 1, keys[0]), new Ours(wire, 2, keys[1])] as const;
      for (const { host } of hosts) {
        host.run('nft', 'add table inet lossy; add chain inet lossy input { type filter hook input priority 0; }');
        // A first message has 148 bytes, in UDP.
        host.run('nft', 'add rule inet lossy input udp length 156 counter drop');
      }
      const began = performance.now();
      for (const [index, one] of hosts.entries()) one.apply({ index: 2 - index, port, publicKey: keys[1 - index]?.publicKey ?? '' });
      await eventually(() => hosts.every(({ host }) => host.count('input', 'lossy') >= times), 'they are lost', 4000);
      for (const { host } of hosts) host.run('nft', 'delete', 'table', 'inet', 'lossy');
      assert.deepEqual(received(hosts), [0, 0]);
      await eventually(() => hosts.every(({ peer }) => peer?.hasAgreed === true), 'they have agreed');
      const took = performance.now() - began;
      t.diagnostic(`${Math.round(took)} ms`);
      assert.ok(took < repetitionMs, `after ${took} ms`);
      assert.ok(hosts[0].host.ping(insideOf(2)) && hosts[1].host.ping(insideOf(1)));
    },
  );
}

for (const [index, order] of (['first', 'second'] as const).entries()) {
  test(`a host of others that looks at nothing is agreed with too, whose key is the ${order} of the two`, options, async (t) => {
    using wire = new Wire();
    const keys = pairs();
    const [theirs, mine] = index === 0 ? keys : [keys[1], keys[0]];
    const ours = new Ours(wire, 1, mine);
    const flannel = wire.place('flannel', [`${addressOf(2)}/16`]);
    const numbers = { ip: addressOf(2), subnet: rangeOf(2), base: insideOf(2), bridge: '', pod: '', mac: '' };
    await makeTunnel(t, wire, { ...numbers, host: flannel, backend: 'wireguard', keys: theirs, wireguard: 'flannel-wg2' });
    const began = performance.now();
    collide(
      [ours, { host: flannel, index: 2 }],
      [
        () => ours.apply({ index: 2, port: wireguardPort, publicKey: theirs.publicKey }),
        () => {
          const data = { PublicKey: mine.publicKey, Port: port };
          addPeer(flannel, 'wireguard', { subnet: rangeOf(1), publicIp: addressOf(1), data }, 'flannel-wg2');
          flannel.try('ping', '-c', '1', '-W', '0.1', insideOf(1));
        },
      ],
    );
    assert.ok(waitFor(() => isStuck(ours), 3000));
    await eventually(() => ours.peer?.hasAgreed === true, 'they have agreed');
    const took = performance.now() - began;
    t.diagnostic(`${Math.round(took)} ms`);
    assert.ok(took < repetitionMs, `after ${took} ms`);
    assert.ok(ours.host.ping(insideOf(2)) && flannel.ping(insideOf(1)));
  });
}
