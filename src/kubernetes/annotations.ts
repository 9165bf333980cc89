// What nodes tell each other of how they carry packets, as annotations of their Nodes: flannel's own, so that a node that
// follows its data path's contract and one of ours exchange traffic, and ours for what flannel has no words for. flannel
// (pkg/subnet/kube/annotations.go) leaves out Nodes without `kube-subnet-manager`; of a vxlan peer it needs the MAC of its tunnel's
// end, of a wireguard peer key and port; the address to send to is `public-ip`. By IPv6 it has tunnels of its own, over IPv6: the same
// in `backend-v6-data` and `public-ipv6`. Those of WireGuard are not spoken here.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { carryName } from '#api/schemas.ts';
import { backendData, backendOf, carryOf, readBackendData } from '#flannel/backend.ts';
import { type Cidr, type Family, familyOf, type Ip, type Mac } from '#model/ip.ts';
import { vtepMac } from '#model/numbers.ts';
import type { Carrying, CarryName, Host, RefusedCarriages, RoutedBlocks } from '#model/resources.ts';

export type Annotations = Readonly<Record<string, string>>;

const flannel = 'flannel.alpha.coreos.com/';
const own = 'causeway.dev/';
const vtepKey = `${own}vtep-mac`;
const wireguardKey = `${own}wireguard-public-key`;
/** The ranges of all pods, which the API does not tell otherwise. */
const podCidrsKey = `${own}pod-cidrs`;

/** What a controller that keeps the cloud says of its router, for nodes that carry by it: ranges that it leads to the node, and why not. */
const routedKey = `${own}routed`;
const unroutedKey = `${own}not-routed`;
/** What that controller says of carriages that the cloud does not let be: `host-gateway,bgp: why`. */
const refusedKey = `${own}not-allowed`;
/** What the node would carry by if that were not so. */
const insteadKey = `${own}instead-of`;
/** That the node's agent answers other nodes' probes. */
const probesKey = `${own}probes`;
const mostWords = 1_000;

const json = v.pipe(v.string(), v.parseJson());

const readAs = <T>(schema: v.GenericSchema<unknown, T>, value: unknown): T | undefined => {
  const read = v.safeParse(schema, value);
  return read.success ? read.output : undefined;
};

/** Separated by commas; a name of a later version is passed over. */
const carriesIn = (text: string | undefined): readonly CarryName[] | undefined =>
  text?.split(',').flatMap((name) => readAs(carryName, name) ?? []);

const cidrsIn = (text: string | undefined): readonly Cidr[] => text?.split(',').flatMap((one) => readAs(field.cidr, one) ?? []) ?? [];

/** The ranges of all pods as the node was told them. */
export const podCidrsOf = (annotations: Annotations): readonly Cidr[] => cidrsIn(annotations[podCidrsKey]);

function routedOf(annotations: Annotations): Pick<Carrying, 'routed'> {
  const [to, problem] = [annotations[routedKey], annotations[unroutedKey]];
  if (to === undefined && problem === undefined) return {};
  return { routed: { to: cidrsIn(to).slice(0, 64), ...(problem === undefined ? {} : { problem: problem.slice(0, mostWords) }) } };
}

/** What a Node that is carried by a router is told of it; undefined takes it away. */
export function writeRouted(routed: RoutedBlocks | undefined): Record<string, string | null> {
  // Ids of requests, which are others each time.
  const problem = routed?.problem?.replaceAll(/ \(request [^)]*\)/g, '').slice(0, mostWords);
  return { [routedKey]: routed === undefined || routed.to.length === 0 ? null : routed.to.join(','), [unroutedKey]: problem ?? null };
}

function refusedOf(annotations: Annotations): Pick<Carrying, 'refused' | 'insteadOf'> {
  const [, names, because] = /^([a-z,-]+): (.+)$/s.exec(annotations[refusedKey] ?? '') ?? [];
  const carries = carriesIn(names) ?? [];
  const insteadOf = readAs(carryName, annotations[insteadKey]);
  return {
    ...(because === undefined || carries.length === 0 ? {} : { refused: { carries, because: because.slice(0, mostWords) } }),
    ...(insteadOf === undefined ? {} : { insteadOf }),
  };
}

/** What a Node is told of carriages that the cloud does not let be; undefined takes it away. */
export const writeRefused = (refused: RefusedCarriages | undefined): Record<string, string | null> => ({
  [refusedKey]: refused === undefined || refused.carries.length === 0 ? null : `${refused.carries.join(',')}: ${refused.because}`,
});

export interface Told {
  readonly answersProbes: boolean;
  readonly carrying?: Carrying;
  readonly wireguard?: NonNullable<Host['wireguard']>;
  /** Where to send to, when the node says so, by IPv4 and by IPv6. */
  readonly publicIps: readonly Ip[];
}

/** How the node carries, as it says itself; a node of flannel's says only what it wants. What cannot be read was not said. */
export function readAnnotations(annotations: Annotations): Told {
  const isFlannel = annotations[`${flannel}kube-subnet-manager`] === 'true';
  const dataIn = (key: string) => (isFlannel ? readBackendData(readAs(json, annotations[flannel + key])) : {});
  const [data, data6] = [dataIn('backend-data'), dataIn('backend-v6-data')];
  const theirs = isFlannel ? carryOf[annotations[`${flannel}backend-type`] ?? ''] : undefined;
  const wants = readAs(carryName, annotations[`${own}carry`]) ?? theirs;
  const peer = data.wireguard ?? data6.wireguard;
  const publicKey = readAs(field.publicKey, annotations[wireguardKey]) ?? peer?.publicKey;
  const addresses = isFlannel ? ['public-ip', 'public-ipv6'].map((key) => readAs(field.ip, annotations[flannel + key])) : [];
  return {
    ...(wants === undefined
      ? {}
      : { carrying: carryingOf(annotations, wants, { 4: readAs(field.mac, annotations[vtepKey]) ?? data.vtepMac, 6: data6.vtepMac }) }),
    ...(publicKey === undefined ? {} : { wireguard: { ...peer, publicKey } }),
    publicIps: addresses.filter((ip) => ip !== undefined),
    answersProbes: annotations[probesKey] === 'answered',
  };
}

type Macs = Readonly<Record<Family, Mac | undefined>>;

function carryingOf(annotations: Annotations, wants: CarryName, { 4: mac, 6: mac6 }: Macs): Carrying {
  const sends = carriesIn(annotations[`${own}sends`]);
  const receives = carriesIn(annotations[`${own}receives`]);
  return {
    wants,
    ...(sends === undefined ? {} : { sends }),
    ...(receives === undefined ? {} : { receives }),
    ...(mac === undefined ? {} : { vtepMac: mac }),
    ...(mac6 === undefined ? {} : { vtepMac6: mac6 }),
    ...routedOf(annotations),
    ...refusedOf(annotations),
  };
}

export interface Telling {
  readonly carrying: Carrying;
  /** Of this host, when it can do WireGuard. */
  readonly publicKey?: string | undefined;
  readonly index: number;
  readonly vni: number;
  /** First the preferred one. */
  readonly underlay: readonly Ip[];
  /** MAC of this host's end of a tunnel over IPv6, when there is one. */
  readonly tunnel6?: Mac | undefined;
  /** Whether it has a range of IPv6. */
  readonly hasIpv6?: boolean;
  /** Of all pods. */
  readonly podCidrs?: readonly Cidr[];
}

/** What this host's Node shall say; keys with null are taken away. */
export function writeAnnotations(telling: Telling): Record<string, string | null> {
  const { carrying, publicKey, index, vni, underlay, tunnel6, hasIpv6 = false, podCidrs = [] } = telling;
  const [publicIp, publicIp6] = ([4, 6] as const).map((family) => underlay.find((ip) => familyOf(ip) === family));
  const words = { carry: carrying.wants, vni, publicKey };
  const data6 = tunnel6 === undefined ? null : backendData({ ...words, vtepMac: tunnel6 });
  return {
    ...writeOwn(telling),
    [podCidrsKey]: podCidrs.length === 0 ? null : podCidrs.join(','),
    [`${flannel}kube-subnet-manager`]: 'true',
    [`${flannel}backend-type`]: backendOf[carrying.wants] ?? carrying.wants,
    [`${flannel}backend-data`]: JSON.stringify(backendData({ ...words, vtepMac: carrying.vtepMac ?? vtepMac(index) })),
    [`${flannel}backend-v6-data`]: data6 === null ? null : JSON.stringify(data6),
    [`${flannel}public-ip`]: publicIp ?? null,
    [`${flannel}public-ipv6`]: (hasIpv6 ? publicIp6 : undefined) ?? null,
  };
}

/** Where others are to send to is said by hand, for a host behind another address, as flannel's users know it: `public-ip-overwrite`. */
export const withOverwrites = (wish: Readonly<Record<string, string | null>>, told: Annotations): Record<string, string | null> => ({
  ...wish,
  ...Object.fromEntries(
    ['public-ip', 'public-ipv6'].flatMap((key) => {
      const [wished, instead] = [wish[flannel + key] ?? undefined, told[`${flannel}${key}-overwrite`] ?? ''];
      return wished === undefined || instead === '' ? [] : [[flannel + key, instead]];
    }),
  ),
});

/** What it says to hosts of ours alone. */
export const writeOwn = ({ carrying, publicKey }: Pick<Telling, 'carrying' | 'publicKey'>): Record<string, string | null> => ({
  [`${own}carry`]: carrying.wants,
  [`${own}sends`]: carrying.sends?.join(',') ?? null,
  [`${own}receives`]: carrying.receives?.join(',') ?? null,
  [vtepKey]: carrying.vtepMac ?? null,
  [wireguardKey]: publicKey ?? null,
  [insteadKey]: carrying.insteadOf ?? null,
  [probesKey]: 'answered',
  // Of what the node does not want any more nobody would take it back.
  ...(carrying.refused !== undefined && carrying.insteadOf === undefined ? writeRefused(undefined) : {}),
});
