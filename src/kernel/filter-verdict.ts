// What the rules of others do with a packet, as far as it is certain: of the packet are known its links, its family and protocol, and
// that it begins a connection. A rule that asks for more (addresses, other ports, marks, what iptables keeps in a form of its own) may
// let it through or not, so whoever writes such a rule is believed to know. Pure; rules are those of libnftables-json(5).
import { isList, isObject, type Json, type JsonObject, word } from './nft-listing.ts';

export interface JudgedPacket {
  readonly hook: 'input' | 'forward';
  readonly family: 4 | 6;
  readonly iifname: string;
  readonly oifname?: string;
  readonly protocol: 'tcp' | 'udp';
  /** Where it is going; absent: not known. */
  readonly port?: number;
  /** Its destination is another one than its sender's. */
  readonly isTranslated: boolean;
}

type Verdict = 'accept' | 'drop' | 'unsure';
/** Undefined: the next rule is asked. */
type Outcome = Verdict | 'return' | undefined;

/** Calls of chains in each other; the kernel itself allows no more. */
const mostJumps = 16;

export class Ruleset {
  readonly #chains: readonly JsonObject[];
  readonly #rules: ReadonlyMap<string, readonly JsonObject[]>;

  /** `objects`: of a listing. */
  constructor(objects: readonly JsonObject[]) {
    this.#chains = objects.flatMap(({ chain }) => (isObject(chain) ? [chain] : []));
    const rules = objects.flatMap(({ rule }) => (isObject(rule) ? [rule] : []));
    this.#rules = Map.groupBy(rules, (rule) => placeOf(rule, rule['chain']));
  }

  /** The chains that are certain to drop such a packet, each by its name as nft(8) has it, with family and table. */
  chainsThatDrop(packet: JudgedPacket): string[] {
    return this.#chainsOf(packet).flatMap(({ chain, place }) => {
      const outcome = this.#walk(place, packet);
      const verdict = outcome === undefined || outcome === 'return' ? chain['policy'] : outcome;
      return verdict === 'drop' ? [place] : [];
    });
  }

  /** The chains that may drop datagrams for this host that come in by a link: which of them is not certain. */
  chainsThatMayDrop(iifname: string): string[] {
    const found = ([4, 6] as const).flatMap((family) => {
      const packet = { hook: 'input', family, iifname, protocol: 'udp', isTranslated: false } as const;
      return this.#chainsOf(packet).flatMap(({ chain, place }) =>
        chain['policy'] === 'drop' || this.#mayDrop(place, packet) ? [place] : [],
      );
    });
    return [...new Set(found)];
  }

  /** Those that such a packet comes to. */
  #chainsOf({ hook, family }: JudgedPacket): { chain: JsonObject; place: string }[] {
    return this.#chains.flatMap((chain) => {
      if (chain['hook'] !== hook || chain['type'] !== 'filter') return [];
      return chain['family'] === (family === 4 ? 'ip6' : 'ip') ? [] : [{ chain, place: placeOf(chain, chain['name']) }];
    });
  }

  #walk(chain: string, packet: JudgedPacket, jumps = 0): Outcome {
    if (jumps > mostJumps) return 'unsure';
    for (const rule of this.#rules.get(chain) ?? []) {
      const outcome = this.#ask(rule, packet, jumps);
      if (outcome !== undefined) return outcome;
    }
    return undefined;
  }

  /** Whether a rule that may hold drops it there; what earlier rules let pass is not asked. */
  #mayDrop(chain: string, packet: JudgedPacket, jumps = 0): boolean {
    return jumps <= mostJumps && (this.#rules.get(chain) ?? []).some((rule) => this.#mayDropBy(rule, packet, jumps));
  }

  #mayDropBy(rule: JsonObject, packet: JudgedPacket, jumps: number): boolean {
    for (const statement of statementsOf(rule)) {
      if (isObject(statement['match']) && matches(statement['match'], packet) === false) return false;
      if (isForOthers(statement)) return false;
      for (const one of isObject(statement['vmap']) ? verdictsOf(statement['vmap']) : [statement]) {
        if ('drop' in one || 'reject' in one) return true;
        const target = [one['jump'], one['goto']].find(isObject);
        if (target !== undefined && this.#mayDrop(placeOf(rule, target['target']), packet, jumps + 1)) return true;
      }
    }
    return false;
  }

  #ask(rule: JsonObject, packet: JudgedPacket, jumps: number): Outcome {
    let isCertain = true;
    for (const statement of statementsOf(rule)) {
      if (isObject(statement['match'])) {
        const holds = matches(statement['match'], packet);
        if (holds === false) return undefined;
        isCertain &&= holds === true;
      } else if (statement['xt'] !== undefined) {
        isCertain = false;
      } else {
        const outcome = this.#follow(isObject(statement['vmap']) ? chosen(statement['vmap'], packet) : statement, rule, { packet, jumps });
        if (outcome !== undefined) return doubted(outcome, isCertain);
      }
    }
    return undefined;
  }

  /** A verdict; undefined for what is none, such as a counter. */
  #follow(statement: JsonObject | 'unsure' | undefined, rule: JsonObject, at: { packet: JudgedPacket; jumps: number }): Outcome {
    if (statement === undefined || statement === 'unsure') return statement;
    const { jump, goto: goesTo } = statement;
    const target = isObject(jump) ? jump : isObject(goesTo) ? goesTo : undefined;
    if (target !== undefined) {
      const outcome = this.#walk(placeOf(rule, target['target']), at.packet, at.jumps + 1);
      return outcome === 'return' || outcome === undefined ? (target === goesTo ? 'return' : undefined) : outcome;
    }
    if ('accept' in statement) return 'accept';
    if ('drop' in statement || 'reject' in statement) return 'drop';
    if ('return' in statement) return 'return';
    return 'queue' in statement ? 'unsure' : undefined;
  }
}

const statementsOf = ({ expr }: JsonObject): readonly JsonObject[] => (isList(expr) ? expr.filter(isObject) : []);

const placeOf = (rule: JsonObject, chain: Json | undefined): string => `${word(rule['family'])} ${word(rule['table'])} ${word(chain)}`;

/** Of what is marked, as kubelet's are, whoever marks it knows; and nothing comes in for a loopback address. */
function isForOthers({ match, xt }: JsonObject): boolean {
  if (isObject(xt)) return xt['name'] === 'mark';
  const { left, right } = isObject(match) ? match : {};
  const { prefix } = isObject(right) ? right : {};
  return (
    JSON.stringify(left ?? '').includes('"mark"') ||
    (isObject(prefix) && isLoopback(prefix['addr']) && isObject(match) && match['op'] === '==')
  );
}

const isLoopback = (address: Json | undefined): boolean => word(address).startsWith('127.');

const verdictsOf = ({ data }: JsonObject): JsonObject[] => {
  const pairs = isObject(data) ? data['set'] : undefined;
  return isList(pairs) ? pairs.flatMap((pair) => (isList(pair) ? pair.slice(1).filter(isObject) : [])) : [];
};

/** What a rule that may hold or not comes to: what it drops may pass, and so may what it lets pass. */
const doubted = (outcome: Outcome, isCertain: boolean): Outcome => (isCertain ? outcome : outcome === 'drop' ? undefined : 'unsure');

/** Undefined: it may be or not. */
function matches({ op, left, right }: JsonObject, packet: JudgedPacket): boolean | undefined {
  const known = isObject(left) ? valueOf(left, packet) : undefined;
  if (known === undefined || !['==', 'in', '!='].includes(word(op))) return undefined;
  if (known === 'other') return false;
  const wanted = wordsOf(right);
  if (wanted === undefined) return undefined;
  return wanted.some((one) => isSame(one, known)) === (op !== '!=');
}

/** What the packet has there; `other`: it is of another family or protocol, so that no such rule holds. */
function valueOf({ meta, ct, payload }: JsonObject, packet: JudgedPacket): string | undefined {
  if (isObject(payload)) return fieldOf(payload, packet);
  const { family, iifname, oifname = '', protocol, isTranslated } = packet;
  if (isObject(meta)) {
    return new Map([
      ['iifname', iifname],
      ['oifname', oifname],
      ['nfproto', `ipv${family}`],
      ['protocol', family === 4 ? 'ip' : 'ip6'],
      ['l4proto', protocol],
    ]).get(word(meta['key']));
  }
  return isObject(ct)
    ? new Map([
        ['state', 'new'],
        ['status', isTranslated ? 'dnat' : 'none'],
      ]).get(word(ct['key']))
    : undefined;
}

function fieldOf(payload: JsonObject, { family, protocol, port }: JudgedPacket): string | undefined {
  const [header, field] = [word(payload['protocol']), word(payload['field'])];
  if (header === (family === 4 ? 'ip' : 'ip6')) return field === 'protocol' || field === 'nexthdr' ? protocol : undefined;
  if (header !== protocol && header !== 'th') return header === '' ? undefined : 'other';
  return field === 'dport' && port !== undefined ? `${port}` : undefined;
}

/** Undefined for a named set, whose elements are not read. */
function wordsOf(right: Json | undefined): readonly string[] | undefined {
  if (isObject(right)) return wordsOf(right['set']);
  if (isList(right)) return right.every((one) => !isObject(one)) ? right.map(word) : undefined;
  const one = word(right);
  return one === '' || one.startsWith('@') ? undefined : [one];
}

const isSame = (wanted: string, found: string): boolean =>
  wanted.endsWith('*') ? found.startsWith(wanted.slice(0, -1)) : wanted === found;

/** The verdict that a map has for the packet; undefined where it has none. */
function chosen({ key, data }: JsonObject, packet: JudgedPacket): JsonObject | 'unsure' | undefined {
  const known = isObject(key) ? valueOf(key, packet) : undefined;
  const pairs = isObject(data) ? data['set'] : undefined;
  if (known === undefined || !isList(pairs)) return 'unsure';
  for (const pair of pairs) {
    const [wanted, verdict] = isList(pair) ? pair : [];
    if (isSame(word(wanted), known)) return isObject(verdict) ? verdict : 'unsure';
  }
  return undefined;
}
