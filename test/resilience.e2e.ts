// What the agent promises about the kernel while it is away, comes back, or somebody else has been there: a restart writes
// nothing and drift is repaired within seconds. Two hosts with a network of every make. What containers notice is in survival.e2e.ts.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { killAgent, stopAgent } from '#lab/causeway.ts';
import { docker } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { until } from '#lab/until.ts';
import { endpointLink } from '#model/numbers.ts';
import { agentStatus, type Bed, entering, healthy, makeBed, reaches } from './bed.ts';
import { shapeOf, stateOf } from './resilience-state.ts';

interface HostShown {
  readonly status: { readonly failing: readonly string[] };
}

/** Rules are read once a minute at most. */
const patience = { timeoutMs: 240_000, intervalMs: 1_000 };

let bed: Bed;
let first: Host;
let second: Host;

/** A network of the bed: `NAME1` runs on host1, `NAME2` on host2. */
const networks = {
  plain: ['--subnet', '10.80.0.0/16'],
  secret: ['--subnet', '10.81.0.0/16', '--encrypted'],
  dual: ['--subnet', '10.82.0.0/16', '--subnet', 'fd00:82::/64'],
  flat: ['--subnet', '10.83.0.0/16', '--model', 'flannel'],
} as const;
type Name = keyof typeof networks;
const names = ['plain', 'secret', 'dual', 'flat'] as const satisfies readonly Name[];
const ports: Readonly<Record<Name, number>> = { plain: 8080, secret: 8081, dual: 8082, flat: 8083 };

interface Place {
  /** Namespace of the network on every host; '' for the host's own. */
  readonly netns: string;
  readonly vni: string;
  readonly id: string;
  /** Of the container on host1. */
  readonly link: string;
  readonly addresses: readonly string[];
  /** Of the container on host2. */
  readonly remote: readonly string[];
}
const places = new Map<Name, Place>();

before(async () => {
  bed = await makeBed({ name: 'e2e-resilience' });
  first = bed.host(1);
  second = bed.host(2);
  for (const name of names) await bed.network(name, ...networks[name]);
  for (const name of names) {
    await bed.run(1, `${name}1`, name, '--publish', `${ports[name]}:80`);
    await bed.run(2, `${name}2`, name);
    await docker(first, ['exec', '--detach', `${name}1`, 'httpd', '-p', '80', '-h', '/etc']);
    places.set(name, await place(name));
  }
  await Promise.all([healthy(first), healthy(second)]);
  // Names of containers come from the engine's events, a moment after they run.
  for (const name of names) await reaches(first, `${name}1`, `${name}2`);
});

after(() => bed[Symbol.asyncDispose]());

async function place(name: Name): Promise<Place> {
  const shown = await bed.json('network', 'show', name);
  const { id, vni } = shown as { id: string; vni: number };
  const format = `{{with index .NetworkSettings.Networks "${name}"}}{{.EndpointID}} {{.IPAddress}} {{.GlobalIPv6Address}}{{end}}`;
  const [endpoint = '', ...addresses] = (await docker(first, ['inspect', '--format', format, `${name}1`])).split(' ');
  const [, ...remote] = (await docker(second, ['inspect', '--format', format, `${name}2`])).split(' ');
  return { netns: name === 'flat' ? '' : `cw-${id}`, vni: String(vni), id, link: endpointLink(endpoint), addresses, remote };
}

function placeOf(name: Name): Place {
  const found = places.get(name);
  assert.ok(found);
  return found;
}

/** Everything of a network works: to the other host over every family, its published port from outside, names, the way out. */
async function works(name: Name): Promise<boolean> {
  const { remote } = placeOf(name);
  const over = remote.filter((ip) => ip !== '').map((ip) => `ping -n -c1 -W1 ${ip} >/dev/null`);
  const out = `ping -n -c1 -W1 ${bed.lab.controller.address} >/dev/null`;
  const [inner, outer] = await Promise.all([
    first.exec([...(await entering(first, `${name}1`)), 'sh', '-c', [...over, out].join(' && ')], { anyStatus: true }),
    bed.lab.outside.exec(['busybox', 'wget', '-q', '-T1', '-O-', `http://${first.address}:${ports[name]}/passwd`], { anyStatus: true }),
  ]);
  return inner.status === 0 && outer.stdout.includes('root');
}

test('everything works at first', async () => {
  for (const name of names) await until(`${name} to work`, () => works(name));
});

for (const [how, stop] of [
  ['stopped', stopAgent],
  ['killed', killAgent],
] as const) {
  test(`an agent that is ${how} and started again writes nothing`, async () => {
    await Promise.all([healthy(first), healthy(second)]);
    // The kernel goes on by itself for a second after a link was made: duplicate address detection (RFC 4862).
    const was = await until('the kernel to have settled', async () => {
      const state = await stateOf(first);
      return state.some((line) => line.includes('"tentative":true')) ? undefined : state;
    });
    await stop(first);
    await bed.startAgent(first);
    await until('a pass over the engine', async () => (await agentStatus(first)).docker?.engine === 'connected');
    const { kernelWrites } = await healthy(first);
    assert.deepEqual(await stateOf(first), was);
    assert.equal(kernelWrites, 0);
    assert.equal((await agentStatus(first)).kernelWrites, 0);
  });
}

interface Drift {
  readonly what: string;
  readonly network: Name;
  /** Shell text that does the harm on host1. */
  readonly harm: (place: Place) => string;
}

const at = ({ netns }: Place): string => (netns === '' ? '' : `-n ${netns}`);
const inside = ({ netns }: Place): string => (netns === '' ? '' : `nsenter --net=/run/netns/${netns} -- `);

const drifts: readonly Drift[] = [
  {
    what: 'the routes to other hosts',
    network: 'plain',
    harm: (p) => `ip ${at(p)} route del $(ip ${at(p)} route show proto 197 dev cwx${p.vni} | head -1)`,
  },
  { what: 'the route to a container', network: 'plain', harm: (p) => `ip ${at(p)} route del ${p.addresses[0]}` },
  { what: 'an IPv6 route to a container', network: 'dual', harm: (p) => `ip ${at(p)} -6 route del ${p.addresses[1]}` },
  { what: 'all our routes of the host', network: 'flat', harm: () => 'ip route flush proto 197' },
  { what: 'the gateway’s address', network: 'plain', harm: (p) => `ip ${at(p)} addr del 169.254.1.1/32 dev lo` },
  { what: 'all addresses of a link', network: 'dual', harm: (p) => `ip ${at(p)} addr flush dev ${p.link}` },
  { what: 'a container’s neighbour entry', network: 'plain', harm: (p) => `ip ${at(p)} neigh del ${p.addresses[0]} dev ${p.link}` },
  {
    what: 'a container’s MAC',
    network: 'dual',
    harm: (p) => `ip ${at(p)} neigh replace ${p.addresses[1]} lladdr 0a:00:00:00:00:01 dev ${p.link} nud permanent`,
  },
  { what: 'all neighbours', network: 'plain', harm: (p) => `ip ${at(p)} neigh flush nud permanent` },
  {
    what: 'a forwarding entry',
    network: 'plain',
    harm: (p) => `bridge ${at(p)} fdb del $(bridge ${at(p)} fdb show dev cwx${p.vni} | head -1 | cut -d' ' -f1) dev cwx${p.vni}`,
  },
  { what: 'a container’s link, our end', network: 'dual', harm: (p) => `ip ${at(p)} link del ${p.link}` },
  { what: 'a container’s link, our end, host domain', network: 'flat', harm: (p) => `ip ${at(p)} link del ${p.link}` },
  { what: 'a link that is down', network: 'dual', harm: (p) => `ip ${at(p)} link set ${p.link} down` },
  { what: 'a link with another MTU', network: 'plain', harm: (p) => `ip ${at(p)} link set ${p.link} mtu 700` },
  { what: 'a link with another MAC', network: 'plain', harm: (p) => `ip ${at(p)} link set ${p.link} address 02:00:00:00:00:01` },
  { what: 'the vxlan', network: 'plain', harm: (p) => `ip ${at(p)} link del cwx${p.vni}` },
  { what: 'a vxlan that is down', network: 'dual', harm: (p) => `ip ${at(p)} link set cwx${p.vni} down` },
  { what: 'a vxlan in the host’s domain', network: 'flat', harm: (p) => `ip link del cwx${p.vni}` },
  { what: 'the uplink', network: 'dual', harm: (p) => `ip link del cwu${p.id.slice(0, 11)}` },
  { what: 'wireguard-go', network: 'secret', harm: () => 'kill -9 $(pgrep wireguard-go)' },
  { what: 'a wireguard device', network: 'secret', harm: (p) => `ip ${at(p)} link del cww${p.vni}` },
  { what: 'the host’s whole ruleset', network: 'plain', harm: () => 'nft flush ruleset' },
  { what: 'a domain’s whole ruleset', network: 'plain', harm: (p) => `${inside(p)}nft flush ruleset` },
  { what: 'our table', network: 'flat', harm: () => 'nft delete table inet causeway' },
  { what: 'a chain’s rules', network: 'plain', harm: () => 'nft flush chain inet causeway published' },
  { what: 'a domain’s admission rules', network: 'plain', harm: (p) => `${inside(p)}nft flush chain inet causeway entry` },
  {
    what: 'a rule',
    network: 'plain',
    harm: (p) =>
      `${inside(p)}nft delete rule inet causeway inbound handle $(${inside(p)}nft -a list chain inet causeway inbound | sed -n 's/.*inside4.*handle //p')`,
  },
  { what: 'a rule that somebody added', network: 'plain', harm: (p) => `${inside(p)}nft insert rule inet causeway entry counter drop` },
  { what: 'a set’s elements', network: 'plain', harm: (p) => `${inside(p)}nft flush set inet causeway members4` },
  { what: 'a published port', network: 'dual', harm: () => `nft delete element inet causeway published_any4 { tcp . ${ports.dual} }` },
  {
    what: 'a published port that leads elsewhere',
    network: 'dual',
    harm: (p) =>
      `nft 'delete element inet causeway published_any4 { tcp . ${ports.dual} }; add element inet causeway published_any4 { tcp . ${ports.dual} : ${p.addresses[0]} . 1 }'`,
  },
  { what: 'iptables’ rules', network: 'plain', harm: () => 'iptables -P FORWARD DROP; iptables -F' },
  { what: 'a domain', network: 'plain', harm: (p) => `ip netns del ${p.netns}` },
  { what: 'an encrypted network’s domain', network: 'secret', harm: (p) => `ip netns del ${p.netns}` },
  { what: 'forwarding', network: 'plain', harm: (p) => `${inside(p)}sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'` },
  {
    what: 'everything at once',
    network: 'dual',
    harm: () =>
      'nft flush ruleset; for n in $(ls /run/netns | grep ^cw-); do ip netns del $n; done; for l in $(ls /sys/class/net | grep ^cw); do ip link del $l; done; ip route flush proto 197',
  },
];

async function repaired({ network, harm }: Drift, t: TestContext): Promise<void> {
  const was = await shapeOf(first);
  await first.exec(['sh', '-c', harm(placeOf(network))]);
  const began = performance.now();
  await until(`${network} to work again`, () => works(network), { intervalMs: 20 });
  t.diagnostic(`works again after ${((performance.now() - began) / 1000).toFixed(2)} s`);
  let now: string[] = [];
  const isWhole = async (): Promise<boolean> => {
    now = await shapeOf(first);
    return now.join('\n') === was.join('\n');
  };
  await until('the kernel to be as it was', isWhole, { intervalMs: 100 }).catch(() => assert.deepEqual(now, was));
  await healthy(first);
}

for (const drift of drifts) {
  test(`drift is repaired: ${drift.what} (${drift.network})`, (t) => repaired(drift, t));
}

const failingOf = async (name: string): Promise<string> => ((await bed.json('host', 'show', name)) as HostShown).status.failing.join('\n');

/** As docs/install.md has them under "A firewall on the host". */
const lets = {
  input: ['ip saddr 10.213.0.0/24 udp dport { 8472, 51820-55915 } accept', 'iifname "cw*" ct status dnat accept'],
  forward: ['iifname "cw*" accept', 'oifname "cw*" accept'],
};
const shut = `table inet own {
  chain input { type filter hook input priority 10; policy drop; iifname lo accept; ct state established,related accept; }
  chain forward { type filter hook forward priority 10; policy drop; ct state established,related accept; }
}`;

test('what a firewall of the host’s own drops is told with its chain; with the lines that the page has nothing is', async () => {
  assert.doesNotMatch(await failingOf('host1'), /firewall/);
  await first.exec(['nft', '-f', '-'], { input: shut });
  await until(
    'both chains to be told of',
    async () => {
      const told = await failingOf('host1');
      return (
        told.includes('UDP port 8472: packets of host2 come in') &&
        told.includes('(inet own input) drops') &&
        told.includes('(inet own forward) drops')
      );
    },
    patience,
  );
  await until(
    'host2 to tell what is lost',
    async () => (await failingOf('host2')).includes('UDP port 8472 does not reach host host1'),
    patience,
  );

  const page = readFileSync(join(import.meta.dirname, '..', 'docs', 'install.md'), 'utf8');
  for (const rule of Object.values(lets).flat()) assert.ok(page.includes(`\n    ${rule}`), rule);
  const lines = Object.entries(lets).flatMap(([chain, rules]) => rules.map((rule) => `add rule inet own ${chain} ${rule}`));
  await first.exec(['nft', '-f', '-'], { input: lines.join('\n') });
  for (const name of names) await until(`${name} to work`, () => works(name));
  await until('nothing to be told', async () => !(await failingOf('host1')).includes('firewall'), patience);
  await first.exec(['nft', 'delete', 'table', 'inet', 'own']);
});

/** Entries for more than nine tenths of what the kernel keeps track of at most, one line each for conntrack(8). */
const crowd = `awk -v most="$(cat /proc/sys/net/netfilter/nf_conntrack_max)" 'BEGIN {
  for (i = 0; i < most * 0.95; i++)
    printf "-I -p udp -s 198.18.%d.%d -d 198.19.0.1 --sport %d --dport 9 -t 300\\n", int(i / 256) % 256, i % 256, 1024 + int(i / 65536)
}'`;

test('a network with hardly any room for further connections is told of, and no more when there is some', async () => {
  const { netns } = placeOf('plain');
  await first.exec(['sh', '-euc', `${crowd} | ip netns exec ${netns} conntrack -R -`], { timeoutMs: 120_000 });
  await until('it to be told', async () => (await failingOf('host1')).includes('connections are open in network plain on this host'));
  assert.doesNotMatch(await failingOf('host2'), /connections are open/);
  const { status, stdout } = await bed.tryCauseway('status');
  assert.equal(status, 10);
  assert.match(stdout, /Nearly as many connections are open in network plain on this host/);
  await first.exec(['ip', 'netns', 'exec', netns, 'conntrack', '-F']);
  await until('it to be told no more', async () => !(await failingOf('host1')).includes('connections are open'));
  await until('plain to work', () => works('plain'));
});

test('who comes to a published port by a second interface of the host gets answers by it, once the host has a rule for its own', async () => {
  const [client, address, gateway] = ['198.51.100.77', '203.0.113.11', '203.0.113.1'];
  const beyond = ['ip', 'netns', 'exec', 'beyond'];
  const lines = [
    'ip netns add beyond',
    'ip link add eth1 type veth peer name pub netns beyond',
    `ip addr add ${address}/24 dev eth1`,
    'ip link set eth1 up',
    `ip -n beyond addr add ${gateway}/24 dev pub`,
    `ip -n beyond addr add ${client}/32 dev lo`,
    'ip -n beyond link set lo up',
    'ip -n beyond link set pub up',
    `ip route add default via ${gateway} dev eth1 table 101`,
    `ip rule add from ${address} lookup 101`,
  ];
  await first.exec(['sh', '-euc', lines.join('\n')]);
  try {
    for (const name of names) {
      const fetch = [...beyond, 'curl', '-sf', '-m', '2', '--interface', client, `http://${address}:${ports[name]}/hostname`];
      await until(`the answer of ${name}`, async () => (await first.exec(fetch, { anyStatus: true })).status === 0);
    }
    assert.match(await first.ask(['ip', 'rule']), /fwmark 0x1000000\/0x1000000 lookup 101/);
    for (const name of names) assert.ok(await works(name), name);
  } finally {
    await first.exec(['sh', '-c', `ip rule del from ${address}; ip link del eth1; ip netns del beyond`]);
  }
  await until('its rule to go', async () => !(await first.ask(['ip', 'rule'])).includes('fwmark'));
});
