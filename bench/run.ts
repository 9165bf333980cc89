// npm run bench [-- name… --json FILE]: every figure of the product, each against its peer in the same run.
// Prints one table; a missed target does not fail the run, a broken measurement does. On a machine that does nothing else: to keep
// other work out by processor weights starves the kernel's own threads, and every engine waits for what those take down.
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { isFault } from '#model/fault.ts';
import { attachBench } from './attach.ts';
import { removeBeds } from './bed.ts';
import { burstBench } from './burst.ts';
import { cloudBench } from './cloud.ts';
import { cniBench } from './cni.ts';
import { encryptedBench } from './encrypted.ts';
import { memoryBench } from './memory.ts';
import { openstackBench } from './openstack.ts';
import { pathBench } from './path.ts';
import { planBench } from './plan.ts';
import { policyBench } from './policy.ts';
import { podsBench } from './pods.ts';
import { print, type Row } from './report.ts';
import { servicesBench, servicesManyBench } from './services.ts';
import { watchBench, watchManyBench } from './watch.ts';

const benches: Readonly<Record<string, () => Row[] | Promise<Row[]>>> = {
  plan: planBench,
  cloud: cloudBench,
  attach: attachBench,
  burst: burstBench,
  cni: cniBench,
  path: pathBench,
  encrypted: encryptedBench,
  openstack: openstackBench,
  watch: watchBench,
  'watch-many': watchManyBench,
  memory: memoryBench,
  policy: policyBench,
  services: servicesBench,
  'services-many': servicesManyBench,
  pods: podsBench,
};

const { positionals: wanted, values } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'string' } },
});
const unknown = wanted.filter((name) => benches[name] === undefined);
if (unknown.length > 0) {
  process.stderr.write(`No benchmark ${unknown.join(', ')}. There are: ${Object.keys(benches).join(', ')}\n`);
  process.exit(2);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    process.stderr.write(`bench: ${signal}, removing what was built\n`);
    void removeBeds().finally(() => process.exit(130));
  });
}

const results: { readonly bench: string; readonly rows: readonly Row[]; readonly failure?: string }[] = [];
for (const [bench, measure] of Object.entries(benches)) {
  if (wanted.length > 0 && !wanted.includes(bench)) continue;
  process.stderr.write(`bench: ${bench} …\n`);
  try {
    results.push({ bench, rows: await measure() });
  } catch (error) {
    // the others are still worth having
    const failure = describe(error);
    process.stderr.write(`bench: ${bench} broke: ${failure}\n`);
    results.push({ bench, rows: [], failure });
    process.exitCode = 1;
  }
}
print(results.flatMap(({ rows }) => rows));
if (values.json !== undefined) {
  const machine = {
    processor: cpus()[0]?.model,
    processors: availableParallelism(),
    memory: totalmem(),
    kernel: release(),
    load: loadavg(),
  };
  writeFileSync(values.json, `${JSON.stringify({ takenAt: new Date().toISOString(), machine, results }, undefined, 1)}\n`);
}

/** With what was suppressed when cleaning up failed too: the first failure is the reason. */
function describe(error: unknown): string {
  if (error instanceof SuppressedError) return `${describe(error.suppressed)}; then: ${describe(error.error)}`;
  if (isFault(error)) return `${error.message} (${error.code})`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
