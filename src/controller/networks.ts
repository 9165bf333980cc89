// Networks and their pools: creation in one commit with everything that must be unique, and removal that cannot be overtaken
// by a new endpoint.
import { choicesFor } from '#drivers/models.ts';
import { companionLength, companionRange } from '#drivers/companion.ts';
import { checkMtu } from '#drivers/mtu.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, familyOf } from '#model/ip.ts';
import { portRange } from '#model/numbers.ts';
import type { Network, Pool } from '#model/resources.ts';
import type { Operation } from '#store/store.ts';
import type { NetworkRequest, PoolRequest } from '#api/local.ts';
import { callFor, mustOwn, type Principal, tenantFor } from './access.ts';
import { placeInCloud, type PlacedPool } from './neutron.ts';
import { commitAll, type Control, operationLimit, transact } from './control.ts';
import { find } from './find.ts';
import { checkMatch, checkUnchanged, renaming } from './replace.ts';
import { keys, listResources, putResource, readResource } from './records.ts';
import {
  blockLengthFor,
  checkFree,
  checkPool,
  chooseSubnet,
  chosenLength,
  isShared,
  occupied,
  poolsAsTaken,
  type Taken,
} from './subnets.ts';

const firstVni = 4096;
const lastVni = 0xffffff;

/** Whoever adds a pool writes this record, so that two who choose at the same time cannot both win. */
const poolGuard = keys.guard('pools');

interface Surroundings {
  readonly fixed: readonly Taken[];
  readonly pools: readonly Pool[];
  readonly networks: ReadonlyMap<string, Network>;
  /** For messages to the asker. */
  readonly call: (network: Network | undefined) => string;
  /** Revision of the guard that all of this was read after. */
  readonly guard: number;
}

async function survey(control: Control, principal: Principal): Promise<Surroundings> {
  const guard = (await control.store.get(poolGuard))?.revision ?? 0;
  const [pools, networks] = [await listResources(control.store, 'pools'), await listResources(control.store, 'networks')];
  const call = (network: Network | undefined): string => callFor(control, principal, network);
  return { fixed: occupied(control), pools, networks: new Map(networks.map((one) => [one.id, one])), call, guard };
}

const guardOperation = ({ guard }: Surroundings): Operation => ({ type: 'put', key: poolGuard, value: null, expect: guard });

interface PoolPlan {
  readonly network: Network;
  readonly own: readonly Pool[];
  readonly surroundings: Surroundings;
}

/** What a pool of this network must keep clear of. Networks on one subnet of the cloud have a range of it each. */
function conflicting({ network, own, surroundings }: PoolPlan): { fixed: readonly Taken[]; pools: readonly Taken[] } {
  const call = (id: string): string => surroundings.call(id === network.id ? network : surroundings.networks.get(id));
  const shared = surroundings.pools.filter((pool) => {
    const other = surroundings.networks.get(pool.network);
    return other !== undefined && isShared(other.choices);
  });
  const others = isShared(network.choices) ? shared : [];
  // Docker's own networks are not routed by us: only they themselves must be free of overlap.
  const fixed =
    network.choices.domain === 'docker' ? [] : surroundings.fixed.filter(({ isBridge }) => isBridge !== true || isShared(network.choices));
  const inSubnet = ({ network: id, cidr, range, fallback }: Pool): Cidr => {
    const isBeside = surroundings.networks.get(id)?.neutron?.network === network.neutron?.network;
    return network.neutron !== undefined && fallback !== true && isBeside ? (range ?? cidr) : cidr;
  };
  return {
    fixed,
    pools: poolsAsTaken(
      [...others, ...own].map((pool) => ({ ...pool, cidr: inSubnet(pool) })),
      call,
    ),
  };
}

const rangeOf = ({ range, fallback }: Pick<PlacedPool, 'range' | 'fallback'>, cidr: Cidr): Pick<Pool, 'range' | 'fallback'> => ({
  ...(range === undefined ? {} : { range }),
  ...(fallback === undefined ? {} : { range: companionRange(cidr), fallback }),
});

function planPool(
  control: Control,
  request: Omit<PlacedPool, 'family'> & { family?: PoolRequest['family'] },
  plan: PoolPlan,
  at: string,
): Pool {
  const { network, own, surroundings } = plan;
  const family = request.family ?? (request.cidr === undefined ? 4 : familyOf(request.cidr));
  if (request.cidr !== undefined && familyOf(request.cidr) !== family) {
    throw new Fault('invalid', `${request.cidr} is not of family IPv${family}`, { field: `${at}cidr` });
  }
  const all = [...surroundings.fixed, ...surroundings.pools, ...own];
  const { fallback } = request;
  const cidr = request.cidr ?? chooseSubnet(family, fallback ? companionLength[family] : chosenLength(network.choices, family), all);
  const pool: Pool = {
    id: request.id ?? control.newId(),
    name: `${network.name.slice(0, 55)}-${own.length + 1}`,
    revision: 0,
    createdAt: network.createdAt,
    labels: {},
    network: network.id,
    cidr,
    ...rangeOf(request, cidr),
    ...(request.gateway === undefined ? {} : { gateway: request.gateway }),
    reserved: request.reserved ?? {},
    blockLength: blockLengthFor(network, cidr, rangeOf(request, cidr).range),
  };
  checkPool(pool, at);
  const { fixed, pools } = conflicting(plan);
  // The network lies on the hosts' own subnet then.
  const isTheirs = ({ cidr: other }: Taken): boolean => network.neutron !== undefined && other === cidr;
  const whole = network.neutron === undefined || fallback ? cidr : (pool.range ?? cidr);
  checkFree(whole, [...fixed.filter((one) => !isTheirs(one)), ...pools], `${at}${whole === cidr ? 'cidr' : 'range'}`);
  return pool;
}

/** Networks of which each needs a port of its own on every host: for WireGuard, or for its name server (numbers.ts, guard.ts). */
const needsPort = ({ carry, domain }: Network['choices']): boolean => carry === 'wireguard' || domain === 'host';

async function chooseVni(
  control: Control,
  surroundings: Surroundings,
  { asked, choices }: { asked?: number | undefined; choices: Network['choices'] },
): Promise<number> {
  const networks = [...surroundings.networks.values()];
  const ports = new Map(networks.filter((one) => needsPort(one.choices)).map((one) => [one.vni % portRange, one]));
  const clash = (vni: number): Network | undefined => (needsPort(choices) ? ports.get(vni % portRange) : undefined);
  if (asked !== undefined) {
    const hint = 'Leave it out to have one chosen';
    if ((await control.store.get(keys.vni(asked))) !== undefined) {
      throw new Fault('exists', `VNI ${asked} is used by another network`, { field: 'vni', hint });
    }
    const other = clash(asked);
    if (other !== undefined)
      throw new Fault('exists', `VNI ${asked} would need the same UDP port as ${surroundings.call(other)}`, { field: 'vni', hint });
    return asked;
  }
  const used = new Set(networks.map(({ vni }) => vni));
  for (let vni = firstVni; vni <= lastVni; vni++) if (!used.has(vni) && clash(vni) === undefined) return vni;
  throw new Fault('exhausted', 'No VNI is left');
}

function checkRequest(request: Pick<NetworkRequest, 'mtu'>, pools: readonly Pool[]): void {
  if (request.mtu !== undefined && request.mtu < 1280 && pools.some(({ cidr }) => familyOf(cidr) === 6)) {
    throw new Fault('invalid', 'IPv6 needs an MTU of at least 1280', { field: 'mtu' });
  }
  const ids = pools.map(({ id }) => id);
  const twice = ids.findIndex((id, index) => ids.indexOf(id) !== index);
  if (twice >= 0) throw new Fault('invalid', 'Two pools have one id', { field: `pools[${twice}].id` });
}

/** Of a network of Docker's own driver: Fault `invalid` for what that decides by itself, or cannot do in a Swarm. */
function checkDockers({ pools = [], ...request }: NetworkRequest): void {
  const field = (['vni', 'blockLength4', 'blockLength6'] as const).find((one) => request[one] !== undefined);
  const reserving = pools.findIndex(({ reserved = {} }) => Object.keys(reserved).length > 0);
  if (field !== undefined)
    throw new Fault('invalid', "A network of Docker's own driver has what Docker chooses", { field, hint: 'Leave it out' });
  if (reserving >= 0)
    throw new Fault('invalid', 'A Swarm reserves no addresses', {
      field: `pools[${reserving}].reserved`,
      hint: 'Leave them out, or give a range beside them: --ip-range',
    });
}

async function mustBeNewPool(control: Control, { id }: PoolRequest, at: string): Promise<void> {
  if (id !== undefined && (await control.store.get(keys.resource('pools', id))) !== undefined) {
    throw new Fault('exists', `Pool ${id} exists`, { field: `${at}id` });
  }
}

/** Faults: `exists` (name, VNI, pool id), `overlap`, `invalid`, `exhausted`, `not-found` (tenant), `forbidden` (tenant), and as placeInCloud. */
export async function createNetwork(control: Control, principal: Principal, request: NetworkRequest): Promise<Network> {
  const model = request.model ?? 'overlay';
  const choices = choicesFor(model, {
    carry: request.carry,
    encrypted: request.encrypted,
    blockLength4: request.blockLength4,
    blockLength6: request.blockLength6,
  });
  const tenant = tenantFor(principal, request.tenant);
  if (choices.domain === 'docker') checkDockers(request);
  const inCloud = await placeInCloud(control, request);
  return control.serially('pools', () =>
    transact(control, async () => {
      const surroundings = await survey(control, principal);
      const tenantEntry = await control.store.get(keys.resource('tenants', tenant));
      if (tenantEntry === undefined)
        throw new Fault('not-found', `No tenant ${tenant}`, { field: 'tenant', hint: 'List them: causeway tenant ls' });
      if ((await control.store.get(keys.name('networks', request.name))) !== undefined) {
        throw new Fault('exists', `A network named ${request.name} exists`, { field: 'name', hint: 'Choose another name' });
      }
      const network: Network = {
        id: control.newId(),
        name: request.name,
        revision: 0,
        createdAt: control.now().toISOString(),
        labels: request.labels ?? {},
        model,
        tenant,
        choices,
        encrypted: choices.carry === 'wireguard' || request.encrypted === true,
        internal: request.internal ?? false,
        vni: await chooseVni(control, surroundings, { asked: request.vni, choices }),
        ...(request.mtu === undefined ? {} : { mtu: request.mtu }),
        attachable: request.attachable ?? false,
        addressing: request.addressing ?? (choices.domain === 'docker' ? 'external' : 'blocks'),
        ...(inCloud.place === undefined ? {} : { neutron: inCloud.place }),
      };
      const asked = inCloud.pools ?? request.pools ?? [{ family: 4 } as const];
      const pools: Pool[] = [];
      for (const [index, one] of asked.entries()) {
        await mustBeNewPool(control, one, `pools[${index}].`);
        pools.push(planPool(control, one, { network, own: pools, surroundings }, `pools[${index}].`));
      }
      checkRequest(request, pools);
      const hasIpv6 = pools.some(({ cidr }) => familyOf(cidr) === 6);
      for (const host of control.mirror.all('hosts').values()) checkMtu(network, host, hasIpv6);
      return {
        operations: [
          guardOperation(surroundings),
          { type: 'check', key: tenantEntry.key, expect: tenantEntry.revision },
          putResource('networks', network, 0),
          { type: 'put', key: keys.name('networks', network.name), value: network.id, expect: 0 },
          { type: 'put', key: keys.vni(network.vni), value: network.id, expect: 0 },
          ...pools.map((pool) => putResource('pools', pool, 0)),
        ],
        answer: (revision) => ({ ...network, revision }),
      };
    }),
  );
}

/**
 * Name, labels, mtu and attachable may change, of a network of Docker's own driver only labels. Faults: `invalid` naming anything
 * else that differs, `conflict`, `exists`.
 */
export function replaceNetwork(control: Control, principal: Principal, wanted: Network, match: number | undefined): Promise<Network> {
  return transact(control, async () => {
    const found = await find(control, principal, 'networks', wanted.id);
    checkMatch(found, match);
    const { mtu: _, ...rest } = found;
    const { name, attachable, mtu } = found.choices.domain === 'docker' ? found : wanted;
    const next: Network = { ...rest, name, labels: wanted.labels, attachable, ...(mtu === undefined ? {} : { mtu }) };
    checkUnchanged('networks', wanted, next);
    const renames = await renaming(control, 'networks', found, next);
    return {
      operations: [putResource('networks', next, found.revision), ...renames],
      answer: (revision) => ({ ...next, revision }),
    };
  });
}

/**
 * Marks the network as deleted, which new endpoints and claims check in their commits, looks whether one came before that,
 * and removes everything. Interrupted half-way it stays marked, and the sweep or the next call finishes. Fault `in-use`.
 */
export async function deleteNetwork(control: Control, principal: Principal, idOrName: string, match?: number): Promise<void> {
  const found = await find(control, principal, 'networks', idOrName);
  mustOwn(control, principal, 'networks', found);
  checkMatch(found, match);
  mustBeEmpty(control, found);
  const marked = await mark(control, found.id, { deletedAt: control.now().toISOString(), match });
  await control.mirror.reached(marked.revision);
  try {
    mustBeEmpty(control, marked);
  } catch (error) {
    await mark(control, found.id, {});
    throw error;
  }
  await removeNetwork(control, marked);
}

interface Mark {
  /** Absent: it is not to be deleted after all. */
  readonly deletedAt?: string;
  readonly match?: number | undefined;
}

function mark(control: Control, id: string, { deletedAt, match }: Mark): Promise<Network> {
  return transact(control, async () => {
    const found = await readResource(control.store, 'networks', id);
    if (found === undefined) throw new Fault('not-found', `No network ${id}`);
    checkMatch(found, match);
    const { deletedAt: _, ...rest } = found;
    const next: Network = deletedAt === undefined ? rest : { ...rest, deletedAt };
    return { operations: [putResource('networks', next, found.revision)], answer: (revision) => ({ ...next, revision }) };
  });
}

function mustBeEmpty(control: Control, network: Network): void {
  const left = [...control.contents.of(network.id, 'endpoints').values()].filter(
    ({ host }) => control.mirror.get('hosts', host) !== undefined,
  );
  const [first] = left;
  if (first === undefined) return;
  throw new Fault(
    'in-use',
    `Network ${network.name} has ${left.length} endpoints, for example ${first.name || first.id} on host ${first.host}`,
    {
      hint: 'Stop or disconnect the containers first',
    },
  );
}

/** Of a network that is marked and empty. Its own records go last, so an interrupted removal can be found and finished. */
export async function removeNetwork(control: Control, network: Network): Promise<void> {
  const { contents, store } = control;
  const dependents: Operation[] = [];
  for (const exposure of contents.of(network.id, 'exposures').values()) {
    dependents.push(
      { type: 'delete', key: keys.resource('exposures', exposure.id) },
      { type: 'delete', key: keys.name('exposures', exposure.name) },
    );
  }
  for (const endpoint of contents.of(network.id, 'endpoints').values()) {
    dependents.push({ type: 'delete', key: keys.resource('endpoints', endpoint.id) });
    for (const ip of endpoint.addresses) dependents.push({ type: 'delete', key: keys.address(network.id, ip) });
  }
  for (const block of contents.of(network.id, 'blocks').values()) {
    dependents.push(
      { type: 'delete', key: keys.resource('blocks', block.id) },
      { type: 'delete', key: keys.claim(block.pool, block.cidr) },
    );
  }
  const last: Operation[] = [
    ...[...contents.of(network.id, 'pools').values()].map(({ id }): Operation => ({ type: 'delete', key: keys.resource('pools', id) })),
    { type: 'delete', key: keys.resource('networks', network.id) },
    { type: 'delete', key: keys.name('networks', network.name) },
    { type: 'delete', key: keys.vni(network.vni) },
  ];
  // In one commit where it fits.
  if (dependents.length + last.length <= operationLimit) return void (await store.commit([...dependents, ...last]));
  await commitAll(store, dependents);
  await store.commit(last);
}

/** Adds a pool. Faults as for createNetwork. */
export function addPool(
  control: Control,
  principal: Principal,
  request: Omit<PoolRequest, 'family'> & { network: string; family?: PoolRequest['family']; labels?: Pool['labels'] },
): Promise<Pool> {
  return control.serially('pools', () =>
    transact(control, async () => {
      const network = await find(control, principal, 'networks', request.network);
      if (network.neutron !== undefined)
        throw new Fault('invalid', `Network ${network.name} has the addresses of its subnet in Neutron and no others`, {
          field: 'network',
        });
      if (network.choices.domain === 'docker')
        throw new Fault('invalid', `Network ${network.name} is of Docker's own driver, which takes no further ranges`, {
          field: 'network',
        });
      if (network.deletedAt !== undefined) throw new Fault('not-found', `Network ${network.name} is being deleted`);
      const surroundings = await survey(control, principal);
      const { network: _, labels, ...wanted } = request;
      await mustBeNewPool(control, { family: 4, ...wanted }, '');
      const own = surroundings.pools.filter((pool) => pool.network === network.id);
      const planned = planPool(control, wanted, { network, own, surroundings }, '');
      const pool: Pool = { ...planned, createdAt: control.now().toISOString(), labels: labels ?? {} };
      checkRequest(network, [pool]);
      return {
        operations: [
          guardOperation(surroundings),
          { type: 'check', key: keys.resource('networks', network.id), expect: network.revision },
          putResource('pools', pool, 0),
        ],
        answer: (revision) => ({ ...pool, revision }),
      };
    }),
  );
}
