// The cross-platform configuration protocol of userspace WireGuard (https://www.wireguard.com/xplatform/): lines of
// `key=value` over a unix stream socket, an empty line ends a request and its answer. Keys are in hexadecimal.
import { Fault } from '#model/fault.ts';
import type { Cidr } from '#model/ip.ts';
import { errnoName, kernelFault } from './libc.ts';
import { talk } from './unix-talk.ts';
import { keyBytes, publicKeyOf } from './wireguard-keys.ts';
import { type DeviceChange, type DeviceState, type FoundPeer, greetingInterval } from './wireguard-config.ts';

const hex = (key: string): string => (key === '' ? '0'.repeat(64) : keyBytes(key).toString('hex'));
const base64 = (key: string): string => Buffer.from(key, 'hex').toString('base64');

export const getRequest = 'get=1\n\n';

/** The request that applies a change. */
export function setRequest(change: DeviceChange): string {
  return [
    'set=1',
    ...(change.privateKey === undefined ? [] : [`private_key=${hex(change.privateKey)}`]),
    ...(change.port === undefined ? [] : [`listen_port=${change.port}`]),
    ...change.remove.flatMap((key) => [`public_key=${hex(key)}`, 'remove=true']),
    ...change.set.flatMap(({ publicKey, endpoint, allowed }) => [
      `public_key=${hex(publicKey)}`,
      ...(endpoint === '' ? [] : [`endpoint=${endpoint}`]),
      `persistent_keepalive_interval=${greetingInterval}`,
      'replace_allowed_ips=true',
      ...allowed.map((cidr) => `allowed_ip=${cidr}`),
    ]),
    '\n',
  ].join('\n');
}

interface Draft extends FoundPeer {
  endpoint: string;
  hasAgreed: boolean;
  received: number;
  readonly allowed: Cidr[];
}

/** Takes in one line about a peer. */
function learn(peer: Draft, key: string, value: string): void {
  if (key === 'endpoint') peer.endpoint = value;
  else if (key === 'allowed_ip') peer.allowed.push(value as Cidr);
  else if (key.startsWith('last_handshake_time_') && value !== '0') peer.hasAgreed = true;
  else if (key === 'rx_bytes') peer.received = Number(value);
}

/** Reads an answer. Fault `kernel` with the errno it carries. */
export function parseAnswer(answer: string, action: string): DeviceState {
  const peers: Draft[] = [];
  let state = { publicKey: '', port: 0 };
  let errno: number | undefined;
  for (const line of answer.split('\n')) {
    const [, key = '', value = ''] = /^([a-z_0-9]+)=(.*)$/.exec(line) ?? [];
    const peer = peers.at(-1);
    if (key === 'private_key') state = { ...state, publicKey: publicKeyOf(base64(value)) };
    else if (key === 'listen_port') state = { ...state, port: Number(value) };
    else if (key === 'public_key') peers.push({ publicKey: base64(value), endpoint: '', allowed: [], hasAgreed: false, received: 0 });
    else if (key === 'errno') errno = Math.abs(Number(value));
    else if (peer !== undefined) learn(peer, key, value);
  }
  if (errno === undefined) throw new Fault('kernel', `Cannot ${action}: EPROTO (the answer is cut off)`, { errno: 'EPROTO' });
  if (errno !== 0) throw kernelFault(action, errnoName(errno));
  return { ...state, peers };
}

/** One request and its answer, synchronously; at most two seconds. Fault `kernel`, with errno ECONNREFUSED or ENOENT when nobody listens. */
export const exchange = (path: string, request: string, action: string): DeviceState =>
  parseAnswer(
    talk(path, request, action, (answer) => answer.endsWith('\n\n')),
    action,
  );
