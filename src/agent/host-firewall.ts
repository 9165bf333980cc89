// What a firewall of the host's own (firewalld, ufw, rules of nft) does to containers' packets, for people to know. What comes in to
// the host is told by probes of others that came as far as the link; what the host forwards by reading the rules, as far as they leave
// no doubt. Nothing of it is changed: the firewall is the operator's.
import { type Desired, familiesOf } from '#model/desired.ts';
import { endpointLink, linkPrefix } from '#model/numbers.ts';
import { firstOf } from '#model/words.ts';
import { type JudgedPacket, Ruleset } from '#kernel/filter-verdict.ts';
import type { HostFilters } from '#kernel/host-filters.ts';
import type { ShutPort } from '#kernel/probe-sockets.ts';

export interface HostFirewallOptions {
  /** Fault `kernel`. */
  readonly read: (uplink: string) => HostFilters;
  readonly desired: () => Desired;
  /** Name of the host's link to others. */
  readonly uplink: () => string | undefined;
  readonly shut: () => readonly ShutPort[];
  /** Another host's name by its address. */
  readonly hostOf: (ip: ShutPort['from']) => string;
  /** Milliseconds of a clock that nobody sets. */
  readonly now: () => number;
}

const lookMs = 60_000;
/** Until what was found is looked at once more, as it may have been half-made: Docker, say, forbids forwarding before the agent lets its own pass. */
const againMs = 10_000;
/** Of the time, no more than a hundredth is spent on reading rules, of which a host may have a hundred thousand: nothing else goes on then. */
const leisure = 100;
const none: HostFilters = { input: [], rules: new Ruleset([]) };
const advice = 'What to let pass is in docs/install.md, "A firewall on the host"';

export class HostFirewall {
  readonly #options: HostFirewallOptions;
  #filters = none;
  /** By the last look; told is what the one before has found, too. */
  #found: readonly string[] = [];
  #told: readonly string[] = [];
  #nextLookAt = Number.NEGATIVE_INFINITY;

  constructor(options: HostFirewallOptions) {
    this.#options = options;
  }

  /** Whether something of others may drop what comes in to the host. Fault `kernel`. */
  isFiltering(): boolean {
    this.#look();
    return this.#filters.input.length > 0;
  }

  /** Sentences without a full stop. Fault `kernel`. */
  problems(): readonly string[] {
    this.#look();
    return [...this.#shutPorts(), ...this.#told];
  }

  #look(): void {
    const { now, read, uplink } = this.#options;
    const startedAt = now();
    if (startedAt < this.#nextLookAt) return;
    const link = uplink();
    if (link === undefined) return;
    this.#filters = read(link);
    const found = this.#dropped(link);
    this.#told = found.filter((sentence) => this.#found.includes(sentence));
    this.#found = found;
    const endedAt = now();
    this.#nextLookAt = endedAt + Math.max(found.length > 0 ? againMs : lookMs, (endedAt - startedAt) * leisure);
  }

  #shutPorts(): string[] {
    const { shut, hostOf } = this.#options;
    return [...Map.groupBy(shut(), ({ port }) => port)].map(
      ([port, those]) =>
        `UDP port ${port}: packets of ${named([...new Set(those.map(({ from }) => hostOf(from)))].toSorted())} come in, and this host's own firewall (${named(this.#filters.input)}) drops them. ${advice}`,
    );
  }

  #dropped(uplink: string): string[] {
    const desired = this.#options.desired();
    const families = familiesLed(desired);
    const dropped = waysOf(desired, uplink).flatMap(({ what, packet }) => {
      const chains = families.flatMap((family) => this.#filters.rules.chainsThatDrop({ ...packet, family }));
      return chains.length === 0 ? [] : [{ what, by: named([...new Set(chains)]) }];
    });
    return [...Map.groupBy(dropped, ({ by }) => by)].map(
      ([by, those]) => `This host's own firewall (${by}) drops ${those.map(({ what }) => what).join(', ')}. ${advice}`,
    );
  }
}

const named = (names: readonly string[]): string => firstOf(names, 4);

/** Of what the host leads to containers. */
const familiesLed = ({ route }: Desired) =>
  familiesOf(
    route.filter(({ netns, link }) => netns === '' && link?.startsWith(linkPrefix) === true).map(({ destination }) => destination),
  );

interface Way {
  readonly what: string;
  readonly packet: Omit<JudgedPacket, 'family'>;
}

/** What containers here are known to send or be sent through the host's own namespace. */
function waysOf(desired: Desired, uplink: string): Way[] {
  const links = desired.link.filter(({ netns, type }) => netns === '' && type === 'veth').map(({ name }) => name);
  const [link] = links;
  if (link === undefined) return [];
  const out = { hook: 'forward', iifname: link, oifname: uplink, protocol: 'tcp', isTranslated: false } as const;
  const back = { ...out, iifname: uplink, oifname: link };
  const elements = desired.element.filter(({ netns }) => netns === '');
  const isPublished = elements.some(({ set, value }) => value !== undefined && set.startsWith('published'));
  // Routes to other hosts' blocks that lead out as they are: host-gateway, direct-routing, BGP.
  const isPlain = desired.route.some((one) => one.netns === '' && one.type === 'unicast' && one.link === uplink);
  // Links of containers themselves; those of other networks are in a namespace of their own.
  const isShared = links.some((name) => name.startsWith(endpointLink('')));
  const namesPort = elements.find(({ set }) => set.startsWith('names'))?.value?.split(' . ')[1];
  const question = { hook: 'input', iifname: link, protocol: 'udp', port: Number(namesPort), isTranslated: true } as const;
  return [
    { what: 'what containers send to the outside', packet: out },
    ...(isShared ? [{ what: 'what they send each other', packet: { ...out, oifname: link } }] : []),
    ...(isPublished ? [{ what: 'what comes for published ports', packet: { ...back, isTranslated: true } }] : []),
    ...(isPlain ? [{ what: 'what comes to containers from other hosts', packet: back }] : []),
    ...(namesPort === undefined ? [] : [{ what: "containers' questions for names", packet: question }]),
  ];
}
