import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import type { WireguardConfig } from '#model/desired.ts';
import type { Cidr, Ip } from '#model/ip.ts';
import { changeOf, type DeviceState, endpointText, madeBy, parseEndpoint, sameConfig } from './wireguard-config.ts';
import { generateKeyPair, loadKeyPair, publicKeyOf, takeKey } from './wireguard-keys.ts';
import { decodeDevice, encodeChange, hasKey, noPublicKey } from './wireguard-netlink.ts';
import { parseAnswer, setRequest } from './wireguard-uapi.ts';

const one = Buffer.alloc(32, 1).toString('base64');
const two = Buffer.alloc(32, 2).toString('base64');
const three = Buffer.alloc(32, 3).toString('base64');
const hexOf = (key: string): string => Buffer.from(key, 'base64').toString('hex');
const keys = { privateKey: one, publicKey: publicKeyOf(one) };

const peer = (publicKey: string, last: number, ...allowed: string[]) => ({
  publicKey,
  endpoint: { ip: `192.0.2.${last}` as Ip, port: 51820 },
  allowed: allowed as Cidr[],
});
/** Of a peer that nothing was heard of yet. */
const unknown = { hasAgreed: false, received: 0 };
const config = (...peers: ReturnType<typeof peer>[]): WireguardConfig => ({ netns: 'cw-a', link: 'cww5', port: 51820, peers });
const stateOf = ({ port, peers }: WireguardConfig): DeviceState => ({
  publicKey: keys.publicKey,
  port,
  peers: peers.map((item) => ({ publicKey: item.publicKey, endpoint: endpointText(item), allowed: item.allowed, ...unknown })),
});

test('keys agree with wg', (t) => {
  assert.equal(publicKeyOf(one), 'pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk=');
  const pair = generateKeyPair();
  assert.equal(publicKeyOf(pair.privateKey), pair.publicKey);
  const wg = spawnSync('wg', ['pubkey'], { input: pair.privateKey, encoding: 'utf8' });
  if (wg.error !== undefined) t.skip('no wg(8) here');
  else assert.equal(wg.stdout.trim(), pair.publicKey);
});

test('a private key is made once, for its owner alone, and never overwritten but by one that is taken over', () => {
  const directory = mkdtempSync(`${tmpdir()}/cw-key-`);
  try {
    const path = `${directory}/wireguard.key`;
    const made = loadKeyPair(path);
    assert.deepEqual(loadKeyPair(path), made);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    for (const bad of ['', 'nonsense', one.slice(1), `${one} ${two}`]) {
      writeFileSync(path, bad);
      assert.throws(() => loadKeyPair(path), { code: 'corrupt' });
    }
    assert.throws(() => loadKeyPair(`${directory}/no/such/directory`));
    const theirs = `${directory}/wgkey`;
    assert.equal(takeKey(theirs, path), false, 'there is none to take');
    writeFileSync(theirs, one);
    assert.equal(takeKey(theirs, path), true);
    assert.deepEqual([loadKeyPair(path).privateKey, statSync(path).mode & 0o777], [one, 0o600]);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('only what differs is written, so other peers keep their sessions', () => {
  const before = config(peer(two, 2, '10.2.0.0/24'), peer(three, 3, '10.3.0.0/24', 'fd00::/64'));
  assert.equal(changeOf(before, keys, stateOf(before)), undefined);
  const reordered = config(peer(three, 3, 'fd00::/64', '10.3.0.0/24'), peer(two, 2, '10.2.0.0/24'));
  assert.equal(changeOf(reordered, keys, stateOf(before)), undefined);
  assert.ok(sameConfig(reordered, before));
  const moved = config(peer(two, 9, '10.2.0.0/24'), peer(three, 3, '10.3.0.0/24', 'fd00::/64'));
  assert.ok(!sameConfig(moved, before));
  assert.deepEqual(changeOf(moved, keys, stateOf(before)), {
    set: [{ publicKey: two, endpoint: '192.0.2.9:51820', allowed: ['10.2.0.0/24'] }],
    remove: [],
  });
  assert.deepEqual(changeOf(config(), keys, stateOf(before)), { set: [], remove: [two, three] });
  assert.deepEqual(changeOf(config(), { ...keys, publicKey: two }, stateOf(config())), { privateKey: one, set: [], remove: [] });
  assert.deepEqual(changeOf({ ...config(), port: 7 }, keys, stateOf(config())), { port: 7, set: [], remove: [] });
  const grown = changeOf(config(peer(two, 9, '10.2.0.0/24'), peer(one, 1)), keys, stateOf(before));
  assert.deepEqual(grown && madeBy(grown, stateOf(before)), [one], 'those that only change are not made');
});

test('endpoints of both families survive', () => {
  for (const ip of ['192.0.2.1', 'fd00::1'] as Ip[]) {
    const item = { ...peer(two, 1), endpoint: { ip, port: 7 } };
    assert.deepEqual(parseEndpoint(endpointText(item)), item.endpoint);
  }
  for (const text of ['', 'x:1', '192.0.2.1', '[fd00::1]']) assert.equal(parseEndpoint(text), undefined);
});

test('the text protocol: a change, and what a device answers', () => {
  const change = {
    privateKey: one,
    port: 7,
    set: [{ publicKey: two, endpoint: '[fd00::1]:7', allowed: ['10.2.0.0/24' as Cidr] }],
    remove: [three],
  };
  assert.equal(
    setRequest(change),
    `set=1\nprivate_key=${hexOf(one)}\nlisten_port=7\npublic_key=${hexOf(three)}\nremove=true\npublic_key=${hexOf(two)}\nendpoint=[fd00::1]:7\npersistent_keepalive_interval=65535\nreplace_allowed_ips=true\nallowed_ip=10.2.0.0/24\n\n`,
  );
  assert.match(setRequest({ privateKey: '', set: [], remove: [] }), /^set=1\nprivate_key=0{64}\n\n$/);
  const answer = `private_key=${hexOf(one)}\nlisten_port=7\npublic_key=${hexOf(two)}\npreshared_key=00\nprotocol_version=1\nendpoint=192.0.2.2:7\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=148\npersistent_keepalive_interval=0\nallowed_ip=10.2.0.0/24\nallowed_ip=fd00::/64\npublic_key=${hexOf(three)}\nlast_handshake_time_sec=1\nlast_handshake_time_nsec=0\nerrno=0\n\n`;
  assert.deepEqual(parseAnswer(answer, 'read'), {
    publicKey: keys.publicKey,
    port: 7,
    peers: [
      { publicKey: two, endpoint: '192.0.2.2:7', allowed: ['10.2.0.0/24', 'fd00::/64'], hasAgreed: false, received: 148 },
      { publicKey: three, endpoint: '', allowed: [], hasAgreed: true, received: 0 },
    ],
  });
  assert.throws(() => parseAnswer('errno=-98\n\n', 'write'), { code: 'kernel', errno: 'EADDRINUSE' });
  assert.throws(() => parseAnswer('listen_port=7\n', 'read'), { code: 'kernel', errno: 'EPROTO' });
});

test('the netlink codec: bytes of a small change', () => {
  const [body, ...others] = encodeChange('cww5', {
    port: 0x1234,
    set: [{ publicKey: two, endpoint: '192.0.2.2:51820', allowed: ['10.2.0.0/24' as Cidr] }],
    remove: [],
  });
  assert.equal(others.length, 0);
  assert.equal(
    body?.toString('hex'),
    [
      '01010000', // WG_CMD_SET_DEVICE, version 1
      '090002006377773500000000', // WGDEVICE_A_IFNAME "cww5\0", padded
      '0600060034120000', // WGDEVICE_A_LISTEN_PORT
      '70000880', // WGDEVICE_A_PEERS, nested, 112 bytes
      '6c000080', // the peer, nested, 108 bytes
      `24000100${'02'.repeat(32)}`, // WGPEER_A_PUBLIC_KEY
      '0800030002000000', // WGPEER_A_FLAGS, REPLACE_ALLOWEDIPS
      '140004000200ca6cc00002020000000000000000', // WGPEER_A_ENDPOINT, sockaddr_in
      '06000500ffff0000', // WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
      '20000980', // WGPEER_A_ALLOWEDIPS, nested
      '1c000080', // one address, nested
      '0600010002000000', // AF_INET
      '080002000a020000', // 10.2.0.0
      '0500030018000000', // /24
    ].join(''),
  );
});

test('the netlink codec: what the kernel knows of a peer', () => {
  // WG_CMD_GET_DEVICE; WGDEVICE_A_PEERS with one peer: its key, WGPEER_A_LAST_HANDSHAKE_TIME, WGPEER_A_RX_BYTES.
  const head = `000100004c0008804800008024000100${'02'.repeat(32)}14000600`;
  const tail = `${'00'.repeat(12)}0c0007009400000000000000`;
  const read = (seconds: string) => decodeDevice([Buffer.from(`${head}${seconds}${tail}`, 'hex')]).peers;
  const found = { publicKey: two, endpoint: '', allowed: [], received: 148 };
  assert.deepEqual(read('00000000'), [{ ...found, hasAgreed: false }]);
  assert.deepEqual(read('78563412'), [{ ...found, hasAgreed: true }]);
});

test('the netlink codec: what is written reads back, however many messages it takes', () => {
  const allowed = Array.from({ length: 1300 }, (_, index) => `10.${index >> 8}.${index & 255}.0/24` as Cidr);
  const set = [
    { publicKey: two, endpoint: '192.0.2.2:51820', allowed },
    { publicKey: three, endpoint: '[fd00::3]:51821', allowed: ['fd00:3::/64' as Cidr] },
  ];
  const bodies = encodeChange('cww5', { port: 51820, set, remove: [] });
  assert.ok(bodies.length > 1);
  for (const body of bodies) assert.ok(body.length < 0xffff);
  assert.deepEqual(decodeDevice(bodies), { publicKey: '', port: 51820, peers: set.map((item) => ({ ...item, ...unknown })) });
  assert.ok(!hasKey({ publicKey: noPublicKey, port: 0, peers: [] }));
});
