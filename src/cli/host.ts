// `causeway host`: the machines whose agents have joined.
import { isFault } from '#model/fault.ts';
import type { Host } from '#model/resources.ts';
import { all } from './client.ts';
import { completes, done, examples, type Group, listing, nothingDone, pairs } from './command.ts';
import type { Answer, Session } from './session.ts';
import { age, facts, type Look, type Style, table } from './table.ts';

/** A host that has not reported for this long counts as silent. Agents report every ten seconds. */
export const silentAfterMs = 45_000;

export type HostState = 'ready' | 'failing' | 'not ready' | 'silent' | 'never seen';

/** How a host is doing, judged by the reader's clock. */
export function hostState(host: Host, now: Date): HostState {
  const seen = Date.parse(host.status.seenAt);
  if (Number.isNaN(seen)) return 'never seen';
  if (now.getTime() - seen > silentAfterMs) return 'silent';
  if (host.status.failing.length > 0) return 'failing';
  return host.status.ready ? 'ready' : 'not ready';
}

const styleOf = (state: HostState): Style => (state === 'ready' ? 'green' : state === 'failing' || state === 'silent' ? 'red' : 'yellow');

const underlayText = ({ underlay }: Host): string =>
  underlay.map(({ ip, interface: link, mtu }) => `${ip} (${link}, MTU ${mtu})`).join(', ');

/** Hosts as a table, used by `host ls` and `status`. */
export function shownHosts(look: Look, hosts: readonly Host[], empty: string): string {
  return table(
    look,
    hosts,
    [
      { title: 'NAME', value: ({ name }) => name },
      { title: 'STATE', value: (host) => hostState(host, look.now), style: (host) => styleOf(hostState(host, look.now)) },
      { title: 'SEEN', value: ({ status }) => age(look, status.seenAt) },
      { title: 'APPLIED', value: ({ status }) => `${status.applied}/${status.desired}` },
      { title: 'UNDERLAY', value: ({ underlay }) => underlay.map(({ ip }) => ip).join(',') },
      { title: 'MTU', value: ({ underlay }) => String(underlay[0]?.mtu ?? '') },
      { title: 'AGENT', value: ({ agentVersion }) => agentVersion },
    ],
    empty,
  );
}

/** Undefined where no probes are sent, as in clusters without controllers. */
const pathsText = ({ status: { paths } }: Host): string | undefined =>
  paths === undefined ? undefined : paths.tried === 0 ? 'none needed' : `${paths.passing} of ${paths.tried} pass`;

async function list(session: Session): Promise<Answer> {
  const hosts = await all(await session.client(), 'hosts');
  return { ...listing(hosts, [], ''), text: (look) => shownHosts(look, hosts, noHosts) };
}

export const noHosts = 'No hosts yet. Make a token for one: causeway token create --join';

async function show(session: Session, [name = '']: readonly string[]): Promise<Answer> {
  const client = await session.client();
  const host = await client.get('hosts', name);
  const [endpoints, blocks] = await Promise.all([all(client, 'endpoints', { host: host.id }), all(client, 'blocks', { host: host.id })]);
  const own = (rows: readonly { readonly host: string }[]): number => rows.filter((row) => row.host === host.id).length;
  return {
    data: host,
    names: [host.name],
    text: (look) =>
      facts(look, [
        ['Name', host.name],
        ['State', hostState(host, look.now)],
        ['Seen', `${age(look, host.status.seenAt)} ago`],
        ['Index', String(host.index)],
        ['Generation', String(host.generation)],
        ['Underlay', underlayText(host)],
        ['WireGuard', host.wireguard === undefined ? 'not available' : `public key ${host.wireguard.publicKey}`],
        ['Agent', host.agentVersion],
        ['Applied', `${host.status.applied} of ${host.status.desired} kernel objects`],
        ['Paths', pathsText(host)],
        ['Endpoints', String(own(endpoints))],
        ['Blocks', String(own(blocks))],
        [
          'Features',
          Object.entries(host.status.features)
            .map(([key, value]) => (value === true ? key : `${key}=${String(value)}`))
            .join(' '),
        ],
        ...host.status.failing.map((sentence) => ['Failing', sentence] as const),
      ]),
  };
}

async function remove(session: Session, [name = '']: readonly string[], options: { yes?: true }): Promise<Answer> {
  const question = `Remove host ${name}? Its certificate is revoked, its endpoints are forgotten and its addresses become free.`;
  if (!(await session.confirm(question, options.yes))) return nothingDone;
  await (await session.client()).remove('hosts', name);
  return done({ removed: [name] }, name, `Removed host ${name}`);
}

const labelTries = 5;

const isRemoval = (text: string): boolean => text.endsWith('-') && !text.includes('=');

/** `key=value` sets, `key-` removes. Hosts report all the time, so another revision is no reason to give up. */
async function label(session: Session, [name = '', ...changes]: readonly string[]): Promise<Answer> {
  const [gone, set] = [changes.filter(isRemoval), changes.filter((text) => !isRemoval(text))];
  const wanted = pairs(set, 'label');
  const client = await session.client();
  for (let tries = 1; ; tries++) {
    const host = await client.get('hosts', name);
    const kept = Object.entries(host.labels).filter(([key]) => !gone.includes(`${key}-`));
    try {
      const labelled = await client.replace('hosts', { ...host, labels: { ...Object.fromEntries(kept), ...wanted } });
      return done(
        labelled,
        name,
        `Labels of host ${name}: ${
          Object.entries(labelled.labels)
            .map((pair) => pair.join('='))
            .join(' ') || 'none'
        }`,
      );
    } catch (error) {
      if (!isFault(error, 'conflict') || tries === labelTries) throw error;
    }
  }
}

export const group: Group = {
  build(host, act) {
    act(
      examples(host.command('ls').description('List hosts and how they are doing.'), 'causeway host ls', 'causeway host ls -o json'),
      list,
    );
    const shown = host.command('show').argument('<name>', 'name of the host').description('Show one host.');
    act(examples(completes(shown, 'hosts'), 'causeway host show node-a'), show);
    const labelled = host
      .command('label')
      .argument('<name>', 'name of the host')
      .argument('<label...>', 'name=value to set one, name- to remove it')
      .description('Set or remove labels of a host; peers of BGP choose hosts by them.');
    act(
      examples(
        completes(labelled, 'hosts'),
        'causeway host label node-a rack=1',
        'causeway host label node-a projectcalico.org/RouteReflectorClusterID=10.0.0.1',
        'causeway host label node-a rack-',
      ),
      label,
    );
    const removed = host
      .command('remove')
      .alias('rm')
      .argument('<name>', 'name of the host')
      .description('Remove a host that will not come back. Containers that still run there lose their network.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(removed, 'hosts'), 'causeway host remove node-c', 'causeway host remove node-c --yes'), remove);
  },
};
