// What nodes tell each other of how they carry packets, as annotations of their Nodes: flannel's own, so that a node that
// follows its data path's contract and one of ours exchange traffic, and ours for what flannel has no words for. flannel
// (pkg/subnet/kube/annotations.go) leaves out Nodes without `kube-subnet-manager`; of a vxlan peer it needs the MAC of its tunnel's
// end, of a wireguard peer key and port; the address to send to is `public-ip`. Its second family has tunnels of its own, which are
// not spoken here.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { carryName } from '#api/schemas.ts';
import type { Ip, Mac } from '#model/ip.ts';
import { familyOf } from '#model/ip.ts';
import { vtepMac, wireguardPortOf } from '#model/numbers.ts';
import type { Carrying, CarryName, Host } from '#model/resources.ts';

export type Annotations = Readonly<Record<string, string>>;

const flannel = 'flannel.alpha.coreos.com/';
const own = 'causeway.dev/';
const vtepKey = `${own}vtep-mac`;
const wireguardKey = `${own}wireguard-public-key`;

const typeOf: Readonly<Partial<Record<CarryName, string>>> = {
  vxlan: 'vxlan',
  'direct-routing': 'vxlan',
  'host-gateway': 'host-gw',
  wireguard: 'wireguard',
};
const carryOf: Readonly<Record<string, CarryName>> = { vxlan: 'vxlan', 'host-gw': 'host-gateway', wireguard: 'wireguard' };

const tunnel = v.pipe(v.string(), v.parseJson(), v.object({ VtepMAC: field.mac }));
const peer = v.pipe(v.string(), v.parseJson(), v.object({ PublicKey: field.publicKey, Port: v.optional(field.port) }));

const readAs = <T>(schema: v.GenericSchema<unknown, T>, value: unknown): T | undefined => {
  const read = v.safeParse(schema, value);
  return read.success ? read.output : undefined;
};

/** Separated by commas; a name of a later version is passed over. */
const carriesIn = (text: string | undefined): readonly CarryName[] | undefined =>
  text?.split(',').flatMap((name) => readAs(carryName, name) ?? []);

export interface Told {
  readonly carrying?: Carrying;
  readonly wireguard?: NonNullable<Host['wireguard']>;
  /** Where to send to, when the node says so. */
  readonly publicIp?: Ip;
}

/** How the node carries, as it says itself; a node of flannel's says only what it wants. What cannot be read was not said. */
export function readAnnotations(annotations: Annotations): Told {
  const isFlannel = annotations[`${flannel}kube-subnet-manager`] === 'true';
  const data = isFlannel ? annotations[`${flannel}backend-data`] : undefined;
  const theirs = isFlannel ? carryOf[annotations[`${flannel}backend-type`] ?? ''] : undefined;
  const wants = readAs(carryName, annotations[`${own}carry`]) ?? theirs;
  const { PublicKey: key, Port: port } = readAs(peer, data) ?? {};
  const publicKey = readAs(field.publicKey, annotations[wireguardKey]) ?? key;
  const publicIp = isFlannel ? readAs(field.ip, annotations[`${flannel}public-ip`]) : undefined;
  return {
    ...(wants === undefined
      ? {}
      : { carrying: carryingOf(annotations, wants, readAs(field.mac, annotations[vtepKey]) ?? readAs(tunnel, data)?.VtepMAC) }),
    ...(publicKey === undefined ? {} : { wireguard: { publicKey, ...(port === undefined ? {} : { port }) } }),
    ...(publicIp === undefined ? {} : { publicIp }),
  };
}

function carryingOf(annotations: Annotations, wants: CarryName, mac: Mac | undefined): Carrying {
  const sends = carriesIn(annotations[`${own}sends`]);
  const receives = carriesIn(annotations[`${own}receives`]);
  return {
    wants,
    ...(sends === undefined ? {} : { sends }),
    ...(receives === undefined ? {} : { receives }),
    ...(mac === undefined ? {} : { vtepMac: mac }),
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
}

function backendData({ carrying, publicKey, index, vni }: Telling): unknown {
  const { wants, vtepMac: mac = vtepMac(index) } = carrying;
  if (wants === 'vxlan' || wants === 'direct-routing') return { VNI: vni, VtepMAC: mac };
  if (wants === 'wireguard') return { PublicKey: publicKey ?? '', Port: wireguardPortOf(vni) };
  return null;
}

/** What this host's Node shall say; keys with null are taken away. */
export function writeAnnotations(telling: Telling): Record<string, string | null> {
  const { carrying, publicKey, underlay } = telling;
  const publicIp = underlay.find((ip) => familyOf(ip) === 4);
  return {
    [`${flannel}kube-subnet-manager`]: 'true',
    [`${flannel}backend-type`]: typeOf[carrying.wants] ?? carrying.wants,
    [`${flannel}backend-data`]: JSON.stringify(backendData(telling)),
    [`${flannel}public-ip`]: publicIp ?? null,
    [`${own}carry`]: carrying.wants,
    [`${own}sends`]: carrying.sends?.join(',') ?? null,
    [`${own}receives`]: carrying.receives?.join(',') ?? null,
    [vtepKey]: carrying.vtepMac ?? null,
    [wireguardKey]: publicKey ?? null,
  };
}
