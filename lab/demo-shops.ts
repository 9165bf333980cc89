// The two networks of the demonstration and the small application in each: a page on host1 that counts its visits in a
// database on host3, and a client on host2. Both networks have the same range, and the same addresses and names are in use
// in both: only an isolation that really holds can tell them apart.
import { docker } from './engine.ts';
import type { Host } from './host.ts';
import { databaseImage, webImage } from './images.ts';
import { all, type Site, toolsImage } from './demo-site.ts';
import { until } from './until.ts';

export const subnet = '10.20.0.0/24';
export const publishedPort = 8080;

export interface Shop {
  readonly name: 'blue' | 'green';
  readonly isEncrypted: boolean;
  /** The client's address differs between the shops: one that exists in only one of them is needed, too. */
  readonly clientAddress: string;
}

export const blue: Shop = { name: 'blue', isEncrypted: false, clientAddress: '10.20.0.50' };
export const green: Shop = { name: 'green', isEncrypted: true, clientAddress: '10.20.0.60' };
export const shops: readonly Shop[] = [blue, green];

export const webAddress = '10.20.0.10';
export const databaseAddress = '10.20.0.100';

interface Part {
  readonly shop: Shop;
  readonly role: 'web' | 'client' | 'database';
  readonly host: 1 | 2 | 3;
  readonly address: string;
  readonly image: string;
  readonly options: readonly string[];
  readonly command: readonly string[];
}

/** The client serves a page, too, so that there is something to connect to where only one shop has an address. */
const clientPage = ({ name }: Shop): string[] => ['sh', '-c', `echo client of ${name} >/tmp/index.html && exec httpd -f -p 80 -h /tmp`];

const partsOf = (shop: Shop): Part[] => [
  {
    shop,
    role: 'web',
    host: 1,
    address: webAddress,
    image: webImage.name,
    options: [`--env=SHOP=${shop.name}`, ...(shop === blue ? [`--publish=${publishedPort}:80`] : [])],
    command: [],
  },
  { shop, role: 'client', host: 2, address: shop.clientAddress, image: toolsImage.name, options: [], command: clientPage(shop) },
  { shop, role: 'database', host: 3, address: databaseAddress, image: databaseImage.name, options: [], command: [] },
];

export const containerOf = ({ name }: Shop, role: Part['role']): string => `${name}-${role}`;

/** Makes the networks that are missing, by `causeway network create`, and waits until every engine lists them. */
export async function makeNetworks(site: Site): Promise<void> {
  const known = (await site.question('network', 'ls')) as { name: string }[];
  for (const { name, isEncrypted } of shops) {
    if (known.some((network) => network.name === name)) continue;
    await site.causeway('network', 'create', name, '--subnet', subnet, ...(isEncrypted ? ['--encrypted'] : []));
  }
  await all(
    site.lab.hosts.map((host) =>
      until(`networks in the engine of ${host.name}`, () => listsNetworks(host), { timeoutMs: 120_000, intervalMs: 100 }),
    ),
  );
}

async function listsNetworks(host: Host): Promise<boolean> {
  const names = await docker(host, ['network', 'ls', '--format', '{{.Name}}']);
  return shops.every(({ name }) => names.split('\n').includes(name));
}

/** Starts what does not run of the applications. */
export async function startShops(site: Site): Promise<void> {
  // Hosts at once, the containers of one host in turn: they would only wait for each other in the engine.
  await all(
    site.lab.hosts.map(async (host) => {
      const parts = shops.flatMap(partsOf).filter((part) => site.host(part.host).name === host.name);
      for (const part of parts) await startPart(host, part);
    }),
  );
}

async function startPart(host: Host, part: Part): Promise<void> {
  const name = containerOf(part.shop, part.role);
  const running = await docker(host, ['ps', '--all', '--filter', `name=^${name}$`, '--format', '{{.State}}']);
  if (running === 'running') return;
  if (running !== '') await docker(host, ['rm', '--force', name]);
  const place = [`--network=${part.shop.name}`, `--ip=${part.address}`, `--network-alias=${part.role}`, '--restart=unless-stopped'];
  await docker(host, ['run', '--detach', `--name=${name}`, ...place, ...part.options, part.image, ...part.command]);
}

/** Rows of a table that shows what runs where. */
export function plan(site: Site): string[][] {
  const hosts = [1, 2, 3] as const;
  const rows = shops.map((shop) => [
    `${shop.name}, ${shop.isEncrypted ? 'encrypted' : 'plain'}`,
    ...hosts.map((index) =>
      partsOf(shop)
        .filter(({ host }) => host === index)
        .map(({ role, address }) => `${role} ${address}`)
        .join(', '),
    ),
  ]);
  return [['', ...hosts.map((index) => `${site.host(index).name} ${site.host(index).address}`)], ...rows];
}
