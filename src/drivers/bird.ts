// A speaker in the language of BIRD 2 (its user's guide, "Configuration"): pure text, so that what runs on a host can be read
// and compared. Passwords are in a text of their own, which the first one includes.
import type { BgpRule, Direction } from '#model/bgp.ts';
import type { BirdConfig } from '#model/desired.ts';
import { bitsOf, type Cidr, cidrLength, type Family, familyOf, hostPrefix } from '#model/ip.ts';
import { heldRouteProtocol, linkPrefix } from '#model/numbers.ts';
import type { Session, Speaker } from './speaker.ts';

/** Name of the file with the passwords, beside the configuration. */
export const secretsFile = 'secrets.conf';

const families = [4, 6] as const;
/** Kernel metrics and BGP's local preference run in opposite directions; with this they become each other. */
const highest = 2_147_483_647;
/** Of a route that nobody prefers to others (`default bgp_local_pref` of BIRD). */
const usualPreference = 100;

const block = (head: string, lines: readonly string[], indent = ''): string[] => [
  `${indent}${head} {`,
  ...lines.map((line) => (line === '' ? '' : `${indent}  ${line}`)),
  `${indent}}`,
];

const of = (family: Family, ranges: readonly Cidr[]): Cidr[] => ranges.filter((range) => familyOf(range) === family);
const within = (ranges: readonly Cidr[]): string => `net ~ [ ${ranges.map((range) => `${range}+`).join(', ')} ]`;

/** Communities have two numbers, large ones three. */
function community(value: string): { readonly set: string; readonly text: string } {
  const numbers = value.split(':');
  return { set: numbers.length === 3 ? 'bgp_large_community' : 'bgp_community', text: `(${numbers.join(',')})` };
}
const addCommunity = (value: string): string => `${community(value).set}.add(${community(value).text});`;

function rangeTest({ cidr, operator, lengths }: BgpRule['match'], family: Family): string[] {
  if (cidr === undefined || operator === undefined) return [];
  const { min, max } = lengths ?? { min: cidrLength(cidr), max: bitsOf(family) };
  switch (operator) {
    case 'Equal':
      return [`net = ${cidr}`];
    case 'NotEqual':
      return [`net != ${cidr}`];
    case 'In':
      return [`net ~ [ ${cidr}{${min},${max}} ]`];
    case 'NotIn':
    default:
      return [`net !~ [ ${cidr}{${min},${max}} ]`];
  }
}

function tests({ match }: BgpRule, family: Family): string[] {
  const { community: wanted, pathBegins, priority } = match;
  return [
    ...rangeTest(match, family),
    ...(match.learned === true ? ['source = RTS_BGP'] : []),
    ...(match.interface === undefined ? [] : [`defined(ifname)`, `ifname ~ "${match.interface}"`]),
    ...(wanted === undefined ? [] : [`${community(wanted).text} ~ ${community(wanted).set}`]),
    ...(pathBegins === undefined ? [] : [`bgp_path ~ [= ${pathBegins.join(' ')} * =]`]),
    ...(priority === undefined ? [] : [`bgp_local_pref = ${highest - priority}`]),
  ];
}

function changes(rule: BgpRule): string[] {
  return rule.changes.flatMap((change) => {
    switch (change.type) {
      case 'community':
        return [addCommunity(change.value)];
      case 'prepend':
        return change.path.toReversed().map((asn) => `bgp_path.prepend(${asn});`);
      case 'priority':
      default:
        return [`bgp_local_pref = ${highest - change.value};`];
    }
  });
}

const isInternal = ({ asn, peerAsn }: Session): boolean => asn === peerAsn;

/** The rules of the session's filters, in order: each one that fits decides. */
function ruled(session: Session, direction: Direction): string[] {
  const kind = isInternal(session) ? 'iBGP' : 'eBGP';
  return session.filters.flatMap(({ rules }) =>
    rules[`${direction}${session.family}`]
      .filter(({ match }) => (match.peer ?? kind) === kind)
      .map((rule) => {
        const condition = tests(rule, session.family).map((test) => `(${test})`);
        const end = [...changes(rule), rule.accept ? 'accept;' : 'reject;'].join(' ');
        return condition.length === 0 ? end : `if ${condition.join(' && ')} then { ${end} }`;
      }),
  );
}

function importRules({ ranges, services, near }: Speaker, session: Session): string[] {
  const { family } = session;
  const [inside, own, close] = [of(family, ranges), of(family, services), of(family, near.ranges)];
  // An address is compared with one prefix at a time: with a set of them the filter fails, which refuses the route.
  const isFar = of(family, near.subnets).map((subnet) => `bgp_next_hop !~ ${subnet}`);
  return [
    ...ruled(session, 'import'),
    ...(own.length === 0 ? [] : [`if ${within(own)} then reject;`]),
    ...(close.length === 0 || isFar.length === 0 ? [] : [`if ${[within(close), ...isFar].join(' && ')} then reject;`]),
    ...(session.isMesh ? [...(inside.length === 0 ? [] : [`if ${within(inside)} then accept;`]), 'reject;'] : ['accept;']),
  ];
}

function exportRules({ ranges, services, communities }: Speaker, session: Session): string[] {
  const { family } = session;
  const marks = communities
    .filter(({ cidr }) => familyOf(cidr) === family)
    .map(({ cidr, values }) => `if ${within([cidr])} then { ${values.map(addCommunity).join(' ')} }`);
  const cluster = of(family, [...ranges, ...services]);
  // What is told on counts as farther away than what its owner tells.
  const passOn =
    session.reflectsIn !== undefined ? 'accept;' : isInternal(session) ? undefined : `{ bgp_path.prepend(${session.asn}); accept; }`;
  return [
    ...marks,
    ...ruled(session, 'export'),
    `if proto = "own${family}" then accept;`,
    ...(session.isMesh ? [] : [`if proto = "services${family}" then accept;`]),
    ...(passOn === undefined || cluster.length === 0 ? [] : [`if source = RTS_BGP && ${within(cluster)} then ${passOn}`]),
    'reject;',
  ];
}

const hop: Readonly<Record<Session['nextHop'], readonly string[]>> = { auto: [], self: ['next hop self;'], keep: ['next hop keep;'] };

function renderSession(speaker: Speaker, session: Session): string[] {
  const { name, family, local, asn, peer, port, peerAsn, restartSeconds, hops, reflectsIn, ownAsnAllowed } = session;
  return block(`protocol bgp ${name}`, [
    `description "${session.description}";`,
    `local ${local === undefined ? '' : `${local} `}port ${speaker.port} as ${asn};`,
    `neighbor ${peer} port ${port} as ${peerAsn};`,
    hops === undefined ? 'multihop;' : `multihop ${hops};`,
    ...(hops === undefined ? [] : ['ttl security on;']),
    ...(session.isPassive ? ['passive on;'] : []),
    ...(session.password === undefined ? [] : ['authentication md5;', `password secret_${name};`]),
    ...(reflectsIn === undefined ? [] : ['rr client;', `rr cluster id ${reflectsIn};`]),
    ...(ownAsnAllowed === undefined ? [] : [`allow local as ${ownAsnAllowed};`]),
    'graceful restart on;',
    ...(restartSeconds === undefined ? [] : [`graceful restart time ${restartSeconds};`]),
    'hold time 90;',
    'connect delay time 1;',
    'connect retry time 5;',
    'error wait time 1, 30;',
    ...block(`ipv${family}`, [
      ...hop[session.nextHop],
      ...block('import filter', importRules(speaker, session)).map((line, index, all) => (index === all.length - 1 ? `${line};` : line)),
      ...block('export filter', exportRules(speaker, session)).map((line, index, all) => (index === all.length - 1 ? `${line};` : line)),
    ]).map((line, index, all) => (index === all.length - 1 ? `${line};` : line)),
  ]);
}

/** Routes that are only there to be announced: packets never see them. */
function announced(name: string, family: Family, ranges: readonly Cidr[]): string[] {
  return block(`protocol static ${name}${family}`, [`ipv${family};`, ...of(family, ranges).map((range) => `route ${range} blackhole;`)]);
}

/** How to reach peers that are behind a certain gateway. */
function gateways(family: Family, sessions: readonly Session[]): string[] {
  const routes = sessions.flatMap(({ peer, reachableBy, ...session }) =>
    reachableBy === undefined || session.family !== family ? [] : [`route ${hostPrefix(peer)} via ${reachableBy};`],
  );
  return block(`protocol static gateways${family}`, [`ipv${family};`, ...new Set(routes)]);
}

/**
 * With one metric for all routes BIRD replaces a route in the kernel at one go, whatever changes of it. Where each has its own, which is
 * what 0 means, it takes the route away and brings it back, and what comes in between finds none (`nl_allow_replace` of BIRD 2.17).
 */
const metricOf = ({ hasPriorities }: Speaker): number => (hasPriorities ? 0 : highest - usualPreference);

function kernel(speaker: Speaker, family: Family): string[] {
  return block(`protocol kernel kernel${family}`, [
    'learn;',
    'persist;',
    'graceful restart;',
    'merge paths on;',
    `metric ${metricOf(speaker)};`,
    `ipv${family} { import filter from_kernel; export filter to_kernel; };`,
  ]);
}

/** The same speaker gives the same text. */
export function renderBird(speaker: Speaker): Omit<BirdConfig, 'netns'> {
  const { sessions } = speaker;
  const text = [
    '# Written by causeway, which overwrites it: see docs/bgp.md.',
    'log stderr { warning, error, auth, fatal, bug };',
    `include "${secretsFile}";`,
    `router id ${speaker.routerId};`,
    'graceful restart wait 30;',
    'protocol device {}',
    `protocol direct { ipv4; ipv6; interface -"${linkPrefix}*", "*"; }`,
    '',
    '# Only to find the way to next hops; links to containers and tunnels are not looked at.',
    ...block('filter from_kernel', [
      'if dest != RTD_UNICAST then reject;',
      `if ifname ~ "${linkPrefix}*" then reject;`,
      `if krt_source = ${heldRouteProtocol} then reject;`,
      'accept;',
    ]),
    '# What was learned; whatever way the host itself has to the same range is preferred.',
    ...block('filter to_kernel', [
      'if proto = "gateways4" || proto = "gateways6" then accept;',
      'if source != RTS_BGP then reject;',
      ...(speaker.hasPriorities ? [`krt_metric = ${highest} - bgp_local_pref;`] : []),
      // An address of the other family fits none of them.
      ...speaker.narrow.map(({ ip, mtu }) => `if bgp_next_hop = ${ip} then krt_mtu = ${mtu};`),
      'accept;',
    ]),
    ...families.flatMap((family) => kernel(speaker, family)),
    '',
    ...families.flatMap((family) => [
      ...announced('own', family, speaker.own),
      ...announced('services', family, speaker.services),
      ...gateways(family, sessions),
    ]),
    ...sessions.flatMap((session) => ['', ...renderSession(speaker, session)]),
    '',
  ];
  const secrets = sessions.flatMap(({ name, password }) => (password === undefined ? [] : [`define secret_${name} = "${password}";`]));
  return { text: text.join('\n'), secrets: secrets.map((line) => `${line}\n`).join('') };
}
