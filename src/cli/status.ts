// `causeway status`: one look at the whole installation. Exit status 0 when all is well, 10 when something is degraded.
import type { Endpoint, Exposure, Host, Network } from '#model/resources.ts';
import { all } from './client.ts';
import { examples, type Group } from './command.ts';
import { degradedExit } from './faults.ts';
import { hostState, noHosts, shownHosts } from './host.ts';
import type { Answer, Session } from './session.ts';
import { facts, type Look, paint, table } from './table.ts';

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

async function status(session: Session): Promise<Answer> {
  const { client, target } = await session.connection();
  const [{ version }, hosts, networks, endpoints, exposures] = await Promise.all([
    client.version(),
    all(client, 'hosts'),
    all(client, 'networks'),
    all(client, 'endpoints'),
    all(client, 'exposures'),
  ]);
  const { now } = session.surroundings;
  const problems = problemsOf({ hosts, networks, endpoints, exposures }, now());
  const members = Map.groupBy(endpoints, ({ network }) => network);
  return {
    status: problems.length === 0 ? 0 : degradedExit,
    names: problems.map(({ what, where, problem }) => `${what} ${where}: ${problem}`),
    data: {
      healthy: problems.length === 0,
      controller: { context: target.name, url: target.url, version },
      hosts: hosts.map((host) => ({
        name: host.name,
        state: hostState(host, now()),
        seenAt: host.status.seenAt,
        failing: host.status.failing,
      })),
      networks: networks.map(({ id, name, model }) => ({ id, name, model, endpoints: members.get(id)?.length ?? 0 })),
      problems,
    },
    text: (look: Look) =>
      [
        facts(look, [
          ['Controller', `${target.url} (version ${version}, context ${target.name})`],
          ['State', problems.length === 0 ? 'all well' : `${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}`],
        ]),
        `\nHosts\n${shownHosts(look, hosts, noHosts)}`,
        `\nNetworks\n${table(
          look,
          networks,
          [
            { title: 'NAME', value: ({ name }) => name },
            { title: 'MODEL', value: ({ model }) => model },
            { title: 'ENCRYPTED', value: ({ encrypted }) => (encrypted ? 'yes' : 'no') },
            { title: 'ENDPOINTS', value: ({ id }) => String(members.get(id)?.length ?? 0) },
            { title: 'HOSTS', value: ({ id }) => String(new Set(members.get(id)?.map(({ host }) => host)).size) },
            { title: 'STATE', value: ({ deletedAt }) => (deletedAt === undefined ? 'ready' : 'removing') },
          ],
          'No networks yet. Make one: causeway network create NAME',
        )}`,
        ...(problems.length === 0
          ? []
          : [
              `\n${paint(look, 'red', 'Problems')}\n${table(look, problems, [
                { title: 'WHAT', value: ({ what }) => what },
                { title: 'WHERE', value: ({ where }) => where },
                { title: 'PROBLEM', value: ({ problem }) => problem },
              ])}`,
            ]),
      ].join(''),
  };
}

export const group: Group = {
  build(command, act) {
    act(
      examples(
        command,
        'causeway status',
        'causeway status --quiet || echo "something is wrong"',
        'causeway status -o json | jq .problems',
      ),
      status,
    );
  },
};
