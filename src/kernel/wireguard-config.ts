// What a WireGuard device holds, and the smallest change from that to what it shall hold: peers that stay as they are are
// not mentioned, so their sessions go on. Pure; how a change is written is wireguard-uapi.ts's and wireguard-netlink.ts's.
import type { Netns, WireguardConfig, WireguardPeer } from '#model/desired.ts';
import type { Cidr } from '#model/ip.ts';
import type { WireguardDevices } from './link.ts';

/**
 * Seconds, the most there can be. Every peer gets it, because a peer with one is sent something as soon as it is made: a
 * device that was made anew introduces itself. Otherwise the others would go on sending it packets of a session that it
 * does not know, and notice only after 15 s of silence (WireGuard paper, section 6.5).
 */
export const greetingInterval = 65535;

/** As read from a device. Keys in base64; '' for none. */
export interface DeviceState {
  readonly publicKey: string;
  readonly port: number;
  readonly peers: readonly FoundPeer[];
}

export interface DevicePeer {
  readonly publicKey: string;
  /** `ip:port` or `[ip]:port`; '' when not known. */
  readonly endpoint: string;
  readonly allowed: readonly Cidr[];
}

export interface FoundPeer extends DevicePeer {
  /** Whether a handshake with it was ever completed. */
  readonly hasAgreed: boolean;
  /** Bytes of messages that are certain to come from it, handshakes included. */
  readonly received: number;
}

export interface DeviceChange {
  /** Base64; absent leaves the key, '' takes it away. */
  readonly privateKey?: string;
  readonly port?: number;
  /** Each replaces its peer's endpoint and allowed addresses, or makes the peer. */
  readonly set: readonly DevicePeer[];
  /** Public keys. They go first, so that a peer in both is made anew. */
  readonly remove: readonly string[];
}

/** One way to have WireGuard devices: made as links, configured by this. */
export interface WireguardBackend {
  readonly devices: WireguardDevices;
  /** Names of our devices in a namespace; an absent namespace has none. */
  names(netns: Netns): string[];
  /** Fault `kernel` when it cannot be read. */
  read(netns: Netns, link: string): DeviceState;
  /** Fault `kernel`. */
  write(netns: Netns, link: string, change: DeviceChange): void;
}

export const endpointText = ({ endpoint: { ip, port } }: WireguardPeer): string => (ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`);

/** The opposite; undefined when there is no endpoint or it is not one. */
export function parseEndpoint(text: string): WireguardPeer['endpoint'] | undefined {
  const [, six, four, port] = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d+)$/.exec(text) ?? [];
  const ip = six ?? four;
  return ip === undefined || port === undefined ? undefined : { ip: ip as WireguardPeer['endpoint']['ip'], port: Number(port) };
}

const devicePeer = (peer: WireguardPeer): DevicePeer => ({
  publicKey: peer.publicKey,
  endpoint: endpointText(peer),
  allowed: peer.allowed,
});
const fingerprint = ({ endpoint, allowed }: DevicePeer): string => `${endpoint} ${[...new Set(allowed)].sort().join(' ')}`;

/** What must be written so that a device in `state` matches; undefined when nothing. */
export function changeOf(
  wanted: WireguardConfig,
  keys: { readonly privateKey: string; readonly publicKey: string },
  state: DeviceState,
): DeviceChange | undefined {
  const found = new Map(state.peers.map((peer) => [peer.publicKey, fingerprint(peer)]));
  const wishes = wanted.peers.map(devicePeer);
  const set = wishes.filter((peer) => found.get(peer.publicKey) !== fingerprint(peer));
  const names = new Set(wishes.map(({ publicKey }) => publicKey));
  const remove = state.peers.flatMap(({ publicKey }) => (names.has(publicKey) ? [] : [publicKey]));
  const rekey = state.publicKey !== keys.publicKey;
  const rebind = state.port !== wanted.port;
  if (!rekey && !rebind && set.length === 0 && remove.length === 0) return undefined;
  return { ...(rekey ? { privateKey: keys.privateKey } : {}), ...(rebind ? { port: wanted.port } : {}), set, remove };
}

/** Public keys of the peers that a change makes. */
export function madeBy({ set }: DeviceChange, { peers }: DeviceState): string[] {
  const found = new Set(peers.map(({ publicKey }) => publicKey));
  return set.flatMap(({ publicKey }) => (found.has(publicKey) ? [] : [publicKey]));
}

/** Whether two configurations mean the same; the order of peers and addresses does not matter. */
export function sameConfig(wanted: WireguardConfig, found: WireguardConfig): boolean {
  if (wanted.port !== found.port || wanted.peers.length !== found.peers.length) return false;
  const prints = new Map(found.peers.map((peer) => [peer.publicKey, fingerprint(devicePeer(peer))]));
  return wanted.peers.every((peer) => prints.get(peer.publicKey) === fingerprint(devicePeer(peer)));
}
