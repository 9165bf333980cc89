// Every field of every plugin method, at every depth, in turn replaced by what it must not be: missing, of another type,
// hostile, oversized. The answer is a sentence and never a fault of the program; what is refused leaves nothing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import { FakeAgent } from './fake-agent.ts';
import { Ipam } from './ipam.ts';
import { silent } from './log.ts';
import { dockerRecords } from './records.ts';
import { createPlugin } from './server.ts';

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

const [known, idle, fresh, endpoint, other] = ['a', 'd', 'b', 'e', 'f'].map((digit) => digit.repeat(64)) as [
  string,
  string,
  string,
  string,
  string,
];
const generic = 'com.docker.network.generic';
const port = { Proto: 6, IP: '', Port: 80, HostIP: '0.0.0.0', HostPort: 8080, HostPortEnd: 8080 };
const pool = 'pool00000001';

/** A request that is answered with success, with every field that the method reads. */
const good: Readonly<Record<string, Json>> = {
  'NetworkDriver.CreateNetwork': {
    NetworkID: fresh,
    Options: {
      [generic]: { mtu: '1400', encrypted: 'false' },
      'com.docker.network.internal': true,
      'com.docker.network.enable_ipv6': false,
    },
    IPv4Data: [{ AddressSpace: 'CausewayLocal', Pool: '10.9.0.0/24', Gateway: '10.9.0.1/24', AuxAddresses: { printer: '10.9.0.9/24' } }],
    IPv6Data: [],
  },
  'NetworkDriver.DeleteNetwork': { NetworkID: idle },
  'NetworkDriver.CreateEndpoint': {
    NetworkID: known,
    EndpointID: other,
    Interface: { Address: '10.1.0.8/24', AddressIPv6: '', MacAddress: '' },
    Options: { 'com.docker.network.endpoint.macaddress': 'AmMAAAAI', 'com.docker.network.portmap': [port] },
  },
  'NetworkDriver.EndpointOperInfo': { NetworkID: known, EndpointID: endpoint },
  'NetworkDriver.DeleteEndpoint': { NetworkID: known, EndpointID: endpoint },
  'NetworkDriver.Join': { NetworkID: known, EndpointID: endpoint, SandboxKey: '/var/run/docker/netns/0123456789ab', Options: {} },
  'NetworkDriver.Leave': { NetworkID: known, EndpointID: endpoint },
  'NetworkDriver.ProgramExternalConnectivity': {
    NetworkID: known,
    EndpointID: endpoint,
    Options: { 'com.docker.network.portmap': [port] },
  },
  'NetworkDriver.RevokeExternalConnectivity': { NetworkID: known, EndpointID: endpoint },
  'NetworkDriver.DiscoverNew': { DiscoveryType: 1, DiscoveryData: { Address: '10.0.0.1', Self: true } },
  'NetworkDriver.DiscoverDelete': { DiscoveryType: 1, DiscoveryData: { Address: '10.0.0.1', Self: true } },
  'NetworkDriver.AllocateNetwork': { NetworkID: fresh, Options: { mtu: '1400' }, IPv4Data: [{ Pool: '10.9.0.0/24' }], IPv6Data: [] },
  'NetworkDriver.FreeNetwork': { NetworkID: known },
  'IpamDriver.RequestPool': { AddressSpace: 'CausewayLocal', Pool: '10.8.0.0/24', SubPool: '10.8.0.0/25', Options: {}, V6: false },
  'IpamDriver.ReleasePool': { PoolID: pool },
  'IpamDriver.RequestAddress': { PoolID: pool, Address: '10.1.0.9', Options: { RequestAddressType: 'x' } },
  'IpamDriver.ReleaseAddress': { PoolID: pool, Address: '10.1.0.7' },
};

const megabyte = 'x'.repeat(1024 * 1024);
const wrong: readonly (readonly [string, Json | undefined])[] = [
  ['missing', undefined],
  ['null', null],
  ['a flag', true],
  ['a number', 7],
  ['a number that is none of ours', -1.5],
  ['a list', [[]]],
  ['an object', { '../x': { y: 1 } }],
  ['nothing', ''],
  ['with a slash', '../../etc/passwd'],
  ['with a newline', 'a\nb'],
  ['with a NUL', '/a\u0000b'],
  ['a shell', '$(reboot)'],
  ['long', 'a'.repeat(70_000)],
  ['a megabyte', megabyte],
];

type Path = readonly (string | number)[];
const isRecord = (value: Json): value is { readonly [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Every place in a value, itself left out. */
function places(value: Json, at: Path = []): Path[] {
  const inside: [string | number, Json][] = Array.isArray(value) ? [...value.entries()] : isRecord(value) ? Object.entries(value) : [];
  return inside.flatMap(([key, item]) => [[...at, key], ...places(item, [...at, key])]);
}

function put(value: Json, [key, ...rest]: Path, item: Json | undefined): Json {
  if (key === undefined) return item ?? null;
  if (Array.isArray(value)) {
    const list: Json[] = value.flatMap((one: Json, index): Json[] =>
      index !== key ? [one] : rest.length === 0 && item === undefined ? [] : [put(one, rest, item)],
    );
    return list;
  }
  if (!isRecord(value)) return value;
  const entries = Object.entries(value).flatMap(([name, one]): [string, Json][] =>
    name !== key ? [[name, one]] : rest.length === 0 && item === undefined ? [] : [[name, put(one, rest, item)]],
  );
  return Object.fromEntries(entries);
}

/** A plugin with one network and one endpoint on it. */
async function openScene() {
  const agent = new FakeAgent();
  const records = dockerRecords(agent.journal);
  const ipam = new Ipam({ agent, records, log: silent });
  const { call } = createPlugin({ agent, records, ipam, log: silent, scope: 'local' });
  const { id } = await agent.createNetwork({ name: 'net', pools: [{ family: 4, cidr: parseCidr('10.1.0.0/24'), id: pool }] });
  records.bindings.put(known, { network: id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
  for (const [ip, holder] of [
    ['10.1.0.7', endpoint],
    ['10.1.0.8', other],
  ] as const)
    await agent.requestAddress(pool, parseIp(ip), holder);
  await agent.attach({ network: id, id: endpoint, owner: 'c', addresses: [parseIp('10.1.0.7')], ports: [] });
  const second = await agent.createNetwork({ name: 'idle', pools: [{ family: 4, cidr: parseCidr('10.2.0.0/24') }] });
  records.bindings.put(idle, { network: second.id, ipam: 'causeway', origin: 'user', confirmed: true, unbinding: false });
  records.attachments.put(endpoint, { claims: [], lengths: [] });
  const state = (): string =>
    JSON.stringify([
      agent.journal.list(''),
      agent.held(),
      agent.networks(),
      agent.networks().flatMap((one) => [agent.pools(one.id), agent.endpoints(one.id)]),
    ]);
  const ask = async (method: string, body: Json) => {
    const answer = await call(method, JSON.stringify(body));
    return { status: answer.status, text: JSON.stringify(answer.body) };
  };
  // Pool and addresses of a network to come, as dockerd asks for them before it.
  const requested = await ask('IpamDriver.RequestPool', { AddressSpace: 'CausewayLocal', Pool: '10.9.0.0/24', Options: {}, V6: false });
  const draft = String((JSON.parse(requested.text) as { PoolID?: string }).PoolID);
  for (const address of ['10.9.0.1', '10.9.0.9']) {
    const options = address === '10.9.0.1' ? { RequestAddressType: 'com.docker.network.gateway' } : {};
    await ask('IpamDriver.RequestAddress', { PoolID: draft, Address: address, Options: options });
  }
  return { state, ask };
}

for (const [method, body] of Object.entries(good)) {
  test(`${method}: nothing that a field must not be does harm`, async () => {
    let scene = await openScene();
    const well = await scene.ask(method, body);
    assert.equal(well.status, 200, `the good request: ${well.text}`);
    let refused = 0;
    for (const path of [[], ...places(body)]) {
      for (const [what, item] of wrong) {
        const here = `${method} ${path.join('.') || 'body'} ${what}`;
        scene = await openScene();
        const earlier = scene.state();
        const { status, text } = await scene.ask(method, put(body, path, item));
        assert.ok(status !== 404, here);
        if (status === 200) continue;
        refused += 1;
        assert.doesNotMatch(text, /\((?:internal|corrupt)\)|TypeError|\n/, here);
        assert.ok(text.length < 1500, `${here}: ${text.slice(0, 200)}`);
        assert.equal(scene.state(), earlier, `${here} leaves something`);
      }
    }
    assert.ok(refused >= wrong.length - 2, `${method} refuses ${refused}`);
  });
}
