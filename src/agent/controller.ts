// What the agent asks of the controllers, over the API's client. Also where the address book's view of blocks and loans
// meets the API's: a block that another host holds is looked up, a loan is read out of its block.
import type { WatchLine } from '#api/answers.ts';
import type { Client } from '#api/client.ts';
import { Fault, isFault } from '#model/fault.ts';
import { contains } from '#model/ip.ts';
import { ipamHostLabel } from '#model/numbers.ts';
import type { Report } from '#api/requests.ts';
import type { Block, Endpoint, Host, Loan, Network } from '#model/resources.ts';
import { faultOf } from '#api/faults.ts';
import type { ClusterAddresses } from './address-cluster.ts';
import type { ClusterNetworks } from './local.ts';
import type { EndpointBatch, Published } from './publisher.ts';

/** What the agent asks of the controllers; every call rejects with `unavailable` when none answers. */
export interface Controller {
  readonly networks: ClusterNetworks;
  readonly addresses: ClusterAddresses;
  watch(options: { since?: number; epoch?: string; signal: AbortSignal }): AsyncIterable<WatchLine>;
  publish(batch: EndpointBatch): Promise<Published>;
  report(report: Report): Promise<Host>;
  /** By how many milliseconds this machine's clock is ahead of the controller's, as far as known. */
  skewMs(): number | undefined;
}

const mostTries = 5;

const absentIsFine = async (work: Promise<unknown>): Promise<void> => {
  try {
    await work;
  } catch (error) {
    if (!isFault(error, 'not-found')) throw error;
  }
};

function networksOf(client: Client): ClusterNetworks {
  return {
    async create(request) {
      const network = await client.createNetwork(request);
      return { network, pools: await client.all('pools', { network: network.id }) };
    },
    async rename(id, name, labels) {
      for (let tries = 1; ; tries++) {
        try {
          const network = await client.get('networks', id);
          return await client.replace('networks', { ...network, name, labels: { ...network.labels, ...labels } });
        } catch (error) {
          if (!isFault(error, 'conflict') || tries >= mostTries) throw error;
        }
      }
    },
    remove: (id) => absentIsFine(client.remove('networks', id)),
    proposePool: (family, besides) => client.proposePool(family, besides),
  };
}

/** The claim goes on in the controller, and its ports come with the next snapshot. */
const stillMaking = ({ name }: Network, cause: unknown): Fault =>
  new Fault('timeout', `The cloud is still making this host's ports of network ${name}`, {
    cause,
    hint: 'Try again in a moment: they are used as soon as they are there',
  });

type NetworkOf = (id: string) => Network | undefined;

/** The loan in its block's record. Fault `not-found` when it is gone by now. */
function loanIn(block: Block, id: string): Loan {
  const loan = block.loans.find((candidate) => candidate.id === id);
  if (loan === undefined) throw new Fault('not-found', `Block ${block.cidr} has no loan ${id}`);
  return loan;
}

function addressesOf(client: Client, host: string, network: NetworkOf): ClusterAddresses {
  const blocksOf = async (id: string, pool: string): Promise<Block[]> =>
    (await client.all('blocks', { network: id })).filter((block) => block.pool === pool);
  return {
    blocksOf,
    async claimBlock({ network: id, pool, ip, has }) {
      const of = network(id);
      const chooser = of?.labels[ipamHostLabel] ?? host;
      try {
        const asked = { network: id, pool, host, prefer: chooser === host ? 'low' : 'high', ...(ip === undefined ? {} : { ip }) } as const;
        if (of?.neutron === undefined) return await client.claimBlock(asked);
        // Elsewhere it says nothing, and an older controller does not know it.
        return await client.claimBlock({ ...asked, ...(has === undefined ? {} : { has }) }, { isSlow: true });
      } catch (error) {
        if (of?.neutron !== undefined && isFault(error, 'timeout')) throw stillMaking(of, error);
        if (ip === undefined || !isFault(error, 'exists')) throw error;
        const holder = (await blocksOf(id, pool)).find((block) => contains(block.cidr, ip));
        if (holder === undefined) throw error;
        return holder;
      }
    },
    async askLoan(block, { id, endpoint, ip }) {
      return loanIn(await client.askLoan(block.id, { id, host, endpoint, ...(ip === undefined ? {} : { ip }) }), id);
    },
    async settleLoan(block, loan, settlement) {
      if (settlement.state === 'closed') await absentIsFine(client.forgetLoan(block, loan));
      else await client.settleLoan(block, loan, settlement);
    },
    async returnLoan(block, loan) {
      try {
        await absentIsFine(client.settleLoan(block, loan, { state: 'returned' }));
      } catch (error) {
        // Only a granted loan can be returned; one that was asked or refused just goes.
        if (!isFault(error, 'conflict') && !isFault(error, 'invalid')) throw error;
        await absentIsFine(client.forgetLoan(block, loan));
      }
    },
    setPortGroups: (block, request) => client.setPortGroups(block, request),
    releaseBlock: ({ id, revision }) => absentIsFine(client.releaseBlock(id, revision)),
  };
}

/** Without what only the store says of an endpoint. */
function toRequest({ id, name, labels, network, host, owner, addresses, mac, names, ports, sequence }: Endpoint) {
  return { id, name, labels, network, host, owner, addresses, mac, names, ports, sequence };
}

export function controllerOf(client: Client, host: string, network: NetworkOf): Controller {
  return {
    networks: networksOf(client),
    addresses: addressesOf(client, host, network),
    skewMs: () => client.skewMs,
    watch: (options) => client.watch({ host, ...options }),
    report: (report) => client.report(host, report),
    async publish({ puts, deletes }) {
      const results = await client.batchEndpoints({ puts: puts.map(toRequest), deletes });
      return {
        refused: new Map(results.flatMap(({ id, problem }) => (problem === undefined ? [] : [[id, faultOf(problem)] as const]))),
        revision: results.reduce((revision, { item }) => Math.max(revision, item?.revision ?? 0), 0),
      };
    },
  };
}
