// A packet every millisecond by fping(8), and what it prints, counted: numbers that are missing among the answers are packets that were
// lost. Those that were on their way when it was stopped are not looked at, and answers that came while it got no processor, and for
// which its socket had no room then, are none that were lost. At this rate ping(8) keeps a whole processor busy.
export interface Counted {
  /** Up to the last one that was answered. */
  readonly sent: number;
  readonly lost: number;
  /** The most of those that followed each other. */
  readonly inRow: number;
}

/** Until it is told to stop. */
export const everyMillisecond = (to: string): string[] => ['fping', '-l', '-p', '1', '-i', '1', '-t', '5000', to];

/** The lines of shell that show how much has found no room in sockets like its own, in its network namespace; while it runs. */
export const roomLine = 'cat /proc/net/raw /proc/net/raw6';

/** What found no room: the last column of these files (proc(5)). */
const withoutRoom = (listed: string): number =>
  Array.from(listed.matchAll(/^ *\d+: .* (\d+) *$/gm), ([, drops]) => Number(drops)).reduce((sum, drops) => sum + drops, 0);

/** Packets are numbered from 0; answers may come out of order. `sockets`: what the line for that has shown. */
export function countedIn(printed: string, sockets = ''): Counted {
  const answered = new Set(Array.from(printed.matchAll(/\[(\d+)\], \d+ bytes/g), ([, number]) => Number(number)));
  const numbers = [...answered].toSorted((a, b) => a - b);
  const sent = (numbers.at(-1) ?? -1) + 1;
  const inRow = numbers.reduce((most, number, index) => Math.max(most, number - (numbers[index - 1] ?? -1) - 1), 0);
  const heard = withoutRoom(sockets);
  return { sent, lost: Math.max(0, sent - answered.size - heard), inRow: Math.max(0, inRow - heard) };
}
