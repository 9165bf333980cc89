// What an encrypted network leaves of WireGuard's own throughput: containers on it against the same meters on a tunnel that
// was laid by hand between the hosts' own addresses, with the implementation that the agents use on this kernel.
import type { Host } from '#lab/host.ts';
import { until } from '#lab/until.ts';
import { alternate, medians } from './alternate.ts';
import { makeBed } from './bed.ts';
import { installCauseway } from './causeway.ts';
import { meterImage, meterNeeds, openLane } from './meters.ts';
import { compare, type Row } from './report.ts';

const rounds = 5;
const link = 'raw0';
const port = 51_000;
/** 1450 of the underlay less IPv4 (20), UDP (8) and WireGuard (32). */
const mtu = 1390;
const tools = [{ program: 'wg', package: 'wireguard-tools', why: 'to lay a tunnel by hand' }];

export async function encryptedBench(): Promise<Row[]> {
  await using bed = await makeBed({ hosts: 2, images: [meterImage], needs: [...meterNeeds, ...tools], swarm: false });
  const causeway = await installCauseway(bed);
  await causeway.createNetwork('ours', ['--subnet', '10.40.0.0/16', '--encrypted']);
  const [client, server] = [bed.host(1), bed.host(2)];
  const implementation = await layTunnel(client, server);
  const ours = await openLane({ name: 'ours', client, server, network: 'ours' });
  const raw = await openLane({ name: 'raw', client, server, network: 'host', address: '10.99.0.2' });
  const rows: Row[] = [];
  for (const measure of ['throughput', 'request/response'] as const) {
    const sides = { ours: () => ours(measure), raw: () => raw(measure) };
    const result = medians(await alternate(`encrypted, ${measure}`, rounds, sides));
    const target = measure === 'throughput' ? { atLeast: 0.9 } : {};
    const unit = measure === 'throughput' ? 'Mbit/s' : '/s';
    rows.push(compare(`encrypted: ${measure}`, result.ours, result.raw, { unit, peer: `raw ${implementation}`, ...target }));
  }
  return rows;
}

/** Answers the implementation: the kernel's where it has one, as the agents choose. */
async function layTunnel(first: Host, second: Host): Promise<string> {
  const { status } = await first.exec(['ip', 'link', 'add', link, 'type', 'wireguard'], { anyStatus: true });
  const implementation = status === 0 ? 'kernel WireGuard' : 'wireguard-go';
  if (status === 0) await second.exec(['ip', 'link', 'add', link, 'type', 'wireguard']);
  else for (const host of [first, second]) await startUserspace(host);
  const [firstKey, secondKey] = [await makeKey(first), await makeKey(second)];
  await setUp(first, '10.99.0.1', { key: secondKey, host: second, address: '10.99.0.2' });
  await setUp(second, '10.99.0.2', { key: firstKey, host: first, address: '10.99.0.1' });
  return implementation;
}

async function startUserspace(host: Host): Promise<void> {
  await host.startService({
    name: 'raw-tunnel',
    argv: ['wireguard-go', '--foreground', link],
    env: { LOG_LEVEL: 'error' },
    ready: { socket: `/run/wireguard/${link}.sock` },
  });
  await until('the tunnel', async () => (await host.exec(['ip', 'link', 'show', link], { anyStatus: true })).status === 0);
}

/** Gives the device a new private key and answers its public one. */
function makeKey(host: Host): Promise<string> {
  return host.ask([
    'sh',
    '-c',
    `wg genkey >/run/raw.key && wg set ${link} listen-port ${port} private-key /run/raw.key && wg pubkey </run/raw.key`,
  ]);
}

interface Peer {
  readonly key: string;
  readonly host: Host;
  readonly address: string;
}

async function setUp(host: Host, address: string, peer: Peer): Promise<void> {
  const endpoint = `${peer.host.address}:${port}`;
  await host.exec(['wg', 'set', link, 'peer', peer.key, 'allowed-ips', `${peer.address}/32`, 'endpoint', endpoint]);
  await host.exec(['ip', 'address', 'add', `${address}/24`, 'dev', link]);
  await host.exec(['ip', 'link', 'set', link, 'mtu', `${mtu}`, 'up']);
}
