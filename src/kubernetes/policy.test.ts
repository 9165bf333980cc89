// Policies compiled and looked up in sets say the same as the API's documents read word for word.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { parseIp } from '#model/ip.ts';
import { protocols, Verdicts } from '#model/policy.ts';
import { indexOf, localOf } from './policy-cluster.fixture.ts';
import { Reference, type WorldPacket } from './policy-reference.fixture.ts';
import { packets, worlds } from './policy-worlds.fixture.ts';

const numbers: Readonly<Record<string, number>> = { TCP: protocols.tcp, UDP: protocols.udp, SCTP: protocols.sctp, ICMP: protocols.icmp };
const packetOf = ({ source, destination, protocol, port }: WorldPacket) => ({
  source: parseIp(source),
  destination: parseIp(destination),
  protocol: numbers[protocol] ?? 0,
  sourcePort: 40_000,
  destinationPort: port,
});

test('thousands of random clusters and packets: the same verdict as the reference', () => {
  let denied = 0;
  let asked = 0;
  fc.assert(
    fc.property(worlds(8), fc.array(packets(8), { minLength: 10, maxLength: 20 }), (world, some) => {
      const reference = new Reference(world);
      const facts = indexOf(world).facts(localOf(world));
      const verdicts = facts === undefined ? undefined : new Verdicts(facts);
      for (const packet of some) {
        const expected = reference.allows(packet);
        asked += 1;
        if (!expected) denied += 1;
        assert.equal(verdicts?.allows(packetOf(packet)) ?? true, expected, JSON.stringify(packet));
      }
    }),
    { numRuns: 1500 },
  );
  // Neither answer is rare, or little was tested.
  assert.ok(denied > asked / 10 && denied < (asked * 9) / 10, `${denied} of ${asked} denied`);
});

test('what comes and goes piece by piece leaves what all at once does', () => {
  fc.assert(
    fc.property(worlds(6), worlds(6), (before, after) => {
      const index = indexOf(before);
      index.facts(localOf(before));
      for (const key of index.policies.keys()) index.deletePolicy(key);
      for (const { owner } of localOf(before)) if (!localOf(after).some((one) => one.owner === owner)) index.deletePod(owner);
      const changed = indexOf(after, index);
      changed.facts(localOf(before));
      const [left, whole] = [changed.facts(localOf(after)), indexOf(after).facts(localOf(after))];
      assert.deepEqual(left, whole);
    }),
    { numRuns: 150 },
  );
});
