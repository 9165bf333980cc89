// A packet every millisecond by fping(8), and what it prints, counted: numbers that are missing among the answers are packets that were
// lost. Those that were on their way when it was stopped are not looked at. At this rate ping(8) keeps a whole processor busy.
export interface Counted {
  /** Up to the last one that was answered. */
  readonly sent: number;
  readonly lost: number;
}

/** Until it is told to stop. */
export const everyMillisecond = (to: string): string[] => ['fping', '-l', '-p', '1', '-i', '1', '-t', '5000', to];

/** Packets are numbered from 0; answers may come out of order. */
export function countedIn(printed: string): Counted {
  const answered = new Set(Array.from(printed.matchAll(/\[(\d+)\], \d+ bytes/g), ([, number]) => Number(number)));
  let sent = 0;
  for (const number of answered) sent = Math.max(sent, number + 1);
  return { sent, lost: sent - answered.size };
}
