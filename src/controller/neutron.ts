// Networks whose containers have Neutron ports of their own: what the controller asks of whoever speaks with the cloud (src/cloud, put
// together with this by src/bin where there is a cloud to keep). Each host's block of addresses is a pool of ports that are made, and
// allowed on the host's port, before the host hears of the block: so containers come and go without a call to Neutron.
import type { NetworkRequest, NeutronRequest, PoolRequest } from '#api/local.ts';
import type { PortGroupsRequest } from '#api/requests.ts';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, cidrLength, cidrOf, contains, covers, type Family, familyOf, type Ip, subnetAt } from '#model/ip.ts';
import type { Block, FoundPlace, FoundSubnet, Network, NeutronPlace, Pool } from '#model/resources.ts';
import { companionHint, companionRanges } from '#drivers/companion.ts';
import type { Control, Decision } from './control.ts';

/** Faults of all: as Neutron's. */
export interface PortPools {
  /** Faults: `not-found`, `invalid` (no name of one thing, or not one subnet of a family). */
  find(asked: NeutronRequest, families: readonly Family[]): Promise<FoundPlace>;
  /** Addresses of the subnets that ports of others have. */
  occupied(place: NeutronPlace): Promise<readonly Ip[]>;
  /**
   * Has the block's ports made and allowed, then does `commit` with the block, which has VLANs now where ports are sub-ports; they go
   * again when that fails. Faults: `exists`, `exhausted`, `unsupported`.
   */
  hold<T>(block: Block, commit: (block: Block) => Promise<T>): Promise<T>;
  /**
   * Puts the port of one of the block's addresses into groups, or without any into those of the network, then does `commit` with the
   * groups' ids; when that fails, the port is put back. Faults: `not-found` (no such group), `invalid` (several have the name),
   * `unsupported` where the port is no sub-port, and so in its host's groups.
   */
  regroup<T>(block: Block, wanted: PortGroupsRequest, commit: (groups: readonly string[] | undefined) => Promise<T>): Promise<T>;
}

/** Fault `unsupported` where no cloud is kept. */
export function portPools({ cloud }: Pick<Control, 'cloud'>): PortPools {
  if (cloud.ports !== undefined) return cloud.ports;
  throw new Fault('unsupported', 'Networks of the model neutron need a controller that keeps the cloud', {
    field: 'model',
    hint: 'Start the controller with --cloud, as docs/openstack.md says',
  });
}

export type PlacedPool = PoolRequest & Pick<Pool, 'fallback'>;

/** The half of the subnet where instances are not usually given addresses first. */
const upperHalf = (cidr: Cidr): Cidr => subnetAt(cidr, cidrLength(cidr) + 1, 1n) ?? cidr;

/** Where the network lies, and the pool that this makes. Faults: `invalid`, and as PortPools.find. */
export async function placeInCloud(
  control: Control,
  request: NetworkRequest,
): Promise<{ readonly place?: NeutronPlace; readonly pools?: readonly PlacedPool[] }> {
  if (request.model !== 'neutron') {
    if (request.neutron === undefined) return {};
    throw new Fault('invalid', 'A Neutron network is for the model neutron', { field: 'neutron', hint: 'Add --model neutron' });
  }
  if (request.neutron === undefined) {
    const hint = 'Name it: --neutron-network, with Docker -o neutron.network=NAME';
    throw new Fault('invalid', 'The model neutron needs a network of the cloud', { field: 'neutron', hint });
  }
  const asked = request.pools ?? [];
  const families = familiesIn(request.neutron, asked);
  const { place, subnets } = await portPools(control).find(request.neutron, families);
  const pools = subnets.map((subnet) => poolIn(subnet, asked));
  const { fallback } = request.neutron;
  if (fallback === undefined) return { place, pools };
  return { place: { ...place, fallback: true }, pools: [...pools, ...besides(fallback, families)] };
}

/** IPv6 alone where nothing but that is asked for. */
function familiesIn({ subnet, subnet6 }: NeutronRequest, asked: readonly PoolRequest[]): readonly Family[] {
  const has = (wanted: Family): boolean => asked.some(({ family }) => family === wanted);
  if (subnet === undefined && has(6) && !has(4)) return [6];
  return subnet6 !== undefined || has(6) ? [4, 6] : [4];
}

/** The pools of containers without a port. Their upper halves are for hosts' own addresses in them (drivers/companion.ts). */
function besides(asked: 'overlay' | Cidr, families: readonly Family[]): PlacedPool[] {
  const ranges = companionRanges(asked, families);
  if (ranges === undefined)
    throw new Fault('invalid', `${asked} cannot be what containers without a port of the cloud get`, {
      field: 'neutron.fallback',
      hint: `Use ${companionHint(families)}`,
    });
  return [...ranges].map(([family, cidr]) => ({ family, fallback: true, ...(cidr === undefined ? {} : { cidr }) }));
}

/** Fault `invalid` for what is asked of addresses that the subnet does not have. */
function poolIn({ cidr, gateway }: FoundSubnet, all: readonly PoolRequest[]): PoolRequest {
  const family = familyOf(cidr);
  const [asked, ...more] = all.filter((one) => one.family === family);
  if (more.length > 0 || (asked?.cidr !== undefined && asked.cidr !== cidr) || (asked?.range !== undefined && !covers(cidr, asked.range))) {
    throw new Fault('invalid', `The network's addresses are those of its subnet in Neutron, ${cidr}`, {
      field: 'pools',
      hint: `Use --subnet ${cidr}, and --ip-range for the part that containers get`,
    });
  }
  return { ...asked, cidr, family, range: asked?.range ?? upperHalf(cidr), ...(gateway === undefined ? {} : { gateway }) };
}

/** Blocks of a pool in the cloud in which somebody else has an address already. */
export async function occupiedBlocks(control: Control, { neutron }: Network, { cidr, blockLength }: Pool): Promise<ReadonlySet<Cidr>> {
  if (neutron === undefined) return new Set();
  const occupied = await portPools(control).occupied(neutron);
  return new Set(occupied.filter((ip) => contains(cidr, ip)).map((ip) => cidrOf(ip, blockLength)));
}

const mostTries = 8;

interface Holding {
  readonly choose: (refused: ReadonlySet<Cidr>) => Promise<Decision<Block>>;
  readonly commit: (block: Block) => Promise<Block>;
}

/** Chooses another block each time that somebody was faster with one of its addresses. A block that is held already is the answer. */
export async function holdOne(control: Control, { choose, commit }: Holding): Promise<Block> {
  const refused = new Set<Cidr>();
  for (let attempt = 1; ; attempt++) {
    const { operations, answer } = await choose(refused);
    const block = answer(0);
    if (operations.length === 0) return block;
    try {
      return await portPools(control).hold(block, commit);
    } catch (error) {
      if (!isFault(error, 'exists') || attempt === mostTries) throw error;
      refused.add(block.cidr);
    }
  }
}
