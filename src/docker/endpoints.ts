// The endpoint half of libnetwork's remote driver protocol. Order of one life, as dockerd calls it: CreateEndpoint, Join,
// ProgramExternalConnectivity, …, RevokeExternalConnectivity, Leave, DeleteEndpoint; after a crash any tail of it may be
// missing or come twice, so everything on the way down succeeds on unknown ids.
import type { JoinAnswer, LocalAgent } from '#api/local.ts';
import { Fault, isFault } from '#model/fault.ts';
import { bitsOf, type Cidr, contains, type Family, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import { endpointLink } from '#model/numbers.ts';
import type { Endpoint, Network, Pool, PublishedPort } from '#model/resources.ts';
import type { Log } from './log.ts';
import type { DriverOptions } from './networks.ts';
import { narrowed, publishedPorts, servedBy } from './ports.ts';
import type { Interface, Requests } from './protocol.ts';
import type { Attachment, Binding, DockerRecords } from './records.ts';
import { EngineResolver } from './resolver.ts';
import { shareAddresses, type StaticRoute, staticRoutes } from './routes.ts';
import { secondFamily } from './swarm-ipam.ts';

export interface InterfaceAnswer {
  readonly Address?: Cidr;
  readonly AddressIPv6?: Cidr;
  readonly MacAddress?: string;
}

export interface JoinResponse {
  readonly InterfaceName: { readonly SrcName: string; readonly DstPrefix: string };
  readonly Gateway?: Ip;
  readonly GatewayIPv6?: Ip;
  readonly StaticRoutes: readonly StaticRoute[];
  readonly DisableGatewayService: true;
}

export class Endpoints {
  readonly #agent: LocalAgent;
  readonly #records: DockerRecords;
  readonly #log: Log;
  readonly #resolver: EngineResolver;
  /** In a Swarm its engines know all names by themselves. */
  readonly #isLocal: boolean;

  constructor(options: DriverOptions) {
    this.#agent = options.agent;
    this.#records = options.records;
    this.#log = options.log;
    this.#resolver = new EngineResolver(options.records);
    this.#isLocal = options.scope === 'local';
  }

  /** Answers only what came in empty: libnetwork takes anything else for an attempt to change it and rolls back. */
  async create(request: Requests['NetworkDriver.CreateEndpoint']): Promise<InterfaceAnswer> {
    const { EndpointID: id, Interface: asked } = request;
    const { network, ipam, conflict } = this.#networkOf(request.NetworkID);
    const isNew = this.#records.attachments.get(id) === undefined;
    // Whoever starts a container by this name means the other network.
    if (isNew && conflict !== undefined) throw new Fault('exists', conflict);
    const interfaces = [asked.Address, asked.AddressIPv6].filter((one) => one !== undefined);
    if (!this.#isLocal && interfaces.length > 1) throw secondFamily();
    const held = interfaces.map((one) => ({ one, pool: this.#poolFor(network, one) }));
    const { mac: wantedMac, groups, prefix, disablesIpv6: isWithoutIpv6 } = request.Options;
    const mac = asked.MacAddress ?? wantedMac;
    const wanted = ipam === 'other' ? held.flatMap(({ one, pool }) => (pool ? [{ pool: pool.id, ip: one.ip }] : [])) : [];
    const claims: { pool: string; ip: Ip }[] = [];
    try {
      for (const claim of wanted) {
        await this.#claim(claim.pool, claim.ip, id, network);
        claims.push(claim);
      }
      this.#records.attachments.put(id, { claims, lengths: interfaces, prefix, isWithoutIpv6 });
      const endpoint = await this.#agent.attach({
        network: network.id,
        id,
        owner: id.slice(0, 12),
        addresses: interfaces.map(({ ip }) => ip),
        ...(mac === undefined ? {} : { mac }),
        ...(groups === undefined ? {} : { groups }),
        ports: [],
      });
      return interfaceAnswer(endpoint, asked);
    } catch (error) {
      if (isNew) await this.#forget(id, claims);
      throw error;
    }
  }

  /** Claims what another IPAM driver chose, so that no other host gives the same address. */
  async #claim(pool: string, ip: Ip, id: string, network: Network): Promise<void> {
    try {
      await this.#agent.requestAddress(pool, ip, id);
    } catch (error) {
      if (!isFault(error, 'exists')) throw error;
      throw new Fault('exists', `Address ${ip} of network ${network.name} is used on another host`, {
        hint: this.#isLocal
          ? 'This engine chooses addresses by itself; create the network with --ipam-driver causeway so that all hosts choose together'
          : 'Its task there has ended and goes in a moment, or the node does not answer: see causeway endpoint ls',
        cause: error,
      });
    }
  }

  async #forget(id: string, claims: Attachment['claims']): Promise<void> {
    const held = this.#agent.localEndpoint(id);
    for (const { pool, ip } of claims) {
      if (held?.addresses.includes(ip) === true) continue;
      try {
        await this.#agent.releaseAddress(pool, ip);
      } catch (error) {
        this.#log.warn({ endpoint: id, address: ip, error }, 'could not release an address');
      }
    }
    this.#records.attachments.delete(id);
  }

  operInfo(request: Requests['NetworkDriver.EndpointOperInfo']): Readonly<Record<string, unknown>> {
    const endpoint = this.#agent.localEndpoint(request.EndpointID);
    if (endpoint === undefined) return {};
    const network = this.#agent.network(endpoint.network);
    return {
      'causeway.network': network?.name ?? endpoint.network,
      'causeway.link': endpointLink(endpoint.id),
      'causeway.addresses': endpoint.addresses.join(' '),
      'causeway.ports': endpoint.ports.map((port) => `${port.hostIp ?? '*'}:${port.hostPort}->${port.port}/${port.protocol}`).join(' '),
      ...(network === undefined ? {} : { 'causeway.vni': network.vni, 'causeway.encrypted': network.encrypted }),
      ...(network?.mtu === undefined ? {} : { 'causeway.mtu': network.mtu }),
      'com.docker.network.endpoint.macaddress': endpoint.mac,
    };
  }

  /** Faults: `not-found` (no CreateEndpoint before), `overlap` (two networks of one container share addresses). */
  async join(request: Requests['NetworkDriver.Join']): Promise<JoinResponse> {
    const { EndpointID: id, SandboxKey: sandbox } = request;
    const endpoint = this.#agent.localEndpoint(id);
    if (endpoint === undefined) {
      throw new Fault('not-found', `No endpoint ${id.slice(0, 12)}`, { hint: 'Disconnect and connect the container again' });
    }
    const attachment = this.#records.attachments.get(id) ?? { claims: [], lengths: [] };
    const pools = this.#poolsOf(endpoint.network);
    this.#checkNeighbours(id, sandbox, pools);
    const joined = await this.#agent.join(id, sandbox);
    this.#records.attachments.put(id, { ...attachment, sandbox });
    const answer = attachment.isWithoutIpv6 === true ? ofIpv4(joined) : joined;
    const addresses = endpoint.addresses.filter((ip) => answer.gateways[familyOf(ip)] !== undefined);
    const interfaces = addresses.map((ip): Interface => ({
      ip,
      length: attachment.lengths.find((one) => one.ip === ip)?.length ?? bitsOf(familyOf(ip)),
    }));
    const isInternal = this.#agent.network(endpoint.network)?.internal === true;
    return joinResponse(answer, staticRoutes({ answer, pools, interfaces }), { isInternal, prefix: attachment.prefix ?? 'eth' });
  }

  #poolsOf(network: string): Cidr[] {
    return this.#agent.pools(network).map((pool) => pool.cidr);
  }

  /** Overlapping networks are fine on a host, but one container cannot tell their addresses apart. */
  #checkNeighbours(id: string, sandbox: string, pools: readonly Cidr[]): void {
    for (const { id: other, record } of this.#records.attachments.list()) {
      if (other === id || record.sandbox !== sandbox) continue;
      const neighbour = this.#agent.localEndpoint(other);
      if (neighbour === undefined || !shareAddresses(pools, this.#poolsOf(neighbour.network))) continue;
      const name = this.#agent.network(neighbour.network)?.name ?? neighbour.network;
      throw new Fault('overlap', `The container is on network ${name} already, whose addresses overlap`, {
        hint: 'Disconnect it from that network first, or give one of the networks another --subnet',
      });
    }
  }

  async leave(request: Requests['NetworkDriver.Leave']): Promise<void> {
    const attachment = this.#records.attachments.get(request.EndpointID);
    await this.#agent.leave(request.EndpointID);
    if (attachment?.sandbox === undefined) return;
    const { sandbox: _, ...rest } = attachment;
    this.#records.attachments.put(request.EndpointID, rest);
  }

  async remove(request: Requests['NetworkDriver.DeleteEndpoint']): Promise<void> {
    const { EndpointID: id } = request;
    const attachment = this.#records.attachments.get(id);
    await this.#agent.detach(id);
    if (attachment !== undefined) await this.#forget(id, attachment.claims);
  }

  /** For endpoints whose DeleteEndpoint was lost: what follows it is lost too, so the addresses are released here. */
  async removeLost(id: string): Promise<void> {
    const endpoint = this.#agent.localEndpoint(id);
    const claims = this.#records.attachments.get(id)?.claims ?? [];
    const pools = endpoint === undefined ? [] : this.#agent.pools(endpoint.network);
    const held = (endpoint?.addresses ?? []).flatMap((ip) =>
      pools.filter(({ cidr }) => contains(cidr, ip)).map((pool) => ({ pool: pool.id, ip })),
    );
    await this.#agent.detach(id);
    await this.#forget(id, [...claims, ...held.filter(({ ip }) => !claims.some((claim) => claim.ip === ip))]);
  }

  /** Faults: `exists` (host port taken), `exhausted`, `unsupported`. */
  async publish(request: Requests['NetworkDriver.ProgramExternalConnectivity']): Promise<void> {
    const endpoint = this.#agent.localEndpoint(request.EndpointID);
    if (endpoint === undefined) throw new Fault('not-found', `No endpoint ${request.EndpointID.slice(0, 12)}`);
    if (this.#agent.network(endpoint.network)?.internal === true) return;
    const families = await this.#familiesOf(endpoint, request.Options.isIpv6Elsewhere);
    const others = this.#agent.localEndpoints().filter((other) => other.id !== endpoint.id);
    const isFree = (port: Omit<PublishedPort, 'port'>): boolean => this.#agent.isPortFree(port);
    const hasIpv6 = endpoint.addresses.some((ip) => familyOf(ip) === 6);
    const ports = publishedPorts(request.Options.ports, { others, before: endpoint.ports, families, hasIpv6, isFree });
    if (ports.length > 0 || endpoint.ports.length > 0) await this.#agent.publish(endpoint.id, ports);
    if (this.#isLocal && this.#resolver.asksPast()) await this.#answerFirst(endpoint.id);
  }

  /**
   * The only families in which the endpoint publishes; undefined where no other network of the container does. The call does
   * not say of which families it is the way out, but what it says of others (moby, libnetwork/drivers/remote/driver.go): that
   * IPv6 goes elsewhere; and who is no way out any more has been told so before.
   */
  async #familiesOf(endpoint: Endpoint, isIpv6Elsewhere: boolean): Promise<readonly Family[] | undefined> {
    const siblings = this.#siblingsOf(endpoint.id).filter(({ ports }) => ports.length > 0);
    const others = new Set(siblings.flatMap(servedBy));
    if (isIpv6Elsewhere) others.add(6).delete(4);
    if (others.size === 0) return undefined;
    for (const sibling of siblings) {
      const kept = servedBy(sibling).filter((family) => others.has(family));
      await this.#agent.publish(sibling.id, narrowed(sibling.ports, kept));
    }
    return ([4, 6] as const).filter((family) => !others.has(family));
  }

  /** The other endpoints of the same container. */
  #siblingsOf(id: string): Endpoint[] {
    const sandbox = this.#records.attachments.get(id)?.sandbox;
    return this.#records.attachments.list().flatMap(({ id: other, record }) => {
      const isSibling = other !== id && sandbox !== undefined && record.sandbox === sandbox;
      return (isSibling ? this.#agent.localEndpoint(other) : undefined) ?? [];
    });
  }

  /** From dockerd 28 on the container's end is in place by now, and nothing runs inside: no question is missed. */
  async #answerFirst(id: string): Promise<void> {
    try {
      await this.#agent.answerFirst(id, true);
    } catch (error) {
      this.#log.warn({ endpoint: id, error }, "cannot answer a container's questions for names first");
    }
  }

  async unpublish(request: Requests['NetworkDriver.RevokeExternalConnectivity']): Promise<void> {
    const endpoint = this.#agent.localEndpoint(request.EndpointID);
    if (endpoint === undefined || endpoint.ports.length === 0) return;
    await this.#agent.publish(endpoint.id, []);
  }

  #networkOf(dockerId: string): { network: Network } & Pick<Binding, 'ipam' | 'conflict'> {
    const binding = this.#records.bindings.get(dockerId);
    const network = binding === undefined ? undefined : this.#agent.network(binding.network);
    if (binding !== undefined && network !== undefined && network.deletedAt === undefined)
      return { network, ipam: binding.ipam, conflict: binding.conflict };
    throw new Fault('not-found', `Docker network ${dockerId.slice(0, 12)} is no network of Causeway any more`, {
      hint: 'It was removed on another host; remove it here with docker network rm',
    });
  }

  /** The pool that holds the address; undefined where another authority gives addresses and we know no pool for it. */
  #poolFor(network: Network, one: Interface): Pool | undefined {
    const pools = this.#agent.pools(network.id);
    const pool = pools.find((candidate) => contains(candidate.cidr, one.ip));
    if (pool !== undefined || network.addressing === 'external') return pool;
    throw new Fault('invalid', `Address ${one.ip} is in no pool of network ${network.name}`, {
      field: 'Address',
      hint: `Its pools: ${pools.map((candidate) => candidate.cidr).join(', ')}`,
    });
  }
}

function interfaceAnswer(endpoint: Endpoint, asked: Requests['NetworkDriver.CreateEndpoint']['Interface']): InterfaceAnswer {
  const ip4 = endpoint.addresses.find((ip) => familyOf(ip) === 4);
  const ip6 = endpoint.addresses.find((ip) => familyOf(ip) === 6);
  return {
    ...(asked.MacAddress === undefined ? { MacAddress: endpoint.mac } : {}),
    ...(asked.Address === undefined && ip4 !== undefined ? { Address: hostPrefix(ip4) } : {}),
    ...(asked.AddressIPv6 === undefined && ip6 !== undefined ? { AddressIPv6: hostPrefix(ip6) } : {}),
  };
}

const ofIpv4 = ({ link, gateways, routes }: JoinAnswer): JoinAnswer => ({
  link,
  gateways: gateways[4] === undefined ? {} : { 4: gateways[4] },
  routes: routes.filter(({ destination }) => familyOf(destination) === 4),
});

interface Manner {
  /** An internal network gives no way out: no gateway, and no docker_gwbridge in its place. */
  readonly isInternal: boolean;
  readonly prefix: string;
}

function joinResponse(answer: JoinAnswer, routes: readonly StaticRoute[], { isInternal, prefix }: Manner): JoinResponse {
  const { 4: gateway, 6: gateway6 } = answer.gateways;
  return {
    InterfaceName: { SrcName: answer.link, DstPrefix: prefix },
    ...(gateway === undefined || isInternal ? {} : { Gateway: gateway }),
    ...(gateway6 === undefined || isInternal ? {} : { GatewayIPv6: gateway6 }),
    StaticRoutes: routes,
    DisableGatewayService: true,
  };
}
