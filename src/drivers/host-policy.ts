// Policy at the host's own links (Calico: "Host endpoints", "Summary"): the link leads by a verdict map to the chain of its
// combination of policies, as an endpoint's address does. Four stages: packets that are not tracked and packets before they
// are translated are looked at where they come in; what is for the host's own processes at their doors; and what is only
// forwarded on its way. Processes' own packets are looked at behind the translation of services, as only there it is known
// by which link they leave (nft_chain_nat routes again, and the hook goes on with the old link). Whoever is let through
// early is marked. What must never be cut off comes first at every door: loopback, containers of this host, neighbour
// discovery (RFC 4861), what carries the networks and leads the agent, failsafe ports, and every connection that stands.
import type { NftElement } from '#model/desired.ts';
import { covers, type Family, familyOf } from '#model/ip.ts';
import { allowedMark } from '#model/numbers.ts';
import {
  type Direction,
  type Failsafe,
  type GuardedLink,
  type HostGuard,
  type HostStage,
  keysAt,
  type PolicyFacts,
} from '#model/policy.ts';
import type { PolicyChains } from './policy-chains.ts';
import { noBeginning, policyElement } from './policy-rules.ts';

/** As nft writes them, `udp . 8472`. */
export type Carriers = readonly string[];

export interface HostPolicy {
  readonly sets: string;
  /** Chains of the kernel's hooks, and those that all of them share. */
  readonly hooks: string;
  readonly elements: readonly NftElement[];
}

/** One place where packets are looked at. */
interface Door {
  /** Its chain, and its map of links. */
  readonly name: string;
  readonly stage: HostStage;
  readonly direction: Direction;
  readonly hook: string;
  readonly link: 'iifname' | 'oifname';
  /** Before all else, line by line. */
  readonly first: readonly string[];
}

const families: readonly Family[] = [4, 6];
const isMarked = `meta mark & ${allowedMark} == ${allowedMark} accept`;
const stands = 'ct state established,related accept';

/** Packets of connections that are tracked come back here untracked, so the other side's ports count, too. */
const answers = (side: 'in' | 'out'): string[] => [
  'meta l4proto . th sport @carriers accept',
  `ip ${side === 'in' ? 'saddr' : 'daddr'} . meta l4proto . th sport @failsafe_${side === 'in' ? 'out' : 'in'}4 accept`,
  `ip6 ${side === 'in' ? 'saddr' : 'daddr'} . meta l4proto . th sport @failsafe_${side === 'in' ? 'out' : 'in'}6 accept`,
];

const doors: readonly Door[] = [
  {
    name: 'host_untracked_in',
    stage: 'untracked',
    direction: 'ingress',
    hook: 'prerouting priority raw + 1',
    link: 'iifname',
    first: ['jump host_always_in', ...answers('in')],
  },
  {
    name: 'host_untracked_out',
    stage: 'untracked',
    direction: 'egress',
    hook: 'output priority raw + 1',
    link: 'oifname',
    first: ['jump host_always_out', ...answers('out')],
  },
  {
    name: 'host_early',
    stage: 'untranslated',
    direction: 'ingress',
    hook: 'prerouting priority mangle + 1',
    link: 'iifname',
    first: [stands, isMarked, 'jump host_always_in'],
  },
  {
    name: 'host_in',
    stage: 'local',
    direction: 'ingress',
    hook: 'input priority filter + 1',
    link: 'iifname',
    first: [stands, isMarked, 'jump host_always_in'],
  },
  {
    name: 'host_through_in',
    stage: 'forwarded',
    direction: 'ingress',
    hook: 'forward priority filter + 3',
    link: 'iifname',
    first: [stands, isMarked, 'iifname "cwe*" accept', 'iifname "cwu*" accept'],
  },
  {
    name: 'host_through_out',
    stage: 'forwarded',
    direction: 'egress',
    hook: 'forward priority filter + 4',
    link: 'oifname',
    first: [stands, isMarked, 'oifname "cwe*" accept', 'oifname "cwu*" accept'],
  },
  {
    name: 'host_out',
    stage: 'local',
    direction: 'egress',
    hook: 'postrouting priority filter + 1',
    link: 'oifname',
    first: [stands, isMarked, 'fib saddr type != local accept comment "forwarded"', 'jump host_always_out'],
  },
];

const declared = `  set carriers { type inet_proto . inet_service; }
${(['in', 'out'] as const)
  .flatMap((side) =>
    families.map((family) => `  set failsafe_${side}${family} { type ipv${family}_addr . inet_proto . inet_service; flags interval; }\n`),
  )
  .join('')}`;

const always = (side: 'in' | 'out'): string => {
  const [link, address] = side === 'in' ? (['iifname', 'saddr'] as const) : (['oifname', 'daddr'] as const);
  return `  chain host_always_${side} {
    ${link} "lo" accept
    ${link} "cwe*" accept
    ${link} "cwu*" accept
    meta l4proto . th dport @carriers accept
    icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept
    ip ${address} . meta l4proto . th dport @failsafe_${side}4 accept
    ip6 ${address} . meta l4proto . th dport @failsafe_${side}6 accept
  }
`;
};

const allowed = `  chain allowed_early {
    meta mark set meta mark | ${allowedMark}
    accept
  }
  chain allowed_untracked {
    notrack
    meta mark set meta mark | ${allowedMark}
    accept
  }
`;

/** Of two for one protocol and port the wider one: an interval set takes no other inside of it. */
const widest = (failsafes: readonly Failsafe[]): Failsafe[] =>
  failsafes.filter(
    (one, index) =>
      !failsafes.some(
        (other, at) =>
          at !== index &&
          other.direction === one.direction &&
          other.protocol === one.protocol &&
          other.port === one.port &&
          covers(other.cidr, one.cidr) &&
          (other.cidr !== one.cidr || at < index),
      ),
  );

const nameOf = (protocol: number): string => ({ 6: 'tcp', 17: 'udp', 132: 'sctp' })[protocol] ?? String(protocol);

function elementsOf({ failsafes }: HostGuard, carriers: Carriers): NftElement[] {
  return [
    ...[...new Set(carriers)].map((key) => policyElement('carriers', key)),
    ...widest(failsafes).map(({ direction, protocol, port, cidr }) =>
      policyElement(`failsafe_${direction}${familyOf(cidr)}`, `${cidr} . ${nameOf(protocol)} . ${port}`),
    ),
  ];
}

class Doors {
  readonly #facts: PolicyFacts;
  readonly #chains: PolicyChains;

  constructor(facts: PolicyFacts, chains: PolicyChains) {
    this.#facts = facts;
    this.#chains = chains;
  }

  /** Verdict of a link at a door. */
  verdict({ policies, otherwise, link }: GuardedLink, door: Door): string {
    const { stage, direction, name } = door;
    const keys = keysAt(this.#facts, policies, stage);
    const isClosed = stage === 'local' && otherwise === 'deny';
    // As Calico has it: a link among all others is in no untracked policy.
    if ((keys.length === 0 && !isClosed) || (stage === 'untracked' && link === undefined)) return 'accept';
    const isAboutConnections = stage === 'local' || stage === 'forwarded';
    const chain = this.#chains.chain(`${name}_of`, [otherwise, ...keys].join('\n'), () => [
      ...(isAboutConnections && (isClosed || this.#chains.isEnforced(keys)) ? [`ct state new ${noBeginning}`] : []),
      ...this.#chains.tiers({ keys, direction, stage }),
      ...(isClosed ? this.#chains.denial(`${direction}: no policy of the host's link allows it`) : []),
    ]);
    return `goto ${chain}`;
  }
}

/** `chains` gets those that the hooks need. */
export function planHostPolicy(
  facts: PolicyFacts,
  host: HostGuard,
  { chains, carriers }: { chains: PolicyChains; carriers: Carriers },
): HostPolicy {
  const at = new Doors(facts, chains);
  const named = host.links.filter(({ link }) => link !== undefined);
  const spared = host.spared.filter((spare) => !named.some(({ link }) => link === spare));
  const [every] = host.links.filter(({ link }) => link === undefined);
  const planned = doors.map((door) => {
    const ways = named.map((one): [string, string] => [one.link ?? '', at.verdict(one, door)]);
    const rest = every === undefined ? 'accept' : at.verdict(every, door);
    const isUsed = rest !== 'accept' || ways.some(([, verdict]) => verdict !== 'accept');
    const past = rest === 'accept' ? [] : spared.map((one): [string, string] => [one, 'accept']);
    return { door, ways: [...ways, ...past], rest, isUsed };
  });
  const used = planned.filter(({ isUsed }) => isUsed);
  return {
    sets: `${declared}${used.map(({ door }) => `  map ${door.name}_links { type ifname : verdict; }\n`).join('')}`,
    hooks: `${allowed}${always('in')}${always('out')}${used.map(({ door, rest }) => hook(door, rest)).join('')}`,
    elements: [
      ...elementsOf(host, carriers),
      ...used.flatMap(({ door, ways }) => ways.map(([link, verdict]) => policyElement(`${door.name}_links`, `"${link}"`, verdict))),
    ],
  };
}

const hook = ({ name, hook: place, link, first }: Door, rest: string): string => `  chain ${name} {
    type filter hook ${place}; policy accept;
${[...first, `${link} vmap @${name}_links`, rest].map((line) => `    ${line}\n`).join('')}  }
`;
