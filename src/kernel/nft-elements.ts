// How elements get into sets and out of them. As netlink messages of our own where every one of them is exact (nft-messages.ts), in
// nft's language where there are ranges among them, which nft alone keeps in order: in both cases as one transaction.
import type { NftElement } from '#model/desired.ts';
import { countChange, runNft } from './libnftables.ts';
import { netfilterSockets } from './netfilter.ts';
import { type ElementStep, encodeSteps, family, type SetShape, shapeOf, subsystem } from './nft-messages.ts';
import { text } from './netlink/codec.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import { NFT_MSG_GETSET, NFT_MSG_NEWSET, NFTA_SET_NAME, NFTA_SET_TABLE } from './netlink/uapi.ts';

/** What is to be done with elements of any sets. */
export interface ElementChange {
  readonly verb: ElementStep['verb'];
  readonly elements: readonly NftElement[];
}

/** In nft's language, one command per set. Values are given when adding only. */
export const elementCommands = (change: ElementChange): string => commandsOf(stepsOf([change]));

const commandsOf = (steps: readonly ElementStep[]): string =>
  steps
    .map(({ verb, table, set, elements }) => {
      const entries = elements.map(({ key, value }) => (value === undefined || verb !== 'add' ? key : `${key} : ${value}`));
      return `${verb} element inet ${table} ${set} { ${entries.join(', ')} }\n`;
    })
    .join('');

const nameOf = ({ table, set }: Pick<NftElement, 'table' | 'set'>): string => `${table} ${set}`;

const stepsOf = (changes: readonly ElementChange[]): ElementStep[] =>
  changes.flatMap(({ verb, elements }) =>
    [...Map.groupBy(elements, nameOf)].map(([name, members]) => {
      const [table = '', set = ''] = name.split(' ');
      return { verb, table, set, elements: members };
    }),
  );

/** Each with its set's shape; undefined when one is not there, or not exact. */
function shaped(socket: NetlinkSocket, steps: readonly ElementStep[]): (readonly [ElementStep, SetShape])[] | undefined {
  const sets = [...new Map(steps.map((step) => [nameOf(step), step])).values()];
  const outcomes = socket.batch(
    sets.map(({ table, set }) => ({
      type: subsystem | NFT_MSG_GETSET,
      body: Buffer.concat([family, text(NFTA_SET_TABLE, table), text(NFTA_SET_NAME, set)]),
      action: `look at set inet ${table} ${set}`,
    })),
  );
  const shapes = new Map(
    sets.map((one, index) => {
      const reply = outcomes[index]?.replies.find(({ type }) => type === (subsystem | NFT_MSG_NEWSET));
      return [nameOf(one), reply === undefined ? undefined : shapeOf(reply)];
    }),
  );
  const found = steps.flatMap((step): (readonly [ElementStep, SetShape])[] => {
    const shape = shapes.get(nameOf(step));
    return shape === undefined ? [] : [[step, shape]];
  });
  return found.length === steps.length ? found : undefined;
}

/** Everything or nothing, in the namespace of the calling thread; whether the kernel took it. Why not, only nft's language tells in words. */
export function changeElements(changes: readonly ElementChange[]): boolean {
  const steps = stepsOf(changes);
  if (steps.length === 0) return true;
  return netfilterSockets.use((socket) => {
    const known = shaped(socket, steps);
    const transaction = known === undefined ? undefined : encodeSteps(known, socket.nextNumber);
    if (transaction === undefined) return runNft(commandsOf(steps)).error === undefined;
    const isTaken = socket.transact('change elements', transaction) === undefined;
    if (isTaken) countChange();
    return isTaken;
  });
}
