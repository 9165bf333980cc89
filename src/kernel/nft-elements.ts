// How elements get into sets and out of them. As netlink messages of our own where every one of them is exact (nft-messages.ts), in
// nft's language where there are ranges among them, which nft alone keeps in order: in both cases as one transaction.
import { type NftElement, singly } from '#model/desired.ts';
import { countChange, runNft } from './libnftables.ts';
import { netfilterSockets } from './netfilter.ts';
import type { SetShape } from './nft-forms.ts';
import { type ElementStep, encodeSteps, family, shapeOf, subsystem } from './nft-messages.ts';
import { text } from './netlink/codec.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import { NFT_MSG_GETSET, NFT_MSG_NEWSET, NFTA_SET_NAME, NFTA_SET_TABLE } from './netlink/uapi.ts';

/** What is to be done with elements of any sets. */
export interface ElementChange {
  readonly verb: ElementStep['verb'];
  readonly elements: readonly NftElement[];
}

const spelling = /^[\w.:/"*@ -]+$/;
export const identifier: RegExp = /^[A-Za-z]\w*$/;
/** Whether it says nothing else in nft's language than an element. */
export const isSpelled = (element: NftElement): boolean =>
  singly(element).every(
    ({ table, set, key, value }) =>
      identifier.test(table) && identifier.test(set) && spelling.test(key) && (value === undefined || spelling.test(value)),
  );

/** In nft's language, one command per set. Values are given when adding only. */
export const elementCommands = (change: ElementChange): string => commandsOf(stepsOf([change]));

const commandsOf = (steps: readonly ElementStep[]): string =>
  steps
    .map(({ verb, table, set, elements }) => {
      const entries = elements.flatMap(singly).map(({ key, value }) => (value === undefined || verb !== 'add' ? key : `${key} : ${value}`));
      return `${verb} element inet ${table} ${set} { ${entries.join(', ')} }\n`;
    })
    .join('');

const nameOf = ({ table, set }: Pick<NftElement, 'table' | 'set'>): string => `${table} ${set}`;

const stepsOf = (changes: readonly ElementChange[]): ElementStep[] =>
  changes.flatMap(({ verb, elements }) =>
    [...Map.groupBy(elements, ({ table }) => table)].flatMap(([table, ofTable]) =>
      [...Map.groupBy(ofTable, ({ set }) => set)].map(([set, members]) => ({ verb, table, set, elements: members })),
    ),
  );

/** Of those sets that are there and exact, by name. */
function shapesOf(socket: NetlinkSocket, steps: readonly ElementStep[]): ReadonlyMap<string, SetShape> {
  const sets = [...new Map(steps.map((step) => [nameOf(step), step])).values()];
  const outcomes = socket.batch(
    sets.map(({ table, set }) => ({
      type: subsystem | NFT_MSG_GETSET,
      body: Buffer.concat([family, text(NFTA_SET_TABLE, table), text(NFTA_SET_NAME, set)]),
      action: `look at set inet ${table} ${set}`,
    })),
  );
  return new Map(
    sets.flatMap((one, index): (readonly [string, SetShape])[] => {
      const reply = outcomes[index]?.replies.find(({ type }) => type === (subsystem | NFT_MSG_NEWSET));
      const shape = reply === undefined ? undefined : shapeOf(reply);
      return shape === undefined ? [] : [[nameOf(one), shape]];
    }),
  );
}

/** One transaction; whether the kernel took it. */
function transact(socket: NetlinkSocket, steps: readonly ElementStep[], shapes: ReadonlyMap<string, SetShape>): boolean {
  if (steps.length === 0) return true;
  const exact = steps.flatMap((step): (readonly [ElementStep, SetShape])[] => {
    const shape = shapes.get(nameOf(step));
    return shape === undefined ? [] : [[step, shape]];
  });
  const transaction = exact.length === steps.length ? encodeSteps(exact, socket.nextNumber) : undefined;
  if (transaction === undefined)
    return steps.every(({ elements }) => elements.every(isSpelled)) && runNft(commandsOf(steps)).error === undefined;
  const isTaken = socket.transact('change elements', transaction) === undefined;
  if (isTaken) countChange();
  return isTaken;
}

/**
 * Everything or nothing, in the namespace of the calling thread; whether the kernel took it. Why not, only nft's language tells in words.
 * With `isFirst` their tables are still empty, so that a part of them alone means nothing yet: then the few ranges go first, and do not
 * hold up a hundred thousand others.
 */
export function changeElements(changes: readonly ElementChange[], isFirst = false): boolean {
  const steps = stepsOf(changes);
  if (steps.length === 0) return true;
  return netfilterSockets.use((socket) => {
    const shapes = shapesOf(socket, steps);
    if (!isFirst) return transact(socket, steps, shapes);
    const isExact = (step: ElementStep): boolean => shapes.has(nameOf(step));
    const ranges = steps.filter((step) => !isExact(step));
    return transact(socket, ranges, shapes) && transact(socket, steps.filter(isExact), shapes);
  });
}
