import assert from 'node:assert/strict';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Server } from 'node:net';
import test, { type TestContext } from 'node:test';
import dnsPacket from 'dns-packet';
import * as fc from 'fast-check';
import { openTcpListener, openUdp } from '#kernel/libc.ts';
import { type Ip, parseCidr, parseIp } from '#model/ip.ts';
import type { Endpoint } from '#model/resources.ts';
import { framed, parseResolvConf, type Upstream } from './dns-upstream.ts';
import { DnsServer, type DnsSocket } from './dns.ts';
import type { ZoneSource } from './dns-zone.ts';

type Packet = ReturnType<typeof dnsPacket.decode>;
const loopback = '127.0.0.1' as Ip;
const meta = { revision: 1, createdAt: '', labels: {}, network: 'n', host: 'h', owner: '', ports: [], sequence: 1, names: [] };

const sourceOf = (names: Record<string, string>, rest: Partial<ZoneSource> = {}): ZoneSource => ({
  name: 'mynet',
  isInternal: false,
  pools: [parseCidr('10.0.0.0/24')],
  endpoints: new Map(
    Object.entries(names).map(([name, ip]): [string, Endpoint] => [
      name,
      { ...meta, id: name, name, addresses: [parseIp(ip)], mac: '02:00:00:00:00:01' as Endpoint['mac'] },
    ]),
  ),
  ...rest,
});

let nextPort = 20_000 + (process.pid % 10_000);

/** A free port for both protocols, as sockets that are open but not served. */
function openSockets(ip: Ip = loopback): { port: number; sockets: DnsSocket[] } {
  const family = ip.includes(':') ? 6 : 4;
  for (;;) {
    const port = nextPort++;
    try {
      const tcp = openTcpListener({ ip, port });
      const udp = openUdp({ ip, port });
      return {
        port,
        sockets: [
          { fd: udp, protocol: 'udp', family },
          { fd: tcp, protocol: 'tcp', family },
        ],
      };
    } catch {
      continue;
    }
  }
}

async function serve(t: TestContext, upstream: Partial<Upstream> = {}, ip: Ip = loopback): Promise<{ server: DnsServer; port: number }> {
  const server = new DnsServer({ upstream: { servers: [], timeoutMs: 200, attempts: 1, ...upstream } });
  t.after(() => server[Symbol.dispose]());
  server.setZone('n', sourceOf({ web: '10.0.0.2', db: '10.0.0.3' }));
  const { port, sockets } = openSockets(ip);
  await server.listen('n', sockets);
  return { server, port };
}

const encode = (name: string, type: dnsPacket.RecordType = 'A'): Buffer =>
  dnsPacket.encode({ type: 'query', id: 99, flags: dnsPacket.RECURSION_DESIRED, questions: [{ name, type }] });

async function askUdp(port: number, name: string, ip: Ip = loopback): Promise<Packet> {
  const socket = createSocket(ip.includes(':') ? 'udp6' : 'udp4');
  try {
    // Connected: an answer from another source address would not arrive.
    socket.connect(port, ip);
    await once(socket, 'connect');
    const answered = once(socket, 'message');
    socket.send(encode(name));
    const [reply] = await answered;
    return dnsPacket.decode(reply);
  } finally {
    socket.close();
  }
}

async function askTcp(port: number, names: readonly string[], bytesAtATime = Infinity): Promise<Packet[]> {
  const socket = connect({ port, host: loopback });
  const bytes = Buffer.concat(names.map((name) => framed(encode(name))));
  for (let at = 0; at < bytes.length; at += bytesAtATime) socket.write(bytes.subarray(at, at + Math.min(bytesAtATime, bytes.length)));
  const replies: Packet[] = [];
  let received = Buffer.alloc(0);
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk]);
    while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
      const end = 2 + received.readUInt16BE(0);
      replies.push(dnsPacket.decode(received.subarray(2, end)));
      received = received.subarray(end);
    }
    if (replies.length === names.length) break;
  }
  socket.destroy();
  return replies;
}

const dataOf = (packet: Packet): unknown[] => (packet.answers ?? []).map((record) => ('data' in record ? record.data : undefined));

const codeOf = (packet: Packet): number => (packet.flags ?? 0) & 15;

type Manner = (query: Packet, protocol: 'udp' | 'tcp') => Partial<Packet> | 'silent';

/** A name server that answers as told; both protocols on one port. */
async function upstreamThat(t: TestContext, manner: Manner): Promise<{ address: string; port: number; asked: string[] }> {
  const asked: string[] = [];
  const reply = (bytes: Buffer, protocol: 'udp' | 'tcp'): Buffer | undefined => {
    const query = dnsPacket.decode(bytes);
    asked.push(`${protocol} ${query.questions?.[0]?.name}`);
    const said = manner(query, protocol);
    return said === 'silent'
      ? undefined
      : dnsPacket.encode({
          type: 'response',
          ...(query.id === undefined ? {} : { id: query.id }),
          ...(query.questions === undefined ? {} : { questions: query.questions }),
          ...said,
        });
  };
  const tcp: Server = createServer((client) => {
    client.on('error', () => client.destroy());
    client.on('data', (bytes) => {
      const said = reply(bytes.subarray(2), 'tcp');
      if (said !== undefined) client.write(framed(said));
    });
  });
  tcp.listen(0, loopback);
  await once(tcp, 'listening');
  const address = tcp.address();
  const port = typeof address === 'object' && address !== null ? address.port : assert.fail();
  const udp: UdpSocket = createSocket('udp4');
  udp.on('message', (bytes, from) => {
    const said = reply(bytes, 'udp');
    if (said !== undefined) udp.send(said, from.port, from.address);
  });
  udp.bind(port, loopback);
  await once(udp, 'listening');
  t.after(() => {
    udp.close();
    tcp.close();
  });
  return { address: loopback, port, asked };
}

const giving =
  (ip: string): Manner =>
  (query) => ({
    flags: dnsPacket.RECURSION_AVAILABLE,
    answers: [{ type: 'A', name: query.questions?.[0]?.name ?? '', ttl: 60, data: ip }],
  });

test('sockets that were opened elsewhere serve a network over UDP and TCP', async (t) => {
  const { server, port } = await serve(t);
  const overUdp = await askUdp(port, 'WEB.mynet');
  assert.deepEqual([dataOf(overUdp), overUdp.flag_aa, overUdp.questions?.[0]?.name], [['10.0.0.2'], true, 'WEB.mynet']);
  const overTcp = await askTcp(port, ['db', 'web', 'nobody'], 7);
  assert.deepEqual(
    overTcp.map((packet) => [dataOf(packet), codeOf(packet)]),
    [
      [['10.0.0.3'], 0],
      [['10.0.0.2'], 0],
      [[], 3],
    ],
  );
  assert.deepEqual(server.counters, { queries: 4, answered: 3, missed: 1, forwarded: 0, failed: 0, malformed: 0, truncated: 0 });
});

test('IPv6 sockets serve too', async (t) => {
  const { port } = await serve(t, {}, '::1' as Ip).catch(() => ({ port: 0 }));
  if (port === 0) return t.skip('no IPv6 loopback here');
  assert.deepEqual(dataOf(await askUdp(port, 'web', '::1' as Ip)), ['10.0.0.2']);
});

test('a name of one network is unknown in another', async (t) => {
  const { server, port } = await serve(t);
  server.setZone('m', sourceOf({ web: '10.0.0.77', secret: '10.0.0.78' }));
  const other = openSockets();
  await server.listen('m', other.sockets);
  assert.deepEqual([dataOf(await askUdp(port, 'web')), codeOf(await askUdp(port, 'secret'))], [['10.0.0.2'], 3]);
  assert.deepEqual([dataOf(await askUdp(other.port, 'web')), codeOf(await askUdp(other.port, 'db'))], [['10.0.0.77'], 3]);
});

test('a zone that changes is answered from at once; a removed network frees its ports', async (t) => {
  const { server, port } = await serve(t);
  server.setZone('n', sourceOf({ web: '10.0.0.9' }));
  assert.deepEqual(dataOf(await askUdp(port, 'web')), ['10.0.0.9']);
  server.remove('n');
  server.remove('n');
  assert.equal(server.isListening('n'), false);
  const refused = connect({ port, host: loopback });
  await assert.rejects(once(refused, 'connect'));
});

test('an answer that does not fit is truncated, and whole over TCP', async (t) => {
  const { server, port } = await serve(t);
  const many = Object.fromEntries(Array.from({ length: 60 }, (_, index) => [`e${index}`, `10.0.0.${index}`]));
  const source = sourceOf(many);
  const endpoints = new Map([...source.endpoints].map(([id, endpoint]) => [id, { ...endpoint, names: ['all'] }]));
  server.setZone('n', { ...source, endpoints });
  const short = await askUdp(port, 'all');
  assert.deepEqual([short.flag_tc, dataOf(short).length], [true, 30]);
  const [whole] = await askTcp(port, ['all']);
  assert.deepEqual([whole?.flag_tc, new Set(dataOf(whole ?? assert.fail())).size, server.counters.truncated], [false, 60, 1]);
});

test('other names go to the host’s servers, whose answers pass as they are', async (t) => {
  const upstream = await upstreamThat(t, giving('192.0.2.1'));
  const { port } = await serve(t, { servers: [upstream] });
  const reply = await askUdp(port, 'Example.com');
  assert.deepEqual([reply.id, dataOf(reply), reply.questions?.[0]?.name], [99, ['192.0.2.1'], 'Example.com']);
  await askUdp(port, 'nobody');
  assert.deepEqual(upstream.asked, ['udp Example.com']);
});

/** A server whose clients' questions come to it before they come to their engine's resolver at `port`. */
async function serveBefore(t: TestContext, engine: { readonly port: number }, upstream: Partial<Upstream> = {}) {
  const server = new DnsServer({
    upstream: { servers: [], timeoutMs: 200, attempts: 1, ...upstream },
    engine: (network, client) =>
      network === 'n' && client === loopback
        ? () => ({ fd: openUdp({ ip: loopback, port: 0 }), address: loopback, port: engine.port })
        : undefined,
  });
  t.after(() => server[Symbol.dispose]());
  server.setZone('n', sourceOf({ web: '10.0.0.2' }));
  const { port, sockets } = openSockets();
  await server.listen('n', sockets);
  return { server, port };
}

test("what nobody here knows is asked of the engine's resolver, where questions come here before", async (t) => {
  const engine = await upstreamThat(t, (query, protocol) =>
    query.questions?.[0]?.name === 'nowhere' ? { flags: 3 } : giving('172.18.0.2')(query, protocol),
  );
  const { port } = await serveBefore(t, engine);
  assert.deepEqual(dataOf(await askUdp(port, 'web')), ['10.0.0.2']);
  const reply = await askUdp(port, 'neighbour');
  assert.deepEqual([reply.id, dataOf(reply)], [99, ['172.18.0.2']]);
  assert.equal(codeOf(await askUdp(port, 'nowhere')), 3);
  const [overTcp] = await askTcp(port, ['example.com']);
  assert.deepEqual(dataOf(overTcp ?? assert.fail()), ['172.18.0.2']);
  assert.deepEqual(engine.asked, ['udp neighbour', 'udp nowhere', 'udp example.com']);
});

test("an engine's resolver that is away or cannot tell is done without", async (t) => {
  const upstream = await upstreamThat(t, giving('192.0.2.1'));
  const failing = await upstreamThat(t, () => ({ flags: 2 }));
  for (const engine of [failing, { port: 1 }]) {
    const { port } = await serveBefore(t, engine, { servers: [upstream] });
    assert.deepEqual(dataOf(await askUdp(port, 'example.com')), ['192.0.2.1']);
    assert.equal(codeOf(await askUdp(port, 'neighbour')), 3);
  }
});

test("an engine's resolver that asks here in its turn is not asked again", async (t) => {
  const upstream = await upstreamThat(t, giving('192.0.2.1'));
  const way = { port: 0 };
  const { server, port } = await serveBefore(t, way, { servers: [upstream] });
  way.port = port;
  assert.deepEqual(dataOf(await askUdp(port, 'example.com')), ['192.0.2.1']);
  assert.equal(codeOf(await askUdp(port, 'neighbour')), 3);
  assert.equal(server.counters.queries, 4);
});

test('an internal network refuses other names and asks nobody', async (t) => {
  const upstream = await upstreamThat(t, giving('192.0.2.1'));
  const { server, port } = await serve(t, { servers: [upstream] });
  server.setZone('n', sourceOf({ web: '10.0.0.2' }, { isInternal: true }));
  assert.deepEqual([codeOf(await askUdp(port, 'example.com')), upstream.asked], [5, []]);
});

test('a silent, a failing, an absent and an unreachable server are passed over', async (t) => {
  const silent = await upstreamThat(t, () => 'silent');
  const failing = await upstreamThat(t, () => ({ flags: 2 }));
  const good = await upstreamThat(t, giving('192.0.2.2'));
  const absent = { address: '127.0.0.1', port: 1 };
  const unreachable = { address: '2001:db8::1', port: 53 };
  const { port } = await serve(t, { servers: [silent, failing, absent, unreachable, good] });
  assert.deepEqual(dataOf(await askUdp(port, 'example.com')), ['192.0.2.2']);
});

test('when no server answers the client hears of a failure, in limited time', async (t) => {
  const silent = await upstreamThat(t, () => 'silent');
  const { server, port } = await serve(t, { servers: [silent, silent] });
  assert.equal(codeOf(await askUdp(port, 'example.com')), 2);
  server.setUpstream({ servers: [], timeoutMs: 100, attempts: 1 });
  assert.equal(codeOf(await askUdp(port, 'example.com')), 2);
  assert.equal(server.counters.failed, 2);
});

test('an answer with another question is not taken', async (t) => {
  const liar = await upstreamThat(t, () => ({ questions: [{ type: 'A', name: 'other.com' }] }));
  const { port } = await serve(t, { servers: [liar] });
  assert.equal(codeOf(await askUdp(port, 'example.com')), 2);
});

test('a truncated answer is passed on over UDP and asked for again over TCP', async (t) => {
  const upstream = await upstreamThat(t, (query, protocol) =>
    protocol === 'udp' ? { flags: dnsPacket.TRUNCATED_RESPONSE } : giving('192.0.2.3')(query, protocol),
  );
  const { port } = await serve(t, { servers: [upstream] });
  assert.equal((await askUdp(port, 'example.com')).flag_tc, true);
  const [reply] = await askTcp(port, ['example.com']);
  assert.deepEqual(dataOf(reply ?? assert.fail()), ['192.0.2.3']);
});

test('after any bytes, over UDP and TCP, the server still answers', async (t) => {
  const { server, port } = await serve(t);
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 600 }), async (bytes) => {
      await new Promise((resolve) => {
        socket.send(bytes, port, loopback, resolve);
      });
      if (bytes.length % 8 !== 0) return;
      const client = connect({ port, host: loopback });
      client.on('error', () => client.destroy());
      client.end(Buffer.from(bytes));
      await once(client, 'finish');
      client.destroy();
    }),
    { numRuns: 300 },
  );
  assert.deepEqual(dataOf(await askUdp(port, 'web')), ['10.0.0.2']);
  assert.ok(server.counters.malformed > 0);
});

test('of thousands of questions, many of them at a time, each is answered once', async (t) => {
  const { server, port } = await serve(t);
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  const [total, atATime] = [5000, 32];
  const answers = new Map<number, number>();
  const done = Promise.withResolvers<void>();
  const packet = encode('web');
  let asked = 0;
  const ask = (): void => {
    const question = Buffer.from(packet);
    question.writeUInt16BE((asked += 1));
    socket.send(question, port, loopback);
  };
  socket.on('message', (reply) => {
    const id = reply.readUInt16BE();
    answers.set(id, (answers.get(id) ?? 0) + 1);
    if (answers.size === total) done.resolve();
    else if (asked < total) ask();
  });
  for (let index = 0; index < atATime; index++) ask();
  await done.promise;
  assert.ok([...answers.values()].every((count) => count === 1));
  assert.deepEqual([server.counters.queries, server.counters.answered], [total, total]);
});

/** Asks from an address of its own, as another container does. */
async function askFrom(client: string, port: number, name: string): Promise<Packet> {
  const socket = createSocket('udp4');
  try {
    socket.bind(0, client);
    await once(socket, 'listening');
    const answered = once(socket, 'message');
    socket.send(encode(name), port, loopback);
    const [reply] = await answered;
    return dnsPacket.decode(reply);
  } finally {
    socket.close();
  }
}

test('a container that asks more than the host can forward keeps no other from its answers', async (t) => {
  const upstream = await upstreamThat(t, (query) =>
    query.questions?.[0]?.name === 'slow.com' ? 'silent' : giving('192.0.2.9')(query, 'udp'),
  );
  const { server, port } = await serve(t, { servers: [upstream], timeoutMs: 2000 });
  const greedy = createSocket('udp4');
  t.after(() => greedy.close());
  greedy.bind(0, '127.0.0.2');
  await once(greedy, 'listening');
  while (server.counters.failed === 0) {
    const [before, batch] = [server.counters.queries, 50];
    for (let index = 0; index < batch; index++) greedy.send(encode('slow.com'), port, loopback);
    while (server.counters.queries < before + batch) await new Promise((resolve) => void setImmediate(resolve));
  }
  assert.deepEqual(dataOf(await askFrom('127.0.0.3', port, 'example.com')), ['192.0.2.9']);
  assert.equal(codeOf(await askFrom('127.0.0.2', port, 'example.com')), 2);
});

test('a container that keeps connections open keeps no other from one', { timeout: 30_000 }, async (t) => {
  const { port } = await serve(t);
  const clients = Array.from({ length: 200 }, () => connect({ port, host: loopback, localAddress: '127.0.0.2' }));
  t.after(() => clients.forEach((client) => client.destroy()));
  await new Promise<void>((resolve) => {
    let refused = 0;
    for (const client of clients) {
      client.on('error', () => undefined);
      client.on('close', () => {
        refused += 1;
        if (refused === 200 - 128) resolve();
      });
    }
  });
  const [reply] = await askTcp(port, ['web']);
  assert.deepEqual(dataOf(reply ?? assert.fail()), ['10.0.0.2']);
});

test('resolv.conf is read as far as it makes sense', () => {
  const text =
    '# comment\nnameserver 192.0.2.53\nnameserver  fe80::1%eth0 \nnameserver nonsense\nsearch a b\noptions timeout:1 attempts:9 edns0\n';
  assert.deepEqual(parseResolvConf(text), {
    servers: [
      { address: '192.0.2.53', port: 53 },
      { address: 'fe80::1%eth0', port: 53 },
    ],
    timeoutMs: 1000,
    attempts: 5,
  });
  assert.deepEqual(parseResolvConf(''), { servers: [], timeoutMs: 2000, attempts: 2 });
});
