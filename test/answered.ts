// What ping(8) prints, counted: numbers that are missing among the answers are packets that were lost. Those that were on their way
// when it was stopped are not looked at.
export interface Counted {
  /** Up to the last one that was answered. */
  readonly sent: number;
  readonly lost: number;
}

/** Of the numbers ping prints the last 16 bits; answers may come out of order, but not by half of these. */
export function countedIn(printed: string): Counted {
  const answered = new Set<number>();
  let last = 0;
  for (const [, text] of printed.matchAll(/icmp_seq=(\d+) ttl/g)) {
    const number = Number(text) + 65_536 * Math.round((last - Number(text)) / 65_536);
    answered.add(number);
    last = Math.max(last, number);
  }
  return { sent: last, lost: last - answered.size };
}
