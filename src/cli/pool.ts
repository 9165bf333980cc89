// `causeway pool`: the address ranges of networks.
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Network, Pool } from '#model/resources.ts';
import { all, type Client } from './client.ts';
import { collect, completes, done, examples, type Group, nothingDone, pairs } from './command.ts';
import type { Answer, Session } from './session.ts';
import { facts, type Look, table } from './table.ts';

/** The pools of one network. */
export const poolsOf = async (client: Client, network: Network): Promise<readonly Pool[]> =>
  (await all(client, 'pools', { network: network.id })).filter((pool) => pool.network === network.id);

const reservedText = ({ reserved }: Pool): string =>
  Object.entries(reserved)
    .map(([name, address]) => `${name}=${address}`)
    .join(' ');

function shownPools(look: Look, pools: readonly Pool[], networks: readonly Network[]): string {
  const nameOf = new Map(networks.map(({ id, name }) => [id, name]));
  return table(
    look,
    pools,
    [
      { title: 'ID', value: ({ id }) => id },
      { title: 'NETWORK', value: ({ network }) => nameOf.get(network) ?? network },
      { title: 'SUBNET', value: ({ cidr }) => cidr },
      { title: 'RANGE', value: ({ range }) => range ?? '' },
      { title: 'GATEWAY', value: ({ gateway }) => gateway ?? '' },
      { title: 'BLOCK', value: ({ blockLength }) => `/${blockLength}` },
    ],
    'No pools: no network has an address range.',
  );
}

async function list(session: Session, _args: readonly string[], options: { network?: string }): Promise<Answer> {
  const client = await session.client();
  const networks = options.network === undefined ? await all(client, 'networks') : [await client.get('networks', options.network)];
  const ids = new Set(networks.map(({ id }) => id));
  const pools = (await all(client, 'pools')).filter(({ network }) => options.network === undefined || ids.has(network));
  return { data: pools, names: pools.map(({ id }) => id), text: (look) => shownPools(look, pools, networks) };
}

async function show(session: Session, [id = '']: readonly string[]): Promise<Answer> {
  const client = await session.client();
  const pool = await client.get('pools', id);
  const [networks, blocks] = await Promise.all([all(client, 'networks'), all(client, 'blocks', { network: pool.network })]);
  const own = blocks.filter((block) => block.pool === pool.id);
  return {
    data: { ...pool, blocks: own },
    names: [pool.id],
    text: (look) =>
      facts(look, [
        ['Id', pool.id],
        ['Network', networks.find((network) => network.id === pool.network)?.name ?? pool.network],
        ['Subnet', pool.cidr],
        ['Given out from', pool.range],
        ['Gateway', pool.gateway],
        ['Reserved', reservedText(pool)],
      ]) +
      `\nBlocks of /${pool.blockLength}\n${table(
        look,
        own,
        [
          { title: 'BLOCK', value: ({ cidr }) => cidr },
          { title: 'HOST', value: ({ host }) => host },
          {
            title: 'LENT',
            value: ({ loans }) =>
              loans
                .filter((loan) => loan.state === 'granted')
                .map((loan) => `${loan.ip ?? ''} to ${loan.host}`)
                .join(', '),
          },
        ],
        'No host has claimed a block yet.',
      )}`,
  };
}

interface AddOptions {
  readonly ipRange?: string;
  readonly gateway?: string;
  readonly reserve?: readonly string[];
}

async function add(session: Session, [name = '', cidr = '']: readonly string[], options: AddOptions): Promise<Answer> {
  const subnet = parseCidr(cidr, 'subnet');
  const reserved = Object.fromEntries(
    Object.entries(pairs(options.reserve, 'reserve')).map(([key, text]) => [
      key,
      text.includes('/') ? parseCidr(text, 'reserve') : parseIp(text, 'reserve'),
    ]),
  );
  const client = await session.client();
  const network = await client.get('networks', name);
  const pool = await client.create('pools', {
    network: network.id,
    cidr: subnet,
    ...(options.ipRange === undefined ? {} : { range: parseCidr(options.ipRange, 'ip-range') }),
    ...(options.gateway === undefined ? {} : { gateway: parseIp(options.gateway, 'gateway') }),
    ...(options.reserve === undefined ? {} : { reserved }),
  });
  return done(pool, pool.id, `Added ${pool.cidr} to network ${network.name} (${pool.id})`);
}

async function remove(session: Session, [id = '']: readonly string[], options: { yes?: true }): Promise<Answer> {
  if (!(await session.confirm(`Remove pool ${id}?`, options.yes))) return nothingDone;
  await (await session.client()).remove('pools', id);
  return done({ removed: [id] }, id, `Removed pool ${id}`);
}

export const group: Group = {
  build(pool, act) {
    const ls = pool.command('ls').description('List address ranges.').option('--network <name>', 'only those of this network');
    act<{ network?: string }>(examples(completes(ls, 'networks', '--network'), 'causeway pool ls', 'causeway pool ls --network web'), list);
    const shown = pool
      .command('show')
      .argument('<id>', 'id of the pool')
      .description('Show a pool and which host holds which block of it.');
    act(examples(completes(shown, 'pools'), 'causeway pool show POOL'), show);
    const added = pool
      .command('add')
      .argument('<network>', 'name or id of the network')
      .argument('<subnet>', 'address range, for example 10.20.0.0/16')
      .description('Give a network another address range.')
      .option('--ip-range <cidr>', 'give addresses out of this part only')
      .option('--gateway <ip>', 'address that Docker shows as the gateway')
      .option('--reserve <name=address>', 'address or range that is never given out; repeatable', collect);
    completes(added, 'networks');
    act<AddOptions>(examples(added, 'causeway pool add web 10.21.0.0/16', 'causeway pool add web fd00:21::/64'), add);
    const removed = pool
      .command('rm')
      .argument('<id>', 'id of the pool')
      .description('Remove a pool no endpoint uses.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(removed, 'pools'), 'causeway pool rm POOL'), remove);
  },
};
