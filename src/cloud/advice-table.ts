// The networking models as a choice for a cloud: what each gives and lacks, the ways in which it can be carried, what speaks for and
// against it. `causeway plan` judges by this table, and docs/openstack-models.md is made of it. What a model is made of is said in
// drivers/models.ts; which models there are already as well.
import { type FrontEndName, frontEndTexts, models } from '#drivers/models.ts';
import type { Overhead } from '#drivers/driver.ts';
import { vxlanOverhead } from '#drivers/tunnels.ts';
import type { CarryName, ModelName } from '#model/resources.ts';

export const features = ['isolation', 'encryption', 'policy', 'addressable'] as const;
export type Feature = (typeof features)[number];
export const frontEnds = ['docker', 'kubernetes'] as const;
export type FrontEnd = (typeof frontEnds)[number];

export const featureTexts: Readonly<Record<Feature, string>> = {
  isolation: 'networks that cannot reach each other and may use the same addresses',
  encryption: 'packets between hosts are encrypted',
  policy: 'rules about which containers may talk to which',
  addressable: "containers are reached by the cloud's other instances under their own addresses",
};

/** A sentence without a full stop, and whether it is a yes. */
export interface Trait {
  readonly has: boolean;
  readonly why: string;
}

export interface Way {
  /** For people and for `--carry`. */
  readonly carry: string;
  /** What of ours asks the same of the cloud; absent: what is asked is in this row alone. */
  readonly as?: { readonly model: ModelName; readonly carry: CarryName };
  /** Bytes that somebody else's driver adds; absent: as ours does. */
  readonly adds?: readonly Overhead[];
  readonly isEncrypted?: true;
  /** Packets have containers' addresses, so ports need address pairs, and routers may lead to containers. */
  readonly isPlain?: true;
  /** A router must lead to each host's block. */
  readonly isRouted?: true;
  /** Each container has a port in Neutron. */
  readonly hasPorts?: true;
  /** Which is a sub-port of the host's. */
  readonly isTrunk?: true;
}

export interface AdvisedModel {
  /** Of one that is planned; absent: the model is there, and drivers/models.ts says it. */
  readonly planned?: { readonly summary: string; readonly frontEnds: readonly FrontEnd[] };
  readonly traits: Readonly<Record<Feature, Trait>>;
  /** The preferred one first. */
  readonly ways: readonly Way[];
  readonly pros: readonly string[];
  readonly cons: readonly string[];
}

const no = (why: string): Trait => ({ has: false, why });
const yes = (why: string): Trait => ({ has: true, why });

const isOne = no('other networks are kept out, but their ranges must differ, and hosts reach every container');
const podPolicy = (model: string): Trait =>
  yes(`with Kubernetes: its own policies and Calico's, enforced on the nodes; for Docker networks of ${model} there are none`);
const noPolicy = no('policies are enforced for pods of Kubernetes with flannel, calico or routes only');
const routed = yes('in a plain carriage, once a router of the cloud knows the ways (causeway cloud apply --routes)');
/** Moby, drivers/overlay/encryption.go: SPI, sequence number, IV, padding length, next header, ICV. */
const ipsec: Overhead = { what: 'IPsec of Docker (ESP)', bytes: 26 };

export const advisedNames = ['flannel', 'calico', 'overlay', 'contiv', 'neutron', 'routes', 'swarm'] as const;
export type AdvisedName = (typeof advisedNames)[number];

export const advisedModels: Readonly<Record<AdvisedName, AdvisedModel>> = {
  flannel: {
    traits: {
      isolation: isOne,
      encryption: yes('carried by WireGuard, in the kernel or by wireguard-go'),
      policy: podPolicy('flannel'),
      addressable: routed,
    },
    ways: [
      { carry: 'host-gateway', as: { model: 'flannel', carry: 'host-gateway' }, isPlain: true },
      { carry: 'vxlan', as: { model: 'flannel', carry: 'vxlan' } },
      { carry: 'wireguard', as: { model: 'flannel', carry: 'wireguard' }, isEncrypted: true },
    ],
    pros: ['one route per host, nothing to operate beside the hosts', 'what Kubernetes users and Magnum know'],
    cons: ['a block of addresses (/24 unless said otherwise) belongs to each host, used or not'],
  },
  calico: {
    traits: {
      isolation: isOne,
      encryption: no('its routes are plain'),
      policy: podPolicy('calico'),
      addressable: routed,
    },
    ways: [{ carry: 'bgp', as: { model: 'calico', carry: 'bgp' }, isPlain: true }],
    pros: ['small blocks: addresses go where containers are', 'routers around the hosts can learn the ways by BGP'],
    cons: ['BIRD runs on every host'],
  },
  overlay: {
    traits: {
      isolation: yes('each network has a routing table of its own on every host'),
      encryption: yes('carried by WireGuard, in the kernel or by wireguard-go'),
      policy: noPolicy,
      addressable: no('nothing leads into a network but what is exposed on a host'),
    },
    ways: [
      { carry: 'vxlan', as: { model: 'overlay', carry: 'vxlan' } },
      { carry: 'wireguard', as: { model: 'overlay', carry: 'wireguard' }, isEncrypted: true },
    ],
    pros: ['needs no right beyond security groups', "what Docker users know: names, published ports, ranges of one's own choice"],
    cons: ["the cloud sees hosts' packets only, not containers'"],
  },
  contiv: {
    planned: {
      summary: 'Tenants with networks of their own, groups of containers and rules between groups.',
      frontEnds: ['docker', 'kubernetes'],
    },
    traits: {
      isolation: yes('tenants and networks are apart and may overlap'),
      encryption: no('VXLAN in the clear'),
      policy: yes('rules between groups of containers'),
      addressable: no('nothing leads into a network but what is exposed on a host'),
    },
    ways: [{ carry: 'vxlan', as: { model: 'overlay', carry: 'vxlan' } }],
    pros: ['policy for Docker', 'bandwidth and DSCP per group'],
    cons: ["the cloud sees hosts' packets only, not containers'"],
  },
  neutron: {
    traits: {
      isolation: no(
        "its containers are on a subnet of the cloud as instances are, the hosts' own unless their ports are parents of trunks",
      ),
      encryption: no("containers' packets are the cloud's to carry"),
      policy: yes('security groups of their own, on hosts whose port is the parent of a trunk'),
      addressable: yes('like an instance, without encapsulation'),
    },
    ways: [
      { carry: 'address-pairs', isPlain: true, adds: [], hasPorts: true },
      { carry: 'sub-ports', isPlain: true, adds: [], hasPorts: true, isTrunk: true },
    ],
    pros: ['nothing is added to a packet by Causeway', 'floating IPs of the cloud lead to a container itself'],
    cons: [
      'each container takes an address of the subnet and a port of the quota, of which a host has eight made at a time, and as a sub-port a VLAN of its host, otherwise an address pair',
      "only hosts whose port is the parent of a trunk have containers' ports as its sub-ports",
      'while Neutron is away only ports in stock are given out, or addresses without one by --fallback',
    ],
  },
  routes: {
    traits: {
      isolation: isOne,
      encryption: no('plain packets'),
      policy: podPolicy('routes'),
      addressable: yes("the router of the hosts' network leads to them"),
    },
    ways: [{ carry: 'routes', as: { model: 'routes', carry: 'routes' }, isPlain: true, isRouted: true }],
    pros: [
      'hosts need not know of each other',
      'nothing is added to a packet, and each host may send with the addresses of its own containers only',
    ],
    cons: [
      'packets between hosts take the way by the router',
      'with Kubernetes a node takes no pods before the router knows its range: somebody has to keep the cloud',
    ],
  },
  swarm: {
    traits: {
      isolation: yes("Docker's overlay driver"),
      encryption: yes("IPsec of Docker's; the hosts need ESP (protocol 50) between them, and kernels that have it"),
      policy: noPolicy,
      addressable: no('nothing leads into a network but published ports'),
    },
    ways: [
      { carry: 'docker', as: { model: 'swarm', carry: 'docker' }, adds: vxlanOverhead(4) },
      { carry: 'docker, encrypted', as: { model: 'swarm', carry: 'docker' }, adds: [...vxlanOverhead(4), ipsec], isEncrypted: true },
    ],
    pros: ["Docker's own driver, as it is"],
    cons: ['the hosts must be one Swarm'],
  },
};

const isThere = (name: AdvisedName): name is AdvisedName & ModelName => Object.hasOwn(models, name);

/** Whether this version has the model. */
export const isAvailable = (name: AdvisedName): boolean => isThere(name);

export const summaryOf = (name: AdvisedName): string =>
  isThere(name) ? models[name].summary : (advisedModels[name].planned?.summary ?? '');

const frontEndsOf = (name: AdvisedName): readonly FrontEndName[] =>
  isThere(name) ? models[name].frontEnds : (advisedModels[name].planned?.frontEnds ?? []);

export const frontEndsText = (name: AdvisedName): string =>
  frontEndsOf(name)
    .map((one) => frontEndTexts[one])
    .join(', ');

const within: Readonly<Record<FrontEnd, readonly FrontEndName[]>> = {
  docker: ['docker', 'swarm'],
  kubernetes: ['kubernetes', 'pod-networks'],
};

export const servesFrontEnd = (name: AdvisedName, frontEnd: FrontEnd): boolean =>
  frontEndsOf(name).some((one) => within[frontEnd].includes(one));

/** Whether the pods' own network may be of the model; otherwise only further ones, which pods ask for. */
export const isClusterModel = (name: AdvisedName): boolean => frontEndsOf(name).includes('kubernetes');
