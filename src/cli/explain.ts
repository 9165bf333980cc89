// `causeway explain`: what a network is made of, what it costs per packet and what the cloud must let pass. Everything is
// read from the tables that the agent plans with (drivers/), so the answer cannot differ from what is done.
import { describeChoices, frontEndTexts, models } from '#drivers/models.ts';
import { type MtuSum, mtuSum } from '#drivers/mtu.ts';
import { passagesOf } from '#drivers/passages.ts';
import { isOutside } from '#drivers/trunks.ts';
import { type Cidr, cidrSize, familyOf } from '#model/ip.ts';
import type { Block, Host, Network, Pool } from '#model/resources.ts';
import { agentView, type HeldObjects, heldObjects } from './agent.ts';
import { all } from './client.ts';
import { completes, examples, type Group } from './command.ts';
import { objectsOf } from './objects.ts';
import type { Answer, Session } from './session.ts';
import { facts, type Look, paint, table } from './table.ts';

interface Sum extends MtuSum {
  /** `1450 - 20 (outer IPv4 header) - … = 1400`. */
  readonly arithmetic: string;
  /** Hosts for which this is the sum; none when no host has reported its underlay. */
  readonly hosts: readonly string[];
}

/** `1450 - 20 (outer IPv4 header) - 8 (UDP header) = …`, and the user's bound where it is smaller. */
export function arithmeticOf({ underlay, overhead, bound, mtu }: MtuSum): string {
  const left = overhead.reduce((rest, { bytes }) => rest - bytes, underlay);
  const sum = [String(underlay), ...overhead.map(({ what, bytes }) => `${bytes} (${what})`)].join(' - ');
  return `${sum} = ${left}${bound === undefined ? '' : `, bounded to ${mtu} by the network's own MTU`}`;
}

/** One sum per different arithmetic, each with the hosts it holds for; a stand-in of 1500 when no host has reported. */
export function sumsOf(network: Network, hosts: readonly Host[]): readonly Sum[] {
  const reported = hosts.filter(({ underlay }) => underlay.length > 0);
  const [any] = hosts;
  const entries = reported.map((host) => ({ host: host.name, sum: mtuSum(network, host) }));
  const groups = Map.groupBy(entries, ({ sum }) => arithmeticOf(sum));
  const sums = [...groups].flatMap(([arithmetic, [first, ...rest]]) =>
    first === undefined ? [] : [{ ...first.sum, arithmetic, hosts: [first, ...rest].map(({ host }) => host) }],
  );
  if (sums.length > 0) return sums;
  const sum = mtuSum(network, any ?? nobody);
  return [{ ...sum, arithmetic: arithmeticOf(sum), hosts: [] }];
}

/** Stands in while there is no host. */
const nobody: Host = {
  id: '',
  name: '',
  revision: 0,
  createdAt: '',
  labels: {},
  index: 1,
  generation: 0,
  underlay: [],
  agentVersion: '',
  status: { ready: false, seenAt: '', desired: 0, applied: 0, failing: [], features: {} },
};

const protocolNames: Readonly<Record<number, string>> = { 0: 'any', 1: 'ICMP', 4: 'IP in IP', 6: 'TCP', 17: 'UDP', 47: 'GRE', 50: 'ESP' };

const cost = ({ overhead, mtu }: MtuSum): string => {
  const bytes = overhead.reduce((sum, one) => sum + one.bytes, 0);
  if (bytes === 0) return 'nothing is added to a packet between hosts';
  return `${bytes} bytes per packet between hosts (${((bytes / (bytes + mtu)) * 100).toFixed(1)} % of a full one), nothing between containers of one host`;
};

/** The host whose kernel is explained: the one named, or this one when it runs an agent; with what its agent keeps there. */
async function placeOf(
  session: Session,
  { id }: Network,
  wanted: string | true | undefined,
): Promise<{ host?: string; held?: HeldObjects }> {
  const { agentSocket, hostname } = session.surroundings;
  const agent = agentSocket === undefined ? undefined : await agentView(agentSocket);
  const here = agent?.host ?? (wanted === true || agentSocket !== undefined ? hostname : undefined);
  const host = typeof wanted === 'string' ? wanted : here;
  const held = agentSocket === undefined || host !== agent?.host ? undefined : await heldObjects(agentSocket, id);
  return { ...(host === undefined ? {} : { host }), ...(held === undefined ? {} : { held }) };
}

function heldText(host: string, members: number, held: HeldObjects | undefined): string {
  if (members === 0) return `No container on ${host} is attached, so the host holds none of these now.\n`;
  const counts = Object.entries(held ?? {}).filter(([, items]) => items.length > 0);
  if (counts.length === 0) return '';
  return `The agent keeps for it: ${counts.map(([kind, items]) => `${kind} ${items.length}`).join(', ')} (all of them: --output json).\n`;
}

async function explainNetwork(session: Session, [name = '']: readonly string[], options: { host?: string | true }): Promise<Answer> {
  const client = await session.client();
  const found = await client.get('networks', name);
  const [hosts, endpoints, pools, blocks] = await Promise.all([
    all(client, 'hosts'),
    all(client, 'endpoints', { network: found.id }),
    all(client, 'pools', { network: found.id }),
    found.neutron === undefined ? [] : all(client, 'blocks', { network: found.id }),
  ]);
  const besides = new Set(pools.filter(({ fallback }) => fallback === true).map(({ id }) => id));
  const ports = portsOf(blocks.filter(({ pool }) => !besides.has(pool)));
  const choices = describeChoices(found.choices);
  const docker = found.choices.carry === 'docker';
  const sums = docker ? [] : sumsOf(found, hosts);
  const passages = passagesOf(found);
  const { host: here, held } = await placeOf(session, found, options.host);
  if (typeof options.host === 'string') await client.get('hosts', options.host);
  const mine = <T extends { readonly network: string }>(rows: readonly T[]): readonly T[] =>
    rows.filter(({ network }) => network === found.id);
  const families = new Set(
    [...mine(pools).map(({ cidr }) => cidr), ...mine(endpoints).flatMap(({ addresses }) => addresses)].map(familyOf),
  );
  const members = mine(endpoints).filter((endpoint) => endpoint.host === here);
  const { status, underlay } = hosts.find(({ id }) => id === here) ?? nobody;
  const uplinks = new Set(underlay.map((one) => one.interface));
  const objects = here === undefined ? [] : objectsOf(found, members, { features: status.features, uplinks, families });
  return {
    names: [found.name],
    data: {
      network: found,
      summary: models[found.model].summary,
      choices,
      mtu: sums,
      passages,
      ...(found.neutron === undefined ? {} : { ports }),
      ...(here === undefined ? {} : { host: here, objects, ...(held === undefined ? {} : { held }) }),
    },
    text: (look) =>
      [
        facts(look, [
          ['Network', `${found.name} (${found.id})`],
          ['Model', `${found.model}: ${models[found.model].summary}`],
          ['Encrypted', found.encrypted ? 'yes' : 'no'],
          ['Internal', found.internal ? 'yes: no way out, no published ports' : undefined],
        ]),
        section(
          look,
          'Choices',
          table(look, choices, [
            { title: 'CHOICE', value: ({ choice }) => choice },
            { title: 'VALUE', value: ({ value }) => value },
            { title: 'MEANING', value: ({ meaning }) => meaning },
          ]),
        ),
        section(look, 'Cost and MTU', docker ? "  Docker's own driver decides.\n" : sums.map((sum) => costText(sum)).join('')),
        section(
          look,
          'The underlay must let pass, between all hosts',
          table(
            look,
            passages,
            [
              { title: 'PROTOCOL', value: ({ protocol }) => (protocol === 0 ? 'any' : `${protocol} (${protocolNames[protocol] ?? '?'})`) },
              { title: 'PORT', value: ({ port }) => String(port ?? '') },
              { title: 'WHY', value: ({ why }) => why },
            ],
            'Nothing beyond what the hosts already exchange.',
          ),
        ),
        ...(found.neutron === undefined
          ? []
          : [section(look, "Containers' ports in Neutron", portsTable(look, ports) + elsewhereText(mine(pools), hosts))]),
        ...(here === undefined
          ? ['\nRun this on a host of the network, or add --host NAME, to see the kernel objects and the commands that show them.\n']
          : [
              section(
                look,
                `On host ${here}`,
                table(look, objects, [
                  { title: 'WHAT', value: ({ what }) => what },
                  { title: 'COMMAND (as root)', value: ({ command }) => command },
                ]),
              ),
              heldText(here, members.length, held),
            ]),
      ].join(''),
  };
}

/** Of the ports that a host has of the cloud for its containers. */
interface HostPorts {
  readonly host: string;
  readonly cidr: Cidr;
  /** Of its addresses, in their order; absent where they are pairs of the host's port. */
  readonly vlans?: { readonly first: number; readonly last: number };
  /** Addresses whose container has asked for security groups. */
  readonly grouped: readonly string[];
}

const portsOf = (blocks: readonly Block[]): HostPorts[] =>
  blocks
    .map(({ host, cidr, vlan, groups = {} }): HostPorts => {
      const grouped = Object.keys(groups);
      return vlan === undefined
        ? { host, cidr, grouped }
        : { host, cidr, grouped, vlans: { first: vlan, last: vlan + Number(cidrSize(cidr)) - 1 } };
    })
    .toSorted((a, b) => (`${a.host} ${a.cidr}` < `${b.host} ${b.cidr}` ? -1 : 1));

const portsTable = (look: Look, ports: readonly HostPorts[]): string =>
  table(
    look,
    ports,
    [
      { title: 'HOST', value: ({ host }) => host },
      { title: 'ADDRESSES', value: ({ cidr }) => cidr },
      {
        title: 'PORTS ARE',
        value: ({ vlans }) =>
          vlans === undefined ? "address pairs of the host's port" : `sub-ports of its trunk, VLANs ${vlans.first} to ${vlans.last}`,
      },
      { title: 'IN GROUPS OF THEIR CONTAINERS', value: ({ grouped }) => grouped.join(', ') },
    ],
    'None yet: a host has them made for its first container.',
  );

/** Of subnets that no host is in: what that means. */
function elsewhereText(pools: readonly Pool[], hosts: readonly Host[]): string {
  const known = hosts.filter(({ underlay }) => underlay.length > 0);
  return pools
    .filter((pool) => pool.fallback !== true && known.length > 0 && known.every((host) => isOutside(pool, host)))
    .map(({ cidr, gateway }) =>
      [
        `No host has an address of ${cidr}: only hosts whose port is the parent of a trunk can have containers of it. These reach`,
        `its members directly and ${gateway === undefined ? 'nothing else, as it has no gateway' : `everything else by ${gateway}, if that is a router's`}.`,
        'The host that a container is on reaches it directly, and other hosts do as everything else.\n',
      ].join(' '),
    )
    .join('');
}

const section = (look: Look, title: string, body: string): string => `\n${paint(look, 'bold', title)}\n${body}`;

function costText(sum: Sum): string {
  const where = sum.hosts.length === 0 ? 'no host has reported its underlay yet; with 1500' : sum.hosts.join(', ');
  return `  ${where}: ${cost(sum)}\n    MTU ${sum.mtu}: ${sum.arithmetic}\n`;
}

async function explainModels(): Promise<Answer> {
  const rows = Object.entries(models).map(([name, model]) => ({ name, ...model }));
  return {
    data: rows,
    names: rows.map(({ name }) => name),
    text: (look) =>
      rows
        .map(({ name, summary, choices, carries, frontEnds }) => {
          const others = carries.filter((one) => one !== choices.carry);
          const lines = describeChoices(choices).map(({ choice, value, meaning }): readonly [string, string] => [
            `  ${choice}`,
            `${value}: ${meaning}${choice === 'carry' && others.length > 0 ? ` (or ${others.join(', ')})` : ''}`,
          ]);
          return `${paint(look, 'bold', name)}  ${summary}\n${facts({ ...look, color: false }, [...lines, ['  used from', frontEnds.map((one) => frontEndTexts[one]).join(', ')]])}`;
        })
        .join('\n'),
  };
}

export const group: Group = {
  build(explain, act) {
    const one = explain
      .command('network')
      .argument('<name>', 'name or id')
      .description('What a network is made of, what it costs per packet, what the underlay must allow; on a host also its kernel objects.')
      .option('--host [name]', 'also the kernel objects on this host, without a name on this machine');
    completes(completes(one, 'networks'), 'hosts', '--host');
    act<{ host?: string | true }>(
      examples(one, 'causeway explain network web', 'causeway explain network web --host node-a'),
      explainNetwork,
    );
    act(
      examples(explain.command('models').description('The networking models and what they choose.'), 'causeway explain models'),
      explainModels,
    );
  },
};
