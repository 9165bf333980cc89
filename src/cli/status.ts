// `causeway status`: one look at the whole installation. Exit status 0 when all is well, 10 when something is degraded.
import { agentProblems, agentView } from './agent.ts';
import { all } from './client.ts';
import { cloudProblems, cloudReportOf, cloudText } from './cloud-report.ts';
import { examples, type Group } from './command.ts';
import { degradedExit } from './faults.ts';
import { hostState, noHosts, shownHosts } from './host.ts';
import { problemsOf } from './problems.ts';
import type { Answer, Session } from './session.ts';
import { facts, type Look, paint, table } from './table.ts';

async function status(session: Session): Promise<Answer> {
  const { client, target } = await session.connection();
  const [{ version }, hosts, networks, endpoints, exposures, cloud] = await Promise.all([
    client.version(),
    all(client, 'hosts'),
    all(client, 'networks'),
    all(client, 'endpoints'),
    all(client, 'exposures'),
    cloudReportOf(client),
  ]);
  const { now, agentSocket } = session.surroundings;
  const agent = agentSocket === undefined ? undefined : await agentView(agentSocket);
  const silent =
    agentSocket !== undefined && agent === undefined ? [{ what: 'agent', where: 'this host', problem: 'does not answer' }] : [];
  const here = agent === undefined ? [] : agentProblems(agent);
  // What this host has reported to the controller it says here itself.
  const reported = problemsOf({ hosts, networks, endpoints, exposures }, now()).filter(
    (one) => one.where !== agent?.host || !here.some(({ problem }) => one.problem.endsWith(problem)),
  );
  const problems = [...reported, ...silent, ...here, ...(cloud === undefined ? [] : cloudProblems(cloud))];
  const members = Map.groupBy(endpoints, ({ network }) => network);
  return {
    status: problems.length === 0 ? 0 : degradedExit,
    names: problems.map(({ what, where, problem }) => `${what} ${where}: ${problem}`),
    data: {
      healthy: problems.length === 0,
      controller: { context: target.name, url: target.url, version },
      ...(agent === undefined ? {} : { agent }),
      ...(cloud === undefined ? {} : { cloud }),
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
          [
            'This host',
            agent === undefined
              ? undefined
              : `${agent.host}, ${agent.connected ? 'following' : 'not following'} the controller; Docker ${agent.docker?.engine ?? 'not asked'}`,
          ],
          ['Cloud', cloud === undefined ? undefined : cloudText(cloud)],
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
