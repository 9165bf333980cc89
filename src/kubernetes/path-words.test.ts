// What a node says of its ways to others: what is lost for a while and not the other node's fault, by sort of packet, and who drops it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answersProbes, type HostPackets, type LostPath, type Paths } from '#model/paths.ts';
import { parseCidr } from '#model/ip.ts';
import { readCalicoNode } from './calico-facts.ts';
import { nodeOf } from './cloud-objects.fixture.ts';
import { readNode } from './nodes.ts';
import { pathsWord } from './path-words.ts';

const lostOf = (index: number, changes: Partial<LostPath> = {}): LostPath => ({
  host: `node${index}`,
  sort: 'tunnel',
  what: 'UDP port 8472',
  networks: ['pods'],
  seconds: 30,
  isAlone: false,
  ...changes,
});
const wordOf = (changes: Partial<Paths>, away: readonly string[] = [], here: Partial<HostPackets> = {}): string => {
  const paths = { tried: 9, passing: 0, lost: [], narrow: [], ...changes };
  const { isGood, reason, message } = pathsWord(paths, (host) => !away.includes(host), { dropped: [], crowded: [], ...here });
  return `${isGood} ${reason}: ${message}`;
};
const good = 'true PacketsPass: Packets of every sort reach each other node that was tried';

test('what is lost is said by sort, with the nodes and with who drops it, and is the same text while it is the same', () => {
  assert.equal(wordOf({}), good);
  const plain = (index: number): LostPath =>
    lostOf(index, { sort: 'plain', what: `A packet from 10.244.1.0/24 to 10.244.${index}.0/24 as it is` });
  const text = wordOf({ lost: [plain(3), lostOf(2), plain(2)] });
  assert.match(text, /^false PacketsLost: Packets of pods as they are do not reach nodes node2, node3\. The ports' allowed address pairs/);
  assert.match(
    text,
    /UDP port 8472 does not reach node node2\. A security group .* drops it, or no agent runs there\. In an OpenStack cloud/,
  );
  assert.equal(wordOf({ lost: [lostOf(2, { seconds: 99 }), plain(2), plain(3)] }), text);
  const own = wordOf({ lost: [lostOf(2)] }, [], { dropped: ["This node's own firewall drops it"] });
  assert.match(own, /^false PacketsDropped: This node's own firewall drops it\. UDP port 8472 does not reach node node2\. /);
  assert.equal(wordOf({}, [], { dropped: ['It drops that'] }), 'false PacketsDropped: It drops that');
  assert.equal(wordOf({}, [], { crowded: ['There is no room'] }), 'false ConnectionsFull: There is no room');
  assert.match(wordOf({ lost: [lostOf(2)] }, [], { crowded: ['There is no room'] }), /^false ConnectionsFull: There is no room\. UDP port/);
  const many = wordOf({ lost: Array.from({ length: 32 }, (_, index) => lostOf(10 + index)) });
  assert.match(many, /does not reach nodes node10, node11, node12, node13, node14 and 27 more\. /);
});

test('what is lost only now, or with a node that is not ready, is not held against the way', () => {
  assert.equal(wordOf({ lost: [lostOf(2, { seconds: 5 })] }), good);
  assert.equal(wordOf({ lost: [lostOf(2)] }, ['node2']), good);
  assert.match(wordOf({ lost: [lostOf(2), lostOf(3)] }, ['node2']), /does not reach node node3\. /);
});

test('where only large packets are lost the largest that passes is said', () => {
  const narrow = [2, 3].map((index) => ({ host: `node${index}`, mtu: 1350, usual: 1442 }));
  assert.match(
    wordOf({ narrow }),
    /^false LargePacketsLost: Packets of more than 1350 bytes do not reach nodes node2, node3, though this node's link takes 1442: /,
  );
  assert.match(wordOf({ narrow, lost: [lostOf(4)] }), /^false PacketsLost: UDP .*Packets of more than 1350 bytes/);
});

test('of a Node it is known whether it is ready, and whether its agent answers', () => {
  const podCidrs = [parseCidr('10.244.0.0/16')];
  for (const [ready, annotations, expected] of [
    ['True', { 'causeway.dev/probes': 'answered' }, [true, true]],
    ['Unknown', { 'causeway.dev/probes': 'answered' }, [false, true]],
    ['True', { 'flannel.alpha.coreos.com/kube-subnet-manager': 'true' }, [true, false]],
  ] as const) {
    const item = nodeOf(1, { ready, annotations });
    for (const host of [readNode(item, { podCidrs }).host, readCalicoNode(item)])
      assert.deepEqual([host?.status.ready, host?.status.features[answersProbes]], expected);
  }
});
