// `causeway policy`: the policies of a cluster as the agent of this very machine has them in force, and what the cluster says of all
// hosts.
import { Fault } from '#model/fault.ts';
import { agentPolicies, type PolicyView } from './agent.ts';
import { examples, type Group } from './command.ts';
import type { Answer, Session } from './session.ts';
import { type Look, table } from './table.ts';

async function policies(session: Session): Promise<readonly PolicyView[]> {
  const { agentSocket } = session.surroundings;
  const found = agentSocket === undefined ? undefined : await agentPolicies(agentSocket);
  if (found !== undefined) return found;
  throw new Fault('unavailable', 'No agent that follows a cluster answers on this machine', {
    hint: 'Run it as root on a node of the cluster',
  });
}

const shownPolicies = (look: Look, all: readonly PolicyView[]): string =>
  table(
    look,
    all,
    [
      { title: 'POLICY', value: ({ policy }) => policy },
      { title: 'GENERATION', value: ({ generation }) => String(generation) },
      { title: 'HOSTS', value: ({ cluster }) => (cluster === undefined ? '?' : `${cluster.inForce}/${cluster.needed}`) },
      { title: 'ENDPOINTS HERE', value: ({ endpoints }) => String(endpoints) },
      { title: 'PROBLEMS', value: ({ problems, cluster }) => (cluster?.problems ?? problems).join('; ') },
    ],
    'The cluster has no policies.',
  );

async function list(session: Session): Promise<Answer> {
  const all = await policies(session);
  return { data: all, names: all.map(({ policy }) => policy), text: (look) => shownPolicies(look, all) };
}

async function counters(session: Session): Promise<Answer> {
  const rows = (await policies(session)).flatMap(({ policy, staged, rules }) =>
    rules.map(({ action, ...rule }) => ({ policy, ...rule, action: staged ? `would ${action}` : action })),
  );
  const columns = [
    { title: 'POLICY', value: ({ policy }: (typeof rows)[number]) => policy },
    { title: 'RULE', value: ({ rule }: (typeof rows)[number]) => rule },
    { title: 'ACTION', value: ({ action }: (typeof rows)[number]) => action },
    { title: 'PACKETS', value: ({ packets }: (typeof rows)[number]) => String(packets) },
    { title: 'BYTES', value: ({ bytes }: (typeof rows)[number]) => String(bytes) },
  ];
  return {
    data: rows,
    names: rows.map(({ policy, rule }) => `${policy}: ${rule}`),
    text: (look) => table(look, rows, columns, 'No policy selects an endpoint of this host.'),
  };
}

export const group: Group = {
  build(policy, act) {
    act(
      examples(
        policy
          .command('ls')
          .description(
            'Policies that are in force, in which version, on how many of the hosts that need them, and for how many endpoints of this one.',
          ),
        'causeway policy ls',
      ),
      list,
    );
    act(
      examples(
        policy.command('counters').description('How many first packets of connections each rule has met on this host.'),
        'causeway policy counters',
        'causeway policy counters -o json',
      ),
      counters,
    );
  },
};
