// A packet each millisecond, and a page after the other, while something is done to the network: what of it is lost.
import assert from 'node:assert/strict';
import { until } from '#lab/until.ts';

export interface Streams {
  readonly packets: number;
  readonly pages: number;
  readonly lostPackets: number;
  readonly lostPages: number;
}

/** Where streams begin and what they go to. */
export interface StreamEnds {
  /** Runs a script of the shell where the client is and answers what it printed. */
  readonly sh: (script: string) => Promise<string>;
  /** Address that is pinged. */
  readonly target: string;
  readonly url: string;
}

const stop = '/tmp/causeway-stop';

/** Streams while `work` goes on. Fault `timeout` when they do not begin. */
export async function streaming({ sh, target, url }: StreamEnds, work: () => Promise<void>): Promise<Streams> {
  await sh(`mkdir -p /tmp; rm -f ${stop}`);
  // Each batch waits for its last answer, so that nothing is on its way when it is counted.
  const pinging = sh(`while [ ! -e ${stop} ]; do ping -q -i 0.001 -c 1000 ${target}; done`);
  const page = `busybox wget -qO- -T 5 ${url} >/dev/null && echo page || echo lost`;
  const fetching = sh(`while [ ! -e ${stop} ]; do ${page}; done`);
  try {
    await until('the streams to begin', async () => (await sh('pidof ping; true')) !== '', { timeoutMs: 90_000, intervalMs: 200 });
    await work();
  } finally {
    await sh(`touch ${stop}`);
  }
  const [batches, pages] = [[...(await pinging).matchAll(/(\d+) packets transmitted, (\d+)/g)], (await fetching).split('\n')];
  await sh(`rm ${stop}`);
  const sum = (group: 1 | 2): number => batches.reduce((total, match) => total + Number(match[group]), 0);
  const lostPages = pages.filter((line) => line !== 'page').length;
  return { packets: sum(1), pages: pages.length, lostPackets: sum(1) - sum(2), lostPages };
}

export function assertWhole({ packets, pages, ...lost }: Streams): void {
  assert.deepEqual(lost, { lostPackets: 0, lostPages: 0 });
  assert.ok(packets >= 1000 && pages > 10, `only ${packets} packets and ${pages} pages`);
}
