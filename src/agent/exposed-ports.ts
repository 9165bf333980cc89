// Exposures as the host's own programs see them. A port is translated before any socket is looked for, so an exposure could take one
// from a program of the host, from a published port, or of an address that is not this host's at all. So each is held as
// published ports are (host-ports.ts), and an exposure whose port cannot be had stays closed here, and is told.
import { byAge } from '#model/age.ts';
import { isFault } from '#model/fault.ts';
import { clashes } from '#model/published-ports.ts';
import type { Exposure, LocalEndpoint, PublishedPort, Snapshot } from '#model/resources.ts';
import { names } from '#drivers/publish.ts';
import { HostPorts, type HostPortsOptions } from './host-ports.ts';

type Facts = Pick<Snapshot, 'exposures' | 'networks'>;

const portOf = ({ protocol, hostIp, hostPort, port }: Exposure): PublishedPort => ({
  protocol,
  port,
  hostPort,
  ...(hostIp === undefined ? {} : { hostIp }),
});

/** Whether both lead to the same. */
const isSameTarget = (a: Exposure, b: Exposure): boolean => a.network === b.network && a.endpoint === b.endpoint && a.port === b.port;

/** Whether the container publishes that port there itself. */
const isPublishedSo = (one: Exposure, local: readonly LocalEndpoint[]): boolean =>
  local.some(
    ({ endpoint }) =>
      endpoint.network === one.network &&
      names(endpoint, one) &&
      endpoint.ports.some((port) => port.port === one.port && clashes(port, portOf(one))),
  );

/** Those that make something here reachable by a port of this host. Addresses that move between hosts are nobody else's. */
function servedHere({ exposures, networks }: Facts, local: readonly LocalEndpoint[]): Exposure[] {
  return [...exposures.values()]
    .filter(
      (one) =>
        one.virtualIp === undefined &&
        networks.get(one.network)?.internal === false &&
        local.some(({ endpoint }) => endpoint.network === one.network && names(endpoint, one)),
    )
    .toSorted(byAge(({ id }) => id));
}

export class ExposedPorts implements Disposable {
  readonly #ports: HostPorts;
  #problems: readonly string[] = [];

  constructor(options: HostPortsOptions) {
    this.#ports = new HostPorts(options);
  }

  /** Which exposures do not open here, and why not, as of the last admission. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  /** The facts without exposures whose port this host cannot give; of two that ask for one port the older has it. */
  admit<F extends Facts>(facts: F, local: readonly LocalEndpoint[]): F {
    const served = servedHere(facts, local);
    this.#ports.letGo(served.map(portOf));
    const admitted: Exposure[] = [];
    const refused = new Map<string, string>();
    for (const one of served) {
      const why = isPublishedSo(one, local) ? undefined : this.#refusalOf(one, admitted);
      if (why === undefined) admitted.push(one);
      else refused.set(one.id, `Exposure ${one.name} is not open here: ${why}`);
    }
    this.#problems = [...refused.values()];
    if (refused.size === 0) return facts;
    return { ...facts, exposures: new Map([...facts.exposures].filter(([id]) => !refused.has(id))) };
  }

  [Symbol.dispose](): void {
    this.#ports[Symbol.dispose]();
  }

  #refusalOf(one: Exposure, admitted: readonly Exposure[]): string | undefined {
    const rival = admitted.find((other) => clashes(portOf(other), portOf(one)) && !isSameTarget(other, one));
    if (rival !== undefined) return `port ${one.hostPort}/${one.protocol} of this host is that of exposure ${rival.name}`;
    try {
      this.#ports.take([portOf(one)]);
      return undefined;
    } catch (error) {
      if (!isFault(error)) throw error;
      return `${error.message}. ${error.hint ?? ''}`.trimEnd();
    }
  }
}
