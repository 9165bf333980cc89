// What people see of `causeway plan`, against a small server in a cloud's place; which advice is right is shown in cloud/advice.test.ts.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { json, keystone, serving } from '#cloud/server.fixture.ts';
import { run, type Run } from './run.fixture.ts';

const port = (network: string, name: string) => ({
  id: name,
  name,
  network_id: network,
  mac_address: 'fa:16:3e:00:00:01',
  device_owner: 'compute:nova',
  fixed_ips: [],
});
const network = (id: string) => ({ id, name: `name-${id}`, project_id: 'p', mtu: 1442, subnets: [] });
const extensions = ['security-group', 'allowed-address-pairs', 'port-security', 'extraroute', 'quota_details'];
const usual: Readonly<Record<string, object>> = {
  '/network/v2.0/ports': { ports: [port('a', 'one'), port('a', 'two')] },
  '/network/v2.0/routers': { routers: [{ id: 'r', name: 'main' }] },
  '/network/v2.0/networks': { networks: [network('a'), network('b')] },
  '/network/v2.0/subnets': { subnets: [{ id: 's', network_id: 'a', cidr: '10.20.0.0/24' }] },
  '/network/v2.0/extensions': { extensions: extensions.map((alias) => ({ alias })) },
  '/network/v2.0/quotas/p/details': { quota: { port: { limit: 500, used: 9 }, security_group_rule: { limit: -1, used: 4 } } },
  '/balancer/v2/lbaas/providers': { providers: [{ name: 'ovn' }, { name: 'amphora' }] },
};
let answers: Record<string, object>;
/** What may be written of a port. */
let allowed: readonly string[];
let written: string[];
let revisions: string[];
let hasOctavia: boolean;
beforeEach(() => {
  answers = { ...usual };
  allowed = ['allowed_address_pairs', 'port_security_enabled'];
  written = [];
  revisions = [];
  hasOctavia = false;
});
let server: Awaited<ReturnType<typeof serving>>;
before(async () => {
  let url = '';
  const endpoint = (type: string, path: string) => ({
    type,
    endpoints: [{ interface: 'public', region_id: 'one', url: `${url}/${path}` }],
  });
  server = await serving((request, response, body) => {
    const { pathname } = new URL(request.url ?? '', 'http://cloud');
    const catalog = [endpoint('network', 'network'), ...(hasOctavia ? [endpoint('load-balancer', 'balancer')] : [])];
    if (pathname === '/v3/auth/tokens') return keystone(() => url, { catalog }).answer(request, response, body);
    if (request.method === 'PUT') {
      written.push(body);
      revisions.push(String(request.headers['if-match']));
      const may = allowed.some((field) => body.includes(`"${field}"`));
      return json(response, may ? 412 : 403, { NeutronError: { message: may ? 'revision' : 'policy', type: 'x' } });
    }
    const found = answers[pathname];
    return found === undefined ? json(response, 404, {}) : json(response, 200, found);
  });
  ({ url } = server);
});
after(() => server[Symbol.asyncDispose]());

const ask = (line: string): Promise<Run> => {
  const environment = { OS_AUTH_URL: server.url, OS_USERNAME: 'demo', OS_PASSWORD: 'secret', OS_PROJECT_NAME: 'demo' };
  return run(line, { cloud: { environment, configFiles: [], secureFiles: [] } });
};

test('the cloud, what was asked for, every model and what is recommended; what is tried is what there is', async () => {
  const { status, out, err } = await ask('plan --isolation --hosts 100');
  assert.equal(err, '');
  assert.equal(status, 0);
  assert.match(out, /Hosts on: +network name-a: MTU 1442, type told to administrators only, IPv4\n/);
  assert.match(out, /Instances: +2, port security on\n/);
  assert.match(out, /Load balancers: +no Octavia\n/);
  assert.match(out, /Extensions: +security-group, .*; not trunk\n/);
  assert.match(out, /\nport +9 +500\n/);
  assert.match(out, /Docker: 100 hosts, 2000 containers, 1 network\n/);
  assert.match(out, /\noverlay +vxlan +yes +50 +1392 +2 +0 +0 +0\n/);
  assert.match(out, /\nflannel .*\n {2}cannot be: no isolation: /);
  assert.match(
    out,
    /\n {2}overlay, carried by vxlan: .*\n\n {4}causeway network create NAME --model overlay --carry vxlan\n {4}causeway cloud apply\n$/,
  );
  assert.match(out, /May write routes: +no\nMay choose ports' addresses: +yes\n/);
  assert.deepEqual(written, [
    '{"port":{"allowed_address_pairs":[]}}',
    '{"port":{"port_security_enabled":true}}',
    '{"router":{"routes":[]}}',
  ]);
  assert.ok(revisions.length === 3 && revisions.every((one) => one === 'revision_number=2000000000'), 'of no revision that there is');
});

test('for programs: survey, needs, figures; rights that are not there', async () => {
  hasOctavia = true;
  allowed = [];
  const { status, out } = await ask('plan --kubernetes --policy --output json');
  assert.equal(status, 0);
  const { survey, needs, recommended, models } = JSON.parse(out);
  assert.deepEqual(survey.rights, { pairs: 'no', portSecurity: 'no', routes: 'no' });
  assert.deepEqual(survey.balancers, ['amphora', 'ovn']);
  assert.deepEqual(needs, { features: ['policy'], frontEnds: ['kubernetes'], hosts: 2, containers: 40, networks: 1 });
  assert.equal(`${recommended.model} ${recommended.carry}`, 'flannel vxlan');
  assert.ok(models.length >= 6);
});

test('what the cloud does not tell of the network of hosts is told with what to do', async () => {
  answers['/network/v2.0/networks'] = { networks: [{ ...network('a'), mtu: 0 }] };
  const blind = await ask('plan');
  assert.equal(blind.status, 10);
  assert.match(blind.out, /network name-a: MTU not told, /);
  assert.match(blind.out, /cannot be: the cloud does not tell the MTU of network name-a: ask its operator/);
  answers['/network/v2.0/networks'] = { networks: [{ ...network('a'), project_id: 'other' }] };
  answers['/network/v2.0/subnets'] = { subnets: [] };
  const { out } = await ask('plan');
  assert.match(out, /, no subnet\n/);
  assert.match(out, /cannot be: network name-a has no subnet, .*another network \(--network\)/);
  assert.match(out, /May choose ports' addresses: +no: the network is another project's\n/);
});

test('what the cloud does not know is not tried', async () => {
  answers['/network/v2.0/extensions'] = { extensions: [{ alias: 'security-group' }] };
  const { out } = await ask('plan');
  assert.match(out, /May write pairs: +no\n/);
  assert.deepEqual(written, []);
});

test('where nothing will do, the exit status says so', async () => {
  const { status, out } = await ask('plan --encryption --addressable');
  assert.equal(status, 10);
  assert.match(out, /None\. No model of this version does all of it here/);
});

test('networks: that of the instances, else the only one, else the one that is named', async () => {
  answers['/network/v2.0/ports'] = { ports: [port('a', 'one'), port('b', 'two')] };
  const several = await ask('plan');
  assert.match(several.err, /Which network are the hosts on\? It may be name-a \(a\), name-b \(b\)[\s\S]*Try: Name it: --network/);
  assert.equal((await ask('plan --network name-b')).status, 0);
  assert.match((await ask('plan --network other')).err, /The cloud has no network other that you can see; there are name-a \(a\)/);
  answers['/network/v2.0/ports'] = { ports: [] };
  answers['/network/v2.0/networks'] = { networks: [network('a'), { ...network('b'), 'router:external': true }] };
  const { out } = await ask('plan');
  assert.match(out, /Instances: +none there\n/);
  assert.match(out, /May write pairs: +not known: no instance to try it on\n/);
  answers['/network/v2.0/networks'] = { networks: [] };
  assert.match((await ask('plan')).err, /The project has no network for hosts; there are none/);
});
