// What the agent is told of networks that the cluster defines: lines that lead from what was said before to what is.
import type { WatchLine } from '#api/answers.ts';
import type { Cidr } from '#model/ip.ts';
import type { Block, CarryName, Network, Pool } from '#model/resources.ts';
import type { NodeFacts } from './nodes.ts';
import { blocksOf, factsOf, fallbackBlocksOf, type NetworkFacts, type NodePlace, nodePlace, type OwnNetwork } from './own-network.ts';
import type { OwnPorts } from './own-ports.ts';
import { cloudFactsOf } from './port-pools.ts';

export interface OwnFactsOptions {
  /** Name of this host's Node. */
  readonly host: string;
  readonly podCidrs: readonly Cidr[];
  readonly carry?: CarryName;
  /** Of networks of the cloud, which each node knows its own blocks of. */
  readonly ports: Pick<OwnPorts, 'blocksOf' | 'placeOf'>;
}

type Fact =
  | { readonly kind: 'networks'; readonly item: Network }
  | { readonly kind: 'pools'; readonly item: Pool }
  | { readonly kind: 'blocks'; readonly item: Block };

const keyOf = ({ kind, item }: Fact): string => `${kind} ${item.id}`;

export class OwnFacts {
  readonly #options: OwnFactsOptions;
  /** In the order in which they were told. */
  #told = new Map<string, { readonly fact: Fact; readonly text: string }>();

  constructor(options: OwnFactsOptions) {
    this.#options = options;
  }

  *lines(networks: Iterable<OwnNetwork>, nodes: ReadonlyMap<string, NodeFacts>, revision: number): Generator<WatchLine, void> {
    const facts = [...networks].flatMap((network) => this.#factsOf(network, nodes));
    const next = new Map(facts.map((fact) => [keyOf(fact), { fact, text: JSON.stringify(fact.item) }]));
    const before = this.#told;
    this.#told = next;
    for (const [key, { fact }] of [...before].toReversed()) {
      if (!next.has(key)) yield { type: 'delete', kind: fact.kind, id: fact.item.id, revision };
    }
    for (const [key, { fact, text }] of next) if (before.get(key)?.text !== text) yield put(fact, revision);
  }

  #factsOf(network: OwnNetwork, nodes: ReadonlyMap<string, NodeFacts>): Fact[] {
    const { host, podCidrs, ports } = this.#options;
    const carry = nodes.get(host)?.host?.carrying?.wants ?? this.#options.carry;
    const everywhere = (parts: (name: string, place: NodePlace) => Block[]): Block[] =>
      [...nodes].flatMap(([name, node]) => {
        const place = nodePlace(node, podCidrs);
        return place === undefined ? [] : parts(name, place);
      });
    if (network.neutron !== undefined) {
      const found = ports.placeOf(network);
      const besides = found === undefined ? [] : everywhere((name, place) => fallbackBlocksOf(network, name, place));
      return linesOf(cloudFactsOf(network, found), [...ports.blocksOf(network), ...besides]);
    }
    const blocks = everywhere((name, place) => blocksOf(network, name, place));
    const own = blocks.filter((block) => block.host === host);
    return linesOf(factsOf(network, { own, ...(carry === undefined ? {} : { carry }) }), blocks);
  }
}

const linesOf = ({ network, pools }: NetworkFacts, blocks: readonly Block[]): Fact[] => [
  { kind: 'networks', item: network },
  ...pools.map((pool): Fact => ({ kind: 'pools', item: pool })),
  ...blocks.map((block): Fact => ({ kind: 'blocks', item: block })),
];

function put(fact: Fact, revision: number): WatchLine {
  if (fact.kind === 'networks') return { type: 'put', kind: fact.kind, item: { ...fact.item, revision }, revision };
  if (fact.kind === 'pools') return { type: 'put', kind: fact.kind, item: { ...fact.item, revision }, revision };
  return { type: 'put', kind: fact.kind, item: { ...fact.item, revision }, revision };
}
