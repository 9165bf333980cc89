import assert from 'node:assert/strict';
import { test } from 'node:test';
import { models } from '#drivers/models.ts';
import { type Advice, advise, type Judgement, type Needs } from './advice.ts';
import { type AdvisedName, advisedModels, advisedNames, type Feature, features, isAvailable, summaryOf } from './advice-table.ts';
import type { Survey } from './survey.ts';
import { networkOf, surveyOf } from './survey.fixture.ts';

const needsOf = (wanted: readonly Feature[] = [], changes: Partial<Needs> = {}): Needs => ({
  features: wanted,
  frontEnds: ['docker'],
  hosts: 3,
  containers: 60,
  networks: 1,
  ...changes,
});
const of = ({ models: all }: Advice, model: AdvisedName): Judgement => all.find((one) => one.model === model) ?? assert.fail(`no ${model}`);
const said = (advice: Advice): string => {
  const { recommended } = advice;
  return recommended === undefined ? 'none' : `${recommended.model} ${recommended.carry}`;
};
const without = (alias: string): Survey => surveyOf({ extensions: surveyOf().extensions.filter((one) => one !== alias) });
const quotas = (limit: number, used: number) => surveyOf({ quotas: { security_group_rule: { limit, used } } });
const asks = (hosts: number, networks: number, wanted: readonly Feature[] = []) => {
  const advice = advise(surveyOf({ quotas: {} }), needsOf(wanted, { hosts, networks }));
  return Object.fromEntries(advice.models.map((one) => [one.model, one.asks]));
};
const figures = (survey: Survey, wanted: readonly Feature[]): Record<string, string> =>
  Object.fromEntries(
    advise(survey, needsOf(wanted)).models.map(({ model, carry, bytesPerPacket, mtu }) => [
      model,
      `${carry} ${bytesPerPacket} ${mtu.left}`,
    ]),
  );
const kubernetes = { frontEnds: ['kubernetes'] as const };

test('every model is either there or planned, and says so in one place', () => {
  for (const name of advisedNames) {
    const { planned, ways } = advisedModels[name];
    assert.equal(isAvailable(name), planned === undefined, `${name}: remove "planned" once drivers/models.ts has it`);
    assert.ok(ways.length > 0);
    assert.notEqual(summaryOf(name), '');
  }
  assert.deepEqual(
    Object.keys(models).filter((name) => !advisedNames.some((one) => one === name)),
    [],
    'a model that nobody is advised of',
  );
});

test('what is recommended for which needs', () => {
  const noPairs = surveyOf({ rights: { pairs: 'no', portSecurity: 'no', routes: 'yes' } });
  const rows: readonly (readonly [string, Survey, Needs])[] = [
    ['flannel host-gateway', surveyOf(), needsOf()],
    ['flannel vxlan', noPairs, needsOf()],
    ['overlay vxlan', surveyOf(), needsOf(['isolation'])],
    ['overlay wireguard', surveyOf(), needsOf(['isolation', 'encryption'])],
    ['flannel wireguard', surveyOf(), needsOf(['encryption'], kubernetes)],
    ['flannel host-gateway', surveyOf(), needsOf(['addressable'])],
    ['flannel host-gateway', surveyOf(), needsOf(['policy'], kubernetes)],
    ['flannel vxlan', noPairs, needsOf(['policy'], kubernetes)],
    ['flannel host-gateway', surveyOf(), needsOf([], { frontEnds: ['docker', 'kubernetes'] })],
    ['none', noPairs, needsOf(['addressable'])],
    ['none', surveyOf(), needsOf(['encryption', 'addressable'])],
    ['none', surveyOf(), needsOf(['isolation'], kubernetes)],
    ['none', surveyOf(), needsOf(['policy'])],
  ];
  for (const [expected, survey, needs] of rows) assert.equal(said(advise(survey, needs)), expected, JSON.stringify(needs));
});

test('nothing that this version does not have is ever recommended, whatever is needed and wherever', () => {
  const clouds = [
    surveyOf(),
    surveyOf({ rights: { pairs: 'no', portSecurity: 'no', routes: 'yes' } }),
    surveyOf({ instances: 0, rights: { pairs: 'unknown', portSecurity: 'unknown', routes: 'yes' } }),
    surveyOf({ instances: 2, unguarded: 2, rights: { pairs: 'unknown', portSecurity: 'unknown', routes: 'yes' } }),
    surveyOf({ network: networkOf(1500, [6]) }),
    surveyOf({ quotas: {} }),
  ];
  const subsets = Array.from({ length: 2 ** features.length }, (_, bits) => features.filter((__, index) => (bits >> index) % 2 === 1));
  for (const survey of clouds) {
    for (const wanted of subsets) {
      for (const frontEnds of [['docker'], ['kubernetes'], ['docker', 'kubernetes']] as const) {
        const advice = advise(survey, needsOf(wanted, { frontEnds }));
        assert.deepEqual(advice.models.map(({ model }) => model).toSorted(), advisedNames.toSorted(), 'each of them is told of');
        const { recommended } = advice;
        if (recommended === undefined) {
          assert.ok(
            advice.models.every(({ obstacles }) => obstacles.length > 0),
            'each has a reason',
          );
        } else {
          assert.ok(recommended.isAvailable);
          assert.deepEqual(recommended.obstacles, []);
          for (const feature of wanted) assert.ok(advisedModels[recommended.model].traits[feature].has);
        }
      }
    }
  }
});

test('bytes and what is left of the MTU', () => {
  assert.deepEqual(figures(surveyOf(), []), {
    flannel: 'host-gateway 0 1442',
    calico: 'bgp 0 1442',
    overlay: 'vxlan 50 1392',
    contiv: 'vxlan 50 1392',
    neutron: 'address-pairs 0 1442',
    routes: 'routes 0 1442',
    swarm: 'docker 50 1392',
  });
  const encrypted = figures(surveyOf(), ['encryption']);
  // 60 bytes of headers, and two more so that whole blocks of 16 bytes are sent.
  assert.equal(encrypted['overlay'], 'wireguard 66 1376');
  assert.equal(encrypted['swarm'], 'docker, encrypted 76 1366');
  const six = figures(surveyOf({ network: networkOf(1500, [6]) }), []);
  assert.equal(six['overlay'], 'vxlan 70 1430');
});

test('a network whose packets are too small already is told', () => {
  const tiny = surveyOf({ network: networkOf(600, [4]) });
  assert.match(of(advise(tiny, needsOf(['isolation'])), 'overlay').obstacles.join(), /a packet would have 550 bytes at most, and 576/);
});

test('rules do not grow with hosts; pairs and rules by range grow with networks, and a port takes ten pairs', () => {
  const few = asks(2, 1);
  for (const [model, { routes, ports, ...rest }] of Object.entries(asks(500, 1)))
    assert.deepEqual({ ...rest, routes: few[model]?.routes, ports: few[model]?.ports }, few[model], `${model} ${routes} ${ports}`);
  assert.deepEqual(asks(2, 1)['overlay'], { groups: 1, rules: 2, pairs: 0, ports: 0, routes: 0 });
  assert.deepEqual(asks(2, 1)['calico'], { groups: 1, rules: 4, pairs: 1, ports: 0, routes: 0 });
  assert.deepEqual(asks(2, 11)['overlay'], asks(2, 1)['overlay'], 'VXLAN of all networks is one port');
  assert.equal(asks(2, 11)['calico']?.pairs, 11);
  const many = advise(surveyOf({ quotas: {} }), needsOf([], { networks: 11 }));
  assert.match(of(many, 'calico').obstacles.join(), /11 address pairs per port are needed, 10 are allowed/);
  assert.equal(said(many), 'flannel vxlan');
  assert.match(of(many, 'flannel').cons.join(), /not carried by host-gateway: 11 address pairs/);
});

test('quotas: what is used counts, and -1 is no limit', () => {
  assert.equal(said(advise(quotas(100, 96), needsOf())), 'flannel host-gateway');
  assert.equal(said(advise(quotas(100, 98), needsOf())), 'flannel vxlan');
  assert.equal(said(advise(quotas(-1, 9999), needsOf())), 'flannel host-gateway');
  const full = advise(quotas(100, 100), needsOf());
  assert.equal(said(full), 'none');
  assert.match(of(full, 'overlay').obstacles.join(), /quota of security group rules would not do: 100 used and 2 needed, 100 allowed/);
  const groups = surveyOf({ quotas: { security_group: { limit: 10, used: 10 } } });
  assert.match(of(advise(groups, needsOf()), 'overlay').obstacles.join(), /quota of security groups would not do: 10 used and 1 needed/);
});

test('ports come a pool of eight at a time, for each host in each network, and so the quota is judged', () => {
  const cases = [
    [{ hosts: 10, networks: 3, containers: 20 }, 240, true],
    [{ hosts: 10, networks: 7, containers: 20 }, 560, false],
    [{ hosts: 3, networks: 1, containers: 485 }, 504, false],
    [{ hosts: 2, networks: 1, containers: 17 }, 32, true],
  ] as const;
  const parents = surveyOf({ parents: 2, instances: 2 });
  for (const [scale, ports, fits] of cases) {
    const { asks: asked, obstacles } = of(advise(parents, needsOf([], scale)), 'neutron');
    assert.equal(asked.ports, ports);
    if (fits) assert.deepEqual(obstacles, []);
    else assert.ok(obstacles.join().includes(`quota of ports would not do: 10 used and ${ports} needed, 500 allowed`));
  }
});

test('ways by a router need the right to write its routes', () => {
  const cannot = surveyOf({ rights: { pairs: 'yes', portSecurity: 'yes', routes: 'no' }, routers: ['main', 'other'] });
  const { obstacles } = of(advise(cannot, needsOf()), 'routes');
  assert.deepEqual(obstacles, ['the login may not write routes of routers main, other']);
  assert.deepEqual(of(advise(cannot, needsOf(['addressable'])), 'flannel').obstacles, obstacles);
  assert.equal(said(advise(cannot, needsOf(['addressable'], { containers: 9 }))), 'neutron address-pairs');
  const pairless = surveyOf({ rights: { pairs: 'no', portSecurity: 'yes', routes: 'no' } });
  assert.match(of(advise(pairless, needsOf(['policy'], kubernetes)), 'calico').obstacles.join(), /pairs, but may turn port security off/);
});

test("containers have no ports in another project's network, but as sub-ports on one of this project", () => {
  const network = networkOf(1442, [4], false);
  assert.match(
    of(advise(surveyOf({ network }), needsOf([], { containers: 9 })), 'neutron').obstacles.join(),
    /network hosts is another project's/,
  );
  const trunks = of(advise(surveyOf({ network, parents: 2 }), needsOf()), 'neutron');
  assert.deepEqual([trunks.carry, trunks.obstacles], ['sub-ports', []]);
  assert.match(trunks.cons.join(), /containers' ports must be on another one, of this project/);
});

test('pods have ports only in networks that they ask for', () => {
  const trunks = surveyOf({ parents: 2, rights: { pairs: 'no', portSecurity: 'no', routes: 'no' } });
  const advice = advise(trunks, needsOf(['policy', 'addressable'], kubernetes));
  assert.equal(said(advice), 'neutron sub-ports');
  assert.match(of(advice, 'neutron').cons.join(), /with Kubernetes only in networks that pods ask for/);
  assert.doesNotMatch(of(advise(trunks, needsOf()), 'neutron').cons.join(), /Kubernetes/);
  assert.match(of(advise(trunks, needsOf([], kubernetes)), 'swarm').obstacles.join(), /not for Kubernetes/);
});

test('on a network that does not tell its MTU, or has no subnet, nothing is recommended, and what to do is told', () => {
  const blind = advise(surveyOf({ network: networkOf(0, [4]) }), needsOf());
  assert.equal(said(blind), 'none');
  for (const { obstacles, mtu } of blind.models) {
    assert.ok(
      obstacles.includes(
        'the cloud does not tell the MTU of network hosts: ask its operator, and have it set (openstack network set --mtu BYTES hosts)',
      ),
    );
    assert.ok(mtu.left === 0 && !obstacles.join().includes('bytes at most'));
  }
  const bare = advise(surveyOf({ network: networkOf(1442, []) }), needsOf());
  assert.equal(said(bare), 'none');
  assert.match(of(bare, 'overlay').obstacles.join(), /network hosts has no subnet, .*openstack subnet create --network hosts/);
});

test('where port security is off on all ports, no right to write pairs is needed', () => {
  const rights = { pairs: 'no', portSecurity: 'no', routes: 'yes' } as const;
  assert.equal(said(advise(surveyOf({ instances: 2, unguarded: 2, rights }), needsOf())), 'flannel host-gateway');
  assert.equal(said(advise(surveyOf({ instances: 2, unguarded: 1, rights }), needsOf())), 'flannel vxlan');
});

test('what a cloud lacks is told, and what could not be tried', () => {
  assert.equal(said(advise(without('allowed-address-pairs'), needsOf())), 'flannel vxlan');
  assert.equal(said(advise(without('security-group'), needsOf())), 'none');
  assert.match(of(advise(without('extraroute'), needsOf(['addressable'])), 'flannel').obstacles.join(), /extension extraroute/);
  assert.match(of(advise(surveyOf({ routers: [] }), needsOf(['addressable'])), 'flannel').obstacles.join(), /no router/);
  const blind = surveyOf({ instances: 0, rights: { pairs: 'unknown', portSecurity: 'unknown', routes: 'yes' } });
  assert.match(of(advise(blind, needsOf()), 'flannel').cons.join(), /no instance to try it on/);
});

test('routes of a router: a block of flannel per host, of calico as many as the containers take', () => {
  const advice = advise(surveyOf(), needsOf(['addressable'], { hosts: 40, containers: 4000 }));
  assert.equal(of(advice, 'flannel').asks.routes, 40);
  assert.equal(of(advice, 'calico').asks.routes, 80);
  assert.match(of(advice, 'flannel').cons.join(), /30 routes by default \(max_routes\), and 40 are needed/);
  assert.match(of(advise(surveyOf(), needsOf([], { hosts: 2, containers: 600 })), 'flannel').cons.join(), /300 containers on a host/);
});

test('containers that are sub-ports have groups of their own and need no pairs, where hosts are the parents of trunks', () => {
  const trunks = surveyOf({ instances: 2, parents: 2, rights: { pairs: 'no', portSecurity: 'no', routes: 'yes' } });
  const neutron = of(advise(trunks, needsOf(['policy'], { containers: 300, hosts: 3 })), 'neutron');
  assert.deepEqual([neutron.carry, neutron.obstacles, neutron.asks.pairs, neutron.asks.rules], ['sub-ports', [], 0, 0]);
  const none = of(advise(surveyOf({ instances: 2, parents: 1 }), needsOf(['policy'])), 'neutron');
  assert.match(none.obstacles.join(), /of the ports of 2 instances 1 are parents of trunks|no groups of their own/);
  assert.equal(of(advise({ ...without('trunk'), instances: 2 }, needsOf([], { containers: 9 })), 'neutron').carry, 'address-pairs');
});
