// How flannel names ways of carrying, and what a host tells others of its own (pkg/backend/*): the MAC of its tunnel's end
// with vxlan, key and port with wireguard, nothing with host-gw. The same in leases in etcd and in annotations of Nodes.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Mac } from '#model/ip.ts';
import { wireguardPortOf } from '#model/numbers.ts';
import type { CarryName, Host } from '#model/resources.ts';

export const backendOf: Readonly<Partial<Record<CarryName, string>>> = {
  vxlan: 'vxlan',
  'direct-routing': 'vxlan',
  'host-gateway': 'host-gw',
  wireguard: 'wireguard',
};
export const carryOf: Readonly<Record<string, CarryName>> = { vxlan: 'vxlan', 'host-gw': 'host-gateway', wireguard: 'wireguard' };

/** The device of the backend `wireguard`, and where the host's key is (Documentation/backends.md). */
export const flannelWireguard = { link: 'flannel-wg', key: '/run/flannel/wgkey' } as const;

const tunnel = v.object({ VtepMAC: field.mac });
/** Older releases do not say the port, and take their own for it. */
const peer = v.object({ PublicKey: field.publicKey, Port: v.optional(field.port) });

export interface BackendData {
  readonly vtepMac?: Mac;
  readonly wireguard?: NonNullable<Host['wireguard']>;
}

/** What cannot be read was not said. */
export function readBackendData(data: unknown): BackendData {
  const mac = v.safeParse(tunnel, data);
  const key = v.safeParse(peer, data);
  const { PublicKey: publicKey, Port: port } = key.success ? key.output : {};
  return {
    ...(mac.success ? { vtepMac: mac.output.VtepMAC } : {}),
    ...(publicKey === undefined ? {} : { wireguard: { publicKey, ...(port === undefined ? {} : { port }) } }),
  };
}

export interface BackendWords {
  readonly carry: CarryName;
  readonly vni: number;
  readonly vtepMac: Mac;
  readonly publicKey: string | undefined;
}

/** Null: the backend tells nothing. */
export function backendData({ carry, vni, vtepMac, publicKey }: BackendWords): object | null {
  if (carry === 'vxlan' || carry === 'direct-routing') return { VNI: vni, VtepMAC: vtepMac };
  if (carry === 'wireguard') return { PublicKey: publicKey ?? '', Port: wireguardPortOf(vni) };
  return null;
}
