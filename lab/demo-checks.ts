// The claims of the demonstration, each proved on the running containers by what a person could type as well.
import { Fault } from '#model/fault.ts';
import { agentSocket } from './causeway.ts';
import { capture, captureFilter, capturePort, holding, type WirePacket } from './demo-capture.ts';
import { blue, containerOf, green, publishedPort, type Shop, shops, webAddress } from './demo-shops.ts';
import type { CheckOf } from './demo-check.ts';
import { seconds } from './demo-screen.ts';
import type { Site } from './demo-site.ts';
import { lineWith, linesWith, part, type Proof } from './demo-witness.ts';
import { docker } from './engine.ts';
import { outsideAddress } from './underlay.ts';
import { until } from './until.ts';

type Check = CheckOf<Site>;

/** How long after a start names, routes and ports may take to be everywhere. */
const patienceMs = 60_000;

const page = ({ name }: Shop): Proof => linesWith(new RegExp(`^shop: ${name}$`), /^visits: \d+$/);
const fetch = (url: string): string[] => ['wget', '-T', '2', '-qO-', url];
const isUnreached: Proof = lineWith(/timed out|unreachable|refused|reset|No route|100% packet loss/i);

const lists: Proof = (said) => {
  const rows = shops.map(({ name }) => new RegExp(` (${name} +causeway) `).exec(said)?.[1]?.replace(/ +/, ' '));
  return rows.includes(undefined) ? undefined : rows.join(', ');
};

const sameNetworks: Check = {
  title: 'both networks, made once, are in every engine',
  async prove({ lab }, witness) {
    for (const host of lab.hosts) await witness.docker(host, ['network', 'ls'], lists, patienceMs);
  },
};

const byName: Check = {
  title: 'containers reach each other across hosts by name',
  async prove(site, witness) {
    for (const shop of shops) {
      const client = containerOf(shop, 'client');
      await witness.container(site.host(2), client, ['ping', '-c1', '-W1', 'database'], part(/\d+ bytes from [^:]+/), patienceMs);
      await witness.container(site.host(2), client, fetch('http://web/'), page(shop), patienceMs);
    }
  },
};

const isolated: Check = {
  title: 'the two networks cannot see each other',
  async prove(site, witness) {
    for (const shop of shops)
      await witness.container(site.host(2), containerOf(shop, 'client'), fetch(`http://${webAddress}/`), page(shop), patienceMs);
    const only = `http://${blue.clientAddress}/`;
    await witness.container(site.host(1), containerOf(blue, 'web'), fetch(only), lineWith(/^client of blue$/), patienceMs);
    await witness.container(site.host(1), containerOf(green, 'web'), fetch(only), isUnreached);
    const name = containerOf(blue, 'database');
    await witness.container(site.host(2), containerOf(blue, 'client'), ['nslookup', name], part(/^Address: (?!.*:53$).*$/m), patienceMs);
    await witness.container(site.host(2), containerOf(green, 'client'), ['nslookup', name], lineWith(/NXDOMAIN|can't (resolve|find)/));
  },
};

const marker = 'my-secret-4711';
const times = 5;

const unreadable: Check = {
  title: 'the encrypted network shows no clear text on the underlay',
  async prove(site, witness) {
    const [web, database] = [site.host(1), site.host(3)];
    const command = `for i in 1 2 3 4 5; do redis-cli -h database echo ${marker}; done`;
    const record = async (shop: Shop): Promise<WirePacket[]> =>
      capture(site.lab, [web, database], async () => {
        const said = await docker(web, ['exec', containerOf(shop, 'web'), 'sh', '-c', command]);
        if (said.split('\n').filter((line) => line === marker).length !== times)
          throw new Fault('internal', `The database answered ${said}`);
      });
    witness.see('host1 blue-web, green-web', command, `sent ${times} times, and back`);
    const [plain, secret] = [await record(blue), await record(green)];
    const tcpdump = `tcpdump -i ${capturePort(database)} '${captureFilter(web, database)}'`;
    witness.see('underlay', `${tcpdump}  # blue`, `${summary(plain)}: "${marker}" found ${holding(plain, marker)} times`);
    witness.see('underlay', `${tcpdump}  # green`, `${summary(secret)}: "${marker}" found ${holding(secret, marker)} times`);
    const port = await wireguardPort(site);
    if (holding(plain, marker) < times) throw new Fault('internal', 'The capture misses what was sent in the clear');
    if (holding(secret, marker) > 0) throw new Fault('internal', 'The encrypted network shows clear text');
    const carried = secret.filter((packet) => packet.protocol === 17 && packet.port === port).length;
    if (carried < 2 * times) throw new Fault('internal', `Only ${carried} packets to UDP port ${port} were seen`);
  },
};

const protocolNames: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP' };

function summary(packets: readonly WirePacket[]): string {
  const kinds = Map.groupBy(packets, ({ protocol, port }) => `${protocolNames[protocol] ?? `protocol ${protocol}`} port ${port}`);
  const parts = [...kinds].map(([kind, some]) => `${some.length} packets to ${kind}`);
  return parts.length === 0 ? 'nothing' : parts.join(', ');
}

interface Explanation {
  readonly mtu: readonly { readonly mtu: number; readonly arithmetic: string }[];
  readonly passages: readonly { readonly protocol: number; readonly port?: number }[];
}

const explain = async (site: Site, { name }: Shop): Promise<Explanation> =>
  (await site.question('explain', 'network', name)) as Explanation;

const wireguardPort = async (site: Site): Promise<number> =>
  (await explain(site, green)).passages.find(({ protocol }) => protocol === 17)?.port ?? 0;

const get = (address: string): string[] => ['busybox', ...fetch(`http://${address}/`)];

const exposed: Check = {
  title: 'an exposed port answers outside clients and sees their address, others do not',
  async prove(site, witness) {
    const { outside } = site.lab;
    const [web, database] = [site.host(1), site.host(3)];
    const seesUs = linesWith(/^shop: blue$/, new RegExp(`^client: ${outsideAddress.replaceAll('.', '\\.')}$`));
    await witness.host(outside, get(`${web.address}:${publishedPort}`), seesUs, patienceMs);
    await witness.host(outside, get(`${web.address}:80`), isUnreached);
    await witness.host(outside, get(`${database.address}:6379`), isUnreached);
    await witness.host(outside, get(webAddress), isUnreached);
  },
};

/** A packet of `bytes`: 20 of IPv4 header and 8 of ICMP come on top of what ping calls the size. */
const unfragmented = (bytes: number): string[] => ['ping', '-c1', '-W1', '-M', 'do', '-s', String(bytes - 28), 'database'];

const fullSize: Check = {
  title: 'a packet of full size passes unfragmented, one byte more does not',
  async prove(site, witness) {
    for (const shop of shops) {
      const [sum] = (await explain(site, shop)).mtu;
      if (sum === undefined) throw new Fault('internal', `No MTU is known for ${shop.name}`);
      witness.see('controller', `causeway explain network ${shop.name}`, `MTU: ${sum.arithmetic}`);
      const passed = part(/1 packets transmitted, 1 received/);
      await witness.container(site.host(2), containerOf(shop, 'client'), unfragmented(sum.mtu), passed, patienceMs);
      await witness.container(
        site.host(2),
        containerOf(shop, 'client'),
        unfragmented(sum.mtu + 1),
        lineWith(/too long|Frag needed|mtu ?=/),
      );
    }
  },
};

const agentless: Check = {
  title: 'traffic goes on while an agent is killed and comes back',
  async prove(site, witness) {
    const host = site.host(1);
    const agent = host.services().find(({ name }) => name === 'agent');
    if (agent === undefined) throw new Fault('internal', 'No agent is known on host1');
    const pings = 250;
    const argv = ['ping', '-q', '-c', String(pings), '-i', '0.01', 'web'];
    const pinging = witness.container(
      site.host(2),
      containerOf(blue, 'client'),
      argv,
      part(new RegExp(`.* ${pings} received, 0% packet loss`)),
    );
    try {
      await witness.host(host, ['pkill', '-e', '-KILL', '-f', 'bin/agent.ts'], lineWith(/killed/));
      await until('the agent to be gone', () => !host.isRunning('agent'));
      const beganMs = performance.now();
      await host.startService({ ...agent, ready: { socket: agentSocket } });
      witness.see(host.name, 'causeway agent', `answers again after ${seconds(beganMs)}`);
    } finally {
      await pinging;
    }
  },
};

export const checks: readonly Check[] = [sameNetworks, byName, isolated, unreadable, exposed, fullSize, agentless];
