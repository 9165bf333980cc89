// The networking models: a model is a row of defaults over the five choices (attach, address, carry, guard, and the domain
// they live in), not a code path. `causeway explain` and the documentation are read from this table.
import { Fault } from '#model/fault.ts';
import type { CarryName, Choices, ModelName } from '#model/resources.ts';

/** Who uses networks, in words. */
export const frontEndTexts = {
  docker: 'Docker',
  swarm: 'Docker Swarm',
  kubernetes: 'Kubernetes',
  'pod-networks': 'networks of pods of Kubernetes',
} as const;
export type FrontEndName = keyof typeof frontEndTexts;

export interface Model {
  readonly choices: Choices;
  /** One sentence for people. */
  readonly summary: string;
  /** Ways of carrying that a user may choose instead of the default. */
  readonly carries: readonly CarryName[];
  readonly frontEnds: readonly FrontEndName[];
}

export const models: Readonly<Record<ModelName, Model>> = {
  overlay: {
    summary:
      'Isolated networks that span hosts; ranges may overlap; names, published ports and outgoing traffic as Docker users know them.',
    choices: {
      attach: 'routed',
      domain: 'own',
      address: { blockLength4: 27, blockLength6: 120, blocksPerHost: 0, borrow: true },
      carry: 'vxlan',
      guard: 'isolated',
    },
    carries: ['vxlan', 'wireguard'],
    frontEnds: ['docker'],
  },
  flannel: {
    summary: 'One flat network: every host routes one large block, and containers, hosts and each other are reachable directly.',
    choices: {
      attach: 'routed',
      domain: 'host',
      address: { blockLength4: 24, blockLength6: 112, blocksPerHost: 1, borrow: false },
      carry: 'vxlan',
      guard: 'open',
    },
    carries: ['vxlan', 'direct-routing', 'host-gateway', 'bgp', 'routes', 'wireguard'],
    frontEnds: ['docker', 'kubernetes'],
  },
  calico: {
    summary: 'One flat network of small blocks that hosts announce to each other, and to the routers around them, by BGP.',
    choices: {
      attach: 'routed',
      domain: 'host',
      address: { blockLength4: 26, blockLength6: 122, blocksPerHost: 0, borrow: true },
      carry: 'bgp',
      guard: 'open',
    },
    carries: ['bgp', 'bgp-cross-subnet', 'vxlan', 'wireguard'],
    frontEnds: ['docker', 'kubernetes'],
  },
  neutron: {
    summary:
      "Every container has a port of its own in a network of the cloud, the hosts' own or with trunks another; instances reach it without encapsulation.",
    choices: {
      attach: 'routed',
      domain: 'host',
      address: { blockLength4: 29, blockLength6: 125, blocksPerHost: 1, borrow: false },
      carry: 'address-pairs',
      guard: 'open',
    },
    carries: ['address-pairs'],
    frontEnds: ['docker', 'pod-networks'],
  },
  routes: {
    summary: "One flat network whose large blocks, one for each host, are routes of the hosts' own router (on Neutron: extra routes).",
    choices: {
      attach: 'routed',
      domain: 'host',
      address: { blockLength4: 24, blockLength6: 112, blocksPerHost: 1, borrow: false },
      carry: 'routes',
      guard: 'open',
    },
    carries: ['routes'],
    frontEnds: ['docker', 'kubernetes'],
  },
  swarm: {
    summary: "Docker's built-in overlay driver on a Swarm, created and observed by Causeway.",
    choices: {
      attach: 'docker',
      domain: 'docker',
      address: { blockLength4: 32, blockLength6: 128, blocksPerHost: 0, borrow: false },
      carry: 'docker',
      guard: 'docker',
    },
    carries: ['docker'],
    frontEnds: ['swarm'],
  },
};

export interface ChoiceChanges {
  readonly carry?: CarryName | undefined;
  /** The same as asking for the carriage `wireguard`; contradicts any other. */
  readonly encrypted?: boolean | undefined;
  readonly blockLength4?: number | undefined;
  readonly blockLength6?: number | undefined;
}

/** The choices of `model` with the user's changes. Fault `invalid` when the model cannot be carried that way. */
export function choicesFor(model: ModelName, changes: ChoiceChanges = {}): Choices {
  const { choices, carries } = models[model];
  const carry = changes.carry ?? (changes.encrypted === true && model !== 'swarm' ? 'wireguard' : choices.carry);
  if (changes.encrypted === true && carry !== 'wireguard' && carry !== 'docker') {
    throw new Fault('invalid', `A network carried by ${carry} cannot be encrypted`, {
      field: 'carry',
      hint: 'Leave carry out, or use wireguard',
    });
  }
  if (!carries.includes(carry)) {
    throw new Fault('invalid', `Model ${model} cannot be carried by ${carry}`, {
      field: 'carry',
      hint: `Use one of: ${carries.join(', ')}`,
    });
  }
  return {
    ...choices,
    carry,
    address: {
      ...choices.address,
      blockLength4: changes.blockLength4 ?? choices.address.blockLength4,
      blockLength6: changes.blockLength6 ?? choices.address.blockLength6,
    },
  };
}

/** One sentence for each choice, in the order in which a packet meets them. */
export function describeChoices(
  choices: Choices,
): readonly { readonly choice: string; readonly value: string; readonly meaning: string }[] {
  const attach = {
    routed:
      'a veth pair per container, no bridge; the container holds its address as a host prefix and reaches everything through one gateway',
    docker: "a bridge in a namespace of Docker's overlay driver",
  };
  const domain = {
    own: 'each host keeps a network namespace for this network, so its ranges may overlap those of other networks',
    host: "the host's own routing table; containers, hosts and each other are reachable directly",
    docker: "a namespace of Docker's",
  };
  const carry: Record<CarryName, string> = {
    vxlan: 'VXLAN between the hosts, one route per block and one neighbour and forwarding entry per host; nothing floods or learns',
    'direct-routing': 'plain routes between hosts on one subnet, VXLAN to hosts behind a router',
    'host-gateway': 'plain routes, the other host is the next hop; all hosts must share a subnet',
    bgp: 'plain routes that hosts learn from each other and from routers by BGP; every router on the way must know them',
    'bgp-cross-subnet': 'plain routes learned by BGP between hosts on one subnet, VXLAN to hosts behind a router',
    wireguard: "routes over the network's own WireGuard device; its UDP socket is the host's",
    routes: "plain routes by the hosts' router, which is told of every host's blocks",
    'address-pairs':
      "the cloud's own network: containers' ports are sub-ports where the host's is the parent of a trunk, otherwise address pairs that the host answers for",
    docker: "Docker's VXLAN",
  };
  const guard = {
    isolated: 'an endpoint is admitted by link, MAC and address; nothing crosses the border but published ports and outgoing traffic',
    open: 'an endpoint is admitted by link, MAC and address; everything routed to it is let in, but other networks',
    docker: "Docker's own rules",
  };
  const { address } = choices;
  return [
    { choice: 'attach', value: choices.attach, meaning: attach[choices.attach] },
    { choice: 'domain', value: choices.domain, meaning: domain[choices.domain] },
    {
      choice: 'address',
      ...(choices.attach === 'docker'
        ? { value: 'docker', meaning: "the Swarm's managers give addresses" }
        : {
            value: `blocks of /${address.blockLength4} (IPv6 /${address.blockLength6})`,
            meaning: `a host gives out addresses of its own blocks without asking${address.borrow ? '; when no block is left it borrows single addresses' : ''}`,
          }),
    },
    { choice: 'carry', value: choices.carry, meaning: carry[choices.carry] },
    { choice: 'guard', value: choices.guard, meaning: guard[choices.guard] },
  ];
}
