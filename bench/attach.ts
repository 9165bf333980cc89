// What a network adds to `docker run --rm box true`: the same run with `--network none` is taken off. On a host where the
// network has a container already, and on one where each run is the first, so that the host's part is set up and taken down.
import { docker } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage } from '#lab/images.ts';
import { alternate, medians } from './alternate.ts';
import { makeBed } from './bed.ts';
import { installCauseway } from './causeway.ts';
import { compare, type Row } from './report.ts';

const rounds = 15;
const peer = 'built-in overlay';

export async function attachBench(): Promise<Row[]> {
  await using bed = await makeBed({ hosts: 2, images: [boxImage] });
  const causeway = await installCauseway(bed);
  await causeway.createNetwork('ours', ['--subnet', '10.40.0.0/16']);
  await bed.createOverlay('theirs', '10.41.0.0/16');
  for (const network of ['ours', 'theirs', 'bridge']) {
    await docker(bed.host(1), ['run', '--detach', `--network=${network}`, `--name=resident-${network}`, boxImage.name, 'sleep', '86400']);
  }
  return [...(await measure(bed.host(1), 'network in use on the host')), ...(await measure(bed.host(2), 'first container of the host'))];
}

async function measure(host: Host, where: string): Promise<Row[]> {
  const sides = {
    none: () => time(host, 'none'),
    ours: () => time(host, 'ours'),
    theirs: () => time(host, 'theirs'),
    bridge: () => time(host, 'bridge'),
  };
  for (const side of Object.values(sides)) await side();
  const { none, ours, theirs, bridge } = medians(await alternate(`docker run, ${where}, ms`, rounds, sides));
  return [
    compare(`attach: ${where}`, ours - none, theirs - none, { unit: 'ms', peer, atMost: 0.5 }),
    compare(`attach: ${where}`, ours - none, bridge - none, { unit: 'ms', peer: 'bridge' }),
  ];
}

/** Milliseconds of one run. */
async function time(host: Host, network: string): Promise<number> {
  const began = performance.now();
  await docker(host, ['run', '--rm', `--network=${network}`, boxImage.name, 'true']);
  return performance.now() - began;
}
