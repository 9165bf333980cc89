// What a packet's way costs: three measures across hosts against the built-in overlay, and on one host against Docker's
// bridge, with the bare underlay for orientation. Every end is a container, also on the underlay (network `host`), so that
// system call filters and control groups are the same everywhere.
import { alternate, medians } from './alternate.ts';
import { type Bed, makeBed } from './bed.ts';
import { type Lane, measures, meterImage, meterNeeds, openLane, units } from './meters.ts';
import { installCauseway } from './causeway.ts';
import { compare, type Row } from './report.ts';

const rounds = 5;

export async function pathBench(): Promise<Row[]> {
  await using bed = await makeBed({ hosts: 2, images: [meterImage], needs: meterNeeds });
  const causeway = await installCauseway(bed);
  await causeway.createNetwork('ours', ['--subnet', '10.40.0.0/16']);
  await bed.createOverlay('theirs', '10.41.0.0/16');
  const across = await compareLanes(
    'across hosts',
    lanes(bed, 'across', { ours: 'ours', theirs: 'theirs', underlay: 'host' }),
    'built-in overlay',
  );
  const within = await compareLanes('on one host', lanes(bed, 'within', { ours: 'ours', theirs: 'bridge' }), 'bridge');
  return [...across, ...within];
}

function lanes(bed: Bed, where: 'across' | 'within', networks: Readonly<Record<string, string>>): Lane[] {
  const client = bed.host(1);
  const server = where === 'across' ? bed.host(2) : client;
  return Object.entries(networks).map(([side, network]) => ({
    name: `${where}-${side}`,
    client,
    server,
    network,
    ...(network === 'host' ? { address: server.address } : {}),
  }));
}

async function compareLanes(where: string, all: readonly Lane[], peer: string): Promise<Row[]> {
  const meters: [string, Awaited<ReturnType<typeof openLane>>][] = [];
  for (const lane of all) meters.push([lane.name.replace(/^\w+-/, ''), await openLane(lane)]);
  const rows: Row[] = [];
  for (const measure of measures) {
    const sides = Object.fromEntries(meters.map(([side, meter]) => [side, () => meter(measure)]));
    const { ours = Number.NaN, theirs = Number.NaN, underlay } = medians(await alternate(`${where}, ${measure}`, rounds, sides));
    const unit = units[measure];
    rows.push(compare(`${where}: ${measure}`, ours, theirs, { unit, peer, atLeast: 1 }));
    if (underlay !== undefined) rows.push(compare(`${where}: ${measure}`, ours, underlay, { unit, peer: 'bare underlay' }));
  }
  return rows;
}
