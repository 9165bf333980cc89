import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Fault } from '#model/fault.ts';
import { parseCidr, parseIp, parseMac } from '#model/ip.ts';
import type { EngineContainer } from './engine.ts';
import { FakeAgent, fakeEndpoint } from './fake-agent.ts';
import { silent } from './log.ts';
import { dockerRecords } from './records.ts';
import { takeUpEndpoints } from './recovery.ts';

const [engineNetwork, known, foreign] = ['d'.repeat(64), 'a'.repeat(64), 'b'.repeat(64)];
const sandbox = tmpdir(); // any file that is there

async function start(container: Partial<EngineContainer> = {}) {
  const agent = new FakeAgent();
  const records = dockerRecords(agent.journal);
  const network = await agent.createNetwork({ name: 'net', pools: [{ family: 4, cidr: parseCidr('10.1.0.0/24') }] });
  const whole: EngineContainer = {
    id: 'c'.repeat(64),
    name: 'web',
    isRunning: true,
    sandbox,
    endpoints: [known, foreign].map((id) => ({ id, network: engineNetwork, names: ['web'] })),
    ...container,
  };
  records.bindings.put(engineNetwork, { network: network.id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
  const published = fakeEndpoint({
    id: known,
    host: agent.host,
    network: network.id,
    name: 'web',
    owner: 'web',
    names: ['front'],
    addresses: [parseIp('10.1.0.7')],
    mac: parseMac('0a:63:00:00:00:07'),
    ports: [{ protocol: 'tcp', hostPort: 8080, port: 80 }],
  });
  agent.endpoints = () => [published, { ...published, id: foreign, host: 'host-b' }];
  const engine = {
    containers: () => Promise.resolve([{ id: whole.id, endpoints: whole.endpoints.map(({ id }) => id) }]),
    container: () => Promise.resolve(whole),
  };
  return { agent, records, published, run: () => takeUpEndpoints({ agent, records, engine, log: silent }) };
}

test('an endpoint of a running container is taken up as the cluster knows it, once; one of another host is not', async () => {
  const { agent, records, published, run } = await start();
  await run();
  const { id, name, names, owner, addresses, mac, ports } = agent.localEndpoint(known) ?? assert.fail('not taken up');
  assert.deepEqual(
    { id, name, owner, addresses, mac, ports, isFront: names.includes('front') },
    {
      id: published.id,
      name: published.name,
      owner: published.owner,
      addresses: published.addresses,
      mac: published.mac,
      ports: published.ports,
      isFront: true,
    },
  );
  assert.deepEqual([agent.localEndpoints().length, agent.held().length, records.attachments.get(known)?.sandbox], [1, 1, sandbox]);
  const calls = agent.calls.length;
  await run();
  assert.equal(agent.calls.length, calls);
});

for (const [what, container] of [
  ['that does not run', { isRunning: false }],
  ['whose sandbox is gone', { sandbox: '/no/such/sandbox' }],
  ['on a network that is none of ours', { endpoints: [{ id: known, network: 'e'.repeat(64), names: [] }] }],
] as const) {
  test(`an endpoint of a container ${what} is left`, async () => {
    const { agent, run } = await start(container);
    await run();
    assert.deepEqual(agent.localEndpoints(), []);
  });
}

test('what is refused is left out, what is unavailable is tried again', async () => {
  for (const code of ['exists', 'unavailable'] as const) {
    const { agent, run } = await start();
    agent.attach = () => Promise.reject(new Fault(code, 'no'));
    if (code === 'unavailable') await assert.rejects(run(), { code });
    else await run();
    assert.deepEqual(agent.localEndpoints(), []);
  }
});
