// What must not pass: packets between networks, from forged addresses, from and to Docker's own bridges, readable on the wire,
// or larger than the MTU that was promised. Every refusal stands beside the same thing allowed, so that a test that is broken
// itself cannot look like isolation.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { until } from '#lab/until.ts';
import { Capture, tcpdump } from './capture.ts';
import { type DockerBed, makeDockerBed, perlImage } from './docker-bed.ts';

let bed: DockerBed;
const patience = { timeoutMs: 90_000, intervalMs: 100 };
const serve = ['sh', '-c', 'mkdir /www; hostname >/www/name; exec httpd -f -p 80 -h /www'];

before(async () => {
  bed = await makeDockerBed('e2e-isolation');
});
afterEach(() => bed.clear());
after(() => bed[Symbol.asyncDispose]());

const page = (index: number, name: string, address: string): Promise<string> =>
  bed.in(index, name, 'wget', '-T', '2', '-qO-', `http://${address}/name`);
const noPage = async (index: number, name: string, address: string): Promise<void> => {
  const { status, stdout } = await bed.tryIn(index, name, 'wget', '-T', '1', '-qO-', `http://${address}/name`);
  assert.notEqual(status, 0, `${name} got ${stdout.trim()} from ${address}`);
};

/** Number of a container's first process as its host counts. */
const pidOf = (index: number, name: string): Promise<string> => bed.docker(index, 'inspect', '--format', '{{.State.Pid}}', name);

/** Runs a program of the machine in a container's network namespace. */
async function inNetns(index: number, name: string, argv: readonly string[]): Promise<{ status: number; stdout: string }> {
  return bed.host(index).exec(['nsenter', `--target=${await pidOf(index, name)}`, '--net', '--', ...argv], { anyStatus: true });
}

test('two networks with one range side by side: the same addresses, and each container reaches its own neighbours only', async () => {
  for (const name of ['red', 'blue']) await bed.createNetwork(name, '--subnet', '10.70.0.0/24', '--subnet', 'fd00:70::/64');
  for (const name of ['red', 'blue']) {
    await bed.run(1, `${name}1`, name, ['--ip=10.70.0.11', '--ip6=fd00:70::11', `--hostname=${name}1`], serve);
    await bed.run(2, `${name}2`, name, ['--ip=10.70.0.12', '--ip6=fd00:70::12', `--hostname=${name}2`], serve);
  }
  await bed.run(3, 'only', 'red', ['--ip=10.70.0.13', '--ip6=fd00:70::13', '--hostname=only'], serve);
  for (const name of ['red', 'blue']) {
    for (const [target, address] of [
      [`${name}1`, '10.70.0.11'],
      [`${name}2`, '10.70.0.12'],
      [`${name}1`, '[fd00:70::11]'],
      [`${name}2`, '[fd00:70::12]'],
    ] as const) {
      for (const on of [1, 2]) assert.equal(await page(on, `${name}${on}`, address), target);
    }
  }
  assert.equal(await page(1, 'red1', '10.70.0.13'), 'only');
  for (const address of ['10.70.0.13', '[fd00:70::13]']) await noPage(1, 'blue1', address);
});

const gatewayMac = '026377ffff01';
const hex = (number: number, digits: number): string => number.toString(16).padStart(digits, '0');
const hexOf = (ip: string): string =>
  ip
    .split('.')
    .map((part) => hex(Number(part), 2))
    .join('');

/** One's complement sum over 16-bit words (RFC 1071). */
function checksum(digits: string): string {
  let sum = 0;
  for (let at = 0; at < digits.length; at += 4) sum += Number.parseInt(digits.slice(at, at + 4), 16);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return hex(~sum & 0xffff, 4);
}

/** An Ethernet frame with an ICMP echo request in it. */
function frame({ mac, from, to, mark }: { mac: string; from: string; to: string; mark: number }): string {
  const icmp = (sum: string): string => `0800${sum}${hex(mark, 4)}0001${'61'.repeat(16)}`;
  const body = icmp(checksum(icmp('0000')));
  const header = (sum: string): string => `4500${hex(20 + body.length / 2, 4)}000040004001${sum}${hexOf(from)}${hexOf(to)}`;
  return `${gatewayMac}${mac.replaceAll(':', '')}0800${header(checksum(header('0000')))}${body}`;
}

test('frames with a forged address or MAC do not leave the container’s link, nor does an address that it gives itself', async () => {
  await bed.createNetwork('guarded', '--subnet', '10.71.0.0/24');
  await bed.startImage(1, 'mallory', 'guarded', perlImage, '--cap-add=NET_ADMIN', '--cap-add=NET_RAW', '--ip=10.71.0.66');
  await bed.start(1, 'near', 'guarded', '--ip=10.71.0.11');
  await bed.start(2, 'far', 'guarded', '--ip=10.71.0.12');
  const { mac } = await bed.addresses(1, 'mallory', 'guarded');
  const other = await bed.addresses(1, 'near', 'guarded');
  for (const target of ['near', 'far']) await bed.ping(1, 'mallory', target);
  await bed.ping(2, 'far', '10.71.0.11');
  for (const [index, name, to] of [
    [1, 'near', '10.71.0.11'],
    [2, 'far', '10.71.0.12'],
  ] as const) {
    const netns = ['nsenter', `--target=${await pidOf(index, name)}`, '--net', '--'];
    await using capture = await Capture.start(
      bed.host(index).spawn([...netns, ...tcpdump('-i', 'eth0', '-vv', 'icmp[icmptype]=icmp-echo')]),
    );
    const send = (options: { mac: string; from: string; mark: number }): Promise<string> =>
      bed.docker(1, 'exec', 'mallory', 'send-frame', frame({ to, ...options }));
    await send({ mac, from: '10.71.0.99', mark: 1 });
    await send({ mac, from: name === 'far' ? '10.71.0.11' : '10.71.0.12', mark: 2 });
    await send({ mac: other.mac, from: '10.71.0.66', mark: 3 });
    await send({ mac: other.mac, from: '10.71.0.11', mark: 4 });
    await send({ mac: '02:00:00:00:00:01', from: '10.71.0.66', mark: 5 });
    await send({ mac, from: '127.0.0.1', mark: 6 });
    await send({ mac, from: '169.254.1.1', mark: 7 });
    await send({ mac, from: '10.71.0.66', mark: 4242 });
    await until('the honest frame to arrive', () => capture.text.includes('id 4242'), patience);
    assert.deepEqual(
      [...capture.text.matchAll(/echo request, id (\d+)/g)].map(([, id]) => id),
      ['4242'],
    );
  }
  // An address of its own choice, or another's.
  for (const stolen of ['10.71.0.99', '10.71.0.12', '10.71.0.11']) {
    await bed.docker(1, 'exec', 'mallory', 'ip', 'address', 'add', `${stolen}/32`, 'dev', 'eth0');
    for (const target of ['10.71.0.11', '10.71.0.12'].filter((ip) => ip !== stolen)) {
      assert.notEqual((await bed.tryIn(1, 'mallory', 'ping', '-c1', '-W1', '-I', stolen, target)).status, 0, `${stolen} to ${target}`);
    }
    await bed.docker(1, 'exec', 'mallory', 'ip', 'address', 'delete', `${stolen}/32`, 'dev', 'eth0');
  }
  // A MAC of its own choice; back again it may speak.
  await bed.docker(1, 'exec', 'mallory', 'sh', '-c', 'ip link set eth0 address 02:00:00:00:00:01');
  assert.notEqual((await bed.tryIn(1, 'mallory', 'ping', '-c1', '-W1', '10.71.0.12')).status, 0);
  await bed.docker(1, 'exec', 'mallory', 'sh', '-c', `ip link set eth0 address ${mac}`);
  await bed.ping(2, 'far', '10.71.0.11');
});

test('our networks and Docker’s bridges reach each other by published ports only', async () => {
  await bed.createNetwork('ours');
  await bed.createNetwork('second');
  await bed.run(1, 'ours1', 'ours', ['--publish=8501:80', '--hostname=ours1'], serve);
  await bed.run(1, 'second1', 'second', ['--hostname=second1'], serve);
  await bed.run(1, 'bridge1', 'bridge', ['--publish=8502:80', '--hostname=bridge1'], serve);
  await bed.docker(1, 'network', 'create', 'plain');
  await bed.run(1, 'plain1', 'plain', ['--publish=8503:80', '--hostname=plain1'], serve);
  const host = bed.host(1).address;
  const { ip: ours } = await bed.addresses(1, 'ours1', 'ours');
  const { ip: second } = await bed.addresses(1, 'second1', 'second');
  const { ip: bridge } = await bed.addresses(1, 'bridge1', 'bridge');
  const { ip: plain } = await bed.addresses(1, 'plain1', 'plain');
  for (const port of [8501, 8502, 8503]) {
    for (const name of ['ours1', 'second1', 'bridge1', 'plain1']) await page(1, name, `${host}:${port}`);
  }
  for (const address of [bridge, plain, second]) await noPage(1, 'ours1', address);
  for (const name of ['bridge1', 'plain1']) for (const address of [ours, second]) await noPage(1, name, address);
  // By which a host reaches its own endpoints; from anywhere else they must not work.
  const transit = [...(await bed.host(1).ask(['ip', 'route', 'show', 'proto', '197'])).matchAll(/^(100\.127\.\S+)/gm)].map(
    ([, ip = '']) => ip,
  );
  assert.equal(transit.length, 2);
  for (const address of transit) for (const name of ['second1', 'bridge1', 'plain1']) await noPage(1, name, address);
  for (const address of transit) await noPageFrom(3, address);
});

/** A host that sends packets for another host's inner addresses straight to it. */
async function noPageFrom(index: number, address: string): Promise<void> {
  const host = bed.host(index);
  await host.exec(['ip', 'route', 'replace', `${address}/32`, 'via', bed.host(1).address]);
  const { status } = await host.exec(['busybox', 'wget', '-T', '1', '-qO-', `http://${address}/name`], { anyStatus: true });
  await host.exec(['ip', 'route', 'delete', `${address}/32`]);
  assert.notEqual(status, 0, `host${index} reaches ${address}`);
}

test('what an encrypted network carries cannot be read on the wire, and what another one carries can', async () => {
  await bed.createNetwork('clear');
  await bed.createNetwork('secret', '--encrypted', '--ipv6');
  const mark = 'attack-at-dawn';
  for (const name of ['clear', 'secret']) {
    await bed.run(1, `${name}1`, name, [`--hostname=${name}1`], serve);
    await bed.start(2, `${name}2`, name);
  }
  const { ip, ip6 } = await bed.addresses(1, 'secret1', 'secret');
  for (const address of ['clear1', 'secret1']) await page(2, address.replace('1', '2'), address);
  await using capture = await Capture.start(bed.lab.underlay.spawn(tcpdump('-i', 'wire', '-A', '-s0')));
  const ask = (name: string, address: string): Promise<unknown> =>
    bed.tryIn(2, name, 'wget', '-T', '2', '-qO-', `http://${address}/${mark}`);
  for (const address of [ip, `[${ip6}]`, 'secret1']) await ask('secret2', address);
  for (const target of [ip, ip6]) await bed.in(2, 'secret2', 'ping', '-c1', '-W1', '-p', '5a', target);
  await until('the wire to show the tunnel', () => / UDP, length /.test(capture.text), patience);
  assert.ok(!capture.text.includes(mark));
  assert.ok(!capture.text.includes('Z'.repeat(20)));
  assert.doesNotMatch(capture.text, new RegExp(`${ip.replaceAll('.', '\\.')}[. ]`));
  await ask('clear2', 'clear1');
  await until('the wire to show clear text', () => capture.text.includes(mark), patience);
});

for (const [what, options, mtu] of [
  ['VXLAN', [], 1400],
  ['WireGuard', ['--encrypted'], 1376],
  ['a bound of its own', ['--mtu', '1300'], 1300],
  ['plain routing', ['--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.72.0.0/20'], 1450],
] as const) {
  test(`with ${what} a packet of ${mtu} bytes passes undivided between hosts on an underlay of 1450, and one of ${mtu + 1} does not`, async () => {
    await bed.createNetwork('sized', ...options);
    await bed.start(1, 'here', 'sized');
    await bed.start(2, 'there', 'sized');
    await bed.ping(1, 'here', 'there');
    const { ip } = await bed.addresses(2, 'there', 'sized');
    const ping = (size: number): Promise<{ status: number; stdout: string }> =>
      inNetns(1, 'here', ['ping', '-c1', '-w20', '-Mdo', `-s${size - 28}`, ip]);
    assert.match(await bed.in(1, 'here', 'ip', 'link', 'show', 'eth0'), new RegExp(`mtu ${mtu} `));
    assert.equal((await ping(mtu)).status, 0);
    assert.notEqual((await ping(mtu + 1)).status, 0);
    const { mtu: sums } = await bed.json<{ mtu: { mtu: number }[] }>('explain', 'network', 'sized');
    assert.deepEqual(
      sums.map((sum) => sum.mtu),
      [mtu],
    );
    // A large transfer both ways, and on the way out into the world, where the underlay's MTU counts.
    await bed.docker(2, 'exec', '--detach', 'there', 'sh', '-c', 'head -c 3000000 /dev/zero >/big; httpd -f -p 80 -h /');
    assert.equal(await bed.in(1, 'here', 'sh', '-c', 'wget -T 5 -qO- http://there/big | wc -c'), '3000000');
    await bed.in(1, 'here', 'wget', '-T', '2', '-qO-', 'http://198.51.100.10/');
  });
}
