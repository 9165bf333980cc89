// A host without an agent: it joins with a token of its own and speaks through the real client, so that a controller can be
// shown a thousand hosts and an agent ten thousand remote endpoints.
import { Client } from '#api/client.ts';
import { joinCluster } from '#api/join-cluster.ts';
import type { EndpointRequest } from '#api/schemas.ts';
import { type Cidr, cidrBase, type Ip, ipAdd } from '#model/ip.ts';
import { endpointMac } from '#model/numbers.ts';
import type { Access } from './causeway.ts';

export interface Credentials {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

export interface FakeHost {
  readonly name: string;
  readonly client: Client;
  readonly credentials: Credentials;
}

export const adminClient = ({ url, ca, token }: Access): Client =>
  new Client({ urls: [url], ca, credentials: { type: 'token', token }, timeoutMs: 60_000 });

export async function joinFakeHost(admin: Client, url: string, name: string): Promise<FakeHost> {
  const { token } = await admin.createToken({ type: 'join', host: name });
  const { ca, certificate, key } = await joinCluster({ urls: [url], token, host: name, version: '0.1.0' });
  const client = new Client({ urls: [url], ca, credentials: { type: 'certificate', certificate, key }, timeoutMs: 60_000 });
  return { name, client, credentials: { ca, certificate, key } };
}

/** Claims a block and answers its addresses, the first and the last left out. */
export async function claimAddresses({ name, client }: FakeHost, network: string, pool: string): Promise<Ip[]> {
  const block = await client.claimBlock({ network, pool, host: name });
  return addressesOf(block.cidr);
}

function addressesOf(cidr: Cidr): Ip[] {
  const size = 2 ** (32 - Number(cidr.split('/')[1]));
  return Array.from({ length: size - 2 }, (_, index) => ipAdd(cidrBase(cidr), index + 1));
}

interface NewEndpoint {
  readonly id: string;
  readonly network: string;
  readonly host: string;
  readonly ip: Ip;
  readonly labels?: Readonly<Record<string, string>>;
}

export const endpointRequest = ({ id, network, host, ip, labels = {} }: NewEndpoint): EndpointRequest => ({
  id,
  network,
  host,
  name: id,
  owner: id,
  addresses: [ip],
  mac: endpointMac(ip),
  names: [],
  ports: [],
  sequence: 1,
  labels,
});

/** Runs `work` for every item, at most `atOnce` of them at a time. */
export async function forEach<T>(items: Iterable<T>, atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
