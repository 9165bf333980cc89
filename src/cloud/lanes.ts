// Calls about many of one kind, some at a time.
const portsAtOnce = 4;

/** Those that have begun end, also where one fails. Throws what the first of these threw. */
export async function inLanes<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values();
  const lane = async (): Promise<void> => {
    for (const item of rest) await work(item);
  };
  const results = await Promise.allSettled(Array.from({ length: Math.min(portsAtOnce, items.length) }, lane));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
