// A packet every millisecond by fping(8), and what it prints, counted: numbers that are missing among the answers are packets that were
// lost. Those that were on their way when it was stopped are not looked at. At this rate ping(8) keeps a whole processor busy.
export interface Counted {
  /** Up to the last one that was answered. */
  readonly sent: number;
  readonly lost: number;
  /** The most of those that followed each other. */
  readonly inRow: number;
}

/** Until it is told to stop. */
export const everyMillisecond = (to: string): string[] => ['fping', '-l', '-p', '1', '-i', '1', '-t', '5000', to];

/** Packets are numbered from 0; answers may come out of order. */
export function countedIn(printed: string): Counted {
  const answered = new Set(Array.from(printed.matchAll(/\[(\d+)\], \d+ bytes/g), ([, number]) => Number(number)));
  const numbers = [...answered].toSorted((a, b) => a - b);
  const sent = (numbers.at(-1) ?? -1) + 1;
  const inRow = numbers.reduce((most, number, index) => Math.max(most, number - (numbers[index - 1] ?? -1) - 1), 0);
  return { sent, lost: sent - answered.size, inRow };
}
