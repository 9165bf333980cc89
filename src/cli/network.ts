// `causeway network`: make, look at, change and remove networks.
import type { PoolRequest } from '#api/local.ts';
import { covers, familyOf, parseCidr, parseIp, contains, type Cidr, type Ip } from '#model/ip.ts';
import { Fault } from '#model/fault.ts';
import type { CarryName, Endpoint, ModelName, Network, Pool } from '#model/resources.ts';
import type { Client } from './client.ts';
import { type Act, collect, completes, done, examples, type Group, integer, listing, nothingDone, pairs } from './command.ts';
import { shownEndpoints } from './endpoint.ts';
import type { Answer, Session } from './session.ts';
import { age, facts, table } from './table.ts';
import type { Command } from 'commander';

const modelNames: readonly ModelName[] = ['overlay', 'flannel', 'swarm'];
const carryNames: readonly CarryName[] = ['vxlan', 'direct-routing', 'host-gateway', 'wireguard'];

interface CreateOptions {
  readonly model?: string;
  readonly subnet?: readonly string[];
  readonly ipRange?: readonly string[];
  readonly gateway?: readonly string[];
  readonly reserve?: readonly string[];
  readonly ipv6?: true;
  readonly encrypted?: true;
  readonly internal?: true;
  readonly attachable?: true;
  readonly mtu?: number;
  readonly vni?: number;
  readonly carry?: string;
  readonly tenant?: string;
  readonly blockLength?: number;
  readonly blockLength6?: number;
  readonly label?: readonly string[];
}

/** One subnet and what belongs to it. */
interface PoolDraft {
  readonly cidr: Cidr;
  range?: Cidr;
  gateway?: Ip;
  reserved?: Record<string, Ip>;
}

/** The draft whose subnet `fits`; `text` is what looks for its subnet. */
function draftFor(drafts: readonly PoolDraft[], fits: (cidr: Cidr) => boolean, text: string, field: string): PoolDraft {
  const draft = drafts.find(({ cidr }) => fits(cidr));
  if (draft === undefined)
    throw new Fault('invalid', `${text} lies in none of the subnets given`, { field, hint: 'Give its --subnet too.' });
  return draft;
}

/** The pools that --subnet, --ip-range, --gateway, --reserve and --ipv6 describe; ranges and addresses find their subnet by themselves. */
export function poolsFrom(options: CreateOptions): readonly PoolRequest[] | undefined {
  const drafts: readonly PoolDraft[] = (options.subnet ?? []).map((text, index) => ({ cidr: parseCidr(text, `subnet[${index}]`) }));
  for (const text of options.ipRange ?? []) {
    const range = parseCidr(text, 'ip-range');
    draftFor(drafts, (cidr) => covers(cidr, range), text, 'ip-range').range = range;
  }
  for (const text of options.gateway ?? []) {
    const gateway = parseIp(text, 'gateway');
    draftFor(drafts, (cidr) => contains(cidr, gateway), text, 'gateway').gateway = gateway;
  }
  for (const [name, text] of Object.entries(pairs(options.reserve, 'reserve'))) {
    const ip = parseIp(text, 'reserve');
    const draft = draftFor(drafts, (cidr) => contains(cidr, ip), text, 'reserve');
    draft.reserved = { ...draft.reserved, [name]: ip };
  }
  const requests: PoolRequest[] = drafts.map((draft) => ({ ...draft, family: familyOf(draft.cidr) }));
  if (options.ipv6 === true && !requests.some(({ family }) => family === 6)) {
    if (requests.length === 0) requests.push({ family: 4 });
    requests.push({ family: 6 });
  }
  return requests.length === 0 ? undefined : requests;
}

async function create(session: Session, [name = '']: readonly string[], options: CreateOptions): Promise<Answer> {
  const requested = poolsFrom(options);
  const { encrypted, internal, attachable, mtu, vni, tenant } = options;
  const model = modelNames.find((one) => one === options.model);
  const carry = carryNames.find((one) => one === options.carry);
  const client = await session.client();
  const network = await client.create('networks', {
    name,
    ...(model === undefined ? {} : { model }),
    ...(tenant === undefined ? {} : { tenant }),
    ...(requested === undefined ? {} : { pools: requested }),
    ...(encrypted === undefined ? {} : { encrypted }),
    ...(internal === undefined ? {} : { internal }),
    ...(attachable === undefined ? {} : { attachable }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(vni === undefined ? {} : { vni }),
    ...(carry === undefined ? {} : { carry }),
    ...(options.blockLength === undefined ? {} : { blockLength4: options.blockLength }),
    ...(options.blockLength6 === undefined ? {} : { blockLength6: options.blockLength6 }),
    ...(options.label === undefined ? {} : { labels: pairs(options.label, 'label') }),
  });
  const pools = await poolsOf(client, network);
  const ranges = pools.map(({ cidr }) => cidr).join(' and ');
  return done(
    { ...network, pools },
    network.name,
    `Created network ${network.name} (${network.id})${ranges === '' ? '' : ` with ${ranges}`}`,
  );
}

const poolsOf = async (client: Client, network: Network): Promise<readonly Pool[]> =>
  (await client.list('pools', { network: network.id })).filter((pool) => pool.network === network.id);

const state = (network: Network): string => (network.deletedAt === undefined ? 'ready' : 'removing');

async function list(session: Session, _args: readonly string[], options: { tenant?: string }): Promise<Answer> {
  const client = await session.client();
  const [networks, pools] = await Promise.all([client.list('networks'), client.list('pools')]);
  const rows = networks.filter(({ tenant }) => options.tenant === undefined || tenant === options.tenant);
  return listing(
    rows,
    [
      { title: 'NAME', value: ({ name }) => name },
      { title: 'MODEL', value: ({ model }) => model },
      { title: 'TENANT', value: ({ tenant }) => tenant },
      { title: 'VNI', value: ({ vni }) => String(vni) },
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
    client.list('blocks', { network: network.id }),
    client.list('endpoints', { network: network.id }),
    client.list('exposures', { network: network.id }),
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
          ['Tenant', network.tenant],
          ['VNI', String(network.vni)],
          ['Internal', network.internal ? 'yes: no outgoing traffic, no published ports' : undefined],
          ['MTU', network.mtu === undefined ? undefined : `at most ${network.mtu}`],
          ['Addresses', network.addressing === 'external' ? 'given by the front end (Docker or Swarm)' : undefined],
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

interface EditOptions {
  readonly name?: string;
  readonly mtu?: number | 'none';
  readonly attachable?: boolean;
  readonly label?: readonly string[];
}

async function edit(session: Session, [name = '']: readonly string[], options: EditOptions): Promise<Answer> {
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
  for (const name of names) await client.remove('networks', name);
  return { data: { removed: names }, names, text: () => names.map((name) => `Removed network ${name}\n`).join('') };
}

const mtu = (text: string): number | 'none' => (text === 'none' ? 'none' : integer(576, 65_535)(text));

function buildCreate(network: Command, act: Act): void {
  const made = network
    .command('create')
    .argument('<name>', 'name of the new network')
    .description('Make a network. It appears on every host and in every Docker engine that runs the plugin.')
    .option('--model <model>', 'networking model, see "causeway explain models"')
    .option('--subnet <cidr>', 'address range; repeat for several; left out: one is proposed that overlaps nothing', collect)
    .option('--ip-range <cidr>', 'give addresses out of this part of a subnet only; repeatable', collect)
    .option('--gateway <ip>', 'address that Docker shows as the gateway and that is never given out; repeatable', collect)
    .option('--reserve <name=ip>', 'address that is never given out; repeatable', collect)
    .option('--ipv6', 'also an IPv6 range, proposed unless a --subnet gives one')
    .option('--encrypted', 'carry the packets between hosts through WireGuard')
    .option('--internal', 'no outgoing traffic and no published ports')
    .option('--attachable', 'containers may be attached by hand when the engine is in a Swarm')
    .option('--mtu <bytes>', 'upper bound of the MTU; the smaller of this and what the underlay leaves is used', integer(576, 65_535))
    .option('--vni <number>', 'VXLAN network identifier; left out: a free one', integer(1, 16_777_215))
    .option('--carry <how>', 'how packets go between hosts, instead of the way that the model chooses')
    .option('--tenant <name>', 'tenant that owns the network')
    .option('--block-length <bits>', 'prefix length of the address blocks that hosts claim, IPv4', integer(8, 32))
    .option('--block-length6 <bits>', 'the same for IPv6', integer(32, 128))
    .option('--label <key=value>', 'label; repeatable', collect);
  completes(made, 'tenants', '--tenant');
  made.options.find(({ long }) => long === '--model')?.choices([...modelNames]);
  made.options.find(({ long }) => long === '--carry')?.choices([...carryNames]);
  examples(
    made,
    'causeway network create web',
    'causeway network create db --subnet 10.20.0.0/16 --encrypted',
    'causeway network create both --subnet 10.30.0.0/16 --subnet fd00:30::/64',
    'causeway network create flat --model flannel --carry host-gateway',
  );
  act<CreateOptions>(made, create);
}

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
