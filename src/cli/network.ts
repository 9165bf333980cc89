// `causeway network`: make, look at, change and remove networks.
import { Fault } from '#model/fault.ts';
import { contains } from '#model/ip.ts';
import type { Endpoint, Network, Pool } from '#model/resources.ts';
import { all } from './client.ts';
import { collect, completes, done, each, examples, type Group, integer, listing, nothingDone, pairs } from './command.ts';
import { shownEndpoints } from './endpoint.ts';
import { buildCreate } from './network-create.ts';
import { poolsOf } from './pool.ts';
import type { Answer, Session } from './session.ts';
import { age, facts, table } from './table.ts';

const state = (network: Network): string => (network.deletedAt === undefined ? 'ready' : 'removing');

async function list(session: Session, _args: readonly string[], options: { tenant?: string }): Promise<Answer> {
  const client = await session.client();
  if (options.tenant !== undefined) await client.get('tenants', options.tenant);
  const [networks, pools] = await Promise.all([all(client, 'networks'), all(client, 'pools')]);
  const rows = networks.filter(({ tenant }) => options.tenant === undefined || tenant === options.tenant);
  return listing(
    rows,
    [
      { title: 'NAME', value: ({ name }) => name },
      { title: 'MODEL', value: ({ model }) => model },
      { title: 'TENANT', value: ({ tenant }) => tenant },
      { title: 'VNI', value: ({ model, vni }) => (model === 'swarm' ? '' : String(vni)) },
      { title: 'ENCRYPTED', value: ({ encrypted }) => (encrypted ? 'yes' : 'no') },
      {
        title: 'SUBNETS',
        value: ({ id }) =>
          pools
            .filter(({ network }) => network === id)
            .map(({ cidr }) => cidr)
            .join(','),
      },
      { title: 'STATE', value: state, style: (network) => (network.deletedAt === undefined ? undefined : 'yellow') },
      { title: 'ID', value: ({ id }) => id },
    ],
    'No networks yet. Make one: causeway network create NAME',
  );
}

async function show(session: Session, [name = '']: readonly string[]): Promise<Answer> {
  const client = await session.client();
  const network = await client.get('networks', name);
  const [pools, blocks, endpoints, exposures] = await Promise.all([
    poolsOf(client, network),
    all(client, 'blocks', { network: network.id }),
    all(client, 'endpoints', { network: network.id }),
    all(client, 'exposures', { network: network.id }),
  ]);
  const within = <T extends { readonly network: string }>(rows: readonly T[]): readonly T[] =>
    rows.filter((row) => row.network === network.id);
  const members: readonly Endpoint[] = within(endpoints);
  const openings = within(exposures);
  return {
    data: { ...network, pools, blocks: within(blocks), endpoints: members, exposures: openings },
    names: [network.name],
    text: (look) =>
      [
        facts(look, [
          ['Name', network.name],
          ['Id', network.id],
          ['Model', `${network.model} (carried by ${network.choices.carry}${network.encrypted ? ', encrypted' : ''})`],
          ['Instead of', network.instead === undefined ? undefined : `${network.instead.carry}, as ${network.instead.because}`],
          ['Tenant', network.tenant],
          ['VNI', network.model === 'swarm' ? undefined : String(network.vni)],
          ['Internal', network.internal ? 'yes: no outgoing traffic, no published ports' : undefined],
          ['MTU', network.mtu === undefined ? undefined : `at most ${network.mtu}`],
          ['Addresses', network.addressing === 'external' ? 'given by the front end (Docker or Swarm)' : undefined],
          ['Overlay', overlayText(pools, members)],
          ['State', state(network)],
          ['Age', age(look, network.createdAt)],
          [
            'Labels',
            Object.entries(network.labels)
              .map(([key, value]) => `${key}=${value}`)
              .join(' '),
          ],
        ]),
        `\nPools\n${table(look, pools, [
          { title: 'SUBNET', value: ({ cidr }) => cidr },
          { title: 'RANGE', value: ({ range }) => range ?? '' },
          { title: 'GATEWAY', value: ({ gateway }) => gateway ?? '' },
          {
            title: 'BLOCKS',
            value: (pool) => `${within(blocks).filter((block) => block.pool === pool.id).length} of /${pool.blockLength}`,
          },
          { title: 'ID', value: ({ id }) => id },
        ])}`,
        `\nEndpoints\n${shownEndpoints(look, members, [network], 'No container is attached.')}`,
        ...(openings.length === 0
          ? []
          : [
              `\nExposures\n${table(look, openings, [
                { title: 'NAME', value: (one) => one.name },
                { title: 'TO', value: ({ endpoint, port, protocol }) => `${endpoint}:${port}/${protocol}` },
                { title: 'HOST PORT', value: ({ hostIp, hostPort }) => `${hostIp === undefined ? '' : `${hostIp} `}${hostPort}` },
                { title: 'FROM', value: ({ sources }) => sources.join(',') || 'everywhere' },
              ])}`,
            ]),
      ].join(''),
  };
}

/** Of a network whose containers start without ports of the cloud where it gives none. */
function overlayText(pools: readonly Pool[], members: readonly Endpoint[]): string | undefined {
  const ranges = pools.filter(({ fallback }) => fallback === true).map(({ cidr }) => cidr);
  if (ranges.length === 0) return undefined;
  const names = members
    .filter(({ addresses }) => addresses.some((ip) => ranges.some((cidr) => contains(cidr, ip))))
    .map(({ name, id }) => name || id);
  const who = names.length === 0 ? 'none now' : `${names.length} now: ${names.slice(0, 10).join(', ')}${names.length > 10 ? ', …' : ''}`;
  return `${ranges.join(' and ')}, for containers without a port of the cloud; ${who}`;
}

interface EditOptions {
  readonly name?: string;
  readonly mtu?: number | 'none';
  readonly attachable?: boolean;
  readonly label?: readonly string[];
}

async function edit(session: Session, [name = '']: readonly string[], options: EditOptions): Promise<Answer> {
  if (Object.keys(options).length === 0) throw new Fault('invalid', 'Say what to change', { hint: 'causeway network edit --help' });
  const client = await session.client();
  const { mtu, ...before } = await client.get('networks', name);
  const labels = Object.fromEntries(
    Object.entries({ ...before.labels, ...pairs(options.label, 'label') }).filter(([, value]) => value !== ''),
  );
  const bound = options.mtu ?? mtu ?? 'none';
  const network = await client.replace('networks', {
    ...before,
    name: options.name ?? before.name,
    attachable: options.attachable ?? before.attachable,
    labels,
    ...(bound === 'none' ? {} : { mtu: bound }),
  });
  return done(network, network.name, `Changed network ${network.name}`);
}

async function remove(session: Session, args: readonly string[], options: { yes?: true }): Promise<Answer> {
  const names = await session.names(args);
  if (
    !(await session.confirm(
      `Remove ${names.length === 1 ? `network ${names[0]}` : `${names.length} networks`} on every host?`,
      options.yes,
    ))
  ) {
    return nothingDone;
  }
  const client = await session.client();
  await each(names, String, (name) => client.remove('networks', name));
  return { data: { removed: names }, names, text: () => names.map((name) => `Removed network ${name}\n`).join('') };
}

const mtu = (text: string): number | 'none' => (text === 'none' ? 'none' : integer(576, 65_535)(text));

export const group: Group = {
  build(network, act) {
    const ls = network.command('ls').description('List networks.').option('--tenant <name>', 'only those of this tenant');
    completes(ls, 'tenants', '--tenant');
    act<{ tenant?: string }>(
      examples(ls, 'causeway network ls', 'causeway network ls --quiet | xargs -n1 causeway network show', 'causeway network ls -o json'),
      list,
    );

    const shown = network
      .command('show')
      .argument('<name>', 'name or id')
      .description('Show a network with its pools, endpoints and exposures.');
    act(examples(completes(shown, 'networks'), 'causeway network show web', 'causeway network show web -o yaml'), show);

    buildCreate(network, act);

    const edited = network
      .command('edit')
      .argument('<name>', 'name or id')
      .description('Change what may change while a network is in use.')
      .option('--name <name>', 'new name')
      .option('--mtu <bytes>', 'new upper bound of the MTU, or "none"', mtu)
      .option('--attachable', 'containers may be attached by hand when the engine is in a Swarm')
      .option('--no-attachable', 'they may not')
      .option('--label <key=value>', 'set a label; an empty value removes it; repeatable', collect);
    act<EditOptions>(
      examples(completes(edited, 'networks'), 'causeway network edit web --mtu 1300', 'causeway network edit web --label stage=test'),
      edit,
    );

    const removed = network
      .command('rm')
      .argument('<name...>', 'names or ids; - reads them from standard input')
      .description('Remove networks that no container uses.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(
      examples(
        completes(removed, 'networks'),
        'causeway network rm web',
        'causeway network ls --tenant test --quiet | causeway network rm -',
      ),
      remove,
    );
  },
};
