// How often rules have met a packet, by the comment that says what each is for.
import { Fault } from '#model/fault.ts';
import { nftErrno, nftFault, runNft } from './libnftables.ts';

export interface RuleCount {
  readonly packets: number;
  readonly bytes: number;
}

const field = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? new Map<string, unknown>(Object.entries(value)).get(name) : undefined;
const listed = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** Pure: what `nft -j list table` prints, added up by comment. Rules without a counter or a comment are left out. */
export function readCounts(listing: string): ReadonlyMap<string, RuleCount> {
  const counts = new Map<string, RuleCount>();
  for (const object of listed(field(JSON.parse(listing), 'nftables'))) {
    const rule = field(object, 'rule');
    const comment = field(rule, 'comment');
    const counter = listed(field(rule, 'expr')).flatMap((one) => field(one, 'counter') ?? [])[0];
    if (typeof comment !== 'string' || counter === undefined) continue;
    const before = counts.get(comment) ?? { packets: 0, bytes: 0 };
    const [packets, bytes] = [Number(field(counter, 'packets')), Number(field(counter, 'bytes'))];
    counts.set(comment, { packets: before.packets + packets, bytes: before.bytes + bytes });
  }
  return counts;
}

/** Of a table of family inet in the caller's namespace; none where there is no such table. Fault `kernel`. */
export function ruleCounts(table: string): ReadonlyMap<string, RuleCount> {
  if (!/^\w+$/.test(table)) throw new Fault('invalid', `Not a table: ${table}`);
  const command = `list table inet ${table}`;
  const { output, error } = runNft(command, { format: 'json' });
  if (error === undefined) return readCounts(output);
  if (nftErrno(error) === 'ENOENT') return new Map();
  throw nftFault(command, error);
}
