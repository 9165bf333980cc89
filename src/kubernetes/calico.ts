// Calico's resources of addresses as their users write them (projectcalico.org/v3: api/pkg/apis/projectcalico/v3 of its source),
// read into our words; those of BGP are read by api/calico-bgp.ts. What a resource says that is not followed is named in
// docs/bgp.md; what cannot be read is refused with the field's name, and others are used all the same.
import * as v from 'valibot';
import { readSpec, selector } from '#api/calico-bgp.ts';
import * as field from '#api/fields.ts';
import { byAge } from '#model/age.ts';
import { Fault, isFault } from '#model/fault.ts';
import { bitsOf, type Cidr, cidrLength, familyOf, hostPrefix, overlaps } from '#model/ip.ts';
import type { Selector } from '#model/selector.ts';

const optional = <T>(schema: v.GenericSchema<unknown, T>) => v.optional(schema);
const pool = v.object({
  cidr: field.cidr,
  blockSize: optional(v.pipe(v.number(), v.integer(), v.minValue(20), v.maxValue(128))),
  vxlanMode: v.optional(v.picklist(['', 'Never', 'Always', 'CrossSubnet']), 'Never'),
  ipipMode: v.optional(v.picklist(['', 'Never', 'Always', 'CrossSubnet']), 'Never'),
  disabled: v.optional(v.boolean(), false),
  natOutgoing: v.optional(v.boolean(), false),
  disableBGPExport: v.optional(v.boolean(), false),
  nodeSelector: v.optional(selector, ''),
  namespaceSelector: v.optional(selector, ''),
  allowedUses: v.optional(v.array(v.string()), []),
  assignmentMode: v.optional(v.string(), 'Automatic'),
});

export interface IpPool {
  readonly name: string;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly cidr: Cidr;
  readonly blockLength: number;
  /** How packets go between hosts. */
  readonly carry: CalicoCarry;
  readonly announced: boolean;
  /** What leaves all pools has the host's address. */
  readonly masqueraded: boolean;
  /** For pods at all; and for those that do not ask for it by name. */
  readonly forPods: boolean;
  readonly automatic: boolean;
  readonly nodes: Selector;
  readonly namespaces: Selector;
}

const usualLength = { 4: 26, 6: 122 } as const;

/** Weakest first: with pools that say different things, all are carried as the last of them. */
export const calicoCarries = ['bgp', 'bgp-cross-subnet', 'vxlan'] as const;
export type CalicoCarry = (typeof calicoCarries)[number];

/** In place of IP-in-IP there is a tunnel between subnets. */
function carryOf(vxlanMode: string, ipipMode: string): CalicoCarry {
  if (vxlanMode === 'Always') return 'vxlan';
  return vxlanMode === 'CrossSubnet' || ipipMode === 'Always' || ipipMode === 'CrossSubnet' ? 'bgp-cross-subnet' : 'bgp';
}

/** `createdAt`: of the resource; by default before all others. Fault `invalid` with the field's name. */
export function readPool(name: string, spec: unknown, createdAt = '1970-01-01T00:00:00Z'): IpPool {
  const said = readSpec('IPPool', name, pool, spec);
  const family = familyOf(said.cidr);
  const blockLength = said.blockSize ?? usualLength[family];
  if (blockLength < cidrLength(said.cidr) || blockLength > bitsOf(family)) {
    throw new Fault(
      'invalid',
      `IPPool ${name}: spec.blockSize: ${blockLength} is not between ${cidrLength(said.cidr)} and ${bitsOf(family)}`,
      {
        field: 'spec.blockSize',
      },
    );
  }
  return {
    name,
    createdAt,
    cidr: said.cidr,
    blockLength,
    carry: carryOf(said.vxlanMode, said.ipipMode),
    announced: !said.disableBGPExport,
    masqueraded: said.natOutgoing,
    forPods: !said.disabled && (said.allowedUses.length === 0 || said.allowedUses.includes('Workload')),
    automatic: said.assignmentMode !== 'Manual',
    nodes: said.nodeSelector,
    namespaces: said.namespaceSelector,
  };
}

const specified = v.object({ spec: v.unknown(), metadata: v.object({ creationTimestamp: field.timestamp }) });

/** For who needs its range only: a selector that cannot be read closes nothing. Undefined: it cannot be read. */
export function ipPoolIn(name: string, item: unknown): IpPool | undefined {
  const read = v.safeParse(specified, item);
  if (!read.success) return undefined;
  const { spec, metadata } = read.output;
  try {
    return readPool(name, { ...Object(spec), nodeSelector: '', namespaceSelector: '' }, metadata.creationTimestamp);
  } catch (error) {
    if (!isFault(error)) throw error;
    return undefined;
  }
}

/**
 * By name of those that are for pods and overlap an older one that is: which one. Both would give the same addresses, so all hosts
 * leave the younger one alone; of what it has given before nothing is taken.
 */
export function overlappedPools(pools: Iterable<IpPool>): ReadonlyMap<string, IpPool> {
  const accepted: IpPool[] = [];
  const refused = new Map<string, IpPool>();
  for (const one of [...pools].filter(({ forPods }) => forPods).toSorted(byAge(({ name }) => name))) {
    const older = accepted.find(({ cidr }) => overlaps(cidr, one.cidr));
    if (older === undefined) accepted.push(one);
    else refused.set(one.name, older);
  }
  return refused;
}

const reservation = v.object({ reservedCIDRs: v.optional(v.array(v.union([field.cidr, v.pipe(field.ip, v.transform(hostPrefix))])), []) });
export const readReservation = (name: string, spec: unknown): readonly Cidr[] =>
  readSpec('IPReservation', name, reservation, spec).reservedCIDRs;

const ipam = v.object({
  strictAffinity: v.optional(v.boolean(), false),
  maxBlocksPerHost: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 0),
});
export interface IpamSettings {
  readonly strictAffinity: boolean;
  readonly maxBlocksPerHost: number;
}
export const readIpam = (name: string, spec: unknown): IpamSettings => readSpec('IPAMConfiguration', name, ipam, spec);
