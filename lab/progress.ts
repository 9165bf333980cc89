// What a person sees of long work: one line a step, with the time it took. On a terminal the line of the running step
// counts seconds; into a file or pipe only finished lines go.
const out = process.stderr;

export interface Progress {
  /** Runs `work` as a named step; nested and parallel steps are fine, their lines appear as they end. */
  step<T>(title: string, work: () => Promise<T>): Promise<T>;
}

export function terminalProgress(): Progress {
  const running = new Map<symbol, { readonly title: string; readonly began: number }>();
  let ticking: NodeJS.Timeout | undefined;
  const draw = (): void => {
    const last = [...running.values()].at(-1);
    if (!out.isTTY || last === undefined) return;
    out.write(`\r\u001b[K  … ${last.title} ${seconds(last.began)}`.slice(0, (out.columns ?? 80) + 4));
  };
  return {
    async step(title, work) {
      const key = Symbol(title);
      const began = performance.now();
      running.set(key, { title, began });
      if (out.isTTY) ticking ??= setInterval(draw, 200).unref();
      else out.write(`  … ${title}\n`);
      let mark = '✗';
      try {
        const result = await work();
        mark = '✓';
        return result;
      } finally {
        running.delete(key);
        if (out.isTTY) out.write('\r\u001b[K');
        out.write(`  ${mark} ${title} (${seconds(began)})\n`);
        if (running.size === 0) {
          clearInterval(ticking);
          ticking = undefined;
        }
      }
    },
  };
}

/** Says nothing; for tests. */
export const silentProgress: Progress = { step: (_title, work) => work() };

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;
