// docs/install.md on a host that systemd has really booted: every command is taken from the page, so the page, the units in
// packaging/ and the program are shown to fit together. host1 runs everything, controller included; host2 is its neighbour.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { isFault } from '#model/fault.ts';
import { startAgent } from '#lab/causeway.ts';
import { cgroupExists, processesOf } from '#lab/cgroup.ts';
import { docker, startDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, type ImageRecipe, importImages } from '#lab/images.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { isAlive } from '#lab/process.ts';
import { labDisk, labFolder, labGroup } from '#lab/state.ts';
import { bootSystemd, failures } from '#lab/systemd.ts';
import { until } from '#lab/until.ts';
import { agentStatus, entering, healthy, pings } from './bed.ts';
import { pingingFrom } from './carriage-streams.ts';
import { namespacesOf, stillUsing, usersOfNamespaces } from './namespaces.ts';

const name = 'e2e-systemd';
const page = readFileSync(join(import.meta.dirname, '..', 'docs', 'install.md'), 'utf8');
const patience = { timeoutMs: 180_000, intervalMs: 200 };
/** What the page's examples run, under the names that they have there. */
const images: readonly ImageRecipe[] = [
  { ...boxImage, name: 'busybox' },
  {
    name: 'nginx',
    programs: {},
    scripts: { '/srv/index.html': 'it works\n' },
    changes: ['CMD ["httpd", "-f", "-p", "80", "-h", "/srv"]'],
  },
];

let lab: Lab;
let first: Host;
let second: Host;
/** Why systemd cannot be booted on this machine. */
let hindrance: string | undefined;
/** The step that failed, after which the others would wait in vain. */
let broken: string | undefined;

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 2 });
  first = lab.host('host1');
  second = lab.host('host2');
  try {
    await bootSystemd(lab, first);
  } catch (error) {
    if (!isFault(error, 'unsupported')) throw error;
    hindrance = error.message;
  }
});
after(() => destroyLab(name));

/** A step that needs what the steps before it have left. */
function step(title: string, work: (context: TestContext) => Promise<void>): void {
  test(title, async (context) => {
    if (hindrance !== undefined) {
      context.skip(hindrance);
      return;
    }
    assert.equal(broken, undefined, 'an earlier step has failed');
    try {
      await work(context);
    } catch (error) {
      broken ??= title;
      context.diagnostic(await failures(first));
      throw error;
    }
  });
}

const environment = { HOME: '/root', PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };
const sh = (script: string): Promise<string> => first.ask(['sh', '-euc', script], { env: environment, timeoutMs: 300_000 });

/** The page's commands that begin with these words, each of which must be there, with what the reader has to fill in. */
function documented(beginnings: readonly string[], filledIn: Readonly<Record<string, string>> = {}): string {
  const lines = [...page.matchAll(/^ {4}(.*)$/gm)].map(([, line = '']) => line);
  return beginnings
    .map((beginning) => {
      const line = lines.find((one) => one.startsWith(beginning));
      assert.ok(line !== undefined, `docs/install.md has no command that begins with ${beginning}`);
      return Object.entries(filledIn).reduce((whole, [word, value]) => whole.replaceAll(word, value), line);
    })
    .join('\n');
}

const property = async (unit: string, key: string): Promise<string> => sh(`systemctl show --value --property=${key} ${unit}`);

step('the machine is run by systemd, and its units are in order', async () => {
  assert.equal(await first.ask(['cat', '/proc/1/comm']), 'systemd');
  // `git clone` is what the lab has done with this checkout.
  const install = documented([
    'ln -s',
    'causeway version --client',
    'install -m 644 /usr/lib/causeway/packaging/systemd',
    'install -m 644 /usr/lib/causeway/packaging/sysctl.d',
  ]);
  await sh(install);
  const { stdout, stderr } = await first.exec(['sh', '-c', 'systemd-analyze verify /etc/systemd/system/causeway-*.service']);
  assert.equal(stdout + stderr, '');
  // Of all settings of Debian's, only those of the network can be written in a namespace.
  await sh(`${documented(['sysctl --system'])} || true`);
  assert.equal(await sh('cat /proc/sys/net/ipv4/ip_forward'), '1');
});

step('the controller starts in its sandbox', async () => {
  await sh(documented(['systemctl enable --now causeway-controller']));
  await until('the controller to answer', () => sh('causeway status'), patience);
  await sh(documented(["echo 'OPTIONS=--san", 'systemctl restart causeway-controller']));
  await until('the controller to answer again', () => sh('causeway status'), patience);
  for (const address of ['localhost', first.address, `[${first.address6}]`]) {
    const ask = `openssl s_client -connect ${address}:7480 </dev/null 2>/dev/null`;
    const certificate = await sh(`${ask} | openssl x509 -noout -ext subjectAltName`);
    for (const own of ['causeway.example.org', '203.0.113.10', first.address]) assert.ok(certificate.includes(own), certificate);
  }
  const status = await sh('cat /proc/$(systemctl show --value --property=MainPID causeway-controller)/status');
  assert.match(status, /^CapEff:\s+0000000000000000$/m);
  assert.match(status, /^NoNewPrivs:\s+1$/m);
  assert.equal(await sh('stat --format=%a /var/lib/causeway /etc/causeway/contexts.yaml'), '700\n600');
  assert.equal(await property('causeway-controller', 'NRestarts'), '0');
});

step('a host joins with a token, and its agent sees the namespaces of the machine', async () => {
  const token = await sh(`${documented(['causeway token create --join'])} --quiet`);
  await sh(
    documented(['umask 077', 'printf ', 'systemctl enable --now causeway-agent'], {
      TOKEN: token,
      'https://CONTROLLER:7480': `https://${first.address}:7480`,
    }),
  );
  // The unit counts as started when Docker could use the plugin.
  assert.ok(existsSync(first.file('/run/docker/plugins/causeway.sock')));
  await until('node-a to be ready', async () => /^node-a .*\bready\b/m.test(await sh('causeway host ls')) || undefined, patience);
  assert.equal(await sh('stat --format=%a /etc/default/causeway-agent'), '600');
  assert.equal(
    await sh('readlink /proc/$(systemctl show --value --property=MainPID causeway-agent)/ns/mnt'),
    await sh('readlink /proc/1/ns/mnt'),
  );
});

step('Docker beside it has the networks, plain and encrypted, and containers talk over hosts', async () => {
  const [token] = await Promise.all([
    sh('causeway token create --join --quiet'),
    sh('systemctl enable --now docker').then(() => importImages(first, images)),
    startDockerd(second).then(() => importImages(second, images)),
  ]);
  await startAgent(second, { arguments: ['--join', token, '--controller', `https://${first.address}:7480`] });
  await Promise.all([healthy(first), healthy(second)]);
  await sh(`${documented(['causeway network create first'])}\ncauseway network create secret --encrypted`);
  for (const host of [first, second]) {
    const known = async (): Promise<boolean> => (await docker(host, ['network', 'ls', '--format', '{{.Name}}'])).includes('secret');
    await until(`the networks on ${host.name}`, known, patience);
  }
  await sh(documented(['docker run -d --name web']));
  const [ask = ''] = documented(['docker run --rm --network first busybox']).split('#');
  const argv = ask.trim().split(/\s+/).slice(1);
  assert.equal(await until('the page', () => docker(second, argv), patience), 'it works');
  for (const network of ['first', 'secret']) {
    const run = ['run', '-d', '--restart=always', '--stop-signal=KILL', '--network', network, '--name'];
    await docker(first, [...run, `${network}-here`, 'busybox', 'sleep', '9999']);
    await docker(second, [...run, `${network}-there`, 'busybox', 'sleep', '9999']);
    await until(
      `${network} to carry packets`,
      async () => (await pings(first, `${network}-here`, await addressOf(network))) || undefined,
      patience,
    );
  }
  const status = await until('all to be well', () => sh(documented(['causeway status'])), patience);
  assert.match(status, /all well/i);
  // Its first process takes no notice of SIGTERM, for which Docker would wait below.
  await docker(first, ['rm', '--force', 'web']);
});

const addressOf = (network: string): Promise<string> =>
  docker(second, ['inspect', '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', `${network}-there`]);

/** The wireguard-go processes of the host; none where the kernel has WireGuard itself. */
const tunnels = (): Promise<string> => sh('pgrep -x wireguard-go || true');

/** Packets lost of a stream in each network while `work` goes on. */
async function lostDuring(work: () => Promise<void>): Promise<number[]> {
  const stops = await Promise.all(
    ['first', 'secret'].map(async (network) => {
      const enter = await entering(first, `${network}-here`);
      return pingingFrom(first, (line) => [...enter, 'sh', '-c', line], await addressOf(network));
    }),
  );
  await work();
  const counted = await Promise.all(stops.map((stop) => stop()));
  assert.ok(
    counted.every(({ sent }) => sent > 100),
    JSON.stringify(counted),
  );
  return counted.map(({ lost }) => lost);
}

step('an agent that systemd restarts, or starts again after a crash, leaves packets and tunnels alone', async () => {
  const running = await tunnels();
  const lost = await lostDuring(async () => {
    await sh('systemctl restart causeway-agent');
    const { kernelWrites } = await healthy(first);
    assert.equal(kernelWrites, 0);
    await sh('systemctl kill --signal=SIGKILL --kill-whom=main causeway-agent');
    await until('systemd to start the agent again', async () => (await property('causeway-agent', 'NRestarts')) === '1', patience);
    await until('the agent to answer', () => agentStatus(first), patience);
    await healthy(first);
  });
  assert.ok(Math.max(...lost) <= 1, `lost ${lost.join(' and ')}`);
  assert.equal(await tunnels(), running);
});

step('systemd-networkd, which takes away what others have put on its links, leaves the networks alone', async (context) => {
  if (!existsSync(first.file('/lib/systemd/systemd-networkd'))) {
    context.skip('no systemd-networkd on this machine');
    return;
  }
  const network = [
    '[Match]',
    'Name=eth0',
    '[Network]',
    `Address=${first.address}/24`,
    `Address=${first.address6}/64`,
    'Gateway=10.213.0.1',
    'Gateway=fd13:213::1',
  ];
  const lost = await lostDuring(async () => {
    await sh(`mkdir -p /etc/systemd/network
      printf '%s\\n' ${network.join(' ')} > /etc/systemd/network/eth0.network
      # There is no udev here, whose word on each link networkd waits for.
      mkdir -p /run/udev/data
      for link in /sys/class/net/*; do echo I:1 > /run/udev/data/n$(cat $link/ifindex); done
      systemctl daemon-reload`);
    for (const verb of ['start', 'restart']) {
      await sh(`systemctl ${verb} systemd-networkd`);
      await until(
        'eth0 to be configured',
        async () => /\broutable +configured$/m.test(await sh('networkctl --no-legend list eth0')) || undefined,
        patience,
      );
    }
  });
  assert.ok(Math.max(...lost) <= 1, `lost ${lost.join(' and ')}`);
  const { kernelWrites } = await healthy(first);
  assert.equal(kernelWrites, 0);
});

step('what starts at boot starts in order: the agent, then Docker, whose containers have their networks', async () => {
  await sh('systemctl stop docker.socket docker.service causeway-agent causeway-controller');
  await sh('systemctl start multi-user.target');
  await until(
    'the containers to be back',
    async () => (await pings(first, 'secret-here', await addressOf('secret'))) || undefined,
    patience,
  );
  const moments = await sh('systemctl show --value --property=ActiveEnterTimestampMonotonic causeway-agent docker.service');
  const [agent = NaN, engine = NaN] = moments.split(/\s+/).map(Number);
  assert.ok(agent < engine, `the agent at ${agent}, Docker at ${engine}`);
  await healthy(first);
  assert.equal(await sh('systemctl --failed --no-legend'), '');
});

step('taken off again, nothing of it is left', async () => {
  await docker(first, ['rm', '--force', 'first-here', 'secret-here']);
  await until('the namespaces to go', async () => (await sh('ip netns list | grep cw- || true')) === '', patience);
  await sh(
    documented(['systemctl disable --now causeway-agent', 'causeway agent --uninstall', 'causeway host remove node-a'], {
      'remove node-a': 'remove node-a --yes',
    }),
  );
  await sh(documented(['rm -f /etc/default/causeway-agent']));
  assert.deepEqual(await docker(first, ['network', 'ls', '--format', '{{.Name}}']), 'bridge\nhost\nnone');
  assert.match(await sh('causeway network ls --quiet'), /first[^]*secret/);
  assert.doesNotMatch(await sh('causeway host ls'), /node-a/);
  await sh(documented(['systemctl disable --now causeway-controller', 'rm -rf /var/lib/causeway/controller.db*']));
  // Where the page has a clone, the lab has a mount.
  await sh(`umount /usr/lib/causeway\n${documented(['rm -rf /usr/lib/causeway', 'systemctl daemon-reload'])}`);
  await until('nothing to be left', async () => {
    assert.deepEqual(await leftovers(), []);
    return true;
  });
});

/** Everything on the host that is neither Debian's nor Docker's. */
async function leftovers(): Promise<string[]> {
  const looks = {
    files: "find /etc /run /usr /var /tmp /root/.config /root/.cache -xdev -iname '*causeway*' || true",
    units: "systemctl list-units --all --plain --no-legend '*causeway*'",
    processes: "ps -eo comm= | grep -E '^(node|wireguard-go)' || true",
    links: "ip -br link | grep -vE '^(lo|eth0|docker0)[@ ]' || true",
    rules: '{ ip rule; ip -6 rule; } | grep -vE "lookup (local|main|default)" || true',
    routes: "{ ip route show table all; ip -6 route show table all; } | grep -vE 'dev (lo|eth0|docker0)' || true",
    tables: 'nft list tables | grep causeway || true',
    filters: '{ iptables-save; ip6tables-save; } | grep causeway || true',
    programs: 'ls /sys/fs/bpf; tc filter show dev eth0 ingress; tc filter show dev eth0 egress',
  };
  const found = await Promise.all(Object.entries(looks).map(async ([what, look]) => [what, await sh(look)] as const));
  return found.flatMap(([what, seen]) => (seen === '' ? [] : [`${what}: ${seen}`]));
}

step('the machine keeps nothing of the host either', async () => {
  const namespaces = namespacesOf(first.pid);
  const users = usersOfNamespaces();
  const members = processesOf(labGroup(name));
  await destroyLab(name);
  assert.deepEqual(members.filter(isAlive), []);
  assert.deepEqual([cgroupExists(labGroup(name)), existsSync(labFolder(name)), existsSync(labDisk(name))], [false, false, false]);
  assert.doesNotMatch(readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(`causeway-lab/${name}`));
  assert.deepEqual(stillUsing(users, namespaces), []);
});
