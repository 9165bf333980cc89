import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Cidr, type Ip, type Mac, parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { decodeMessages, encodeMessage, type Message } from './codec.ts';
import * as recorded from './recorded.fixture.ts';
import * as rtnl from './rtnl.ts';
import * as uapi from './uapi.ts';

function only(bytes: Buffer): Message {
  const [message, ...others] = decodeMessages(bytes);
  assert.ok(message !== undefined && others.length === 0, 'one message');
  return message;
}
const bodyOf = (bytes: Buffer): Buffer => only(bytes).body;
const bodies = (bytes: Buffer): Buffer[] => decodeMessages(bytes).flatMap(({ type, body }) => (type === uapi.NLMSG_DONE ? [] : [body]));
const again = (recording: Buffer, body: Buffer): string => encodeMessage({ ...only(recording), body }).toString('hex');

const ip = (text: string): Ip => parseIp(text);
const cidr = (text: string): Cidr => parseCidr(text);
const mac = (text: string): Mac => parseMac(text);

test('a veth is asked for as ip does', () => {
  const info = rtnl.vethInfo({ name: 'cwt1', mtu: 1400, mac: mac('0a:63:0a:00:00:05') });
  const body = rtnl.encodeLink({ name: 'cwe1', mtu: 1400, mac: mac('02:63:77:ff:ff:01'), info });
  const expected = rtnl.decodeLink(bodyOf(recorded.vethAdd));
  assert.deepEqual(rtnl.decodeLink(body), expected);
  // ip(8) leaves out the NUL at the end of the kind.
  assert.equal(body.length, bodyOf(recorded.vethAdd).length + 4);
});

test('a vxlan is asked for as ip does', () => {
  const info = rtnl.vxlanInfo({ vni: 7, port: 8472, local: ip('192.0.2.1'), checksum: false, learning: false });
  const body = rtnl.encodeLink({ name: 'cwx7', info });
  assert.deepEqual(rtnl.decodeLink(body).vxlan, rtnl.decodeLink(bodyOf(recorded.vxlanAdd)).vxlan);
});

const routes: readonly { readonly name: string; readonly recording: Buffer; readonly route: rtnl.RouteChange }[] = [
  {
    name: 'to a block over IPv4',
    recording: recorded.routeAdd,
    route: { destination: cidr('10.7.0.0/24'), via: ip('100.126.0.2'), index: 4, onlink: true, type: 1, protocol: 197, mtu: 1350 },
  },
  {
    name: 'to a block over IPv6',
    recording: recorded.routeAdd6,
    route: { destination: cidr('fd01::/64'), via: ip('fe80::2'), index: 4, onlink: true, type: 1, protocol: 197 },
  },
  {
    name: 'to an endpoint',
    recording: recorded.routeAddLink,
    route: { destination: cidr('10.0.0.5/32'), index: 3, type: 1, protocol: 197 },
  },
  {
    name: 'that is unreachable',
    recording: recorded.routeAddUnreachable,
    route: { destination: cidr('10.8.0.0/16'), type: 7, protocol: 197 },
  },
];
for (const { name, recording, route } of routes) {
  test(`a route ${name} is asked for as ip does`, () => {
    const body = rtnl.encodeRoute(route);
    assert.deepEqual(rtnl.decodeRoute(body), rtnl.decodeRoute(bodyOf(recording)));
    assert.equal(body.subarray(0, 12).toString('hex'), bodyOf(recording).subarray(0, 12).toString('hex'));
    assert.equal(body.length, bodyOf(recording).length);
  });
}

test('a route is removed byte for byte as ip does', () => {
  const body = rtnl.encodeRoute({ destination: cidr('10.8.0.0/16'), protocol: 197 });
  assert.equal(again(recorded.routeDelete, body), recorded.routeDelete.toString('hex'));
});

test('a neighbour is asked for byte for byte as ip does', () => {
  const body = rtnl.encodeNeigh({ family: 2, index: 3, state: 0x80, flags: 0, ip: ip('10.0.0.5'), mac: mac('0a:63:0a:00:00:05') });
  assert.equal(again(recorded.neighAdd, body), recorded.neighAdd.toString('hex'));
});

test('a forwarding entry is asked for as bridge does, but only as permanent', () => {
  const entry = { family: 7, index: 4, state: 0x80, flags: 2, ip: ip('192.0.2.2'), mac: mac('02:63:77:00:00:02') };
  const asked = rtnl.decodeNeigh(bodyOf(recorded.fdbAdd));
  // bridge(8) adds NUD_NOARP.
  assert.deepEqual(rtnl.decodeNeigh(rtnl.encodeNeigh(entry)), { ...asked, state: asked.state & uapi.NUD_PERMANENT });
});

test('an IPv6 address is asked for as ip does, and with our protocol', () => {
  const body = rtnl.encodeAddress({ index: 3, ip: ip('fe80::1'), length: 64, protocol: 197, flags: uapi.IFA_F_NODAD });
  assert.deepEqual(rtnl.decodeAddress(body), { ...rtnl.decodeAddress(bodyOf(recorded.addressAdd)), protocol: 197 });
});

test('links are read', () => {
  const shared = { mtu: 1400, mac: '02:63:77:ff:ff:01', up: true, isPromiscuous: false, carrier: true };
  assert.deepEqual(rtnl.decodeLink(bodyOf(recorded.vethReply)), {
    ...shared,
    index: 3,
    name: 'cwe1',
    alias: 'causeway test',
    kind: 'veth',
  });
  assert.deepEqual(rtnl.decodeLink(bodyOf(recorded.vxlanReply)), {
    ...shared,
    index: 4,
    name: 'cwx7',
    mtu: 1500,
    mac: 'aa:76:e3:ad:5e:27',
    alias: '',
    kind: 'vxlan',
    vxlan: { vni: 7, port: 8472, local: '192.0.2.1', checksum: false, learning: false },
  });
});

test('addresses are read', () => {
  const found = bodies(recorded.addresses4).map((body) => rtnl.decodeAddress(body));
  assert.deepEqual(
    found.filter((address) => address?.index === 3).map((address) => `${address?.ip}/${address?.length} protocol ${address?.protocol}`),
    ['169.254.1.1/32 protocol 0', 'fe80::1/64 protocol 0', 'fe80::63:77ff:feff:ff01/64 protocol 3'],
  );
});

test('routes are read', () => {
  const plain = {
    via: undefined,
    onlink: false,
    type: 1,
    protocol: 197,
    mtu: undefined,
    source: undefined,
    table: 254,
    flags: 0,
    metric: 0,
  };
  assert.deepEqual(bodies(recorded.routes4).map(rtnl.decodeRoute), [
    { ...plain, destination: '10.0.0.5/32', index: 3 },
    { ...plain, destination: '10.7.0.0/24', index: 4, via: '100.126.0.2', onlink: true, mtu: 1350, flags: 4 },
  ]);
  assert.deepEqual(bodies(recorded.routes6).map(rtnl.decodeRoute), [
    { ...plain, destination: 'fd01::/64', index: 4, via: 'fe80::2', onlink: true, flags: 4, metric: 1024 },
  ]);
});

test('neighbours and forwarding entries are read', () => {
  assert.deepEqual(
    bodies(recorded.neighbours)
      .map((body) => rtnl.decodeNeigh(body))
      .filter(({ state }) => state === uapi.NUD_PERMANENT),
    [{ family: 2, index: 3, state: 0x80, flags: 0, ip: '10.0.0.5', mac: '0a:63:0a:00:00:05' }],
  );
  assert.deepEqual(
    bodies(recorded.forwarding).map((body) => rtnl.decodeNeigh(body)),
    [{ family: 7, index: 4, state: 0xc0, flags: 2, ip: '192.0.2.2', mac: '02:63:77:00:00:02' }],
  );
});

test('an IPv4 route may have an IPv6 next hop', () => {
  const body = rtnl.encodeRoute({ destination: cidr('10.7.0.0/24'), via: ip('fe80::2'), index: 4, type: 1, protocol: 197 });
  assert.equal(rtnl.decodeRoute(body).via, 'fe80::2');
});
