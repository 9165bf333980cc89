// Packet filters that this host has besides ours: firewalld's, ufw's, or rules that somebody wrote (nft(8), iptables-nft(8)). They are
// read and never changed. What iptables keeps in its older form (x_tables) is seen where iptables says so. All of it is of the namespace
// of the process.
import { tableName } from '#model/numbers.ts';
import { Ruleset } from './filter-verdict.ts';
import { hasSilentTables, inputPrograms } from './forwarding.ts';
import { nftFault, runNft } from './libnftables.ts';
import { isObject, type JsonObject, parseListing, word } from './nft-listing.ts';

export interface HostFilters {
  /** Those that may drop what comes in to the host, as nft(8) names chains. */
  readonly input: readonly string[];
  /** Of every table that has a say in what comes in or is forwarded. */
  readonly rules: Ruleset;
}

function list(what: string): readonly JsonObject[] | undefined {
  const { output, error } = runNft(`list ${what}`, { format: 'terse' });
  // It has gone since it was seen.
  if (error?.includes('No such file or directory') === true) return undefined;
  if (error !== undefined) throw nftFault(`list ${what}`, error);
  return parseListing(output);
}

const tableOf = (chain: JsonObject): string => `${word(chain['family'])} ${word(chain['table'])}`;

const isHookedOn = (chain: JsonObject, hook: string): boolean =>
  chain['type'] === 'filter' && chain['hook'] === hook && ['ip', 'ip6', 'inet'].includes(word(chain['family']));

/** `uplink`: by which others come in. Fault `kernel`. */
export function readHostFilters(uplink: string): HostFilters {
  const chains = (list('chains') ?? []).flatMap(({ chain }) =>
    isObject(chain) && !word(chain['table']).startsWith(tableName) ? [chain] : [],
  );
  const tables = new Set(chains.filter((chain) => isHookedOn(chain, 'input') || isHookedOn(chain, 'forward')).map(tableOf));
  const rules = new Ruleset([...tables].flatMap((table) => list(`table ${table}`) ?? []));
  return { input: [...rules.chainsThatMayDrop(uplink), ...(hasSilentTables() ? inputPrograms() : [])], rules };
}
