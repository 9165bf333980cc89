// dockerd sets the policy of iptables' FORWARD chain to DROP, which would drop what our links forward in the host's
// namespace as well; what may pass them is decided by our own nft table. So where there is such a policy our links are let
// through: in DOCKER-USER, which Docker keeps for this purpose and leaves alone, or else in FORWARD. All of it happens in
// the namespace of the process. Rules are told to be ours by their comment.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { linkPrefix } from '#model/numbers.ts';
import { kernelFault } from './libc.ts';

const programs = ['iptables', 'ip6tables'] as const;
const comment = 'causeway';
const matches = [`-i ${linkPrefix}+`, `-o ${linkPrefix}+`] as const;
/** Hosts may have a hundred thousand rules. */
const options = { encoding: 'utf8', env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }, maxBuffer: Number.POSITIVE_INFINITY } as const;

export interface ForwardingRule {
  readonly program: (typeof programs)[number];
  readonly chain: string;
  /** As iptables-save(8) spells it, without the chain. */
  readonly rule: string;
}

interface Chains {
  /** Where rules of ours belong; undefined when nothing stops our links. */
  readonly chain: string | undefined;
  readonly rules: readonly { readonly chain: string; readonly rule: string }[];
}

/** Reads `iptables -S`. Pure. */
export function readChains(listing: string): Chains {
  const lines = listing.split('\n');
  const isDropping = lines.includes('-P FORWARD DROP');
  const isDocker = lines.includes('-A FORWARD -j DOCKER-USER');
  const rules = lines.flatMap((line) => {
    const [, chain, rule] = /^-A (\S+) (.*)$/.exec(line) ?? [];
    return chain !== undefined && rule !== undefined && /--comment (?:causeway|"causeway") /.test(`${rule} `) ? [{ chain, rule }] : [];
  });
  return { chain: isDropping && isDocker ? 'DOCKER-USER' : isDropping ? 'FORWARD' : undefined, rules };
}

const ruleOf = (match: string): string => `${match} -m comment --comment ${comment} -j ACCEPT`;

function run(program: ForwardingRule['program'], words: readonly string[]): string | undefined {
  const { status, stdout, error } = spawnSync(program, ['-w', ...words], { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  return error === undefined && status === 0 ? stdout : undefined;
}

// Without the program, or without its table in this kernel, nothing of the sort can stop our links.
const look = (program: ForwardingRule['program']): Chains => readChains(run(program, ['-S']) ?? '');

function change(program: ForwardingRule['program'], words: readonly string[]): void {
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

/** Our rules that are there. One run of iptables per family, about 4 ms each. */
export const listForwarding = (): ForwardingRule[] =>
  programs.flatMap((program) => look(program).rules.map((rule) => ({ program, ...rule })));

/** Lets our links through where a policy would stop them; the rules that were missing. Fault `kernel`. */
export function ensureForwarding(): ForwardingRule[] {
  return programs.flatMap((program) => {
    const { chain, rules } = look(program);
    if (chain === undefined) return [];
    const there = new Set(rules.filter((rule) => rule.chain === chain).map(({ rule }) => rule.replaceAll('"', '')));
    const missing = matches.map(ruleOf).filter((rule) => !there.has(rule));
    for (const rule of missing) change(program, ['-I', chain, ...rule.split(' ')]);
    return missing.map((rule) => ({ program, chain, rule }));
  });
}

/** Takes our rules away again, wherever they are. Fault `kernel`. */
export function removeForwarding(): void {
  for (const { program, chain, rule } of listForwarding()) change(program, ['-D', chain, ...rule.replaceAll('"', '').split(' ')]);
}
