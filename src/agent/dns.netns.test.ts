import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import dnsPacket from 'dns-packet';
import { mustBeIsolated } from '#test/isolated.ts';
import { type Ip, parseCidr } from '#model/ip.ts';
import type { Endpoint } from '#model/resources.ts';
import { encodeLink } from '#kernel/netlink/rtnl.ts';
import { NetlinkSocket } from '#kernel/netlink/socket.ts';
import { RTM_SETLINK } from '#kernel/netlink/uapi.ts';
import { bindUdpInNetns, createNetns, listenTcpInNetns, removeNetns, warmThreadPool } from '#kernel/netns.ts';
import { DnsServer } from './dns.ts';

mustBeIsolated();

const directory = mkdtempSync(join(tmpdir(), 'causeway-dns-'));
const ip = '127.0.0.1' as Ip;
const names = ['cw-a', 'cw-b'];

await warmThreadPool();
for (const name of names) {
  createNetns(directory, name, () => {
    using socket = new NetlinkSocket();
    socket.request({ type: RTM_SETLINK, body: encodeLink({ name: 'lo', up: true }), action: 'set link lo up' });
  });
}
after(() => names.forEach((name) => removeNetns(directory, name)));

function endpoint(name: string, address: string): Endpoint {
  const rest = { revision: 1, createdAt: '', labels: {}, network: 'n', host: 'h', owner: '', ports: [], sequence: 1, names: [] };
  return { ...rest, id: name, name, addresses: [address as Ip], mac: '02:00:00:00:00:01' as Endpoint['mac'] };
}

async function ask(path: string, name: string): Promise<unknown> {
  const socket = createSocket('udp4');
  const listening = once(socket, 'listening');
  socket.bind({ fd: bindUdpInNetns(path, { ip, port: 0 }) });
  await listening;
  const answered = once(socket, 'message');
  socket.send(dnsPacket.encode({ type: 'query', id: 1, questions: [{ name, type: 'A' }] }), 53, ip);
  const [reply] = await answered;
  socket.close();
  const [record] = dnsPacket.decode(reply).answers ?? [];
  return record !== undefined && 'data' in record ? record.data : undefined;
}

test('one server answers on port 53 of every domain, each with its own names, and no thread leaves the host', async () => {
  using server = new DnsServer({ upstream: { servers: [], timeoutMs: 100, attempts: 1 } });
  for (const [index, name] of names.entries()) {
    const path = `${directory}/${name}`;
    const endpoints = new Map([['web', endpoint('web', `10.0.0.${index + 1}`)]]);
    server.setZone(name, { name, isInternal: false, pools: [parseCidr('10.0.0.0/24')], endpoints });
    await server.listen(name, [
      { fd: bindUdpInNetns(path, { ip, port: 53 }), protocol: 'udp', family: 4 },
      { fd: listenTcpInNetns(path, { ip, port: 53 }), protocol: 'tcp', family: 4 },
    ]);
  }
  const answers = await Promise.all(names.map((name) => ask(`${directory}/${name}`, 'web')));
  assert.deepEqual(answers, ['10.0.0.1', '10.0.0.2']);
  const namespaces = new Set(readdirSync('/proc/self/task').map((task) => readlinkSync(`/proc/self/task/${task}/ns/net`)));
  assert.equal(namespaces.size, 1);
});
