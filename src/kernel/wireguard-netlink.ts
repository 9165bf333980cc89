// Configuration of the kernel's own WireGuard devices by generic netlink (linux/wireguard.h). Encoders and decoders are
// pure. A device with many peers does not fit into one message, so a change is written as several: the kernel takes up a
// peer's further addresses from a later message that names it again without WGPEER_F_REPLACE_ALLOWEDIPS.
import type { Cidr, Ip } from '#model/ip.ts';
import { cidrBase, cidrLength, familyOf } from '#model/ip.ts';
import { attribute, attributeList, decodeAttributes, ipBytes, nested, readIp, text, u16, u32, u8 } from './netlink/codec.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import {
  AF_INET,
  AF_INET6,
  CTRL_ATTR_FAMILY_ID,
  CTRL_ATTR_FAMILY_NAME,
  CTRL_CMD_GETFAMILY,
  GENL_ID_CTRL,
  NLM_F_DUMP,
} from './netlink/uapi.ts';
import { keyBytes } from './wireguard-keys.ts';
import {
  type DeviceChange,
  type DevicePeer,
  type DeviceState,
  type FoundPeer,
  greetingInterval,
  parseEndpoint,
} from './wireguard-config.ts';

// linux/wireguard.h
const WG_GENL_NAME = 'wireguard';
const WG_GENL_VERSION = 1;
const WG_CMD_GET_DEVICE = 0;
const WG_CMD_SET_DEVICE = 1;
const WGDEVICE_A_IFNAME = 2;
const WGDEVICE_A_PRIVATE_KEY = 3;
const WGDEVICE_A_PUBLIC_KEY = 4;
const WGDEVICE_A_LISTEN_PORT = 6;
const WGDEVICE_A_PEERS = 8;
const WGPEER_A_PUBLIC_KEY = 1;
const WGPEER_A_FLAGS = 3;
const WGPEER_A_ENDPOINT = 4;
const WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL = 5;
const WGPEER_A_LAST_HANDSHAKE_TIME = 6;
const WGPEER_A_RX_BYTES = 7;
const WGPEER_A_ALLOWEDIPS = 9;
const WGPEER_F_REMOVE_ME = 1;
const WGPEER_F_REPLACE_ALLOWEDIPS = 2;
const WGALLOWEDIP_A_FAMILY = 1;
const WGALLOWEDIP_A_IPADDR = 2;
const WGALLOWEDIP_A_CIDR_MASK = 3;

// A nested attribute's length has 16 bits; half of that leaves room.
const peersBytes = 32 * 1024;
const addressesPerPart = 512;

const header = (command: number): Buffer => Buffer.of(command, WG_GENL_VERSION, 0, 0);
const afOf = (ip: Ip): number => (familyOf(ip) === 6 ? AF_INET6 : AF_INET);

function socketAddress(endpoint: string): Buffer {
  const parsed = parseEndpoint(endpoint);
  if (parsed === undefined) return Buffer.alloc(0);
  const six = familyOf(parsed.ip) === 6;
  const address = Buffer.alloc(six ? 28 : 16);
  address.writeUInt16LE(afOf(parsed.ip), 0);
  address.writeUInt16BE(parsed.port, 2);
  ipBytes(parsed.ip).copy(address, six ? 8 : 4);
  return address;
}

const encodeAllowed = (cidr: Cidr): Buffer =>
  nested(
    0,
    u16(WGALLOWEDIP_A_FAMILY, afOf(cidrBase(cidr))),
    attribute(WGALLOWEDIP_A_IPADDR, ipBytes(cidrBase(cidr))),
    u8(WGALLOWEDIP_A_CIDR_MASK, cidrLength(cidr)),
  );

/** A peer as one attribute, or, when it has very many addresses, as several that add up. */
function encodePeer({ publicKey, endpoint, allowed }: DevicePeer): Buffer[] {
  const count = Math.max(1, Math.ceil(allowed.length / addressesPerPart));
  return Array.from({ length: count }, (_, part) => {
    const address = socketAddress(endpoint);
    const first = part === 0;
    return nested(
      0,
      attribute(WGPEER_A_PUBLIC_KEY, keyBytes(publicKey)),
      ...(first ? [u32(WGPEER_A_FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS)] : []),
      ...(first && address.length > 0 ? [attribute(WGPEER_A_ENDPOINT, address)] : []),
      ...(first ? [u16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, greetingInterval)] : []),
      nested(WGPEER_A_ALLOWEDIPS, ...allowed.slice(part * addressesPerPart, (part + 1) * addressesPerPart).map(encodeAllowed)),
    );
  });
}

/** Bodies of the WG_CMD_SET_DEVICE requests that apply a change, in order. */
export function encodeChange(link: string, change: DeviceChange): Buffer[] {
  const removals = change.remove.map((key) =>
    nested(0, attribute(WGPEER_A_PUBLIC_KEY, keyBytes(key)), u32(WGPEER_A_FLAGS, WGPEER_F_REMOVE_ME)),
  );
  const groups: Buffer[][] = [[]];
  let bytes = 0;
  for (const peer of [...removals, ...change.set.flatMap(encodePeer)]) {
    if (bytes + peer.length > peersBytes) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)?.push(peer);
    bytes += peer.length;
  }
  const { privateKey, port } = change;
  return groups.map((peers, index) =>
    Buffer.concat([
      header(WG_CMD_SET_DEVICE),
      text(WGDEVICE_A_IFNAME, link),
      ...(index > 0 || privateKey === undefined
        ? []
        : [attribute(WGDEVICE_A_PRIVATE_KEY, privateKey === '' ? Buffer.alloc(32) : keyBytes(privateKey))]),
      ...(index > 0 || port === undefined ? [] : [u16(WGDEVICE_A_LISTEN_PORT, port)]),
      ...(peers.length === 0 ? [] : [nested(WGDEVICE_A_PEERS, ...peers)]),
    ]),
  );
}

function decodeEndpoint(bytes: Buffer | undefined): string {
  if (bytes === undefined || bytes.length < 16) return '';
  const port = bytes.readUInt16BE(2);
  const six = bytes.readUInt16LE(0) === AF_INET6;
  const ip = readIp(six ? bytes.subarray(8, 24) : bytes.subarray(4, 8)) ?? '';
  return six ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function decodeAllowed(bytes: Buffer): Cidr {
  const attributes = decodeAttributes(bytes);
  return `${readIp(attributes.get(WGALLOWEDIP_A_IPADDR)) ?? ''}/${attributes.get(WGALLOWEDIP_A_CIDR_MASK)?.[0] ?? 0}` as Cidr;
}

function decodePeer(bytes: Buffer): FoundPeer {
  const attributes = decodeAttributes(bytes);
  const received = attributes.get(WGPEER_A_RX_BYTES);
  return {
    publicKey: attributes.get(WGPEER_A_PUBLIC_KEY)?.toString('base64') ?? '',
    endpoint: decodeEndpoint(attributes.get(WGPEER_A_ENDPOINT)),
    allowed: attributeList(attributes.get(WGPEER_A_ALLOWEDIPS) ?? Buffer.alloc(0)).map(([, value]) => decodeAllowed(value)),
    // Seconds and nanoseconds, of 64 bits each; nothing but zeros before the first handshake.
    hasAgreed: attributes.get(WGPEER_A_LAST_HANDSHAKE_TIME)?.some((byte) => byte !== 0) === true,
    received: received?.length === 8 ? Number(received.readBigUInt64LE(0)) : 0,
  };
}

/** A device from the bodies of a WG_CMD_GET_DEVICE dump. A peer may continue in the next message: the parts are joined. */
export function decodeDevice(bodies: readonly Buffer[]): DeviceState {
  const peers = new Map<string, FoundPeer>();
  let publicKey = '';
  let port = 0;
  for (const body of bodies) {
    const attributes = decodeAttributes(body.subarray(4));
    publicKey = attributes.get(WGDEVICE_A_PUBLIC_KEY)?.toString('base64') ?? publicKey;
    port = attributes.get(WGDEVICE_A_LISTEN_PORT)?.readUInt16LE(0) ?? port;
    for (const [, value] of attributeList(attributes.get(WGDEVICE_A_PEERS) ?? Buffer.alloc(0))) {
      const part = decodePeer(value);
      const before = peers.get(part.publicKey);
      peers.set(part.publicKey, before === undefined ? part : { ...before, allowed: [...before.allowed, ...part.allowed] });
    }
  }
  return { publicKey, port, peers: [...peers.values()] };
}

/** The number of the generic netlink family; asking makes the kernel load the module. Fault `kernel` ENOENT: no WireGuard here. */
export function wireguardFamily(socket: NetlinkSocket): number {
  const [reply] = socket.request({
    type: GENL_ID_CTRL,
    body: Buffer.concat([Buffer.of(CTRL_CMD_GETFAMILY, 1, 0, 0), text(CTRL_ATTR_FAMILY_NAME, WG_GENL_NAME)]),
    action: 'find generic netlink family wireguard',
  });
  return (
    decodeAttributes(reply?.body.subarray(4) ?? Buffer.alloc(0))
      .get(CTRL_ATTR_FAMILY_ID)
      ?.readUInt16LE(0) ?? 0
  );
}

/** What a device of the socket's namespace holds. Fault `kernel`, ENODEV when there is none. */
export function readDevice(socket: NetlinkSocket, family: number, link: string): DeviceState {
  const body = Buffer.concat([header(WG_CMD_GET_DEVICE), text(WGDEVICE_A_IFNAME, link)]);
  return decodeDevice(
    socket.dump({ type: family, flags: NLM_F_DUMP, body, action: `read wireguard device ${link}` }).map((message) => message.body),
  );
}

/** Applies a change to a device of the socket's namespace. Fault `kernel`; what was written before the refusal stays. */
export function writeDevice(socket: NetlinkSocket, family: number, link: string, change: DeviceChange): void {
  for (const body of encodeChange(link, change)) socket.request({ type: family, body, action: `configure wireguard device ${link}` });
}

/** A device without a private key has this one, of 32 zero bytes. */
export const noPublicKey: string = Buffer.alloc(32).toString('base64');

/** Listening port and number of peers need no key; this says whether the device was given one. */
export const hasKey = (state: DeviceState): boolean => state.publicKey !== '' && state.publicKey !== noPublicKey;
