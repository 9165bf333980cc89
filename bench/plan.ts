// Plan and diff for one host of a large cluster after one change: no kernel, no network, only our own arithmetic.
import { plan } from '#drivers/plan.ts';
import { makeCluster, makeEndpoint } from '#drivers/cluster.fixture.ts';
import { diff } from '#model/diff.ts';
import { type Desired, emptyDesired } from '#model/desired.ts';
import { parseIp } from '#model/ip.ts';
import { median, type Row } from './report.ts';

const comparison = { key: (item: unknown) => JSON.stringify(item), same: () => true };
const kinds = Object.keys(emptyDesired) as (keyof Desired)[];

/** Median milliseconds to plan again and compare after one remote endpoint has been added. */
function measure(hosts: number): number {
  const { snapshot, local, self } = makeCluster(hosts, 100);
  const before = plan(snapshot, local, self);
  const endpoints = new Map(snapshot.endpoints);
  const added = makeEndpoint('aaaaaaaaaa', 'host-2', 9_999_999, [parseIp('10.200.0.1')]);
  endpoints.set(added.id, added);
  const changed = { ...snapshot, endpoints };
  const times = Array.from({ length: 15 }, () => {
    const start = performance.now();
    const after = plan(changed, local, self);
    const changes = kinds.flatMap((kind) => diff<unknown>(after[kind], before[kind], comparison).add);
    if (changes.length !== 1) throw new Error(`Expected one change, found ${changes.length}`);
    return performance.now() - start;
  });
  return median(times.slice(5));
}

export function planBench(): Row[] {
  const [small, large] = [measure(250), measure(1000)];
  return [
    {
      measure: 'plan + diff, 1,000 hosts x 100 endpoints, one change',
      ours: `${large.toFixed(1)} ms`,
      against: '-',
      target: '< 100 ms',
      met: large < 100,
    },
    {
      measure: 'growth of that from 250 to 1,000 hosts (x4)',
      ours: `${large.toFixed(1)} ms`,
      against: `${small.toFixed(1)} ms at 250`,
      ratio: large / small,
      target: '<= 4 (linear), noise 20 %',
      met: large / small <= 4.8,
    },
  ];
}
