// What nodes tell each other of how they carry packets, as annotations of their Nodes: flannel's own, so that a node that
// follows its data path's contract and one of ours exchange traffic, and ours for what flannel has no words for. flannel
// (pkg/subnet/kube/annotations.go) leaves out Nodes without `kube-subnet-manager`; of a vxlan peer it needs the MAC of its tunnel's
// end, of a wireguard peer key and port; the address to send to is `public-ip`. Its second family has tunnels of its own, which are
// not spoken here.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { carryName } from '#api/schemas.ts';
import { backendData, backendOf, carryOf, readBackendData } from '#flannel/backend.ts';
import type { Ip, Mac } from '#model/ip.ts';
import { familyOf } from '#model/ip.ts';
import { vtepMac } from '#model/numbers.ts';
import type { Carrying, CarryName, Host } from '#model/resources.ts';

export type Annotations = Readonly<Record<string, string>>;

const flannel = 'flannel.alpha.coreos.com/';
const own = 'causeway.dev/';
const vtepKey = `${own}vtep-mac`;
const wireguardKey = `${own}wireguard-public-key`;

const json = v.pipe(v.string(), v.parseJson());

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
  const data = isFlannel ? readBackendData(readAs(json, annotations[`${flannel}backend-data`])) : {};
  const theirs = isFlannel ? carryOf[annotations[`${flannel}backend-type`] ?? ''] : undefined;
  const wants = readAs(carryName, annotations[`${own}carry`]) ?? theirs;
  const publicKey = readAs(field.publicKey, annotations[wireguardKey]) ?? data.wireguard?.publicKey;
  const publicIp = isFlannel ? readAs(field.ip, annotations[`${flannel}public-ip`]) : undefined;
  return {
    ...(wants === undefined ? {} : { carrying: carryingOf(annotations, wants, readAs(field.mac, annotations[vtepKey]) ?? data.vtepMac) }),
    ...(publicKey === undefined ? {} : { wireguard: { ...data.wireguard, publicKey } }),
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

/** What this host's Node shall say; keys with null are taken away. */
export function writeAnnotations(telling: Telling): Record<string, string | null> {
  const { carrying, publicKey, index, vni, underlay } = telling;
  const publicIp = underlay.find((ip) => familyOf(ip) === 4);
  return {
    [`${flannel}kube-subnet-manager`]: 'true',
    [`${flannel}backend-type`]: backendOf[carrying.wants] ?? carrying.wants,
    [`${flannel}backend-data`]: JSON.stringify(
      backendData({ carry: carrying.wants, vni, vtepMac: carrying.vtepMac ?? vtepMac(index), publicKey }),
    ),
    [`${flannel}public-ip`]: publicIp ?? null,
    [`${own}carry`]: carrying.wants,
    [`${own}sends`]: carrying.sends?.join(',') ?? null,
    [`${own}receives`]: carrying.receives?.join(',') ?? null,
    [vtepKey]: carrying.vtepMac ?? null,
    [wireguardKey]: publicKey ?? null,
  };
}
