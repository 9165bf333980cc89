// The model that hosts take part in: one range over all hosts, routed by each host itself, by whichever way packets are carried.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { inspectContainer } from '#lab/engine-api.ts';
import { outsideAddress } from '#lab/underlay.ts';
import { until } from '#lab/until.ts';
import { pingingFrom } from './carriage-streams.ts';
import { type DockerBed, makeDockerBed } from './docker-bed.ts';

let bed: DockerBed;
const patience = { timeoutMs: 90_000, intervalMs: 100 };
const serve = [
  'sh',
  '-c',
  `mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' >/www/cgi-bin/who; chmod +x /www/cgi-bin/who; exec httpd -f -p 0.0.0.0:80 -h /www`,
];

before(async () => {
  bed = await makeDockerBed('e2e-flannel');
});
afterEach(() => bed.clear());
after(() => bed[Symbol.asyncDispose]());

const who = (address: string): string => `http://${address}/cgi-bin/who`;

/** The client that a page on a host saw, waited for. */
const asked = (index: number | 'outside', address: string): Promise<string> =>
  until(
    `${address} to answer ${index === 'outside' ? 'the outside' : `host${index}`}`,
    () => (index === 'outside' ? bed.lab.outside : bed.host(index)).ask(['busybox', 'wget', '-T', '2', '-qO-', who(address)]),
    patience,
  ).then((text) =>
    text
      .trim()
      .replace(/^\[?::ffff:/, '')
      .replace(/\]$/, ''),
  );

for (const carry of ['vxlan', 'direct-routing', 'host-gateway', 'bgp', 'wireguard'] as const) {
  test(`carried by ${carry}: containers, hosts and the outside reach each other as they should`, async () => {
    await bed.createNetwork('flat', '--model', 'flannel', '--carry', carry, '--subnet', '10.90.0.0/16');
    for (const on of [1, 2, 3]) await bed.run(on, `box${on}`, 'flat', on === 1 ? ['--publish=8600:80'] : [], serve);
    const ips = await Promise.all([1, 2, 3].map(async (on) => (await bed.addresses(on, `box${on}`, 'flat')).ip));
    const [one = '', two = '', three = ''] = ips;
    // One large block per host.
    assert.equal(new Set(ips.map((ip) => ip.split('.').slice(0, 3).join('.'))).size, 3);
    for (const on of [1, 2, 3]) for (const target of [1, 2, 3]) await bed.ping(on, `box${on}`, `box${target}`);
    // Between containers nobody's address is changed.
    assert.equal(await bed.in(1, 'box1', 'wget', '-qO-', who('box2')), one);
    assert.equal(await bed.in(3, 'box3', 'wget', '-qO-', who('box2')), three);
    // Hosts reach containers, here and there; through WireGuard only here, as its keys admit no addresses but containers'.
    for (const [on, ip] of [
      [1, one],
      [1, two],
      [2, three],
    ] as const) {
      if (carry !== 'wireguard' || ip === one) await asked(on, ip);
    }
    // Published: the outside client keeps its address; hairpin; from another host's container.
    assert.equal(await asked('outside', `${bed.host(1).address}:8600`), outsideAddress);
    await asked(1, '127.0.0.1:8600');
    assert.equal(await asked(2, `${bed.host(1).address}:8600`), bed.host(2).address);
    for (const on of [1, 2]) await bed.in(on, `box${on}`, 'wget', '-T', '2', '-qO-', who(`${bed.host(1).address}:8600`));
    // The way out is by the host's address.
    for (const on of [1, 2]) assert.equal(await bed.in(on, `box${on}`, 'wget', '-qO-', 'http://internet.example/'), bed.host(on).address);
  });
}

test('beside an isolated network, and another flat one, with names and addresses of their own, none sees another', async () => {
  await bed.createNetwork('flat', '--model', 'flannel', '--subnet', '10.91.0.0/16');
  await bed.createNetwork('alone', '--subnet', '10.92.0.0/24');
  await bed.createNetwork('other', '--model', 'flannel', '--subnet', '10.97.0.0/16', '--carry', 'host-gateway');
  await bed.run(1, 'other1', 'other', [], serve);
  await bed.start(2, 'other2', 'other');
  await bed.run(1, 'flat1', 'flat', [], serve);
  await bed.run(1, 'alone1', 'alone', [], serve);
  await bed.start(2, 'flat2', 'flat');
  await bed.start(2, 'alone2', 'alone');
  await bed.ping(2, 'flat2', 'flat1');
  await bed.ping(2, 'alone2', 'alone1');
  const { ip: flat } = await bed.addresses(1, 'flat1', 'flat');
  const { ip: alone } = await bed.addresses(1, 'alone1', 'alone');
  const { ip: other } = await bed.addresses(1, 'other1', 'other');
  await bed.ping(2, 'other2', other);
  for (const [index, name, target] of [
    [1, 'flat1', alone],
    [2, 'flat2', alone],
    [1, 'alone1', flat],
    [2, 'alone2', flat],
    [2, 'alone2', 'flat1'],
    [2, 'flat2', 'alone1'],
    [1, 'flat1', other],
    [2, 'flat2', other],
    [1, 'other1', flat],
    [2, 'other2', flat],
    [2, 'other2', 'flat1'],
  ] as const) {
    assert.notEqual((await bed.tryIn(index, name, 'wget', '-T', '1', '-qO-', who(target))).status, 0, `${name} reaches ${target}`);
  }
});

test('while Docker makes networks of its own, for which it takes its rules of forwarding apart, no packet is lost', async () => {
  await bed.createNetwork('flat', '--model', 'flannel', '--carry', 'direct-routing', '--subnet', '10.98.0.0/16');
  for (const on of [1, 2]) await bed.start(on, `flat${on}`, 'flat');
  const { ip } = await bed.addresses(2, 'flat2', 'flat');
  await bed.ping(1, 'flat1', ip);
  const { pid } = await inspectContainer(bed.host(1), 'flat1');
  const stop = pingingFrom(bed.host(1), (line) => ['nsenter', `--target=${pid}`, '--net', '--', 'sh', '-c', line], ip);
  for (let round = 0; round < 5; round++) {
    for (const on of [1, 2]) await bed.docker(on, 'network', 'create', 'own');
    for (const on of [1, 2]) await bed.docker(on, 'network', 'rm', 'own');
  }
  const { sent, lost } = await stop();
  assert.ok(sent > 500, `only ${sent} packets were sent`);
  assert.equal(lost, 0);
});

test('beside Docker’s bridges: neither side enters the other but by published ports', async () => {
  await bed.createNetwork('flat', '--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.96.0.0/16');
  await bed.run(1, 'flat1', 'flat', ['--publish=8610:80'], serve);
  await bed.run(2, 'flat2', 'flat', [], serve);
  await bed.run(1, 'bridge1', 'bridge', ['--publish=8611:80'], serve);
  const { ip: flat } = await bed.addresses(1, 'flat1', 'flat');
  const { ip: far } = await bed.addresses(2, 'flat2', 'flat');
  const { ip: bridge } = await bed.addresses(1, 'bridge1', 'bridge');
  const host = bed.host(1).address;
  for (const name of ['flat1', 'bridge1'])
    for (const port of [8610, 8611]) await bed.in(1, name, 'wget', '-T', '2', '-qO-', who(`${host}:${port}`));
  await bed.in(1, 'flat1', 'wget', '-T', '2', '-qO-', who(far));
  for (const [name, target] of [
    ['flat1', bridge],
    ['bridge1', flat],
    ['bridge1', far],
  ] as const) {
    assert.notEqual((await bed.tryIn(1, name, 'wget', '-T', '1', '-qO-', who(target))).status, 0, `${name} reaches ${target}`);
  }
});

test('ranges that would meet another flat network, the underlay or a route of a host are refused with the reason', async () => {
  await bed.createNetwork('flat', '--model', 'flannel', '--subnet', '10.93.0.0/16');
  for (const [subnet, reason] of [
    ['10.93.128.0/17', /10\.93\.128\.0\/17 overlaps 10\.93\.0\.0\/16 of network flat/],
    ['10.213.0.0/16', /overlaps the underlay/],
    ['172.17.0.0/20', /overlaps the Docker bridge 172\.17\.0\.0\/16 of host host/],
  ] as const) {
    const output = await bed.tryCauseway('network', 'create', 'wrong', '--model', 'flannel', '--subnet', subnet);
    assert.equal(output.status, 4, output.stderr);
    assert.match(output.stderr, reason);
    assert.match(
      await bed.refused(1, 'network', 'create', '--driver=causeway', '--opt=model=flannel', `--subnet=${subnet}`, 'wrong'),
      /overlaps/,
    );
  }
});
