// Host endpoints compiled and looked up say the same as Calico's documents read word for word.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { contains, familyOf, parseIp } from '#model/ip.ts';
import {
  type GuardedLink,
  type HostGuard,
  type HostStage,
  keysAt,
  type Packet,
  type PolicyFacts,
  protocols,
  Verdicts,
} from '#model/policy.ts';
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

/** The doors that a packet passes, one after the other, as the kernel has them. */
class Doors {
  readonly #facts: PolicyFacts;
  readonly #host: HostGuard;
  readonly #verdicts: Verdicts;

  constructor(facts: PolicyFacts, host: HostGuard) {
    this.#facts = facts;
    this.#host = host;
    this.#verdicts = new Verdicts(facts);
  }

  outcome(packet: HostPacket): Outcome {
    const [entry, exit] = [this.#guardOf(packet.in), this.#guardOf(packet.out)];
    const early = entry === undefined ? undefined : this.#arriving(packetOf({ ...packet, ...packet.before }), entry);
    if (early !== undefined) return early;
    const isPods = packet.source === podAddress || packet.destination === podAddress;
    const own = packetOf(packet);
    if (packet.out === undefined && !isPods) return entry === undefined ? 'allow' : this.#entering(own, entry);
    if (packet.in === undefined && !isPods) return exit === undefined ? 'allow' : this.#leaving(own, exit);
    const through = [
      entry && this.#decision(own, entry, ['ingress', 'forwarded']),
      exit && this.#decision(own, exit, ['egress', 'forwarded']),
    ];
    return through.includes('deny') ? 'deny' : 'allow';
  }

  #arriving(packet: Packet, link: GuardedLink): Outcome | undefined {
    if (this.#isFailsafe('in', packet.source, packet)) return undefined;
    return this.#untracked(packet, link, 'ingress') ?? this.#decision(packet, link, ['ingress', 'untranslated']);
  }

  #entering(packet: Packet, link: GuardedLink): Outcome {
    if (this.#isFailsafe('in', packet.source, packet)) return 'allow';
    return this.#decision(packet, link, ['ingress', 'local']) ?? link.otherwise;
  }

  #leaving(packet: Packet, link: GuardedLink): Outcome {
    if (this.#isFailsafe('out', packet.destination, packet)) return 'allow';
    return this.#untracked(packet, link, 'egress') ?? this.#decision(packet, link, ['egress', 'local']) ?? link.otherwise;
  }

  #untracked(packet: Packet, link: GuardedLink, direction: 'ingress' | 'egress'): Outcome | undefined {
    const decision = link.link === undefined ? undefined : this.#decision(packet, link, [direction, 'untracked']);
    return decision === 'allow' ? 'untracked' : decision;
  }

  #guardOf(link: string | undefined): GuardedLink | undefined {
    if (link === undefined) return undefined;
    return this.#host.links.find((one) => one.link === link) ?? this.#host.links.find((one) => one.link === undefined);
  }

  #isFailsafe(direction: 'in' | 'out', peer: Packet['source'], { protocol, destinationPort }: Packet): boolean {
    return this.#host.failsafes.some(
      (one) =>
        one.direction === direction &&
        one.protocol === protocol &&
        one.port === destinationPort &&
        familyOf(one.cidr) === familyOf(peer) &&
        contains(one.cidr, peer),
    );
  }

  #decision(
    packet: Packet,
    { policies }: GuardedLink,
    [direction, stage]: readonly ['ingress' | 'egress', HostStage],
  ): 'allow' | 'deny' | undefined {
    const keys = keysAt(this.#facts, policies, stage).filter((key) => this.#facts.policies.get(key)?.[direction] !== undefined);
    return this.#verdicts.decision(packet, { keys, direction, stage });
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
