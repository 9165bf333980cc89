// Agents killed at random moments while containers come and go: afterwards engines, cluster, kernels and journals tell the same
// story, with nothing over and nothing missing. CAUSEWAY_TEST_KILLS sets the number, 200 unless said.
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempDisposableSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openJournal } from '#agent/journal.ts';
import { killAgent, stopAgent } from '#lab/causeway.ts';
import { docker } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { until } from '#lab/until.ts';
import { domainName, endpointLink, transitAddress, uplinkLink, vxlanLink, wireguardLink } from '#model/numbers.ts';
import { familyOf, type Ip } from '#model/ip.ts';
import { agentStatus, type Bed, healthy, isHealthy, makeBed, reaches } from './bed.ts';

const kills = Number(process.env['CAUSEWAY_TEST_KILLS'] ?? 200);
const leakSeconds = 10;
const networks = {
  plain: ['--subnet', '10.70.0.0/16'],
  secret: ['--subnet', '10.71.0.0/16', '--encrypted'],
  dual: ['--subnet', '10.72.0.0/16', '--subnet', 'fd00:72::/64'],
  flat: ['--subnet', '10.73.0.0/16', '--model', 'flannel'],
} as const;
const names = ['plain', 'secret', 'dual', 'flat'] as const;
interface Shown {
  readonly id: string;
  readonly vni: number;
}
const shown = new Map<string, Shown>();
function shownOf(network: string): Shown {
  const found = shown.get(network);
  assert.ok(found);
  return found;
}

let bed: Bed;
before(async () => {
  bed = await makeBed({ name: 'e2e-crash', hosts: 3, agent: ['--leak-seconds', String(leakSeconds)] });
  for (const name of names) {
    await bed.network(name, ...networks[name]);
    shown.set(name, (await bed.json('network', 'show', name)) as Shown);
  }
});
after(() => bed[Symbol.asyncDispose]());

/** What the engine says of one attachment. */
interface Attached {
  readonly host: string;
  readonly container: string;
  readonly network: string;
  readonly id: string;
  readonly addresses: readonly string[];
  readonly mac: string;
}

interface Inspected {
  readonly Name: string;
  readonly NetworkSettings: {
    readonly Networks: Readonly<
      Record<
        string,
        { readonly EndpointID: string; readonly IPAddress: string; readonly GlobalIPv6Address: string; readonly MacAddress: string }
      >
    >;
  };
}

async function attachedOn(host: Host): Promise<Attached[]> {
  const running = (await docker(host, ['ps', '--quiet', '--no-trunc'])).split('\n').filter((id) => id !== '');
  if (running.length === 0) return [];
  const inspected = JSON.parse(await docker(host, ['inspect', ...running])) as Inspected[];
  return inspected.flatMap(({ Name, NetworkSettings }) =>
    Object.entries(NetworkSettings.Networks).flatMap(([network, { EndpointID: id, IPAddress, GlobalIPv6Address, MacAddress: mac }]) => {
      const addresses = [IPAddress, GlobalIPv6Address].filter((ip) => ip !== '');
      // A connection that Docker gave up stays listed, without an endpoint.
      return id === '' ? [] : [{ host: host.name, container: Name.slice(1), network, id, addresses, mac }];
    }),
  );
}

/** One line of sight on an attachment: host, endpoint and what it has there. Compared as sorted texts. */
const line = (...parts: readonly (string | readonly string[])[]): string => parts.flat().join(' ');

async function published(): Promise<string[]> {
  const endpoints = (await bed.json('endpoint', 'ls')) as { id: string; host: string; addresses: string[]; mac: string }[];
  return endpoints.map(({ host, id, addresses, mac }) => line(host, id, addresses, mac)).sort();
}

const kernelScript = `
one() {
  ip $2 -o link show | sed -nE 's/^[0-9]+: (cw[^@:]*).*/link \\1/p' | sed "s/^/$1 /"
  for f in -4 -6; do ip $2 $f route show | sed -nE 's/^([0-9a-f:.]+) dev (cwe[^ ]*) .*/route \\1 \\2/p' | sed "s/^/$1 /"; done
  ip $2 neigh show nud permanent | sed -nE 's/^([0-9a-f:.]+) dev (cwe[^ ]*) lladdr ([^ ]*) .*/neigh \\1 \\2 \\3/p' | sed "s/^/$1 /"
  $3 nft -j list table inet causeway 2>/dev/null | jq -r '.nftables[] | (.set // .map // empty) | .name as $n | (.elem // [])[] |
    "element \\($n) " + ([.. | strings | select(. != "concat")] | join(" "))' | sed "s/^/$1 /"
}
one host "" ""
for netns in $(ls /run/netns | grep '^cw-'); do echo "$netns netns"; one $netns "-n $netns" "nsenter --net=/run/netns/$netns --"; done
ls /run/causeway/wireguard/*.sock 2>/dev/null | sed 's/^/host /'
pgrep -a wireguard-go | sed 's/^[0-9]* /host /'
true`;

/** Namespaces, links, processes, and what names an endpoint; not what the sets of a whole network hold. */
async function kernelOf(host: Host): Promise<string[]> {
  const { stdout } = await host.exec(['sh', '-c', kernelScript]);
  return stdout
    .trim()
    .split('\n')
    .filter((text) => text !== '' && !/ route fe80:| element (?:ranges|names|own|uplinks)/.test(text))
    .sort();
}

interface Stored {
  readonly endpoint: {
    readonly id: string;
    readonly network: string;
    readonly addresses: readonly Ip[];
    readonly mac: string;
    readonly ports: readonly { readonly protocol: string; readonly hostPort: number }[];
  };
  readonly slot: number;
  readonly sandbox?: string;
  readonly ifname?: string;
}

/** The journal's endpoints, held addresses and plugin records; the agent must be stopped, so that the file is whole. */
function journalOf(host: Host): { endpoints: Stored[]; held: string[]; attachments: string[] } {
  using folder = mkdtempDisposableSync(join(tmpdir(), 'causeway-journal-'));
  const copy = join(folder.path, 'agent.db');
  // SQLite follows the way into a host's file system back to the machine's own.
  copyFileSync(host.file('/var/lib/causeway/agent.db'), copy);
  using journal = openJournal(copy);
  const held = journal.list('address/').flatMap(({ key, value }) => {
    const { status } = value as { status: string };
    return status === 'held' || status === 'loose' ? [key.split('/')[2] ?? ''] : [];
  });
  return {
    endpoints: journal.list('endpoint/').map(({ value }) => value as Stored),
    held: held.sort(),
    attachments: journal
      .list('docker/endpoints/')
      .map(({ key }) => key.split('/')[2] ?? '')
      .sort(),
  };
}

/** What the kernel of a host must hold for the attachments, given the numbers that its journal keeps. */
function expectedKernel(attached: readonly Attached[], stored: readonly Stored[]): string[] {
  const lines = new Set<string>();
  for (const { id, network, addresses, mac } of attached) {
    const { id: networkId, vni } = shownOf(network);
    const own = network !== 'flat';
    const netns = own ? domainName(networkId) : 'host';
    const link = endpointLink(id);
    lines.add(line(netns, 'link', link));
    if (own)
      lines
        .add(line(netns, 'netns'))
        .add(line(netns, 'link cwup'))
        .add(line('host', 'link', uplinkLink(networkId)));
    if (network === 'secret') {
      const device = wireguardLink(vni);
      lines.add(line(netns, 'link', device)).add(`host /run/causeway/wireguard/${device}.sock`);
      lines.add(`host /usr/bin/wireguard-go -f ${device}`);
    } else lines.add(line(netns, 'link', vxlanLink(vni)));
    for (const ip of addresses as Ip[]) {
      const family = familyOf(ip);
      lines
        .add(line(netns, 'route', ip, link))
        .add(line(netns, 'neigh', ip, link, mac))
        .add(line(netns, `element members${family}`, link, mac, ip));
      const slot = stored.find(({ endpoint }) => endpoint.id === id)?.slot ?? 0;
      const transit = transitAddress(slot, family);
      if (own) lines.add(line(netns, `element inside${family}`, transit, ip)).add(line(netns, `element outside${family}`, ip, transit));
    }
  }
  return [...lines].sort();
}

/** Random moments of its life: while it starts, just after, and later when calls that Docker repeats have come through. */
const moment = (): number => (Math.random() < 0.5 ? Math.random() * 1000 : 1000 + Math.random() * 4000);

async function killAgain(host: Host, count: number): Promise<void> {
  for (let done = 0; done < count; done++) {
    await sleep(moment());
    await killAgent(host);
    // Not waited for: the next blow may come before it listens.
    void bed.startAgent(host).catch(() => undefined);
  }
}

interface Churned {
  started: number;
  /** What Docker gave up: it tries a call five times within 15 s. */
  readonly refused: string[];
}

/** Starts, connects, restarts and removes containers until told to stop; those of the last turns keep running. */
async function churn(host: Host, index: number, worker: string, stop: AbortSignal): Promise<Churned> {
  const churned: Churned = { started: 0, refused: [] };
  for (let turn = 0; ; turn++) {
    const isLast = stop.aborted;
    const network = names[(turn + index) % names.length] ?? 'plain';
    const name = `${worker}-${turn}`;
    try {
      await bed.run(index, name, network, ...(turn % 3 === 0 ? ['--publish', '80'] : []));
      churned.started++;
      if (turn % 4 === 1) await docker(host, ['network', 'connect', names[(turn + index + 1) % names.length] ?? 'plain', name]);
      if (turn % 4 === 2) await docker(host, ['restart', '--time', '0', name]);
      if (turn > 1 && !isLast) await docker(host, ['rm', '--force', `${worker}-${turn - 2}`]);
    } catch (error) {
      churned.refused.push(error instanceof Error ? error.message.slice(-200) : String(error));
      await docker(host, ['rm', '--force', name]).catch(() => undefined);
    }
    if (isLast) return churned;
  }
}

async function settled(): Promise<void> {
  for (const host of bed.hosts) {
    await bed.startAgent(host);
    await healthy(host);
  }
}

/** Engines, cluster, kernels and journals say the same. Throws where they do not. */
async function assertAgreement(): Promise<void> {
  const attached = await Promise.all(bed.hosts.map((host) => attachedOn(host)));
  const wanted = attached.flat().map(({ host, id, addresses, mac }) => line(host, id, addresses, mac));
  assert.deepEqual(await published(), wanted.sort(), 'cluster');
  const kernels = await Promise.all(bed.hosts.map((host) => kernelOf(host)));
  for (const [index, host] of bed.hosts.entries()) {
    await stopAgent(host);
    const { endpoints, held, attachments } = journalOf(host);
    await bed.startAgent(host);
    const here = attached[index] ?? [];
    assert.deepEqual(
      endpoints.map(({ endpoint }) => endpoint.id).sort(),
      here.map(({ id }) => id).sort(),
      `${host.name}: endpoints in the journal`,
    );
    assert.deepEqual(attachments, here.map(({ id }) => id).sort(), `${host.name}: plugin records`);
    assert.deepEqual(held, here.flatMap(({ addresses }) => addresses).sort(), `${host.name}: addresses`);
    assert.deepEqual(
      (kernels[index] ?? []).filter((text) => !text.includes('element published')),
      expectedKernel(here, endpoints),
      `${host.name}: kernel`,
    );
    // Docker does not show the ports of a remote driver, so the journal is what the kernel is held against.
    const ports = endpoints.flatMap(({ endpoint }) => endpoint.ports.map(({ protocol, hostPort }) => `${protocol} ${hostPort}`));
    const open = (kernels[index] ?? []).filter((text) => text.includes('element published_any4'));
    assert.equal(open.length, new Set(ports).size, `${host.name}: published ports`);
  }
}

test(`${kills} kills at random moments leave no address, link, route or set element over or missing`, async (t) => {
  const stop = new AbortController();
  const began = performance.now();
  const churning = bed.hosts.flatMap((host, index) => ['a', 'b'].map((worker) => churn(host, index + 1, worker, stop.signal)));
  await Promise.all(bed.hosts.map((host) => killAgain(host, Math.ceil(kills / bed.hosts.length))));
  t.diagnostic(`${kills} kills in ${((performance.now() - began) / 1000).toFixed(0)} s`);
  await Promise.all(bed.hosts.map((host) => bed.startAgent(host)));
  stop.abort();
  const churned = await Promise.all(churning);
  const refused = churned.flatMap((worker) => worker.refused);
  t.diagnostic(`${churned.reduce((sum, { started }) => sum + started, 0)} containers started, ${refused.length} times Docker gave up`);
  for (const text of new Set(refused.map((message) => message.replaceAll(/[0-9a-f]{12,}|\b[abc]-\d+\b/g, '…')))) t.diagnostic(text);
  await settled();
  // Lost endpoints are let go of after half a minute, leaked addresses after twice the leak time. A look begins both anew, as it
  // stops the agents to read their journals.
  await until('everything to agree', () => assertAgreement().then(() => true), { timeoutMs: 150_000, intervalMs: 40_000 }).catch(() =>
    assertAgreement(),
  );
});

test('containers of all hosts reach each other', async () => {
  const attached = (await Promise.all(bed.hosts.map((host) => attachedOn(host)))).flat();
  assert.ok(attached.length > 0);
  await Promise.all(bed.hosts.map((host) => healthy(host)));
  for (const from of attached) {
    for (const to of attached) {
      if (from.network !== to.network || from.id === to.id) continue;
      for (const ip of to.addresses) await reaches(bed.lab.host(from.host), from.container, ip);
    }
  }
});

test('when the last container has gone nothing is left', async () => {
  for (const host of bed.hosts) {
    const all = (await docker(host, ['ps', '--all', '--quiet'])).split('\n').filter((id) => id !== '');
    if (all.length > 0) await docker(host, ['rm', '--force', ...all]);
  }
  await until('hosts to be empty', async () =>
    (await Promise.all(bed.hosts.map((host) => agentStatus(host)))).every((status) => isHealthy(status) && status.desired === 0),
  );
  await until('everything to agree', () => assertAgreement().then(() => true), { timeoutMs: 120_000, intervalMs: 1000 });
  for (const host of bed.hosts) {
    await until(`${host.name} to hold nothing`, async () => {
      const { stdout } = await host.exec(['sh', '-c', kernelScript]);
      assert.equal(stdout.trim(), '');
      return true;
    });
  }
});
