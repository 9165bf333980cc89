// Run inside a lab by memory.ts: joins hosts without agents and publishes endpoints of theirs in one network.
import type { Access } from './causeway.ts';
import { adminClient, claimAddresses, endpointRequest, joinFakeHost } from './fake-host.ts';

interface Order {
  readonly access: Access;
  readonly network: string;
  readonly hosts: number;
  readonly perHost: number;
}

const batchSize = 500;
const { access, network: name, hosts, perHost } = JSON.parse(process.argv[2] ?? '') as Order;
await using admin = adminClient(access);
const network = await admin.get('networks', name);
const [pool] = await admin.all('pools', { network: network.id });
if (pool === undefined) throw new TypeError(`Network ${name} has no pool`);
for (let number = 1; number <= hosts; number++) {
  const fake = await joinFakeHost(admin, access.url, `fake-${number}`);
  await using client = fake.client;
  const addresses = [];
  while (addresses.length < perHost) addresses.push(...(await claimAddresses(fake, network.id, pool.id)));
  const puts = addresses.slice(0, perHost).map((ip, index) => {
    const id = `fake${String(number).padStart(3, '0')}${String(index).padStart(6, '0')}`;
    return endpointRequest({ id, network: network.id, host: fake.name, ip });
  });
  for (let start = 0; start < puts.length; start += batchSize) {
    const results = await client.batchEndpoints({ puts: puts.slice(start, start + batchSize), deletes: [] });
    const refused = results.find(({ problem }) => problem !== undefined);
    if (refused !== undefined) throw new TypeError(`An endpoint was refused: ${refused.problem?.detail}`);
  }
}
