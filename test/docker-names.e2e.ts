// Names over hosts: what a container, its aliases and a Compose service are called in their network, and only there.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { startAgent, stopAgent } from '#lab/causeway.ts';
import { until } from '#lab/until.ts';
import { type DockerBed, makeDockerBed } from './docker-bed.ts';

let bed: DockerBed;
let folder: string;
const patience = { timeoutMs: 90_000, intervalMs: 100 };

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'causeway-compose-'));
  bed = await makeDockerBed('e2e-names');
});
afterEach(() => bed.clear());
after(async () => {
  rmSync(folder, { recursive: true, force: true });
  await bed[Symbol.asyncDispose]();
});

/** Addresses of a name as a container sees it, sorted; empty when it does not exist. */
async function resolve(index: number, box: string, name: string): Promise<string[]> {
  const { stdout } = await bed.tryIn(index, box, 'nslookup', name);
  const answer = stdout
    .split(/\n\s*\n/)
    .slice(1)
    .join('\n');
  return [...answer.matchAll(/^Address(?: \d+)?: (\S+)/gm)].map(([, ip = '']) => ip).sort();
}

/** Waits until a name has exactly these addresses in a container. */
const resolves = (index: number, box: string, name: string, wanted: readonly string[]): Promise<unknown> => {
  const seen: { last?: readonly string[] } = {};
  return until(
    `${name} to be ${wanted.join(' ') || 'nothing'} for ${box}`,
    async () => {
      seen.last = await resolve(index, box, name);
      if (seen.last.join() !== wanted.toSorted().join()) throw new Error(`it is ${seen.last.join(' ') || 'nothing'}`);
      return true;
    },
    patience,
  );
};

test('a container is known on other hosts by its name, its short id and its aliases, forward and back', async () => {
  await bed.createNetwork('names', '--ipv6');
  const id = await bed.start(1, 'Server_1', 'names', '--network-alias=db', '--network-alias=db.primary', '--hostname=else');
  await bed.start(2, 'client', 'names');
  await bed.start(1, 'near', 'names');
  const { ip, ip6 } = await bed.addresses(1, 'Server_1', 'names');
  for (const [index, box] of [
    [2, 'client'],
    [1, 'near'],
  ] as const) {
    for (const name of ['Server_1', 'server_1', id.slice(0, 12), 'db', 'db.primary', 'db.names', 'Server_1.names']) {
      await bed.ping(index, box, name);
    }
  }
  await resolves(2, 'client', 'db', [ip, ip6]);
  assert.match(await bed.in(2, 'client', 'nslookup', ip), /name = Server_1\.names/);
  assert.match(await bed.in(2, 'client', 'nslookup', ip6), /name = Server_1\.names/);
  // A renamed container is found by its new name, and not by the old one.
  await bed.docker(1, 'rename', 'Server_1', 'fresh');
  await resolves(2, 'client', 'fresh', [ip, ip6]);
  await resolves(2, 'client', 'Server_1', []);
});

test('a name that several containers share has all their addresses, of the running ones only', async () => {
  await bed.createNetwork('pool');
  for (const [on, name] of [
    [1, 'worker1'],
    [2, 'worker2'],
    [2, 'worker3'],
  ] as const) {
    await bed.start(on, name, 'pool', '--network-alias=worker');
  }
  await bed.start(3, 'client', 'pool');
  const [one, two, three] = await Promise.all([
    bed.addresses(1, 'worker1', 'pool'),
    bed.addresses(2, 'worker2', 'pool'),
    bed.addresses(2, 'worker3', 'pool'),
  ]);
  await resolves(3, 'client', 'worker', [one.ip, two.ip, three.ip]);
  // An engine answers for its own containers by itself, so next to one of them it is the near ones that are found.
  await resolves(2, 'worker2', 'worker', [two.ip, three.ip]);
  await bed.remove(2, 'worker2');
  await resolves(3, 'client', 'worker', [one.ip, three.ip]);
  await bed.docker(2, 'stop', '--time=0', 'worker3');
  await resolves(3, 'client', 'worker', [one.ip]);
  await bed.docker(2, 'start', 'worker3');
  await resolves(3, 'client', 'worker', [one.ip, (await bed.addresses(2, 'worker3', 'pool')).ip]);
});

test('an alias of docker network connect is known in that network only', async () => {
  await bed.createNetwork('left');
  await bed.createNetwork('right');
  await bed.start(1, 'server', 'left');
  await bed.docker(1, 'network', 'connect', '--alias=only-right', 'right', 'server');
  await bed.start(2, 'inleft', 'left');
  await bed.start(3, 'inright', 'right');
  const [left, right] = [await bed.addresses(1, 'server', 'left'), await bed.addresses(1, 'server', 'right')];
  await resolves(3, 'inright', 'only-right', [right.ip]);
  await resolves(3, 'inright', 'server', [right.ip]);
  await resolves(2, 'inleft', 'server', [left.ip]);
  await resolves(2, 'inleft', 'only-right', []);
});

test('a name never leaks into another network, whoever is asked for it', async () => {
  await bed.createNetwork('secret', '--subnet', '10.60.0.0/24');
  await bed.createNetwork('other', '--subnet', '10.60.0.0/24');
  await bed.start(1, 'hidden', 'secret', '--network-alias=vault');
  await bed.start(1, 'spy1', 'other');
  await bed.start(2, 'spy2', 'other');
  await bed.start(2, 'friend', 'secret');
  const { ip } = await bed.addresses(1, 'hidden', 'secret');
  await resolves(2, 'friend', 'vault', [ip]);
  for (const [index, spy] of [
    [1, 'spy1'],
    [2, 'spy2'],
  ] as const) {
    for (const name of ['hidden', 'vault', 'hidden.secret', 'vault.secret']) {
      for (const server of ['', '169.254.1.1', '198.51.100.10', '8.8.8.8', bed.host(index).address]) {
        const { stdout } = await bed.tryIn(index, spy, 'nslookup', name, ...(server === '' ? [] : [server]));
        assert.ok(!stdout.includes(ip), `${spy} learned ${name} from ${server || 'its resolver'}: ${stdout}`);
      }
    }
    assert.doesNotMatch((await bed.tryIn(index, spy, 'nslookup', ip)).stdout, /hidden|vault/);
  }
});

test('names work on internal networks, and for a container that is in an internal one and in one with a way out', async () => {
  await bed.createNetwork('closed', '--internal');
  await bed.createNetwork('open');
  await bed.start(1, 'deep', 'closed');
  await bed.start(2, 'deep2', 'closed');
  await bed.start(3, 'far', 'open');
  await bed.ping(2, 'deep2', 'deep');
  await resolves(2, 'deep2', 'internet.example', []);
  await bed.start(2, 'bridge', 'open');
  await bed.docker(2, 'network', 'connect', 'closed', 'bridge');
  await bed.ping(2, 'bridge', 'deep');
  await bed.ping(2, 'bridge', 'far');
  await resolves(2, 'bridge', 'internet.example', ['198.51.100.10', '2001:db8:100::10']);
  await bed.ping(1, 'deep', 'bridge');
  await bed.start(1, 'bridge1', 'closed', '--network=open');
  await bed.ping(1, 'bridge1', 'deep2');
  await bed.ping(1, 'bridge1', 'far');
  await resolves(2, 'deep2', 'far', []);
  // A network that is left takes no names along but its own.
  await bed.docker(2, 'network', 'disconnect', 'closed', 'bridge');
  await bed.ping(2, 'bridge', 'far');
  await resolves(2, 'bridge', 'internet.example', ['198.51.100.10', '2001:db8:100::10']);
});

test('outside names are asked of the host’s servers, single labels that nobody has do not exist', async () => {
  await bed.createNetwork('web');
  await bed.start(1, 'box', 'web');
  await resolves(1, 'box', 'internet.example', ['198.51.100.10', '2001:db8:100::10']);
  const unknown = await bed.tryIn(1, 'box', 'nslookup', 'nobody');
  assert.match(unknown.stdout + unknown.stderr, /NXDOMAIN/);
  assert.equal(await bed.in(1, 'box', 'wget', '-qO-', 'http://internet.example/'), bed.host(1).address);
});

test('where Docker asks past us, as on a host whose name server is on loopback, names are known all the same, and what only Docker knows', async (t) => {
  await bed.createNetwork('web');
  await bed.createNetwork('web2');
  await bed.docker(2, 'network', 'create', 'plain');
  const conf = bed.host(2).file('/etc/resolv.conf');
  const text = readFileSync(conf, 'utf8');
  t.after(async () => {
    writeFileSync(conf, text);
    await bed.tryDocker(2, 'rm', '--force', 'near', 'hears', 'both');
    await bed.tryDocker(2, 'network', 'rm', 'plain');
  });
  writeFileSync(conf, 'nameserver 127.0.0.1\n');
  await bed.start(1, 'far', 'web');
  await bed.start(1, 'far2', 'web2');
  await bed.start(2, 'near', 'plain');
  const [far, far2] = [await bed.addresses(1, 'far', 'web'), await bed.addresses(1, 'far2', 'web2')];
  await bed.start(2, 'both', 'web', '--network=plain', '--network=web2');
  const near = await bed.addresses(2, 'near', 'plain');
  await resolves(2, 'both', 'far', [far.ip]);
  await resolves(2, 'both', 'far2', [far2.ip]);
  await resolves(2, 'both', 'near', [near.ip]);
  await resolves(2, 'both', 'nobody', []);
  await bed.ping(2, 'both', 'far');
  // The network by which its questions came is left: they come by the other one.
  await bed.docker(2, 'network', 'disconnect', 'web', 'both');
  await resolves(2, 'both', 'far', []);
  await resolves(2, 'both', 'far2', [far2.ip]);
  await resolves(2, 'both', 'near', [near.ip]);
  // Servers that are given are asked in the network.
  await bed.start(2, 'hears', 'web', '--dns=198.51.100.53');
  await bed.ping(2, 'hears', 'far');
  const sandbox = await bed.docker(2, 'inspect', '--format', '{{.NetworkSettings.SandboxKey}}', 'hears');
  await until(
    'it to ask its own servers',
    async () => !(await bed.host(2).exec(['nsenter', `--net=${sandbox}`, 'nft', 'list', 'tables'])).stdout.includes('causeway'),
    patience,
  );
  await bed.ping(2, 'hears', 'far');
  await until('nothing to be wrong', async () => (await bed.tryCauseway('status')).status === 0, patience);
  // So it stays after the agent was started again.
  await stopAgent(bed.host(2));
  await startAgent(bed.host(2));
  await resolves(2, 'both', 'far2', [far2.ip]);
  await resolves(2, 'both', 'near', [near.ip]);
  await bed.docker(2, 'network', 'disconnect', 'web2', 'both');
  await resolves(2, 'both', 'near', [near.ip]);
});

/** Runs the Docker Compose of the Debian package for a project against a host's engine. */
async function compose(index: number, project: string, file: string, ...argv: readonly string[]): Promise<string> {
  const path = join(folder, `${project}.yaml`);
  writeFileSync(path, file);
  return bed.docker(index, 'compose', '--project-name', project, '--file', path, ...argv);
}

test('Compose files that name the driver work unchanged, over two projects on two hosts, and go without a trace', async () => {
  const one = `
services:
  front:
    image: causeway/box
    command: httpd -f -p 80 -h /etc
    stop_grace_period: 0s
    networks: [shared, own]
    ports: ["18088:80"]
  cache:
    image: causeway/box
    command: sleep 86400
    stop_grace_period: 0s
    scale: 2
    networks:
      own:
        aliases: [store]
networks:
  own:
    driver: causeway
    driver_opts: { mtu: "1350" }
    ipam: { driver: causeway, config: [{ subnet: 10.61.0.0/24 }] }
  shared:
    name: shared
    driver: causeway
    attachable: true
`;
  const two = `
services:
  back:
    image: causeway/box
    command: sleep 86400
    stop_grace_period: 0s
    networks: [shared]
networks:
  shared: { name: shared, external: true }
`;
  await compose(1, 'one', one, 'up', '--detach');
  await bed.everywhere('shared', 'present');
  await bed.everywhere('one_own', 'present');
  await compose(2, 'two', two, 'up', '--detach');
  await bed.ping(2, 'two-back-1', 'front');
  await bed.ping(1, 'one-front-1', 'back');
  await bed.ping(1, 'one-front-1', 'store');
  await bed.start(3, 'late', 'one_own');
  await bed.ping(3, 'late', 'cache');
  assert.match(await bed.in(3, 'late', 'ip', 'link', 'show', 'eth0'), /mtu 1350 /);
  assert.match(await bed.in(2, 'two-back-1', 'wget', '-qO-', 'http://front/passwd'), /root/);
  const fetch = ['busybox', 'wget', '-T', '5', '-qO-', `http://${bed.host(1).address}:18088/passwd`];
  await until('the port to answer', () => bed.lab.outside.exec(fetch), patience);
  await bed.remove(3, 'late');
  await compose(2, 'two', two, 'down');
  await until(
    'the endpoints to be gone',
    async () => (await bed.json<{ host: string }[]>('endpoint', 'ls')).every(({ host }) => host === 'host1'),
    patience,
  );
  await compose(1, 'one', one, 'down');
  await bed.everywhere('shared', 'absent');
  await bed.everywhere('one_own', 'absent');
  await until(
    'everything to be gone',
    async () => {
      const left = [await bed.json<unknown[]>('endpoint', 'ls'), await bed.json<unknown[]>('network', 'ls')];
      return left.every(({ length }) => length === 0);
    },
    patience,
  );
  for (const host of bed.hosts) {
    await until(
      'the kernel to hold nothing',
      async () => {
        const { stdout } = await host.exec(['sh', '-c', 'ip -o link | grep -c ": cw"; ip netns list | grep -c ^cw-'], { anyStatus: true });
        return stdout.replaceAll(/\s/g, '') === '00';
      },
      patience,
    );
  }
});
