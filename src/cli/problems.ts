// Everything in an installation that is not as it should be, worked out from its records.
import type { Endpoint, Exposure, Host, Network } from '#model/resources.ts';
import { hostState } from './host.ts';

/** How long a network may be on its way out before that counts as a problem. */
const removalMs = 120_000;

export interface Problem {
  readonly what: string;
  readonly where: string;
  readonly problem: string;
}

export interface Installation {
  readonly hosts: readonly Host[];
  readonly networks: readonly Network[];
  readonly endpoints: readonly Endpoint[];
  readonly exposures: readonly Exposure[];
}

const isTarget = (exposure: Exposure, { network, name, names }: Endpoint): boolean =>
  network === exposure.network && (name === exposure.endpoint || names.includes(exposure.endpoint));

/** Everything that is not as it should be, by the reader's clock; empty when all is well. */
export function problemsOf({ hosts, networks, endpoints, exposures }: Installation, now: Date): readonly Problem[] {
  const known = new Set(hosts.map(({ id }) => id));
  return [
    ...hosts.flatMap((host) => {
      const state = hostState(host, now);
      const failing = host.status.failing.map((sentence) => ({ what: 'host', where: host.name, problem: sentence }));
      return state === 'ready' || state === 'failing' ? failing : [{ what: 'host', where: host.name, problem: state }, ...failing];
    }),
    ...networks
      .filter(({ deletedAt }) => deletedAt !== undefined && now.getTime() - Date.parse(deletedAt) > removalMs)
      .map(({ name }) => ({ what: 'network', where: name, problem: 'is still being removed' })),
    ...networks
      .filter(({ encrypted }) => encrypted)
      .flatMap(({ id, name }) => {
        const present = new Set(endpoints.filter((endpoint) => endpoint.network === id).map(({ host }) => host));
        const unable = hosts.filter((host) => present.has(host.id) && host.wireguard === undefined);
        return unable.map((host) => ({ what: 'network', where: name, problem: `encrypted, but host ${host.name} has no WireGuard` }));
      }),
    ...endpoints
      .filter(({ host }) => !known.has(host))
      .map(({ name, id, host }) => ({ what: 'endpoint', where: name || id, problem: `its host ${host} is gone` })),
    ...exposures
      .filter((exposure) => !endpoints.some((endpoint) => isTarget(exposure, endpoint)))
      .map(({ name, endpoint }) => ({ what: 'exposure', where: name, problem: `no container named ${endpoint} is attached` })),
  ];
}
