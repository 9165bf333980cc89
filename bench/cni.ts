// What attaching a container by CNI costs: ADD and DEL as a runtime executes them, one after the other and twenty at once, against
// the reference plugins' bridge with host-local, followed by portmap. Both on one host, in turn.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { buildCni, compile } from '#lab/cni.ts';
import { testNeeds } from '#lab/packages.ts';
import { makeBed } from './bed.ts';
import { installCauseway } from './causeway.ts';
import { compare, median, percentile, type Row } from './report.ts';

const peer = 'bridge + host-local + portmap';
const program = join(import.meta.dirname, 'cni-calls.ts');

/** Milliseconds of every call. */
const times = v.object({ add: v.array(v.number()), del: v.array(v.number()) });
const both = v.object({ ours: times, theirs: times });
const measured = v.object({ sequential: both, burst: both });

export async function cniBench(): Promise<Row[]> {
  const needs = testNeeds.filter((one) => one.program === 'host-local' || one.program === 'gcc');
  await using bed = await makeBed({ hosts: 1, needs, swarm: false });
  const causeway = await installCauseway(bed);
  await causeway.createNetwork('pods', ['--model', 'flannel', '--subnet', '10.40.0.0/16']);
  const plugin = await buildCni();
  using undo = new DisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'causeway-bench-'));
  undo.defer(() => rmSync(folder, { recursive: true }));
  const runtime = await compile(join(import.meta.dirname, 'cni-exec.c'), join(folder, 'runtime'));
  const output = await bed.host(1).ask([process.execPath, '--disable-warning=ExperimentalWarning', program, plugin, runtime]);
  const { sequential, burst } = v.parse(measured, JSON.parse(output));
  return [...rows('one after the other', sequential), ...rows('20 at once', burst)];
}

function rows(where: string, { ours, theirs }: v.InferOutput<typeof both>): Row[] {
  return (['add', 'del'] as const).flatMap((call) => {
    const measure = `CNI ${call.toUpperCase()}, ${where}`;
    const atMost = 0.25;
    return [
      compare(`${measure}, median`, median(ours[call]), median(theirs[call]), { unit: 'ms', peer, atMost }),
      compare(`${measure}, p99`, percentile(ours[call], 0.99), percentile(theirs[call], 0.99), { unit: 'ms', peer, atMost }),
    ];
  });
}
