// nftables as the kinds see it, kept in memory: for tests of the loop, and proof that the contract says enough. It knows a
// set by its declaration in the table's text and judges nothing else of nft's language.
import type { NftElement, NftTable, Netns } from '#model/desired.ts';
import { Fault } from '#model/fault.ts';
import type { Failure, Kind } from './kind.ts';
import { elementKey, sameElement, sameTable, sealedText, tableKey, tornText } from './nft.ts';

export interface FakeNft {
  readonly table: Kind<NftTable>;
  readonly element: Kind<NftElement>;
  /** As `nft flush table` by somebody else: the table is found torn, its elements stay. */
  tear(netns: Netns, table: string): void;
  /** The namespace is gone, and all in it. */
  forget(netns: Netns): void;
}

interface Loaded {
  readonly item: NftTable;
  torn: boolean;
  readonly elements: Map<string, NftElement>;
}

const declares = (table: NftTable, set: string): boolean => new RegExp(`\\b(set|map)\\s+${set}\\s*\\{`).test(table.text);

export function createFakeNft(): FakeNft {
  const tables = new Map<string, Loaded>();
  const whole = new WeakSet<NftTable>();
  const holding = ({ netns, table }: NftElement) => tables.get(`${netns} ${table}`);
  const inside = (netns: Netns) => [...tables.values()].filter(({ item }) => item.netns === netns);
  return {
    table: {
      name: 'table',
      key: tableKey,
      same: sameTable,
      list: (netns) => inside(netns).map(({ item, torn }) => ({ ...item, text: torn ? tornText : sealedText(item.text) })),
      tookAlong: (item) => whole.has(item),
      add(items) {
        for (const given of items) {
          const { renewed = [], ...item } = given;
          const found = item.elements ?? [...(tables.get(tableKey(item))?.elements.values() ?? [])];
          const after = [...found, ...renewed].map((element): [string, NftElement] => [elementKey(element), element]);
          const kept = after.filter(([, element]) => declares(item, element.set));
          tables.set(tableKey(item), { item, torn: false, elements: new Map(kept) });
          if (renewed.every(({ set }) => declares(item, set))) whole.add(given);
        }
        return [];
      },
      remove(items) {
        for (const item of items) tables.delete(tableKey(item));
        return [];
      },
    },
    element: {
      name: 'element',
      key: elementKey,
      same: sameElement,
      list: (netns) => inside(netns).flatMap(({ elements }) => [...elements.values()]),
      add: (items) =>
        items.flatMap((item): Failure<NftElement>[] => {
          const loaded = holding(item);
          if (loaded !== undefined && declares(loaded.item, item.set)) {
            loaded.elements.set(elementKey(item), item);
            return [];
          }
          return [{ item, fault: new Fault('kernel', `Cannot add element ${item.key}: ENOENT`, { errno: 'ENOENT' }) }];
        }),
      remove(items) {
        for (const item of items) holding(item)?.elements.delete(elementKey(item));
        return [];
      },
    },
    tear(netns, table) {
      const loaded = tables.get(`${netns} ${table}`);
      if (loaded !== undefined) loaded.torn = true;
    },
    forget(netns) {
      for (const { item } of inside(netns)) tables.delete(tableKey(item));
    },
  };
}
