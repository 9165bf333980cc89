// What policies cost: time from the API's notice of a change of labels until packets obey, in a cluster of 10,000 pods with
// 1,000 policies, by the agent's own way from the watch to the kernel, and the same without the time for which others had the
// processor; and requests and responses to an endpoint that no, 100 and 1,000 policies select. In namespaces of its own,
// with real packets and without a cluster around it: how long the API server takes is its own affair.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import * as v from 'valibot';
import { ensurePackages } from '#lab/packages.ts';
import { terminalProgress } from '#lab/progress.ts';
import { meterNeeds } from './meters.ts';
import { compare, median, percentile, type Row } from './report.ts';

const root = join(import.meta.dirname, '..');
const taken = v.array(v.object({ wall: v.number(), alone: v.number() }));
const probe = v.object({
  peers: taken,
  subjects: taken,
  rates: v.record(v.string(), v.array(v.number())),
});
const unit = 'per second';

export async function policyBench(): Promise<Row[]> {
  await ensurePackages(meterNeeds, terminalProgress());
  const env = { ...process.env, CAUSEWAY_NODE: process.execPath };
  const { stdout } = await promisify(execFile)(join(root, 'test', 'isolated-node'), [join(root, 'bench', 'policy-probe.ts')], { env });
  const { peers, subjects, rates } = v.parse(probe, JSON.parse(stdout));
  const rate = (key: string): number => median(rates[key] ?? []);
  return [
    ...(
      [
        ['of a peer', peers],
        ['of the selected pod', subjects],
      ] as const
    ).map(([whose, times]): Row => {
      const shown = (which: 'wall' | 'alone'): string => {
        const all = times.map((one) => one[which]);
        return `${percentile(all, 0.99).toFixed(1)} ms (median ${median(all).toFixed(1)})`;
      };
      const p99 = percentile(
        times.map(({ wall }) => wall),
        0.99,
      );
      return {
        measure: `1,000 policies, 10,000 pods: labels ${whose} change until packets obey, p99`,
        ours: `${shown('wall')}; without contention ${shown('alone')}`,
        against: '-',
        target: '< 200 ms',
        met: p99 < 200,
      };
    }),
    ...[100, 1000].flatMap((count) => [
      compare(`request/response, ${count} policies on the endpoint`, rate(`TCP_RR ${count}`), rate('TCP_RR 0'), {
        unit,
        peer: 'none',
        atLeast: 0.95,
      }),
      compare(`the same with a connection each, ${count} policies`, rate(`TCP_CRR ${count}`), rate('TCP_CRR 0'), { unit, peer: 'none' }),
    ]),
  ];
}
