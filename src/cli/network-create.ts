// `causeway network create`: from options to a request, and what was made of it.
import type { Command } from 'commander';
import type { NetworkRequest, PoolRequest } from '#api/local.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, contains, covers, familyOf, type Ip, parseCidr, parseIp } from '#model/ip.ts';
import type { CarryName, ModelName } from '#model/resources.ts';
import { type Act, collect, completes, done, examples, integer, pairs } from './command.ts';
import { poolsOf } from './pool.ts';
import type { Answer, Session } from './session.ts';

const modelNames: readonly ModelName[] = ['overlay', 'flannel', 'calico', 'neutron', 'routes', 'swarm'];
const carryNames: readonly CarryName[] = ['vxlan', 'direct-routing', 'host-gateway', 'bgp', 'bgp-cross-subnet', 'routes', 'wireguard'];

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
  readonly neutronNetwork?: string;
  readonly neutronSubnet?: string;
  readonly neutronSubnet6?: string;
  readonly neutronSecurityGroup?: readonly string[];
  readonly fallback?: string;
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

/** Fault `invalid` for what is Neutron's without a network. */
function neutronOf({ neutronNetwork: network, ...options }: CreateOptions): Pick<NetworkRequest, 'neutron'> {
  const { neutronSubnet: subnet, neutronSubnet6: subnet6, neutronSecurityGroup: groups } = options;
  const subnets = { ...(subnet === undefined ? {} : { subnet }), ...(subnet6 === undefined ? {} : { subnet6 }) };
  const asked = options.fallback;
  const fallback = asked === undefined ? {} : { fallback: asked === 'overlay' ? ('overlay' as const) : parseCidr(asked, 'fallback') };
  const rest = { ...subnets, ...(groups === undefined ? {} : { groups }), ...fallback };
  if (network !== undefined) return { neutron: { network, ...rest } };
  if (Object.keys(rest).length === 0) return {};
  throw new Fault('invalid', 'A subnet, security groups or a fallback of Neutron without a network', {
    field: 'neutron-network',
    hint: 'Give --neutron-network too.',
  });
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
    ...neutronOf(options),
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

/** Adds the subcommand to `causeway network`. */
export function buildCreate(network: Command, act: Act): void {
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
    .option('--neutron-network <network>', "model neutron: the cloud's network in which every container gets a port, by name or id")
    .option('--neutron-subnet <subnet>', 'its subnet, where it has several of IPv4')
    .option('--neutron-subnet6 <subnet>', 'the same of IPv6; containers have both families then, as with --ipv6')
    .option('--neutron-security-group <group>', "of containers' own ports, where they are sub-ports of a trunk; repeatable", collect)
    .option('--fallback <overlay>', 'model neutron: start containers in an overlay while the cloud gives no ports; "overlay", or its range')
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
    'causeway network create ports --model neutron --neutron-network hosts',
    'causeway network create web --model neutron --neutron-network web --neutron-security-group web',
    'causeway network create web --model neutron --neutron-network hosts --fallback overlay',
  );
  act<CreateOptions>(made, create);
}
