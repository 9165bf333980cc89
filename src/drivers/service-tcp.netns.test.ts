// A connection through a service, of which the endpoint sends a packet that fits in nowhere: late, or sent again.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { checksum } from '#kernel/checksum.ts';
import { transmitIp } from '#kernel/libc.ts';
import { inNetns } from '#kernel/netns.ts';
import { ipBytes } from '#kernel/netlink/codec.ts';
import { type Family, familyOf, type Ip, parseIp } from '#model/ip.ts';
import type { LocalEndpoint, Service } from '#model/resources.ts';
import { makeDualHost, makeFlatCluster, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';
import { everyAddress } from './services.ts';

mustBeIsolated();

const pick = (family: Family, four: string, six: string): Ip => parseIp(family === 4 ? four : six);
const ports = { inside: 7000, client: 40_000, service: 80, node: 30_080 };

/** That begins and ends a connection at once: connection tracking takes it for none of any, whatever numbers the ends have agreed on. */
function strayPacket(from: Ip, to: Ip): Buffer {
  const tcp = Buffer.alloc(21, 'x');
  tcp.writeUInt16BE(ports.inside, 0);
  tcp.writeUInt16BE(ports.client, 2);
  tcp.writeUInt32BE(0x7fff_0000, 4);
  tcp.writeUInt32BE(0x7eee_0000, 8);
  tcp.writeUInt16BE(0x5003, 12);
  tcp.writeUInt16BE(1000, 14);
  tcp.writeUInt32BE(0, 16);
  const addresses = Buffer.concat([ipBytes(from), ipBytes(to)]);
  tcp.writeUInt16BE(checksum(Buffer.concat([addresses, Buffer.of(0, 6, 0, tcp.length), tcp])), 16);
  if (familyOf(from) === 6) return Buffer.concat([Buffer.of(0x60, 0, 0, 0, 0, tcp.length, 6, 64), addresses, tcp]);
  const head = Buffer.of(0x45, 0, 0, 20 + tcp.length, 0, 1, 0, 0, 64, 6, 0, 0);
  head.writeUInt16BE(checksum(Buffer.concat([head, addresses])), 10);
  return Buffer.concat([head, addresses, tcp]);
}

interface Running {
  readonly process: ChildProcess;
  readonly said: () => string;
}
const running = (place: Place, script: string): Running => {
  const child = inNetns(place.path, () => spawn(process.execPath, ['-e', script], { stdio: ['pipe', 'pipe', 'inherit'] }));
  let said = '';
  child.stdout?.on('data', (bytes: Buffer) => (said += bytes.toString()));
  return { process: child, said: () => said };
};
const serve = (ip: Ip): string =>
  `require('net').createServer((s) => s.pipe(s)).listen(${ports.inside}, '${ip}', () => process.stdout.write('listening'))`;
const connect = (from: Ip, to: Ip, port: number): string =>
  `const s = require('net').connect({ host: '${to}', port: ${port}, localAddress: '${from}', localPort: ${ports.client} });
   process.stdin.pipe(s); s.pipe(process.stdout); s.on('error', (e) => process.stdout.write(e.code))`;

for (const family of [4, 6] as const) {
  describe(`IPv${family}`, { concurrency: false }, () => {
    const network = makeNetwork('aaaaaaaaaa', { model: 'flannel' });
    const hosts = [1, 2].map((index) => makeDualHost(index));
    const {
      local: [a, b, c],
      snapshot,
    } = makeFlatCluster(network, hosts, '/run/tcp');
    const addressOf = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses.find((ip) => familyOf(ip) === family) ?? assert.fail();
    const virtual = pick(family, '10.96.0.5', 'fd96::5');
    const nodeAddress = pick(family, '10.213.0.1', 'fd00:213::1');
    const clientAddress = pick(family, '10.213.0.98', 'fd00:213::98');
    let wire: Wire;
    let [one, two]: [NetnsHost, NetnsHost] = [undefined as never, undefined as never];
    let client: Place;
    const places = new Map<LocalEndpoint, Place>();
    const boxOf = (of: LocalEndpoint): Place => places.get(of) ?? assert.fail('no such box');

    before(() => {
      wire = new Wire();
      one = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
      two = wire.host('host-2', ['10.213.0.2/16', 'fd00:213::2/64']);
      client = wire.place('client', ['10.213.0.98/16', 'fd00:213::98/64']);
      // Straight to the endpoint, so that what comes from there is answered.
      client.ip('route', 'add', addressOf(b), 'via', nodeAddress);
      const front = (ip: Ip, port: number, backend: LocalEndpoint): Service => ({
        key: `${ip} ${port}`,
        ip,
        protocol: 'tcp',
        port,
        backends: [{ ip: addressOf(backend), port: ports.inside }],
      });
      const services = [front(virtual, ports.service, c), front(everyAddress[family], ports.node, b)];
      one.apply(plan(snapshot, [a, b], hosts[0] ?? assert.fail(), { services }));
      two.apply(plan(snapshot, [c], hosts[1] ?? assert.fail(), { services }));
      for (const host of [one, two]) host.ip('route', 'add', 'default', 'via', pick(family, '10.213.0.98', 'fd00:213::98'));
      for (const [each, host] of [
        [a, one],
        [b, one],
        [c, two],
      ] as const)
        places.set(each, wire.container(host, each));
    });
    after(() => wire[Symbol.dispose]());

    const stopped = (): number => one.count('forward') + two.count('forward');

    for (const [what, from, backend, port] of [
      ['a container, by the service’s address', () => boxOf(a), c, ports.service],
      ['a client outside, by a node port', () => client, b, ports.node],
    ] as const) {
      test(`${what}: it does not reach the client untranslated, who would reset the connection`, async (t) => {
        const own = port === ports.node ? clientAddress : addressOf(a);
        const server = running(boxOf(backend), serve(addressOf(backend)));
        t.after(() => server.process.kill());
        await eventually(() => server.said() === 'listening', 'the server to listen');
        const talk = running(from(), connect(own, port === ports.node ? nodeAddress : virtual, port));
        t.after(() => talk.process.kill());
        talk.process.stdin?.write('one');
        await eventually(() => talk.said() === 'one', 'the first answer');
        from().run('nft', `table inet seen { chain arrivals { type filter hook input priority 0; tcp sport ${ports.inside} counter; }; }`);
        t.after(() => from().run('nft', 'delete table inet seen'));
        const earlier = stopped();
        assert.ok(inNetns(boxOf(backend).path, () => transmitIp(strayPacket(addressOf(backend), own), own)) > 0);
        await eventually(() => stopped() > earlier || from().count('arrivals', 'seen') > 0, 'the packet to be anywhere');
        assert.equal(from().count('arrivals', 'seen'), 0);
        talk.process.stdin?.write('two');
        await eventually(() => talk.said() === 'onetwo', 'the second answer');
      });
    }
  });
}
