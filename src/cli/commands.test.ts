// Commands against a fake client: what is asked of the controller, what is printed, with which exit status.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { readContexts } from './contexts.ts';
import { type FakeClient, fakeClient, noRecords } from './fake.ts';
import { run, type Stage } from './run.fixture.ts';

function cluster(): FakeClient {
  const records = noRecords();
  const network = makeNetwork('aaaaaaaaaa01');
  const pool = makePool(network.id, parseCidr('10.0.0.0/16'), 27);
  const endpoint = {
    ...makeEndpoint(network.id, 'host-1', 1, [parseIp('10.0.0.1')]),
    ports: [{ protocol: 'tcp' as const, hostPort: 8080, port: 80 }],
  };
  const host = makeHost(1);
  records.hosts.push({ ...host, status: { ...host.status, features: { ...host.status.features, fastPath: true } } }, makeHost(2));
  records.networks.push(network, makeNetwork('aaaaaaaaaa02', { carry: 'wireguard', vni: 4097 }));
  records.pools.push(pool);
  records.blocks.push(makeBlock(pool, 0, 'host-1'), makeBlock(pool, 1, 'host-2'));
  records.endpoints.push(endpoint);
  return fakeClient(records);
}

const requestsOf = async (line: string | readonly string[], stage: Stage = {}): Promise<readonly string[]> => {
  const client = cluster();
  const { err } = await run(line, { client, ...stage });
  assert.equal(err, '');
  return client.requests;
};

test('what commands ask of the controller', async () => {
  const rows: readonly (readonly [string, ...string[]])[] = [
    ['network create web', 'POST networks {"name":"web"}'],
    ['network create web --encrypted --internal --mtu 1300', 'POST networks {"name":"web","encrypted":true,"internal":true,"mtu":1300}'],
    ['network create web --model flannel --carry host-gateway', 'POST networks {"name":"web","model":"flannel","carry":"host-gateway"}'],
    ['network create web --ipv6', 'POST networks {"name":"web","pools":[{"family":4},{"family":6}]}'],
    [
      'network create web --subnet 10.5.0.0/16 --subnet fd00:5::/64 --gateway 10.5.0.1 --ip-range 10.5.1.0/24 --reserve nas=10.5.0.9 --gateway fd00:5::1',
      'POST networks {"name":"web","pools":[{"cidr":"10.5.0.0/16","range":"10.5.1.0/24","gateway":"10.5.0.1","reserved":{"nas":"10.5.0.9"},"family":4},{"cidr":"fd00:5::/64","gateway":"fd00:5::1","family":6}]}',
    ],
    ['network rm net-aaaaaaaaaa02', 'DELETE networks/net-aaaaaaaaaa02'],
    ['host remove host-2', 'DELETE hosts/host-2'],
    ['pool add net-aaaaaaaaaa01 10.6.0.0/16', 'POST pools {"network":"aaaaaaaaaa01","cidr":"10.6.0.0/16"}'],
    ['pool rm aaaaaaaaaa01-pool-4', 'DELETE pools/aaaaaaaaaa01-pool-4'],
    ['tenant create shop --description x', 'POST tenants {"name":"shop","description":"x"}'],
    [
      'expose net-aaaaaaaaaa01 box-1 53/udp --host-port 5353 --from 192.0.2.0/24',
      'POST exposures {"network":"aaaaaaaaaa01","endpoint":"box-1","protocol":"udp","port":53,"hostPort":5353,"sources":["192.0.2.0/24"]}',
    ],
    [
      'expose net-aaaaaaaaaa01 box-1 80 --floating-ip',
      'POST exposures {"network":"aaaaaaaaaa01","endpoint":"box-1","protocol":"tcp","port":80,"hostPort":80,"sources":[],"floatingIp":"auto"}',
    ],
    [
      'expose net-aaaaaaaaaa01 box-1 80 --load-balancer --internal',
      'POST exposures {"network":"aaaaaaaaaa01","endpoint":"box-1","protocol":"tcp","port":80,"hostPort":80,"sources":[],"loadBalancer":"internal"}',
    ],
    [
      'expose net-aaaaaaaaaa01 box-1 80 --load-balancer --provider amphora',
      'POST exposures {"network":"aaaaaaaaaa01","endpoint":"box-1","protocol":"tcp","port":80,"hostPort":80,"sources":[],"loadBalancer":"public","provider":"amphora"}',
    ],
    [
      'expose net-aaaaaaaaaa01 box-1 443 --floating-ip --virtual-ip',
      'POST exposures {"network":"aaaaaaaaaa01","endpoint":"box-1","protocol":"tcp","port":443,"hostPort":443,"sources":[],"floatingIp":"auto","virtualIp":true}',
    ],
    [
      'expose net-aaaaaaaaaa01 box-1 443 --virtual-ip --ipv6 --from 2001:db8::/32',
      'POST exposures {"network":"aaaaaaaaaa01","endpoint":"box-1","protocol":"tcp","port":443,"hostPort":443,"sources":["2001:db8::/32"],"virtualIp":true,"family":6}',
    ],
    ['token rm token1', 'DELETE tokens/token1'],
    ['certificate revoke 0a1b', 'DELETE certificates/0a1b'],
  ];
  for (const [line, ...requests] of rows) assert.deepEqual(await requestsOf(line), requests, line);
});

test('edit writes the record back with what was changed', async () => {
  const [line = ''] = await requestsOf('network edit net-aaaaaaaaaa01 --mtu 1300 --label a=b --name web');
  assert.match(line, /^PUT networks\/aaaaaaaaaa01 /);
  const body = JSON.parse(line.slice(line.indexOf('{')));
  assert.deepEqual([body.mtu, body.labels, body.name, body.revision], [1300, { a: 'b' }, 'web', 1]);
});

test('names can come from standard input', async () => {
  const requests = await requestsOf('network rm -', { input: 'net-aaaaaaaaaa01\nnet-aaaaaaaaaa02\n' });
  assert.deepEqual(requests, ['DELETE networks/net-aaaaaaaaaa01', 'DELETE networks/net-aaaaaaaaaa02']);
});

async function answered(line: string, input: string): Promise<readonly [number, number]> {
  const client = cluster();
  const { status } = await run(line, { client, terminal: true, input });
  return [status, client.requests.length];
}

test('an error half-way tells what was done before it', async () => {
  const { status, err } = await run('network rm net-aaaaaaaaaa01 nope net-aaaaaaaaaa02', { client: cluster() });
  assert.deepEqual([status, /nope.*\(done before: net-aaaaaaaaaa01\)/.test(err)], [3, true], err);
  const documents = 'kind: tenant\nname: one\n---\nkind: exposure\nnetwork: nope\nendpoint: web\nprotocol: tcp\nport: 80\nhostPort: 80\n';
  const applied = await run('apply -f -', { client: cluster(), input: documents });
  assert.deepEqual([applied.status, /nope.*\(done before: tenant one\)/.test(applied.err)], [3, true], applied.err);
});

test('a label may end with a hyphen', async () => {
  const [line = ''] = await requestsOf('host label host-1 rack=a- other=b');
  assert.deepEqual(JSON.parse(line.slice(line.indexOf('{'))).labels, { rack: 'a-', other: 'b' });
  const [gone = ''] = await requestsOf('host label host-1 rack-');
  assert.deepEqual(JSON.parse(gone.slice(gone.indexOf('{'))).labels, {});
});

test('on a terminal removing asks first, --yes does not', async () => {
  assert.deepEqual(await answered('network rm net-aaaaaaaaaa01', 'n\n'), [130, 0]);
  assert.deepEqual(await answered('network rm net-aaaaaaaaaa01', ''), [130, 0]);
  assert.deepEqual(await answered('network rm net-aaaaaaaaaa01', 'y\n'), [0, 1]);
  assert.deepEqual(await answered('network rm net-aaaaaaaaaa01 --yes', ''), [0, 1]);
});

test('wrong use is code invalid and status 2, with advice', async () => {
  const rows = [
    'network create',
    'network create a b',
    'network create web --mtu 12',
    'network create web --model x',
    'network create web --subnet 10.0.0.1/24',
    'network create web --subnet 10.0.0.0/24 --gateway 10.9.0.1',
    'network create web --label novalue',
    'network edit net-aaaaaaaaaa01',
    'network lss',
    'nothing',
    'network ls --outputt json',
    'network ls -o xml',
    'expose net-aaaaaaaaaa01 box-1 80/icmp',
    'expose net-aaaaaaaaaa01 box-1 70000',
    'token create',
    'token create --join --role admin',
    'token create --role viewer --host a',
    'token create --join --ttl 5',
    'context add x --url controller',
    'context add x --url https://a:7480,controller',
    'context add x --url https://a:7480 --token=',
    'context add x --url https://a:7480 --token-file /dev/null',
    'context add x --url https://a:7480 --ca /dev/null',
    'completion tcsh',
  ];
  for (const line of rows) {
    const { status, out, err } = await run(line, { client: cluster() });
    assert.equal(status, 2, `${line}: ${err}`);
    assert.equal(out, '', line);
    assert.match(err, /^Error \(invalid\): .+\n(Field: .+\n)?Try: .+\n$/, line);
  }
});

test('what is not there is status 3, and JSON when JSON is asked for', async () => {
  for (const line of [
    'network show nope',
    'network ls --tenant nope',
    'host show nope',
    'endpoint ls --host nope',
    'network rm nope',
    'explain network nope',
    'explain network net-aaaaaaaaaa01 --host nope',
    'get nope',
    'context use nope',
  ]) {
    assert.equal((await run(line, { client: cluster() })).status, 3, line);
  }
  for (const line of [
    'network show nope -o json',
    '-o yaml network show nope',
    '-qojson network show nope',
    '-qo yaml network show nope',
  ]) {
    const { err, status } = await run(line);
    assert.deepEqual([JSON.parse(err).error.code, status], ['not-found', 3], line);
  }
});

const connect = (): Promise<FakeClient> => Promise.reject(new Error('must not connect'));

test('help costs nothing and exits 0 everywhere', async () => {
  for (const line of ['--help', '-h', 'help', 'help network ls', 'network --help', 'network create --help', 'status -h']) {
    const { status, out, err } = await run(line, { connect });
    assert.deepEqual([status, err], [0, ''], line);
    assert.match(out, /^Usage: causeway/, line);
  }
  for (const line of [[], ['network']]) {
    const { status, err } = await run(line, { connect });
    assert.equal(status, 2);
    assert.match(err, /^Usage: causeway/);
  }
});

test('--version tells the version of this program, and asks no controller', async () => {
  const { out, status } = await run('--version', { connect });
  assert.equal(status, 0);
  assert.equal(out, (await run('version --client', { connect })).out);
  assert.match(out, /^\d+\.\d+\.\d+\n$/);
});

test('golden: tables', async (t) => {
  const lines = [
    'network ls',
    'network show net-aaaaaaaaaa01',
    'endpoint ls',
    'endpoint show box-1',
    'host ls',
    'host show host-1',
    'pool ls',
    'pool show aaaaaaaaaa01-pool-4',
    'explain network net-aaaaaaaaaa01',
    'explain network net-aaaaaaaaaa01 --host host-1',
    'explain network net-aaaaaaaaaa02 --host host-2',
    'explain models',
    'status',
    'version',
    'context ls',
    'exposure ls',
    'tenant ls',
    'token ls',
    'certificate ls',
    'token create --join --host host-3 --ttl 1h',
    'get',
    'network ls --quiet',
    'network show net-aaaaaaaaaa02 -o yaml',
  ];
  const runs: string[] = [];
  for (const line of lines) {
    const { out, err, status } = await run(line, { client: cluster() });
    assert.deepEqual([err, status], ['', 0], line);
    runs.push(`$ causeway ${line}\n${out}`);
  }
  t.assert.fileSnapshot(runs.join('\n'), join(import.meta.dirname, 'testdata/commands.txt'), { serializers: [String] });
});

test('status says what is wrong and exits 10', async () => {
  const client = cluster();
  const { hosts, networks, endpoints } = client.records;
  hosts.push({
    ...makeHost(3),
    status: { ready: true, seenAt: '2025-12-31T00:00:00Z', desired: 3, applied: 1, failing: ['Cannot add link'], features: {} },
  });
  networks.push({ ...makeNetwork('aaaaaaaaaa03'), deletedAt: '2025-12-31T00:00:00Z' });
  endpoints.push(makeEndpoint('aaaaaaaaaa01', 'gone', 2, [parseIp('10.0.0.2')]));
  const { status, out } = await run('status --quiet', { client });
  assert.deepEqual(
    [status, out],
    [
      10,
      'host host-3: silent\nhost host-3: Cannot add link\nnetwork net-aaaaaaaaaa03: is still being removed\nendpoint box-2: its host gone is gone\n',
    ],
  );
});

test('a version that is too far away is warned of', async () => {
  const { out } = await run('version', { client: fakeClient(noRecords(), '2.0.0') });
  assert.match(out, /Warning: /);
  assert.equal((await run('version', { environment: {} })).status, 0);
});

test('what get prints apply takes without changing anything; a difference is applied', async () => {
  const client = cluster();
  await run('expose net-aaaaaaaaaa01 box-1 80', { client });
  const { out } = await run('get', { client });
  const again = await run('apply -f -', { client, input: out });
  assert.equal(again.out, 'network net-aaaaaaaaaa01: unchanged\nnetwork net-aaaaaaaaaa02: unchanged\nexposure box-1-80-tcp: unchanged\n');
  const changed = await run('apply -f - -o json', { client, input: out.replace('hostPort: 80', 'hostPort: 81') });
  assert.deepEqual(
    JSON.parse(changed.out).map((row: { outcome: string }) => row.outcome),
    ['unchanged', 'unchanged', 'changed'],
  );
  const other = fakeClient();
  assert.deepEqual((await run('apply -f -', { client: other, input: out })).status, 0);
  assert.equal((await run('get', { client: other })).out, out);
});

const calicoFile = `
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: { name: fabric, annotations: { anything: goes } }
spec: { peerIP: 10.213.1.1, asNumber: 64600, password: { secretKeyRef: { name: fabric, key: password } } }
---
apiVersion: v1
kind: List
items:
- { apiVersion: v1, kind: Secret, metadata: { name: fabric, namespace: kube-system }, data: { password: aHVzaCBodXNoCg== } }
`;

test('Calico’s files of BGP are applied as they are; get prints them, but never a secret', async () => {
  const client = cluster();
  assert.equal((await run('apply -f -', { client, input: calicoFile })).out, 'secret fabric: created\nBGPPeer fabric: created\n');
  assert.match((await run('apply -f -', { client, input: calicoFile })).out, /BGPPeer fabric: unchanged/);
  const { out } = await run('get fabric', { client });
  assert.match(out, /^apiVersion: projectcalico.org\/v3\nkind: BGPPeer\nmetadata:\n {2}name: fabric\nspec:\n {2}peerIP: 10.213.1.1/);
  for (const line of ['get', 'bgp ls', 'bgp show fabric', 'secret ls', 'secret ls -o json'])
    assert.doesNotMatch((await run(line, { client })).out, /hush/, line);
  assert.doesNotMatch(client.requests.join(), /hush/);
  assert.match((await run('bgp ls', { client })).out, /BGPPeer +fabric +all hosts with 10.213.1.1 \(AS 64600\)/);
  const other = fakeClient();
  assert.equal((await run('apply -f -', { client: other, input: out })).status, 0);
  assert.equal((await run('get', { client: other })).out, out);
  for (const line of ['bgp rm bgppeer.fabric', 'secret rm fabric']) assert.equal((await run(line, { client })).status, 0, line);
  assert.deepEqual(client.requests.slice(-2), ['DELETE bgp/bgppeer.fabric', 'DELETE secrets/fabric']);
});

test('what is of load balancers without a floating IP is refused elsewhere', async () => {
  for (const options of ['--internal', '--load-balancer --internal --floating-ip 192.0.2.7']) {
    const { err, status } = await run(`expose net-aaaaaaaaaa01 box-1 80 ${options}`, { client: cluster() });
    assert.match(err, /--internal is of load balancers without a floating IP/);
    assert.equal(status, 2);
  }
});

test('documents that cannot be applied are refused before anything is done', async () => {
  const rows = [
    'a: 1',
    'kind: network',
    'kind: network\nname: x\nsize: 5',
    '{',
    'kind: host\nname: x',
    'kind: tenant\nname: ok\n---\nkind: network\nname: "a b"',
    'apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: { name: x }\nspec: {}',
    'apiVersion: projectcalico.org/v3\nkind: BGPPeer\nspec: {}',
    'apiVersion: v1\nkind: Secret\nmetadata: { name: x }',
  ];
  for (const input of rows) {
    const client = cluster();
    const { status, err } = await run('apply -f -', { client, input });
    assert.equal(status, 2, `${input}: ${err}`);
    assert.deepEqual(client.requests, []);
  }
  const fixed = await run('apply -f -', { client: cluster(), input: 'kind: network\nname: net-aaaaaaaaaa01\ninternal: true' });
  assert.equal(fixed.status, 4);
});

test('long silence is broken on standard error', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const asked = Promise.withResolvers<void>();
  const connected = Promise.withResolvers<FakeClient>();
  const running = run('network ls --quiet', {
    patienceMs: 2000,
    connect() {
      asked.resolve();
      return connected.promise;
    },
  });
  await asked.promise;
  t.mock.timers.tick(2500);
  connected.resolve(cluster());
  const { err } = await running;
  assert.match(err, /^Waiting for the controller at https:\/\/controller\.test:7480/);
});

const hasColour = async (stage: Stage): Promise<boolean> => (await run('host ls', { client: cluster(), ...stage })).out.includes('\u001b[');

test('colour is for terminals that want it', async () => {
  assert.equal(await hasColour({ terminal: true, plain: false }), true);
  assert.equal(await hasColour({ terminal: true, plain: true }), false);
  assert.equal(await hasColour({ terminal: false, plain: false }), false);
});

test('context commands keep the file, and need no controller', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-cli-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const stage: Stage = { contextFiles: [join(folder, 'causeway', 'contexts.yaml')], environment: {}, connect };
  const outputs: string[] = [];
  for (const line of [
    'context ls',
    'context add a --url https://a:7480 --token -',
    'context add b --url https://b:7480 --url https://c:7480,https://d:7480',
    'context use b',
    'context ls -o json',
    'context ls --quiet',
    'context add toString --url https://e:7480',
    'context rm toString',
    'context rm b',
  ]) {
    const { out, err, status } = await run(line, { ...stage, input: 'secret\n' });
    assert.deepEqual([err, status], ['', 0], line);
    if (line.endsWith('json')) assert.deepEqual(JSON.parse(out)[1].urls, ['https://c:7480', 'https://d:7480']);
    else outputs.push(out.replaceAll(folder, ''));
  }
  assert.deepEqual(outputs, [
    'No contexts. Add one: causeway context add NAME --url https://HOST:7480 --token TOKEN --ca FILE\n',
    'Added context a in /causeway/contexts.yaml\n',
    'Added context b in /causeway/contexts.yaml\n',
    'Using context b\n',
    'a\nb\n',
    'Added context toString in /causeway/contexts.yaml\n',
    'Removed context toString\n',
    'Removed context b\n',
  ]);
  assert.deepEqual(await readContexts(join(folder, 'causeway', 'contexts.yaml')), {
    contexts: { a: { url: 'https://a:7480', token: 'secret' } },
  });
  assert.equal((await run('network ls', { ...stage, contextFiles: [] })).status, 3);
});
