// What the policies of a host's own links say of a packet: the doors that it passes, one after the other, as drivers/host-policy.ts
// has them in the kernel. Pure.
import { contains, familyOf, type Ip } from './ip.ts';
import {
  type Direction,
  type GuardedLink,
  type HostGuard,
  type HostStage,
  keysAt,
  type Packet,
  type PolicyFacts,
  type Verdicts,
} from './policy.ts';

/** `untracked`: it passes, and no connection is made of it. */
export type HostOutcome = 'allow' | 'deny' | 'untracked';

export interface HostPassage {
  readonly packet: Packet;
  /** As it was sent, before it was translated. */
  readonly asked: Packet;
  /** By which of the host's own links it comes and leaves, where it does; links of containers are none of them. */
  readonly entry?: string | undefined;
  readonly exit?: string | undefined;
  /** Whether it is for a process of the host, or from one. */
  readonly isFor?: boolean;
  readonly isFrom?: boolean;
}

export class HostVerdicts {
  readonly #facts: PolicyFacts;
  readonly #host: HostGuard;
  readonly #verdicts: Verdicts;

  constructor(facts: PolicyFacts, host: HostGuard, verdicts: Verdicts) {
    this.#facts = facts;
    this.#host = host;
    this.#verdicts = verdicts;
  }

  outcome({ packet, asked, entry: comesBy, exit: leavesBy, isFor = false, isFrom = false }: HostPassage): HostOutcome {
    const [entry, exit] = [this.#guardOf(comesBy), this.#guardOf(leavesBy)];
    const early = entry === undefined ? undefined : this.#arriving(asked, entry);
    if (early !== undefined) return early;
    if (isFor) return entry === undefined ? 'allow' : this.#entering(packet, entry);
    if (isFrom) return exit === undefined ? 'allow' : this.#leaving(packet, exit);
    const through = [
      entry && this.#decision(packet, entry, ['ingress', 'forwarded']),
      exit && this.#decision(packet, exit, ['egress', 'forwarded']),
    ];
    return through.includes('deny') ? 'deny' : 'allow';
  }

  #arriving(packet: Packet, link: GuardedLink): HostOutcome | undefined {
    if (this.#isFailsafe('in', packet.source, packet)) return undefined;
    return this.#untracked(packet, link, 'ingress') ?? this.#decision(packet, link, ['ingress', 'untranslated']);
  }

  #entering(packet: Packet, link: GuardedLink): HostOutcome {
    if (this.#isFailsafe('in', packet.source, packet)) return 'allow';
    return this.#decision(packet, link, ['ingress', 'local']) ?? link.otherwise;
  }

  #leaving(packet: Packet, link: GuardedLink): HostOutcome {
    if (this.#isFailsafe('out', packet.destination, packet)) return 'allow';
    return this.#untracked(packet, link, 'egress') ?? this.#decision(packet, link, ['egress', 'local']) ?? link.otherwise;
  }

  #untracked(packet: Packet, link: GuardedLink, direction: Direction): HostOutcome | undefined {
    const decision = link.link === undefined ? undefined : this.#decision(packet, link, [direction, 'untracked']);
    return decision === 'allow' ? 'untracked' : decision;
  }

  #guardOf(link: string | undefined): GuardedLink | undefined {
    if (link === undefined) return undefined;
    const named = this.#host.links.find((one) => one.link === link);
    return named ?? (this.#host.spared.includes(link) ? undefined : this.#host.links.find((one) => one.link === undefined));
  }

  #isFailsafe(direction: 'in' | 'out', peer: Ip, { protocol, destinationPort }: Packet): boolean {
    return this.#host.failsafes.some(
      (one) =>
        one.direction === direction &&
        one.protocol === protocol &&
        one.port === destinationPort &&
        familyOf(one.cidr) === familyOf(peer) &&
        contains(one.cidr, peer),
    );
  }

  #decision(packet: Packet, { policies }: GuardedLink, [direction, stage]: readonly [Direction, HostStage]): 'allow' | 'deny' | undefined {
    const keys = keysAt(this.#facts, policies, stage).filter((key) => this.#facts.policies.get(key)?.[direction] !== undefined);
    return this.#verdicts.decision(packet, { keys, direction, stage });
  }
}
