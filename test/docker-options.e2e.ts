// What users of Docker expect of a network's options and of a container's, and that they hold over hosts.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { until } from '#lab/until.ts';
import { type DockerBed, makeDockerBed } from './docker-bed.ts';

let bed: DockerBed;
const patience = { timeoutMs: 90_000, intervalMs: 100 };
const all = [1, 2, 3] as const;

before(async () => {
  bed = await makeDockerBed('e2e-options');
});
afterEach(() => bed.clear());
after(() => bed[Symbol.asyncDispose]());

const create = async (index: number, name: string, ...options: readonly string[]): Promise<void> => {
  await bed.docker(index, 'network', 'create', '--driver=causeway', ...options, name);
  await bed.everywhere(name, 'present');
};

const last = (ip: string): number => Number(ip.split('.').at(-1));

interface Config {
  readonly Subnet: string;
  readonly Gateway?: string;
}

for (const [what, options] of [
  ["Docker's own IPAM", []],
  ['the IPAM driver causeway', ['--ipam-driver=causeway']],
] as const) {
  test(`with ${what} subnet, range, gateway, reserved and fixed addresses hold on every host, for both families`, async () => {
    await create(
      1,
      'plan',
      ...options,
      '--ipv6',
      '--subnet=10.50.0.0/24',
      '--ip-range=10.50.0.128/25',
      '--gateway=10.50.0.254',
      '--aux-address=printer=10.50.0.130',
      '--subnet=fd00:50::/64',
    );
    for (const on of all) {
      const configs = JSON.parse(await bed.docker(on, 'network', 'inspect', '--format', '{{json .IPAM.Config}}', 'plan')) as Config[];
      assert.deepEqual(
        configs.map(({ Subnet }) => Subnet),
        ['10.50.0.0/24', 'fd00:50::/64'],
      );
      assert.equal(configs[0]?.Gateway, '10.50.0.254');
    }
    for (const on of all) for (const which of ['a', 'b']) await bed.start(on, `${which}${on}`, 'plan');
    const given = await Promise.all(all.flatMap((on) => ['a', 'b'].map((which) => bed.addresses(on, `${which}${on}`, 'plan'))));
    assert.equal(new Set(given.map(({ ip }) => ip)).size, 6);
    assert.equal(new Set(given.map(({ ip6 }) => ip6)).size, 6);
    for (const { ip, ip6 } of given) {
      assert.ok(last(ip) >= 128 && last(ip) !== 130 && last(ip) !== 254, ip);
      assert.match(ip6, /^fd00:50::/);
    }
    for (const { ip, ip6 } of given) for (const target of [ip, ip6]) await bed.ping(2, 'a2', target);

    for (const [on, mac] of [
      [1, '02:42:aa:00:00:01'],
      [2, '02:42:aa:00:00:02'],
    ] as const) {
      const [fixed, fixed6] = [`10.50.0.${70 + on}`, `fd00:50::${70 + on}`];
      await bed.start(on, `fixed${on}`, 'plan', `--ip=${fixed}`, `--ip6=${fixed6}`, `--mac-address=${mac}`);
      assert.deepEqual({ ...(await bed.addresses(on, `fixed${on}`, 'plan')), id: '' }, { ip: fixed, ip6: fixed6, mac, id: '' });
      assert.match(await bed.in(on, `fixed${on}`, 'ip', 'link', 'show', 'eth0'), new RegExp(mac));
      for (const target of [fixed, fixed6]) await bed.ping(3, 'a3', target);
    }
    const next = await bed.start(2, 'next', 'plan').then(() => bed.addresses(2, 'next', 'plan'));
    assert.ok(last(next.ip) >= 128, `${next.ip} is outside of the range, because a fixed address lies beside it`);
    for (const on of [1, 3]) {
      for (const taken of ['10.50.0.72', '10.50.0.254', '10.50.0.130', given[4]?.ip ?? '']) {
        const text = await bed.refused(on, 'run', '--rm', '--network=plan', `--ip=${taken}`, 'causeway/box', 'true');
        assert.match(text, /taken|in use|kept|used on another host|exists/i, `${taken} on host${on}`);
      }
    }
    assert.match(
      await bed.refused(2, 'run', '--rm', '--network=plan', '--ip=10.51.0.1', 'causeway/box', 'true'),
      /10\.51\.0\.1|no configured subnet/,
    );
  });
}

test('on an internal network containers reach each other over hosts, and nothing else', async () => {
  await create(1, 'inner', '--internal', '--ipv6', '--subnet=10.52.0.0/24', '--subnet=fd00:52::/64');
  assert.equal(await bed.docker(3, 'network', 'inspect', '--format', '{{.Internal}}', 'inner'), 'true');
  await bed.start(1, 'one', 'inner', '--publish=18080:80');
  await bed.start(2, 'two', 'inner');
  for (const target of ['two', (await bed.addresses(2, 'two', 'inner')).ip6]) await bed.ping(1, 'one', target);
  for (const target of ['198.51.100.10', bed.host(1).address, bed.host(2).address, '172.17.0.1']) {
    assert.notEqual((await bed.tryIn(1, 'one', 'ping', '-c1', '-W1', target)).status, 0, target);
  }
  assert.doesNotMatch(await bed.in(1, 'one', 'ip', 'route'), /^default/m);
  const outside = await bed.lab.outside.exec(['busybox', 'wget', '-T', '1', '-qO-', `http://${bed.host(1).address}:18080/`], {
    anyStatus: true,
  });
  assert.match(outside.stderr, /can't connect|timed out/);
});

test('a container is in several networks, joins and leaves them while it runs, and keeps its way out', async () => {
  await create(1, 'front');
  await create(2, 'back', '--ipam-driver=causeway');
  await bed.start(1, 'both', 'front', '--network=back');
  await bed.start(2, 'web', 'front');
  await bed.start(3, 'data', 'back');
  await bed.ping(1, 'both', 'web');
  await bed.ping(1, 'both', 'data');
  await bed.in(1, 'both', 'wget', '-qO-', 'http://198.51.100.10/');
  assert.notEqual((await bed.tryIn(2, 'web', 'ping', '-c1', '-W1', 'data')).status, 0);

  await bed.docker(2, 'network', 'connect', '--alias=www', 'back', 'web');
  await bed.ping(3, 'data', 'web');
  await bed.ping(3, 'data', 'www');
  await bed.docker(2, 'network', 'disconnect', 'front', 'web');
  await bed.ping(2, 'web', 'data');
  await bed.in(2, 'web', 'wget', '-qO-', 'http://198.51.100.10/');
  await until(
    'the name to go from the network it left',
    async () => (await bed.tryIn(1, 'both', 'nslookup', 'web.front')).status !== 0,
    patience,
  );
  await bed.docker(2, 'network', 'connect', '--ip', '10.64.255.1', 'front', 'web').then(
    () => assert.fail('an address outside of the network'),
    () => {},
  );
  await bed.docker(2, 'network', 'connect', 'front', 'web');
  await bed.ping(1, 'both', 'web.front');
});

test('the driver options do what they say', async () => {
  await bed.causeway('tenant', 'create', 'shop').catch(() => '');
  for (const [name, options, expected] of [
    ['narrow', ['--opt=mtu=1300'], { mtu: 1300 }],
    ['bydocker', ['--opt=com.docker.network.driver.mtu=1280'], { mtu: 1280 }],
    ['secret', ['--opt=encrypted'], { encrypted: true, choices: { carry: 'wireguard' } }],
    ['secret2', ['--opt=encrypted=true'], { encrypted: true }],
    ['number', ['--opt=vni=70000'], { vni: 70_000 }],
    ['owned', ['--opt=tenant=shop'], { tenant: 'shop' }],
    [
      'flat',
      ['--opt=model=flannel', '--opt=carry=host-gateway', '--subnet=10.53.0.0/20'],
      { model: 'flannel', choices: { carry: 'host-gateway' } },
    ],
    ['open', ['--attachable'], {}],
  ] as const) {
    await create(2, name, ...options);
    const { network } = await bed
      .json<{ network?: object }>('network', 'show', name)
      .then((shown) => ('network' in shown ? shown : { network: shown }));
    assert.partialDeepStrictEqual(network, expected, name);
  }
  assert.equal(await bed.docker(2, 'network', 'inspect', '--format', '{{.Attachable}}', 'open'), 'true');
  await bed.start(1, 'thin', 'narrow');
  assert.match(await bed.in(1, 'thin', 'ip', 'link', 'show', 'eth0'), /mtu 1300 /);
});

for (const [options, text] of [
  [['--opt=mtuu=1400'], /Unknown network option "mtuu".*Known options: .*mtu/],
  [['--opt=mtu=large'], /Option mtu is "large", expected a number from 576 to 65535/],
  [['--opt=encrypted=perhaps'], /expected true or false/],
  [['--opt=model=magic'], /expected overlay or flannel/],
  [['--opt=carry=pigeon'], /expected vxlan or direct-routing/],
  [['--opt=tenant=nobody'], /No tenant nobody/],
  [['--opt=carry=host-gateway'], /host-gateway/],
  [['--ipam-driver=causeway', '--ipam-opt=nonsense=1'], /Unknown IPAM option "nonsense"/],
  [['--subnet=10.213.0.0/16'], /10\.213\.0\.0\/16 overlaps the underlay 10\.213\.0\.0\/24 of host host/],
  [['--subnet=100.127.0.0/20'], /100\.127\.0\.0\/20 overlaps the range of transit addresses/],
  [['--opt=mtu=1000', '--ipv6', '--subnet=10.54.0.0/24', '--subnet=fd00:54::/64'], /IPv6 needs an MTU of at least 1280/],
] as const) {
  test(`docker network create ${options.join(' ')} is refused with the reason, and leaves nothing`, async () => {
    const said = await bed.refused(1, 'network', 'create', '--driver=causeway', ...options, 'wrong');
    assert.match(said, text);
    assert.deepEqual(await bed.json('network', 'ls'), []);
    assert.ok(!(await bed.networkNames(1)).includes('wrong'));
  });
}
