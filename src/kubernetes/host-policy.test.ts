// Host endpoints compiled and looked up say the same as Calico's documents read word for word.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { HostVerdicts } from '#model/host-verdicts.ts';
import { parseIp } from '#model/ip.ts';
import { type HostGuard, type Packet, type PolicyFacts, protocols, Verdicts } from '#model/policy.ts';
import { hostFacts } from './host-facts.fixture.ts';
import { type HostPacket, HostReference, type Outcome, podAddress } from './host-reference.fixture.ts';
import { hostPackets, hostWorlds } from './host-worlds.fixture.ts';

const packetOf = ({ source, destination, port }: HostPacket): Packet => ({
  source: parseIp(source),
  destination: parseIp(destination),
  protocol: protocols.udp,
  sourcePort: 40_000,
  destinationPort: port,
});

class Doors {
  readonly #verdicts: HostVerdicts;

  constructor(facts: PolicyFacts, host: HostGuard) {
    this.#verdicts = new HostVerdicts(facts, host, new Verdicts(facts));
  }

  outcome(packet: HostPacket): Outcome {
    const isPods = packet.source === podAddress || packet.destination === podAddress;
    return this.#verdicts.outcome({
      packet: packetOf(packet),
      asked: packetOf({ ...packet, ...packet.before }),
      entry: packet.in,
      exit: packet.out,
      isFor: packet.out === undefined && !isPods,
      isFrom: packet.in === undefined && !isPods,
    });
  }
}

test('thousands of random nodes and packets: the same outcome as the reference', () => {
  const seen: Record<Outcome, number> = { allow: 0, deny: 0, untracked: 0 };
  fc.assert(
    fc.property(hostWorlds, fc.array(hostPackets, { minLength: 10, maxLength: 20 }), (world, packets) => {
      const reference = new HostReference(world);
      const facts = hostFacts(world);
      const doors = facts?.host === undefined ? undefined : new Doors(facts, facts.host);
      for (const packet of packets) {
        const expected = reference.outcome(packet);
        seen[expected] += 1;
        assert.equal(doors?.outcome(packet) ?? 'allow', expected, JSON.stringify(packet));
      }
    }),
    { numRuns: 1500 },
  );
  assert.ok(seen.deny > 3000 && seen.allow > 3000 && seen.untracked > 100, JSON.stringify(seen));
});
