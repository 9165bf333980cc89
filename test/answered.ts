// What fping(8) prints, counted: numbers that are missing among the answers are packets that were lost. Those that were on their way
// when it was stopped are not looked at.
export interface Counted {
  /** Up to the last one that was answered. */
  readonly sent: number;
  readonly lost: number;
}

/** Packets are numbered from 0; answers may come out of order. */
export function countedIn(printed: string): Counted {
  const answered = new Set(Array.from(printed.matchAll(/\[(\d+)\], \d+ bytes/g), ([, number]) => Number(number)));
  let sent = 0;
  for (const number of answered) sent = Math.max(sent, number + 1);
  return { sent, lost: sent - answered.size };
}
