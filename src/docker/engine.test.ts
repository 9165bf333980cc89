// Answers as dockerd 29 gives them (API 1.52: api/types/network, api/types/container) and requests as it takes them.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempDisposableSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test, type TestContext } from 'node:test';
import { Engine, type NetworkCreation } from './engine.ts';

const id = 'a'.repeat(64);
const answers: Readonly<Record<string, unknown>> = {
  'GET /version': { Platform: { Name: 'Docker Engine - Community' }, Version: '29.1.4', ApiVersion: '1.52', MinAPIVersion: '1.44' },
  'GET /networks': [
    {
      Name: 'six',
      Id: id,
      Created: '2026-01-08T10:00:00Z',
      Scope: 'local',
      Driver: 'causeway',
      EnableIPv4: false,
      EnableIPv6: true,
      IPAM: { Driver: 'causeway', Options: null, Config: [{ Subnet: 'fd00:1::/64', IPRange: '', Gateway: 'fd00:1::1' }] },
      Internal: false,
      Attachable: false,
      Ingress: false,
      ConfigFrom: { Network: '' },
      ConfigOnly: false,
      Options: null,
      Labels: null,
    },
  ],
  [`GET /networks/${id}`]: {
    Name: 'six',
    Id: id,
    Containers: {
      ['b'.repeat(64)]: { Name: 'web', EndpointID: 'e1', MacAddress: '02:42:ac:13:00:02', IPv4Address: '', IPv6Address: 'fd00:1::2/128' },
      [`lb-six`]: { Name: 'six-endpoint', EndpointID: 'e2', MacAddress: '', IPv4Address: '10.0.0.2/24', IPv6Address: '' },
    },
    Status: { IPAM: { Subnets: { 'fd00:1::/64': { IPsInUse: 2, DynamicIPsAvailable: 253 } } } },
  },
  'GET /containers/json?all=true': [
    {
      Id: 'b'.repeat(64),
      State: 'running',
      Health: { Status: 'none' },
      NetworkSettings: { Networks: { six: { EndpointID: 'e1', GwPriority: 1 }, prototype: { EndpointID: 'e3' } } },
    },
    // As after a power cut: of one that was stopped the id is empty.
    { Id: 'c'.repeat(64), State: 'exited', NetworkSettings: { Networks: { six: { EndpointID: 'e9' } } } },
  ],
  [`GET /containers/${'b'.repeat(64)}/json`]: {
    Id: 'b'.repeat(64),
    Name: '/web',
    State: { Status: 'running', Running: true },
    ResolvConfPath: '/var/lib/docker/containers/b/resolv.conf',
    HostConfig: { NetworkMode: 'six', Dns: null },
    NetworkSettings: {
      SandboxID: 's',
      SandboxKey: '/var/run/docker/netns/s',
      Ports: {},
      Networks: {
        six: {
          IPAMConfig: null,
          Links: null,
          Aliases: null,
          DriverOpts: null,
          GwPriority: 1,
          NetworkID: id,
          EndpointID: 'e1',
          DNSNames: ['web', 'bbbbbbbbbbbb'],
        },
      },
    },
  },
  'POST /networks/create': { Id: id, Warning: '' },
};

async function serve(t: TestContext): Promise<{ engine: Engine; sent: unknown[] }> {
  const folder = mkdtempDisposableSync(join(tmpdir(), 'causeway-engine-'));
  const sent: unknown[] = [];
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await text(request);
    if (body !== '') sent.push(JSON.parse(body));
    const said = answers[`${request.method} ${request.url}`];
    response.writeHead(said === undefined ? 404 : request.method === 'POST' ? 201 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(said ?? { message: 'page not found' }));
  };
  const server = createServer((request, response) => void answer(request, response));
  const socket = join(folder.path, 'docker.sock');
  server.listen(socket);
  await once(server, 'listening');
  const engine = new Engine(socket);
  t.after(async () => {
    await engine[Symbol.asyncDispose]();
    server.close();
    folder.remove();
  });
  return { engine, sent };
}

test('what dockerd 29 answers is read', async (t) => {
  const { engine } = await serve(t);
  assert.equal(await engine.version(), '29.1.4');
  const [network] = await engine.networks();
  assert.deepEqual([network?.name, network?.ipamDriver, network?.labels, network?.options], ['six', 'causeway', {}, {}]);
  assert.deepEqual(await engine.members(id), [{ endpoint: 'e1', name: 'web', mac: '02:42:ac:13:00:02', addresses: ['fd00:1::2/128'] }]);
  assert.deepEqual(await engine.containers(), [
    { id: 'b'.repeat(64), endpoints: ['e1', 'e3'] },
    { id: 'c'.repeat(64), endpoints: [] },
  ]);
  assert.deepEqual(await engine.container('b'.repeat(64)), {
    id: 'b'.repeat(64),
    name: 'web',
    isRunning: true,
    sandbox: '/var/run/docker/netns/s',
    resolvConf: '/var/lib/docker/containers/b/resolv.conf',
    hasOwnServers: false,
    endpoints: [{ id: 'e1', network: id, names: ['web', 'bbbbbbbbbbbb'] }],
  });
  assert.equal(await engine.container('d'.repeat(64)), undefined);
});

test('a network of IPv6 alone is asked for so that no range of IPv4 is looked for', async (t) => {
  const { engine, sent } = await serve(t);
  const creation: NetworkCreation = {
    name: 'six',
    driver: 'causeway',
    internal: false,
    attachable: true,
    ipv4: false,
    ipv6: true,
    ipam: { driver: 'causeway', options: { 'causeway.network': 'n' }, pools: [{ subnet: 'fd00:1::/64', gateway: undefined }] },
    options: { 'causeway.network': 'n' },
    labels: {},
  };
  assert.equal(await engine.createNetwork(creation), id);
  assert.deepEqual(sent, [
    {
      Name: 'six',
      CheckDuplicate: true,
      Driver: 'causeway',
      Internal: false,
      Attachable: true,
      EnableIPv4: false,
      EnableIPv6: true,
      IPAM: { Driver: 'causeway', Options: { 'causeway.network': 'n' }, Config: [{ Subnet: 'fd00:1::/64' }] },
      Options: { 'causeway.network': 'n' },
      Labels: {},
    },
  ]);
});
