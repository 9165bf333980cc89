// What is wrong with an IPPool beside other pools and the blocks that there are of it. Both are as agents find them, who follow what can be
// followed without a pod losing its address. Pure.
import { covers } from '#model/ip.ts';
import type { Block } from '#model/resources.ts';
import { firstOf } from '#model/words.ts';
import { asClaimed, poolId } from './blocks.ts';
import { type IpPool, overlappedPools } from './calico.ts';
import type { Problem } from './policy-parts.ts';

export type Claimed = Pick<Block, 'pool' | 'cidr'>;

/** `pools`: all that can be read. */
export function poolProblems(name: string, pools: readonly IpPool[], blocks: readonly Claimed[]): Problem[] {
  const problems: Problem[] = [];
  const older = overlappedPools(pools).get(name);
  if (older !== undefined) {
    const message = `overlaps ${older.cidr} of IPPool ${older.name}, which is older; no pod gets an address of it`;
    problems.push({ field: 'spec.cidr', reason: 'Invalid', message });
  }
  const pool = pools.find((one) => one.name === name);
  return pool === undefined ? problems : [...problems, ...changes(pool, blocks)];
}

/** Since blocks of it were claimed. */
function changes({ name, cidr, blockLength }: IpPool, blocks: readonly Claimed[]): Problem[] {
  const own = blocks.filter(({ pool }) => pool === poolId(name));
  const outside = own.filter((block) => !covers(cidr, block.cidr));
  const claimed = asClaimed({ id: poolId(name), cidr, blockLength }, own);
  const problems: Problem[] = [];
  if (outside.length > 0) {
    const cidrs = outside.map((block) => block.cidr);
    const message = `nodes have blocks outside of it, ${firstOf(cidrs, 3)}; pods keep their addresses of these, and no other gets one`;
    problems.push({ field: 'spec.cidr', reason: 'Unsupported', message });
  }
  if (claimed.blockLength !== blockLength) {
    const message = `nodes have blocks /${claimed.blockLength} of it; others are as large as long as there are any`;
    problems.push({ field: 'spec.blockSize', reason: 'Unsupported', message });
  }
  return problems;
}
