// The carriage `bgp-cross-subnet` where it matters: two Docker hosts on one subnet, a third behind a router that knows nothing of
// containers. What is asserted is what tcpdump sees on the hosts' switch ports.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { findBird } from '#kernel/bird.ts';
import { until } from '#lab/until.ts';
import { Capture, tcpdump } from './capture.ts';
import { type DockerBed, makeDockerBed } from './docker-bed.ts';

const skip = findBird() === undefined ? 'missing: bird' : false;
const patience = { timeoutMs: 120_000, intervalMs: 250 };
let bed: DockerBed;

before(async () => {
  if (skip !== false) return;
  bed = await makeDockerBed('e2e-calico-subnets', 3, { beyond: 1 });
  await bed.createNetwork('routed', '--model', 'calico', '--carry', 'bgp-cross-subnet', '--subnet', '10.95.0.0/16');
  for (const on of [1, 2, 3]) await bed.start(on, `box${on}`, 'routed');
});
after(() => (skip === false ? bed[Symbol.asyncDispose]() : undefined));

const ipOf = async (on: number): Promise<string> => (await bed.addresses(on, `box${on}`, 'routed')).ip;
const routes = (on: number, ...which: readonly string[]): Promise<string> => bed.host(on).ask(['ip', 'route', 'show', ...which]);

/** What comes by a host's port to a container there while another one pings it: as it is, and in VXLAN. */
async function seen(from: number, to: number, target: string): Promise<{ readonly plain: string; readonly tunnelled: string }> {
  const port = `p-${bed.host(to).name}`;
  await using plain = await Capture.start(bed.lab.underlay.spawn(tcpdump('-i', port, `icmp and dst host ${target}`)));
  await using tunnelled = await Capture.start(
    // With VXLAN's flag, which probes between hosts have not.
    bed.lab.underlay.spawn(tcpdump('-i', port, `udp port 8472 and udp[8] & 8 != 0 and src host ${bed.host(from).address}`)),
  );
  await bed.in(from, `box${from}`, 'ping', '-c3', '-W1', target);
  await until('tcpdump to have seen it', () => plain.text !== '' || tunnelled.text !== '', patience);
  return { plain: plain.text, tunnelled: tunnelled.text };
}

test('packets within a subnet are plain, those to a host behind a router are in VXLAN, both ways', { skip }, async () => {
  const [one, two, three] = [await ipOf(1), await ipOf(2), await ipOf(3)];
  await until('host1 to learn of box2', async () => (await routes(1, 'proto', 'bird')).includes(`via ${bed.host(2).address}`), patience);
  for (const [from, to, target] of [
    [1, 2, two],
    [2, 1, one],
  ] as const) {
    const { plain, tunnelled } = await seen(from, to, target);
    assert.match(plain, /ICMP echo request/);
    assert.equal(tunnelled, '');
  }
  for (const [from, to, target] of [
    [1, 3, three],
    [3, 2, two],
  ] as const) {
    const { plain, tunnelled } = await seen(from, to, target);
    assert.equal(plain, '', `${from} to ${to}`);
    assert.notEqual(tunnelled, '');
  }
});

test('the router needs to know nothing, hosts speak BGP within their subnet only, and large packets fit either way', { skip }, async () => {
  assert.doesNotMatch(await bed.lab.outside.ask(['ip', 'route']), /10\.95\./);
  const protocols = async (on: number): Promise<string> =>
    bed.host(on).ask(['birdc', '-s', '/run/causeway/bird/bird.ctl', 'show', 'protocols']);
  assert.match(await protocols(1), /^mesh4_host2 .*Established/m);
  assert.doesNotMatch(await protocols(1), /host3/);
  assert.doesNotMatch(await protocols(3), /BGP/);
  assert.match(await routes(1), /^10\.95\.\S+ via 100\.126\.\S+ dev cwx\d+ /m);
  for (const on of [2, 3]) await bed.in(1, 'box1', 'ping', '-c1', '-W1', '-s', '3000', await ipOf(on));
});

test('hosts reach containers, and containers the world, from either subnet', { skip }, async () => {
  for (const on of [1, 3])
    for (const to of [1, 2, 3])
      await until(
        `host${on} to reach box${to}`,
        async () => (await bed.host(on).exec(['ping', '-c1', '-W1', await ipOf(to)], { anyStatus: true })).status === 0,
        patience,
      );
  for (const on of [1, 3]) assert.equal(await bed.in(on, `box${on}`, 'wget', '-qO-', 'http://internet.example/'), bed.host(on).address);
});
