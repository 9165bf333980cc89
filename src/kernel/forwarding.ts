// dockerd sets the policy of iptables' FORWARD chain to DROP, which would drop what our links forward in the host's
// namespace as well; what may pass them is decided by our own nft table. So where there is such a policy our links are let
// through: in DOCKER-USER, which Docker keeps for this purpose and leaves alone, and last in FORWARD: dockerd
// (26 with each network that it makes) takes the jump to DOCKER-USER away and puts it first again (moby, libnetwork/iptables, EnsureJumpRule), by two
// programs, and what came in between would meet the policy. Without Docker, first in FORWARD. From 29 on dockerd may speak
// nftables itself ("firewall-backend"); then the policy is that of a chain of its own tables, which has no such place: our rules go
// first in it. All of it happens in the namespace of the process. Rules are told to be ours by their comment.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { linkPrefix } from '#model/numbers.ts';
import { kernelFault } from './libc.ts';
import { nftErrno, nftFault, runNft } from './libnftables.ts';
import { isObject, parseListing } from './nft-listing.ts';

const programs = ['iptables', 'ip6tables'] as const;
const [forwardChain, usersChain] = ['FORWARD', 'DOCKER-USER'];
/** dockerd's own (moby, libnetwork/drivers/bridge/internal/nftabler). */
const [dockersTable, dockersChain] = ['docker-bridges', 'filter-FORWARD'];
/** Chains, by their table, in which others say what the host forwards: those of iptables, and dockerd's own. */
export const forwardingChains: ReadonlyMap<string, readonly string[]> = new Map([
  ['filter', [forwardChain, usersChain]],
  [dockersTable, [dockersChain]],
]);
const comment = 'causeway';
const matches = [`-i ${linkPrefix}+`, `-o ${linkPrefix}+`] as const;
/** Hosts may have a hundred thousand rules. */
const options = { encoding: 'utf8', env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }, maxBuffer: Number.POSITIVE_INFINITY } as const;

export interface ForwardingRule {
  readonly program: (typeof programs)[number] | 'nft';
  /** Of nft with family and table. */
  readonly chain: string;
  /** As iptables-save(8) or nft(8) spell it, without the chain. */
  readonly rule: string;
  /** Of the chain's rules; otherwise the first. */
  readonly isLast?: boolean;
}

/** The command that makes it. */
export const commandOf = ({ program, chain, rule, isLast = false }: ForwardingRule): string =>
  program === 'nft' ? `nft insert rule ${chain} ${rule}` : `${program} ${isLast ? '-A' : '-I'} ${chain} ${rule}`;

type Place = Pick<ForwardingRule, 'chain' | 'isLast'>;

interface Chains {
  /** Where rules of ours belong; none when nothing stops our links. */
  readonly places: readonly Place[];
  readonly rules: readonly { readonly chain: string; readonly rule: string }[];
}

const besideDocker: readonly Place[] = [{ chain: usersChain }, { chain: forwardChain, isLast: true }];

/** Reads `iptables -S`. Pure. */
export function readChains(listing: string): Chains {
  const lines = listing.split('\n');
  const isDropping = lines.includes(`-P ${forwardChain} DROP`);
  const isDocker = lines.includes(`-A ${forwardChain} -j ${usersChain}`);
  const rules = lines.flatMap((line) => {
    const [, chain, rule] = /^-A (\S+) (.*)$/.exec(line) ?? [];
    return chain !== undefined && rule !== undefined && /--comment (?:causeway|"causeway") /.test(`${rule} `) ? [{ chain, rule }] : [];
  });
  return { places: isDropping && isDocker ? besideDocker : isDropping ? [{ chain: forwardChain }] : [], rules };
}

const ruleOf = (match: string): string => `${match} -m comment --comment ${comment} -j ACCEPT`;

type Program = (typeof programs)[number];

function run(program: Program, words: readonly string[]): string | undefined {
  const { status, stdout, error } = spawnSync(program, ['-w', ...words], { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  return error === undefined && status === 0 ? stdout : undefined;
}

// Without the program, or without its table in this kernel, nothing of the sort can stop our links.
const look = (program: Program): Chains => readChains(run(program, ['-S']) ?? '');

function change(program: Program, words: readonly string[]): void {
  if (run(program, words) === undefined) throw kernelFault(`run ${program} ${words.join(' ')}`, 'EINVAL');
}

/** Whether rules are kept in the kernel's older form (x_tables), of whose changes the kernel tells nobody. */
export const hasSilentTables = (): boolean =>
  ['/proc/net/ip_tables_names', '/proc/net/ip6_tables_names'].some((path) => {
    try {
      return readFileSync(path, 'utf8').includes('filter');
    } catch {
      return false;
    }
  });

/** Chains of iptables by which something of what comes in may be dropped, as `iptables INPUT`. */
export const inputPrograms = (): string[] =>
  programs.flatMap((program) =>
    (run(program, ['-S', 'INPUT']) ?? '').trim().replace('-P INPUT ACCEPT', '') === '' ? [] : [`${program} INPUT`],
  );

const nftChains = ['ip', 'ip6'].map((family) => `${family} ${dockersTable} ${dockersChain}`);
const nftRules: Readonly<Record<string, string>> = Object.fromEntries(
  ['iifname', 'oifname'].map((key) => [key, `${key} "${linkPrefix}*" accept comment "${comment}"`]),
);

interface NftChain {
  readonly isDropping: boolean;
  readonly rules: readonly { readonly key: string; readonly handle: number }[];
}

/** Undefined where there is none. */
function lookAtNft(chain: string): NftChain | undefined {
  const { output, error } = runNft(`list chain ${chain}`, { format: 'json' });
  if (error !== undefined) {
    if (nftErrno(error) === 'ENOENT') return undefined;
    throw nftFault(`list chain ${chain}`, error);
  }
  const objects = parseListing(output);
  return {
    isDropping: objects.some(({ chain: found }) => isObject(found) && found['policy'] === 'drop'),
    rules: objects.flatMap(({ rule }) => {
      if (!isObject(rule) || rule['comment'] !== comment) return [];
      return [{ key: JSON.stringify(rule['expr']).includes('iifname') ? 'iifname' : 'oifname', handle: Number(rule['handle']) }];
    }),
  };
}

function changeNft(command: string): void {
  const { error } = runNft(command);
  if (error !== undefined) throw nftFault(command, error);
}

function ensureNft(): ForwardingRule[] {
  return nftChains.flatMap((chain) => {
    const found = lookAtNft(chain);
    if (found?.isDropping !== true) return [];
    const missing = Object.keys(nftRules).filter((key) => !found.rules.some((rule) => rule.key === key));
    for (const key of missing) changeNft(`insert rule ${chain} ${nftRules[key]}`);
    return missing.map((key) => ({ program: 'nft' as const, chain, rule: nftRules[key] ?? '' }));
  });
}

/** Our rules that are there. One run of iptables per family, about 4 ms each. */
export const listForwarding = (): ForwardingRule[] => [
  ...programs.flatMap((program) => look(program).rules.map((rule) => ({ program, ...rule }))),
  ...nftChains.flatMap((chain) =>
    (lookAtNft(chain)?.rules ?? []).map(({ key }) => ({ program: 'nft' as const, chain, rule: nftRules[key] ?? '' })),
  ),
];

/** Lets our links through where a policy would stop them; the rules that were missing. Fault `kernel`. */
export function ensureForwarding(): ForwardingRule[] {
  const added = programs.flatMap((program) => {
    const { places, rules } = look(program);
    const there = new Set(rules.map(({ chain, rule }) => `${chain} ${rule.replaceAll('"', '')}`));
    const missing = places.flatMap((place) =>
      matches.flatMap((match): ForwardingRule[] => {
        const rule = ruleOf(match);
        return there.has(`${place.chain} ${rule}`) ? [] : [{ program, ...place, rule }];
      }),
    );
    for (const one of missing) change(program, commandOf(one).split(' ').slice(1));
    return missing;
  });
  return [...added, ...ensureNft()];
}

/** Takes our rules away again, wherever they are. Fault `kernel`. */
export function removeForwarding(): void {
  for (const program of programs)
    for (const { chain, rule } of look(program).rules) change(program, ['-D', chain, ...rule.replaceAll('"', '').split(' ')]);
  for (const chain of nftChains) for (const { handle } of lookAtNft(chain)?.rules ?? []) changeNft(`delete rule ${chain} handle ${handle}`);
}
