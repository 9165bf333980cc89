// Odd and broken clouds, one a row: what is said of each, and that nothing was begun. What a real cloud can be brought to is shown there
// (test/openstack-clients.e2e.ts).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { type FaultCode, isFault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { applyWish } from './apply.ts';
import { readState, type Scope } from './reading.ts';
import { Neutron } from './neutron.ts';
import { FakeNeutron, servingNeutron } from './neutron.fixture.ts';
import { planCloud } from './plan.ts';
import { type Answer, cloudOf, json } from './server.fixture.ts';
import { CloudSession } from './session.ts';
import { wishOf } from './wish.ts';

const hosts = [makeHost(1), makeHost(2)];
const wish = wishOf({ hosts, networks: [makeNetwork('over')], pools: [], blocks: [], endpoints: [], exposures: [] }, 'cw');
const network = { id: 'net', name: 'hosts', mtu: 1442, subnets: ['subnet'] };
const port = { id: 'x', name: 'x', network_id: 'net', mac_address: 'fa:16:3e:00:00:09' };
const at = (ip: string): object => ({ subnet_id: 's', ip_address: ip });

/** In the place of Neutron's answer to that list. */
const instead = (kind: string, body: object): Readonly<Record<string, Answer>> => ({ [kind]: (_, response) => json(response, 200, body) });
const written = (kind: string, text: string, type: string): Readonly<Record<string, Answer>> => ({
  [kind]: (_, response) => void response.writeHead(200, { 'content-type': type }).end(text),
});

interface Refused {
  readonly name: string;
  readonly answers: Readonly<Record<string, Answer>>;
  readonly scope?: Scope;
  readonly code: FaultCode;
  readonly words: RegExp;
}
const refused: readonly Refused[] = [
  {
    name: 'HTML',
    answers: written('ports', '<html>Dashboard</html>', 'text/html'),
    code: 'corrupt',
    words: /Neutron at .* text\/html, not with JSON/,
  },
  {
    name: '10 MiB',
    answers: written('ports', `{"ports":["${'x'.repeat(10 << 20)}"]}`, 'application/json'),
    code: 'corrupt',
    words: /larger than 8 MiB/,
  },
  { name: 'half a document', answers: written('ports', '{"ports":[', 'application/json'), code: 'corrupt', words: /not with JSON/ },
  { name: 'no list', answers: instead('ports', {}), code: 'corrupt', words: /lacks ports/ },
  {
    name: 'a port without a network',
    answers: instead('ports', { ports: [{ id: 'x', fixed_ips: [], mac_address: '' }] }),
    code: 'corrupt',
    words: /ports\[0\]\.network_id/,
  },
  {
    name: 'an MTU that is no number',
    answers: instead('networks', { networks: [{ ...network, mtu: 'large' }] }),
    code: 'corrupt',
    words: /networks\[0\]\.mtu/,
  },
  {
    name: 'a rule in no direction',
    answers: instead('security-groups', {
      security_groups: [{ id: 'g', security_group_rules: [{ id: 'r', security_group_id: 'g', direction: 'up', ethertype: 'IPv4' }] }],
    }),
    code: 'corrupt',
    words: /direction/,
  },
  {
    name: 'an extension that lacks',
    answers: instead('extensions', { extensions: [{ alias: 'security-group' }] }),
    code: 'unsupported',
    words: /lacks allowed-address-pairs/,
  },
  {
    name: 'a name that two networks have',
    answers: instead('networks', { networks: [network, { ...network, id: 'other' }] }),
    scope: { network: 'hosts' },
    code: 'invalid',
    words: /several networks hosts: net, other/,
  },
  {
    name: 'a network that is not there',
    answers: {},
    scope: { network: 'hosts' },
    code: 'not-found',
    words: /no network hosts .* it has none/,
  },
];

interface Odd {
  readonly name: string;
  readonly answers: Readonly<Record<string, Answer>>;
  /** What is said of it; absent: it is nobody's business. */
  readonly words?: RegExp;
}
const theirs = new FakeNeutron(2).shown;
const odd: readonly Odd[] = [
  {
    name: 'fields that nobody knows',
    answers: instead('ports', { ports: theirs.map((one) => ({ ...one, more: { of: [1] } })), another: 1 }),
  },
  {
    name: 'MTU 0',
    answers: instead('networks', { networks: [{ ...network, mtu: 0 }] }),
    words: /^The cloud does not tell the MTU of the hosts' network hosts, .* have it set \(openstack network set --mtu BYTES hosts\)$/,
  },
  {
    name: 'a network without a subnet',
    answers: instead('networks', { networks: [{ ...network, mtu: 1450, subnets: [] }] }),
    words: /^The hosts' network hosts has no subnet, .*: make one \(openstack subnet create --network hosts\)$/,
  },
  {
    name: 'a smaller MTU',
    answers: instead('networks', { networks: [{ ...network, mtu: 1300 }] }),
    words: /host-1 sends packets of up to 1450 bytes, but its network hosts takes 1300/,
  },
  { name: 'a port on a network without a subnet', answers: instead('ports', { ports: [...theirs, { ...port, fixed_ips: [] }] }) },
  { name: 'a port of IPv6 only', answers: instead('ports', { ports: [...theirs, { ...port, fixed_ips: [at('fd00::9')] }] }) },
  {
    name: 'subnets that overlap',
    answers: instead('ports', { ports: [...theirs, { ...port, fixed_ips: [at('10.213.0.1')] }] }),
    words: /host-1 is left out: ports port-1 and x have its address/,
  },
  {
    name: 'a port that is not ours',
    answers: instead('ports', { ports: theirs.slice(0, 1) }),
    words: /host-2 is left out: no port of the project has the address 10\.213\.0\.2/,
  },
];

async function inCloud<T>(
  answers: Readonly<Record<string, Answer>>,
  work: (neutron: Neutron) => Promise<T>,
): Promise<{ result: T; writes: number }> {
  const fake = new FakeNeutron(2);
  const { answer } = fake;
  fake.answer = (request, response, body) => {
    const kind = new URL(request.url ?? '', 'http://cloud').pathname.split('/').at(-1) ?? '';
    const other = request.method === 'GET' ? answers[kind] : undefined;
    return (other ?? answer)(request, response, body);
  };
  await using server = await servingNeutron(fake);
  await using session = new CloudSession(cloudOf(server.url), { retries: 0 });
  const result = await work(new Neutron(session));
  return { result, writes: fake.asked.filter(({ method }) => method !== 'GET').length };
}

for (const { name, answers, scope = {}, code, words } of refused) {
  test(`refused before anything is begun: ${name}`, async () => {
    const { writes } = await inCloud(answers, (neutron) =>
      assert.rejects(
        applyWish(neutron, wish, () => readState(neutron, scope)),
        (error) => {
          assert.ok(isFault(error, code), String(error));
          assert.match(error.message, words);
          return true;
        },
      ),
    );
    assert.equal(writes, 0);
  });
}

for (const { name, answers, words } of odd) {
  test(`${words === undefined ? 'nothing is said of' : 'told, and the rest is planned'}: ${name}`, async () => {
    const { result } = await inCloud(answers, async (neutron) => planCloud(wish, await readState(neutron, {})));
    if (words === undefined) assert.deepEqual(result.problems, []);
    else assert.match(result.problems.join(), words);
    assert.ok(result.steps.some(({ type }) => type === 'change-port'));
  });
}

test('hosts on subnets of IPv6 only get rules of IPv6 only', async () => {
  const six = hosts.map((host, index) => ({
    ...host,
    underlay: [{ interface: 'eth0', ip: parseIp(`fd00::${index + 1}`), subnet: parseCidr('fd00::/64'), mtu: 1442 }],
  }));
  const ports = theirs.map((one, index) => ({ ...one, fixed_ips: [at(`fd00::${index + 1}`)] }));
  const wished = wishOf({ hosts: six, networks: [makeNetwork('over')], pools: [], blocks: [], endpoints: [], exposures: [] }, 'cw');
  const { result } = await inCloud(instead('ports', { ports }), async (neutron) => planCloud(wished, await readState(neutron, {})));
  assert.deepEqual(result.problems, []);
  const rules = result.steps.flatMap((step) => (step.type === 'add-rules' ? step.rules : []));
  assert.deepEqual(
    rules.map(({ ethertype, port: number }) => `${ethertype} ${number}`),
    ['IPv6 8472', 'IPv6 8472'],
  );
});
