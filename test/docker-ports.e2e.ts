// Published ports, exposures and the way out: who reaches what from where, and whose address is seen.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import type { Host } from '#lab/host.ts';
import { importImages, sctpImage, sctpLine } from '#lab/images.ts';
import { outsideAddress, outsideAddress6 } from '#lab/underlay.ts';
import { until } from '#lab/until.ts';
import { askUdp } from './datagrams.ts';
import { type DockerBed, makeDockerBed, perlImage } from './docker-bed.ts';

let bed: DockerBed;
const patience = { timeoutMs: 90_000, intervalMs: 100 };

before(async () => {
  bed = await makeDockerBed('e2e-ports');
});
afterEach(() => bed.clear());
after(() => bed[Symbol.asyncDispose]());

/** Answers every request with the client's address and its own name. */
const web = (port = 80): string[] => [
  'sh',
  '-c',
  `mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho; echo "\${REMOTE_ADDR} at $(hostname):${port}"\\n' >/www/cgi-bin/who; chmod +x /www/cgi-bin/who; exec httpd -f -p ${port} -h /www`,
];
const url = (address: string, port: number): string => `http://${address.includes(':') ? `[${address}]` : address}:${port}/cgi-bin/who`;

/** The client that the server sees when `from` (a host, or a container as [host, name]) asks; undefined: no answer. */
async function seen(from: Host | readonly [number, string], address: string, port: number): Promise<string | undefined> {
  const argv = ['busybox', 'wget', '-T', '2', '-qO-', url(address, port)];
  const output = 'lab' in from ? await from.exec(argv, { anyStatus: true }) : await bed.tryIn(from[0], from[1], ...argv.slice(1));
  if (output.status !== 0) return undefined;
  return output.stdout
    .trim()
    .split(' ')[0]
    ?.replace(/^\[?(::ffff:)?/, '')
    .replace(/\]$/, '');
}

const sees = (from: Host | readonly [number, string], address: string, port: number, client: string | RegExp): Promise<unknown> =>
  until(
    `${address}:${port} to see ${String(client)}`,
    async () => {
      const found = (await seen(from, address, port)) ?? 'nobody';
      if (typeof client === 'string' ? found !== client : !client.test(found)) throw new Error(`it sees ${found}`);
      return true;
    },
    patience,
  );

const silent = async (from: Host | readonly [number, string], address: string, port: number): Promise<void> =>
  assert.equal(await seen(from, address, port), undefined, `${address}:${port} answers`);

/** Runs a program on a host until it is disposed of. */
function background(host: Host, argv: readonly string[]): AsyncDisposable {
  const program = host.spawn(argv);
  return {
    async [Symbol.asyncDispose]() {
      program.kill('SIGKILL');
      await program.ended;
    },
  };
}

test('a published port answers everybody, and sees the outside client’s own address, over both families', async () => {
  await bed.createNetwork('front', '--ipv6');
  const [one, two] = [bed.host(1), bed.host(2)];
  await bed.run(1, 'server', 'front', ['--publish=8080:80'], web());
  await bed.start(1, 'near', 'front');
  await bed.start(2, 'far', 'front');
  await bed.createNetwork('elsewhere');
  await bed.start(1, 'stranger1', 'elsewhere');
  await bed.start(2, 'stranger2', 'elsewhere');
  await sees(bed.lab.outside, one.address, 8080, outsideAddress);
  await sees(bed.lab.outside, one.address6, 8080, bed.lab.outside.address6);
  await sees(two, one.address, 8080, two.address);
  await sees(two, one.address6, 8080, two.address6);
  // The host itself, by its address and by localhost.
  for (const address of [one.address, '127.0.0.1', one.address6]) await sees(one, address, 8080, /./);
  // Containers: on another host, on this one, in another network, and the server itself (hairpin).
  await sees([2, 'far'], one.address, 8080, two.address);
  await sees([2, 'stranger2'], one.address, 8080, two.address);
  for (const name of ['near', 'stranger1', 'server']) await sees([1, name], one.address, 8080, /./);
  await sees([1, 'server'], one.address6, 8080, /./);
  await silent(bed.lab.outside, two.address, 8080);
  await silent(bed.lab.outside, one.address, 80);
  await bed.remove(1, 'server');
  await silent(bed.lab.outside, one.address, 8080);
});

test('ranges, host addresses, exposed ports and ports left to us are published as asked', async () => {
  await bed.createNetwork('front', '--ipv6');
  const { address, address6 } = bed.host(1);
  await bed.run(
    1,
    'range',
    'front',
    ['--publish=8100-8102:80-82'],
    ['sh', '-c', [80, 81, 82].map((port) => web(port)[2]?.replace('exec', '')).join(' & ')],
  );
  for (const port of [8100, 8101, 8102]) await sees(bed.lab.outside, address, port, outsideAddress);
  await bed.run(
    1,
    'bound',
    'front',
    [`--publish=${address}:8110:80`, `--publish=127.0.0.1:8111:80`, `--publish=[${address6}]:8112:80`, '--publish=0.0.0.0:8113:80'],
    web(),
  );
  await sees(bed.lab.outside, address, 8113, outsideAddress);
  await silent(bed.lab.outside, address6, 8113);
  await sees(bed.lab.outside, address, 8110, outsideAddress);
  await silent(bed.lab.outside, address6, 8110);
  await sees(bed.host(1), '127.0.0.1', 8111, /./);
  await silent(bed.lab.outside, address, 8111);
  await sees(bed.lab.outside, address6, 8112, bed.lab.outside.address6);
  await silent(bed.lab.outside, address, 8112);
  await bed.run(1, 'chosen', 'front', ['--publish=80', '--publish=8120-8125:81'], web());
  const ports = await until('the ports to be known', async () => (await portsOf('chosen')).length === 2 && portsOf('chosen'), patience);
  const [free, ranged] = [ports.find(({ port }) => port === 80)?.hostPort ?? 0, ports.find(({ port }) => port === 81)?.hostPort ?? 0];
  assert.ok(free >= 32_768 && ranged >= 8120 && ranged <= 8125, JSON.stringify(ports));
  await sees(bed.lab.outside, address, free, outsideAddress);
  await bed.run(1, 'all', 'front', ['--publish-all', '--expose=80'], web());
  const [all] = await until('the port to be known', async () => (await portsOf('all')).length > 0 && portsOf('all'), patience);
  await sees(bed.lab.outside, address, all?.hostPort ?? 0, outsideAddress);
});

interface Port {
  readonly port: number;
  readonly hostPort: number;
}
const portsOf = async (name: string): Promise<Port[]> =>
  (await bed.json<{ name: string; ports: Port[] }[]>('endpoint', 'ls')).find((endpoint) => endpoint.name === name)?.ports ?? [];

test('a UDP port sees the client’s address, and a connection to a container that has gone is cut so that the next one is reached', async () => {
  await bed.createNetwork('front');
  const one = bed.host(1);
  await bed.startImage(1, 'first', 'front', perlImage, '--publish=5353:53/udp', '--hostname=first');
  await until(
    'an answer',
    async () => (await askUdp(bed.lab.outside, one.address, 5353)) === `hello from ${outsideAddress} at first`,
    patience,
  );
  await until('an answer by localhost', async () => (await askUdp(one, '127.0.0.1', 5353)).endsWith('at first'), patience);
  const ask = (): Promise<string> => askUdp(bed.lab.outside, one.address, 5353, 40_000);
  await until('an answer to a fixed port', async () => (await ask()).endsWith('at first'), patience);
  await bed.remove(1, 'first');
  await until(
    'the connection to be forgotten',
    async () => !(await one.ask(['conntrack', '-L', '-p', 'udp'])).includes('dport=5353'),
    patience,
  );
  // A client that goes on asking meanwhile, always from the same port.
  assert.match(await ask(), /^(?!.*at (first|second)$)/);
  await bed.startImage(1, 'second', 'front', perlImage, '--publish=5353:53/udp', '--hostname=second');
  await until('the new container to be reached from the same port', async () => (await ask()).endsWith('at second'), patience);
});

test('a port that somebody has already is refused with the reason, whoever has it', async () => {
  await bed.createNetwork('front');
  await bed.run(1, 'owner', 'front', ['--publish=8200:80'], web());
  const refusal = async (...options: readonly string[]): Promise<string> => {
    const said = await bed.refused(1, 'run', '--detach', '--name=late', ...options, 'causeway/box', 'sleep', '600');
    await bed.remove(1, 'late');
    return said;
  };
  assert.match(await refusal('--network=front', '--publish=8200:80'), /8200.*published by owner/);
  // Another address of the same port is no conflict; every address is.
  await bed.run(1, 'narrow', 'front', [`--publish=127.0.0.1:8201:80`], web());
  assert.match(await refusal('--network=front', '--publish=8201:80'), /8201/);
  await bed.run(1, 'narrow2', 'front', [`--publish=${bed.host(1).address}:8201:80`], web());
  assert.match(await refusal('--network=front', '--publish=8204:80', '--publish=8204:81'), /8204\/tcp.*asked for twice/);
  // Docker's own bridge, and a program of the host.
  await bed.run(1, 'bridged', 'bridge', ['--publish=8202:80'], web());
  assert.match(await refusal('--network=front', '--publish=8202:80'), /8202/);
  await using program = background(bed.host(1), ['busybox', 'httpd', '-f', '-p', '8203', '-h', '/etc']);
  await until('the program to listen', () => bed.host(1).exec(['busybox', 'wget', '-qO-', 'http://127.0.0.1:8203/hosts']), patience);
  assert.match(await refusal('--network=front', '--publish=8203:80'), /8203.*another program/);
  await program[Symbol.asyncDispose]();
  await bed.run(1, 'now', 'front', ['--publish=8203:80'], web());
  assert.match(await refusal('--network=bridge', '--publish=8200:80'), /8200|address already in use/);
  await sees(bed.lab.outside, bed.host(1).address, 8200, outsideAddress);
});

test('a port stays with its container over stop, start, restart and a second network', async () => {
  await bed.createNetwork('front');
  await bed.createNetwork('second');
  const { address } = bed.host(1);
  await bed.run(1, 'server', 'front', ['--publish=8300:80'], web());
  await sees(bed.lab.outside, address, 8300, outsideAddress);
  await bed.docker(1, 'restart', '--time=0', 'server');
  await sees(bed.lab.outside, address, 8300, outsideAddress);
  await bed.docker(1, 'stop', '--time=0', 'server');
  await silent(bed.lab.outside, address, 8300);
  await bed.docker(1, 'start', 'server');
  await bed.docker(1, 'network', 'connect', 'second', 'server');
  await sees(bed.lab.outside, address, 8300, outsideAddress);
  await bed.docker(1, 'network', 'disconnect', 'front', 'server');
  await sees(bed.lab.outside, address, 8300, outsideAddress);
});

test('a port of SCTP is published, and reached by containers on other hosts', async () => {
  const [one, two] = [bed.host(1), bed.host(2)];
  await Promise.all([one, two].map((host) => importImages(host, [sctpImage])));
  await bed.createNetwork('front');
  const start = (index: number, ...words: readonly string[]) => bed.docker(index, 'run', '--detach', '--network=front', ...words);
  const [server, client] = await Promise.all([
    start(1, '--publish=3868:7/sctp', sctpImage.name, 'echo_server'),
    start(2, sctpImage.name, 'sleep', '1000'),
  ]);
  const inside = '{{.NetworkSettings.Networks.front.IPAddress}} 7';
  const address = await bed.docker(1, 'inspect', '--format', inside, server);
  await until('the container to answer', async () => (await bed.docker(2, 'exec', client, 'sh', '-c', sctpLine(address))).includes('word'));
  const outside = ['sh', '-c', sctpLine(`${one.address} 3868`, '/usr/lib/usrsctp/client')];
  await until(
    'the port to answer',
    async () => (await bed.lab.outside.exec(outside, { anyStatus: true })).stdout.includes('word'),
    patience,
  );
});

test('an exposure opens an unpublished port to those that it names, and closes it again', async () => {
  await bed.createNetwork('front', '--ipv6');
  const [one, two] = [bed.host(1), bed.host(2)];
  await bed.run(1, 'server', 'front', ['--network-alias=www'], web());
  await silent(bed.lab.outside, one.address, 80);
  await bed.causeway('expose', 'front', 'server', '80', '--host-port', '8400');
  await sees(bed.lab.outside, one.address, 8400, outsideAddress);
  await sees(bed.lab.outside, one.address6, 8400, bed.lab.outside.address6);
  // One range of the two lies in the other, which the kernel would not take as it is.
  const from = ['--from', `${outsideAddress}/32`, '--from', `${outsideAddress}/31`];
  await bed.causeway('expose', 'front', 'www', '80', '--host-port', '8401', ...from);
  await sees(bed.lab.outside, one.address, 8401, outsideAddress);
  await silent(two, one.address, 8401);
  await silent(bed.lab.outside, one.address6, 8401);
  // The agent itself listens there.
  await bed.causeway('expose', 'front', 'server', '80', '--host-port', '7481', '--name', 'greedy');
  const told = /Exposure greedy is not open here: Port 7481\/tcp of this host is used by another program/;
  await until('the exposure to be told', async () => told.test(JSON.stringify(await bed.json('host', 'ls'))), patience);
  assert.match((await one.exec(['busybox', 'wget', '-qO-', 'http://127.0.0.1:7481/healthz'])).stdout, /"ok":true/);
  const listed = await bed.json<{ name: string }[]>('exposure', 'ls');
  assert.equal(listed.length, 3);
  await bed.causeway('exposure', 'rm', '--yes', ...listed.map(({ name }) => name));
  for (const port of [8400, 8401]) {
    await until(`port ${port} to be closed`, async () => (await seen(bed.lab.outside, one.address, port)) === undefined, patience);
  }
});

test('on the way out a container is seen as its host, over both families', async () => {
  await bed.createNetwork('front', '--ipv6');
  await bed.start(1, 'client', 'front');
  await bed.start(3, 'client3', 'front');
  for (const index of [1, 3]) {
    const { address, address6 } = bed.host(index);
    const name = index === 1 ? 'client' : 'client3';
    assert.equal(await bed.in(index, name, 'wget', '-qO-', `http://${outsideAddress}/`), address);
    assert.equal(await bed.in(index, name, 'wget', '-qO-', `http://[${outsideAddress6}]/`), address6);
    await bed.ping(index, name, outsideAddress);
    await bed.ping(index, name, bed.host(2).address);
  }
});
