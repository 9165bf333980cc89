// Policies compiled and looked up in sets say the same as the API's documents read word for word.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { parseIp } from '#model/ip.ts';
import { type Packet, protocols, Verdicts } from '#model/policy.ts';
import { calicoPackets, calicoWorlds } from './calico-worlds.fixture.ts';
import { indexOf, localOf } from './policy-cluster.fixture.ts';
import { Reference } from './policy-reference.fixture.ts';
import type { World, WorldPacket } from './policy-world.fixture.ts';
import { packets, worlds } from './policy-worlds.fixture.ts';

const numbers: Readonly<Record<string, number>> = {
  TCP: protocols.tcp,
  UDP: protocols.udp,
  SCTP: protocols.sctp,
  ICMP: protocols.icmp,
  ICMPv6: protocols.icmp6,
};
const packetOf = ({ source, destination, protocol, port, icmp }: WorldPacket): Packet => ({
  ...(icmp === undefined ? {} : { icmp }),
  source: parseIp(source),
  destination: parseIp(destination),
  protocol: numbers[protocol] ?? 0,
  sourcePort: 40_000,
  destinationPort: port,
});

function compare(some: fc.Arbitrary<World>, packet: fc.Arbitrary<WorldPacket>, numRuns: number): void {
  let denied = 0;
  let asked = 0;
  fc.assert(
    fc.property(some, fc.array(packet, { minLength: 10, maxLength: 20 }), (world, all) => {
      const reference = new Reference(world);
      const facts = indexOf(world).facts(localOf(world));
      const verdicts = facts === undefined ? undefined : new Verdicts(facts);
      for (const one of all) {
        const expected = reference.allows(one);
        asked += 1;
        if (!expected) denied += 1;
        assert.equal(verdicts?.allows(packetOf(one)) ?? true, expected, JSON.stringify(one));
      }
    }),
    { numRuns },
  );
  // Neither answer is rare, or little was tested.
  assert.ok(denied > asked / 10 && denied < (asked * 9) / 10, `${denied} of ${asked} denied`);
}

test('thousands of random clusters and packets: the same verdict as the reference', () => {
  compare(worlds(8), packets(8), 1500);
});

test('thousands of random clusters with Calico’s policies, and packets: the same verdict as the reference', () => {
  compare(calicoWorlds(8), calicoPackets(8), 2000);
});

test('what comes and goes piece by piece leaves what all at once does', () => {
  fc.assert(
    fc.property(calicoWorlds(6), calicoWorlds(6), (before, after) => {
      const index = indexOf(before);
      index.facts(localOf(before));
      for (const key of index.policies.keys()) index.deletePolicy(key);
      for (const { owner } of localOf(before)) if (!localOf(after).some((one) => one.owner === owner)) index.deletePod(owner);
      for (const number of before.calico?.sets.keys() ?? []) if (number % 2 === 0) index.deleteNetworkSet(`${number}`);
      for (const { namespace, name } of before.calico?.services ?? []) index.deleteSlice(`${namespace}/${name}-1`);
      for (const { metadata } of before.calico?.tiers ?? []) index.deleteTier(metadata.name);
      for (const { namespace, name } of before.calico?.accounts ?? []) index.deleteAccount(`${namespace}/${name}`);
      const changed = indexOf(after, index);
      changed.facts(localOf(before));
      for (const number of before.calico?.sets.keys() ?? [])
        if (number >= (after.calico?.sets.length ?? 0)) changed.deleteNetworkSet(`${number}`);
      const [left, whole] = [changed.facts(localOf(after)), indexOf(after).facts(localOf(after))];
      assert.deepEqual(left, whole);
    }),
    { numRuns: 150 },
  );
});

test('pods change one by one: what they are to this host is followed, and for the others nothing is gathered again', () => {
  let kept = 0;
  fc.assert(
    fc.property(calicoWorlds(8), calicoWorlds(8), (world, other) => {
      const own = (all: World): ReturnType<typeof localOf> => localOf({ ...all, pods: world.pods.slice(0, 3) });
      const index = indexOf(world);
      index.facts(own(world));
      const pods = new Map(world.pods.map((pod) => [`${pod.namespace}/${pod.name}`, pod]));
      for (const pod of other.pods) {
        pods.set(`${pod.namespace}/${pod.name}`, pod);
        indexOf({ namespaces: [], pods: [pod], policies: [], clusterPolicies: [] }, index);
        if (!index.isChanged) kept += 1;
        const fresh = indexOf({ ...world, pods: [...pods.values()] }).facts(own(world));
        assert.deepEqual(index.facts(own(world)), fresh);
      }
      for (const [key] of [...pods].filter((_, number) => number % 2 === 0)) {
        pods.delete(key);
        index.deletePod(key);
        assert.deepEqual(index.facts(own(world)), indexOf({ ...world, pods: [...pods.values()] }).facts(own(world)));
      }
    }),
    { numRuns: 40 },
  );
  assert.ok(kept > 25, `${kept} changes that were nothing to the host`);
});
