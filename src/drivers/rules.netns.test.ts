// docs/rules/*.md: what is in the kernel of a host, read back from it and explained chain by chain, one page per way to build
// a network. A page that differs fails its test, so a change of rules shows in the review as a change of pages. To write
// them anew: CAUSEWAY_NODE=node_modules/.bin/node test/isolated-node --test-update-snapshots src/drivers/rules.netns.test.ts
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { Reconciler } from '#agent/reconcile.ts';
import { probeFast } from '#kernel/fast.ts';
import { createKinds } from '#kernel/kinds.ts';
import { sealChain } from '#kernel/nft-listing.ts';
import { probeWireguard } from '#kernel/wireguard.ts';
import { generateKeyPair } from '#kernel/wireguard-keys.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { domainName } from '#model/numbers.ts';
import { type Desired, emptyDesired, type Netns } from '#model/desired.ts';
import type { CarryName, Exposure, Host, LocalEndpoint, ModelName, PublishedPort } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { mtuSum } from './mtu.ts';
import { models } from './models.ts';
import { plan } from './plan.ts';

mustBeIsolated();

interface Page {
  readonly file: string;
  readonly title: string;
  /** What is particular about this one. */
  readonly about: string;
  readonly model: ModelName;
  readonly carry: CarryName;
  readonly internal?: boolean;
  readonly ipv6?: boolean;
  readonly ports?: readonly PublishedPort[];
  readonly exposed?: boolean;
}

const pages: readonly Page[] = [
  {
    file: 'overlay-vxlan',
    title: 'An isolated network, carried by VXLAN',
    about: 'The default of `causeway network create`.',
    model: 'overlay',
    carry: 'vxlan',
  },
  {
    file: 'overlay-dual-stack',
    title: 'An isolated network with IPv4 and IPv6',
    about: 'Both families take the same way and meet the same rules.',
    model: 'overlay',
    carry: 'vxlan',
    ipv6: true,
  },
  {
    file: 'overlay-wireguard',
    title: 'An isolated network, encrypted',
    about: 'Made with `causeway network create --encrypted`. Instead of VXLAN the domain has a WireGuard device of its own.',
    model: 'overlay',
    carry: 'wireguard',
  },
  {
    file: 'overlay-internal',
    title: 'An internal network',
    about: 'Made with `causeway network create --internal`. The domain has no uplink: no way out, no way in.',
    model: 'overlay',
    carry: 'vxlan',
    internal: true,
  },
  {
    file: 'overlay-published',
    title: 'Published ports',
    about: 'The container was started with `-p 8080:80 -p 10.213.0.1:5353:53/udp`.',
    model: 'overlay',
    carry: 'vxlan',
    ports: [
      { protocol: 'tcp', hostPort: 8080, port: 80 },
      { protocol: 'udp', hostIp: parseIp('10.213.0.1'), hostPort: 5353, port: 53 },
    ],
  },
  {
    file: 'overlay-exposure',
    title: 'An exposure for some clients only',
    about: 'Made with `causeway expose`, port 443 of the container as port 8443 of the host, for clients in 192.0.2.0/24.',
    model: 'overlay',
    carry: 'vxlan',
    exposed: true,
  },
  {
    file: 'flannel-vxlan',
    title: 'A flat network, carried by VXLAN',
    about: "Made with `--model flannel`. There is no domain: the host's own routing table leads to every container.",
    model: 'flannel',
    carry: 'vxlan',
  },
  {
    file: 'flannel-direct-routing',
    title: 'A flat network, routed directly where that is possible',
    about: 'Made with `--model flannel --carry direct-routing`. host-2 shares a subnet with this host, host-3 is behind a router.',
    model: 'flannel',
    carry: 'direct-routing',
  },
  {
    file: 'flannel-host-gateway',
    title: 'A flat network, plainly routed',
    about: 'Made with `--model flannel --carry host-gateway`. host-3 is behind a router, so it cannot be reached this way.',
    model: 'flannel',
    carry: 'host-gateway',
  },
  {
    file: 'flannel-wireguard',
    title: 'A flat network, encrypted',
    about: 'Made with `--model flannel --encrypted`.',
    model: 'flannel',
    carry: 'wireguard',
  },
  {
    file: 'calico-bgp',
    title: 'A flat network, announced by BGP',
    about: 'Made with `--model calico`. The routes to other hosts are not here: BIRD writes them, as protocol `bird`.',
    model: 'calico',
    carry: 'bgp',
  },
  {
    file: 'calico-bgp-cross-subnet',
    title: 'A flat network, announced by BGP within a subnet',
    about:
      'Made with `--model calico --carry bgp-cross-subnet`. Routes to host-2, which shares a subnet with this host, are learned by BIRD; host-3 is behind a router and is sent to by VXLAN.',
    model: 'calico',
    carry: 'bgp-cross-subnet',
  },
];

/** What each chain, set and map is for. One that is missing here fails the test. */
const domainSentences: Readonly<Record<string, string>> = {
  members4: 'Which link, MAC and IPv4 address belong together: one element per endpoint.',
  members6: 'The same for IPv6.',
  ranges4: 'The IPv4 ranges of the network.',
  ranges6: 'Its IPv6 ranges.',
  inside4: 'Way in: from transit address to endpoint.',
  inside6: 'The same for IPv6.',
  outside4: 'Way out: from endpoint to transit address.',
  outside6: 'The same for IPv6.',
  entry:
    'Every packet that comes into the domain, before anything else looks at it. From the carriage it goes to `carried`; from a container only what has the link, MAC and address of a member is let in, and what IPv6 needs to find the gateway.',
  admitted: 'From a member. Names are asked of the agent; traffic inside the network is not tracked; what is left goes out and is.',
  carried: 'From another host. Source and destination must be of the network; nothing else may come this way.',
  to_agent: 'To the domain itself: the name server, pings of the gateway, and what IPv6 needs. All other ports are closed.',
  inbound:
    'Questions for names go to the agent, whatever server was asked. What comes by the uplink goes to the endpoint of its transit address.',
  forward: 'By the uplink come only answers and what was translated on purpose. Nothing passes from the carriage to the uplink.',
  outbound: "What leaves by the uplink takes the endpoint's transit address, which is unique on the host, so that networks may overlap.",
};
const hostSentences: Readonly<Record<string, string>> = {
  members4: 'Endpoints of networks that the host routes itself: link, MAC and IPv4 address.',
  members6: 'The same for IPv6.',
  ranges4: 'IPv4 ranges that the host routes itself.',
  ranges6: 'IPv6 ranges that the host routes itself.',
  own4: 'Which IPv4 ranges that the host routes itself are of one network.',
  own6: 'The same for IPv6.',
  uplinks: "The host's own links to other hosts, which are no networks of an engine whatever they are called.",
  short4: 'Between which IPv4 ranges packets take short cuts; connection tracking does not see them.',
  short6: 'The same for IPv6.',
  published4: 'Ports published on one IPv4 address of the host.',
  published6: 'The same for IPv6.',
  published_any4: 'Ports published on every IPv4 address of the host.',
  published_any6: 'The same for IPv6.',
  names4: 'Which name server answers which range of those that the host routes itself.',
  names6: 'The same for IPv6.',
  restricted: 'Published ports that are open to some clients only.',
  sources4: 'Those clients, per port.',
  sources6: 'The same for IPv6.',
  restricted4: 'The same of ports published on one IPv4 address of the host.',
  restricted6: 'The same for IPv6.',
  clients4: 'Those clients, per address and port.',
  clients6: 'The same for IPv6.',
  entry:
    'Nobody but the host itself may send to a loopback address, whatever its links allow. What comes from containers of networks that the host routes itself goes to `members`. VXLAN between hosts is not tracked, nor is what comes from other hosts in networks that take short cuts.',
  departure: 'VXLAN to other hosts is not tracked.',
  members: 'As in a domain: only what has the link, MAC and address of a member is let in.',
  admitted: 'From a member. What stays in a network that takes short cuts is not tracked, except names, which the agent answers.',
  clients:
    'Packets for a restricted port of one address, before their destination is changed, go to `clients_of_address`, those for a restricted port of every address to `restricted_clients`.',
  clients_of_address: 'Only the clients that were named for that address.',
  restricted_clients: 'Only the clients that were named.',
  inbound: 'Questions for names go to the name server of the range that asks; then published ports. Comes before the rules of Docker.',
  local: 'The same for what the host itself sends to one of its own addresses, but for ::1: the kernel takes answers to that from no link.',
  published:
    'From a port of the host to the endpoint: to its transit address, or to itself where the host routes it. The address of the client stays.',
  forward:
    "Domains are entered by published ports only. Out of a domain come only transit addresses. Domains, each network that the host routes itself and Docker's bridges do not reach each other unless a port is published; the host's own links are none of these.",
  outbound:
    'What leaves the host takes its address: transit addresses, and the ranges that the host routes itself. What goes to containers keeps the address of the client, unless that is the host itself or a container next to it.',
};
const bothSentences: Readonly<Record<string, string>> = {
  [sealChain]: 'Has no rules. Its comment is a digest of everything above, by which the agent sees that somebody has changed a rule.',
};

const folder = mkdtempSync(join(tmpdir(), 'causeway-rules-'));
const { privateKey } = generateKeyPair();
const kinds = createKinds({ wireguard: { directory: join(folder, 'wireguard'), privateKey } });
const reconciler = new Reconciler(kinds);
const run = (...words: readonly string[]): string => {
  const [program = '', ...rest] = words;
  return execFileSync(program, rest, { encoding: 'utf8' });
};
run('ip', 'link', 'add', 'eth0', 'mtu', '1450', 'type', 'veth', 'peer', 'name', 'wire0');
run('ip', 'addr', 'add', '10.213.0.1/16', 'dev', 'eth0');
run('ip', 'link', 'set', 'eth0', 'up');
after(() => {
  reconciler.apply(emptyDesired, true);
  kinds[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

const hostOf = (index: number, more: Partial<Host> = {}): Host => ({
  ...makeHost(index),
  wireguard: { publicKey: Buffer.alloc(32, index).toString('base64') },
  ...more,
});

/** Three hosts, a block each; one container here, one on each of the others, and one with an address outside its host's block. */
function desiredOf({ model, carry, internal = false, ipv6 = false, ports = [], exposed = false }: Page): {
  desired: Desired;
  netns: Netns;
  mtu: string;
} {
  const network = { ...makeNetwork('shop000000', { model, carry, internal }), name: 'shop' };
  const pools = [makePool(network.id, parseCidr('10.64.0.0/24'), 27), ...(ipv6 ? [makePool(network.id, parseCidr('fd64::/64'), 120)] : [])];
  const self = hostOf(1);
  const far = { interface: 'ens3', ip: parseIp('10.214.0.3'), subnet: parseCidr('10.214.0.0/16'), mtu: 1450 };
  const hosts = [self, hostOf(2), hostOf(3, { underlay: [far] })];
  const endpoint = (number: number, host: string, addresses: readonly string[]) => ({
    ...makeEndpoint(
      network.id,
      host,
      number,
      addresses.filter((ip) => ipv6 || !ip.includes(':')).map((ip) => parseIp(ip)),
    ),
    name: `box-${number}`,
  });
  const web = { ...endpoint(1, 'host-1', ['10.64.0.2', 'fd64::2']), ports };
  const local: LocalEndpoint = { endpoint: web, slot: 1, sandbox: '/run/docker/netns/web', order: 1 };
  const exposure: Exposure = {
    id: 'exposure01',
    name: 'exposure01',
    revision: 1,
    createdAt: '2026-01-01T00:00:00.000Z',
    labels: {},
    network: network.id,
    endpoint: 'box-1',
    protocol: 'tcp',
    port: 443,
    hostPort: 8443,
    sources: [parseCidr('192.0.2.0/24')],
  };
  const endpoints = [
    web,
    endpoint(2, 'host-2', ['10.64.0.34', 'fd64::102']),
    endpoint(3, 'host-3', ['10.64.0.66', 'fd64::202']),
    endpoint(4, 'host-2', ['10.64.0.9']),
  ];
  const blocks = pools.flatMap((pool) => hosts.map(({ id }, index) => makeBlock(pool, index, id)));
  const snapshot = {
    ...snapshotOf({ hosts, networks: [network], pools, blocks, endpoints }),
    exposures: exposed ? new Map([[exposure.id, exposure]]) : new Map(),
  };
  const sum = mtuSum(network, self);
  const mtu = [`${sum.underlay}`, ...sum.overhead.map(({ what, bytes }) => `− ${bytes} (${what})`), `= ${sum.mtu}`].join(' ');
  return { desired: plan(snapshot, [local], self), netns: network.choices.domain === 'own' ? domainName(network.id) : '', mtu };
}

const nameOf = (netns: Netns): string => (netns === '' ? 'the host' : `the domain \`${netns}\``);
const inside = (netns: Netns): string[] => (netns === '' ? [] : ['-n', netns]);
const fence = (text: string): string => `\`\`\`\n${text.trimEnd()}\n\`\`\`\n`;

/** A command as an operator would type it, and what it says. */
function shown(words: readonly string[], keep: (line: string) => boolean = () => true): string | undefined {
  const lines = run(...words)
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '' && keep(line))
    // Numbers of links and namespaces differ from host to host, and here no container has set its end up.
    .map((line) => line.replaceAll(/@if\d+| linkdown| link-netnsid \d+/g, ''));
  if (lines.length === 0) return undefined;
  // The kernel lists neighbours in no order.
  const sorted = words.includes('neigh') || words.includes('fdb') ? lines.toSorted() : lines;
  return fence([`# ${words.join(' ')}`, ...sorted].join('\n'));
}

/** Sets, maps and chains of a table, as nft prints them; counters and digests, which differ, left out. */
function listed(netns: Netns): { readonly sort: string; readonly name: string; readonly text: string }[] {
  const words = ['nft', '-t', 'list', 'table', 'inet', 'causeway'];
  const text = run(...(netns === '' ? [] : ['ip', 'netns', 'exec', netns]), ...words)
    .replaceAll(/counter packets \d+ bytes \d+/g, 'counter')
    .replaceAll(/comment "[0-9a-f]{32}"/g, 'comment "…"');
  return [...text.matchAll(/^\t(set|map|chain) (\S+) \{\n([\s\S]*?)^\t\}/gm)].map(([whole, sort = '', name = '']) => ({
    sort,
    name,
    text: whole.replaceAll(/^\t/gm, '').replaceAll('\t', '  '),
  }));
}

function rules(netns: Netns): string {
  const sentences = netns === '' ? hostSentences : domainSentences;
  const blocks = listed(netns);
  const elements = Map.groupBy(kinds.element.list(netns), ({ set }) => set);
  const sentence = (name: string): string =>
    sentences[name] ?? bothSentences[name] ?? assert.fail(`${name} of ${nameOf(netns)} needs a sentence`);
  const chains = blocks.filter(({ sort }) => sort === 'chain').map(({ name, text }) => `**${name}** ${sentence(name)}\n\n${fence(text)}`);
  const sets = blocks
    .filter(({ sort }) => sort !== 'chain')
    .map(({ sort, name }) => {
      const members = (elements.get(name) ?? []).map(({ key, value }) => (value === undefined ? key : `${key} → ${value}`)).toSorted();
      return `| ${sort} | \`${name}\` | ${sentence(name)} | ${members.map((member) => `\`${member}\``).join('<br>') || '–'} |`;
    });
  return [
    '### Rules',
    '',
    `\`${netns === '' ? '' : `ip netns exec ${netns} `}nft list table inet causeway\`. The rules are the same whatever the number of endpoints; what changes are the elements of sets and maps.`,
    '',
    '| | name | what for | elements |',
    '|---|---|---|---|',
    ...sets,
    '',
    ...chains,
  ].join('\n');
}

function links(netns: Netns): string {
  const rows = kinds.link
    .list(netns)
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((link) => {
      const more =
        link.type === 'vxlan'
          ? `VNI ${link.vni}, UDP port ${link.port}, from ${link.local}, nothing learned`
          : link.type === 'veth'
            ? `MAC ${link.mac}`
            : '';
      return `| \`${link.name}\` | ${link.type} | ${link.mtu} | ${more} | ${link.alias} |`;
    });
  return rows.length === 0 ? '' : ['### Links', '', '| link | type | MTU | | alias |', '|---|---|---|---|---|', ...rows, ''].join('\n');
}

function peers(netns: Netns): string {
  const rows = kinds.wireguard
    .list(netns)
    .flatMap(({ peers: all }) =>
      all
        .toSorted((a, b) => (a.endpoint.ip < b.endpoint.ip ? -1 : 1))
        .map(({ endpoint, allowed }) => `| ${endpoint.ip}:${endpoint.port} | ${allowed.join(', ')} |`),
    );
  if (rows.length === 0) return '';
  return [
    '### Peers',
    '',
    'One per host. What a peer may send from is what that host holds; the cipher itself keeps hosts from speaking for each other.',
    '',
    '| peer | may use |',
    '|---|---|',
    ...rows,
    '',
  ].join('\n');
}

/** The filters that hold the programs; their numbers and digests differ from host to host and from release to release. */
function shortCuts(netns: Netns): string {
  const parts = kinds.fast
    .list(netns)
    .map(({ link }) => link)
    .toSorted()
    .map((link) => shown(['tc', ...inside(netns), 'filter', 'show', 'dev', link, 'ingress'], (line) => line.includes(' cw_fast')))
    .map((part) =>
      part
        ?.replaceAll(/ cw_[0-9a-f]{32}/g, ' cw_…')
        .replaceAll(/ id \d+/g, ' id …')
        .replaceAll(/ tag [0-9a-f]+/g, ' tag …'),
    );
  if (parts.length === 0) return '';
  return [
    '### Short cuts',
    '',
    'Where packets inside the network come in, a program sends them on that need only be checked and routed. Whatever it does not',
    'take goes the long way below, which alone decides ([more](../operate.md#short-cuts)).',
    '',
    ...parts,
  ].join('\n');
}

const isOurs = (line: string): boolean => / dev cw/.test(line);

function place(netns: Netns): string {
  const own = netns === '' ? [] : [shown(['ip', ...inside(netns), '-br', 'addr', 'show', 'dev', 'lo'])];
  const carriage = kinds.link.list(netns).find(({ type }) => type === 'vxlan')?.name;
  const parts = [
    ...own,
    shown(['ip', ...inside(netns), 'route', 'show', 'proto', '197']),
    shown(['ip', ...inside(netns), '-6', 'route', 'show', 'proto', '197']),
    shown(['ip', ...inside(netns), 'neigh', 'show', 'nud', 'permanent'], isOurs),
    carriage === undefined ? undefined : shown(['bridge', ...inside(netns), 'fdb', 'show', 'dev', carriage]),
  ].filter((part) => part !== undefined);
  return [links(netns), peers(netns), shortCuts(netns), '### Addresses, routes, neighbours', '', ...parts, rules(netns)].join('\n');
}

function pageOf(page: Page): string {
  const { desired, netns, mtu } = desiredOf(page);
  // No other host is here to speak with; what BIRD does with its configuration is tested beside it (bgp.netns.test.ts).
  const { failing } = reconciler.apply({ ...desired, bird: [] }, true);
  assert.deepEqual(
    failing.map(({ fault }) => fault.message),
    [],
  );
  const text = [
    `# ${page.title}`,
    '',
    `Read back from a kernel by \`src/drivers/rules.netns.test.ts\`; not written by hand. ${page.about}`,
    '',
    models[page.model].summary,
    '',
    `The network \`shop\` has the range 10.64.0.0/24${page.ipv6 === true ? ' and fd64::/64' : ''}. This host is host-1, 10.213.0.1; it runs the container box-1, 10.64.0.2. host-2 is 10.213.0.2, host-3 is 10.214.0.3; each host has a block of the range, and host-2 also has 10.64.0.9, lent from the block of host-1. MTU: ${mtu}.`,
    '',
    ...(netns === '' ? [] : [`## ${capital(nameOf(netns))}`, '', place(netns)]),
    '## The host',
    '',
    place(''),
    ...desired.bird.flatMap(({ text: config }) => [
      '',
      '### Speaker',
      '',
      `\`/run/causeway/bird/bird.conf\`, as planned; see [BGP](../bgp.md).`,
      '',
      fence(config),
    ]),
  ].join('\n');
  reconciler.apply(emptyDesired, true);
  return `${text.replaceAll(/\n{3,}/g, '\n\n').trimEnd()}\n`;
}

const capital = (text: string): string => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}`;
const plain = { serializers: [(value: unknown): string => String(value)] };
const docs = join(import.meta.dirname, '..', '..', 'docs', 'rules');

for (const page of pages) {
  const skip =
    (page.carry === 'wireguard' && probeWireguard() === 'none' && 'neither WireGuard in this kernel nor wireguard-go') ||
    (page.model === 'overlay' && !probeFast() && 'no tc programs in this kernel');
  test(`docs/rules/${page.file}.md says what is in the kernel`, { skip }, (t) => {
    t.assert.fileSnapshot(pageOf(page), join(docs, `${page.file}.md`), plain);
  });
}

test('docs/rules/README.md names every page', (t) => {
  const text = [
    '# What is in the kernel',
    '',
    'For each way to build a network: the links, routes and rules that one host holds for it, read back from a kernel by the',
    'tests and compared with these pages at every run. On a host, `causeway explain network NAME` shows the same of a network',
    'of yours.',
    '',
    ...pages.map(({ file, title }) => `- [${title}](${file}.md)`),
    '- [Policy of pods](policy.md)',
    '- [Policy of a host](host-policy.md)',
    '',
  ].join('\n');
  t.assert.fileSnapshot(text, join(docs, 'README.md'), plain);
});
