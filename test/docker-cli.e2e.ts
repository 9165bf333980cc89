// The command line against a running installation, and the edges of address ranges.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { parse } from 'yaml';
import { until } from '#lab/until.ts';
import { type DockerBed, makeDockerBed } from './docker-bed.ts';

let bed: DockerBed;
const patience = { timeoutMs: 90_000, intervalMs: 100 };

before(async () => {
  bed = await makeDockerBed('e2e-cli');
});
afterEach(() => bed.clear());
after(() => bed[Symbol.asyncDispose]());

const endpointsToBe = (count: number): Promise<unknown> =>
  until(`${count} endpoints`, async () => (await bed.json<unknown[]>('endpoint', 'ls')).length === count, patience);

test('show and ls tell what Docker tells, in every format', async () => {
  await bed.createNetwork('web', '--ipv6', '--encrypted');
  await bed.start(1, 'front', 'web', '--publish=8700:80', '--network-alias=www');
  await bed.start(2, 'back', 'web');
  await endpointsToBe(2);
  const front = await bed.addresses(1, 'front', 'web');
  await until(
    'the names',
    async () => /front/.test(await bed.causeway('endpoint', 'ls')) && /back/.test(await bed.causeway('endpoint', 'ls')),
    patience,
  );
  const text = await bed.causeway('network', 'show', 'web');
  for (const part of ['front', 'back', 'host1', 'host2', front.ip, front.ip6, 'encrypted'])
    assert.ok(text.includes(part), `${part} in ${text}`);
  assert.match(await bed.causeway('endpoint', 'ls'), new RegExp(`front +web +host1 +${front.ip},${front.ip6} +${front.mac} .*8700`));
  const isNamed = async (): Promise<boolean> => {
    const { endpoints } = await bed.json<{ endpoints: { name: string; names: string[] }[] }>('network', 'show', 'web');
    return endpoints.find(({ name }) => name === 'front')?.names.includes('www') === true;
  };
  await until('the alias', isNamed, patience);
  for (const argv of [
    ['status'],
    ['version'],
    ['network', 'ls'],
    ['network', 'show', 'web'],
    ['endpoint', 'ls', '--network', 'web'],
    ['host', 'ls'],
    ['host', 'show', 'host1'],
    ['pool', 'ls'],
    ['exposure', 'ls'],
    ['token', 'ls'],
    ['tenant', 'ls'],
    ['explain', 'network', 'web'],
    ['explain', 'models'],
  ]) {
    // A host may report between the two.
    await until(
      `${argv.join(' ')} to say the same as JSON and as YAML`,
      async () => {
        const [json, yaml] = await Promise.all([bed.causeway(...argv, '--output', 'json'), bed.causeway(...argv, '--output', 'yaml')]);
        assert.deepEqual(parse(yaml), JSON.parse(json), argv.join(' '));
        return true;
      },
      patience,
    );
  }
  assert.equal(await bed.causeway('network', 'ls', '--quiet'), 'web');
});

for (const [what, options] of [
  ['carried by VXLAN', ['--ipv6']],
  ['encrypted', ['--encrypted']],
  ['internal', ['--internal']],
  ['flat', ['--model', 'flannel', '--carry', 'direct-routing', '--subnet', '10.94.0.0/16']],
] as const) {
  test(`every command that explain prints for a network that is ${what} shows something on the host`, async () => {
    await bed.createNetwork('web', ...options);
    await bed.start(1, 'front', 'web');
    await bed.start(2, 'back', 'web');
    await bed.ping(1, 'front', 'back');
    await endpointsToBe(2);
    const output = await bed.tryOnHost(1, 'explain', 'network', 'web', '--output', 'json');
    assert.equal(output.status, 0, output.stderr);
    const { objects, host } = JSON.parse(output.stdout) as { host: string; objects: { what: string; command: string }[] };
    assert.equal(host, 'host1');
    assert.ok(objects.length >= 4);
    const text = await bed.tryOnHost(1, 'explain', 'network', 'web');
    for (const { what: object, command } of objects) {
      assert.ok(text.stdout.includes(command), command);
      const { status, stdout, stderr } = await bed.host(1).exec(['sh', '-c', command], { anyStatus: true });
      assert.equal(status, 0, `${object}: ${command}: ${stderr}`);
      // A host on its own subnet has nobody behind a router.
      if (!object.includes('behind a router')) assert.notEqual(stdout.trim(), '', `${object}: ${command} shows nothing`);
    }
  });
}

test('errors say what happened, where and what to do, with an exit status for each kind', async () => {
  await bed.createNetwork('web');
  for (const [argv, status, text] of [
    [['network', 'show', 'nothing'], 3, /Error \(not-found\)/],
    [['network', 'create', 'web'], 4, /Error \(exists\): A network named web exists/],
    [['network', 'create', 'bad/name'], 2, /Error \(invalid\)/],
    [['network', 'create', 'other', '--subnet', 'nonsense'], 2, /subnet/],
    [['network', 'create', 'other', '--subnet', '10.213.0.0/24'], 4, /Error \(overlap\).*underlay/],
    [['network', 'create', 'other', '--mtuu', '3'], 2, /unknown option/],
    [['expose', 'web', 'front', '70000'], 2, /port/],
    [['frobnicate'], 2, /unknown command/],
    [['--context', 'nowhere', 'network', 'ls'], 3, /nowhere/],
  ] as const) {
    const output = await bed.tryCauseway(...argv);
    assert.equal(output.status, status, `${argv.join(' ')}: ${output.stderr}`);
    assert.match(output.stderr, text);
  }
  assert.deepEqual(await bed.json<{ name: string }[]>('network', 'ls').then((list) => list.map(({ name }) => name)), ['web']);
});

test('a range that is used up is told by name on every host, and a freed address is given again', async () => {
  await bed.docker(1, 'network', 'create', '--driver=causeway', '--ipam-driver=causeway', '--subnet=10.95.0.0/29', 'tiny');
  await bed.everywhere('tiny', 'present');
  // Of eight addresses one is the network's, one the gateway's and one the broadcast's.
  for (const [on, name] of [
    [1, 'b1'],
    [1, 'b2'],
    [2, 'b3'],
    [3, 'b4'],
    [2, 'b5'],
  ] as const) {
    await bed.start(on, name, 'tiny');
  }
  for (const on of [1, 2, 3]) {
    const said = await bed.refused(on, 'run', '--rm', '--network=tiny', 'causeway/box', 'true');
    assert.match(said, /10\.95\.0\.0\/29/, `host${on}`);
    assert.match(said, /\(exhausted\)/, `host${on}`);
  }
  for (const on of [1, 2, 3]) await bed.ping(1, 'b1', on === 1 ? 'b2' : on === 2 ? 'b3' : 'b4');
  const { ip } = await bed.addresses(1, 'b2', 'tiny');
  await bed.remove(1, 'b2');
  await until(
    'the address to be given again by name',
    async () => (await bed.tryDocker(1, 'run', '--rm', '--network=tiny', `--ip=${ip}`, 'causeway/box', 'true')).status === 0,
    patience,
  );
});

test('a hundred containers that come and go leave no address, endpoint or link', async () => {
  await bed.createNetwork('busy');
  for (const on of [1, 2, 3]) await bed.start(on, `stay${on}`, 'busy');
  await Promise.all(
    [1, 2, 3].map(async (on) => {
      for (let round = 0; round < 34; round++) await bed.docker(on, 'run', '--rm', '--network=busy', 'causeway/box', 'true');
    }),
  );
  await endpointsToBe(3);
  for (const on of [1, 2, 3]) {
    const host = bed.host(on);
    await until(
      `host${on} to hold one address and one link`,
      async () => {
        const held = await heldAddresses(on);
        const links = await host.ask([
          'sh',
          '-c',
          'for n in $(ip netns list | grep -o "^cw-[^ ]*"); do ip -n $n -o link; done | grep -c ": cwe"',
        ]);
        if (held !== 1 || links !== '1') throw new Error(`${held} addresses, ${links} links`);
        return true;
      },
      patience,
    );
  }
});

/** How many addresses a host's agent holds, as it says itself. */
async function heldAddresses(index: number): Promise<number> {
  const status = await bed.host(index).ask(['curl', '-sS', '--unix-socket', '/run/causeway/agent.sock', 'http://agent/status']);
  return (JSON.parse(status) as { addresses: number }).addresses;
}
