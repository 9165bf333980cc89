// The commands of CNI as calls to the agent. An attachment is one endpoint, whose id follows from the names that the runtime
// has for it, so a repeated ADD finds what the first one made, and a DEL needs nothing but the names. Runtimes repeat DEL until
// it succeeds, also long after the container's namespace has gone, so it succeeds on whatever is not there.
import { createHash } from 'node:crypto';
import type { AddressChoice, AddressChooser, AttachRequest, LocalAgent, PlacedLink } from '#api/local.ts';
import { Fault, isFault } from '#model/fault.ts';
import { cidrLength, contains, familyOf, type Ip, ipAdd, ipToBigint } from '#model/ip.ts';
import { endpointLink, gatewayMac } from '#model/numbers.ts';
import { exhaustedOf } from '#model/ranges.ts';
import type { Endpoint, Network } from '#model/resources.ts';
import type { Arguments } from './arguments.ts';
import type { AddressRange, Wanted } from './config.ts';
import { releaseHostLocal } from './host-local.ts';
import { askAddresses, checkAddresses, checkReadiness, collectAddresses, giveBack } from './ipam.ts';
import { type AttachmentRecord, AttachmentRecords } from './records.ts';
import type { AttachmentName, Request } from './request.ts';
import { appendResult, type Result } from './result.ts';

type Of<C extends Request['command']> = Extract<Request, { readonly command: C }>;

export interface AttachmentsOptions {
  readonly choose?: AddressChooser | undefined;
  /** Whether containers get addresses of a pool; without it they do of all. */
  readonly isForContainers?: ((pool: string) => boolean) | undefined;
  /** That a host without a free address is told of otherwise than by STATUS. */
  readonly isFullToldElsewhere?: boolean | undefined;
  /** What else hangs on an endpoint, and goes before it. Absent already is success. */
  readonly release?: (id: string) => Promise<void>;
}

/** Addresses of a range that are tried one after the other. */
const mostTries = 65_536;

export class Attachments {
  readonly #agent: LocalAgent;
  readonly #options: AttachmentsOptions;
  readonly #records: AttachmentRecords;

  constructor(agent: LocalAgent, options: AttachmentsOptions = {}) {
    this.#agent = agent;
    this.#options = options;
    this.#records = new AttachmentRecords(agent.journal);
  }

  /**
   * On return the container's end is complete and in force. Faults: `not-found` (network), `exhausted`, `exists` (an address,
   * MAC or port is taken), `kernel` (the namespace is gone, or has such a link), `unavailable`; nothing is left behind then.
   */
  async add(request: Of<'ADD'>): Promise<Result> {
    const { attachment, netns, wanted, args } = request;
    const network = this.#networkOf(wanted.network ?? wanted.name);
    const id = endpointId(attachment);
    if (this.#isOfAnother(id, netns)) await this.forget(id);
    const isNew = this.#agent.localEndpoint(id) === undefined;
    const owner = args.pod === undefined ? attachment.containerId.slice(0, 12) : `${args.namespace ?? ''}/${args.pod}`;
    const name = args.pod ?? attachment.containerId.slice(0, 12);
    const taken: Ip[] = [];
    try {
      this.#records.put(id, recordOf(request));
      if (isNew) for await (const ip of this.#take(network, request, id)) taken.push(ip);
      const addresses = isNew ? taken : addressesIn(request);
      const asking = { network: network.id, id, owner, ...whichOf(args), name, addresses, ...asked(wanted, args) };
      const endpoint = await this.#agent.attach({ ...asking, durable: 'later' });
      // The kernel is written to while the disk is.
      const placed = this.#agent.join(id, netns, attachment.ifname).then(({ end }) => this.#complete(endpoint, attachment.ifname, end));
      const [link] = await Promise.all([placed, this.#agent.journal.durable()]);
      if (wanted.aliases.length > 0) await this.#agent.rename(id, owner, [name, ...wanted.aliases]);
      const own = resultOf(endpoint, link, netns);
      const named = { ...own, dns: wanted.dns };
      return wanted.earlier === undefined ? named : appendResult(wanted.earlier, named);
    } catch (error) {
      if (isNew) await this.#undo(id, network, taken, error);
      throw error;
    }
  }

  /** The same names in another namespace: the container is another one by now. Of what nobody knows nothing is to be forgotten. */
  #isOfAnother(id: string, netns: string): boolean {
    const record = this.#records.get(id);
    return record === undefined ? this.#agent.localEndpoint(id) !== undefined : record.netns !== netns;
  }

  /** Faults: `not-found` (no such attachment), `kernel` (the container's end is not as it was given out). */
  async check({ attachment, expected, ipam }: Of<'CHECK'>): Promise<void> {
    const id = endpointId(attachment);
    if (ipam !== undefined) await checkAddresses(ipam, attachment);
    const endpoint = this.#agent.localEndpoint(id);
    if (endpoint === undefined) {
      throw new Fault('not-found', `Container ${attachment.containerId} has no ${attachment.ifname} in ${attachment.name}`);
    }
    const { routes } = await this.#complete(endpoint, attachment.ifname);
    const stranger = endpoint.addresses.find((ip) => !expected.ips.some(({ address }) => address.startsWith(`${ip}/`)));
    if (stranger !== undefined) throw new Fault('kernel', `${attachment.ifname} has ${stranger}, which the result does not name`);
    const gateways = new Set(expected.ips.map(({ gateway }) => gateway));
    const lost = expected.routes.find(
      ({ dst, gw }) => gw !== undefined && gateways.has(gw) && !routes.some((route) => route.destination === dst),
    );
    if (lost !== undefined) throw new Fault('kernel', `${attachment.ifname} has lost its route to ${lost.dst}`);
  }

  /** Unknown already is success. */
  async remove({ attachment, ipam }: Of<'DEL'>): Promise<void> {
    const id = endpointId(attachment);
    const isKnown = this.#records.get(id) !== undefined;
    await this.forget(id);
    if (isKnown) return;
    if (ipam === undefined) releaseHostLocal(attachment);
    else await giveBack(ipam, attachment);
  }

  /** Removes every attachment of that configuration that the runtime does not name; one that cannot be does not keep the others. */
  async collect({ name, valid, ipam }: Of<'GC'>): Promise<void> {
    const named = new Set(valid.map(({ containerID: containerId, ifname }) => endpointId({ name, containerId, ifname })));
    const lost = this.records().filter(({ endpoint, record }) => record.name === name && !named.has(endpoint));
    const ends = await Promise.allSettled(lost.map(({ endpoint }) => this.forget(endpoint)));
    const failed = ends.filter((end) => end.status === 'rejected');
    const [first] = failed;
    if (first !== undefined)
      throw new Fault('kernel', `Cannot remove ${failed.length} of ${lost.length} attachments`, { cause: first.reason });
    if (ipam !== undefined) await collectAddresses(ipam);
  }

  /** Whether an ADD could succeed now. Faults: `not-found` (network), `exhausted`; as execute where addresses come from a plugin of others. */
  async status({ name, network: wanted, ipam }: Of<'STATUS'>): Promise<void> {
    const network = this.#networkOf(wanted ?? name);
    if (ipam !== undefined) {
      await checkReadiness(ipam);
      return;
    }
    if (this.#options.isFullToldElsewhere === true) return;
    const pools = this.#agent
      .pools(network.id)
      .filter(({ id, fallback }) => fallback !== true && this.#options.isForContainers?.(id) !== false);
    const full = exhaustedOf(pools, ({ id }) => this.#agent.room(id).isExhausted);
    if (full === undefined) return;
    const where = full.length === 0 ? '' : ` (${full.map(({ cidr }) => cidr).join(', ')})`;
    throw new Fault('exhausted', `Network ${network.name} has no free address on ${this.#agent.host}${where}`);
  }

  #networkOf(text: string): Network {
    const network = this.#agent.network(text) ?? this.#agent.networks().find(({ name }) => name === text);
    if (network !== undefined && network.deletedAt === undefined) return network;
    throw this.#agent.isSynced()
      ? new Fault('not-found', `No network ${text}`, { field: 'network', hint: 'causeway network ls shows those that exist' })
      : new Fault('unavailable', `This host has not been told of a network ${text} yet`, { hint: 'See causeway status' });
  }

  #poolOf(network: Network, ip: Ip): string {
    const pools = this.#agent.pools(network.id);
    const pool = pools.find(({ cidr }) => contains(cidr, ip));
    if (pool !== undefined) return pool.id;
    const ranges = pools.map(({ cidr }) => cidr).join(', ');
    throw new Fault('invalid', `${ip} is not in network ${network.name} (${ranges})`, { field: 'addresses' });
  }

  /** The container's end, once it is known to be whole. Without `known` it is looked at. */
  async #complete(endpoint: Endpoint, ifname: string, known?: PlacedLink): Promise<PlacedLink> {
    const link = known ?? (await this.#agent.inspect(endpoint.id));
    if (link === undefined || link.name !== ifname) throw new Fault('kernel', `The container has no link ${ifname} of ours`);
    const lacking = endpoint.addresses.find((ip) => !link.addresses.some((address) => address.startsWith(`${ip}/`)));
    if (lacking !== undefined) throw new Fault('kernel', `${ifname} lacks its address ${lacking}`);
    return link;
  }

  /** Those that the runtime has made, by endpoint: others go with them. Fault `corrupt`. */
  records(): ReturnType<AttachmentRecords['list']> {
    return this.#records.list().filter(({ record }) => record.isFurther !== true);
  }

  /** As by DEL. Unknown already is success. What else hangs on it may fail and has to be asked again; the endpoint is gone by then. */
  async forget(id: string): Promise<void> {
    const released = await Promise.allSettled([this.#options.release?.(id)]);
    await this.#agent.leave(id, 'now');
    await this.#agent.detach(id);
    const record = this.#records.get(id);
    if (record?.ipam !== undefined) await giveBack(record.ipam, record);
    for (const end of released) if (end.status === 'rejected') throw end.reason;
    this.#records.delete(id);
  }

  /** The addresses that the runtime wants, or whoever gives them, each held by `id` as soon as it is told. */
  async *#take(network: Network, request: Of<'ADD'>, id: string): AsyncGenerator<Ip, void> {
    const { attachment, wanted, ipam } = request;
    const addresses = ipam === undefined ? addressesIn(request) : await askAddresses(ipam, attachment);
    for (const ip of addresses) yield await this.#agent.requestAddress(this.#poolOf(network, ip), ip, id);
    for (const set of wanted.ranges) yield await this.#oneOf(network, set, id);
    if (addresses.length > 0 || wanted.ranges.length > 0) return;
    for (const choice of (await this.#options.choose?.(request.args, network.id)) ?? []) yield await this.#firstOf(choice, id);
  }

  /** Of pools that are full the next one is asked. Faults as requestAddress. */
  async #firstOf({ pools, ip }: AddressChoice, id: string): Promise<Ip> {
    for (const pool of pools.slice(0, -1)) {
      try {
        return await this.#agent.requestAddress(pool, ip, id);
      } catch (error) {
        if (!isFault(error, 'exhausted')) throw error;
      }
    }
    return await this.#agent.requestAddress(pools.at(-1) ?? '', ip, id);
  }

  /** A free address of the ranges. Faults: `exhausted`, `invalid` (not of the network). */
  async #oneOf(network: Network, ranges: readonly AddressRange[], id: string): Promise<Ip> {
    for (const { first, last } of ranges) {
      const pool = this.#poolOf(network, first);
      const end = ipToBigint(last);
      let ip = first;
      for (let tries = 0; tries < mostTries && ipToBigint(ip) <= end; tries++, ip = ipAdd(ip, 1)) {
        try {
          return await this.#agent.requestAddress(pool, ip, id);
        } catch (error) {
          if (!isFault(error, 'exists')) throw error;
        }
      }
    }
    const said = ranges.map(({ first, last }) => `${first}-${last}`).join(', ');
    throw new Fault('exhausted', `No address is free in ${said}`, { field: 'ipRanges' });
  }

  /** What failed first is what is told; what cannot be undone now is by the DEL that follows, or by GC. */
  async #undo(id: string, network: Network, addresses: readonly Ip[], reason: unknown): Promise<void> {
    try {
      await this.forget(id);
    } catch (error) {
      if (!isFault(error) || !isFault(reason)) throw error;
    }
    for (const pool of this.#agent.pools(network.id)) {
      for (const ip of addresses.filter((one) => contains(pool.cidr, one))) await this.#agent.releaseAddress(pool.id, ip);
    }
  }
}

const recordOf = ({ attachment, netns, args: { podUid }, ipam, isFurther }: Of<'ADD'>): AttachmentRecord => ({
  ...attachment,
  netns,
  ...(isFurther === true ? { isFurther } : {}),
  ...(podUid === undefined ? {} : { podUid }),
  ...(ipam === undefined ? {} : { ipam }),
});

const addressesIn = ({ wanted, args }: Of<'ADD'>): readonly Ip[] =>
  wanted.addresses.length > 0 ? wanted.addresses : [args.ip].filter((ip) => ip !== undefined);

const whichOf = ({ podUid }: Arguments): Pick<AttachRequest, 'ownerId'> => (podUid === undefined ? {} : { ownerId: podUid });

/** What else the runtime wants of the endpoint, by whichever of its ways. */
function asked(wanted: Wanted, args: Arguments): Pick<AttachRequest, 'mac' | 'ports' | 'bandwidth'> {
  const mac = wanted.mac ?? args.mac;
  return {
    ...(mac === undefined ? {} : { mac }),
    ports: wanted.ports,
    ...(wanted.bandwidth === undefined ? {} : { bandwidth: wanted.bandwidth }),
  };
}

/** An endpoint's id from the names of an attachment: 64 hexadecimal digits, as an engine's. */
export const endpointId = ({ name, containerId, ifname }: AttachmentName): string =>
  createHash('sha256').update(`${name} ${containerId} ${ifname}`).digest('hex');

/** Both ends of the link, and what is on the container's. Routes without a next hop are only the way to the gateway. */
function resultOf(endpoint: Endpoint, link: PlacedLink, sandbox: string): Result {
  const gatewayFor = (address: string): Ip | undefined =>
    link.routes.find(({ via }) => via !== undefined && via.includes(':') === address.includes(':'))?.via;
  return {
    interfaces: [
      { name: endpointLink(endpoint.id), mac: gatewayMac, mtu: link.mtu },
      { name: link.name, mac: endpoint.mac, mtu: link.mtu, sandbox },
    ],
    ips: endpoint.addresses.flatMap((ip) => {
      const address = link.addresses.find((candidate) => candidate.startsWith(`${ip}/`));
      const gateway = gatewayFor(ip);
      return address === undefined ? [] : [{ address, ...(gateway === undefined ? {} : { gateway }), interface: 1 }];
    }),
    routes: link.routes
      .toSorted(byDestination)
      .flatMap(({ destination, via }) => (via === undefined ? [] : [{ dst: destination, gw: via }])),
    dns: {},
  };
}

/** A repeated ADD answers the same, whatever order the kernel lists routes in. */
const byDestination = ({ destination: a }: PlacedLink['routes'][number], { destination: b }: PlacedLink['routes'][number]): number =>
  familyOf(a) - familyOf(b) || cidrLength(a) - cidrLength(b) || (a < b ? -1 : 1);
